//! The spec as it stands in the file: the one source of its JSON Schema.
//!
//! Field by field this is what `docs/spec.md` describes. Optional things stay optional here; [`super::normalize`]
//! fills in defaults and checks what a schema cannot say.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    id::Name,
    schema::DataType,
    units::{ByteSize, Ratio, Span},
};

/// A Dagwright pipeline: which data should be where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Dagwright pipeline", inline)]
pub struct Document {
    /// The version of this format; 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// The pipeline's name, unique in its namespace.
    pub pipeline: Name,
    /// Prefixes the DAG id: `<namespace>.<pipeline>`.
    pub namespace: Option<Name>,
    /// Who to ask about it.
    #[schemars(length(max = 200))]
    pub owner: Option<String>,
    /// What it is for.
    #[schemars(length(max = 4000))]
    pub description: Option<String>,
    /// Free labels.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub tags: Vec<Tag>,
    /// Typed parameters; SQL uses them as `$name`.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 100))]
    pub params: BTreeMap<Name, Param>,
    /// The single source, then named `source`.
    pub source: Option<Source>,
    /// The sources by name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 100))]
    pub sources: Option<IndexMap<Name, Source>>,
    /// SQL steps; each sees the sources and the other steps by name.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub transform: Vec<Step>,
    /// The single sink, then named `sink`.
    pub sink: Option<Sink>,
    /// The sinks by name.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 100))]
    pub sinks: Option<IndexMap<Name, Sink>>,
    /// Quality gates.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub quality: Vec<Gate>,
    /// When it runs by itself; absent: on request.
    pub schedule: Option<Schedule>,
    /// What to optimise, within which bounds.
    #[serde(default)]
    pub goals: Goals,
    /// What agents may do without asking.
    #[serde(default)]
    pub policy: Policy,
    /// How failed tasks are tried again.
    #[serde(default)]
    pub retries: Retries,
    /// What goes to Airflow as it is.
    #[serde(default)]
    pub airflow: Airflow,
}

/// A label.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Tag(#[schemars(length(min = 1, max = 100))] pub String);

/// A typed parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its type.
    #[serde(rename = "type")]
    pub param_type: ParamType,
    /// Its value when a run gives none; without one every run must.
    pub default: Option<Value>,
    /// The only values allowed.
    #[serde(rename = "enum")]
    pub allowed: Option<Vec<Value>>,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// Text.
    String,
    /// A signed 64-bit integer.
    Integer,
    /// A double.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// RFC 3339.
    Timestamp,
}

/// Where data comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A path relative to the spec, or `file:///`, `s3://`, `gs://`, `az://`, `https://`; `*`, `?`, `**` and `[…]` match files.
    pub uri: Option<String>,
    /// The name of a connection.
    pub connection: Option<Name>,
    /// A table of the connection, `table` or `schema.table`.
    pub table: Option<String>,
    /// A query of the connection, one SELECT.
    pub query: Option<String>,
    /// The file format; inferred when absent.
    pub format: Option<FileFormat>,
    /// How to read CSV; what is absent is inferred.
    pub csv: Option<CsvOptions>,
    /// Read only what is new since the last run; absent: everything.
    pub incremental: Option<Incremental>,
    /// What is known of single columns.
    #[serde(default)]
    pub columns: BTreeMap<String, Classified>,
    /// What to do when there is nothing to read.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Delimited text.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// How to read CSV.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// One ASCII character.
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// One ASCII character.
    #[schemars(length(min = 1, max = 1))]
    pub quote: Option<String>,
    /// One ASCII character; absent: a quote is doubled.
    #[schemars(length(min = 1, max = 1))]
    pub escape: Option<String>,
    /// Whether the first record holds the names.
    pub header: Option<bool>,
    /// The text encoding.
    pub encoding: Option<Encoding>,
    /// Texts that mean NULL; by default the empty text without quotes.
    pub null_values: Option<Vec<String>>,
    /// What to do with records of another number of fields; `fail` when absent.
    pub ragged: Option<Ragged>,
}

