//! The stable error codes users see, each with a page in `docs/errors/`.
//!
//! A code never changes its meaning and is never used again after it was retired. Its class decides the exit code of
//! `dagwright-task` ([`TaskExit`]), from which the engine and Airflow's operators tell a retry from a failure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit codes of `dagwright-task`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskExit {
    /// 0
    Done,
    /// 10
    BadSpec,
    /// 11, retryable
    SourceUnavailable,
    /// 12, retryable
    SinkUnavailable,
    /// 13
    SchemaDrift,
    /// 14
    QualityGateFailed,
    /// 15
    OutOfMemoryBudget,
    /// 16
    Permission,
    /// 17
    Cancelled,
    /// 18
    DataError,
    /// 19
    OtherConnection,
}

macro_rules! codes {
    ($($variant:ident = $number:literal, $exit:ident, $title:literal;)*) => {
        /// A stable error code, written `DW0123`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(
                #[doc = $title]
                $variant,
            )*
        }

        impl Code {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the number behind `DW`.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(Self::$variant => $number),* }
            }

            /// Returns the title of the code's page.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// Returns how a task that ends with this code exits.
            #[must_use]
            pub fn exit(self) -> TaskExit {
                match self { $(Self::$variant => TaskExit::$exit),* }
            }
        }
    };
}

codes! {
    // 01xx: the spec
    SpecUnreadable = 101, BadSpec, "the spec is not readable YAML or JSON";
    SpecUnknownKey = 102, BadSpec, "unknown key";
    SpecWrongType = 103, BadSpec, "a value has the wrong type or form";
    SpecMissingKey = 104, BadSpec, "a required key is missing";
    SpecBadName = 105, BadSpec, "a name is not allowed";
    SpecConflict = 106, BadSpec, "keys that exclude or need each other";
    SpecUnknownReference = 107, BadSpec, "a reference to something the spec does not define";
    SpecCycle = 108, BadSpec, "transform steps depend on each other in a circle";
    SpecCredential = 109, BadSpec, "a credential stands in the spec";
    SpecNotYet = 110, BadSpec, "not yet supported";
    SpecBadUri = 111, BadSpec, "a URI is not usable";
    SpecTooLarge = 112, BadSpec, "the spec is too large or nests too deep";
    TaskSpecInvalid = 120, BadSpec, "the task spec is not valid";
    MessageInvalid = 121, BadSpec, "a message or record is not valid";
    // 02xx: negotiation
    Deadlocked = 201, BadSpec, "the agents could not agree";
    NegotiationExpired = 202, BadSpec, "a bound of the negotiation was reached";
    AgentLost = 203, DataError, "an agent was lost while it negotiated";
    AgentAway = 204, SourceUnavailable, "an agent that takes part is not there";
    Vetoed = 205, BadSpec, "an agent vetoed the plan";
    PlanUnchanged = 206, BadSpec, "the agents came to the plan again that failed";
    DriftRefused = 207, SchemaDrift, "a schema changed, and the policy does not allow it";
    // 03xx: sources
    SourceMissing = 301, SourceUnavailable, "a source is missing";
    SourceUnreachable = 302, SourceUnavailable, "a source could not be reached";
    SourceDenied = 303, Permission, "a source refused access";
    SourceChanged = 304, SourceUnavailable, "a source changed while it was read";
    SourceDrifted = 305, SchemaDrift, "a source no longer has the sealed schema";
    SourceMalformed = 306, DataError, "a source holds data that cannot be read";
    SourceEmpty = 307, DataError, "a source has no data to infer a schema from";
    RecordTooLong = 308, DataError, "a record is longer than allowed";
    CursorInvalid = 309, DataError, "an incremental cursor does not hold";
    // 04xx: sinks
    SinkUnreachable = 401, SinkUnavailable, "a sink could not be reached";
    SinkDenied = 402, Permission, "a sink refused access";
    SinkDrifted = 403, SchemaDrift, "a sink no longer has the inspected schema";
    SinkRejectedRows = 404, DataError, "a sink refused rows";
    SinkFull = 405, SinkUnavailable, "a sink has no space left";
    SinkTooFewRows = 406, QualityGateFailed, "fewer rows than min_rows";
    SinkDuplicateKey = 407, DataError, "rows share the key they are upserted by";
    SinkCleared = 408, DataError, "a cleared task cannot find the rows it wrote";
    // 05xx: transforms and quality
    SqlInvalid = 501, BadSpec, "a transform's SQL does not plan";
    SqlFailed = 502, DataError, "a transform failed on the data";
    CastFailed = 503, DataError, "a value does not fit its type";
    GateFailed = 504, QualityGateFailed, "a quality gate failed";
    QuarantineFull = 505, QualityGateFailed, "more rows were rejected than max_rejected allows";
    MemoryExhausted = 506, OutOfMemoryBudget, "a task ran out of its memory budget";
    MaskKeyMissing = 507, BadSpec, "a mask needs a key that is not set";
    // 06xx: running
    ConnectionMissing = 601, BadSpec, "a connection is not defined";
    ConnectionOther = 602, OtherConnection, "a connection points elsewhere than the plan was sealed for";
    TaskCrashed = 603, SourceUnavailable, "a task ended without an outcome";
    TaskTimedOut = 604, Cancelled, "a task ran longer than allowed";
    Cancelled = 605, Cancelled, "cancelled";
    StagingUnavailable = 606, SinkUnavailable, "the staging area could not be read or written";
    TaskKilled = 607, SourceUnavailable, "a task was killed, as when memory runs out";
    // 07xx: this program
    ConfigInvalid = 701, BadSpec, "the configuration is not valid";
    StoreBusy = 702, BadSpec, "another process owns the store";
    StoreUnusable = 703, BadSpec, "the store could not be read or written";
    OutputUnwritable = 704, BadSpec, "an output file could not be written";
    TaskCommandMissing = 705, BadSpec, "dagwright-task was not found";
    Internal = 799, DataError, "an invariant of Dagwright does not hold";
    // 08xx: the service
    RequestInvalid = 801, BadSpec, "a request is not valid";
    RequestTooLarge = 802, BadSpec, "a request is too large";
    RequestUnknown = 803, BadSpec, "there is no such request, run, plan or pipeline";
    RevisionStale = 804, BadSpec, "a revision is not above the applied one";
    PipelinePaused = 805, BadSpec, "the pipeline is paused or deleted";
    NotAllowed = 806, Permission, "the service's settings do not allow it";
    Unauthenticated = 807, Permission, "a token is missing or not valid";
    ScopeMissing = 808, Permission, "a token lacks the scope for it";
    ApprovalDeclined = 809, BadSpec, "a person declined the plan";
    ApprovalOwn = 810, Permission, "nobody approves what they asked for";
    NothingToDecide = 811, BadSpec, "nothing waits to be approved, declined or cancelled";
    Overloaded = 812, SourceUnavailable, "the service has more to do than it takes on";
    ServiceUnreachable = 813, SourceUnavailable, "the service could not be reached";
    BusUnreachable = 814, SourceUnavailable, "the message bus could not be reached";
    DeadLetterUnknown = 815, BadSpec, "there is no such dead letter";
    BusUnfit = 816, BadSpec, "a topic of the message bus is not as it has to be";
    BusDenied = 817, Permission, "the message bus refused access";
    CacheForeign = 818, BadSpec, "the local cache does not fit the ledger";
    RequestSlow = 819, SourceUnavailable, "a request took too long to arrive";
    SignatureInvalid = 820, Permission, "a signature is missing or not valid";
    EventRefused = 830, DataError, "a webhook refused an event";
    WebhookUnreachable = 831, SinkUnavailable, "a webhook could not be reached";
    EventsForgotten = 832, DataError, "events are not kept any more";
    // 09xx: Airflow
    AirflowUnreachable = 901, SourceUnavailable, "Airflow could not be reached";
    AirflowUnavailable = 902, SourceUnavailable, "Airflow cannot answer at the moment";
    AirflowUnauthenticated = 903, Permission, "Airflow does not accept the credentials";
    AirflowDenied = 904, Permission, "Airflow does not allow it";
    AirflowUnknown = 905, BadSpec, "Airflow has no such DAG, run, task or other thing";
    AirflowConflict = 906, BadSpec, "what Airflow has stands against it";
    AirflowRefused = 907, BadSpec, "Airflow does not take a call as it is";
    AirflowNotOffered = 908, BadSpec, "this Airflow does not offer it";
    AirflowUnsupported = 909, BadSpec, "what answers is no Airflow that Dagwright knows";
    AirflowUnreadable = 910, DataError, "an answer of Airflow cannot be read";
    DeployFailed = 911, SinkUnavailable, "DAG files could not be written where Airflow reads them";
    DeployRefused = 912, BadSpec, "DAG files may not be written where they should be";
    DagRefused = 913, BadSpec, "Airflow cannot import a DAG";
    DagUnseen = 914, BadSpec, "Airflow does not show a DAG that was deployed";
    RunLost = 915, DataError, "Airflow no longer has a run";
    RunStopped = 916, Cancelled, "Airflow ended a run in which no task failed";
    AlertNotSent = 930, BadSpec, "an alert could not be sent";
}

