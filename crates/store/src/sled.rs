//! The store on disk, over sled 0.34.
//!
//! Batches are flushed before they are acknowledged. A process may die at any moment; what was acknowledged is there
//! when the folder is opened again, and a batch that was not is there whole or not at all.

use std::{
    fs,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error,
    behind::WriteBehind,
    folder::{Folder, failed},
    ledger::{Changes, Entries, Ledger, OrderedMap},
};

/// How much sled may keep in memory: a ledger is read little, so a small part of sled's default of 1 GiB.
const CACHE_BYTES: u64 = 64 << 20;

/// How long sled's file may be held by what is left of this process's own past; it is gone within milliseconds.
const LOCKED_MAX: Duration = Duration::from_secs(5);

/// How often to look whether it still is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a command waits for the process that owns a folder.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(5);

/// A store in a folder, which this process owns.
pub type SledStore = Ledger<SledMap>;

/// The cache of a log elsewhere in a folder, which this process owns; a crash may take what it took in last.
pub type SledCache = Ledger<WriteBehind<SledMap>>;

/// An ordered map in a sled tree.
#[derive(Debug)]
pub struct SledMap {
    // Before the folder: sled must be closed while the lock is still held.
    tree: sled::Db,
    failed: AtomicBool,
    folder: Folder,
}

// === impl SledStore, SledCache ===

impl SledStore {
    /// Opens the store in a folder, which is made if it is not there; waits at most `wait` (see [`WAIT_DEFAULT`]) for
    /// a process that owns it.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Foreign`], [`Error::Format`], [`Error::Damaged`], or what the system says.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, Error> {
        Ok(Self::new(SledMap::open(path, wait)?))
    }
}

impl SledCache {
    /// Opens the cache in a folder as [`SledStore::open`] does; what the one wrote the other reads.
    ///
    /// # Errors
    /// As [`SledStore::open`].
    pub fn open(path: &Path, wait: Duration) -> Result<Self, Error> {
        let map = WriteBehind::new(SledMap::open(path, wait)?).map_err(failed("start a thread for", path))?;
        Ok(Self::new(map))
    }
}

// === impl SledMap ===

impl SledMap {
    fn open(path: &Path, wait: Duration) -> Result<Self, Error> {
        let folder = Folder::open(path, wait)?;
        remove_unfinished_snapshots(&folder.ledger())?;
        let config = sled::Config::new().path(folder.ledger()).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        // Sled panics on some kinds of damage, and names them only in its message.
        let open = || catch_unwind(AssertUnwindSafe(|| config.open()));
        let (begun, mut opened) = (Instant::now(), open());
        while matches!(&opened, Ok(Err(error)) if is_locked(error)) && begun.elapsed() < LOCKED_MAX {
            thread::sleep(LOOK_EVERY);
            opened = open();
        }
        let tree = match opened {
            Ok(Ok(tree)) => tree,
            Ok(Err(sled::Error::Io(source))) => return Err(failed("open", &folder.ledger())(source)),
            Ok(Err(error)) => {
                tracing::error!(%error, "the database cannot be opened");
                return Err(Error::Damaged { path: folder.path().into() });
            }
            Err(_) => return Err(Error::Damaged { path: folder.path().into() }),
        };
        Ok(Self { tree, failed: AtomicBool::new(false), folder })
    }
}

/// Tells whether sled could not lock its file. The folder is ours, so nobody holds it but a thread of an instance that this
/// process has just closed, or a child that it is about to start.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock"))
}

/// Removes snapshots of the log that a process did not finish, as it was killed or found no room: sled 0.34 takes them for
/// the newest, and its whole database for damaged. The log and the snapshot before have all that they would have had.
fn remove_unfinished_snapshots(ledger: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(ledger) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", ledger)(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("read", ledger))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

impl SledMap {
    /// Runs a call of sled's; after a panic inside it, every further one is refused.
    fn guard<T>(&self, operation: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            // The system's own words say more than sled's about them.
            Ok(Err(sled::Error::Io(source))) => Err(failed(operation, &self.folder.ledger())(source)),
            Ok(Err(source)) => Err(Error::Database { operation, source }),
            Err(_) => {
                self.failed.store(true, Ordering::Release);
                Err(Error::Poisoned)
            }
        }
    }
}

impl SledMap {
    /// Refuses everything after a failed write: memory may be ahead of the disk then, and only a new opening tells.
    fn or_stop(&self, written: Result<(), Error>) -> Result<(), Error> {
        if written.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        written
    }
}

impl OrderedMap for SledMap {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.guard("read", || self.tree.get(key))?.map(|value| value.to_vec()))
    }

    fn range(&self, first: &[u8], end: &[u8], descending: bool, limit: usize) -> Result<Entries, Error> {
        self.guard("read", || {
            let range = self.tree.range(first..end);
            let owned = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
                entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            if descending {
                range.rev().map(owned).take(limit).collect()
            } else {
                range.map(owned).take(limit).collect()
            }
        })
    }

    fn apply(&self, batch: Changes) -> Result<(), Error> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.or_stop(self.guard("write", || self.tree.apply_batch(changes)))
    }

    fn flush(&self) -> Result<(), Error> {
        self.or_stop(self.guard("flush", || self.tree.flush().map(|_| ())))
    }
}
