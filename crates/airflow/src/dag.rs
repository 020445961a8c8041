//! DAGs, their versions, and files that are none.

use chrono::{DateTime, Utc};
use serde::Deserialize;

/// A DAG as Airflow has it in its database.
#[derive(Clone, Debug, PartialEq)]
pub struct Dag {
    /// Its id.
    pub dag_id: String,
    /// Whether its schedule rests; a run that is triggered then waits.
    pub is_paused: bool,
    /// Whether its file was there when Airflow last looked.
    pub is_active: bool,
    /// Whether its file can no longer be imported; such a DAG cannot be triggered.
    pub has_import_errors: bool,
    /// What [`Airflow::reparse`](crate::Airflow::reparse) takes.
    pub file_token: String,
    /// The absolute path of its file, where Airflow's DAG processor has it.
    pub fileloc: Option<String>,
    /// The path within its bundle; Airflow 3.
    pub relative_fileloc: Option<String>,
    /// The bundle it comes from; Airflow 3.
    pub bundle_name: Option<String>,
    /// The bundle's version when it was last parsed; Airflow 3, of bundles that have versions.
    pub bundle_version: Option<String>,
    /// When its file was last parsed.
    pub last_parsed_time: Option<DateTime<Utc>>,
    /// Its tags, in order.
    pub tags: Vec<String>,
    /// What it says of itself.
    pub description: Option<String>,
}

/// Which DAGs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DagFilter {
    /// Those with one of these tags; all where there is none.
    pub tags: Vec<String>,
    /// Also those whose file has gone.
    pub inactive_too: bool,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is deleted.
    Now,
    /// It was not there, or a try of this call that was not answered had deleted it.
    Before,
}

/// A file that could not be imported.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ImportError {
    /// Airflow's number for it.
    pub import_error_id: i64,
    /// When the file was parsed.
    pub timestamp: Option<DateTime<Utc>>,
    /// The file: an absolute path in Airflow 2, one within the bundle in Airflow 3.
    #[serde(default)]
    pub filename: Option<String>,
    /// The bundle; Airflow 3.
    #[serde(default)]
    pub bundle_name: Option<String>,
    /// What Python said.
    #[serde(default)]
    pub stack_trace: Option<String>,
}

/// A version of a DAG; Airflow 3.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DagVersion {
    /// Counts from 1.
    pub version_number: u32,
    /// The bundle it comes from.
    pub bundle_name: Option<String>,
    /// The bundle's version when it was first seen; a run knows better what it ran with.
    pub bundle_version: Option<String>,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
}

/// A DAG as either API tells it.
#[derive(Deserialize)]
pub(crate) struct DagAnswer {
    dag_id: String,
    is_paused: Option<bool>,
    /// v1
    is_active: Option<bool>,
    /// v2
    is_stale: Option<bool>,
    has_import_errors: Option<bool>,
    file_token: String,
    fileloc: Option<String>,
    relative_fileloc: Option<String>,
    bundle_name: Option<String>,
    bundle_version: Option<String>,
    last_parsed_time: Option<DateTime<Utc>>,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

// === impl ImportError ===

impl ImportError {
    /// Tells whether it is of a file with this path within the DAG folder or bundle.
    #[must_use]
    pub fn is_of(&self, relative: &str) -> bool {
        let Some(file) = &self.filename else { return false };
        file == relative || file.strip_suffix(relative).is_some_and(|folder| folder.ends_with('/'))
    }
}

// === impl Dag ===

impl From<DagAnswer> for Dag {
    fn from(answer: DagAnswer) -> Self {
        let mut tags: Vec<_> = answer.tags.into_iter().map(|tag| tag.name).collect();
        tags.sort();
        Self {
            dag_id: answer.dag_id,
            is_paused: answer.is_paused.unwrap_or(false),
            is_active: answer.is_active.or(answer.is_stale.map(|stale| !stale)).unwrap_or(true),
            has_import_errors: answer.has_import_errors.unwrap_or(false),
            file_token: answer.file_token,
            fileloc: answer.fileloc,
            relative_fileloc: answer.relative_fileloc,
            bundle_name: answer.bundle_name,
            bundle_version: answer.bundle_version,
            last_parsed_time: answer.last_parsed_time,
            tags,
            description: answer.description,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ImportError;

    #[test]
    fn import_errors_know_their_file() {
        let of = |file: &str| {
            let filename = Some(file.to_owned());
            ImportError { import_error_id: 1, timestamp: None, filename, bundle_name: None, stack_trace: None }
        };
        assert!(of("/srv/dags/a.py").is_of("a.py") && of("a.py").is_of("a.py"));
        assert!(!of("/srv/dags/aa.py").is_of("a.py") && !of("b.py").is_of("a.py"));
    }
}
