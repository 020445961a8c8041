//! The part of a document that says where data goes, and how files are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::FileFormat;
use crate::id::Name;

/// Where data goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// A file, or a folder of parts when it ends in `/`.
    pub uri: Option<String>,
    /// The name of a connection.
    pub connection: Option<Name>,
    /// A table of the connection, `table` or `schema.table`.
    pub table: Option<String>,
    /// The step or source to write; absent: the last step, or the only source.
    pub from: Option<Name>,
    /// The file format; taken from the ending when absent.
    pub format: Option<FileFormat>,
    /// What becomes of rows that are there already.
    pub mode: SinkMode,
    /// The columns that identify a row; needed by `upsert`.
    #[serde(default)]
    pub key: Vec<String>,
    /// Which of several rows with the same key wins.
    pub dedupe: Option<Dedupe>,
    /// Fewer rows than this fail the run before anything becomes visible; 1, or 0 where a source is incremental.
    pub min_rows: Option<u64>,
    /// Whether an append to a table carries `_dagwright_run_id`, by which a cleared run finds its rows; true.
    pub meta_columns: Option<bool>,
    /// How files are written.
    #[serde(default)]
    pub write: WriteOptions,
}

/// What becomes of rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkMode {
    /// They stay; new rows come after them.
    Append,
    /// They go, in the same instant in which the new ones appear.
    Replace,
    /// Those with the key of a new row are replaced by it.
    Upsert,
    /// Not yet supported.
    OverwritePartitions,
    /// Not yet supported.
    Scd2,
}

/// Which of several rows with the same key wins.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedupe {
    /// The first row in this order wins: `column`, `column asc` or `column desc`; NULLs come last.
    #[schemars(length(min = 1, max = 16))]
    pub order_by: Vec<String>,
}

/// How files are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteOptions {
    /// The compression; `zstd` for Parquet and `none` for text when absent.
    pub compression: Option<Compression>,
    /// The delimiter of CSV, one ASCII character; `,` when absent.
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// Whether CSV starts with the names; true when absent.
    pub header: Option<bool>,
}

/// A compression of written files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None.
    None,
    /// gzip; text files only.
    Gzip,
    /// Snappy; Parquet only.
    Snappy,
    /// Zstandard.
    Zstd,
}
