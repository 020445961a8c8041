//! The memory of exchanges: what the streams of a plan hand to each other.
//!
//! DataFusion's `RepartitionExec` spills a batch that the pool refuses, and two of its inputs that do so at once can leave
//! its reader waiting for ever (apache/datafusion#24883; the repair came after 55.2). Its queues hold a few batches as long
//! as every reader gets some, so here they are not refused, nor counted against what joins, sorts and groups may hold.
//! Only where one reader gets nearly everything do they grow; then they spill, which is safe, since nobody waits for a
//! reader that gets nothing.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use datafusion::{
    common::resources_err,
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

/// What DataFusion calls an exchange.
const EXCHANGE: &str = "RepartitionExec";

/// What exchanges may hold where the pool itself is small: many batches of wide rows.
const EXCHANGE_BYTES_MIN: usize = 32 << 20;

/// A pool beside which exchanges have memory of their own.
#[derive(Debug)]
pub(super) struct ExchangePool {
    inner: Arc<dyn MemoryPool>,
    bytes_max: usize,
    bytes: AtomicUsize,
}

// === impl ExchangePool ===

impl ExchangePool {
    /// Puts exchanges beside a pool of `pool_bytes`.
    pub(super) fn new(inner: Arc<dyn MemoryPool>, pool_bytes: usize) -> Self {
        Self { inner, bytes_max: (pool_bytes / 2).max(EXCHANGE_BYTES_MIN), bytes: AtomicUsize::new(0) }
    }
}

fn is_exchange(consumer: &MemoryConsumer) -> bool {
    // A merge behind an exchange is a merge as any other.
    consumer.name().starts_with(EXCHANGE) && !consumer.name().contains("Merge")
}

impl fmt::Display for ExchangePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl MemoryPool for ExchangePool {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if !is_exchange(consumer) {
            self.inner.register(consumer);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if !is_exchange(consumer) {
            self.inner.unregister(consumer);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        if is_exchange(reservation.consumer()) {
            self.bytes.fetch_add(additional, Relaxed);
        } else {
            self.inner.grow(reservation, additional);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        if is_exchange(reservation.consumer()) {
            self.bytes.fetch_sub(shrink, Relaxed);
        } else {
            self.inner.shrink(reservation, shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if !is_exchange(reservation.consumer()) {
            return self.inner.try_grow(reservation, additional);
        }
        let within = |bytes: usize| bytes.checked_add(additional).filter(|sum| *sum <= self.bytes_max);
        match self.bytes.fetch_update(Relaxed, Relaxed, within) {
            Ok(_) => Ok(()),
            Err(held) => {
                resources_err!("exchanges hold {held} of {} bytes, {additional} more are asked for", self.bytes_max)
            }
        }
    }

    fn reserved(&self) -> usize {
        self.inner.reserved() + self.bytes.load(Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryPool};

    use super::{EXCHANGE_BYTES_MIN, ExchangePool};

    #[test]
    fn exchanges_take_nothing_from_others_and_are_bounded() {
        let pool: Arc<dyn MemoryPool> = Arc::new(ExchangePool::new(Arc::new(FairSpillPool::new(1000)), 1000));
        let exchanges = [0, 1].map(|number| {
            MemoryConsumer::new(format!("RepartitionExec[{number}]")).with_can_spill(true).register(&pool)
        });
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        assert!(exchanges[0].try_grow(5000).is_ok());
        assert!(sort.try_grow(1000).is_ok() && sort.try_grow(1).is_err());
        assert!(exchanges[1].try_grow(EXCHANGE_BYTES_MIN - 5000).is_ok() && exchanges[1].try_grow(1).is_err());
        exchanges[0].free();
        assert!(exchanges[1].try_grow(5000).is_ok());
        // What merges behind an exchange is counted as any other merge.
        let merge = MemoryConsumer::new("RepartitionExec[Merge 0]").register(&pool);
        assert!(merge.try_grow(1).is_err());
        drop((exchanges, sort, merge));
        assert_eq!(pool.reserved(), 0);
    }
}
