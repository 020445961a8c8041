//! What Airflow tells of itself while it runs our DAGs, whichever way that comes: posted by the listener of
//! `dagwright-airflow`, read from the topic of Airflow's own event producer, or asked for over REST.
//!
//! Whatever is told may be told twice, late, or out of order, and may lack what the way it came does not carry.

use chrono::{DateTime, Utc};
use dagwright_airflow::{RunState, TaskState};
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
    task::Counts,
};

/// Takes in what Airflow tells.
pub trait Ear: Send + Sync {
    /// Takes something in; never blocks, and may drop what it has no room for, since what is missed is looked for later.
    fn hear(&self, told: Told);
}

/// Something that Airflow told of a DAG run, or of a task instance of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The DAG.
    pub dag_id: String,
    /// The run's id within the DAG.
    pub run_id: String,
    /// When it happened, by the clock of whoever tells.
    pub at: DateTime<Utc>,
    /// What.
    pub what: What,
}

/// What was told.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The run came into a state.
    Run(Box<ToldRun>),
    /// A try of a task came into a state.
    Task(Box<ToldTask>),
}

/// A run, as far as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldRun {
    /// The state.
    pub state: RunState,
    /// How it came about, as `manual`, `scheduled`, `backfill`.
    pub run_type: Option<String>,
    /// Its data interval, where it has one.
    pub interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The request that it was triggered for.
    pub request: Option<RequestId>,
    /// The plan that its DAG was compiled from.
    pub plan: Option<PlanHash>,
    /// When it started, or was last taken up again.
    pub started_at: Option<DateTime<Utc>>,
}

/// A try of a task, as far as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldTask {
    /// The task.
    pub task: TaskId,
    /// Which instance of a mapped task.
    pub map_index: Option<u32>,
    /// Which try, from 1; goes on when the task is cleared.
    pub attempt: u32,
    /// The state.
    pub state: TaskState,
    /// When the try started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// What failed, where it was told.
    pub failure: Option<Failure>,
    /// What was counted, where it was told.
    pub counts: Option<Counts>,
}

/// Why a try of a task failed, as far as it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// One of our own codes, which the operator's message begins with.
    pub code: Option<Code>,
    /// The message; holds no data.
    pub message: Option<String>,
}
