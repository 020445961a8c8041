//! A DAG folder, which Airflow reads as it stands.
//!
//! Each file is there whole or not at all, and each DAG with its plan. All files of a change are on the disk before the
//! first appears, so a disk that is full changes nothing. Then plan files appear, then DAG files, then what belongs to
//! all DAGs, and last what is to go goes. In between Airflow may see some DAGs of a change as they were, and some as they
//! are to be; never a DAG without its plan.
//!
//! Plan files stay when nothing names them any more, because runs may read them; they are the leftovers. In layout
//! `loader` DAGs have no files but their plans: a file that belongs to all DAGs then names the plans to be loaded, as an
//! index, and what it no longer names is a leftover.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{
    Change, Destination, Error, Found, LOCK_WAIT, Leftover, Placed, View,
    dir::{Dir, Kind, Steps, temporary},
    files::{self, Edits, Files, Part},
};

/// A DAG folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    pub(super) steps: Steps,
    pub(super) lock_wait: Duration,
    /// Whether names that a process made before it died are known to be on the disk.
    synced: AtomicBool,
}

// === impl Folder ===

impl Folder {
    /// Uses the folder at `path`, which is made when it is first written to.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, steps: Steps::default(), lock_wait: LOCK_WAIT, synced: AtomicBool::new(false) }
    }

    /// Returns the leftovers whose names `chosen` likes.
    fn leftovers_of(dir: &Dir, chosen: impl Fn(&str) -> bool) -> Result<Vec<Leftover>, Error> {
        let names = dir.entries()?.into_iter().filter_map(|(name, kind)| Some((name.into_string().ok()?, kind)));
        let names: Vec<String> = names
            .filter(|(name, kind)| files::is_common(name) || *kind == Kind::File && chosen(name))
            .map(|(name, _)| name)
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let referrers = files::referrers(names.iter().copied()).into_iter();
        let texts: BTreeMap<_, _> =
            referrers.map(|name| Ok((name.clone(), dir.read(&name)?))).collect::<Result<_, Error>>()?;
        let unnamed = files::unnamed(names, &texts).into_iter();
        unnamed
            .filter_map(|name| match dir.changed_at(name) {
                Ok(since) => since.map(|since| Ok(Leftover { name: name.to_owned(), since })),
                Err(error) => Some(Err(error)),
            })
            .collect()
    }
}

impl Destination for Folder {
    fn update(&self, draft: &mut dyn FnMut(&dyn View) -> Result<Change, Error>) -> Result<Placed, Error> {
        let dir = Dir::create(&self.path, &self.steps)?;
        let _lock = dir.lock(self.lock_wait)?;
        dir.sweep()?;
        let change = draft(&dir).map_err(|error| error.below(&self.path))?;
        let files = Files::of(&change)?;
        let edits = files.edits(|name, _| dir.read(name)).map_err(|error| error.below(&self.path))?;
        if edits.is_empty() {
            if !self.synced.load(Ordering::Relaxed) {
                dir.sync()?;
                self.synced.store(true, Ordering::Relaxed);
            }
            return Ok(Placed { changed: false, version: None });
        }
        if let Err(error) = write(&dir, &edits) {
            // What cannot be removed now is when something is put again.
            let _ = dir.sweep();
            return Err(error);
        }
        self.synced.store(true, Ordering::Relaxed);
        Ok(Placed { changed: true, version: None })
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        let Some(dir) = Dir::open(&self.path, &self.steps)? else { return Ok(Vec::new()) };
        // While another process writes, a plan may be there before the file that names it.
        let _lock = dir.lock(self.lock_wait)?;
        Self::leftovers_of(&dir, |_| true)
    }

    fn discard(&self, leftover: &Leftover) -> Result<(), Error> {
        let Some(dir) = Dir::open(&self.path, &self.steps)? else { return Ok(()) };
        let _lock = dir.lock(self.lock_wait)?;
        if Self::leftovers_of(&dir, |name| name == leftover.name)?.is_empty() {
            return Ok(());
        }
        dir.remove(&leftover.name)?;
        dir.sync()
    }
}

impl View for Dir {
    fn names(&self) -> Result<BTreeSet<String>, Error> {
        Ok(self.files()?.into_iter().collect())
    }

    fn read(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, Found>, Error> {
        names.into_iter().map(|name| Ok((name.clone(), Dir::read(self, &name)?))).collect()
    }
}

fn write(dir: &Dir, edits: &Edits<'_>) -> Result<(), Error> {
    for (number, (_, _, bytes)) in edits.write.iter().enumerate() {
        dir.write_new(&temporary(number), bytes)?;
    }
    // From here on they count as unused: earlier than true if this ends here, but then they are used.
    for name in &edits.dropped {
        dir.touch(name)?;
    }
    let mut plans_synced = true;
    for (number, (part, name, _)) in edits.write.iter().enumerate() {
        if *part == Part::Plan {
            plans_synced = false;
        } else if !plans_synced {
            dir.sync()?;
            plans_synced = true;
        }
        // Python takes byte code for that of a source by its length and its time of change, in seconds.
        dir.date_after(&temporary(number), name)?;
        dir.rename(&temporary(number), name)?;
    }
    for name in &edits.remove {
        dir.remove(name)?;
    }
    dir.sync()
}
