//! Plans and computes SQL steps on DataFusion, within the task's memory.
//!
//! One [`Session`] serves one task. Memory comes from a pool that spills to the task's temporary folder. A step's
//! output has the model's types: whatever DataFusion computes is cast to them at the step's end, so that a step means
//! the same whether it is fused into its consumer, staged, or only typed.

mod exchange;
pub mod failure;
pub mod lineage;
mod nested;
mod nodes;
mod pool;
pub mod relation;
pub mod sql;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use dagwright_model::{
    code::Code,
    id::Name,
    schema::{Column, DataType},
    spec::{ParamType, Step},
};
use datafusion::{
    common::{Column as PlanColumn, ParamValues, ScalarValue, TableReference},
    execution::{
        SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, MemoryLimit, MemoryPool},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast},
    physical_plan::ExecutionPlanProperties,
    prelude::{SessionConfig, SessionContext},
};
use futures::StreamExt;

use crate::{
    connectors::BatchStream,
    error::{Error, Result},
    transform::{
        exchange::ExchangePool,
        failure::run_failure,
        nested::NestedLoops,
        pool::FrugalPool,
        relation::{Feed, Relation, RelationTable},
    },
    types::{LOGICAL_TYPE, arrow_type, model_column},
};

/// How many rows a batch has.
pub const BATCH_ROWS: usize = 8192;

/// How many rows a batch of a frugal session has: what joins give is wide, and every sort must hold a few of them.
const BATCH_ROWS_FRUGAL: usize = 256;

/// Into how many batches, at least, a frugal session's pool can be divided: every sort of every join must hold a few.
const BATCHES_IN_POOL_FRUGAL: usize = 256;

/// The most temporary bytes of one task: a runaway join fills no disk beyond this.
const TEMP_BYTES_MAX: u64 = 100 << 30;

/// What a session may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes for joins, sorts and groups.
    pub pool_bytes: usize,
    /// The folder to spill to; `None` when nothing will be executed.
    pub temp: Option<PathBuf>,
    /// How many streams a plan has.
    pub cores: usize,
    /// Whether to get by with little memory: joins sort, merge and spill instead of hashing in memory, few
    /// streams share the pool, and batches are small.
    pub frugal: bool,
}

/// Plans and computes the steps of one task.
pub struct Session {
    context: SessionContext,
    pool: Arc<dyn MemoryPool>,
    cores: usize,
}

/// A planned step.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The query with the model's types at its end; binds are still open.
    pub plan: LogicalPlan,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The binds it uses.
    pub binds: BTreeSet<String>,
}

// === impl Session ===

impl Session {
    /// Makes a session.
    ///
    /// # Errors
    /// DW0606 when the folder for temporary files cannot be used.
    pub fn new(limits: &Limits) -> Result<Self> {
        let pool: Arc<dyn MemoryPool> = match limits.frugal {
            true => Arc::new(FrugalPool::new(limits.pool_bytes)),
            false => Arc::new(FairSpillPool::new(limits.pool_bytes)),
        };
        let pool: Arc<dyn MemoryPool> = Arc::new(ExchangePool::new(pool, limits.pool_bytes));
        let mode = match &limits.temp {
            Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
            None => DiskManagerMode::Disabled,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(TEMP_BYTES_MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool.clone())
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| run_failure("staging", &error))?;
        // DataFusion joins a single stream by hash whatever it is told: two are the fewest that sort and merge.
        let (cores, batch_rows) = if limits.frugal { (2, BATCH_ROWS_FRUGAL) } else { (limits.cores, BATCH_ROWS) };
        let mut config = SessionConfig::new()
            .with_target_partitions(cores)
            .with_batch_size(batch_rows)
            .with_information_schema(false);
        let options = config.options_mut();
        options.sql_parser.map_string_types_to_utf8view = false;
        options.execution.time_zone = Some("UTC".into());
        options.optimizer.prefer_hash_join = !limits.frugal;
        // Each sort keeps this much back for its merge; the default of 10 MiB would starve small pools.
        options.execution.sort_spill_reservation_bytes = (limits.pool_bytes / 32).clamp(64 << 10, 10 << 20);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            // No reader or writer of files: relations are the only tables.
            .with_table_factories(HashMap::new())
            .with_file_formats(Vec::new())
            .with_physical_optimizer_rule(Arc::new(NestedLoops { frugal: limits.frugal }))
            .build();
        Ok(Self { context: SessionContext::new_with_state(state), pool, cores })
    }

