//! What a run that failed has taught, and what came of that: the facts and the words for plans that are made anew.
//!
//! A [`Setback`] stands in the ledger with the end of the run, and in the facts of the negotiation over the next version of
//! the plan. It holds no time and no value of the data, so the same setback gives the same plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    id::{Name, PlanHash},
    message::{Placement, Role},
    plan::Plan,
    record::{FailureClass, TaskInstance},
    schema::Column,
    task::{Input, Output, Problem, Work},
    units::ByteSize,
};

/// A run of a version of a plan that failed in a way that another plan may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setback {
    /// Which version of the request's plan it was, from 1.
    pub version: u32,
    /// That plan.
    pub plan_hash: PlanHash,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The task that failed; `None` where it was none in particular.
    pub task: Option<FailedTask>,
    /// Where the plan computed.
    pub placement: Placement,
    /// In how many parts at most the plan read its source, where it did.
    pub parts: Option<u32>,
    /// What happened.
    pub problem: Problem,
    /// How often the request's plan may still be made anew, this time included.
    pub left: u32,
}

/// The task over which a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTask {
    /// Which.
    #[serde(flatten)]
    pub instance: TaskInstance,
    /// Whose work it was.
    pub role: Role,
    /// The exit code of its process, as its problem's code says; 137 for one that was killed.
    pub exit: u8,
    /// What it was allowed to hold in memory.
    pub memory_max: ByteSize,
    /// The largest resident set of its process, in bytes; 0 where unknown.
    pub memory_peak_bytes: u64,
}

/// What a source or sink was sealed with, and what it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SchemaDrift {
    /// The source or sink.
    pub subject: Name,
    /// Which of both it is.
    pub side: Side,
    /// How grave the change is.
    pub change: DriftKind,
    /// What changed, one phrase for each column.
    pub what: Vec<String>,
    /// The columns that the earlier plan used, in order.
    pub before: Vec<Column>,
    /// The columns that the new one uses, in order.
    pub after: Vec<Column>,
}

/// Where a schema drifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What is read.
    Source,
    /// What is written.
    Sink,
}

/// How grave a change of a schema is, from the mildest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// There are further columns.
    Additive,
    /// Types changed into ones that hold every old value.
    Widening,
    /// A column is gone, or has a type that is another thing.
    Breaking,
}

// === impl Plan ===

impl Plan {
    /// Returns where it computes, as its tasks show.
    #[must_use]
    pub fn placement(&self) -> Placement {
        if self.tasks.iter().any(|task| task.mapped_over.is_some()) {
            return Placement::Mapped;
        }
        let is_staged = |task: &crate::plan::PlannedTask| match &task.spec.work {
            Work::Move(work) => {
                work.inputs.values().any(|input| matches!(input, Input::Staged { .. }))
                    || work.outputs.iter().any(|output| matches!(output, Output::Staged { .. }))
            }
            Work::Split(_) | Work::Publish(_) | Work::Cleanup => false,
        };
        if self.tasks.iter().any(is_staged) { Placement::Staged } else { Placement::Fused }
    }

    /// Returns in how many parts at most it reads its source, where it does.
    #[must_use]
    pub fn parts(&self) -> Option<u32> {
        self.tasks.iter().find_map(|task| match &task.spec.work {
            Work::Split(split) => Some(split.partitions_max),
            Work::Move(_) | Work::Publish(_) | Work::Cleanup => None,
        })
    }

    /// Tells whether another plan has the very same tasks, whatever reasons and expectations it has.
    #[must_use]
    pub fn does_the_same(&self, other: &Self) -> bool {
        let alike = |(a, b): (&crate::plan::PlannedTask, &crate::plan::PlannedTask)| {
            a.spec == b.spec && a.after == b.after && a.mapped_over == b.mapped_over && a.teardown == b.teardown
        };
        self.tasks.len() == other.tasks.len() && self.tasks.iter().zip(&other.tasks).all(alike)
    }
}

// === impl Placement, Side, DriftKind ===

impl Placement {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Mapped => "mapped",
            Self::Staged => "staged",
        }
    }
}

impl Side {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

impl DriftKind {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Additive => "additive",
            Self::Widening => "widening",
            Self::Breaking => "breaking",
        }
    }
}

impl std::fmt::Display for SchemaDrift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.side.as_str(), self.subject, self.what.join(", "))
    }
}
