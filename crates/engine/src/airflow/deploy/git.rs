//! A branch of a Git repository, which something else brings to Airflow: git-sync, or Airflow's own Git bundle.
//!
//! All is done by the command `git` in a bare repository of our own, which holds no more than the branch's last commit:
//! nothing is checked out, so nothing of what others push is ever a file, a link, a filter or a hook here. A change is
//! one commit on top of what the remote has, and is there when it was pushed. When somebody else pushed meanwhile, the
//! change is made again on top of that.
//!
//! | path | holds |
//! |---|---|
//! | `<path>/repository.git/` | the repository; a cache, made anew after a process died using it |
//! | `<path>/unused/<plan file>` | nothing; since when a plan file is known to be unused is its time of change |
//! | `<path>/.dagwright.lock` | nothing; whoever uses the repository holds a lock on it |
//! | `<path>/.dagwright-busy` | nothing; it is there while the repository is used |

mod command;
mod repository;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    time::Duration,
};

use dagwright_compiler::file_name;

use self::{
    command::Command,
    repository::{Pushed, Repository, Tip},
};
use super::{
    Change, Destination, Error, Found, LOCK_WAIT, Leftover, Placed, View,
    dir::{Dir, Steps, failed},
    files::{self, Edits, Files},
};

/// How often a change is made anew because others pushed. Each time somebody got something done, so this is many.
const ATTEMPTS_MAX: usize = 8;

const REPOSITORY: &str = "repository.git";
const UNUSED: &str = "unused";
const BUSY: &str = ".dagwright-busy";

/// How many DAGs a commit's message names.
const NAMED_MAX: usize = 100;

/// Where a repository is, and how it is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSettings {
    /// A folder of ours.
    pub path: PathBuf,
    /// Where it is pushed to: `https://`, `ssh://`, `user@host:path`, `file://`, or an absolute path; without a password.
    pub url: String,
    /// The branch; made by the first change, if need be.
    pub branch: String,
    /// The folder of the repository that DAG files go to; its root, if not given.
    pub subfolder: Option<String>,
    /// Who commits: `Name <email>`.
    pub author: String,
}

/// A branch of a Git repository.
#[derive(Debug)]
pub struct Git {
    settings: GitSettings,
    pub(super) command: Command,
    pub(super) steps: Steps,
    pub(super) lock_wait: Duration,
}

/// What the branch ends in, as those see it who draft a change.
struct Seen<'a> {
    repository: &'a Repository<'a>,
    tip: &'a Tip,
}

/// A commit to be made.
struct Draft {
    message: String,
    write: Vec<(String, Vec<u8>)>,
    remove: Vec<String>,
}

// === impl Git ===

impl Git {
    /// Uses a branch as the settings say.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: GitSettings) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self { settings, command: Command::default(), steps: Steps::default(), lock_wait: LOCK_WAIT })
    }

    /// Does something with the repository while nobody else uses it.
    fn using<T>(&self, work: impl FnOnce(&Dir, &Repository<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let folder = Dir::create(&self.settings.path, &self.steps)?;
        let _lock = folder.lock(self.lock_wait)?;
        let path = self.settings.path.join(REPOSITORY);
        if folder.read(BUSY)? == Found::Absent {
            folder.write_new(BUSY, &[])?;
        } else {
            // A git that died leaves locks and parts of packs; what is here can be had again.
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
                _ => {}
            }
        }
        let repository = Repository::open(&self.command, path, &self.settings)?;
        let done = work(&folder, &repository);
        if !matches!(done, Err(Error::Io { .. } | Error::Git { .. })) {
            folder.remove(BUSY)?;
        }
        done
    }

    /// Makes a commit on top of what the remote has, anew as often as others pushed meanwhile.
    fn commit(
        &self,
        repository: &Repository<'_>,
        mut draft: impl FnMut(&Tip) -> Result<Option<Draft>, Error>,
    ) -> Result<Placed, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let tip = repository.tip()?;
            let Some(draft) = draft(&tip)? else { return Ok(Placed { changed: false, version: tip.commit }) };
            let commit = repository.commit(&tip, &draft.message, &draft.write, &draft.remove)?;
            self.steps.take("push").map_err(failed("push from", &self.settings.path))?;
            match repository.push(&commit)? {
                Pushed::Done => return Ok(Placed { changed: true, version: Some(commit) }),
                Pushed::Refused(said) if repository.remote()? == tip.commit => {
                    return Err(Error::Git { action: "push", said });
                }
                Pushed::Refused(_) => {}
            }
        }
        Err(Error::Raced { attempts: ATTEMPTS_MAX })
    }

    /// Returns the plan files of a tip that nothing names, of those whose names `chosen` likes.
    fn unnamed(
        repository: &Repository<'_>,
        tip: &Tip,
        chosen: impl Fn(&str) -> bool,
    ) -> Result<BTreeSet<String>, Error> {
        let names = || tip.files.keys().map(String::as_str).filter(|name| files::is_common(name) || chosen(name));
        let texts = repository.read(tip, files::referrers(names().collect::<Vec<_>>()))?;
        let plans = names().filter(|name| tip.files[*name].is_file());
        Ok(files::unnamed(plans, &texts).into_iter().map(str::to_owned).collect())
    }
}

