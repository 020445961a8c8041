//! The versioned bundle of `dagwright-airflow`: snapshots named by their content, so that a run stays on the version it
//! started with.
//!
//! | path | holds |
//! |---|---|
//! | `<root>/<version>/` | a snapshot; never changes |
//! | `<root>/CURRENT` | one line: the version that is shown |
//! | `<root>/.dagwright.lock` | nothing; whoever writes holds a lock on it |
//! | `<root>/.dagwright-<n>.tmp` | what was not whole when a process died; removed by the next change |
//!
//! A version is the SHA-256 of a text with a line `<SHA-256>  <name>` for each file, sorted by name as bytes. A snapshot
//! is made beside, as hard links to those files of the one before that stay, and renamed; then `CURRENT` is. So all of a
//! change is seen at once, or nothing. In a snapshot are only plans that something names: runs of earlier versions have
//! theirs in the snapshots of these.
//!
//! What a process has read it does not hash again while a file's inode, length and time of change are what they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dagwright_compiler::file_name;
use dagwright_model::canonical;

use super::{
    Change, Destination, Error, Found, LOCK_WAIT, Leftover, Placed, View,
    dir::{Dir, Kind, Stamp, Steps, temporary},
    files::{self, Edits, Files},
};

const CURRENT: &str = "CURRENT";

/// The folder of Python's own leavings, which does not count.
const PYTHON_CACHE: &str = "__pycache__";

/// How many files a snapshot may have: what the reader takes.
const FILES_MAX: usize = 100_000;

/// Snapshots in a folder.
#[derive(Debug)]
pub struct Bundle {
    root: PathBuf,
    pub(super) steps: Steps,
    pub(super) lock_wait: Duration,
    /// The snapshot that was last read or made.
    known: Mutex<Option<Snapshot>>,
}

/// What is known of a snapshot.
#[derive(Clone, Debug)]
struct Snapshot {
    version: String,
    files: BTreeMap<String, Known>,
}

/// What is known of a file.
#[derive(Clone, Debug)]
struct Known {
    digest: String,
    stamp: Stamp,
}

/// A snapshot as those see it who draft a change.
struct Seen<'a> {
    snapshot: Option<&'a Snapshot>,
    folder: Option<&'a Dir>,
}

