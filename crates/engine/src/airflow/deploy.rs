//! Where DAG files go.
//!
//! A [`Destination`] knows nothing of Airflow: it makes files appear where Airflow looks for them, all of a call together
//! or not at all, and leaves alone what is there already.
//!
//! | kind | all of a change together | earlier plans |
//! |---|---|---|
//! | [`Folder`] | each DAG with its plan; all are on the disk before the first appears | stay beside, as leftovers |
//! | [`Bundle`] | yes | in their snapshots, which are the leftovers |
//! | [`Git`] | yes, as one commit | stay beside, as leftovers |
//!
//! Files are known by name. A DAG has `<stem>.py`, which begins as compiled files do, and plan files
//! `<stem>.<hash12>.plan.json`; the stem is its `dag_id`, where that is short and plain
//! ([`stem`](dagwright_compiler::file_name::stem)). Files of all DAGs begin with `dagwright_` and end in `.py` or `.json`;
//! the first line of their code says `Dagwright`. A plan file is in use while its DAG file or a file of all DAGs names it:
//! so in a layout where one loader makes all DAGs of their plans, an index among the latter says which plans those are,
//! and a DAG's [`Change`] has no more than the plan file. Which layout a destination has, [`layout`] decides of what is there.
//!
//! A file that has such a name and is none of ours is refused ([`Error::NotOurs`]) rather than replaced. So are names
//! that lead elsewhere; links are not followed. Processes that write the same destination take turns.

mod bundle;
mod dir;
mod files;
mod folder;
mod git;
pub(crate) mod layout;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use dagwright_model::code::Code;

use self::files::Files;
pub use self::{
    bundle::Bundle,
    folder::Folder,
    git::{Git, GitSettings},
    layout::{Choice, Rule},
};

/// How long a process waits for others that write: some changes of a thousand DAGs, or one to a slow Git server.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// A place that Airflow reads DAG files from. Its calls block.
pub trait Destination: fmt::Debug + Send + Sync {
    /// Makes a change that depends on what is there: `draft` sees that, and nobody else writes until its change is made. Where
    /// somebody else may (Git), it is asked again whenever somebody did; its last change is the one that is made.
    ///
    /// Else as [`Self::put`].
    ///
    /// # Errors
    /// As [`Self::put`], and those of `draft`.
    fn update(&self, draft: &mut dyn FnMut(&dyn View) -> Result<Change, Error>) -> Result<Placed, Error>;

    /// Makes these the files of their DAGs, and removes the DAGs that are to be no more.
    ///
    /// DAGs that the change does not speak of stay. Nothing is written where everything is as it should be. Files that
    /// belong to no DAG of ours are never touched. What a process left that died in the middle is completed by the same
    /// call, or undone by any other.
    ///
    /// # Errors
    /// When it cannot be read or written, or holds something else under a name of ours; then nothing of the change is
    /// seen, unless the disk itself failed.
    fn put(&self, change: &Change) -> Result<Placed, Error> {
        Files::of(change)?;
        self.update(&mut |_| Ok(change.clone()))
    }

    /// Returns what no DAG refers to any more: earlier plan files or snapshots, which runs may still need.
    ///
    /// # Errors
    /// When it cannot be read.
    fn leftovers(&self) -> Result<Vec<Leftover>, Error>;

    /// Removes a leftover; what is no leftover, or no longer there, stays as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    fn discard(&self, leftover: &Leftover) -> Result<(), Error>;
}

/// What a destination holds, while nobody changes it.
pub trait View {
    /// Returns the names of the regular files.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names(&self) -> Result<BTreeSet<String>, Error>;

    /// Returns what is there under these names.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, Found>, Error>;
}

/// What a destination has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A file with the content that is wanted.
    Same,
    /// A file with this content.
    File(Vec<u8>),
    /// No regular file.
    Other,
}

