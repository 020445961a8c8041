//! What is asked of whoever acts for a pipeline, by whoever heard of it first.
//!
//! An ask lies beside the records of its request until one of them settles it, so it is there for whoever acts for the
//! pipeline next. Of two asks of the same kind about one request the first one counts. Whoever writes an ask has checked
//! that its author may ask for it.

use serde::{Deserialize, Serialize};

use crate::{
    id::RequestId,
    record::{Accepted, Cancelled, Decision, RecordBody},
};

/// Something that is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// The request that it is about.
    pub request: RequestId,
    /// The request's pipeline, by `dag_id`.
    pub pipeline: String,
    /// When it was asked, in milliseconds since the Unix epoch; asks of one author are in this order.
    pub at: u64,
    /// What.
    pub body: AskBody,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum AskBody {
    /// Take the request on, as this acceptance says.
    TakeOn(Box<Accepted>),
    /// Stop, wherever it is.
    Cancel(Cancelled),
    /// Go on with the plan.
    Approve(Decision),
    /// Do not go on with it.
    Decline(Decision),
}

/// Which of the asks about one request it is: of each kind only the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AskKind {
    /// To take it on.
    TakeOn,
    /// To stop.
    Cancel,
    /// To decide about its plan.
    Decide,
}

// === impl Ask ===

impl Ask {
    /// Returns which of the asks about its request it is.
    #[must_use]
    pub fn kind(&self) -> AskKind {
        match &self.body {
            AskBody::TakeOn(_) => AskKind::TakeOn,
            AskBody::Cancel(_) => AskKind::Cancel,
            AskBody::Approve(_) | AskBody::Decline(_) => AskKind::Decide,
        }
    }
}

// === impl AskKind ===

impl AskKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::TakeOn, Self::Cancel, Self::Decide];

    /// Returns its name in keys and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TakeOn => "take_on",
            Self::Cancel => "cancel",
            Self::Decide => "decide",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

// === impl RecordBody ===

impl RecordBody {
    /// Returns which asks about the request come to nothing further once this is recorded.
    #[must_use]
    pub fn settles(&self) -> &'static [AskKind] {
        match self {
            Self::Accepted(_) => &[AskKind::TakeOn],
            Self::Approved(_) => &[AskKind::Decide],
            // A run that was told to stop needs nobody to be told again.
            Self::Cancelled(_)
            | Self::Declined(_)
            | Self::Deadlocked(_)
            | Self::Failed(_)
            | Self::PipelineChanged(_) => &[AskKind::Cancel, AskKind::Decide],
            // After a setback the request goes on, and can be stopped.
            Self::RunEnded(ended) if ended.is_setback() => &[AskKind::Decide],
            Self::RunEnded(_) => &[AskKind::Cancel, AskKind::Decide],
            Self::FactRecorded(_)
            | Self::MessageSent(_)
            | Self::PlanSealed(_)
            | Self::PlanReused(_)
            | Self::DagCompiled(_)
            | Self::RunStarted(_)
            | Self::TaskStarted(_)
            | Self::TaskEnded(_)
            | Self::RetryScheduled(_)
            | Self::RemedyApplied(_)
            | Self::ApprovalNeeded(_)
            | Self::Replanned(_) => &[],
        }
    }
}
