//! One unit of work: what `dagwright-task run` is given, what it says meanwhile, and what came of it.
//!
//! A [`TaskSpec`] is sealed in the plan; whoever starts the task adds a [`RunContext`]. Both together are what
//! `dagwright-task run --spec` reads. Its standard output is a sequence of [`TaskEvent`]s, one JSON object a line,
//! the last of which is the outcome.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    code::Code,
    facts::{Identity, TextProfile},
    id::{Name, PlanHash, TaskId},
    schema::{Column, DataType},
    spec::{
        FileFormat, Incremental, Interval, Locator, LossyCast, Mask, OnMissing, OrderBy, ParamType, QualityGate,
        Ragged, SinkMode, Step, WriteOptions,
    },
    units::{ByteSize, Ratio},
};

/// The version of the task contract.
pub const TASK_VERSION: u32 = 1;

/// What `dagwright-task run` reads: a sealed task and the run it belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRun {
    /// The sealed task.
    pub task: TaskSpec,
    /// The run it belongs to.
    pub run: RunContext,
}

/// A sealed task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// [`TASK_VERSION`].
    pub version: u32,
    /// The pipeline's `dag_id`.
    pub pipeline: String,
    /// The task.
    pub id: TaskId,
    /// What it does.
    pub work: Work,
    /// The systems it touches: a connection that now means another one ends the task before any read.
    pub connections: BTreeMap<Name, Identity>,
    /// The most memory it may use.
    pub memory_max: ByteSize,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Lists the partitions of a source as they are now; the outcome carries them.
    Split(Split),
    /// Reads relations, computes steps, judges gates, writes relations.
    Move(Move),
    /// Makes what partitioned moves staged for a sink visible, in one instant.
    Publish(Publish),
    /// Removes what a run left in the staging area; succeeds when there is nothing.
    Cleanup,
}

/// The work of [`Work::Split`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The source's name.
    pub source: Name,
    /// How it is read.
    pub read: SourceRead,
    /// How it is split.
    pub by: SplitBy,
    /// At most this many partitions.
    pub partitions_max: u32,
}

/// How a source is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Whole files, balanced by size.
    Files,
    /// Ranges of this column.
    KeyRange(String),
}

/// The work of [`Work::Move`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// The relations read, by name.
    pub inputs: BTreeMap<Name, Input>,
    /// The steps computed here, in order; each sees inputs and earlier steps.
    pub steps: Vec<Step>,
    /// The types of the binds used in SQL, by name without `$`.
    pub binds: BTreeMap<String, ParamType>,
    /// The gates judged here.
    pub gates: Vec<QualityGate>,
    /// The largest share of a source's records, or of a sink's rows, that `lossy_cast: quarantine` and
    /// `ragged: quarantine` may reject before the task fails.
    pub max_rejected: Ratio,
    /// The relations written.
    pub outputs: Vec<Output>,
}

/// A relation that a move reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "built once per process; a box would only stand in the way")]
pub enum Input {
    /// From the source itself.
    Source(SourceRead),
    /// From the staging area, as an earlier task left it.
    Staged {
        /// The columns it has.
        columns: Vec<Column>,
    },
}

/// How a source is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRead {
    /// Where it is.
    pub locator: Locator,
    /// The file format, for files.
    pub format: Option<FileFormat>,
    /// How text is read, for text files.
    pub text: Option<TextProfile>,
    /// Texts that mean NULL, for CSV.
    pub null_values: Vec<String>,
    /// What becomes of records of another number of fields, for CSV.
    pub ragged: Ragged,
    /// The columns to read, with the types to give them, in order; a file's further columns are passed over.
    pub columns: Vec<Column>,
    /// What every column of the source is, where its position matters (CSV without header).
    pub positions: Vec<String>,
    /// Masks by column.
    pub masks: BTreeMap<String, Mask>,
    /// Columns whose values appear nowhere but in the sink.
    pub classified: Vec<String>,
    /// Predicates in DataFusion's SQL that the read may apply early; they are applied at the latest right after it.
    pub filters: Vec<String>,
    /// How it continues where the last run ended.
    pub incremental: Option<IncrementalRead>,
    /// What to do when there is nothing at the locator.
    pub on_missing: OnMissing,
    /// What becomes of values that do not read as their column's type.
    pub lossy: LossyCast,
    /// Whether this task reads one partition of it ([`RunContext::partition`]), or all.
    pub partitioned: bool,
}