/// A text encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1, read as Windows-1252 like every browser does.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// What to do with records of another number of fields than the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ragged {
    /// The run fails.
    #[default]
    Fail,
    /// The record goes to quarantine.
    Quarantine,
    /// Missing fields become NULL; surplus ones still fail.
    Fill,
}

/// How a run continues where the last one ended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incremental {
    /// The column whose values only grow.
    pub cursor: String,
    /// Where the first run starts (exclusive); absent: at the beginning.
    pub initial_value: Option<Value>,
    /// How far behind the committed cursor each run reads again: a time span, or a number for numeric cursors.
    pub lag: Option<LagText>,
}

/// A late window: a time span such as `1d`, or a whole number.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LagText {
    /// For dates and timestamps.
    Time(Span),
    /// For numbers.
    Number(u64),
}

/// What is known of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Classified {
    /// Its type; inferred when absent.
    #[serde(rename = "type")]
    pub data_type: Option<DataType>,
    /// The class of its content, such as `pii`: keeps values out of everything but the sink.
    #[schemars(length(min = 1, max = 100))]
    pub classification: Option<String>,
    /// How values are made unreadable at extraction.
    pub mask: Option<Mask>,
}

/// How values are made unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// HMAC-SHA-256 in hexadecimal with the key of the environment's `DAGWRIGHT_MASK_KEY`: equal values stay equal.
    Hmac,
    /// The text `***`.
    Redact,
    /// NULL.
    Null,
}

/// What to do when there is nothing to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// The run fails.
    #[default]
    Fail,
    /// The source counts as empty; needs declared column types.
    Skip,
}

/// One SQL step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, by which later steps, gates and sinks use it.
    pub name: Name,
    /// One SELECT in DataFusion's SQL.
    #[schemars(length(min = 1, max = 100_000))]
    pub sql: String,
}

/// Where data goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// A file, or a folder of parts when it ends in `/`.
    pub uri: Option<String>,
    /// The name of a connection.
    pub connection: Option<Name>,
    /// A table of the connection, `table` or `schema.table`.
    pub table: Option<String>,
    /// The step or source to write; absent: the last step, or the only source.
    pub from: Option<Name>,
    /// The file format; taken from the ending when absent.
    pub format: Option<FileFormat>,
    /// What becomes of rows that are there already.
    pub mode: SinkMode,
    /// The columns that identify a row; needed by `upsert`.
    #[serde(default)]
    pub key: Vec<String>,
    /// Which of several rows with the same key wins.
    pub dedupe: Option<Dedupe>,
    /// Fewer rows than this fail the run before anything becomes visible; 1.
    pub min_rows: Option<u64>,
    /// Whether an append to a table carries `_dagwright_run_id`, by which a cleared run finds its rows; true.
    pub meta_columns: Option<bool>,
    /// How files are written.
    #[serde(default)]
    pub write: WriteOptions,
}

/// What becomes of rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkMode {
    /// They stay; new rows come after them.
    Append,
    /// They go, in the same instant in which the new ones appear.
    Replace,
    /// Those with the key of a new row are replaced by it.
    Upsert,
    /// Not yet supported.
    OverwritePartitions,
    /// Not yet supported.
    Scd2,
}

/// Which of several rows with the same key wins.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedupe {
    /// The first row in this order wins: `column`, `column asc` or `column desc`; NULLs come last.
    #[schemars(length(min = 1, max = 16))]
    pub order_by: Vec<String>,
}

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteOptions {
    /// The compression; `zstd` for Parquet and `none` for text when absent.
    pub compression: Option<Compression>,
    /// The delimiter of CSV, one ASCII character; `,` when absent.
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Whether CSV starts with the names; true when absent.
    pub header: Option<bool>,
}

/// A compression of written files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None.
    None,
    /// gzip; text files only.
    Gzip,
    /// Snappy; Parquet only.
    Snappy,
    /// Zstandard.
    Zstd,
}

