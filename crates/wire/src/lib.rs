//! Protobuf and JSON renderings of the model.
//!
//! The types of `/proto` are generated into [`proto`]; [`convert`] maps them to the model and back. The way in is
//! checked: an unknown enum value, a missing field, a bad name or bad JSON is an [`Error`] with a code, never a
//! default. The way out cannot fail. [`jsonl`] reads and writes the task's event lines, [`envelope`] messages between
//! agents, [`record`] the ledger's bytes.
//!
//! Encodings are deterministic: maps are ordered and nested JSON is canonical, so equal values are equal bytes.

pub mod convert;
pub mod envelope;
mod error;
pub mod jsonl;
pub mod record;

pub use error::Error;

/// The generated protobuf types of package `dagwright.v1`.
pub mod proto {
    #![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated from /proto")]
    include!(concat!(env!("OUT_DIR"), "/dagwright.v1.rs"));
}
