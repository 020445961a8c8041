//! Task instances: their states, their logs, and clearing them.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::state;

/// Names a task instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Which instance of a mapped task; `None` of one that is not mapped.
    pub map_index: Option<u32>,
}

/// A task instance.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TaskInstance {
    /// Airflow 3's id, a UUID. It changes when the task is cleared; Airflow 2 has none.
    #[serde(default)]
    pub id: Option<String>,
    /// Its DAG.
    pub dag_id: String,
    /// Its run.
    #[serde(rename = "dag_run_id")]
    pub run_id: String,
    /// Its task.
    pub task_id: String,
    /// Which instance of a mapped task; −1 of one that is not mapped, or not yet expanded.
    pub map_index: i64,
    /// Its state; none before the scheduler has seen it.
    #[serde(default)]
    pub state: Option<TaskState>,
    /// The number of its last try; 0 before the first one.
    #[serde(default)]
    pub try_number: u32,
    /// The number of the last try that it may have, less one.
    #[serde(default)]
    pub max_tries: Option<i64>,
    /// When the last try started.
    #[serde(default)]
    pub start_date: Option<DateTime<Utc>>,
    /// When the last try ended.
    #[serde(default)]
    pub end_date: Option<DateTime<Utc>>,
    /// When it was last queued.
    #[serde(default)]
    pub queued_when: Option<DateTime<Utc>>,
    /// The operator's class.
    #[serde(default)]
    pub operator: Option<String>,
    /// The pool it needs a slot of.
    #[serde(default)]
    pub pool: Option<String>,
    /// The worker of the last try.
    #[serde(default)]
    pub hostname: Option<String>,
    /// What somebody noted.
    #[serde(default)]
    pub note: Option<String>,
}

/// The state of a task instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum TaskState {
    /// It is no longer in the DAG.
    Removed,
    /// What it waits for is done.
    Scheduled,
    /// It waits for a worker.
    Queued,
    /// It runs.
    Running,
    /// It ended well.
    Success,
    /// It was cleared while it ran.
    Restarting,
    /// It ended badly, after its last try.
    Failed,
    /// A try ended badly; the next one follows.
    UpForRetry,
    /// A sensor that looks again later.
    UpForReschedule,
    /// It never ran, as one before it failed.
    UpstreamFailed,
    /// It was left out.
    Skipped,
    /// It waits in the triggerer.
    Deferred,
    /// It waits for a person; Airflow 3.
    AwaitingInput,
    /// A state that this client does not know.
    Other(String),
}

/// What a task instance can be marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskMark {
    /// As if it had ended well.
    Success,
    /// It is ended.
    Failed,
    /// It is left out.
    Skipped,
}

/// Task instances of one run that are to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clear {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    pub run_id: String,
    /// The tasks: `None` for all, else at least one.
    pub tasks: Option<Vec<ClearedTask>>,
    /// Only those that failed, or never ran as one before them failed.
    pub only_failed: bool,
    /// Also all that come after these tasks.
    pub downstream: bool,
}

/// A task to be cleared, or that was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct ClearedTask {
    /// The task.
    pub task_id: String,
    /// Which instance of a mapped task; `None` for all of them, and from Airflow 2, which does not tell.
    #[serde(default)]
    pub map_index: Option<i64>,
}

/// What somebody answered to a task that waits for input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The options that they chose.
    pub chosen: Vec<String>,
    /// Who answered, as Airflow calls them; `None` where a default was taken.
    pub by: Option<String>,
}

/// The end of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Lines of text, the last ones; without control characters but line ends and tabs.
    pub text: String,
    /// How many bytes are left out before it.
    pub left_out: u64,
    /// Whether the log was read to its end; that of a running task may go on.
    pub is_complete: bool,
}

// === impl TaskInstance ===

impl TaskInstance {
    /// Returns its name.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        TaskKey {
            dag_id: self.dag_id.clone(),
            run_id: self.run_id.clone(),
            task_id: self.task_id.clone(),
            map_index: u32::try_from(self.map_index).ok(),
        }
    }
}

// === impl TaskState ===

impl TaskState {
    /// Tells whether nothing more happens to the instance unless somebody clears it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Removed | Self::Success | Self::Failed | Self::UpstreamFailed | Self::Skipped => true,
            Self::Scheduled
            | Self::Queued
            | Self::Running
            | Self::Restarting
            | Self::UpForRetry
            | Self::UpForReschedule
            | Self::Deferred
            | Self::AwaitingInput
            | Self::Other(_) => false,
        }
    }
}

impl From<String> for TaskState {
    fn from(word: String) -> Self {
        match word.as_str() {
            "removed" => Self::Removed,
            "scheduled" => Self::Scheduled,
            "queued" => Self::Queued,
            "running" => Self::Running,
            "success" => Self::Success,
            "restarting" => Self::Restarting,
            "failed" => Self::Failed,
            "up_for_retry" => Self::UpForRetry,
            "up_for_reschedule" => Self::UpForReschedule,
            "upstream_failed" => Self::UpstreamFailed,
            "skipped" => Self::Skipped,
            "deferred" => Self::Deferred,
            "awaiting_input" => Self::AwaitingInput,
            _ => Self::Other(state::cut(word)),
        }
    }
}

// === impl TaskMark ===

impl TaskMark {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}
