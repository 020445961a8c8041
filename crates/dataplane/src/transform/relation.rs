//! A relation of a task as DataFusion sees it: a table that is a set of streams, or the plan of a step.
//!
//! A step is planned into its consumer, behind a node that counts its rows: projections reach into it, filters do
//! not, so that what a step produced has one meaning however it is read. Streams of a source can be read once.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use dagwright_model::{id::Name, schema::Column};
use datafusion::{
    catalog::{Session as CatalogSession, TableProvider},
    common::{Column as PlanColumn, internal_datafusion_err},
    error::Result as PlanResult,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType},
    physical_plan::ExecutionPlan,
};

use super::nodes::{StreamsExec, TapExec};
use crate::{connectors::BatchStream, types::arrow_schema};

/// Opens one stream, with only these columns where they are given.
pub type Opener = Arc<dyn Fn(Option<&[usize]>) -> BatchStream + Send + Sync>;

/// How large a relation is, as far as is known; what joins are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Whether that is all of it.
    pub exact: bool,
}

/// Where a relation's rows come from.
#[derive(Clone)]
pub enum Feed {
    /// Streams, each opened when it is needed.
    Streams {
        /// One for each.
        openers: Vec<Opener>,
        /// How much they hold.
        size: Option<Size>,
    },
    /// The plan of a step, with exactly the relation's columns.
    Plan(Box<LogicalPlan>),
}

/// A relation of a task.
pub struct Relation {
    /// Its name.
    pub name: Name,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The same in Arrow.
    pub schema: SchemaRef,
    /// The columns whose values appear nowhere but in the sink.
    pub classified: BTreeSet<String>,
    /// Rows it handed on so far, before gates.
    pub rows: AtomicU64,
    /// Rows that gates rejected so far.
    pub rejected: AtomicU64,
    feed: Mutex<Option<Feed>>,
}

/// A [`Relation`] as a table.
#[derive(Debug)]
pub struct RelationTable(pub Arc<Relation>);

// === impl Relation ===

impl Relation {
    /// Makes a relation that has no rows to give yet.
    #[must_use]
    pub fn new(name: Name, columns: Vec<Column>, classified: BTreeSet<String>) -> Self {
        let schema = arrow_schema(&columns);
        let (rows, rejected, feed) = (AtomicU64::default(), AtomicU64::default(), Mutex::default());
        Self { name, columns, schema, classified, rows, rejected, feed }
    }

    /// Makes a relation for our own queries.
    ///
    /// # Panics
    /// Never: the name is valid.
    #[must_use]
    pub fn unnamed(columns: Vec<Column>) -> Self {
        Self::new(Name::new("relation").expect("a valid name"), columns, BTreeSet::new())
    }

    /// Says where its rows come from; a later call replaces an earlier one.
    pub fn feed_from(&self, feed: Feed) {
        *self.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(feed);
    }

    /// Returns where its rows come from, if that is said.
    #[must_use]
    pub fn feed(&self) -> Option<Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the rows it handed on so far, before gates.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Returns the rows that gates rejected so far.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Relaxed)
    }
}

impl fmt::Debug for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relation").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl RelationTable ===

#[async_trait]
impl TableProvider for RelationTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        session: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let relation = &self.0;
        match relation.feed() {
            None => Err(internal_datafusion_err!("relation {} has no rows to give", relation.name)),
            Some(Feed::Streams { openers, size }) => {
                Ok(Arc::new(StreamsExec::try_new(&relation.schema, openers, projection.map(Vec::as_slice), size)?))
            }
            Some(Feed::Plan(plan)) => {
                let plan = projected(*plan, relation, projection)?;
                let schema = match projection {
                    Some(indices) => Arc::new(relation.schema.project(indices)?),
                    None => relation.schema.clone(),
                };
                let input = session.create_physical_plan(&plan).await?;
                Ok(Arc::new(TapExec::new(input, schema, relation.clone())))
            }
        }
    }
}

fn projected(plan: LogicalPlan, relation: &Relation, projection: Option<&Vec<usize>>) -> PlanResult<LogicalPlan> {
    let Some(indices) = projection else { return Ok(plan) };
    let columns =
        indices.iter().map(|index| Expr::Column(PlanColumn::new_unqualified(relation.columns[*index].name.clone())));
    LogicalPlanBuilder::new(plan).project(columns)?.build()
}
