//! The pure negotiation: one machine for the orchestrator, one for each participant, and the rules they reason by.
//!
//! Nothing here does I/O or looks at a clock: facts and time arrive as data, effects leave as data. So the same facts
//! give the same messages and the same plan, byte for byte, in production, in [`replay`] and in tests.
//!
//! | module | what it does |
//! |---|---|
//! | [`session`] | the orchestrator's machine: asks, collects, searches, awards, seals |
//! | [`participants`] | what extraction, transformation and loading offer and counter |
//! | [`rules`] | one trade-off a file, each over a [`case::Case`] |
//! | [`cost`] | what things are expected to cost |
//! | [`offer`] | which offers count, whoever makes them |
//! | [`search`] | the cheapest consistent combination, and why every other alternative lost |
//! | [`seal`] | the winning combination as a plan |
//! | [`changes`], [`drift`] | how a plan, and the schemas it uses, differ from the one before |
//! | [`replay`], [`explain`] | a transcript checked, a plan told |
//!
//! The invariants N1 to N7 of the design are debug assertions here and properties of the simulation test.

pub mod case;
pub mod changes;
pub mod cost;
pub mod drift;
pub mod explain;
pub mod offer;
pub mod participants;
pub mod replay;
pub mod rules;
pub mod seal;
pub mod search;
pub mod session;

#[cfg(test)]
mod parties;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