/// A file of a snapshot that is to be made.
enum Source<'a> {
    /// That of the one before.
    Kept(&'a Known),
    New(&'a [u8], String),
}

// === impl Bundle ===

impl Bundle {
    /// Uses the snapshots in `root`, which is made when it is first written to.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, steps: Steps::default(), lock_wait: LOCK_WAIT, known: Mutex::new(None) }
    }

    /// Returns the snapshot that is shown, read unless it is known.
    fn shown(&self, root: &Dir) -> Result<Option<Snapshot>, Error> {
        let Some(version) = current(root)? else { return Ok(None) };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known.filter(|known| known.version == version) {
            Some(known) => Ok(Some(known)),
            None => Ok(Some(Snapshot::read(root, &version)?)),
        }
    }

    /// Makes a snapshot of these files, unless it is there.
    fn make(
        &self,
        root: &Dir,
        from: Option<&Dir>,
        version: &str,
        sources: &BTreeMap<&str, Source<'_>>,
    ) -> Result<Snapshot, Error> {
        match Snapshot::read(root, version) {
            Ok(known) => return Ok(known),
            // It was changed, so runs cannot use it either.
            Err(Error::Damaged { .. }) if root.child(version)?.is_some() => {
                root.rename(version, &temporary(1))?;
                root.remove_tree(&temporary(1))?;
            }
            Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let folder = root.make_child(&temporary(0))?;
        let mut files = BTreeMap::new();
        for (name, source) in sources {
            let known = match (source, from) {
                (Source::New(bytes, digest), _) => {
                    Known { digest: digest.clone(), stamp: folder.write_new(name, bytes)? }
                }
                (Source::Kept(known), Some(from)) => keep(from, &folder, name, known)?,
                (Source::Kept(_), None) => return Err(Error::Damaged { path: root.path().join(version) }),
            };
            files.insert((*name).to_owned(), known);
        }
        folder.sync()?;
        root.rename(&temporary(0), version)?;
        root.sync()?;
        Ok(Snapshot { version: version.into(), files })
    }

    fn show(root: &Dir, before: Option<&str>, version: &str) -> Result<(), Error> {
        // Since then it is a leftover.
        if let Some(before) = before {
            root.touch(before)?;
        }
        root.write_new(&temporary(2), format!("{version}\n").as_bytes())?;
        root.rename(&temporary(2), CURRENT)?;
        root.sync()
    }

    fn update_locked(
        &self,
        root: &Dir,
        draft: &mut dyn FnMut(&dyn View) -> Result<Change, Error>,
    ) -> Result<Placed, Error> {
        let before = self.shown(root)?;
        let from = before.as_ref().map(|before| snapshot_folder(root, &before.version)).transpose()?;
        let seen = Seen { snapshot: before.as_ref(), folder: from.as_ref() };
        let change = draft(&seen).map_err(|error| error.below(from.as_ref().map_or(&self.root, Dir::path)))?;
        let files = &Files::of(&change)?;
        let look = |name: &str, wanted: Option<&[u8]>| match (before.as_ref().and_then(|it| it.files.get(name)), &from)
        {
            (Some(known), Some(from)) => {
                let same = wanted.is_some_and(|wanted| canonical::hash_bytes(wanted) == known.digest);
                if same { Ok(Found::Same) } else { read_known(from, name, known) }
            }
            _ => Ok(Found::Absent),
        };
        let shown = || from.as_ref().map_or(self.root.as_path(), Dir::path);
        let edits = files.edits(look).map_err(|error| error.below(shown()))?;
        let sources = sources(before.as_ref(), from.as_ref(), files, &edits)?;
        if sources.len() > FILES_MAX {
            return Err(Error::TooLarge { path: self.root.clone() });
        }
        let version = version_of(&sources);
        let shown = before.as_ref().map(|before| before.version.as_str());
        if shown == Some(version.as_str()) || shown.is_none() && sources.is_empty() {
            let version = shown.map(str::to_owned);
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = before;
            return Ok(Placed { changed: false, version });
        }
        let made = self.make(root, from.as_ref(), &version, &sources)?;
        Self::show(root, shown, &version)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(Placed { changed: true, version: Some(version) })
    }
}

impl Destination for Bundle {
    fn update(&self, draft: &mut dyn FnMut(&dyn View) -> Result<Change, Error>) -> Result<Placed, Error> {
        let root = Dir::create(&self.root, &self.steps)?;
        let _lock = root.lock(self.lock_wait)?;
        root.sweep()?;
        let placed = self.update_locked(&root, draft);
        if placed.is_err() {
            // What cannot be removed now is when something is put again.
            let _ = root.sweep();
        }
        placed
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let Some(root) = Dir::open(&self.root, &self.steps)? else { return Ok(Vec::new()) };
        let _lock = root.lock(self.lock_wait)?;
        let shown = current(&root)?;
        let mut leftovers = Vec::new();
        for (name, kind) in root.entries()? {
            let Some(name) = name.to_str().filter(|name| is_version(name) && Some(*name) != shown.as_deref()) else {
                continue;
            };
            if let (Kind::Folder, Some(since)) = (kind, root.changed_at(name)?) {
                leftovers.push(Leftover { name: name.into(), since });
            }
        }
        leftovers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(leftovers)
    }

    fn discard(&self, leftover: &Leftover) -> Result<(), Error> {
        let Some(root) = Dir::open(&self.root, &self.steps)? else { return Ok(()) };
        let _lock = root.lock(self.lock_wait)?;
        let is_shown = current(&root)?.as_deref() == Some(leftover.name.as_str());
        if is_shown || !is_version(&leftover.name) || root.child(&leftover.name)?.is_none() {
            return Ok(());
        }
        root.sweep()?;
        // A snapshot is there whole, or not.
        root.rename(&leftover.name, &temporary(0))?;
        root.remove_tree(&temporary(0))?;
        root.sync()
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Reads a snapshot, and checks that it is what its name says.
    fn read(root: &Dir, version: &str) -> Result<Self, Error> {
        let folder = snapshot_folder(root, version)?;
        let damaged = || Error::Damaged { path: folder.path().into() };
        let mut files = BTreeMap::new();
        for (name, kind) in folder.entries()? {
            if kind == Kind::Folder && name == PYTHON_CACHE {
                continue;
            }
            let name = name.into_string().map_err(|_| damaged())?;
            let Ok((bytes, stamp)) = folder.read_stamped(&name)? else { return Err(damaged()) };
            files.insert(name, Known { digest: canonical::hash_bytes(&bytes), stamp });
        }
        let found = version_of_lines(files.iter().map(|(name, known)| (name.as_str(), known.digest.as_str())));
        if found != version {
            return Err(damaged());
        }
        Ok(Self { version: version.into(), files })
    }
}

// === impl Seen ===

impl View for Seen<'_> {
    fn names(&self) -> Result<BTreeSet<String>, Error> {
        Ok(self.snapshot.iter().flat_map(|snapshot| snapshot.files.keys().cloned()).collect())
    }

    fn read(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, Found>, Error> {
        let read = |name: String| {
            let found = match (self.snapshot.and_then(|snapshot| snapshot.files.get(&name)), self.folder) {
                (Some(known), Some(folder)) => read_known(folder, &name, known)?,
                _ => Found::Absent,
            };
            Ok((name, found))
        };
        names.into_iter().map(read).collect()
    }
}

/// Returns what the snapshot after these edits is made of.
fn sources<'a>(
    before: Option<&'a Snapshot>,
    from: Option<&Dir>,
    files: &Files<'_>,
    edits: &Edits<'a>,
) -> Result<BTreeMap<&'a str, Source<'a>>, Error> {
    let mut sources = BTreeMap::new();
    for (name, known) in before.iter().flat_map(|before| &before.files) {
        sources.insert(name.as_str(), Source::Kept(known));
    }
    for (_, name, bytes) in &edits.write {
        sources.insert(*name, Source::New(bytes, canonical::hash_bytes(bytes)));
    }
    for name in &edits.remove {
        sources.remove(*name);
    }
    // Of the plans of these DAGs those stay that the change has, or that a file of all DAGs names.
    let of_change = |name: &str| {
        let stem = file_name::plan_file_parts(name).map(|(stem, _)| stem);
        stem.is_some_and(|stem| files.has_stem(stem)) && !files.wants(name) || edits.dropped.contains(name)
    };
    let unwanted: Vec<&str> = sources.keys().copied().filter(|name| of_change(name)).collect();
    let mut texts = BTreeMap::new();
    for name in files::referrers(sources.keys().copied().filter(|name| files::is_common(name) || of_change(name))) {
        let text = match (sources.get(name.as_str()), from) {
            (Some(Source::New(bytes, _)), _) => Found::File(bytes.to_vec()),
            (Some(Source::Kept(known)), Some(from)) => read_known(from, &name, known)?,
            _ => Found::Absent,
        };
        texts.insert(name, text);
    }
    for name in files::unnamed(unwanted, &texts) {
        sources.remove(name);
    }
    Ok(sources)
}

/// Takes a file of a snapshot over into another.
fn keep(from: &Dir, folder: &Dir, name: &str, known: &Known) -> Result<Known, Error> {
    if from.stamp(name)? == Some(known.stamp) && from.link(name, folder).is_ok() {
        return Ok(known.clone());
    }
    // Not every file system has links, and a file has only so many; or it was touched.
    match read_known(from, name, known)? {
        Found::File(bytes) => Ok(Known { digest: known.digest.clone(), stamp: folder.write_new(name, &bytes)? }),
        Found::Absent | Found::Same | Found::Other => Err(Error::Damaged { path: from.path().into() }),
    }
}

/// Reads a file of a snapshot, and checks that it is what it was.
fn read_known(from: &Dir, name: &str, known: &Known) -> Result<Found, Error> {
    match from.read(name)? {
        Found::File(bytes) if canonical::hash_bytes(&bytes) == known.digest => Ok(Found::File(bytes)),
        _ => Err(Error::Damaged { path: from.path().into() }),
    }
}

fn snapshot_folder(root: &Dir, version: &str) -> Result<Dir, Error> {
    root.child(version)?.ok_or_else(|| Error::Damaged { path: root.path().join(version) })
}

fn current(root: &Dir) -> Result<Option<String>, Error> {
    let unfit = || Error::NotOurs { path: root.path().join(CURRENT) };
    match root.read(CURRENT)? {
        Found::Absent => Ok(None),
        Found::File(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| unfit())?;
            let version = text.trim();
            if is_version(version) { Ok(Some(version.to_owned())) } else { Err(unfit()) }
        }
        Found::Same | Found::Other => Err(unfit()),
    }
}

fn is_version(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn version_of(sources: &BTreeMap<&str, Source<'_>>) -> String {
    version_of_lines(sources.iter().map(|(name, source)| match source {
        Source::Kept(known) => (*name, known.digest.as_str()),
        Source::New(_, digest) => (*name, digest.as_str()),
    }))
}

/// Returns the version of files and their digests, sorted by name.
fn version_of_lines<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut lines = String::new();
    for (name, digest) in files {
        let _ = writeln!(lines, "{digest}  {name}");
    }
    canonical::hash_bytes(lines.as_bytes())
}
