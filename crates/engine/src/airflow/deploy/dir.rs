//! An open folder, in which single names are read and written.
//!
//! Names are looked up within the folder that was opened, whatever its path means by then, and no link is ever followed:
//! what stands behind one is [`Found::Other`]. Whatever reads or changes files is a step of [`Steps`], so that tests can
//! end the process's luck at each of them.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    dir,
    errno::Errno,
    fcntl::{self, AtFlags, OFlag},
    sys::{
        stat::{self, FileStat, Mode, SFlag, UtimensatFlags},
        time::TimeSpec,
    },
    unistd::{self, UnlinkatFlags},
};

use super::{Error, Found};

/// The file that processes lock in turn.
const LOCK: &str = ".dagwright.lock";

/// What files that are not whole yet are called, and folders; Airflow takes neither for DAGs.
const TEMPORARY_START: &str = ".dagwright-";
const TEMPORARY_END: &str = ".tmp";

/// How long a waiting process looks away.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The largest file that is read: far more than any plan, and less than would trouble the daemon.
const FILE_BYTES_MAX: u64 = 256 << 20;

const CHUNK_BYTES: usize = 64 << 10;

/// How deep a folder to be removed may nest; snapshots do not.
const DEPTH_MAX: usize = 16;

/// An open folder.
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    steps: Steps,
}

/// A lock on a destination, held until dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing it lets the lock go")] File);

/// What tells whether a file was changed without our knowledge; hard links share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: i64,
    changed: (i64, i64),
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Other,
}

/// Where tests may let a change fail, or die.
#[derive(Clone, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) before: Option<std::sync::Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>>,
}

// === impl Dir ===

impl Dir {
    /// Opens a folder, and makes it where it is missing.
    pub(super) fn create(path: &Path, steps: &Steps) -> Result<Self, Error> {
        if !path.is_dir() {
            steps.take("create").and_then(|()| fs::create_dir_all(path)).map_err(failed("create", path))?;
        }
        Self::open(path, steps)?.ok_or_else(|| failed("open", path)(io::ErrorKind::NotFound.into()))
    }

