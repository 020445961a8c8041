//! Publish and subscribe behind one trait, so that agents do not know whether they share a process.
//!
//! A [`Topic`] carries records in order per key. Every *group* of subscribers sees every record once. Queues are bounded:
//! a publisher waits for the slowest group instead of filling memory. What a record's bytes mean is the topic's affair.
//!
//! | module | what it is |
//! |---|---|
//! | [`in_process`] | the bus of a single process |
//! | [`kafka`] | the bus of many processes, and what a ledger on Kafka is built of |
//! | [`letter`] | what agents write on [`Topic::Agents`] |
//! | [`metrics`] | what is measured of Kafka |

pub mod in_process;
pub mod kafka;
pub mod letter;
pub mod metrics;

use async_trait::async_trait;
pub use dagwright_wire::letter::Encoding;
use tokio::sync::mpsc;

/// What a record is about, and so who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What agents write to each other; the key is the session, or who writes.
    Agents,
}

/// One record on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Records with the same key keep their order.
    pub key: String,
    /// The content.
    pub payload: Vec<u8>,
}

/// Carries records between publishers and groups of subscribers.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Publishes a record to every group; waits while one of them is behind.
    ///
    /// # Errors
    /// [`Error::Closed`] when the bus was shut down.
    ///
    /// # Cancel safety
    /// Not cancel safe: some groups may have the record already.
    async fn publish(&self, topic: Topic, record: Record) -> Result<(), Error>;

    /// Joins `group` on `topic`: the subscription sees what is published from now on. A second subscription of the same
    /// group takes over from the first, which ends.
    ///
    /// # Errors
    /// [`Error::Closed`] when the bus was shut down.
    async fn subscribe(&self, topic: Topic, group: &str) -> Result<Subscription, Error>;
}

/// One group's end of a topic.
#[derive(Debug)]
pub struct Subscription(mpsc::Receiver<Record>);

/// Says why the bus did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was shut down.
    #[error("the bus was shut down")]
    Closed,
    /// A record is not a message of its topic.
    #[error("could not read a record on topic {topic:?}")]
    Unreadable {
        /// The topic.
        topic: Topic,
        /// Why.
        source: Box<dagwright_wire::Error>,
    },
    /// Kafka did not take it.
    #[error(transparent)]
    Kafka(Box<kafka::Error>),
}

// === impl Error ===

impl From<kafka::Error> for Error {
    fn from(error: kafka::Error) -> Self {
        Self::Kafka(Box::new(error))
    }
}

// === impl Subscription ===

impl Subscription {
    /// Returns the next record; `None` when the bus was shut down or another subscription took over.
    ///
    /// # Cancel safety
    /// Cancel safe: no record is lost.
    pub async fn next(&mut self) -> Option<Record> {
        self.0.recv().await
    }

    /// Returns how many records wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.len()
    }
}