    /// Returns the pool that everything large is accounted in.
    #[must_use]
    pub fn pool(&self) -> &Arc<dyn MemoryPool> {
        &self.pool
    }

    /// Returns how many streams plans have.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Returns DataFusion's context.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Lets later steps see a relation.
    ///
    /// # Errors
    /// DW0799 when DataFusion refuses it.
    pub fn register(&self, relation: &Arc<Relation>) -> Result<()> {
        let table = Arc::new(RelationTable(relation.clone()));
        self.register_table(&relation.name, table)
    }

    /// Lets later steps see a table.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub fn register_table(&self, name: &Name, table: Arc<dyn datafusion::catalog::TableProvider>) -> Result<()> {
        let registered = self.context.register_table(TableReference::bare(name.as_str()), table);
        registered.map(drop).map_err(|error| run_failure(name.as_str(), &error))
    }

    /// Lets plans see a relation under a name that no step can have.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub fn register_as(&self, name: &str, relation: &Arc<Relation>) -> Result<()> {
        let table = Arc::new(RelationTable(relation.clone()));
        let registered = self.context.register_table(TableReference::bare(name), table);
        registered.map(drop).map_err(|error| run_failure(name, &error))
    }

    /// Forgets a table.
    pub fn deregister(&self, name: &str) {
        // It only fails for a catalogue that cannot forget; this one can.
        let _ = self.context.deregister_table(TableReference::bare(name));
    }

    /// Plans a step over the relations registered so far.
    ///
    /// # Errors
    /// DW0501 with DataFusion's reason.
    pub async fn plan_step(&self, step: &Step, binds: &BTreeMap<String, ParamType>) -> Result<PlannedStep> {
        let (plan, used) = self.plan_select(&step.sql, binds).await.map_err(|reason| invalid(&step.name, &reason))?;
        let (plan, columns) = canonical(plan).map_err(|reason| invalid(&step.name, &reason))?;
        Ok(PlannedStep { plan, columns, binds: used })
    }

    /// Plans one SELECT as it stands.
    ///
    /// # Errors
    /// The reason, for people.
    pub async fn plan_select(
        &self,
        text: &str,
        binds: &BTreeMap<String, ParamType>,
    ) -> Result<(LogicalPlan, BTreeSet<String>), String> {
        let select = sql::parse(text, binds)?;
        let state = self.context.state();
        let planned = state.statement_to_plan(select.statement).await;
        let plan = sql::unprepared(planned.map_err(|error| error.strip_backtrace())?);
        sql::vet(&plan)?;
        Ok((plan, select.binds))
    }

    /// Fills in the values of binds, as [`sql::values`] gives them.
    ///
    /// # Errors
    /// DW0501 when a value does not fit where it stands.
    pub fn bind(subject: &Name, plan: LogicalPlan, values: &HashMap<String, ScalarValue>) -> Result<LogicalPlan> {
        if values.is_empty() {
            return Ok(plan);
        }
        let values: HashMap<_, _> = values.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        plan.with_param_values(ParamValues::Map(values))
            .map_err(|_| invalid(subject, "a bind stands where its type does not fit"))
    }

    /// Opens a relation's rows as streams.
    ///
    /// # Errors
    /// Whatever planning or starting them meets.
    pub async fn streams(&self, relation: &Arc<Relation>) -> Result<Vec<BatchStream>> {
        let subject = relation.name.as_str();
        match relation.feed() {
            None => Err(Error::new(Code::Internal, subject, "the relation has no rows to give", "report this")),
            Some(Feed::Streams { openers, .. }) => Ok(openers.iter().map(|opener| opener(None)).collect()),
            Some(Feed::Plan(_)) => {
                let state = self.context.state();
                let table = RelationTable(relation.clone());
                let scan = datafusion::catalog::TableProvider::scan(&table, &state, None, &[], None).await;
                self.execute(subject, scan)
            }
        }
    }

    /// Computes a plan as streams.
    ///
    /// # Errors
    /// As [`Self::streams`].
    pub async fn run_plan(&self, subject: &str, plan: &LogicalPlan) -> Result<Vec<BatchStream>> {
        let physical = self.context.state().create_physical_plan(plan).await;
        self.execute(subject, physical)
    }

    fn execute(
        &self,
        subject: &str,
        plan: datafusion::error::Result<Arc<dyn datafusion::physical_plan::ExecutionPlan>>,
    ) -> Result<Vec<BatchStream>> {
        let fail = |error: &datafusion::error::DataFusionError| run_failure(subject, error);
        let plan = plan.map_err(|error| fail(&error))?;
        (0..plan.output_partitioning().partition_count())
            .map(|partition| {
                let stream = plan.execute(partition, self.context.task_ctx()).map_err(|error| fail(&error))?;
                let subject = subject.to_owned();
                Ok(stream.map(move |batch| batch.map_err(|error| run_failure(&subject, &error))).boxed())
            })
            .collect()
    }
}