impl Destination for Git {
    fn update(&self, draft: &mut dyn FnMut(&dyn View) -> Result<Change, Error>) -> Result<Placed, Error> {
        self.using(|folder, repository| {
            let (mut named, mut dropped) = (BTreeSet::new(), BTreeSet::new());
            let placed = self.commit(repository, |tip| {
                let change = draft(&Seen { repository, tip }).map_err(|error| error.below(&repository.below()))?;
                let files = Files::of(&change)?;
                named = files.names().into_iter().map(str::to_owned).collect();
                let found = repository.read(tip, files.names().into_iter().map(str::to_owned).collect())?;
                let look = |name: &str, _: Option<&[u8]>| Ok(found.get(name).cloned().unwrap_or(Found::Absent));
                let edits = files.edits(look).map_err(|error| error.below(&repository.below()))?;
                dropped.clone_from(&edits.dropped);
                Ok((!edits.is_empty()).then(|| Draft::of(&change, &edits)))
            })?;
            if placed.changed {
                let unused = unused(folder)?;
                for name in &named {
                    unused.remove(name)?;
                }
                for name in &dropped {
                    unused.remove(name)?;
                    unused.write_new(name, &[])?;
                }
            }
            Ok(placed)
        })
    }

    fn leftovers(&self) -> Result<Vec<Leftover>, Error> {
        self.using(|folder, repository| {
            let unnamed = Self::unnamed(repository, &repository.tip()?, |_| true)?;
            let unused = unused(folder)?;
            for name in unused.files()?.iter().filter(|name| !unnamed.contains(*name)) {
                unused.remove(name)?;
            }
            let mut leftovers = Vec::new();
            for name in unnamed {
                if unused.read(&name)? == Found::Absent {
                    unused.write_new(&name, &[])?;
                }
                if let Some(since) = unused.changed_at(&name)? {
                    leftovers.push(Leftover { name, since });
                }
            }
            Ok(leftovers)
        })
    }

    fn discard(&self, leftover: &Leftover) -> Result<(), Error> {
        self.using(|folder, repository| {
            self.commit(repository, |tip| {
                let unnamed = Self::unnamed(repository, tip, |name| name == leftover.name)?;
                Ok(unnamed.contains(&leftover.name).then(|| Draft {
                    message: format!("Remove unused {}\n", leftover.name),
                    write: Vec::new(),
                    remove: vec![leftover.name.clone()],
                }))
            })?;
            if files::is_name(&leftover.name) { unused(folder)?.remove(&leftover.name) } else { Ok(()) }
        })
    }
}

// === impl Seen ===

impl View for Seen<'_> {
    fn names(&self) -> Result<BTreeSet<String>, Error> {
        let files = self.tip.files.iter().filter(|(_, entry)| entry.is_file());
        Ok(files.map(|(name, _)| name.clone()).collect())
    }

    fn read(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, Found>, Error> {
        self.repository.read(self.tip, names)
    }
}

// === impl Draft ===

impl Draft {
    fn of(change: &Change, edits: &Edits<'_>) -> Self {
        let write = edits.write.iter().map(|(_, name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let remove = edits.remove.iter().map(|name| (*name).to_owned()).collect();
        Self { message: message(change, edits), write, remove }
    }
}

/// Says what a commit changes: the ids of DAGs, and the hashes of their plans.
fn message(change: &Change, edits: &Edits<'_>) -> String {
    let written: BTreeSet<&str> = edits.write.iter().map(|(_, name, _)| *name).collect();
    let gone: BTreeSet<&str> = edits.remove.iter().copied().collect();
    let is_changed = |dag_id: &str, files: &BTreeMap<String, Vec<u8>>| {
        files.keys().any(|name| written.contains(name.as_str()))
            || gone.contains(file_name::dag_file(&file_name::stem(dag_id)).as_str())
    };
    let deployed: Vec<_> = change.dags.iter().filter(|(dag_id, files)| is_changed(dag_id, files)).collect();
    // Those without a file of their own went from a file of all DAGs, or were not there.
    let removed: BTreeSet<&String> =
        change.removed.iter().filter(|dag_id| !change.dags.contains_key(*dag_id)).collect();
    let mut parts = Vec::new();
    if !deployed.is_empty() {
        parts.push(format!("deploy {}", count(deployed.len())));
    }
    if !removed.is_empty() {
        parts.push(format!("remove {}", count(removed.len())));
    }
    let subject = if parts.is_empty() { "update the files of all DAGs".to_owned() } else { parts.join(", ") };
    let plans = |files: &BTreeMap<String, Vec<u8>>| {
        let hashes: Vec<_> =
            files.keys().filter_map(|name| file_name::plan_file_parts(name)).map(|(_, hash)| hash.to_owned()).collect();
        hashes.join(", ")
    };
    let lines = deployed.iter().map(|(dag_id, files)| match plans(files) {
        // Of its plan nothing changes.
        plans if plans.is_empty() => format!("{}: moved to the loader", shown(dag_id)),
        plans => format!("{}: plan {plans}", shown(dag_id)),
    });
    let lines: Vec<_> = lines.chain(removed.iter().map(|dag_id| format!("{}: removed", shown(dag_id)))).collect();
    let more = lines.len().saturating_sub(NAMED_MAX);
    let mut text = format!("{}{}\n\n", subject[..1].to_uppercase(), &subject[1..]);
    for line in lines.iter().take(NAMED_MAX) {
        text.push_str(line);
        text.push('\n');
    }
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn count(dags: usize) -> String {
    if dags == 1 { "1 DAG".into() } else { format!("{dags} DAGs") }
}

/// Returns a DAG's id as it may stand in a line.
fn shown(dag_id: &str) -> String {
    dag_id.escape_debug().take(300).collect()
}

fn unused(folder: &Dir) -> Result<Dir, Error> {
    match folder.child(UNUSED)? {
        Some(unused) => Ok(unused),
        None => folder.make_child(UNUSED),
    }
}
