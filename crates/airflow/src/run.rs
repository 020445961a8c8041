//! DAG runs.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::state;

/// A DAG run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Run {
    /// Its DAG.
    pub dag_id: String,
    /// Its id, of its own within the DAG.
    #[serde(rename = "dag_run_id")]
    pub run_id: String,
    /// Its state.
    pub state: RunState,
    /// How it came about, as `manual`, `scheduled`, `backfill`, `asset_triggered`.
    #[serde(default)]
    pub run_type: Option<String>,
    /// The instant it stands for; none for many runs of Airflow 3.
    #[serde(default)]
    pub logical_date: Option<DateTime<Utc>>,
    /// Where its data interval starts.
    #[serde(default)]
    pub data_interval_start: Option<DateTime<Utc>>,
    /// Where its data interval ends.
    #[serde(default)]
    pub data_interval_end: Option<DateTime<Utc>>,
    /// When its first task started, or it was taken up.
    #[serde(default)]
    pub start_date: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default)]
    pub end_date: Option<DateTime<Utc>>,
    /// What whoever triggered it gave to it.
    #[serde(default)]
    pub conf: Option<Map<String, Value>>,
    /// What somebody noted.
    #[serde(default)]
    pub note: Option<String>,
    /// The version of its bundle that it runs with; Airflow 3, of bundles that have versions.
    #[serde(default)]
    pub bundle_version: Option<String>,
}

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum RunState {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// It ended well.
    Success,
    /// It ended badly.
    Failed,
    /// A state that this client does not know.
    Other(String),
}

/// Which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Those of this DAG; of every DAG that the user may see where there is none.
    pub dag_id: Option<String>,
    /// Those that changed at or after this instant, by Airflow's clock.
    pub updated_at_gte: Option<DateTime<Utc>>,
    /// Those in one of these states; all where there is none.
    pub states: Vec<RunState>,
}

/// A run to be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The DAG.
    pub dag_id: String,
    /// The run's id, by which a repeat finds it.
    pub run_id: String,
    /// What it is given.
    pub conf: Map<String, Value>,
    /// The instant it stands for. Without one, a run of Airflow 3 has none, and one of Airflow 2 that of its creation.
    pub logical_date: Option<DateTime<Utc>>,
    /// Its data interval; without one, the timetable's for the logical date.
    pub data_interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// What to note with it, up to 1,000 characters.
    pub note: Option<String>,
}

/// What became of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub enum Triggered {
    /// The run was created.
    Started(Run),
    /// A run with that id was there, as it is now: of an earlier call, or of a try of this one that was not answered.
    Found(Run),
}

/// What a run can be marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMark {
    /// Its unfinished tasks are taken for done.
    Success,
    /// Its running tasks are ended.
    Failed,
    /// It is taken up again.
    Queued,
}

// === impl RunState ===

impl RunState {
    /// Tells whether the run has ended; clearing takes it up again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Success | Self::Failed => true,
            Self::Queued | Self::Running | Self::Other(_) => false,
        }
    }

    /// Returns Airflow's word for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for RunState {
    fn from(word: String) -> Self {
        match word.as_str() {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "success" => Self::Success,
            "failed" => Self::Failed,
            _ => Self::Other(state::cut(word)),
        }
    }
}

// === impl Triggered ===

impl Triggered {
    /// Returns the run.
    #[must_use]
    pub fn run(&self) -> &Run {
        match self {
            Self::Started(run) | Self::Found(run) => run,
        }
    }
}

// === impl RunMark ===

impl RunMark {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Queued => "queued",
        }
    }
}