/// How an incremental source continues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncrementalRead {
    /// Cursor, initial value and lag.
    #[serde(flatten)]
    pub incremental: Incremental,
    /// The cursor's type.
    pub data_type: DataType,
    /// Where the committed cursors stand: the sinks fed from this source, of which each reads on from its own.
    pub committed_in: Vec<SinkRef>,
}

/// A sink, as far as its effects and cursors are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRef {
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub locator: Locator,
}

/// A relation that a move writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "built once per process; a box would only stand in the way")]
pub enum Output {
    /// To the staging area, as Parquet, for later tasks.
    Staged {
        /// The relation.
        relation: Name,
    },
    /// To a sink.
    Sink(SinkWrite),
}

/// How a sink is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkWrite {
    /// The sink's name.
    pub name: Name,
    /// The relation written.
    pub relation: Name,
    /// Where it is.
    pub locator: Locator,
    /// The file format, for files.
    pub format: Option<FileFormat>,
    /// How files are written.
    pub write: WriteOptions,
    /// What becomes of rows that are there already.
    pub mode: SinkMode,
    /// How rows reach the sink.
    pub strategy: WriteStrategy,
    /// The columns written, with the sink's types, in order; what does not fit follows `lossy`.
    pub columns: Vec<Column>,
    /// What becomes of values that do not fit.
    pub lossy: LossyCast,
    /// The key, for upserts.
    pub key: Vec<String>,
    /// Which of several rows with the same key wins; empty: duplicates end the task.
    pub dedupe: Vec<OrderBy>,
    /// Fewer rows than this fail the task before anything becomes visible.
    pub min_rows: u64,
    /// Whether an append carries `_dagwright_run_id`.
    pub meta_columns: bool,
    /// What must change about the sink's schema first, in order.
    pub changes: Vec<SchemaEdit>,
    /// The sources whose cursors are committed with the rows.
    pub cursors: Vec<CursorCommit>,
}

/// How rows reach a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteStrategy {
    /// Straight to the table or file; one transaction or rename makes them visible.
    Direct,
    /// Into an unlogged staging table first, then one statement moves them.
    StagingTable,
    /// Each partition stages for itself under (effect key, partition); a publish task makes them visible.
    PartitionStaging,
}

/// The work of [`Work::Publish`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// The sink, as the moves staged for it.
    pub sink: SinkWrite,
    /// The task whose mapped instances staged.
    pub staged_by: TaskId,
}

/// A cursor that is committed with a sink's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorCommit {
    /// The source.
    pub source: Name,
    /// Its cursor column.
    pub column: String,
    /// Its type.
    pub data_type: DataType,
}

/// One change of a sink's schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaEdit {
    /// Create the table with the written columns and, for upserts, the key as its primary key.
    CreateTable,
    /// Add a nullable column.
    AddColumn(Column),
    /// Give a column a type that holds every old value.
    WidenColumn(Column),
    /// Let a column hold NULL.
    DropNotNull(String),
    /// Add a unique index on the key.
    AddUniqueKey(Vec<String>),
}

/// The run that a task belongs to; added by whoever starts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunContext {
    /// Identifies the run: the request id, or `<dag_id>/<run_id>` for a run that Airflow's schedule started. The
    /// effect key of a sink is this and the sink's name.
    pub effect: String,
    /// 0, or how often a person cleared the task after it had succeeded: a higher one replaces what lower ones wrote.
    pub generation: u32,
    /// The plan it runs; for logs and the effects table.
    pub plan_hash: PlanHash,
    /// Which try of the task this is, from 1.
    pub attempt: u32,
    /// The folder that relative URIs start from; `None` refuses them.
    pub base: Option<String>,
    /// The folder (path or URI) for staged data of all runs.
    pub staging: String,
    /// The folder (path or URI) for rejected rows of all runs: Parquet files under `<pipeline>/<effect>/`, each row
    /// with its reason, relation, position in the source where known, and values, those of classified columns left out.
    pub quarantine: String,
    /// The data interval, if the run has one.
    pub interval: Option<Interval>,
    /// The values of the parameters.
    pub params: BTreeMap<String, Value>,
    /// The partition of a mapped task.
    pub partition: Option<Partition>,
    /// Whether committed cursors neither bound the reading nor move: the interval does.
    #[serde(default)]
    pub backfill: bool,
    /// Whether staged relations outlive a run that fails over a schema, since another plan for the same request may go on
    /// from them.
    #[serde(default)]
    pub keep_staged: bool,
}

/// One part of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its index, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
    /// What it covers.
    pub range: PartitionRange,
}

