//! Sealed plan and target to Airflow DAG files; pure.
//!
//! There are two [`Layout`]s of a DAG folder. In `file` [`compile`] renders a plan as two files that belong side by side: a
//! DAG file in readable Python and the plan file, which the DAG's operators read when a task runs. In `loader` there is
//! the plan file alone, and beside all of them one small DAG file and an index ([`loader_files`]), from which package
//! `dagwright-airflow` builds the same DAGs. The same plan gives the same bytes.
//!
//! A plan file is `{"dag": …, "hash": …, "plan": …}`, in this order. `hash` seals `plan`, by which tasks run. `dag` is what
//! Airflow makes a DAG of, worked out so that no reader has to know how; it comes first so that a reader can stop behind it.
//!
//! Invariants, proved by `tests/hostile.rs` with Python's own parser:
//! - no text of a plan becomes code: it stands in string literals, which [`emit`] alone writes, or in JSON;
//! - no text of a plan stands where Airflow renders templates: operators get a file name, and read the rest from the plan;
//! - the DAG file imports nothing but `datetime`, `airflow` and `dagwright_airflow`.
//!
//! Deliberately absent: I/O, deployment, and what tasks do, which is package `dagwright-airflow` and `dagwright-task`.

mod anchor;
mod dag;
mod doc;
mod emit;
pub mod file_name;
mod loader;

use std::{fmt, str::FromStr};

use dagwright_model::{canonical, id::PlanHash, plan::Plan};
use serde_json::json;

use self::dag::Dag;

pub use self::{
    anchor::{ANCHOR, APPROVALS, APPROVALS_TASK, anchor, approvals},
    dag::{TAG, UNREADABLE_TAG, plan_tag},
    loader::{INDEX_FILE, InvalidIndex, LOADER_FILE, can_be_loaded, loader_files, read_index},
};

/// The Airflow that a plan is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Airflow 2.11.
    Airflow2,
    /// Airflow 3.x.
    Airflow3,
}

/// How the DAGs of a folder are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// A DAG file and a plan file for each pipeline.
    #[default]
    File,
    /// A plan file for each pipeline, and one DAG file for all of them.
    Loader,
}

/// Says that a text is not a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a layout; known are file and loader")]
pub struct InvalidLayout(String);

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
/// the DAG file names it. Equal to [`compile_for`] with [`Layout::File`].
#[must_use]
pub fn compile(plan: &Plan, target: Target) -> Vec<Artifact> {
    compile_for(plan, target, Layout::File)
}

/// Compiles a plan for a layout: its DAG file and plan file, or for [`Layout::Loader`] its plan file alone.
///
/// A plan file is the same for every target and layout. With [`Layout::Loader`], [`loader_files`] of all that is deployed go
/// beside it; write those last, as the index names the plan files.
#[must_use]
pub fn compile_for(plan: &Plan, target: Target, layout: Layout) -> Vec<Artifact> {
    let hash = plan.hash();
    let dag = Dag::new(plan, &hash);
    let name = plan_file_name(&plan.dag_id, &hash);
    let document = json!({ "dag": dag, "hash": hash, "plan": plan });
    let mut artifacts = Vec::with_capacity(2);
    if layout == Layout::File {
        let bytes = emit::dag_file(&dag, &hash, &name, target).into_bytes();
        artifacts.push(Artifact { name: format!("{}.py", file_name::stem(&plan.dag_id)), bytes });
    }
    artifacts.push(Artifact { name, bytes: canonical::to_pretty(&document).into_bytes() });
    artifacts
}

/// Returns the name of the plan file of a DAG whose plan has this hash.
#[must_use]
pub fn plan_file_name(dag_id: &str, hash: &PlanHash) -> String {
    format!("{}.{}.plan.json", file_name::stem(dag_id), hash.short())
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

// === impl Layout ===

impl Layout {
    /// Every layout.
    pub const ALL: &'static [Self] = &[Self::File, Self::Loader];
}

impl FromStr for Layout {
    type Err = InvalidLayout;

    fn from_str(text: &str) -> Result<Self, InvalidLayout> {
        Self::ALL.iter().find(|layout| layout.to_string() == text).copied().ok_or_else(|| InvalidLayout(text.into()))
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Loader => "loader",
        })
    }
}
