//! Reads and writes PostgreSQL, over binary `COPY` both ways.
//!
//! | module | what it does |
//! |---|---|
//! | `connect`, `tls` | opens connections |
//! | `fault` | turns what the server says into coded errors without values |
//! | `sql` | quotes names, and keeps values out of SQL |
//! | `types`, `numeric`, `decode`, `encode`, `json` | types and values |
//! | `binds` | gives a query's binds their values |
//! | `catalog` | asks for relations, columns and keys |
//! | `profile`, `split`, `read`, `range` | the source |
//! | `inspect`, `ddl`, `write`, `pipe`, `staged`, `effects` | the sink |

mod binds;
mod catalog;
mod connect;
mod ddl;
mod decode;
mod effects;
mod encode;
mod fault;
mod inspect;
mod json;
mod numeric;
mod pipe;
mod profile;
mod range;
mod read;
mod split;
mod sql;
mod staged;
mod tls;
mod types;
mod write;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    facts::{SinkInspection, SourceProfile},
    id::Name,
    spec::{self, FileFormat, Locator, SinkMode},
    task::{Partition, RunContext, SinkCounts, SinkRef, SinkWrite, SourceRead, Split, WriteStrategy},
};

use self::{
    catalog::Relation,
    connect::{Session, table_of},
    effects::Books,
    fault::Subject,
};
use super::{BatchStream, Begin, Environment, ReadContext, Sink, Source, WriteContext};
use crate::error::Result;

/// Reads tables and queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresSource;

/// Writes tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresSink;

// === impl PostgresSource ===

impl PostgresSource {
    /// Makes a source; it holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn open(&self, read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)> {
        read::open(read, context).await
    }

    async fn split(&self, split: &Split, context: &ReadContext) -> Result<Vec<Partition>> {
        split::split(split, context).await
    }

    async fn profile(
        &self,
        name: &Name,
        source: &spec::Source,
        keys: &[Vec<String>],
        _run: &RunContext,
        environment: &Environment,
    ) -> Result<SourceProfile> {
        profile::profile(name, source, keys, environment).await
    }
}

// === impl PostgresSink ===

impl PostgresSink {
    /// Makes a sink; it holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn inspect(
        &self,
        name: &Name,
        locator: &Locator,
        _format: Option<FileFormat>,
        _mode: SinkMode,
        _run: &RunContext,
        environment: &Environment,
    ) -> Result<SinkInspection> {
        inspect::inspect(name, locator, environment).await
    }

    async fn begin(&self, write: &SinkWrite, context: &WriteContext) -> Result<Begin> {
        if write.strategy != WriteStrategy::PartitionStaging {
            return write::begin(write, context).await;
        }
        let subject = Subject::sink(write.name.as_str());
        let partition = context.run.partition.as_ref().ok_or_else(|| {
            subject.error(
                Code::TaskSpecInvalid,
                "a partitioned write was given no partition",
                "report this with the plan",
            )
        })?;
        staged::begin(write, partition, context).await
    }

    async fn publish(&self, write: &SinkWrite, partitions: u32, context: &WriteContext) -> Result<SinkCounts> {
        staged::publish(write, partitions, context).await
    }

    async fn committed_cursor(
        &self,
        sink: &SinkRef,
        pipeline: &str,
        source: &Name,
        context: &WriteContext,
    ) -> Result<Option<String>> {
        let subject = Subject::sink(sink.name.as_str());
        let (connection, table) = table_of(&sink.locator, &subject)?;
        let session = Session::open(&context.environment, &context.sealed, connection, subject).await?;
        match Relation::find(&session, table).await? {
            // Without the rows the cursor means nothing.
            None => Ok(None),
            Some(found) => {
                let books = Books::of(&found.table.schema);
                books.cursor(&session, pipeline, source.as_str(), sink.name.as_str()).await
            }
        }
    }

    async fn cleanup(&self, connection: &Name, context: &WriteContext) -> Result<()> {
        staged::cleanup(connection, context).await
    }
}
