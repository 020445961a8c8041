//! An ordered map that is written behind: batches are there for readers at once, and go to the map below many at a time.
//!
//! For a ledger that is a cache of a log elsewhere, where nothing is lost with what did not reach the disk. Sled writes to
//! its file twice for each batch, and most of what a request changes is changed again within a second.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Bound,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use itertools::{EitherOrBoth, Itertools};

use crate::{
    Error,
    ledger::{Changes, Entries, OrderedMap},
};

/// How long changes wait for others before they go below.
const WRITE_AFTER: Duration = Duration::from_millis(200);

/// How many bytes of changes wait for no others.
const WRITE_BYTES: usize = 1 << 20;

/// How many bytes of changes may wait; whoever has more waits as well.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// An ordered map over another, which a thread of its own writes to.
///
/// All batches that wait go below as one, so what is found there after a crash is what some moment saw.
pub struct WriteBehind<M: OrderedMap> {
    shared: Arc<Shared<M>>,
    writer: Option<JoinHandle<()>>,
}

struct Shared<M> {
    below: M,
    ahead: RwLock<Ahead>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// What is not known to be below; the newer over the older.
#[derive(Default)]
struct Ahead {
    waiting: Changes,
    /// On their way.
    leaving: Arc<Changes>,
}

/// How far the thread is, counted in batches.
#[derive(Default)]
struct Progress {
    applied: u64,
    /// Up to which batch somebody waits for all to be below.
    wanted: u64,
    written: u64,
    waiting_bytes: usize,
    waiting_since: Option<Instant>,
    /// Why nothing goes below any more; taken by the first who asks.
    failure: Option<Error>,
    failed: bool,
    ends: bool,
}

// === impl WriteBehind ===

impl<M: OrderedMap + 'static> WriteBehind<M> {
    /// Makes a map over another.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub fn new(below: M) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { below, ahead: RwLock::default(), progress: Mutex::default(), changed: Condvar::new() });
        let writing = shared.clone();
        let writer = thread::Builder::new().name("store-writer".into()).spawn(move || writing.write_until_end())?;
        Ok(Self { shared, writer: Some(writer) })
    }
}

impl<M: OrderedMap> Drop for WriteBehind<M> {
    fn drop(&mut self) {
        self.shared.progress().ends = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // It has said what went wrong.
            let _ = writer.join();
        }
    }
}

impl<M: OrderedMap> OrderedMap for WriteBehind<M> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        {
            let ahead = self.shared.ahead();
            if let Some(value) = ahead.waiting.get(key).or_else(|| ahead.leaving.get(key)) {
                return Ok(value.clone());
            }
        }
        self.shared.below.get(key)
    }

    fn range(&self, first: &[u8], end: &[u8], descending: bool, limit: usize) -> Result<Entries, Error> {
        if first >= end {
            return Ok(Vec::new());
        }
        // Held, so that nothing goes below in between and is missed or seen twice.
        let ahead = self.shared.ahead();
        let bounds = (Bound::Included(first), Bound::Excluded(end));
        let changes = || ahead.leaving.range::<[u8], _>(bounds).chain(ahead.waiting.range::<[u8], _>(bounds));
        let removed = changes().filter(|(_, value)| value.is_none()).count();
        let below = self.shared.below.range(first, end, descending, limit.saturating_add(removed))?;
        let newest: BTreeMap<&Vec<u8>, &Option<Vec<u8>>> = changes().collect();
        let newest: Box<dyn Iterator<Item = _>> =
            if descending { Box::new(newest.into_iter().rev()) } else { Box::new(newest.into_iter()) };
        let in_order = |(below, _): &(Vec<u8>, Vec<u8>), (ahead, _): &(&Vec<u8>, &Option<Vec<u8>>)| {
            if descending { (*ahead).cmp(below) } else { below.cmp(ahead) }
        };
        let merged = below.into_iter().merge_join_by(newest, in_order);
        let entries = merged.filter_map(|either| match either {
            EitherOrBoth::Left(entry) => Some(entry),
            EitherOrBoth::Both(_, (key, value)) | EitherOrBoth::Right((key, value)) => {
                value.as_ref().map(|value| (key.clone(), value.clone()))
            }
        });
        Ok(entries.take(limit).collect())
    }

    fn apply(&self, batch: Changes) -> Result<(), Error> {
        let bytes: usize = batch.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        let mut progress = self.shared.progress();
        while progress.waiting_bytes >= WAITING_BYTES_MAX && !progress.failed {
            progress = self.shared.wait(progress);
        }
        progress.check()?;
        // Counted and there for readers in one step, so that whoever flushes afterwards waits for it.
        self.shared.ahead_mut().waiting.extend(batch);
        progress.applied += 1;
        progress.waiting_bytes += bytes;
        let is_first = progress.waiting_since.is_none();
        progress.waiting_since.get_or_insert_with(Instant::now);
        let is_much = progress.waiting_bytes >= WRITE_BYTES && progress.waiting_bytes - bytes < WRITE_BYTES;
        drop(progress);
        if is_first || is_much {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut progress = self.shared.progress();
        let applied = progress.applied;
        progress.wanted = progress.wanted.max(applied);
        self.shared.changed.notify_all();
        while progress.written < applied && !progress.failed {
            progress = self.shared.wait(progress);
        }
        progress.check()?;
        drop(progress);
        self.shared.below.flush()
    }
}

impl<M: OrderedMap> fmt::Debug for WriteBehind<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WriteBehind").field(&self.shared.below).finish()
    }
}

// === impl Shared ===

