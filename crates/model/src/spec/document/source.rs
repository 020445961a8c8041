//! The part of a document that says where data comes from, and how files are read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{id::Name, schema::DataType, units::Span};

/// Where data comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A path relative to the spec, or `file:///`, `s3://`, `gs://`, `az://`, `https://`; `*`, `?`, `**` and `[…]` match files.
    pub uri: Option<String>,
    /// The name of a connection.
    pub connection: Option<Name>,
    /// A table of the connection, `table` or `schema.table`.
    pub table: Option<String>,
    /// A query of the connection, one SELECT in its own dialect; sees parameters as `$name`.
    pub query: Option<String>,
    /// The file format; inferred when absent.
    pub format: Option<FileFormat>,
    /// How to read CSV; what is absent is inferred.
    pub csv: Option<CsvOptions>,
    /// Read only what is new since the last run; absent: everything.
    pub incremental: Option<Incremental>,
    /// What is known of single columns.
    #[serde(default)]
    pub columns: BTreeMap<String, Classified>,
    /// What to do when there is nothing to read.
    #[serde(default)]
    pub on_missing: OnMissing,
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Delimited text.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// How to read CSV.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvOptions {
    /// One ASCII character.
    #[schemars(length(min = 1, max = 1))]
    pub delimiter: Option<String>,
    /// One ASCII character.
    #[schemars(length(min = 1, max = 1))]
    pub quote: Option<String>,
    /// One ASCII character; absent: a quote is doubled.
    #[schemars(length(min = 1, max = 1))]
    pub escape: Option<String>,
    /// Whether the first record holds the names.
    pub header: Option<bool>,
    /// The text encoding.
    pub encoding: Option<Encoding>,
    /// Texts that mean NULL; by default the empty text without quotes.
    pub null_values: Option<Vec<String>>,
    /// What to do with records of another number of fields; `fail` when absent.
    pub ragged: Option<Ragged>,
}

/// A text encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1, read as Windows-1252 like every browser does.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// What to do with records of another number of fields than the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ragged {
    /// The run fails.
    #[default]
    Fail,
    /// The record goes to quarantine.
    Quarantine,
    /// Missing fields become NULL; surplus ones still fail.
    Fill,
}

/// How a run continues where the last one ended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incremental {
    /// The column whose values only grow.
    pub cursor: String,
    /// Where the first run starts (exclusive); absent: at the beginning.
    pub initial_value: Option<Value>,
    /// How far behind the committed cursor each run reads again: a time span, or a number for numeric cursors.
    pub lag: Option<LagText>,
}

/// A late window: a time span such as `1d`, or a whole number.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LagText {
    /// For dates and timestamps.
    Time(Span),
    /// For numbers.
    Number(u64),
}

/// What is known of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Classified {
    /// Its type; inferred when absent.
    #[serde(rename = "type")]
    pub data_type: Option<DataType>,
    /// The class of its content, such as `pii`: keeps values out of everything but the sink.
    #[schemars(length(min = 1, max = 100))]
    pub classification: Option<String>,
    /// How values are made unreadable at extraction.
    pub mask: Option<Mask>,
}

/// How values are made unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// HMAC-SHA-256 in hexadecimal with the key of the environment's `DAGWRIGHT_MASK_KEY`: equal values stay equal.
    Hmac,
    /// The text `***`.
    Redact,
    /// NULL.
    Null,
}

/// What to do when there is nothing to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// The run fails.
    #[default]
    Fail,
    /// The source counts as empty; needs declared column types.
    Skip,
}