/// What a partition covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionRange {
    /// These files.
    Files(Vec<String>),
    /// `from <= column < to`, each bound absent at the end; the last one also takes NULLs.
    KeyRange {
        /// The column.
        column: String,
        /// The first value, as text.
        from: Option<String>,
        /// The first value after it, as text.
        to: Option<String>,
    },
}

/// What a task says while it runs, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TaskEvent {
    /// It read its spec and starts to work.
    Started {
        /// The task.
        task: TaskId,
        /// The rows it expects to read, where known.
        rows_expected: Option<u64>,
        /// The bytes it expects to read, where known.
        bytes_expected: Option<u64>,
    },
    /// How far it is; at most a few each second.
    Progress {
        /// Rows read from its sources so far.
        rows_read: u64,
        /// Bytes read from its sources so far.
        bytes_read: u64,
        /// Rows written so far, not yet visible.
        rows_written: u64,
    },
    /// Something a person should know, without a value from the data.
    Warning(Problem),
    /// It ended; always the last event.
    Outcome(Box<Outcome>),
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Whether its effect was there already, from an earlier try; the counts are those of that try.
    pub repeated: bool,
    /// What was counted.
    pub counts: Counts,
    /// For [`Work::Split`]: the partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// The largest cursor value read, by source, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<Name, String>,
    /// Why it failed.
    pub problem: Option<Problem>,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
    /// The largest resident set of the process, in bytes; 0 where unknown.
    pub memory_peak_bytes: u64,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It did its work.
    Succeeded,
    /// It could not; nothing became visible.
    Failed,
    /// It was told to stop; nothing became visible.
    Cancelled,
}

/// What a task counted. They add up: per source `read = passed + quarantined`, per sink
/// `produced = loaded + quarantined + superseded`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Per source read here.
    #[serde(default)]
    pub sources: BTreeMap<Name, SourceCounts>,
    /// Rows that each step computed here produced.
    #[serde(default)]
    pub steps: BTreeMap<Name, u64>,
    /// Per gate judged here: rows that broke it.
    #[serde(default)]
    pub gates: BTreeMap<Name, u64>,
    /// Per sink written here.
    #[serde(default)]
    pub sinks: BTreeMap<Name, SinkCounts>,
}

/// What was counted of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceCounts {
    /// Records read (after the system's own filters).
    pub read: u64,
    /// Rows handed on.
    pub passed: u64,
    /// Records quarantined as malformed, misfit, or by a gate on the source.
    pub quarantined: u64,
    /// Rows passed over before they counted as read: at or before the cursor, or not matching a filter.
    #[serde(default)]
    pub skipped: u64,
    /// Values that became NULL under `lossy_cast: null`.
    #[serde(default)]
    pub nulled: u64,
    /// Bytes read as stored.
    pub bytes: u64,
}

/// What was counted of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SinkCounts {
    /// Rows its relation produced.
    pub produced: u64,
    /// Rows now visible because of this run.
    pub loaded: u64,
    /// Rows quarantined on the way.
    pub quarantined: u64,
    /// Rows that lost to another one with the same key.
    pub superseded: u64,
    /// Values that became NULL under `lossy_cast: null`.
    #[serde(default)]
    pub nulled: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Something that went wrong, said so that a person can mend it; never holds a value from the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What it is about: a source, step, gate, sink or connection.
    pub subject: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

// === impl RunContext ===

impl RunContext {
    /// Returns the effect key of a sink: equal for every retry, replan and restart of the same run.
    #[must_use]
    pub fn effect_key(&self, sink: &Name) -> String {
        format!("{}/{sink}", self.effect)
    }
}

// === impl Counts ===

impl Counts {
    /// Adds another task's counts, as for the partitions of one mapped task.
    pub fn add(&mut self, other: &Self) {
        for (name, more) in &other.sources {
            let sum = self.sources.entry(name.clone()).or_default();
            sum.read += more.read;
            sum.passed += more.passed;
            sum.quarantined += more.quarantined;
            sum.skipped += more.skipped;
            sum.nulled += more.nulled;
            sum.bytes += more.bytes;
        }
        for (name, more) in &other.steps {
            *self.steps.entry(name.clone()).or_default() += more;
        }
        for (name, more) in &other.gates {
            *self.gates.entry(name.clone()).or_default() += more;
        }
        for (name, more) in &other.sinks {
            let sum = self.sinks.entry(name.clone()).or_default();
            sum.produced += more.produced;
            sum.loaded += more.loaded;
            sum.quarantined += more.quarantined;
            sum.superseded += more.superseded;
            sum.nulled += more.nulled;
            sum.bytes += more.bytes;
        }
    }
}
