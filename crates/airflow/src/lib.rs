//! Calls Apache Airflow: one trait, [`Airflow`], over REST v1 (2.11) and v2 (3.x).
//!
//! [`Client`] finds out by itself which of the two answers, and where they differ says the same for both: what each was seen
//! to do is in `v1.rs` and `v2.rs`. What a version does not have is [`Error::NotOffered`], never something else in its place.
//!
//! - Answers are hostile input: bounded, typed, and quoted without control characters.
//! - Names reach paths as single escaped segments; those that could climb or mean all are refused before anything is sent.
//! - A call is sent again only where a repeat has no second effect (see `http.rs`); so an error of one that changes
//!   something may mean that it was changed.
//! - Credentials stand in no error, log or `Debug`.
//!
//! Deliberately absent: deciding what to do about what is seen, and events; both are others' work.

mod asset;
mod auth;
mod backfill;
mod client;
mod dag;
mod detail;
mod error;
mod http;
mod log;
mod page;
mod path;
mod run;
mod service;
mod settings;
mod state;
mod task;
mod v1;
mod v2;
mod version;

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value};

pub use self::{
    asset::{Asset, AssetEvent, AssetEventFilter, CreatedRun},
    backfill::{Backfill, BackfillAction, BackfillRequest, Reprocess},
    client::Client,
    dag::{Dag, DagFilter, DagVersion, Deleted, ImportError},
    error::{Error, Quoted, Subject},
    page::{PAGE_LIMIT_MAX, Page, Span},
    run::{Run, RunFilter, RunMark, RunState, Trigger, Triggered},
    service::{Component, Connection, ConnectionTest, Health, Pool, PoolSet},
    settings::{Credentials, Secret, Settings},
    task::{Answer, Clear, ClearedTask, Log, TaskInstance, TaskKey, TaskMark, TaskState},
    version::{Api, Version},
};

/// What comes of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// An Airflow.
///
/// # Errors
/// Every call may end with each [`Error`] that says that Airflow is away, does not let the caller in, or answers what cannot be
/// read. What else is to be expected stands at the call.
///
/// # Cancel safety
/// A call that is dropped may have had its effect.
#[async_trait]
pub trait Airflow: fmt::Debug + Send + Sync {
    // === Airflow itself ===

    /// Asks how Airflow's parts do.
    async fn health(&self) -> Result<Health>;

    /// Asks which version answers, and goes by its API from now on.
    async fn version(&self) -> Result<Version>;

    // === DAGs ===

    /// Returns a DAG; [`Error::NotFound`] until Airflow has parsed its file.
    async fn dag(&self, dag_id: &str) -> Result<Dag>;

    /// Lists DAGs by id.
    async fn dags(&self, filter: &DagFilter, span: Span) -> Result<Page<Dag>>;

    /// Lets a DAG's schedule rest, or go on.
    async fn set_paused(&self, dag_id: &str, paused: bool) -> Result<Dag>;

    /// Deletes a DAG with its history; where its file is still there, Airflow soon finds it again. [`Error::Conflict`] while
    /// its tasks run.
    async fn delete_dag(&self, dag_id: &str) -> Result<Deleted>;

    /// Asks for the file of a DAG to be parsed soon, by its [`Dag::file_token`]. Airflow 3 looks through the whole bundle for
    /// that, so the token of any DAG in it finds new files too.
    async fn reparse(&self, file_token: &str) -> Result<()>;

    /// Lists the versions of a DAG; [`Error::NotOffered`] by Airflow 2.
    async fn dag_versions(&self, dag_id: &str, span: Span) -> Result<Page<DagVersion>>;

    /// Lists files that cannot be imported, those that were parsed last first.
    async fn import_errors(&self, span: Span) -> Result<Page<ImportError>>;

    // === Runs ===

    /// Starts a run, or finds the one that has its id already: however often it is called, there is one.
    ///
    /// [`Error::Conflict`] when something else stands against it, in Airflow 2 another run with that logical date.
    async fn trigger(&self, trigger: &Trigger) -> Result<Triggered>;

    /// Returns a run.
    async fn run(&self, dag_id: &str, run_id: &str) -> Result<Run>;

    /// Lists runs in the order of their creation.
    async fn runs(&self, filter: &RunFilter, span: Span) -> Result<Page<Run>>;

