//! Airflow itself: how it does, its pools, and its connections.

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// How Airflow's parts do.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Health {
    /// Its database.
    pub metadatabase: Component,
    /// What starts runs and tasks.
    pub scheduler: Component,
    /// What deferred tasks wait in; not every Airflow has one.
    #[serde(default)]
    pub triggerer: Option<Component>,
    /// What parses files; in Airflow 2 mostly a part of the scheduler.
    #[serde(default)]
    pub dag_processor: Option<Component>,
}

/// How a part does.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Component {
    /// `healthy` or `unhealthy`; none where there is no such part.
    #[serde(default)]
    pub status: Option<String>,
    /// When it was last alive.
    #[serde(
        default,
        alias = "latest_scheduler_heartbeat",
        alias = "latest_triggerer_heartbeat",
        alias = "latest_dag_processor_heartbeat"
    )]
    pub latest_heartbeat: Option<DateTime<Utc>>,
}

/// A pool: how many tasks that name it run at once.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How many slots it has; −1 for no end.
    pub slots: i64,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether tasks that wait in the triggerer take slots too.
    #[serde(default)]
    pub include_deferred: bool,
    /// How many slots are taken by running and queued tasks.
    #[serde(default)]
    pub occupied_slots: Option<i64>,
}

/// What became of asking for a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolSet {
    /// It was made.
    Made(Pool),
    /// It was there with another number of slots.
    Changed(Pool),
    /// It was there as it is wanted.
    Kept(Pool),
}

/// A connection, without what is secret of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Connection {
    /// Its id.
    pub connection_id: String,
    /// Its type, as `postgres`.
    pub conn_type: String,
    /// The host.
    #[serde(default)]
    pub host: Option<String>,
    /// The port.
    #[serde(default)]
    pub port: Option<u32>,
    /// The schema, or database.
    #[serde(default)]
    pub schema: Option<String>,
}

/// What trying a connection out came to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ConnectionTest {
    /// Whether it works.
    #[serde(rename = "status")]
    pub works: bool,
    /// What Airflow says of it: one line, without control characters.
    #[serde(default)]
    pub message: String,
}

// === impl Health ===

impl Health {
    /// Tells whether what starts runs and tasks is alive, with its database.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.metadatabase.is_healthy()
            && self.scheduler.is_healthy()
            && self.dag_processor.as_ref().is_none_or(|part| part.status.is_none() || part.is_healthy())
    }
}

// === impl Component ===

impl Component {
    /// Tells whether it is alive.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status.as_deref() == Some("healthy")
    }
}

// === impl PoolSet ===

impl PoolSet {
    /// Returns the pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        match self {
            Self::Made(pool) | Self::Changed(pool) | Self::Kept(pool) => pool,
        }
    }
}
