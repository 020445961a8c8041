//! The bus of many processes: Kafka, and what a ledger on it is built of.
//!
//! | topic | what it holds | partitioned by |
//! |---|---|---|
//! | `<prefix>.requests.v1` | what is asked for | pipeline |
//! | `<prefix>.ledger.v1` | what happened, compacted; the truth | pipeline |
//! | `<prefix>.events.v1` | what the outside is told | pipeline |
//! | `<prefix>.agents.v1` | what agents say to each other | session |
//! | `<prefix>.requests.dlq.v1` | requests that could not be read | – |
//!
//! [`Topics::ensure`] makes them. An [`Instance`] shares the requests with the others of its group: it owns the ledger's
//! partitions whose requests it is assigned, keeps a [`LedgerCache`] of all partitions, and makes what was decided
//! visible with a [`Commit`]: ledger records, events and the consumed offset at once or not at all. The reasons stand in
//! `docs/adr/0009-ledger-on-kafka.md`.
//!
//! A [`Listener`] hears what others write to a topic of theirs.
//!
//! What a request means is its caller's affair: it forwards ([`Received::forward`]), buries ([`Received::dead_letter`]) or
//! answers each, and commits that.
//!
//! librdkafka blocks; its calls run on threads of their own, or where blocking is allowed.

mod acquire;
mod agents;
mod checkup;
mod client;
mod commit;
mod confirm;
mod dangling;
mod dead_letters;
mod deliveries;
mod error;
mod events;
mod instance;
mod listener;
mod member;
mod message;
mod ownership;
mod partitioner;
mod place;
mod producer;
mod reader;
mod settings;
mod shared;
mod stats;
mod tail;
mod topics;
mod transactions;

pub use agents::KafkaBus;
pub use checkup::{Finding, State, check_up};
pub use commit::{Commit, CommitError, Committer, Outcome};
pub use dead_letters::{Address, DeadLetter, DeadLetters, Head, Listing, Replayed, Selection};
pub use error::Error;
pub use events::{EventReader, Told};
pub use instance::{Instance, Requests};
pub use listener::{Heard, Listener};
pub use message::{
    ATTEMPTS, CUT_FROM, Destination, ERROR, ERROR_CODE, FORWARDED_FROM, HeaderList, LedgerRecord, ORIGIN, Outgoing,
    REPEATED, REPLAY_OF, Received, Room,
};
pub use ownership::{Owned, Ownership};
pub use partitioner::partition_of;
pub use place::Place;
pub use producer::Producer;
pub use reader::Reader;
pub use settings::Settings;
pub use stats::{Count, Flag, Stats};
pub use tail::LedgerCache;
pub use topics::Topics;
