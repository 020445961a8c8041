//! Reads and writes systems: one module a kind, two traits for all.
//!
//! A connector gets a sealed [`SourceRead`] or [`SinkWrite`] and the [`RunContext`]; it finds connections only in
//! [`Environment`], counts in a tally, and hands rejected records to [`Rejects`]. Batches have exactly the sealed
//! columns in the sealed order, with the Arrow types of [`crate::types`].

pub mod files;
pub mod identity;
pub mod postgres;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    facts::{Identity, SinkInspection, SourceProfile},
    id::Name,
    spec,
    spec::Locator,
    task::{Partition, RunContext, SinkCounts, SinkRef, SinkWrite, SourceRead, Split},
};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    tally::{Rejects, SinkTally, SourceTally},
};

/// A stream of batches; it ends at its first error.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// What connectors may know of the process's environment: `DAGWRIGHT_CONN_<NAME>` and the mask key.
#[derive(Clone, Default)]
pub struct Environment {
    /// Connection URLs by name; secrets, never printed.
    pub connections: BTreeMap<Name, String>,
    /// The key of `mask: hmac`; a secret.
    pub mask_key: Option<Vec<u8>>,
}

/// What a read needs besides its spec.
#[derive(Clone)]
pub struct ReadContext {
    /// The source's name; for messages and rejects.
    pub name: Name,
    /// The run.
    pub run: Arc<RunContext>,
    /// The connections and keys.
    pub environment: Arc<Environment>,
    /// What the connections must mean; checked before anything is read.
    pub sealed: Arc<BTreeMap<Name, Identity>>,
    /// The committed cursor this run continues after, as text in the cursor's type; lag is already taken off.
    pub after_cursor: Option<String>,
    /// How many streams to read with at most; a hint.
    pub streams: usize,
    /// How many rows a batch should have.
    pub batch_rows: usize,
    /// Where rows are counted.
    pub tally: Arc<SourceTally>,
    /// Where rejected records go.
    pub rejects: Rejects,
    /// Ends every stream soon after it is cancelled.
    pub cancel: CancellationToken,
}

/// What a write needs besides its spec.
#[derive(Clone)]
pub struct WriteContext {
    /// The pipeline's `dag_id`; committed cursors are kept by it.
    pub pipeline: String,
    /// The run.
    pub run: Arc<RunContext>,
    /// The connections and keys.
    pub environment: Arc<Environment>,
    /// What the connections must mean; checked before anything is written.
    pub sealed: Arc<BTreeMap<Name, Identity>>,
    /// Where rows are counted.
    pub tally: Arc<SinkTally>,
    /// Ends every operation soon after it is cancelled, with nothing visible.
    pub cancel: CancellationToken,
}

/// Reads one kind of system.
#[async_trait]
pub trait Source: Send + Sync {
    /// Opens the source and returns its streams, which may be polled from different threads.
    ///
    /// Masks, `lossy`, `ragged`, the partition, the cursor bound and early filters are the connector's to apply; rows
    /// in the streams count as passed. No stream at all means that there is nothing and `on_missing` is `skip`.
    ///
    /// # Errors
    /// 03xx and 06xx codes.
    async fn open(&self, read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)>;

    /// Lists the partitions of the source as it is now, at most `split.partitions_max`, at least one.
    ///
    /// # Errors
    /// As [`Self::open`].
    async fn split(&self, split: &Split, context: &ReadContext) -> Result<Vec<Partition>>;

    /// Profiles a source without a sealed read.
    ///
    /// # Errors
    /// As [`Self::open`]; that nothing is there is not an error but `exists: false`.
    async fn profile(
        &self,
        name: &Name,
        source: &spec::Source,
        keys: &[Vec<String>],
        run: &RunContext,
        environment: &Environment,
    ) -> Result<SourceProfile>;
}

