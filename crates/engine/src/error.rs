//! What keeps a run from going on.

use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
};

/// Why a run cannot go on. A task that fails is no error but an outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger could not be read.
    #[error("could not read the records of request {request}")]
    Read {
        /// The request.
        request: RequestId,
        /// Why.
        source: dagwright_store::Error,
    },
    /// The ledger could not be written; nothing was done that it does not hold.
    #[error("could not record the run of request {request}")]
    Append {
        /// The request.
        request: RequestId,
        /// Why.
        source: dagwright_store::Error,
    },
    /// There is no run to continue.
    #[error("request {request} has no run to continue")]
    NotStarted {
        /// The request.
        request: RequestId,
    },
    /// The run was begun on another plan.
    #[error("the run of request {request} was begun on plan {begun}, not on {given}", begun = begun.short(), given = given.short())]
    OtherPlan {
        /// The request.
        request: RequestId,
        /// The plan it was begun on.
        begun: PlanHash,
        /// The plan given.
        given: PlanHash,
    },
    /// The plan is not one that sealing makes.
    #[error("the plan's task {task:?} cannot run: {reason}", task = task.0)]
    InvalidPlan {
        /// The task.
        task: TaskId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A record does not fit the records before it.
    #[error("record {sequence} of request {request} does not fit the run before it")]
    Misfit {
        /// The request.
        request: RequestId,
        /// The record.
        sequence: u64,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } | Self::Append { source, .. } => source.code(),
            Self::NotStarted { .. } | Self::OtherPlan { .. } | Self::InvalidPlan { .. } | Self::Misfit { .. } => {
                Code::Internal
            }
        }
    }
}
