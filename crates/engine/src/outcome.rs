//! How a run ended.

use dagwright_model::{
    message::Role,
    record::TaskInstance,
    setback::Setback,
    task::{Counts, Outcome, Problem, Status},
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// How.
    pub status: Status,
    /// Why, when it did not succeed.
    pub problem: Option<Problem>,
    /// The sum of what the succeeded tasks counted. Rows that partitions staged count when they were published: a sink
    /// has them from its publish task, or `loaded` stays 0.
    pub counts: Counts,
    /// What it taught, where the plan is made anew for it: then the request goes on.
    pub setback: Option<Box<Setback>>,
    /// Every task instance, in the plan's order; a mapped task that never learnt its partitions stands for itself.
    pub tasks: Vec<TaskReport>,
}

/// What came of one task instance.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskReport {
    /// Which.
    pub instance: TaskInstance,
    /// Whose work it is.
    pub role: Role,
    /// Whether it is a teardown task, whose failure fails nothing.
    pub teardown: bool,
    /// How often it was started; 0 for one whose turn never came.
    pub attempts: u32,
    /// What came of its last try that ended.
    pub outcome: Option<Outcome>,
    /// What its last try warned of, at most [`WARNINGS_MAX`](crate::event::WARNINGS_MAX); empty when an earlier
    /// engine ran it.
    pub warnings: Vec<Problem>,
    /// The end of what its last try logged, when that did not succeed; without control characters.
    pub log_tail: String,
}
