//! What a person asks for: a pipeline spec, parsed, checked and normalised.
//!
//! [`Spec::parse`] takes YAML or JSON text and returns either a spec in normal form (every default filled in, single
//! `source` and `sink` named, every `from` resolved) or all diagnostics at once. The types in [`document`] mirror the
//! file and generate its JSON Schema; the types here are what the rest of Dagwright reads.
//!
//! Deliberately absent: anything that needs a profile, a connection or SQL planning. Those are facts, found later.

mod de;
pub mod diagnostic;
pub mod document;
mod normalize;
mod parse;
mod report;
mod rewrite;
mod secrets;
mod structure;
#[cfg(test)]
mod tests;
mod texts;
mod tree;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::{
    Airflow, Alerts, Approval, Compression, CsvOptions, Encoding, FileFormat, GateRule, Interval, LossyCast, Mask,
    Objective, OnFail, OnMissing, Param, ParamType, Policy, Ragged, Retries, SchemaChange, SinkMode, Step,
    WriteOptions,
};
pub use normalize::sql::replace_binds;

use crate::{
    id::Name,
    schema::DataType,
    units::{ByteSize, Ratio, Span},
};

/// The longest DAG id; Airflow's column has 250 characters.
pub const DAG_ID_LENGTH_MAX: usize = 250;

/// The largest spec accepted, in bytes.
pub const SPEC_BYTES_MAX: usize = 1 << 20;

/// The name of the single source when a spec uses `source:`.
pub const SINGLE_SOURCE: &str = "source";

/// The name of the single sink when a spec uses `sink:`.
pub const SINGLE_SINK: &str = "sink";

/// A validated pipeline spec in normal form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The pipeline's name.
    pub pipeline: Name,
    /// The namespace, if any.
    pub namespace: Option<Name>,
    /// Who to ask about it; free text.
    pub owner: Option<String>,
    /// What it is for; free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Typed parameters, bound in SQL as `$name`.
    pub params: BTreeMap<Name, Param>,
    /// What is read, in the order written; at least one.
    pub sources: IndexMap<Name, Source>,
    /// The SQL steps, in an order where each uses only sources and earlier steps.
    pub transform: Vec<Step>,
    /// What is written, in the order written; at least one.
    pub sinks: IndexMap<Name, Sink>,
    /// The quality gates.
    pub quality: Vec<QualityGate>,
    /// When it runs by itself; `None` runs on request only.
    pub schedule: Option<Schedule>,
    /// What to optimise, within which bounds.
    pub goals: Goals,
    /// What agents may do without asking.
    pub policy: Policy,
    /// How often and how patiently a failed task is tried again.
    pub retries: Retries,
    /// What goes to Airflow as it is.
    pub airflow: Airflow,
    /// Whom Airflow tells of a run that went wrong; left out of the hash where it is nobody, as it was not always there.
    #[serde(default, skip_serializing_if = "Alerts::is_empty")]
    pub alerts: Alerts,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Where it is.
    pub locator: Locator,
    /// The file format; `None` is found by the profile.
    pub format: Option<FileFormat>,
    /// What is known of text files; absent parts are found by the profile.
    pub csv: CsvOptions,
    /// How a run continues where the last one ended; `None` reads everything.
    pub incremental: Option<Incremental>,
    /// What the request says of single columns.
    pub columns: BTreeMap<String, ColumnSpec>,
    /// What to do when there is nothing at the locator.
    pub on_missing: OnMissing,
}

/// Where a source or sink is, as written in the spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locator {
    /// A path or URI; a source's may be a glob; `{data_interval_start:%Y-%m-%d}` and `…_end` are filled in per run.
    Uri(String),
    /// A table of a named connection.
    Table {
        /// The connection's name.
        connection: Name,
        /// `table` or `schema.table`.
        table: TableName,
    },
    /// A query over a named connection; sources only.
    Query {
        /// The connection's name.
        connection: Name,
        /// One SELECT, in the database's own dialect; binds stand in it as `$name`.
        query: String,
        /// The binds it uses, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        binds: BTreeMap<String, QueryBind>,
    },
}

/// A bind of a source's query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryBind {
    /// Its type.
    #[serde(rename = "type")]
    pub param_type: ParamType,
    /// What a probe takes for its value, as text, because no run is known then; absent: NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

/// A table's name, as `table` or `schema.table`; each part is any text without a dot or a quote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// The schema; `None` is the connection's default.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

/// How an incremental source continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incremental {
    /// The column whose values only grow.
    pub cursor: String,
    /// Where the first run starts (exclusive), as text in the cursor's type; `None` is the beginning.
    pub initial_value: Option<String>,
    /// How far behind the committed cursor each run reads again, for late rows.
    pub lag: Option<Lag>,
}

/// The late window of an incremental source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lag {
    /// For dates and timestamps.
    Time(Span),
    /// For numbers.
    Number(u64),
}

