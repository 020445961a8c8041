//! The files of layout `loader` that stand for all pipelines: one DAG file, and the index of what it loads.

use std::collections::BTreeMap;

use dagwright_model::canonical;
use serde::Deserialize;
use serde_json::json;

use crate::{Artifact, file_name};

/// The name of the DAG file of layout `loader`.
pub const LOADER_FILE: &str = "dagwright_loader.py";

/// The name of its index.
pub const INDEX_FILE: &str = "dagwright_index.json";

/// The version of the index's format.
const INDEX_VERSION: u32 = 1;

/// What the loader takes for the id of a DAG: as Airflow has them.
const DAG_ID_BYTES_MAX: usize = 250;

/// Says why an index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIndex {
    /// It is none.
    #[error("it is no index of DAGs")]
    NotJson {
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by a later Dagwright.
    #[error("it has version {0}, and this Dagwright reads version {INDEX_VERSION}")]
    Version(u32),
    /// It has an entry that the loader would not take.
    #[error("it has an entry that is none: {0:?}")]
    Entry(String),
}

#[derive(Deserialize)]
struct Index {
    dags: BTreeMap<String, String>,
    version: u32,
}

/// Returns [`LOADER_FILE`] and [`INDEX_FILE`], `{"dags": {"<dag_id>": "<plan file>"}, "version": 1}`.
///
/// `plan_files` has the name of the plan file of each DAG. An index with no DAG is valid: it removes them all. The DAG file
/// names the index's digest, since Airflow parses a file anew when that file changed, whatever lies beside it.
#[must_use]
pub fn loader_files(plan_files: &BTreeMap<String, String>) -> [Artifact; 2] {
    let index = canonical::to_pretty(&json!({ "dags": plan_files, "version": INDEX_VERSION })).into_bytes();
    let digest = canonical::hash_bytes(&index);
    // Airflow takes a file for one with DAGs by the words `dag` and `airflow` in it.
    let loader = format!(
        "\"\"\"The DAGs that Dagwright deployed to this folder, as {INDEX_FILE} lists them; change no file by hand.\"\"\"\n\n\
         from dagwright_airflow.loader import load\n\n\
         # Has Airflow parse this file when the index changes: {}.\n\
         load(__file__, globals())\n",
        &digest[..12]
    );
    [
        Artifact { name: LOADER_FILE.into(), bytes: loader.into_bytes() },
        Artifact { name: INDEX_FILE.into(), bytes: index },
    ]
}

/// Reads an index: the plan file of each DAG, by `dag_id`.
///
/// # Errors
/// When the loader would not take it.
pub fn read_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, InvalidIndex> {
    let index: Index = serde_json::from_slice(bytes).map_err(|source| InvalidIndex::NotJson { source })?;
    if index.version != INDEX_VERSION {
        return Err(InvalidIndex::Version(index.version));
    }
    match index.dags.iter().find(|(dag_id, plan_file)| !can_be_loaded(dag_id, plan_file)) {
        Some((dag_id, _)) => Err(InvalidIndex::Entry(dag_id.chars().take(100).collect())),
        None => Ok(index.dags),
    }
}

/// Tells whether the loader takes a DAG with this id from this plan file; those of any spec it does.
#[must_use]
pub fn can_be_loaded(dag_id: &str, plan_file: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_id = (1..=DAG_ID_BYTES_MAX).contains(&dag_id.len()) && dag_id.bytes().all(is_allowed);
    let stem = file_name::plan_file_parts(plan_file).map(|(stem, _)| stem);
    is_id && stem == Some(file_name::stem(dag_id).as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{InvalidIndex, loader_files, read_index};

    fn plan_files(dag_ids: &[&str]) -> BTreeMap<String, String> {
        dag_ids.iter().map(|id| ((*id).to_owned(), format!("{id}.0123456789ab.plan.json"))).collect()
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        for dag_ids in [&[][..], &["a"], &["a", "x.b"]] {
            let [_, index] = loader_files(&plan_files(dag_ids));
            assert_eq!(read_index(&index.bytes).expect("an index"), plan_files(dag_ids));
        }
    }

    #[test]
    fn the_dag_file_changes_when_the_index_does_and_not_else() {
        let code = |dag_ids: &[&str]| loader_files(&plan_files(dag_ids))[0].bytes.clone();
        assert_eq!(code(&["a"]), code(&["a"]));
        assert_ne!(code(&["a"]), code(&["a", "b"]));
    }

    #[test]
    fn what_the_loader_would_not_take_is_refused() {
        for none in ["", "[]", "{}", r#"{"dags": {}}"#, r#"{"dags": {"a": 1}, "version": 1}"#] {
            assert!(matches!(read_index(none.as_bytes()), Err(InvalidIndex::NotJson { .. })), "{none}");
        }
        assert!(matches!(read_index(br#"{"dags": {}, "version": 2}"#), Err(InvalidIndex::Version(2))));
        for (dag_id, plan_file) in [
            ("", ".0123456789ab.plan.json"),
            ("a b", "a b.0123456789ab.plan.json"),
            ("a", "b.0123456789ab.plan.json"),
            ("a", "../a.0123456789ab.plan.json"),
            ("a", "a.plan.json"),
        ] {
            let text = format!(r#"{{"dags": {{"{dag_id}": "{plan_file}"}}, "version": 1}}"#);
            assert!(matches!(read_index(text.as_bytes()), Err(InvalidIndex::Entry(_))), "{text}");
        }
    }
}
