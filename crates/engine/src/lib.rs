//! Runs a sealed plan: the embedded engine, which starts `dagwright-task`, and Apache Airflow.
//!
//! | module | what it holds |
//! |---|---|
//! | [`airflow`] | plans on an Airflow: deployed, triggered, followed |
//! | `run` | the run of a plan as a pure machine: events in, records and effects out |
//! | `local` | the shell around it: appends the records, then performs the effects |
//! | `journal` | a run's part of the ledger |
//! | `setback` | what a failed run teaches, where its plan is made anew |
//! | `tally` | what a run counted |
//! | `process` | one try of a task as a child process on a lease |
//! | `verdict` | what a process's end means |
//! | [`Cancel`] | how a run is asked to end |
//! | [`environment`] | what of its environment an engine passes on |
//! | [`metrics`] | what is measured |
//! | [`event`], [`outcome`] | what a run says while it runs, and at its end |
//!
//! Invariants: what is done was recorded first, so a run continues after a crash at any moment; a finished task never
//! runs again; whatever runs twice does so under the same effect key; no child outlives its engine.
//!
//! Deliberately absent: what a task does to data, and any way to tell whether a sink holds its effect. Both are the
//! task's.

pub mod airflow;
mod cancel;
pub mod environment;
mod error;
pub mod event;
mod journal;
mod launch;
mod local;
pub mod metrics;
pub mod outcome;
mod process;
mod run;
mod setback;
mod tally;
#[cfg(test)]
mod tests;
mod verdict;

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
pub use cancel::Cancel;
use dagwright_model::{
    id::{Name, RequestId},
    plan::Plan,
    record::RunStarted,
    task::Problem,
};
use dagwright_store::Store;
pub use error::Error;
pub use event::RunEvent;
pub use local::{LocalEngine, Settings};
pub use outcome::{RunOutcome, TaskReport};
use tokio::sync::mpsc::Sender;

/// What runs sealed plans.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync {
    /// Runs a plan to its end, teardown included, and tells how it ended.
    ///
    /// When the ledger knows already that this request's run began, the run continues from there and what the ledger
    /// says counts, not `started`; when it knows that the run ended, nothing is done but to tell how.
    ///
    /// A failed or cancelled run is an `Ok` outcome.
    ///
    /// # Errors
    /// When the run cannot go on, and may be continued later: the ledger cannot be read or written, or does not fit
    /// the plan.
    ///
    /// # Cancel safety
    /// Dropping the future kills the running tasks, and the run can be continued. To end a run in good order, ask
    /// through [`Job::cancel`] and wait.
    async fn run(&self, job: Job, started: RunStarted) -> Result<RunOutcome, Error>;

    /// Continues a run that the ledger knows of: finished tasks do not run again, those that were running when their
    /// engine ended do, under the same effect key.
    ///
    /// # Errors
    /// As [`Engine::run`], and when the ledger knows of no run of this request.
    ///
    /// # Cancel safety
    /// As [`Engine::run`].
    async fn resume(&self, job: Job) -> Result<RunOutcome, Error>;

    /// Tells whether pipelines are kept somewhere else, where plans are deployed before they run, and where runs go on
    /// without this process.
    fn keeps_pipelines(&self) -> bool {
        false
    }

    /// Hears that this process acts for pipelines that it did not act for before: what happened to them meanwhile is to be
    /// looked for.
    fn took_over(&self) {}

    /// Makes a plan its pipeline's; it is there when this returns. A repeat changes nothing.
    ///
    /// # Errors
    /// When it cannot be, for a reason that waiting does not mend.
    async fn deploy(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        let _ = plan;
        Ok(())
    }

    /// Lets a pipeline's schedule go on, by its `dag_id`.
    ///
    /// # Errors
    /// As [`Engine::deploy`].
    async fn resume_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        let _ = pipeline;
        Ok(())
    }

    /// Lets a pipeline's schedule rest.
    ///
    /// # Errors
    /// As [`Engine::deploy`].
    async fn pause_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        let _ = pipeline;
        Ok(())
    }

    /// Removes a pipeline; the history of its runs stays.
    ///
    /// # Errors
    /// As [`Engine::deploy`].
    async fn remove_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        let _ = pipeline;
        Ok(())
    }
}

/// A run, as the engine is given it.
pub struct Job {
    /// The request whose log the run's records are appended to. While it runs, nobody else appends to it.
    pub request: RequestId,
    /// The sealed plan.
    pub plan: Arc<Plan>,
    /// The URLs of connections, credentials included; a task gets those that it uses.
    pub connections: BTreeMap<Name, String>,
    /// Where the request's log is.
    pub store: Arc<dyn Store>,
    /// Where the run says how far it is; closing the other end disturbs nothing, but an open end must be read.
    pub events: Sender<RunEvent>,
    /// Once asked, the running tasks are told to end, teardown runs, and the run ends.
    pub cancel: Cancel,
    /// Whether the plan may be made anew when the run fails in a way that another plan may not.
    pub replanning: Replanning,
}

/// Whether a plan may be made anew when its run fails. Then the run ends with a
/// [setback](dagwright_model::record::RunEnded::setback), and the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replanning {
    /// So many times, this time included.
    Left(u32),
    /// Nobody here makes it anew.
    Never {
        /// What to do instead, to be added to the hint of such a failure; empty adds nothing.
        why: &'static str,
    },
}

// === impl Job ===

impl fmt::Debug for Job {
    /// Leaves out the connections' URLs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("request", &self.request)
            .field("pipeline", &self.plan.dag_id)
            .field("connections", &self.connections.keys())
            .finish_non_exhaustive()
    }
}
