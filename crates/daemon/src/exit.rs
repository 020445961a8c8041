//! The exit codes of the command line.

use std::process::ExitCode;

use dagwright_model::code::Code;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It was tried, and failed.
    Failed,
    /// The spec, the configuration or the arguments are not valid.
    BadInput,
    /// A service, a source, a sink or the store could not be reached.
    Unreachable,
    /// The agents could not agree, or the request was rejected.
    Rejected,
    /// `diff` found a change.
    Changed,
}

// === impl Exit ===

impl Exit {
    /// Returns how a command ends whose work ended with `code`.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::Deadlocked | Code::NegotiationExpired | Code::Vetoed | Code::ApprovalDeclined => Self::Rejected,
            Code::SourceUnreachable
            | Code::SinkUnreachable
            | Code::StoreBusy
            | Code::StagingUnavailable
            | Code::Overloaded
            | Code::RequestSlow
            | Code::AgentAway
            | Code::ServiceUnreachable
            | Code::BusUnreachable
            | Code::BusDenied
            | Code::WebhookUnreachable
            | Code::AirflowUnreachable
            | Code::AirflowUnavailable
            | Code::AirflowUnauthenticated
            | Code::AirflowDenied
            | Code::DeployFailed => Self::Unreachable,
            Code::SpecUnreadable
            | Code::SpecUnknownKey
            | Code::SpecWrongType
            | Code::SpecMissingKey
            | Code::SpecBadName
            | Code::SpecConflict
            | Code::SpecUnknownReference
            | Code::SpecCycle
            | Code::SpecCredential
            | Code::SpecNotYet
            | Code::SpecBadUri
            | Code::SpecTooLarge
            | Code::TaskSpecInvalid
            | Code::SqlInvalid
            | Code::MaskKeyMissing
            | Code::ConnectionMissing
            | Code::ConnectionOther
            | Code::ConfigInvalid
            | Code::RequestInvalid
            | Code::RequestTooLarge
            | Code::RequestUnknown
            | Code::RevisionStale
            | Code::BusUnfit
            | Code::DeadLetterUnknown
            | Code::AirflowUnknown
            | Code::AirflowUnsupported => Self::BadInput,
            Code::SourceMissing
            | Code::SourceDenied
            | Code::SourceChanged
            | Code::SourceDrifted
            | Code::PlanUnchanged
            | Code::DriftRefused
            | Code::SourceMalformed
            | Code::SourceEmpty
            | Code::RecordTooLong
            | Code::CursorInvalid
            | Code::SinkDenied
            | Code::SinkDrifted
            | Code::SinkRejectedRows
            | Code::SinkFull
            | Code::SinkTooFewRows
            | Code::SinkDuplicateKey
            | Code::SinkCleared
            | Code::SqlFailed
            | Code::CastFailed
            | Code::GateFailed
            | Code::QuarantineFull
            | Code::MemoryExhausted
            | Code::AgentLost
            | Code::MessageInvalid
            | Code::TaskCrashed
            | Code::TaskKilled
            | Code::TaskTimedOut
            | Code::Cancelled
            | Code::StoreUnusable
            | Code::OutputUnwritable
            | Code::TaskCommandMissing
            | Code::PipelinePaused
            | Code::NotAllowed
            | Code::Unauthenticated
            | Code::SignatureInvalid
            | Code::ScopeMissing
            | Code::ApprovalOwn
            | Code::NothingToDecide
            | Code::CacheForeign
            | Code::EventRefused
            | Code::EventsForgotten
            | Code::AirflowConflict
            | Code::AirflowRefused
            | Code::AirflowNotOffered
            | Code::AirflowUnreadable
            | Code::DeployRefused
            | Code::DagRefused
            | Code::DagUnseen
            | Code::RunLost
            | Code::RunStopped
            | Code::AlertNotSent
            | Code::Internal => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::BadInput => 2,
            Exit::Unreachable => 3,
            Exit::Rejected => 4,
            Exit::Changed => 5,
        })
    }
}
