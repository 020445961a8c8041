//! Counts rows and collects rejected ones while streams flow.
//!
//! Connectors count as they go, from any thread; the executor reads the sums for progress events and at the end.
//! Rejects travel over a bounded channel to the quarantine writer, so that a source full of bad records slows down
//! instead of filling memory.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use dagwright_model::{
    id::Name,
    task::{SinkCounts, SourceCounts},
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

/// How many rejects may wait for the quarantine writer.
pub const REJECTS_QUEUED_MAX: usize = 1024;

/// The running counts of one source.
#[derive(Debug, Default)]
pub struct SourceTally {
    /// See [`SourceCounts::read`].
    pub read: AtomicU64,
    /// See [`SourceCounts::passed`].
    pub passed: AtomicU64,
    /// See [`SourceCounts::quarantined`].
    pub quarantined: AtomicU64,
    /// See [`SourceCounts::skipped`].
    pub skipped: AtomicU64,
    /// See [`SourceCounts::nulled`].
    pub nulled: AtomicU64,
    /// See [`SourceCounts::bytes`].
    pub bytes: AtomicU64,
}

/// The running counts of one sink.
#[derive(Debug, Default)]
pub struct SinkTally {
    /// Rows handed to the writer, not yet visible.
    pub written: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
}

/// A row or record that goes to the quarantine.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// The source, step or sink where it was rejected.
    pub relation: Name,
    /// Why, without a value: `column "dep_delay": not an int64`, `gate sane_delay`.
    pub reason: String,
    /// Where it stood: `flights.csv:1234` (line of the record's start), where known.
    pub position: Option<String>,
    /// Its values by column, where known; never those of classified columns.
    pub values: Map<String, Value>,
}

/// Where rejects go.
#[derive(Clone, Debug)]
pub struct Rejects(mpsc::Sender<Reject>);

/// Says that the quarantine writer has stopped; its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the quarantine writer has stopped")]
pub struct RejectsClosed;

// === impl Rejects ===

impl Rejects {
    /// Makes a bounded channel of rejects.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Reject>) {
        let (sender, receiver) = mpsc::channel(REJECTS_QUEUED_MAX);
        (Self(sender), receiver)
    }

    /// Hands over a reject; waits while the quarantine writer is behind.
    ///
    /// # Errors
    /// [`RejectsClosed`] when the writer has stopped.
    pub async fn send(&self, reject: Reject) -> Result<(), RejectsClosed> {
        self.0.send(reject).await.map_err(|_| RejectsClosed)
    }

    /// The same from a blocking thread.
    ///
    /// # Errors
    /// As [`Self::send`].
    ///
    /// # Panics
    /// When called from an async context.
    pub fn send_blocking(&self, reject: Reject) -> Result<(), RejectsClosed> {
        self.0.blocking_send(reject).map_err(|_| RejectsClosed)
    }
}

// === impl SourceTally ===

impl SourceTally {
    /// Returns a tally to share with streams.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the sums so far.
    #[must_use]
    pub fn counts(&self) -> SourceCounts {
        SourceCounts {
            read: self.read.load(Relaxed),
            passed: self.passed.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            nulled: self.nulled.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

// === impl SinkTally ===

impl SinkTally {
    /// Returns a tally to share with a writer.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the sums so far, as if every row written were loaded.
    #[must_use]
    pub fn counts(&self) -> SinkCounts {
        let written = self.written.load(Relaxed);
        SinkCounts { produced: written, loaded: written, bytes: self.bytes.load(Relaxed), ..SinkCounts::default() }
    }
}