/// Returns how many rows and bytes a batch that enters a frugal session's plan may have; `None` for another session.
fn batch_bounds(context: &TaskContext) -> Option<(usize, usize)> {
    let config = context.session_config();
    if config.options().optimizer.prefer_hash_join {
        return None;
    }
    match context.memory_pool().memory_limit() {
        MemoryLimit::Finite(pool) => Some((config.batch_size(), pool / BATCHES_IN_POOL_FRUGAL)),
        MemoryLimit::Infinite | MemoryLimit::Unknown => None,
    }
}

/// Casts a plan's columns to the model's types and drops their qualifiers.
///
/// # Errors
/// Which columns have no name of their own or no type of the model, for people.
fn canonical(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Column>), String> {
    let mut columns: Vec<Column> = Vec::new();
    let mut exprs = Vec::new();
    let mut changed = false;
    for (index, (qualifier, field)) in plan.schema().iter().enumerate() {
        let name = field.name();
        if columns.iter().any(|column| column.name == *name) {
            return Err(format!("column {name:?} appears twice; give one of them another name with AS"));
        }
        let mut column = model_column(field).ok_or_else(|| {
            format!("column {name:?} has type {}, which has no counterpart; CAST it", field.data_type())
        })?;
        // What an expression makes of a bounded text may be longer; only a column handed on keeps its bound.
        if matches!(column.data_type, DataType::String { length: Some(_) }) && !is_handed_on(&plan, index) {
            column.data_type = DataType::TEXT;
        }
        let expr = Expr::Column(PlanColumn::new(qualifier.cloned(), name));
        let wanted = arrow_type(&column.data_type);
        let fits = *field.data_type() == wanted;
        let stale = !fits && field.metadata().contains_key(LOGICAL_TYPE);
        changed |= qualifier.is_some() || !fits || stale;
        exprs.push(if fits { expr.alias(name) } else { cast(expr, wanted).alias(name) });
        columns.push(column);
    }
    if !changed {
        return Ok((plan, columns));
    }
    let built = LogicalPlanBuilder::new(plan).project(exprs).and_then(LogicalPlanBuilder::build);
    Ok((built.map_err(|error| error.strip_backtrace())?, columns))
}

/// Tells whether an output column is a column of an input as it is, as far as is easy to see.
fn is_handed_on(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => match &projection.expr[index] {
            Expr::Column(column) => handed_on_by(&projection.input, column),
            Expr::Alias(alias) => match alias.expr.as_ref() {
                Expr::Column(column) => handed_on_by(&projection.input, column),
                _ => false,
            },
            _ => false,
        },
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::SubqueryAlias(_) => plan.inputs().first().is_some_and(|input| is_handed_on(input, index)),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            let both = plan.schema().fields().len() == left + join.right.schema().fields().len();
            both && if index < left { is_handed_on(&join.left, index) } else { is_handed_on(&join.right, index - left) }
        }
        _ => false,
    }
}

fn handed_on_by(input: &LogicalPlan, column: &PlanColumn) -> bool {
    input.schema().maybe_index_of_column(column).is_some_and(|index| is_handed_on(input, index))
}

fn invalid(subject: &Name, reason: &str) -> Error {
    invalid_sql(subject.as_str(), reason)
}

/// The failure of SQL that does not plan.
#[must_use]
pub fn invalid_sql(subject: &str, reason: &str) -> Error {
    Error::new(
        Code::SqlInvalid,
        subject,
        format!("the SQL does not plan: {reason}"),
        "correct the SQL; a step sees the sources and earlier steps by name",
    )
}
