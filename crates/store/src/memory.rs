//! A store that ends with the process: for tests, and for commands that are to leave nothing behind.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    Error,
    ledger::{Changes, Entries, Ledger, OrderedMap},
};

/// A store in memory.
pub type MemoryStore = Ledger<MemoryMap>;

/// An ordered map in memory.
#[derive(Debug, Default)]
pub struct MemoryMap(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

// === impl MemoryStore ===

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryMap::default())
    }
}

// === impl MemoryMap ===

impl OrderedMap for MemoryMap {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn range(&self, first: &[u8], end: &[u8], descending: bool, limit: usize) -> Result<Entries, Error> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entries = map.range(first.to_vec()..end.to_vec()).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if descending { entries.rev().take(limit).collect() } else { entries.take(limit).collect() })
    }

    fn apply(&self, batch: Changes) -> Result<(), Error> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}
