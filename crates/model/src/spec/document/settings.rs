//! The parts of a document that say when it runs, within which bounds, and what may be done without asking.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{ByteSize, Span};

/// When a pipeline runs by itself: a preset such as `@daily`, or the parts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Schedule {
    /// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or five cron fields in UTC.
    Preset(String),
    /// The parts.
    Parts(ScheduleParts),
}

/// When a pipeline runs by itself: at the times of `cron`, or when its `assets` changed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleParts {
    /// URIs of Airflow's assets, as `dagwright://<namespace.pipeline>/<sink>` for what another pipeline writes: it runs
    /// when each of them changed since its last run. Stands alone; without Airflow the pipeline runs on request.
    #[schemars(length(min = 1, max = 50))]
    pub assets: Option<Vec<String>>,
    /// Five cron fields, or a preset such as `@daily`; needed where there are no `assets`.
    pub cron: Option<String>,
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

/// Whom Airflow tells of a run that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Airflow connections that are told of each run that failed.
    #[schemars(length(max = 10), inner(regex(pattern = r"^[A-Za-z0-9_.-]{1,200}$")))]
    pub on_failure: Vec<String>,
    /// Airflow connections that are told of each run that was not done by `goals.deadline`.
    #[schemars(length(max = 10), inner(regex(pattern = r"^[A-Za-z0-9_.-]{1,200}$")))]
    pub on_deadline: Vec<String>,
}

/// A data interval, as RFC 3339 instants in UTC: start included, end excluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The first instant.
    pub start: String,
    /// The first instant after it.
    pub end: String,
}

// === impl Alerts ===

impl Alerts {
    /// Tells whether nobody is told of anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.on_failure.is_empty() && self.on_deadline.is_empty()
    }
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
