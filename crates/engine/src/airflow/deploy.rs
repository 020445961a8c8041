//! Where DAG files go.
//!
//! A [`Destination`] knows nothing of Airflow: it makes files appear where Airflow looks for them, all of a call together
//! or not at all, and leaves alone what is there already.

use std::{collections::BTreeMap, fmt, io, path::PathBuf, time::SystemTime};

use dagwright_model::code::Code;

/// A place that Airflow reads DAG files from. Its calls block.
pub trait Destination: fmt::Debug + Send + Sync {
    /// Makes these the files of their DAGs, and removes those of others.
    ///
    /// Nothing is written where everything is as it should be. Files that belong to no DAG of ours are never touched.
    ///
    /// # Errors
    /// When it cannot be read or written; then either all changes are there or none is seen.
    fn put(&self, change: &Change) -> Result<Placed, Error>;

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

/// What is to change, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The files of each DAG by `dag_id`: their names, which hold no path separator, and their contents.
    pub dags: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The DAGs that are to be no more, by `dag_id`.
    pub removed: Vec<String>,
    /// Files that belong to all DAGs, as a loader or the anchor.
    pub common: BTreeMap<String, Vec<u8>>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Whether anything was written.
    pub changed: bool,
    /// The version that is shown from now on, where the destination has versions.
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
    /// The name of a file that is none within the destination.
    #[error("{name:?} is no name of a file in a destination")]
    BadName {
        /// The name.
        name: String,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } => Code::DeployFailed,
            Self::BadName { .. } => Code::DeployRefused,
        }
    }
}
