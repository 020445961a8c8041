//! The data plane: what moves and observes data, in a process of its own.
//!
//! `dagwright-task` is the only caller. It reads a [`TaskRun`](dagwright_model::task::TaskRun), does its work and
//! says what came of it; nothing here knows of negotiation, engines or the daemon. Memory stays within the task's
//! budget however large the input: everything streams in record batches, and DataFusion spills what must be kept.
//!
//! | module | what it does |
//! |---|---|
//! | [`run`] | runs a task: split, move, publish or clean up |
//! | [`typing`] | types a transform from columns alone |
//! | [`transform`] | plans and computes SQL on DataFusion |
//! | [`gates`] | judges quality gates while rows stream by |
//! | [`cast`] | gives rows the sink's types, and finds what does not fit |
//! | [`quarantine`] | keeps rejected rows |
//! | [`staging`] | keeps relations between tasks, [`spool`] within one; both as [`relations`] in [`storage`] |
//! | [`cursor`] | compares the cursors of incremental reads |
//! | [`events`] | says how far a task is |
//! | [`connectors`] | reads and writes one kind of system each |
//! | [`values`] | single values as JSON and text |
//! | [`types`] | maps the model's types to Arrow's and back |
//! | [`tally`] | counts rows and collects rejects while streams flow |
//! | [`error`] | what goes wrong, with its stable code |

pub mod cast;
pub mod connectors;
pub mod cursor;
pub mod error;
pub mod events;
pub mod gates;
pub mod quarantine;
pub mod relations;
pub mod run;
pub mod spool;
pub mod staging;
pub mod storage;
pub mod tally;
pub mod transform;
pub mod types;
pub mod typing;
pub mod values;
