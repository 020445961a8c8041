//! What agents say to each other: a contract net with counter-offers, rendered by `/proto`.
//!
//! A session reads top to bottom like the variants of [`Message`]: observe, call for proposals, proposals, conflicts
//! and counters, award, commit, seal. Every message of a session stands in its [`Transcript`], in the one order that
//! a replay repeats byte for byte.
//!
//! Only [`Origin`] holds times, and [`Envelope::timeless`] leaves it out of everything that is hashed or compared.
//! No message holds a value from the data.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    canonical,
    facts::{ProbeRequest, SinkInspection, SourceProfile, TransformTyping, TypingRequest},
    id::{Name, PlanHash, RequestId},
    schema::{Column, DataType, Verdict},
    setback::Setback,
    spec::{LossyCast, OrderBy, SchemaChange, Spec},
    task::{Problem, SchemaEdit, SplitBy, WriteStrategy},
};

/// The instance of a role that takes part unless a configuration names others.
pub const SOLE_INSTANCE: &str = "main";

/// A role in a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Opens, searches, seals.
    Orchestrator,
    /// Reads sources.
    Extraction,
    /// Computes steps.
    Transformation,
    /// Writes sinks.
    Loading,
}

/// Who sends or receives a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// The role.
    pub role: Role,
    /// Which of the agents with that role.
    pub instance: Name,
}

/// A message with its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// The session: the request it negotiates for.
    pub session: RequestId,
    /// Counts the messages that `from` sent in this session, from 1: a receiver drops a repeat, and sees a gap.
    pub sequence: u32,
    /// Who sends it.
    pub from: Party,
    /// Who is to read it.
    pub to: Party,
    /// What it says.
    pub body: Message,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// The orchestrator asks a participant for facts.
    Observe {
        /// What it wants to know.
        questions: Vec<Question>,
    },
    /// A participant answers every question of an [`Message::Observe`], in its order.
    Observed {
        /// The answers.
        observations: Vec<Observation>,
    },
    /// The orchestrator asks every participant for alternatives.
    CallForProposals(Box<CallForProposals>),
    /// A participant offers alternatives, in the order of its preference.
    Proposals {
        /// The round it answers.
        round: u32,
        /// What it offers.
        alternatives: Vec<Alternative>,
    },
    /// No combination fits; the orchestrator says why.
    Conflicts {
        /// The round that this opens.
        round: u32,
        /// Everything that stands in the way of the combination that comes closest.
        conflicts: Vec<Conflict>,
    },
    /// A participant answers conflicts with further alternatives; the earlier ones stand.
    Counter {
        /// The round it answers.
        round: u32,
        /// What it offers in addition.
        alternatives: Vec<Alternative>,
    },
    /// A participant has nothing (further) to offer, or observes nothing.
    Refuse {
        /// The round it answers; 0 answers [`Message::Observe`].
        round: u32,
        /// Why, one sentence.
        reason: String,
    },
    /// The orchestrator has chosen; every participant is to check again what could have changed, and commit.
    Award {
        /// The ids of its alternatives that won; none where it only has a say.
        alternatives: Vec<String>,
    },
    /// The participant stands by what it was awarded.
    Committed,
    /// The participant can no longer do what it was awarded.
    CommitFailed {
        /// Why.
        problems: Vec<Problem>,
    },
    /// The session ended with a plan.
    Sealed {
        /// The plan's hash.
        plan: PlanHash,
    },
    /// The session ended because no combination fits and nobody has anything further to offer.
    Deadlocked {
        /// Every conflict that is left.
        conflicts: Vec<Conflict>,
    },
    /// The session ended because a bound was hit.
    Expired {
        /// Which.
        bound: Bound,
        /// The conflicts known by then.
        conflicts: Vec<Conflict>,
    },
    /// The session ended because a fact could not be had, or a commitment failed.
    Failed {
        /// Why.
        problems: Vec<Problem>,
    },
}

/// What a participant is asked to find out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Profile a source or inspect a sink.
    Probe(#[schemars(with = "Map<String, Value>")] ProbeRequest),
    /// Type the steps over these sources.
    Type(#[schemars(with = "Map<String, Value>")] TypingRequest),
}

/// An answer, and where it is from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// The answer.
    pub fact: Fact,
    /// Where it is from; no part of any hash.
    pub origin: Origin,
}

