//! What Airflow tells of itself while it runs our DAGs, whichever way that comes: posted by the listener of
//! `dagwright-airflow`, read from the topic of Airflow's own event producer, or asked for over REST.
//!
//! Whatever is told may be told twice, late, or out of order, and may lack what the way it came does not carry.
//!
//! | module | what it reads |
//! |---|---|
//! | [`posted`] | events that the listener of `dagwright-airflow` posts |
//! | [`produced`] | records of Airflow's own event producer |
//! | `fields` | the members of a JSON object, each with its bound |

mod fields;
#[cfg(test)]
mod hostile;
pub mod posted;
pub mod produced;

use chrono::{DateTime, Utc};
use dagwright_airflow::{RunState, TaskState};
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
    task::Counts,
};

pub use self::fields::Refused;

/// Takes in what Airflow tells.
pub trait Ear: Send + Sync {
    /// Takes something in; never blocks, and may drop what it has no room for, since what is missed is looked for later. Of
    /// DAGs that are nobody's here it is told as well.
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
    /// How often it was cleared.
    pub clear_number: Option<u32>,
    /// When it started, or was last taken up again.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A try of a task, as far as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldTask {
    /// The task.
    pub task: TaskId,
    /// Which instance of a mapped task.
    pub map_index: Option<u32>,
    /// Which try, from 1; goes on when the task is cleared. 0 where somebody marked a task that was never tried.
    pub attempt: u32,
    /// The number of the last try that it may have, less one; what it grows by beyond the task's retries says that the task
    /// was cleared.
    pub max_tries: Option<u32>,
    /// The state. [`TaskState::Failed`] is that of a try where [`ToldTask::is_last`] is not known.
    pub state: TaskState,
    /// Whether no further try follows one that failed; `None` where that was not told, so that Airflow must be asked.
    pub is_last: Option<bool>,
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