    /// Marks a run, and with it its tasks.
    async fn mark_run(&self, dag_id: &str, run_id: &str, mark: RunMark) -> Result<Run>;

    // === Task instances ===

    /// Returns a task instance, with its last try.
    async fn task_instance(&self, key: &TaskKey) -> Result<TaskInstance>;

    /// Lists the task instances of a run, each instance of a mapped task for itself.
    async fn task_instances(&self, dag_id: &str, run_id: &str, span: Span) -> Result<Page<TaskInstance>>;

    /// Lists the instances of a mapped task.
    async fn mapped_task_instances(
        &self,
        dag_id: &str,
        run_id: &str,
        task_id: &str,
        span: Span,
    ) -> Result<Page<TaskInstance>>;

    /// Returns the last `bytes_max` bytes of what a try logged, as far as it can be read in time.
    async fn log(&self, key: &TaskKey, try_number: u32, bytes_max: usize) -> Result<Log>;

    /// Returns a value that a task left; text that Airflow cannot write as JSON comes as a string.
    async fn xcom(&self, key: &TaskKey, name: &str) -> Result<Value>;

    /// Returns what somebody answered to a task that waits for input; `None` before, also while the task does not wait yet.
    /// [`Error::NotOffered`] before Airflow 3.1.
    async fn answer(&self, key: &TaskKey) -> Result<Option<Answer>>;

    /// Returns which task instances a clearing would clear, in order; changes nothing.
    async fn preview_clear(&self, clear: &Clear) -> Result<Vec<ClearedTask>>;

    /// Clears task instances, so that they run again in the same run, and returns which. Looks first whether Airflow would
    /// clear any of another run: that is [`Error::Conflict`], and nothing is cleared.
    ///
    /// [`Error::NotOffered`] for single instances of a mapped task in Airflow 2.
    async fn clear(&self, clear: &Clear) -> Result<Vec<ClearedTask>>;

    /// Marks a task instance; those after it are left as they are.
    async fn mark_task(&self, key: &TaskKey, mark: TaskMark) -> Result<()>;

    // === Backfills: [`Error::NotOffered`] by Airflow 2 ===

    /// Starts a backfill; [`Error::Conflict`] while the DAG has another, [`Error::Refused`] where it ends before it begins.
    async fn start_backfill(&self, request: &BackfillRequest) -> Result<Backfill>;

    /// Returns the logical dates that a backfill would run for.
    async fn preview_backfill(&self, request: &BackfillRequest) -> Result<Vec<chrono::DateTime<chrono::Utc>>>;

    /// Returns a backfill.
    async fn backfill(&self, id: u64) -> Result<Backfill>;

    /// Pauses, goes on with, or cancels a backfill; cancelling one that is over changes nothing, all else is then
    /// [`Error::Conflict`].
    async fn act_on_backfill(&self, id: u64, action: BackfillAction) -> Result<Backfill>;

    // === Assets ===

    /// Returns the asset with this URI, exactly.
    async fn asset(&self, uri: &str) -> Result<Asset>;

    /// Lists events of assets, the latest last.
    async fn asset_events(&self, filter: &AssetEventFilter, span: Span) -> Result<Page<AssetEvent>>;

    /// Tells that an asset changed, which starts the DAGs that wait for it. A repeat tells it again.
    async fn create_asset_event(&self, uri: &str, extra: &Map<String, Value>) -> Result<AssetEvent>;

    // === Pools and connections ===

    /// Returns a pool.
    async fn pool(&self, name: &str) -> Result<Pool>;

    /// Lists pools.
    async fn pools(&self, span: Span) -> Result<Page<Pool>>;

    /// Sees to it that there is a pool with so many slots; what else it has is left as it is.
    ///
    /// −1 is no end; [`Error::NotOffered`] by Airflow 2 and 3.0, which could not answer for it.
    async fn set_pool(&self, name: &str, slots: i64) -> Result<PoolSet>;

    /// Returns a connection that Airflow has in its database, without what is secret of it.
    async fn connection(&self, id: &str) -> Result<Connection>;

    /// Lets Airflow try a connection out; [`Error::NotOffered`] by Airflow 2 and 3.0, which forget the password, and where the
    /// settings forbid it (`[core] test_connection`).
    async fn test_connection(&self, id: &str) -> Result<ConnectionTest>;
}
