//! Assets, which Airflow 2 calls datasets, and their events.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

/// An asset.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Asset {
    /// Airflow's number for it.
    pub id: i64,
    /// Its URI.
    pub uri: String,
    /// Its name; Airflow 3.
    #[serde(default)]
    pub name: Option<String>,
    /// Its group; Airflow 3.
    #[serde(default)]
    pub group: Option<String>,
}

/// That an asset changed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AssetEvent {
    /// Airflow's number for it.
    pub id: i64,
    /// The asset.
    #[serde(alias = "dataset_id")]
    pub asset_id: i64,
    /// The asset's URI.
    #[serde(default, alias = "dataset_uri")]
    pub uri: Option<String>,
    /// What whoever told it added.
    #[serde(default)]
    pub extra: Option<Map<String, Value>>,
    /// The DAG whose task changed it; none where it came in over the API.
    #[serde(default)]
    pub source_dag_id: Option<String>,
    /// The run.
    #[serde(default)]
    pub source_run_id: Option<String>,
    /// The task.
    #[serde(default)]
    pub source_task_id: Option<String>,
    /// Which instance of a mapped task; −1 of one that is not mapped.
    #[serde(default)]
    pub source_map_index: Option<i64>,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// The runs that it started so far, or was one of the causes of.
    #[serde(default)]
    pub created_dagruns: Vec<CreatedRun>,
}

/// A run that an event started.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CreatedRun {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    #[serde(alias = "dag_run_id")]
    pub run_id: String,
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssetEventFilter {
    /// Those of this asset.
    pub asset_id: Option<i64>,
    /// Those of this DAG's tasks.
    pub source_dag_id: Option<String>,
    /// Those of this run's tasks.
    pub source_run_id: Option<String>,
}
