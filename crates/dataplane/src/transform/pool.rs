//! The memory of a frugal session: what can spill leaves room for what cannot.
//!
//! Operators that spill share one half evenly, as in DataFusion's fair pool. There they may together take all of it, and
//! then nothing is left for merging what they spilled; here the other half is for that. A merge takes as many files at
//! once as it gets memory for, and would starve the next one; so merges share their half evenly too.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use datafusion::{
    common::resources_err,
    error::Result,
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

/// What DataFusion calls the merge of a sort.
const MERGE: &str = "ExternalSorterMerge";

/// A pool of which at most half is held by what can spill.
#[derive(Debug)]
pub(super) struct FrugalPool {
    bytes: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    spillers: usize,
    merges: usize,
    by_spillers: usize,
    by_others: usize,
}

// === impl FrugalPool ===

impl FrugalPool {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, held: Mutex::default() }
    }

    fn held<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Display for FrugalPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frugal({} bytes)", self.bytes)
    }
}

impl MemoryPool for FrugalPool {
    fn name(&self) -> &'static str {
        "frugal"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.held(|held| {
            held.spillers += usize::from(consumer.can_spill());
            held.merges += usize::from(consumer.name().starts_with(MERGE));
        });
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.held(|held| {
            held.spillers -= usize::from(consumer.can_spill());
            held.merges -= usize::from(consumer.name().starts_with(MERGE));
        });
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held(|held| *held.of(reservation) += additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.held(|held| *held.of(reservation) -= shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.held(|held| {
            let free = self.bytes.saturating_sub(held.by_spillers + held.by_others);
            let consumer = reservation.consumer();
            let share = match (consumer.can_spill(), consumer.name().starts_with(MERGE)) {
                (true, _) => self.bytes / 2 / held.spillers.max(1),
                (false, true) => self.bytes / 2 / held.merges.max(1),
                (false, false) => self.bytes,
            };
            let available = free.min(share.saturating_sub(reservation.size()));
            if additional > available {
                let name = reservation.consumer().name();
                return resources_err!("{name} asks for {additional} bytes more, {available} are left of {self}");
            }
            *held.of(reservation) += additional;
            Ok(())
        })
    }

    fn reserved(&self) -> usize {
        self.held(|held| held.by_spillers + held.by_others)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

// === impl Held ===

impl Held {
    fn of(&mut self, reservation: &MemoryReservation) -> &mut usize {
        if reservation.consumer().can_spill() { &mut self.by_spillers } else { &mut self.by_others }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool};

    use super::{FrugalPool, MERGE};

    #[test]
    fn spillers_share_a_half_and_leave_the_rest() {
        let pool: Arc<dyn MemoryPool> = Arc::new(FrugalPool::new(1000));
        let spiller = || MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        let first = spiller();
        assert!(first.try_grow(500).is_ok() && first.try_grow(1).is_err());
        let second = spiller();
        assert!(second.try_grow(251).is_err() && second.try_grow(250).is_ok());
        let merge = MemoryConsumer::new("merge").register(&pool);
        assert!(merge.try_grow(251).is_err() && merge.try_grow(250).is_ok());
        assert_eq!(pool.reserved(), 1000);
        first.free();
        assert!(merge.try_grow(400).is_ok());
        // Merges share as well.
        let merges = [0, 1].map(|number| MemoryConsumer::new(format!("{MERGE}[{number}]")).register(&pool));
        merge.free();
        assert!(merges[0].try_grow(251).is_err() && merges.iter().all(|merge| merge.try_grow(250).is_ok()));
        drop((first, second, merge, merges));
        assert_eq!(pool.reserved(), 0);
        assert!(spiller().try_grow(500).is_ok());
    }
}
