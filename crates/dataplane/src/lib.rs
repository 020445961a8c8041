//! The data plane: what moves and observes data, in a process of its own.
//!
//! `dagwright-task` is the only caller. It reads a [`TaskRun`](dagwright_model::task::TaskRun), does its work and
//! says what came of it; nothing here knows of negotiation, engines or the daemon. Memory stays within the task's
//! budget however large the input: everything streams in record batches, and DataFusion spills what must be kept.
//!
//! | module | what it does |
//! |---|---|
//! | [`connectors`] | reads and writes one kind of system each |
//! | [`types`] | maps the model's types to Arrow's and back |
//! | [`tally`] | counts rows and collects rejects while streams flow |
//! | [`error`] | what goes wrong, with its stable code |

pub mod connectors;
pub mod error;
pub mod tally;
pub mod types;