/// What the request says of one column of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// The type to read it as; `None` is found by the profile.
    pub data_type: Option<DataType>,
    /// The class of its content, free text such as `pii`; any class keeps values out of everything but the sink.
    pub classification: Option<String>,
    /// How values are made unreadable at extraction.
    pub mask: Option<Mask>,
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sink {
    /// Where it is; never a query.
    pub locator: Locator,
    /// The step or source whose rows are written.
    pub from: Name,
    /// The file format; `None` for tables.
    pub format: Option<FileFormat>,
    /// What becomes of rows that are there already.
    pub mode: SinkMode,
    /// The columns that identify a row; needed by `upsert`, else empty.
    pub key: Vec<String>,
    /// Which of several rows with the same key wins: the first in this order; empty means duplicates are refused.
    pub dedupe: Vec<OrderBy>,
    /// Fewer rows than this fail the run before anything becomes visible.
    pub min_rows: u64,
    /// Whether an append to a table carries `_dagwright_run_id`.
    pub meta_columns: bool,
    /// How files are written.
    pub write: WriteOptions,
}

/// One term of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OrderBy {
    /// The column.
    pub column: String,
    /// Largest first; NULLs always come last.
    pub descending: bool,
}

/// One quality gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityGate {
    /// Its name, unique in the spec.
    pub name: Name,
    /// The step or source whose rows it judges.
    pub on: Name,
    /// What must hold.
    pub rule: GateRule,
    /// What happens to rows where it does not.
    pub on_fail: OnFail,
    /// With `quarantine`: the largest share of rows that may be rejected before the run fails.
    pub max_rejected: Ratio,
}

/// When a pipeline runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Schedule {
    /// At certain times.
    Cron(CronSchedule),
    /// Whenever data it waits for changed. Only Airflow knows of that: elsewhere it runs on request.
    Assets(AssetSchedule),
}

/// A schedule by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronSchedule {
    /// Five cron fields; presets such as `@daily` are spelled out here.
    pub cron: String,
    /// An IANA time zone.
    pub timezone: String,
    /// The first day (`YYYY-MM-DD`), or `None` for 1970-01-01, which with `catchup: false` changes nothing.
    pub start_date: Option<String>,
    /// Whether missed intervals are run.
    pub catchup: bool,
}

/// A schedule by Airflow's assets (2.11: datasets).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetSchedule {
    /// Their URIs, none twice: a run starts when each of them changed since the last.
    pub assets: Vec<String>,
}

/// What to optimise, within which bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goals {
    /// What the search minimises.
    pub optimize: Objective,
    /// The most memory one task may use.
    pub memory_max: ByteSize,
    /// The longest one run may take.
    pub deadline: Option<Span>,
}

// === impl Spec ===

impl Spec {
    /// Parses and validates YAML or JSON text.
    ///
    /// # Errors
    /// Every diagnostic, in the order of lines.
    pub fn parse(text: &str) -> Result<Self, Diagnostics> {
        parse::parse(text)
    }

    /// Returns the `dag_id` of the pipeline that a text is the spec of, whether or not the rest of it is valid; `None` when
    /// that cannot be told.
    #[must_use]
    pub fn dag_id_in(text: &str) -> Option<String> {
        parse::dag_id(text)
    }

    /// Returns the text of a valid spec with other URIs where `replace` has some; all else stays as it is written.
    #[must_use]
    pub fn with_uris(text: &str, replace: impl Fn(&str) -> Option<String>) -> String {
        rewrite::uris(text, replace)
    }

    /// Returns the JSON Schema of the file format (draft 2020-12).
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        structure::json_schema()
    }

    /// Returns the DAG id: `<namespace>.<pipeline>`, or the pipeline alone.
    #[must_use]
    pub fn dag_id(&self) -> String {
        dag_id(self.namespace.as_ref(), &self.pipeline)
    }

    /// Returns the content hash of the normal form.
    #[must_use]
    pub fn hash(&self) -> String {
        crate::canonical::hash(self)
    }
}

fn dag_id(namespace: Option<&Name>, pipeline: &Name) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}.{pipeline}"),
        None => pipeline.to_string(),
    }
}

// === impl Schedule ===

impl Schedule {
    /// Returns the schedule by the clock, if it is one: what has data intervals.
    #[must_use]
    pub fn cron(&self) -> Option<&CronSchedule> {
        match self {
            Self::Cron(cron) => Some(cron),
            Self::Assets(_) => None,
        }
    }
}

// === impl TableName ===

/// Says that a text is not a [`TableName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a table name; write `table` or `schema.table`")]
pub struct InvalidTableName(String);

impl TryFrom<String> for TableName {
    type Error = InvalidTableName;

    fn try_from(text: String) -> Result<Self, InvalidTableName> {
        // PostgreSQL's limit is 63 bytes for each part; longer names would be cut silently.
        let valid = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && !part.contains(['.', '"', '\0'])
                && !part.chars().any(char::is_control)
        };
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text.as_str()),
        };
        if !valid(table) || !schema.is_none_or(valid) {
            return Err(InvalidTableName(text));
        }
        Ok(Self { schema: schema.map(Into::into), table: table.into() })
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Table { connection, table } => write!(f, "{connection}:{table}"),
            Self::Query { connection, .. } => write!(f, "{connection}:(query)"),
        }
    }
}
