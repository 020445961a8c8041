//! The spec as it stands in the file: the one source of its JSON Schema.
//!
//! Field by field this is what `docs/spec.md` lists. Optional things stay optional here; [`super::normalize`] fills in
//! defaults and checks what a schema cannot say.

mod settings;
mod sink;
mod source;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use settings::{
    Airflow, Alerts, Approval, Goals, Interval, LossyCast, Objective, Policy, Retries, Schedule, ScheduleParts,
    SchemaChange,
};
pub use sink::{Compression, Dedupe, Sink, SinkMode, WriteOptions};
pub use source::{Classified, CsvOptions, Encoding, FileFormat, Incremental, LagText, Mask, OnMissing, Ragged, Source};

use crate::{id::Name, units::Ratio};

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
    /// Whom Airflow tells of a run that went wrong.
    #[serde(default)]
    pub alerts: Alerts,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
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