/// A quality gate.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Its name.
    pub name: Name,
    /// The step or source it judges; absent: what the first sink writes.
    pub on: Option<Name>,
    /// These columns must hold a value in every row.
    pub not_null: Option<Vec<String>>,
    /// This SQL expression must be true in every row; NULL counts as true, as in a CHECK constraint.
    #[schemars(length(min = 1, max = 10_000))]
    pub check: Option<String>,
    /// These columns together must not repeat; not with `quarantine`.
    pub unique: Option<Vec<String>>,
    /// What happens to rows where it does not hold.
    pub on_fail: OnFail,
    /// With `quarantine`: the largest share of rows rejected before the run fails; 1%.
    pub max_rejected: Option<Ratio>,
}

/// What a gate demands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateRule {
    /// These columns hold a value.
    NotNull(Vec<String>),
    /// This expression is not false.
    Check(String),
    /// These columns together do not repeat.
    Unique(Vec<String>),
}

/// What happens to rows that a gate rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// The run fails before anything becomes visible.
    Fail,
    /// They are loaded, counted and reported.
    Warn,
    /// They go to the quarantine with their reason.
    Quarantine,
}

/// When a pipeline runs by itself: a preset such as `@daily`, or the parts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Schedule {
    /// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or five cron fields in UTC.
    Preset(String),
    /// The parts.
    Parts(ScheduleParts),
}

/// When a pipeline runs by itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleParts {
    /// Five cron fields, or a preset such as `@daily`.
    pub cron: String,
    /// An IANA time zone; UTC.
    pub timezone: Option<String>,
    /// The first day, `YYYY-MM-DD`.
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub start_date: Option<String>,
    /// Whether missed intervals are run; false.
    pub catchup: Option<bool>,
}

/// What to optimise, within which bounds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    /// What the search minimises; `cost`.
    pub optimize: Option<Objective>,
    /// The most memory one task may use; 512MiB.
    pub memory_max: Option<ByteSize>,
    /// The longest one run may take.
    pub deadline: Option<Span>,
}

/// What the search minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// CPU seconds and bytes moved.
    #[default]
    Cost,
    /// Wall seconds.
    Time,
    /// Peak memory.
    Memory,
}

/// What agents may do without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The largest schema change of an existing sink; `none`.
    pub schema_change: SchemaChange,
    /// What becomes of values that do not fit their type; `reject`.
    pub lossy_cast: LossyCast,
    /// Which plans a person must approve; `never`.
    pub approval: Approval,
}

/// A change of an existing sink's schema, from the mildest to the gravest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemaChange {
    /// None.
    #[default]
    None,
    /// New nullable columns.
    Additive,
    /// Also types that hold every old value, and dropped NOT NULL.
    Widening,
}

/// What becomes of values that do not fit their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossyCast {
    /// The run fails.
    #[default]
    Reject,
    /// They become NULL, counted.
    Null,
    /// Their row goes to the quarantine.
    Quarantine,
}

/// Which plans a person must approve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// None.
    #[default]
    Never,
    /// Those that change a sink's schema.
    OnSchemaChange,
    /// All.
    Always,
}

/// How failed tasks are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// How often after the first failure; 3.
    #[schemars(range(max = 100))]
    pub max: u32,
    /// The pause before the first retry, doubled for each further one up to an hour; 30s.
    pub backoff: Span,
}

/// What goes to Airflow as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Airflow {
    /// The pool of every task; Airflow takes letters, digits, `_`, `.` and `-`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,250}$"))]
    pub pool: String,
    /// The priority of every task.
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority_weight: i32,
    /// How many runs may be active at a time.
    #[schemars(range(min = 1, max = 1000))]
    pub max_active_runs: u32,
}

/// A data interval, as RFC 3339 instants in UTC: start included, end excluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The first instant.
    pub start: String,
    /// The first instant after it.
    pub end: String,
}

// === defaults ===

impl Default for Retries {
    fn default() -> Self {
        Self { max: 3, backoff: Span(30_000) }
    }
}

impl Default for Airflow {
    fn default() -> Self {
        Self { pool: "default_pool".into(), priority_weight: 1, max_active_runs: 1 }
    }
}
