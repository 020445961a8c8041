//! One try of a task, whatever runs it.

use async_trait::async_trait;
use dagwright_model::task::{Outcome, Problem, TaskRun};
use tokio_util::sync::CancellationToken;

use crate::event::Voice;

/// What runs one try of a task: processes, and in tests whatever a test needs.
#[async_trait]
pub(crate) trait Launch: std::fmt::Debug + Send + Sync {
    /// Runs a try to its end. Once `stop` is cancelled the try is to end soon.
    ///
    /// # Cancel safety
    /// Dropping the future ends the try.
    async fn launch(&self, order: Order, stop: CancellationToken, voice: Voice) -> Finished;
}

/// What a try is given.
pub(crate) struct Order {
    /// The task and its run.
    pub(crate) task: TaskRun,
    /// The variables of its connections, with their URLs.
    pub(crate) connections: Vec<(String, String)>,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    /// What came of it; a failure has a problem.
    pub(crate) outcome: Outcome,
    /// What it warned of.
    pub(crate) warnings: Vec<Problem>,
    /// The end of its log.
    pub(crate) log_tail: String,
}

// === impl Finished ===

impl Finished {
    /// Returns how a try ended that nothing ran.
    pub(crate) fn without_process(outcome: Outcome) -> Self {
        Self { outcome, warnings: Vec::new(), log_tail: String::new() }
    }
}
