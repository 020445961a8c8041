//! Waits until the local cache has read what stands in the ledger by now.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{shared::Shared, tail::Ticket};

/// How long to wait for news before the clock is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Knows how far the cache has read; clones share that.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

// === impl Reader ===

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Waits until the cache has read these partitions up to their ends as they are when this is called: all that was
    /// visible by then. Returns false when that takes longer than `patience`. Blocks.
    #[must_use]
    pub fn catch_up(&self, partitions: impl IntoIterator<Item = i32>, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut open: Vec<Ticket> = partitions.into_iter().filter_map(|it| self.0.ends.ask(it)).collect();
        loop {
            open.retain(|ticket| !self.0.ends.is_met(*ticket));
            if open.is_empty() {
                return true;
            }
            if self.0.is_over() || Instant::now() >= deadline {
                return false;
            }
            self.0.table.wait(PAUSE);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
