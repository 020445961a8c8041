//! Backfills: runs for intervals that have passed. Airflow 3 has them behind its API.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A backfill to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct BackfillRequest {
    /// The DAG; its schedule has to be periodic.
    pub dag_id: String,
    /// The first logical date.
    pub from: DateTime<Utc>,
    /// The last logical date.
    pub to: DateTime<Utc>,
    /// What its runs are given.
    pub conf: Map<String, Value>,
    /// What becomes of dates that have a run.
    pub reprocess: Reprocess,
    /// The latest date first.
    pub backwards: bool,
    /// How many of its runs may be active at once; at least 1.
    pub max_active_runs: u32,
}

/// What a backfill does about dates that have a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reprocess {
    /// Nothing.
    None,
    /// It runs those that failed again.
    Failed,
    /// It runs all that ended again.
    Completed,
}

/// A backfill.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Backfill {
    /// Airflow's number for it.
    pub id: u64,
    /// The DAG.
    pub dag_id: String,
    /// The first logical date.
    pub from_date: DateTime<Utc>,
    /// The last logical date.
    pub to_date: DateTime<Utc>,
    /// Whether it rests.
    pub is_paused: bool,
    /// When its last run was done, or it was cancelled.
    #[serde(default)]
    pub completed_at: Option<DateTime<Utc>>,
}

/// What can be done to a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackfillAction {
    /// It starts no further runs for now.
    Pause,
    /// It goes on.
    Unpause,
    /// Its queued runs are failed, and no further ones started.
    Cancel,
}

// === impl Reprocess ===

impl Reprocess {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

// === impl BackfillAction ===

impl BackfillAction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Cancel => "cancel",
        }
    }
}
