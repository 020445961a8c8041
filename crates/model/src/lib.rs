//! Dagwright's vocabulary, shared by every other crate.
//!
//! Everything here is plain data and pure functions over it: no I/O, no clock, no randomness, no async runtime. What
//! a type means is decided here once; crates `wire` and `compiler` only render it.
//!
//! The life of a request reads down this list:
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | what a requester sends |
//! | [`spec`] | what a person asks for, parsed and validated |
//! | [`facts`] | what was observed: source profiles, sink inspections, typed transforms |
//! | [`message`] | what agents say to each other about it |
//! | [`letter`] | those messages between processes |
//! | [`plan`] | what they agreed on, sealed by a content hash |
//! | [`setback`] | what a run that failed taught, for the next version of the plan |
//! | [`task`] | one unit of work of that plan, and what came of it |
//! | [`record`] | the ledger's records of all of the above |
//! | [`ask`] | what is asked of whoever acts for a pipeline |
//! | [`event`] | what the outside is told of the records |
//!
//! [`id`], [`units`], [`schema`], [`catalogue`], [`canonical`] and [`code`] are the words these are written in.

pub mod ask;
pub mod canonical;
pub mod catalogue;
pub mod code;
pub mod event;
pub mod facts;
pub mod id;
pub mod letter;
pub mod message;
pub mod plan;
pub mod record;
pub mod request;
pub mod schema;
pub mod setback;
pub mod spec;
pub mod task;
pub mod units;
