//! DAGs of Dagwright's own, beside those of pipelines: the anchor, and the one that asks people.
//!
//! The anchor is a DAG that runs nothing and is always there: Airflow is asked to parse by the name of a file that it knows, so that the
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

/// The `dag_id` of the DAG that asks people whether plans may run, where Airflow has human-in-the-loop (3.1 and later).
pub const APPROVALS: &str = "dagwright_approvals";

/// Its one task.
pub const APPROVALS_TASK: &str = "approve";

/// Returns its DAG file, the same for every daemon; in an Airflow that cannot ask it holds no DAG.
#[must_use]
pub fn approvals() -> Artifact {
    let text = "\"\"\"Compiled by Dagwright: a DAG that asks people whether plans may run, a run for each question.\"\"\"\n\n\
                from dagwright_airflow.approvals import asking\n\n\
                dag = asking(__file__)\n";
    Artifact { name: format!("{APPROVALS}.py"), bytes: text.into() }
}
