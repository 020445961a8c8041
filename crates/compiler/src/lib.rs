//! Sealed plan and target to Airflow DAG files; pure.
//!
//! [`compile`] renders a plan as two files that belong side by side in a DAG folder: a DAG file in readable Python and
//! the plan itself, which the DAG's operators read when a task runs. The same plan gives the same bytes.
//!
//! Invariants, proved by `tests/hostile.rs` with Python's own parser:
//! - no text of a plan becomes code: it stands in string literals, which [`emit`] alone writes;
//! - no text of a plan stands where Airflow renders templates: operators get a path, and read the rest from the plan;
//! - the DAG file imports nothing but `datetime`, `pathlib`, `airflow` and `dagwright_airflow`.
//!
//! Deliberately absent: I/O, deployment, and what tasks do, which is package `dagwright-airflow` and `dagwright-task`.

mod anchor;
mod doc;
mod emit;
pub mod file_name;

use std::{fmt, str::FromStr};

use dagwright_model::{canonical, plan::Plan};
use serde_json::json;

pub use self::{
    anchor::{ANCHOR, anchor},
    emit::{TAG, plan_tag},
};

/// The Airflow that a plan is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Airflow 2.11.
    Airflow2,
    /// Airflow 3.x.
    Airflow3,
}

/// Says that a text is not a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target; known are airflow2 and airflow3")]
pub struct InvalidTarget(String);

/// A compiled file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name within the DAG folder; never holds a path separator.
    pub name: String,
    /// Its content, UTF-8.
    pub bytes: Vec<u8>,
}

/// Compiles a plan into its DAG file, `<dag_id>.py`, and its plan file, `<dag_id>.<hash12>.plan.json`, in that order.
///
/// A pipeline without a namespace has its name as `dag_id`. Whoever deploys them should write the plan file first:
/// the DAG file names it.
#[must_use]
pub fn compile(plan: &Plan, target: Target) -> Vec<Artifact> {
    let hash = plan.hash();
    let stem = file_name::stem(&plan.dag_id);
    let plan_file = format!("{stem}.{}.plan.json", hash.short());
    let document = json!({ "hash": hash, "plan": plan });
    vec![
        Artifact { name: format!("{stem}.py"), bytes: emit::dag_file(plan, &hash, &plan_file, target).into_bytes() },
        Artifact { name: plan_file, bytes: canonical::to_pretty(&document).into_bytes() },
    ]
}

// === impl Target ===

impl Target {
    /// Every target.
    pub const ALL: &'static [Self] = &[Self::Airflow2, Self::Airflow3];
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        Self::ALL.iter().find(|target| target.to_string() == text).copied().ok_or_else(|| InvalidTarget(text.into()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Airflow2 => "airflow2",
            Self::Airflow3 => "airflow3",
        })
    }
}
