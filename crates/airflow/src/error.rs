//! What can go wrong with a call, by what there is to do about it.
//!
//! Airflow's two APIs say the same things differently; here they are one: `docs/errors` has a page for each code. What
//! Airflow says is quoted without control characters, cut, and with the own credentials taken out.

use std::fmt;

use dagwright_model::code::Code;

use crate::version::Version;

/// The longest name of a thing that is quoted, in characters.
const NAME_CHARS_MAX: usize = 160;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none that can be called.
    #[error("Airflow's URL cannot be used: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No client can be made, as when the authorities are no certificates.
    #[error("no client for Airflow can be made")]
    NoClient {
        /// What the HTTP library says.
        source: reqwest::Error,
    },
    /// A name that no such thing in Airflow can have; nothing was sent.
    #[error("could not {call}: {name} is a name that Airflow has for nothing")]
    BadName {
        /// What was asked for.
        call: Subject,
        /// The name, quoted.
        name: Quoted,
    },
    /// A call that means nothing, as clearing no task; nothing was sent.
    #[error("could not {call}: {reason}")]
    BadCall {
        /// What was asked for.
        call: Subject,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens, or the connection broke off.
    #[error("could not reach Airflow to {call}")]
    Unreachable {
        /// What was asked for.
        call: Subject,
        /// Why; without the URL.
        source: reqwest::Error,
    },
    /// No whole answer came in time.
    #[error("could not {call}: Airflow did not answer in time")]
    TimedOut {
        /// What was asked for.
        call: Subject,
    },
    /// Airflow, or what stands before it, answers that it cannot at the moment: 429, 500 and above; or another version answers
    /// than before (404), and the next call goes to that.
    #[error("could not {call}: Airflow answered {status}: {detail}")]
    Unavailable {
        /// What was asked for.
        call: Subject,
        /// The status.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// The credentials are missing or not valid, also after they were renewed.
    #[error("could not {call}: Airflow does not accept the credentials ({status}): {detail}")]
    Unauthenticated {
        /// What was asked for.
        call: Subject,
        /// The status.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// The user may not do that.
    #[error("could not {call}: Airflow does not allow it: {detail}")]
    Denied {
        /// What was asked for.
        call: Subject,
        /// What it says.
        detail: String,
    },
    /// There is no such DAG, run, task or other thing.
    #[error("could not {call}: Airflow has no such thing: {detail}")]
    NotFound {
        /// What was asked for.
        call: Subject,
        /// What it says.
        detail: String,
    },
    /// What is there stands against it: a running task, another run with that date, another backfill.
    #[error("could not {call}: what Airflow has stands against it: {detail}")]
    Conflict {
        /// What was asked for.
        call: Subject,
        /// What it says.
        detail: String,
    },
    /// Airflow does not take the call as it is: 400, 422 and other refusals.
    #[error("could not {call}: Airflow refused it ({status}): {detail}")]
    Refused {
        /// What was asked for.
        call: Subject,
        /// The status.
        status: u16,
        /// What it says, key by key where it does.
        detail: String,
    },
    /// This version of Airflow, or its settings, have nothing like it.
    #[error("could not {call}: Airflow {version} does not offer it: {reason}")]
    NotOffered {
        /// What was asked for.
        call: Subject,
        /// The version.
        version: Version,
        /// What is missing.
        reason: &'static str,
    },
    /// A version that this client does not know, or no Airflow at all.
    #[error("what answers there is no Airflow that this client knows: {found}")]
    Unsupported {
        /// What was found.
        found: String,
    },
    /// More than is read of an answer.
    #[error("could not {call}: the answer has more than {bytes_max} bytes")]
    TooLarge {
        /// What was asked for.
        call: Subject,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer is not one that this client reads.
    #[error("could not {call}: the answer cannot be read: {reason}")]
    Unreadable {
        /// What was asked for.
        call: Subject,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was asked for, as `trigger DAG "flights"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub(crate) operation: &'static str,
    pub(crate) name: Option<Quoted>,
}

/// A name from outside: quoted, escaped, and cut to 160 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

// === impl Error ===

impl Error {
    /// Returns the stable code, with its page in `docs/errors`.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::BadUrl { .. } | Self::NoClient { .. } => Code::ConfigInvalid,
            Self::Unreachable { .. } | Self::TimedOut { .. } => Code::AirflowUnreachable,
            Self::Unavailable { .. } => Code::AirflowUnavailable,
            Self::Unauthenticated { .. } => Code::AirflowUnauthenticated,
            Self::Denied { .. } => Code::AirflowDenied,
            Self::NotFound { .. } => Code::AirflowUnknown,
            Self::Conflict { .. } => Code::AirflowConflict,
            Self::BadName { .. } | Self::BadCall { .. } | Self::Refused { .. } => Code::AirflowRefused,
            Self::NotOffered { .. } => Code::AirflowNotOffered,
            Self::Unsupported { .. } => Code::AirflowUnsupported,
            Self::TooLarge { .. } | Self::Unreadable { .. } => Code::AirflowUnreadable,
        }
    }

    /// Tells whether the same call may succeed later. Whether it may be repeated at all is another question: it may have had
    /// its effect.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Unavailable { .. } => true,
            Self::BadUrl { .. }
            | Self::NoClient { .. }
            | Self::BadName { .. }
            | Self::BadCall { .. }
            | Self::Unauthenticated { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Refused { .. }
            | Self::NotOffered { .. }
            | Self::Unsupported { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// Tells whether Airflow said that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Tells whether Airflow said that something stands against it.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

// === impl Subject ===

impl Subject {
    /// An operation on nothing in particular, as `list DAGs`.
    #[must_use]
    pub fn bare(operation: &'static str) -> Self {
        Self { operation, name: None }
    }

    /// An operation on the thing of that name.
    #[must_use]
    pub fn of(operation: &'static str, name: &str) -> Self {
        Self { operation, name: Some(Quoted::new(name)) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

// === impl Quoted ===

impl Quoted {
    pub(crate) fn new(text: &str) -> Self {
        let mut shown: String = text.chars().take(NAME_CHARS_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self(format!("{shown:?}"))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
