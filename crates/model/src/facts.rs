//! What was observed of the world: the only thing negotiation rules may see of it.
//!
//! Facts are returned by `dagwright-task probe` and `dagwright-task plan`, recorded in the ledger with their source
//! and time, and cached by content hash. The facts themselves hold no time, so equal observations are equal bytes.
//! Classified columns show no values: no minimum, no maximum, no sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::Name,
    schema::Column,
    spec,
    spec::{Encoding, FileFormat, GateRule, Incremental, Locator, SinkMode, Step},
    task::Problem,
};

/// What `dagwright-task probe` is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "built once per process; a box would only stand in the way")]
pub enum ProbeRequest {
    /// Profile a source.
    Source {
        /// The source's name.
        name: Name,
        /// The source, with what the spec says of it.
        source: spec::Source,
        /// Sets of columns whose uniqueness matters to a sink.
        keys: Vec<Vec<String>>,
    },
    /// Inspect a sink.
    Sink {
        /// The sink's name.
        name: Name,
        /// Where it is.
        locator: Locator,
        /// Its format, for files.
        format: Option<FileFormat>,
        /// What will be done to it, so that the privileges asked about are the needed ones.
        mode: SinkMode,
    },
}

/// What `dagwright-task probe` answers: a fact, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeReply {
    /// The profile of a source.
    Source(SourceProfile),
    /// The inspection of a sink.
    Sink(SinkInspection),
    /// The system could not be observed.
    Failed(Problem),
}

/// Which system a connection or URI means: scheme, host, port and database, never a credential.
///
/// For files: scheme, and bucket or host; local files have the scheme `file` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// `postgresql`, `file`, `s3`, `gs`, `az` or `https`.
    pub scheme: String,
    /// The host or bucket, if any.
    pub host: Option<String>,
    /// The port, if any.
    pub port: Option<u16>,
    /// The database, if any.
    pub database: Option<String>,
}

/// A count, and whether it was counted or estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The number.
    pub value: u64,
    /// Whether everything was counted.
    pub exact: bool,
}

/// The profile of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceProfile {
    /// Which source.
    pub source: Name,
    /// Which system it is on.
    pub identity: Identity,
    /// Whether there is anything at the locator; when not, all below is empty.
    pub exists: bool,
    /// The file format, for files.
    pub format: Option<FileFormat>,
    /// How text files are read, for text files.
    pub text: Option<TextProfile>,
    /// The columns in order, after masks were applied to their types.
    pub columns: Vec<ColumnProfile>,
    /// How many rows.
    pub rows: Count,
    /// How many bytes as stored (compressed where it is).
    pub bytes: Count,
    /// How many files; 0 for tables and queries.
    pub files: u64,
    /// How many rows the column statistics rest on.
    pub rows_sampled: u64,
    /// Sets of columns that identify a row, declared by the system or seen in all rows; smallest first.
    pub candidate_keys: Vec<Vec<String>>,
    /// What was asked about uniqueness.
    pub key_checks: Vec<KeyCheck>,
    /// Columns that could serve as a cursor, best first.
    pub watermarks: Vec<WatermarkProfile>,
    /// How the source can be read in parts.
    pub splits: Vec<SplitProfile>,
    /// A digest of what was seen of the content (sizes, entity tags, modification times, row counts).
    pub fingerprint: String,
}

/// What was seen of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnProfile {
    /// Name, type and whether NULL was seen or is allowed.
    #[serde(flatten)]
    pub column: Column,
    /// How certain the type is, in percent: 100 where the system declares it or the spec does.
    pub confidence: u8,
    /// How many sampled values are NULL.
    pub nulls: u64,
    /// How many sampled values differ, at least and roughly; `None` where not counted.
    pub distinct: Option<u64>,
    /// The smallest sampled value as text; `None` where unordered, classified or unknown.
    pub min: Option<String>,
    /// The largest sampled value as text, likewise.
    pub max: Option<String>,
    /// For text columns: how many sampled non-NULL values do *not* read as the named type, for types that most do.
    pub misfits: BTreeMap<String, u64>,
    /// Whether the spec gives it a classification.
    pub classified: bool,
}

/// How text files are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextProfile {
    /// The encoding.
    pub encoding: Encoding,
    /// The compression, by the file's first bytes.
    pub compression: TextCompression,
    /// The delimiter; CSV only.
    pub delimiter: Option<char>,
    /// The quote; CSV only.
    pub quote: Option<char>,
    /// The escape character; `None` when quotes are doubled.
    pub escape: Option<char>,
    /// Whether the first record holds names; CSV only.
    pub header: bool,
    /// How many sampled records have another number of fields.
    pub ragged: u64,
}

