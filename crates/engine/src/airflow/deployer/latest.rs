//! What is wanted of each DAG by now, and what Airflow was seen to show.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use dagwright_model::id::PlanHash;

/// The newest of each DAG, since the process started.
#[derive(Debug, Default)]
pub(super) struct Latest {
    states: Mutex<HashMap<String, State>>,
    /// How often Airflow was seen to show a plan anew.
    sights: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The plan that was written last; `None` where the DAG was removed.
    wanted: Option<PlanHash>,
    /// The plan that Airflow was last seen to show.
    seen: Option<PlanHash>,
}

// === impl Latest ===

impl Latest {
    /// Takes in what was written: the plan of each DAG, or none where it was removed.
    pub(super) fn want<'a>(&self, written: impl Iterator<Item = (&'a str, Option<&'a PlanHash>)>) {
        let mut states = self.states();
        for (dag_id, wanted) in written {
            let state = states.entry(dag_id.to_owned()).or_default();
            state.wanted = wanted.cloned();
            if wanted.is_none() {
                state.seen = None;
            }
        }
    }

    /// Tells whether a plan is what was written last.
    pub(super) fn is_wanted(&self, dag_id: &str, hash: &PlanHash) -> bool {
        self.states().get(dag_id).is_some_and(|state| state.wanted.as_ref() == Some(hash))
    }

    /// Tells whether a DAG was removed last.
    pub(super) fn is_removed(&self, dag_id: &str) -> bool {
        self.states().get(dag_id).is_some_and(|state| state.wanted.is_none())
    }

    pub(super) fn is_seen(&self, dag_id: &str, hash: &PlanHash) -> bool {
        self.states().get(dag_id).is_some_and(|state| state.seen.as_ref() == Some(hash))
    }

    pub(super) fn see(&self, dag_id: &str, hash: &PlanHash) {
        self.states().entry(dag_id.to_owned()).or_default().seen = Some(hash.clone());
        self.sights.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a number that grows whenever Airflow is seen to show a plan, whoever waits for it.
    pub(super) fn sights(&self) -> u64 {
        self.sights.load(Ordering::Relaxed)
    }

    pub(super) fn unsee(&self, dag_id: &str) {
        if let Some(state) = self.states().get_mut(dag_id) {
            state.seen = None;
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