impl<M: OrderedMap> Shared<M> {
    /// Takes what waits below, again and again; what waits at the end, too.
    fn write_until_end(&self) {
        while let Some(up_to) = self.next() {
            let leaving = self.ahead().leaving.clone();
            let written = self.below.apply(Changes::clone(&leaving));
            let mut progress = self.progress();
            match written {
                Ok(()) => {
                    progress.written = up_to;
                    self.ahead_mut().leaving = Arc::default();
                }
                // It stays ahead: who reads still finds it, and nobody can write any more.
                Err(error) => (progress.failure, progress.failed) = (Some(error), true),
            }
            drop(progress);
            self.changed.notify_all();
        }
    }

    /// Waits until changes are to go, and makes them those that leave; returns up to which batch that is.
    fn next(&self) -> Option<u64> {
        let mut progress = self.progress();
        loop {
            if progress.failed {
                return None;
            }
            let waited = progress.waiting_since.map(|since| since.elapsed());
            progress = match waited {
                None if progress.ends => return None,
                None => self.wait(progress),
                Some(waited) if progress.is_due(waited) => {
                    progress.waiting_bytes = 0;
                    progress.waiting_since = None;
                    let mut ahead = self.ahead_mut();
                    ahead.leaving = Arc::new(std::mem::take(&mut ahead.waiting));
                    return Some(progress.applied);
                }
                Some(waited) => {
                    let left = WRITE_AFTER.saturating_sub(waited);
                    self.changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn wait<'a>(&self, progress: MutexGuard<'a, Progress>) -> MutexGuard<'a, Progress> {
        self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> RwLockReadGuard<'_, Ahead> {
        self.ahead.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead_mut(&self) -> RwLockWriteGuard<'_, Ahead> {
        self.ahead.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Progress ===

impl Progress {
    /// Tells whether what has waited so long is to go below.
    fn is_due(&self, waited: Duration) -> bool {
        self.ends || self.wanted > self.written || self.waiting_bytes >= WRITE_BYTES || waited >= WRITE_AFTER
    }

    /// Returns what went wrong, if anything did.
    fn check(&mut self) -> Result<(), Error> {
        match (self.failed, self.failure.take()) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::Poisoned),
            (false, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::WriteBehind;
    use crate::{
        Error, conformance,
        ledger::{Changes, Entries, Ledger, OrderedMap},
        memory::MemoryMap,
    };

    fn put(map: &impl OrderedMap, changes: &[(&str, Option<&str>)]) {
        let owned = |(key, value): &(&str, Option<&str>)| (key.as_bytes().to_vec(), value.map(|it| it.into()));
        map.apply(changes.iter().map(owned).collect()).unwrap();
    }

    fn keys(map: &impl OrderedMap, descending: bool, limit: usize) -> Vec<String> {
        let entries = map.range(b"a", b"y", descending, limit).unwrap();
        entries.into_iter().map(|(key, value)| String::from_utf8([key, value].concat()).unwrap()).collect()
    }

    #[test]
    fn it_conforms() {
        conformance::check(|| Ledger::new(WriteBehind::new(MemoryMap::default()).unwrap()));
    }

    #[test]
    fn what_waits_is_over_what_is_below() {
        let map = WriteBehind::new(MemoryMap::default()).unwrap();
        put(&map, &[("a", Some("1")), ("b", Some("1")), ("d", Some("1")), ("z", Some("1"))]);
        map.flush().unwrap();
        assert_eq!(map.shared.below.get(b"a").unwrap(), Some(b"1".to_vec()));
        put(&map, &[("a", None), ("b", Some("2")), ("c", Some("2")), ("x", None)]);
        assert_eq!(map.get(b"a").unwrap(), None);
        assert_eq!(map.get(b"b").unwrap(), Some(b"2".to_vec()));
        assert_eq!(map.get(b"d").unwrap(), Some(b"1".to_vec()));
        assert_eq!(keys(&map, false, 9), ["b2", "c2", "d1"]);
        assert_eq!(keys(&map, false, 1), ["b2"]);
        assert_eq!(keys(&map, true, 2), ["d1", "c2"]);
        assert_eq!(map.range(b"y", b"a", false, 9).unwrap(), []);
    }

    #[test]
    fn what_waits_at_the_end_goes_below() {
        let below = std::sync::Arc::new(Failing::default());
        let map = WriteBehind::new(below.clone()).unwrap();
        put(&map, &[("a", Some("1"))]);
        drop(map);
        assert_eq!(below.map.get(b"a").unwrap(), Some(b"1".to_vec()));
    }

    #[test]
    fn a_failure_is_told_and_everything_after_it_refused() {
        let below = std::sync::Arc::new(Failing::default());
        let map = WriteBehind::new(below.clone()).unwrap();
        below.fails.store(true, Ordering::Relaxed);
        put(&map, &[("a", Some("1"))]);
        assert!(matches!(map.flush(), Err(Error::Misuse { what: "full" })));
        assert!(matches!(map.apply(Changes::new()), Err(Error::Poisoned)));
        assert!(matches!(map.flush(), Err(Error::Poisoned)));
    }

    /// A map that takes nothing when it is told so.
    #[derive(Debug, Default)]
    struct Failing {
        map: MemoryMap,
        fails: AtomicBool,
    }

    impl OrderedMap for std::sync::Arc<Failing> {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.map.get(key)
        }

        fn range(&self, first: &[u8], end: &[u8], descending: bool, limit: usize) -> Result<Entries, Error> {
            self.map.range(first, end, descending, limit)
        }

        fn apply(&self, batch: Changes) -> Result<(), Error> {
            if self.fails.load(Ordering::Relaxed) { Err(Error::Misuse { what: "full" }) } else { self.map.apply(batch) }
        }

        fn flush(&self) -> Result<(), Error> {
            self.map.flush()
        }
    }
}