// === impl Code ===

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DW{:04}", self.number())
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_prefix("DW").and_then(|digits| digits.parse::<u16>().ok());
        let found = Self::ALL.iter().find(|code| Some(code.number()) == number);
        found.copied().ok_or_else(|| format!("{text:?} is not an error code"))
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }

    // No list of codes: a later version has more, and a reader must not choke on them.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^DW[0-9]{4}$", "examples": ["DW0201"] })
    }
}

// === impl TaskExit ===

impl TaskExit {
    /// Every exit code, in ascending order.
    pub const ALL: &'static [Self] = &[
        Self::Done,
        Self::BadSpec,
        Self::SourceUnavailable,
        Self::SinkUnavailable,
        Self::SchemaDrift,
        Self::QualityGateFailed,
        Self::OutOfMemoryBudget,
        Self::Permission,
        Self::Cancelled,
        Self::DataError,
        Self::OtherConnection,
    ];

    /// Returns the process exit code.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::BadSpec => 10,
            Self::SourceUnavailable => 11,
            Self::SinkUnavailable => 12,
            Self::SchemaDrift => 13,
            Self::QualityGateFailed => 14,
            Self::OutOfMemoryBudget => 15,
            Self::Permission => 16,
            Self::Cancelled => 17,
            Self::DataError => 18,
            Self::OtherConnection => 19,
        }
    }

    /// Tells whether the same task may succeed when it is simply tried again.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::SourceUnavailable | Self::SinkUnavailable => true,
            Self::Done
            | Self::BadSpec
            | Self::SchemaDrift
            | Self::QualityGateFailed
            | Self::OutOfMemoryBudget
            | Self::Permission
            | Self::Cancelled
            | Self::DataError
            | Self::OtherConnection => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, TaskExit};

    #[test]
    fn codes_are_unique_and_ascending() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        assert!(TaskExit::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn codes_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::try_from(code.to_string()), Ok(*code));
        }
        assert!(Code::try_from("DW9999".to_string()).is_err());
    }
}