/// An answer: a fact, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The profile of a source.
    Source(#[schemars(with = "Map<String, Value>")] SourceProfile),
    /// The inspection of a sink.
    Sink(#[schemars(with = "Map<String, Value>")] SinkInspection),
    /// The typed steps.
    Typing(#[schemars(with = "Map<String, Value>")] TransformTyping),
    /// The system could not be observed, or the steps do not plan.
    Unavailable(Vec<Problem>),
}

/// Where a fact is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// Who observed it, such as `dagwright-task probe` or `cache`.
    pub source: String,
    /// When, as an RFC 3339 instant in UTC; empty where nobody looked at a clock.
    pub at: String,
}

/// What the orchestrator asks alternatives for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallForProposals {
    /// The round: 1.
    pub round: u32,
    /// What is asked for: the spec in its normal form.
    #[schemars(with = "Map<String, Value>")]
    pub spec: Spec,
    /// Everything that is known.
    #[schemars(with = "Map<String, Value>")]
    pub facts: Facts,
}

/// Everything that was observed for a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The sources by name.
    pub sources: BTreeMap<Name, SourceProfile>,
    /// The sinks by name.
    pub sinks: BTreeMap<Name, SinkInspection>,
    /// The typed steps.
    pub typing: TransformTyping,
    /// What runs of earlier versions of the plan have taught, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setbacks: Vec<Setback>,
}

/// One way to do a part of the work, as an assume/guarantee contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alternative {
    /// Unique in the session: `<role>/<subject>/<variant>`, of an instance other than [`SOLE_INSTANCE`]
    /// `<role>/<subject>/<instance>/<variant>`.
    pub id: String,
    /// Who offers it.
    pub role: Role,
    /// The source, `transform`, or the sink it is about.
    pub subject: String,
    /// What would be done.
    pub strategy: Strategy,
    /// What it gives to others.
    pub provides: Vec<Guarantee>,
    /// What it needs of others.
    pub requires: Vec<Guarantee>,
    /// What it is expected to cost.
    pub cost: Cost,
    /// The change of the sink's schema that it makes.
    pub schema_change: SchemaChange,
    /// Every conversion that may lose something, and by which policy it happens.
    pub lossy: Vec<LossyUse>,
    /// What readers of the sink may rely on; `None` for what is no write.
    pub delivery: Option<Delivery>,
    /// What its author already knows to stand in its way: an alternative with objections cannot win, but says what
    /// would have to change so that it could.
    pub objections: Vec<Conflict>,
    /// One sentence.
    pub rationale: String,
}

/// What an alternative would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Strategy {
    /// Reads a source.
    Read(Read),
    /// Computes the steps.
    Compute {
        /// Where.
        placement: Placement,
    },
    /// Writes a sink.
    Write(Write),
}

/// How a source would be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// The columns read, with the types they are given.
    pub columns: Vec<Column>,
    /// The predicates the source or the reader applies early.
    pub filters: Vec<String>,
    /// Whether only the range after the committed cursor is read.
    pub incremental: bool,
    /// In how many parts; `None` is one stream.
    pub parts: Option<Parts>,
    /// What becomes of values that do not read as their column's type.
    pub on_misfit: LossyCast,
}

/// How a source would be read in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parts {
    /// By what.
    pub by: SplitBy,
    /// At most this many.
    pub count_max: u32,
}

/// Where the steps are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// In one streaming task from sources to sinks; nothing is staged.
    Fused,
    /// In that task, once for each partition of one source.
    Mapped,
    /// In a task of its own between staged extracts and loads; each can be tried again alone.
    Staged,
}

/// How a sink would be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Write {
    /// How rows reach it.
    pub strategy: WriteStrategy,
    /// The columns written, with the sink's types.
    pub columns: Vec<Column>,
    /// What changes about its schema first.
    pub edits: Vec<SchemaEdit>,
    /// Which of several rows with the same key wins; empty: duplicates end the task.
    pub dedupe: Vec<OrderBy>,
    /// What becomes of values that do not fit.
    pub on_misfit: LossyCast,
}