/// Writes one kind of system.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Inspects a sink without a sealed write.
    ///
    /// # Errors
    /// 04xx and 06xx codes; that nothing is there is not an error but `exists: false`.
    async fn inspect(
        &self,
        name: &Name,
        locator: &spec::Locator,
        format: Option<spec::FileFormat>,
        mode: spec::SinkMode,
        run: &RunContext,
        environment: &Environment,
    ) -> Result<SinkInspection>;

    /// Begins to write, or finds that this effect is there already.
    ///
    /// With [`WriteStrategy::PartitionStaging`](dagwright_model::task::WriteStrategy) the effect is staged under
    /// (effect key, partition), and nothing becomes visible before [`Self::publish`].
    ///
    /// # Errors
    /// 04xx and 06xx codes.
    async fn begin(&self, write: &SinkWrite, context: &WriteContext) -> Result<Begin>;

    /// Makes what mapped tasks staged visible, in one instant; `partitions` says how many there must be, 0 leaves it
    /// to what the staged parts say of themselves.
    ///
    /// A repeat finds its effect and returns the same counts.
    ///
    /// # Errors
    /// 04xx and 06xx codes.
    async fn publish(&self, write: &SinkWrite, partitions: u32, context: &WriteContext) -> Result<SinkCounts>;

    /// Returns the cursor committed with this sink's rows for a source, as text in the cursor's type.
    ///
    /// # Errors
    /// 04xx and 06xx codes; a sink that does not exist yet has no cursor.
    async fn committed_cursor(
        &self,
        sink: &SinkRef,
        pipeline: &str,
        source: &Name,
        context: &WriteContext,
    ) -> Result<Option<String>>;

    /// Removes what this run staged on a connection's system, published or not; succeeds when there is nothing.
    ///
    /// # Errors
    /// 04xx and 06xx codes.
    async fn cleanup(&self, _connection: &Name, _context: &WriteContext) -> Result<()> {
        Ok(())
    }
}

/// How a write begins.
pub enum Begin {
    /// The effect is there already; these were its counts.
    Repeated(SinkCounts),
    /// Nothing is there: write.
    Write(Box<dyn SinkWriter>),
}

/// Writes batches to a sink; nothing is visible before [`Self::commit`].
#[async_trait]
pub trait SinkWriter: Send {
    /// Writes a batch with exactly the sealed columns.
    ///
    /// # Errors
    /// 04xx codes; the writer is then only good for [`Self::abort`].
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Makes everything visible in one instant, together with the effect key, the counts and the cursors; for a
    /// partition: makes it staged.
    ///
    /// # Errors
    /// 04xx codes; nothing is visible then.
    async fn commit(self: Box<Self>, commit: Commit) -> Result<SinkCounts>;

    /// Removes what was written, as far as possible.
    async fn abort(self: Box<Self>);
}

/// What is committed with a sink's rows.
///
/// The counts that [`SinkWriter::commit`] returns add up: `produced` is the rows written plus `quarantined` plus
/// `superseded`; the connector keeps them with the effect, so that a repeat reports the same.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Rows quarantined on the way to this sink; part of what it produced.
    pub quarantined: u64,
    /// Rows that lost to another one with the same key on the way to this sink; part of what it produced.
    pub superseded: u64,
    /// Values that became NULL on the way to this sink.
    pub nulled: u64,
    /// The cursors to commit, by source, as text; empty for a backfill.
    pub cursors: BTreeMap<Name, String>,
}

/// Returns the connector that reads a locator.
///
/// # Errors
/// DW0601 when the connection is not defined, DW0110 when no connector reads it.
pub fn source_for(locator: &Locator, environment: &Environment) -> Result<Box<dyn Source>> {
    match kind_of(locator, environment)? {
        Kind::Files => Ok(Box::new(files::FileSource::new())),
        Kind::Postgres => Ok(Box::new(postgres::PostgresSource::new())),
    }
}

/// Returns the connector that writes a locator.
///
/// # Errors
/// As [`source_for`].
pub fn sink_for(locator: &Locator, environment: &Environment) -> Result<Box<dyn Sink>> {
    match kind_of(locator, environment)? {
        Kind::Files => Ok(Box::new(files::FileSink::new())),
        Kind::Postgres => Ok(Box::new(postgres::PostgresSink::new())),
    }
}

/// Returns the connector that writes to a connection's system.
///
/// # Errors
/// As [`source_for`].
pub fn sink_for_connection(connection: &Name, environment: &Environment) -> Result<Box<dyn Sink>> {
    // Which connector it is does not depend on the table.
    let table = spec::TableName { schema: None, table: connection.to_string() };
    sink_for(&Locator::Table { connection: connection.clone(), table }, environment)
}

/// The kinds of systems that there is a connector for.
enum Kind {
    Files,
    Postgres,
}

fn kind_of(locator: &Locator, environment: &Environment) -> Result<Kind> {
    let Some(connection) = identity::connection_of(locator) else { return Ok(Kind::Files) };
    match environment.identity(connection)?.scheme.as_str() {
        "postgresql" => Ok(Kind::Postgres),
        other => Err(unsupported(locator, other)),
    }
}

fn unsupported(locator: &Locator, scheme: &str) -> Error {
    let subject = identity::connection_of(locator).map_or_else(|| locator.to_string(), ToString::to_string);
    Error::new(
        Code::SpecNotYet,
        subject,
        format!("no connector for {scheme:?} as it is used here"),
        "use a postgresql:// connection, or a file's URI",
    )
}