/// The compression of a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextCompression {
    /// None.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}

/// Whether a set of columns identifies a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck {
    /// The columns.
    pub columns: Vec<String>,
    /// How many rows repeat the key of an earlier one.
    pub duplicates: Count,
    /// How many rows have a NULL in the key.
    pub nulls: u64,
}

/// Whether a column can serve as a cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkProfile {
    /// The column.
    pub column: String,
    /// How many sampled values are NULL.
    pub nulls: u64,
    /// How many sampled rows have a smaller value than the row before, in the order stored.
    pub regressions: u64,
    /// Whether an index makes reading a range cheap.
    pub indexed: bool,
}

/// One way to read a source in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitProfile {
    /// Each file by itself.
    Files {
        /// How many.
        count: u64,
    },
    /// Ranges of an indexed, non-NULL integer, date or timestamp column.
    KeyRange {
        /// The column.
        column: String,
        /// The smallest value as text.
        min: String,
        /// The largest value as text.
        max: String,
    },
}

/// The inspection of a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkInspection {
    /// Which sink.
    pub sink: Name,
    /// Which system it is on.
    pub identity: Identity,
    /// Whether the table, file or folder exists.
    pub exists: bool,
    /// The columns, when it exists and its schema is known.
    pub columns: Vec<SinkColumn>,
    /// Unique keys and indexes that `ON CONFLICT` can name; the primary key first.
    pub unique_keys: Vec<Vec<String>>,
    /// How many rows it holds, roughly.
    pub rows: Option<u64>,
    /// What the connection's user may do.
    pub privileges: Privileges,
    /// Free bytes, where known.
    pub bytes_free: Option<u64>,
    /// Why the table cannot be replaced by truncating it: foreign keys that point at it.
    pub referenced_by: Vec<String>,
}

/// A column of an existing sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkColumn {
    /// Name, type, and whether NULL is allowed.
    #[serde(flatten)]
    pub column: Column,
    /// Whether the system fills it in when it is not written.
    pub has_default: bool,
    /// Whether it cannot be written: generated always.
    pub generated: bool,
}

/// What the connection's user may do to a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Create the table or file, and the effects table beside it.
    pub create: bool,
    /// Add rows or files.
    pub insert: bool,
    /// Change rows.
    pub update: bool,
    /// Remove rows or files.
    pub delete: bool,
    /// Change the schema: own the table.
    pub alter: bool,
}

/// What `dagwright-task plan` is asked: type these steps over these sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypingRequest {
    /// The sources' columns, by name.
    pub sources: BTreeMap<Name, Vec<Column>>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The types of the binds, parameters and interval alike, by name without `$`.
    pub binds: BTreeMap<String, spec::ParamType>,
    /// The gates, to be typed against what they judge: name, relation, rule.
    pub gates: Vec<(Name, Name, GateRule)>,
    /// The relations that sinks write: what is not needed by one of them need not be read.
    pub outputs: Vec<Name>,
    /// The incremental sources: their cursor must be read whatever the steps use.
    pub incremental: BTreeMap<Name, Incremental>,
}

/// What `dagwright-task plan` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypingReply {
    /// Everything plans.
    Typed(TransformTyping),
    /// These do not; each problem's subject names the step or gate.
    Failed(Vec<Problem>),
}

/// The typed steps of a transform, and what they need of the sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransformTyping {
    /// One for each step, in order.
    pub steps: Vec<TypedStep>,
    /// What the steps, gates and sinks need of each source.
    pub pushdown: BTreeMap<Name, Pushdown>,
}

/// A typed step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypedStep {
    /// The step.
    pub name: Name,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// The relations it reads directly.
    pub inputs: Vec<Name>,
    /// Whether each output row depends on one row of one input alone: such a step may run on each partition by itself.
    pub row_local: bool,
    /// Whether it keeps rows in memory (join build sides, sorts, aggregates): what spilling is for.
    pub blocking: bool,
    /// For each output column, the source columns it is computed from.
    pub lineage: BTreeMap<String, Vec<ColumnRef>>,
    /// For each output column that is a source column passed through unchanged, that column.
    pub passthrough: BTreeMap<String, ColumnRef>,
}

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ColumnRef {
    /// The source.
    pub source: Name,
    /// The column.
    pub column: String,
}

/// What is needed of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushdown {
    /// The columns needed, in the source's order.
    pub columns: Vec<String>,
    /// Predicates in DataFusion's SQL over this source's columns alone; rows where one is not true are never needed.
    pub filters: Vec<String>,
}
