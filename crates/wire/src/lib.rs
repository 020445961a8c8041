//! Protobuf, JSON and CloudEvents renderings of the model.
//!
//! The types of `/proto` are generated into [`proto`]; [`convert`] maps them to the model and back. The way in is
//! checked: an unknown enum value, a missing field, a bad name or bad JSON is an [`Error`] with a code, never a
//! default. The way out cannot fail. [`jsonl`] reads and writes the task's event lines, [`letter`] messages between
//! agents, [`record`] the ledger's bytes, and [`ask`] what lies beside them. [`cloudevent`] reads and writes events from and
//! for the outside, over HTTP and
//! Kafka alike, [`request`] reads what they ask for, and [`openlineage`] tells of runs what lineage tools want to know.
//!
//! Encodings are deterministic: maps are ordered and nested JSON is canonical, so equal values are equal bytes.

pub mod ask;
pub mod cloudevent;
pub mod convert;
mod error;
mod json;
pub mod jsonl;
pub mod letter;
mod media_type;
pub mod openlineage;
pub mod record;
pub mod request;
mod trace;

pub use error::Error;

/// The generated protobuf types of package `dagwright.v1`.
pub mod proto {
    #![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated from /proto")]
    include!(concat!(env!("OUT_DIR"), "/dagwright.v1.rs"));
}

/// The generated protobuf types of package `io.cloudevents.v1`.
pub mod cloudevents_proto {
    #![allow(missing_docs, clippy::all, unreachable_pub, reason = "generated from /proto")]
    include!(concat!(env!("OUT_DIR"), "/io.cloudevents.v1.rs"));
}
