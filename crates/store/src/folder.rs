//! The store's folder: whose it is, who uses it now, and in which format it is written.
//!
//! | name | content |
//! |---|---|
//! | `lock` | nothing; the process that owns the folder holds a lock on it, which the system lets go when it dies |
//! | `format` | one line, the format's name and version |
//! | `ledger/` | sled's files |
//!
//! | `staging/`, `quarantine/` | what runs keep, unless the settings say elsewhere |
//!
//! A task may still write to the last two after a disk was lost, before the new one has anything else.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// The content of `format`.
pub(crate) const FORMAT: &str = "dagwright-store 1\n";

const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";
const FORMAT_FILE_NEW: &str = "format.new";
const LEDGER_FOLDER: &str = "ledger";

/// What runs keep beside the ledger.
const OF_RUNS: [&str; 2] = ["staging", "quarantine"];

/// How long a waiting process looks away; short against the 5 s a command waits, long against the cost of a look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A store's folder, owned by this process until dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

// === impl Folder ===

impl Folder {
    /// Makes the folder unless it is there, and becomes its owner, waiting at most `wait` for the present one.
    pub(crate) fn open(path: &Path, wait: Duration) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        // Before the first write: a folder of someone else's stays as it is.
        if !is_ours_or_empty(path)? {
            return Err(Error::Foreign { path: path.into() });
        }
        let lock = lock(path, wait)?;
        let format = path.join(FORMAT_FILE);
        match fs::read(&format) {
            Ok(found) if found == FORMAT.as_bytes() => {}
            Ok(_) => return Err(Error::Format { path: path.into() }),
            Err(error) if error.kind() == ErrorKind::NotFound => write_format(path)?,
            Err(source) => return Err(failed("read", &format)(source)),
        }
        Ok(Self { path: path.into(), _lock: lock })
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER_FOLDER)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Ours says its format, or was left by a process that died before it could; or there is nothing but what runs keep.
fn is_ours_or_empty(path: &Path) -> Result<bool, Error> {
    if path.join(FORMAT_FILE).exists() || path.join(LOCK_FILE).exists() {
        return Ok(true);
    }
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let name = entry.map_err(failed("list", path))?.file_name();
        if !OF_RUNS.iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(path: &Path, wait: Duration) -> Result<File, Error> {
    let file = path.join(LOCK_FILE);
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
    let lock = open.map_err(failed("open", &file))?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if begun.elapsed() < wait => thread::sleep(LOOK_EVERY),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.into(), waited: wait }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &file)(source)),
        }
    }
}

/// Writes the format so that it is there whole or not at all.
fn write_format(path: &Path) -> Result<(), Error> {
    if path.join(LEDGER_FOLDER).exists() {
        // The format comes first, so a ledger without one is not ours.
        return Err(Error::Foreign { path: path.into() });
    }
    let new = path.join(FORMAT_FILE_NEW);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(FORMAT.as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed("write", &new))?;
    let format = path.join(FORMAT_FILE);
    fs::rename(&new, &format).map_err(failed("write", &format))?;
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("flush", path))
}

pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { operation, path, source }
}
