//! Actix actors: thin shells around the pure machines of crate `negotiation`.
//!
//! The orchestrator and the extraction, transformation and loading agents are separate actors on threads of their own.
//! They talk over the bus alone, with the messages of `/proto`, so it makes no difference whether they share a process:
//! what is for an agent elsewhere goes through the process's office.
//! A handler decides nothing: it applies an event, persists, and performs the effects.
//!
//! | module | what it is |
//! |---|---|
//! | [`service`] | takes requests on and sees them through; `lifecycle` and `queue` are its machines |
//! | [`shared_ledger`] | the ledger of many instances: a topic, with a store as its cache |
//! | [`team`] | the agents of one process, and how to ask them |
//! | [`lineup`] | who takes part, and where |
//! | `agreed` | a plan, with what follows from it alone |
//! | `mail`, `office`, `roster` | how they write to each other; what goes to other processes; who is there |
//! | `orchestrator`, `participant` | the actors |
//! | `chain` | an error with what caused it, for the log |
//! | `docket` | what the orchestrator was asked and has not answered; it outlives the actor |
//! | `keeper` | delivers an agent's messages, and builds it anew as soon as it panicked |
//! | [`Matter`] | what came before a negotiation in the life of its request |
//! | `observe` | questions to facts |
//! | [`metrics`] | what is measured |
//! | [`ports`], [`observer`] | what agents need from outside; the one that starts `dagwright-task` |

mod agreed;
mod docket;
pub mod interval;
mod keeper;
mod lifecycle;
pub mod lineup;
mod mail;
mod matter;
pub mod metrics;
mod observe;
pub mod observer;
mod office;
mod orchestrator;
mod participant;
pub mod ports;
mod queue;
mod roster;
pub mod service;
pub mod shared_ledger;
pub mod team;

pub use keeper::Restarts;
pub use lineup::{Far, Lineup};
pub use matter::Matter;
pub use orchestrator::Negotiated;
pub use service::{Arrival, Service};
pub use team::{Error, Ports, Team};