/// Something that one alternative gives and another needs. A need is met by an equal gift, except where said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Guarantee {
    /// The relation has these columns; needed: each can be had by a cast no worse than `verdict`.
    Schema {
        /// A source or step.
        relation: Name,
        /// The columns.
        columns: Vec<Column>,
        /// The worst cast that is acceptable; as a gift always `exact`.
        verdict: Verdict,
    },
    /// No two rows of the relation are equal in these columns; also met by fewer columns.
    Unique {
        /// A source or step.
        relation: Name,
        /// The columns.
        columns: Vec<String>,
    },
    /// The rows of the relation come in this order; also met by a longer order.
    Ordering {
        /// A source or step.
        relation: Name,
        /// The order.
        by: Vec<OrderBy>,
    },
    /// The relation comes in one stream, or in parts.
    Partitioning {
        /// A source or step.
        relation: Name,
        /// Whether in parts.
        in_parts: bool,
    },
    /// The relation is left in the staging area, so that it can be read again.
    Staged {
        /// A source or step.
        relation: Name,
    },
    /// The connection's user may do this to the sink.
    Privilege {
        /// The sink.
        sink: Name,
        /// What.
        privilege: Privilege,
    },
}

/// Something a database user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Create the table or file, and the effects table beside it.
    Create,
    /// Add rows or files.
    Insert,
    /// Change rows.
    Update,
    /// Remove rows or files.
    Delete,
    /// Change the schema.
    Alter,
}

/// A conversion that may lose something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LossyUse {
    /// The source or sink at whose border it happens.
    pub subject: Name,
    /// The column.
    pub column: String,
    /// What it is.
    pub from: DataType,
    /// What it becomes.
    pub to: DataType,
    /// What becomes of values that do not fit.
    pub policy: LossyCast,
}

/// What readers of a sink may rely on, from the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// A run is visible as a whole or not at all, and once however often its tasks are tried.
    ExactlyOnceAtomic,
    /// Each partition likewise, but one may be visible before the other.
    ExactlyOncePerPartition,
}

/// What stands in the way of an agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// What kind it is; for metrics and rules.
    pub kind: ConflictKind,
    /// Whose work it concerns: who is asked first for a way out.
    pub owner: Role,
    /// The source, `transform`, sink, or goal it is about.
    pub subject: String,
    /// The column, where it is about one.
    pub column: Option<String>,
    /// What collides, as `column amount: source string, 3.1 % not numeric; sink decimal(10,2) not null`.
    pub message: String,
    /// What the requester could change, best first.
    pub remedies: Vec<Remedy>,
}

/// The kinds of conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// An incremental cursor has NULLs, runs backwards, or is missing.
    Cursor,
    /// An upsert key is not unique, or missing.
    Key,
    /// The sink has no unique index on the upsert key.
    UniqueIndex,
    /// A value's type does not fit the sink.
    Type,
    /// A sink column that must have a value gets none, or maybe NULL.
    NotNull,
    /// The sink lacks a column.
    MissingColumn,
    /// The connection's user may not do what is needed.
    Privilege,
    /// The connector cannot do what is asked.
    Unsupported,
    /// A sink would overwrite what a source reads.
    ReadWrite,
    /// No way is within `goals.memory_max`.
    Memory,
    /// No way is within `goals.deadline`.
    Deadline,
    /// The sink's free space does not suffice.
    Space,
    /// Nobody offers a way to do this part.
    NoOffer,
}

/// Something the requester could change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// Where in the spec, as `sinks.warehouse.dedupe`; empty where it is outside of the spec.
    pub path: String,
    /// What to write or do there, one sentence.
    pub change: String,
}

/// What a session may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Rounds of proposals and counters.
    pub rounds_max: u32,
    /// Alternatives that one participant may offer for one subject, over all rounds.
    pub alternatives_max: u32,
    /// Messages in both directions.
    pub messages_max: u32,
    /// Milliseconds from the call for proposals to the last commitment.
    pub elapsed_ms_max: u64,
    /// Milliseconds from the opening to the call for proposals: observing opens connections and reads samples.
    pub observe_ms_max: u64,
}

