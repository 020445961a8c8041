//! What the threads of an instance share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use dagwright_telemetry::chain::ErrorChain;
use tokio::sync::watch;

use super::{Error, Stats, Topics, ownership::Table, tail::Ends};

/// What the threads of an instance share.
pub(crate) struct Shared {
    pub(crate) topics: Topics,
    pub(crate) table: Table,
    pub(crate) ends: Ends,
    pub(crate) stats: Arc<Stats>,
    failure: watch::Sender<Option<Arc<Error>>>,
    /// The member takes no more requests; what was taken may still be committed.
    draining: AtomicBool,
    stopping: AtomicBool,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(topics: Topics, stats: Arc<Stats>) -> Self {
        Self {
            table: Table::new(),
            ends: Ends::new(topics.partitions),
            topics,
            stats,
            failure: watch::Sender::new(None),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Notes what no thread can get over; the first failure counts.
    pub(crate) fn fail(&self, error: Error) {
        tracing::error!(code = %error.code(), error = %ErrorChain(&error), "kafka failed for good");
        self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(Arc::new(error));
            }
            is_first
        });
        self.table.wake();
    }

    pub(crate) fn failure(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.failure.subscribe()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.table.wake();
    }

    /// Tells whether the threads are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.stopping.load(Relaxed) || self.failure.borrow().is_some()
    }
}
