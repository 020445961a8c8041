//! A DAG that runs nothing and is always there: Airflow is asked to parse by the name of a file that it knows, so that the
//! first pipeline need not wait until Airflow looks by itself.

use crate::{Artifact, dag::TAG};

/// The anchor's `dag_id`.
pub const ANCHOR: &str = "dagwright_anchor";

/// Returns the anchor's DAG file: the same for every daemon and every Airflow, so that it can be there before either knows of
/// the other.
#[must_use]
pub fn anchor() -> Artifact {
    let text = format!(
        "\"\"\"Compiled by Dagwright: a DAG that runs nothing, by which it has this folder parsed.\"\"\"\n\n\
         from airflow import DAG\n\n\
         with DAG(\n    \
             dag_id=\"{ANCHOR}\",\n    \
             description=\"Runs nothing: Dagwright has this folder parsed by it.\",\n    \
             schedule=None,\n    \
             catchup=False,\n    \
             tags=[\"{TAG}\"],\n\
         ):\n    pass\n"
    );
    Artifact { name: format!("{ANCHOR}.py"), bytes: text.into_bytes() }
}
