//! Counts that a metrics layer reads.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// What happened so far; every count only grows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that were received, those among them that came again.
    pub consumed: Count,
    /// Records that became visible to others.
    pub produced: Count,
    /// Transactions that became visible.
    pub committed: Count,
    /// Transactions that came to nothing and were tried again.
    pub aborted: Count,
    /// Commits that were refused as their partition had been lost.
    pub fenced: Count,
    /// Commits whose outcome was not known; their partitions were taken up anew.
    pub in_doubt: Count,
    /// Producers that were given up for a new one.
    pub rebuilt: Count,
    /// Records that went to the dead letters.
    pub dead_letters: Count,
    /// Requests that went to their home partition.
    pub forwarded: Count,
    /// Ledger records that were read into the local cache.
    pub tailed: Count,
    /// Whether the local cache has been where each partition of the ledger ended since it began to be read: what it does not
    /// know was not known then.
    pub caught_up: Flag,
    /// Whether requests wait as there is no room for more.
    pub paused: Flag,
    lag: Mutex<BTreeMap<(String, i32), u64>>,
}

/// A count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// Something that is so or not.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

// === impl Stats ===

impl Stats {
    /// Returns for each owned partition how many records are behind what was committed, as of some seconds ago. Kafka's
    /// markers count too: a partition that has been read to its end may be one behind.
    #[must_use]
    pub fn lag(&self) -> BTreeMap<(String, i32), u64> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_lag(&self, lag: BTreeMap<(String, i32), u64>) {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = lag;
    }
}

// === impl Count ===

impl Count {
    /// Returns the count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }
}

// === impl Flag ===

impl Flag {
    /// Tells whether it is so.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Relaxed);
    }
}
