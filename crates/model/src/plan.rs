//! What the agents agreed on: a sealed plan, which both engines run and the compiler renders.
//!
//! A plan is a set of tasks with dependencies, the choices that led to it, and what Airflow needs to know of the
//! request. It holds no time and no absolute path, so the same facts seal to the same bytes anywhere.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    canonical,
    facts::Identity,
    id::{Name, PlanHash, TaskId},
    message::{Cost, Role},
    schema::Column,
    spec::{Airflow, Alerts, Param, Policy, Retries, Schedule, SchemaChange},
    task::TaskSpec,
    units::Span,
};

/// The version of the plan format.
pub const PLAN_VERSION: u32 = 1;

/// A sealed plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The pipeline.
    pub pipeline: Name,
    /// `<namespace>.<pipeline>`, or the pipeline alone.
    pub dag_id: String,
    /// The hash of the spec it fulfils.
    pub spec_hash: String,
    /// Who to ask about it; free text.
    pub owner: Option<String>,
    /// What it is for; free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// The parameters a run may give.
    pub params: BTreeMap<Name, Param>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// The longest one run may take.
    pub deadline: Option<Span>,
    /// The policy it was sealed under.
    pub policy: Policy,
    /// How failed tasks are tried again.
    pub retries: Retries,
    /// What goes to Airflow as it is.
    pub airflow: Airflow,
    /// Whom Airflow tells of a run that went wrong; left out of the hash where it is nobody, as it was not always there.
    #[serde(default, skip_serializing_if = "Alerts::is_empty")]
    pub alerts: Alerts,
    /// The connections it uses, and what they mean.
    pub connections: BTreeMap<Name, Identity>,
    /// The tasks, in an order where each follows what it depends on.
    pub tasks: Vec<PlannedTask>,
    /// Why it is this plan, one for each subject negotiated over.
    pub choices: Vec<Choice>,
    /// The gravest schema change it makes to a sink.
    pub schema_change: SchemaChange,
    /// What the whole run is expected to cost.
    pub cost: Cost,
}

/// A task of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTask {
    /// Which agent's work it is.
    pub role: Role,
    /// The task.
    pub spec: TaskSpec,
    /// The tasks that must have succeeded first.
    pub after: Vec<TaskId>,
    /// The split task whose partitions it runs once for each.
    pub mapped_over: Option<TaskId>,
    /// Whether it runs at the end whatever became of the others, and its failure fails nothing.
    pub teardown: bool,
    /// The longest one try may take.
    pub timeout: Span,
    /// What it hands to later tasks: the columns of each relation it stages or writes.
    pub provides: BTreeMap<Name, Vec<Column>>,
    /// What it is expected to cost.
    pub cost: Cost,
}

/// Why an alternative won.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Who offered it.
    pub role: Role,
    /// The source, step list or sink it is about.
    pub subject: String,
    /// The alternative's id.
    pub chosen: String,
    /// One sentence.
    pub rationale: String,
    /// What it is expected to cost.
    pub cost: Cost,
    /// What lost, and why.
    pub rejected: Vec<Rejected>,
}

/// An alternative that lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The alternative's id.
    pub alternative: String,
    /// What it would have cost.
    pub cost: Cost,
    /// Why it lost, one sentence.
    pub why: String,
}

/// How one plan differs from the one before, in one respect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanChange {
    /// What kind of change it is.
    pub kind: ChangeKind,
    /// A task, or what of the pipeline.
    pub subject: String,
    /// One phrase.
    pub what: String,
    /// How much it may hurt.
    pub risk: Risk,
}

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is no more.
    Removed,
    /// It is done otherwise.
    Changed,
}

/// How much a change may hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// The same data arrives in another way.
    Low,
    /// Other data arrives, or a sink's schema grows.
    Medium,
    /// What is there already is treated differently, or a sink's schema changes in place.
    High,
}

// === impl PlanChange ===

impl fmt::Display for PlanChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.subject, self.what)
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "+",
            Self::Removed => "-",
            Self::Changed => "~",
        })
    }
}

// === impl Plan ===

impl Plan {
    /// Returns the content hash.
    #[must_use]
    pub fn hash(&self) -> PlanHash {
        PlanHash(canonical::hash(self))
    }

    /// Returns a task by id.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> Option<&PlannedTask> {
        self.tasks.iter().find(|task| task.spec.id == *id)
    }
}
