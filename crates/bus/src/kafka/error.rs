//! What goes wrong with Kafka, as a user hears of it.

use dagwright_model::code::Code;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Place, client::Complaint};

/// Says why Kafka could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("the settings for Kafka are not valid: {}", problems.join("; "))]
    Settings {
        /// Each names the setting, what is wrong with it, and what to do.
        problems: Vec<String>,
    },
    /// No broker answers.
    #[error("could not reach Kafka to {what}{}", hint(reason))]
    Unreachable {
        /// What was to be done.
        what: &'static str,
        /// What librdkafka said last; empty when it said nothing.
        reason: String,
        /// What came back.
        source: KafkaError,
    },
    /// The brokers do not know us, or do not let us.
    #[error("Kafka refused to {what}{}", hint(reason))]
    Denied {
        /// What was to be done.
        what: &'static str,
        /// What librdkafka said last; empty when it said nothing.
        reason: String,
        /// What came back.
        source: KafkaError,
    },
    /// A topic is not as it has to be.
    #[error("topic \"{topic}\" {problem}; {remedy}")]
    Unfit {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// A record is longer than the brokers take.
    #[error("a record of {bytes} bytes is longer than topic \"{topic}\" takes")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The length of its key and value.
        bytes: usize,
    },
    /// There is no dead letter at this place.
    #[error("there is no dead letter {partition}/{offset}")]
    NoDeadLetter {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A dead letter is not all that was sent, so it cannot be sent again.
    #[error("dead letter {partition}/{offset} holds only the beginning of the {bytes} bytes that were sent")]
    DeadLetterCut {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// How many bytes it had.
        bytes: u64,
    },
    /// A dead letter does not say where it came from, or came from where requests are not taken from.
    #[error("dead letter {partition}/{offset} {}", not_from_here(origin.as_ref()))]
    Homeless {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// Which record it says to have been.
        origin: Option<Place>,
    },
    /// The local cache remembers places that the ledger does not have.
    #[error("the local cache does not fit topic \"{topic}\": it remembers what the topic does not hold")]
    ForeignCache {
        /// The ledger's topic.
        topic: String,
    },
    /// The local cache could not be read or written.
    #[error("could not {what} the local cache of the ledger")]
    Cache {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A client could not be made or ended.
    #[error("could not {what}")]
    Client {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: KafkaError,
    },
    /// A thread could not be started.
    #[error("could not start a thread for Kafka")]
    Thread(#[source] std::io::Error),
}

// === impl Error ===

impl Error {
    /// Returns the code of the error's page.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Settings { .. } => Code::ConfigInvalid,
            Self::Unreachable { .. } => Code::BusUnreachable,
            Self::Denied { .. } => Code::BusDenied,
            Self::Unfit { .. } | Self::Homeless { .. } => Code::BusUnfit,
            Self::TooLarge { .. } | Self::DeadLetterCut { .. } => Code::RequestTooLarge,
            Self::NoDeadLetter { .. } => Code::DeadLetterUnknown,
            Self::ForeignCache { .. } => Code::CacheForeign,
            Self::Cache { .. } => Code::StoreUnusable,
            Self::Client { .. } | Self::Thread(_) => Code::Internal,
        }
    }

    /// Returns what to do about it, in a sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Settings { .. } => "config/default.toml says what each setting of [kafka] means",
            Self::Unreachable { .. } => "check `kafka.brokers`; `dagwright doctor` says which broker does not answer",
            Self::Denied { .. } => "check `kafka.properties` and the user's rights; docs/errors/DW0817.md lists them",
            Self::Unfit { .. } => "change the topic or the setting as the message says",
            Self::TooLarge { .. } => "raise the topic's `max.message.bytes` and `kafka.properties.message.max.bytes`",
            Self::NoDeadLetter { .. } => "`dagwright dlq list` shows those that are there",
            Self::DeadLetterCut { .. } => "ask its sender to send it again, shorter",
            Self::Homeless { .. } => "add the topic to `kafka.ingress`, or send what `dagwright dlq show --raw` writes",
            Self::ForeignCache { .. } => "remove the folder `store.path`; it is made anew from the topic",
            Self::Cache { .. } => "check the folder `store.path` and the disk",
            Self::Client { .. } | Self::Thread(_) => "report this, with the log of --verbose",
        }
    }

    /// Tells whether the same may succeed when it is simply tried again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Settings { .. }
            | Self::Denied { .. }
            | Self::Unfit { .. }
            | Self::TooLarge { .. }
            | Self::NoDeadLetter { .. }
            | Self::Homeless { .. }
            | Self::DeadLetterCut { .. }
            | Self::ForeignCache { .. }
            | Self::Cache { .. }
            | Self::Client { .. }
            | Self::Thread(_) => false,
        }
    }

    /// Sorts what came back from the cluster, with what librdkafka said last.
    pub(crate) fn of(what: &'static str, complaint: Option<Complaint>, source: KafkaError) -> Self {
        let is_denied = |code: Option<RDKafkaErrorCode>| code.is_some_and(|code| is_denial(code) || is_forbidden(code));
        let is_denial = is_denied(source.rdkafka_error_code()) || is_denied(complaint.as_ref().map(|last| last.code));
        let reason = complaint.map_or_else(String::new, |complaint| complaint.reason);
        if is_denial { Self::Denied { what, reason, source } } else { Self::Unreachable { what, reason, source } }
    }
}

/// Tells whether the brokers do not let us in. What runs already is to go on all the same: a broker that goes down in the
/// middle of a handshake looks the same.
pub(crate) fn is_denial(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::IllegalSASLState
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::SSL
    )
}

/// Tells whether the brokers know us, and the answer will be the same until somebody changes what we may.
pub(crate) fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

/// Tells whether librdkafka goes on trying by itself, and logs why.
pub(crate) fn is_connection(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve
    )
}

/// Tells whether it is the record's own fault.
pub(crate) fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
    )
}

fn not_from_here(origin: Option<&Place>) -> String {
    match origin {
        Some(Place { topic, .. }) => format!("came from topic {topic:?}, from which requests are not taken"),
        None => "does not say which topic it came from".into(),
    }
}

fn hint(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}