/// What is to change, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The files of each DAG by `dag_id`: their names, which are those that the compiler gives, and their contents. A
    /// DAG without a `.py` file has none from then on.
    pub dags: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The DAGs that are to be no more, by `dag_id`; one that is among `dags` too stays.
    pub removed: Vec<String>,
    /// Files that belong to all DAGs, as a loader or the anchor: `dagwright_….py`, `dagwright_….json`.
    pub common: BTreeMap<String, Vec<u8>>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whether anything was written.
    pub changed: bool,
    /// The version that is shown from now on, where the destination has versions: a snapshot's, a commit's.
    pub version: Option<String>,
}

/// Something that no DAG refers to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name: a plan file's, or a snapshot's version.
    pub name: String,
    /// Since when nothing refers to it, as far as that can be told.
    pub since: SystemTime,
}

/// Says why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes to the destination.
    #[error("{} is still written to by another process after {} s", path.display(), waited.as_secs())]
    Busy {
        /// The destination.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The name of a file that is none within the destination.
    #[error("{name:?} is no name of a file in a destination")]
    BadName {
        /// The name.
        name: String,
    },
    /// A file that would not be known again, as it does not begin as such files do.
    #[error("{name:?} does not begin as files that Dagwright deploys do")]
    BadFile {
        /// Its name.
        name: String,
    },
    /// Something is there that Dagwright did not write; it is left as it is.
    #[error("{} was not written by Dagwright, and is in the way", path.display())]
    NotOurs {
        /// What.
        path: PathBuf,
    },
    /// A snapshot is not what its name says, so nothing may be taken over from it.
    #[error("snapshot {} is missing, or was changed after it was named", path.display())]
    Damaged {
        /// The snapshot.
        path: PathBuf,
    },
    /// The index of layout `loader` says nothing, so what it stood for is not known.
    #[error("{} cannot be used, so nothing is known of the DAGs that it listed", path.display())]
    BadIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        source: dagwright_compiler::InvalidIndex,
    },
    /// There are more files than a reader takes.
    #[error("{} would have more files than a bundle may", path.display())]
    TooLarge {
        /// The destination.
        path: PathBuf,
    },
    /// A setting of a destination cannot be used.
    #[error("{setting} {reason}")]
    BadSetting {
        /// Which, as `url`.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The command `git` cannot be started.
    #[error("could not start {}; is Git installed where Dagwright runs?", program.display())]
    GitMissing {
        /// The command.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Git did not do what it was to do.
    #[error("git could not {action}: {said}")]
    Git {
        /// What was to be done.
        action: &'static str,
        /// What it said.
        said: String,
    },
    /// Whenever a commit was to be pushed, somebody else had pushed.
    #[error("others pushed to the branch each of {attempts} times that a commit was made for it")]
    Raced {
        /// How often it was tried.
        attempts: usize,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } | Self::Busy { .. } | Self::GitMissing { .. } | Self::Git { .. } | Self::Raced { .. } => {
                Code::DeployFailed
            }
            Self::BadName { .. }
            | Self::BadFile { .. }
            | Self::NotOurs { .. }
            | Self::Damaged { .. }
            | Self::BadIndex { .. }
            | Self::TooLarge { .. } => Code::DeployRefused,
            Self::BadSetting { .. } => Code::ConfigInvalid,
        }
    }

    /// Tells whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Busy { .. } | Self::Git { .. } | Self::Raced { .. } => true,
            Self::BadName { .. }
            | Self::BadFile { .. }
            | Self::NotOurs { .. }
            | Self::Damaged { .. }
            | Self::BadIndex { .. }
            | Self::TooLarge { .. }
            | Self::BadSetting { .. }
            | Self::GitMissing { .. } => false,
        }
    }

    /// Says where a file is that was named alone.
    fn below(self, folder: &Path) -> Self {
        match self {
            Self::NotOurs { path } => Self::NotOurs { path: folder.join(path) },
            Self::BadIndex { path, source } => Self::BadIndex { path: folder.join(path), source },
            other => other,
        }
    }
}