/// Which bound was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// [`Bounds::rounds_max`]
    Rounds,
    /// [`Bounds::alternatives_max`]
    Alternatives,
    /// [`Bounds::messages_max`]
    Messages,
    /// [`Bounds::elapsed_ms_max`] or [`Bounds::observe_ms_max`]
    Time,
}

/// What something is expected to cost.
///
/// Money is absent until an engine charges any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Rows handled.
    pub rows: u64,
    /// Bytes moved over disk or network.
    pub bytes: u64,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Peak memory in bytes.
    pub memory_bytes: u64,
    /// How far to trust it, in percent.
    pub confidence: u8,
}

/// Every message of a session, in the orchestrator's order: what it sent when it sent it, and the answers to a
/// question sorted by sender once the last one is there. So the order does not depend on who was faster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Transcript(pub Vec<Envelope>);

// === impl Role ===

impl Role {
    /// Every role but the orchestrator, in the order in which they are asked.
    pub const PARTICIPANTS: [Self; 3] = [Self::Extraction, Self::Transformation, Self::Loading];

    /// Returns the name, as in messages and task records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Extraction => "extraction",
            Self::Transformation => "transformation",
            Self::Loading => "loading",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Party ===

impl Party {
    /// Returns the agent of a role that takes part unless a configuration names others.
    ///
    /// # Panics
    /// Never: [`SOLE_INSTANCE`] is a name.
    #[must_use]
    pub fn sole(role: Role) -> Self {
        Self { role, instance: Name::new(SOLE_INSTANCE).expect("a valid name") }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.role, self.instance)
    }
}

// === impl Envelope ===

impl Envelope {
    /// Returns it without the origins of facts: what hashes and comparisons go by.
    #[must_use]
    pub fn timeless(&self) -> Self {
        let mut envelope = self.clone();
        if let Message::Observed { observations } = &mut envelope.body {
            for observation in observations {
                observation.origin = Origin::default();
            }
        }
        envelope
    }
}

// === impl Message ===

impl Message {
    /// Returns the message's name, as its `type` is written.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Observe { .. } => "observe",
            Self::Observed { .. } => "observed",
            Self::CallForProposals(_) => "call_for_proposals",
            Self::Proposals { .. } => "proposals",
            Self::Conflicts { .. } => "conflicts",
            Self::Counter { .. } => "counter",
            Self::Refuse { .. } => "refuse",
            Self::Award { .. } => "award",
            Self::Committed => "committed",
            Self::CommitFailed { .. } => "commit_failed",
            Self::Sealed { .. } => "sealed",
            Self::Deadlocked { .. } => "deadlocked",
            Self::Expired { .. } => "expired",
            Self::Failed { .. } => "failed",
        }
    }
}

// === impl Transcript ===

impl Transcript {
    /// Returns the content hash, times left out.
    #[must_use]
    pub fn hash(&self) -> String {
        canonical::hash(&self.0.iter().map(Envelope::timeless).collect::<Vec<_>>())
    }
}

// === impl Bounds ===

impl Default for Bounds {
    /// Four rounds are one more than any rule needs; 16 alternatives keep the search exhaustive and quick.
    fn default() -> Self {
        Self { rounds_max: 4, alternatives_max: 16, messages_max: 200, elapsed_ms_max: 30_000, observe_ms_max: 600_000 }
    }
}

// === impl Bound ===

impl Bound {
    /// Returns what the bound counts, in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rounds => "rounds",
            Self::Alternatives => "alternatives of one participant",
            Self::Messages => "messages",
            Self::Time => "time",
        }
    }
}

// === impl Cost ===

impl Cost {
    /// Returns the cost of doing both, one after the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(next.rows),
            bytes: self.bytes.saturating_add(next.bytes),
            cpu_ms: self.cpu_ms.saturating_add(next.cpu_ms),
            wall_ms: self.wall_ms.saturating_add(next.wall_ms),
            memory_bytes: self.memory_bytes.max(next.memory_bytes),
            confidence: self.confidence.min(next.confidence),
        }
    }
}