    /// Opens a folder, or returns `None` where there is none. The path itself is the operator's, and may be a link.
    pub(super) fn open(path: &Path, steps: &Steps) -> Result<Option<Self>, Error> {
        match fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.into(), steps: steps.clone() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed("open", path)(errno.into())),
        }
    }

    /// Opens a folder in this one, or returns `None` where there is none.
    pub(super) fn child(&self, name: &str) -> Result<Option<Self>, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match fcntl::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name), steps: self.steps.clone() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Error::NotOurs { path: self.path.join(name) }),
            Err(errno) => Err(self.failed("open", name)(errno.into())),
        }
    }

    /// Makes a folder in this one.
    pub(super) fn make_child(&self, name: &str) -> Result<Self, Error> {
        let made = self.steps.take("create").and_then(|()| {
            let mode = Mode::from_bits_truncate(0o755);
            stat::mkdirat(&self.fd, name, mode).map_err(Into::into)
        });
        made.map_err(self.failed("create", name))?;
        self.child(name)?.ok_or_else(|| self.failed("open", name)(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is in the folder, in no order.
    pub(super) fn entries(&self) -> Result<Vec<(OsString, Kind)>, Error> {
        // Opened anew, as reading moves a position that copies of a descriptor share.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let list = || -> nix::Result<Vec<(OsString, Kind)>> {
            let mut entries = Vec::new();
            for entry in dir::Dir::openat(&self.fd, ".", flags, Mode::empty())?.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let kind = match entry.file_type() {
                    Some(dir::Type::File) => Kind::File,
                    Some(dir::Type::Directory) => Kind::Folder,
                    Some(_) => Kind::Other,
                    // Some file systems do not tell; what went away meanwhile is nothing either.
                    None => match stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                        Ok(found) => kind(&found),
                        Err(Errno::ENOENT) => continue,
                        Err(errno) => return Err(errno),
                    },
                };
                entries.push((OsString::from_vec(name.to_bytes().to_vec()), kind));
            }
            Ok(entries)
        };
        list().map_err(|errno| failed("list", &self.path)(errno.into()))
    }

    /// Returns the names of the regular files, as far as they are text.
    pub(super) fn files(&self) -> Result<Vec<String>, Error> {
        let files = self.entries()?.into_iter().filter(|(_, kind)| *kind == Kind::File);
        Ok(files.filter_map(|(name, _)| name.into_string().ok()).collect())
    }

    /// Reads a file.
    pub(super) fn read(&self, name: &str) -> Result<Found, Error> {
        self.read_stamped(name).map(|found| found.map_or_else(|found| found, |(bytes, _)| Found::File(bytes)))
    }

    /// Reads a file, and what it is known by; or says what is there instead.
    pub(super) fn read_stamped(&self, name: &str) -> Result<Result<(Vec<u8>, Stamp), Found>, Error> {
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match fcntl::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(Err(Found::Absent)),
            // A link; a socket or a device without a driver.
            Err(Errno::ELOOP | Errno::ENXIO) => return Ok(Err(Found::Other)),
            Err(errno) => return Err(self.failed("read", name)(errno.into())),
        };
        let read = || -> io::Result<Option<(Vec<u8>, Stamp)>> {
            self.steps.take("read")?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Ok(None);
            }
            let mut bytes = Vec::new();
            (&file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(Some((bytes, Stamp::of(&stat::fstat(&file)?))))
        };
        Ok(read().map_err(self.failed("read", name))?.ok_or(Found::Other))
    }

    /// Returns what a regular file is known by, or `None` where there is none.
    pub(super) fn stamp(&self, name: &str) -> Result<Option<Stamp>, Error> {
        Ok(self.stat(name)?.filter(|found| kind(found) == Kind::File).map(|found| Stamp::of(&found)))
    }

    /// Returns when an entry was last changed, or `None` where there is none.
    pub(super) fn changed_at(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        Ok(self.stat(name)?.map(|found| {
            let seconds = Duration::from_secs(u64::try_from(found.st_mtime).unwrap_or(0));
            UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(found.st_mtime_nsec).unwrap_or(0))
        }))
    }

    /// Writes a file that is not there yet to the disk.
    pub(super) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<Stamp, Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let write = || -> io::Result<Stamp> {
            self.steps.take("create")?;
            let mut file = File::from(fcntl::openat(&self.fd, name, flags, Mode::from_bits_truncate(0o644))?);
            for chunk in bytes.chunks(CHUNK_BYTES) {
                self.steps.take("write")?;
                file.write_all(chunk)?;
            }
            self.steps.take("flush")?;
            file.sync_all()?;
            Ok(Stamp::of(&stat::fstat(&file)?))
        };
        write().map_err(self.failed("write", name))
    }

    /// Gives an entry another name, in place of what has it; folders only replace what is not there.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = self.steps.take("rename");
        renamed.and_then(|()| Ok(fcntl::renameat(&self.fd, from, &self.fd, to)?)).map_err(self.failed("write", to))
    }

    /// Gives a file a second name in another folder, which shares its content.
    pub(super) fn link(&self, name: &str, folder: &Self) -> Result<(), Error> {
        let linked = self.steps.take("link");
        let flags = AtFlags::empty();
        linked
            .and_then(|()| Ok(unistd::linkat(&self.fd, name, &folder.fd, name, flags)?))
            .map_err(folder.failed("link", name))
    }

    /// Removes a file; that there is none is fine.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes a folder with what is in it; that there is none is fine.
    pub(super) fn remove_tree(&self, name: &str) -> Result<(), Error> {
        self.remove_nested(name, DEPTH_MAX)
    }

    /// Sets the time at which an entry was last changed to now; that there is none is fine.
    pub(super) fn touch(&self, name: &str) -> Result<(), Error> {
        let touched = self.steps.take("touch").and_then(|()| {
            let now = TimeSpec::UTIME_NOW;
            match stat::utimensat(&self.fd, name, &now, &now, UtimensatFlags::NoFollowSymlink) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        });
        touched.map_err(self.failed("change", name))
    }

    /// Dates a file at least a second later than another one, where there is one.
    pub(super) fn date_after(&self, name: &str, earlier: &str) -> Result<(), Error> {
        let (Some(own), Some(earlier)) = (self.stat(name)?, self.stat(earlier)?) else { return Ok(()) };
        if own.st_mtime > earlier.st_mtime {
            return Ok(());
        }
        let dated = self.steps.take("date").and_then(|()| {
            let later = TimeSpec::new(earlier.st_mtime.saturating_add(1), 0);
            Ok(stat::utimensat(&self.fd, name, &TimeSpec::UTIME_OMIT, &later, UtimensatFlags::NoFollowSymlink)?)
        });
        dated.map_err(self.failed("change", name))
    }

    /// Makes sure that names which were made, changed or removed stay so.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let synced = self.steps.take("flush");
        synced.and_then(|()| Ok(unistd::fsync(&self.fd)?)).map_err(failed("flush", &self.path))
    }

    /// Removes what was not whole when a process died. The destination must be locked.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        for (name, kind) in self.entries()? {
            let Some(name) = name.to_str().filter(|name| is_temporary(name)) else { continue };
            match kind {
                Kind::Folder => self.remove_tree(name)?,
                Kind::File | Kind::Other => self.remove(name)?,
            }
        }
        Ok(())
    }

    /// Waits at most `wait` until no other process has the lock, and takes it.
    pub(super) fn lock(&self, wait: Duration) -> Result<Lock, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = fcntl::openat(&self.fd, LOCK, flags, Mode::from_bits_truncate(0o644));
        let file = opened.map(File::from).map_err(|errno| self.failed("open", LOCK)(errno.into()))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < wait => thread::sleep(LOOK_EVERY),
                Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: self.path.clone(), waited: wait }),
                Err(TryLockError::Error(source)) => return Err(self.failed("lock", LOCK)(source)),
            }
        }
    }

    fn stat(&self, name: &str) -> Result<Option<FileStat>, Error> {
        match stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.failed("read", name)(errno.into())),
        }
    }

    fn remove_nested(&self, name: &str, depth: usize) -> Result<(), Error> {
        let Some(folder) = self.child(name)? else { return Ok(()) };
        for (inner, kind) in folder.entries()? {
            let Some(inner) = inner.to_str() else { return Err(Error::NotOurs { path: folder.path.join(inner) }) };
            match kind {
                Kind::Folder if depth == 0 => return Err(Error::NotOurs { path: folder.path.join(inner) }),
                Kind::Folder => folder.remove_nested(inner, depth - 1)?,
                Kind::File | Kind::Other => folder.remove(inner)?,
            }
        }
        self.unlink(name, UnlinkatFlags::RemoveDir)
    }

    fn unlink(&self, name: &str, flag: UnlinkatFlags) -> Result<(), Error> {
        let removed = self.steps.take("remove").and_then(|()| match unistd::unlinkat(&self.fd, name, flag) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        });
        removed.map_err(self.failed("remove", name))
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        failed(action, &self.path.join(name))
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dir").field(&self.path).finish()
    }
}

// === impl Stamp ===

impl Stamp {
    // The time of change of the inode would be better, but linking changes it.
    fn of(found: &FileStat) -> Self {
        Self { inode: found.st_ino, bytes: found.st_size, changed: (found.st_mtime, found.st_mtime_nsec) }
    }
}

// === impl Steps ===

impl Steps {
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests let it fail"))]
    pub(super) fn take(&self, _what: &'static str) -> io::Result<()> {
        #[cfg(test)]
        if let Some(before) = &self.before {
            return before(_what);
        }
        Ok(())
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps")
    }
}

/// Returns the name of a file or folder that is not whole yet. Only the holder of the lock makes such.
pub(super) fn temporary(number: usize) -> String {
    format!("{TEMPORARY_START}{number}{TEMPORARY_END}")
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_START) && name.ends_with(TEMPORARY_END)
}

fn kind(found: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Folder,
        _ => Kind::Other,
    }
}
