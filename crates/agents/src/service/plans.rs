//! Plans that were agreed on lately: what was found then still counts as known for a while, and the same facts give the
//! same plan, so a request with the same spec need not negotiate again.
//!
//! Only plans that leave every sink's schema as it is are kept: one that makes a table is wrong once the table is there.
//! Whatever else changed meanwhile, the tasks notice: they check the sealed schemas before they read or write.

use std::sync::{Arc, Mutex, PoisonError};

use dagwright_model::{
    id::RequestId,
    plan::Plan,
    task::{Output, Work},
};
use indexmap::IndexMap;

use crate::{agreed::Agreed, metrics};

/// How many plans are kept; the oldest is forgotten first. A plan is some tens of kilobytes.
const PLANS_MAX: usize = 1024;

/// Plans that were agreed on lately.
#[derive(Debug)]
pub(super) struct RecentPlans {
    /// How long what was found counts as known, in milliseconds; 0 keeps nothing.
    age_ms_max: u64,
    by_spec: Mutex<IndexMap<String, Recent>>,
}

/// A plan, for whom it was agreed on, and when its facts were found.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub(super) plan: Arc<Agreed>,
    pub(super) from: RequestId,
    found_at_ms: u64,
}

// === impl RecentPlans ===

impl RecentPlans {
    pub(super) fn new(age_ms_max: u64) -> Self {
        Self { age_ms_max, by_spec: Mutex::default() }
    }

    /// Returns the plan of a spec whose facts still count as known.
    pub(super) fn get(&self, spec_hash: &str, now_ms: u64) -> Option<Recent> {
        if self.age_ms_max == 0 {
            return None;
        }
        let known = self.look_up(spec_hash, now_ms);
        metrics::plan_looked_up(known.is_some());
        known
    }

    fn look_up(&self, spec_hash: &str, now_ms: u64) -> Option<Recent> {
        let mut plans = self.by_spec.lock().unwrap_or_else(PoisonError::into_inner);
        let known = plans.get(spec_hash)?;
        if now_ms.saturating_sub(known.found_at_ms) <= self.age_ms_max {
            return Some(known.clone());
        }
        plans.shift_remove(spec_hash);
        None
    }

    /// Keeps a plan whose facts were found no earlier than `found_at_ms`.
    pub(super) fn keep(&self, spec_hash: &str, from: &RequestId, plan: &Plan, found_at_ms: u64) {
        if self.age_ms_max == 0 || changes_a_schema(plan) {
            return;
        }
        let mut plans = self.by_spec.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_MAX && !plans.contains_key(spec_hash) {
            plans.shift_remove_index(0);
        }
        let recent = Recent { plan: Arc::new(Agreed::new(plan.clone())), from: from.clone(), found_at_ms };
        plans.insert(spec_hash.to_owned(), recent);
    }

    /// Forgets the plan of a spec, because a run of it failed.
    pub(super) fn forget(&self, spec_hash: &str) {
        self.by_spec.lock().unwrap_or_else(PoisonError::into_inner).shift_remove(spec_hash);
    }
}

fn changes_a_schema(plan: &Plan) -> bool {
    plan.tasks.iter().any(|task| match &task.spec.work {
        Work::Move(work) => work.outputs.iter().any(|output| match output {
            Output::Sink(sink) => !sink.changes.is_empty(),
            Output::Staged { .. } => false,
        }),
        Work::Publish(publish) => !publish.sink.changes.is_empty(),
        Work::Split(_) | Work::Cleanup => false,
    })
}

#[cfg(test)]
mod tests {
    use dagwright_model::{id::RequestId, plan::Plan};

    use super::{PLANS_MAX, RecentPlans};

    fn plan() -> Plan {
        let sealed = include_str!("../../../compiler/tests/golden/airflow3/carriers.33c595561b3b.plan.json");
        let document: serde_json::Value = serde_json::from_str(sealed).expect("JSON");
        let mut plan: Plan = serde_json::from_value(document["plan"].clone()).expect("a plan");
        for task in &mut plan.tasks {
            if let dagwright_model::task::Work::Move(work) = &mut task.spec.work {
                work.outputs.retain(|output| matches!(output, dagwright_model::task::Output::Staged { .. }));
            }
        }
        plan
    }

    #[test]
    fn a_plan_holds_while_its_facts_count_as_known() {
        let plans = RecentPlans::new(1000);
        let from = RequestId("a".into());
        plans.keep("s", &from, &plan(), 5000);
        assert_eq!(plans.get("s", 6000).map(|recent| recent.from), Some(from.clone()));
        assert!(plans.get("other", 6000).is_none());
        assert!(plans.get("s", 6001).is_none());
        plans.keep("s", &from, &plan(), 6000);
        plans.forget("s");
        assert!(plans.get("s", 6000).is_none());
    }

    #[test]
    fn nothing_is_kept_without_an_age_and_no_more_than_fits() {
        let none = RecentPlans::new(0);
        none.keep("s", &RequestId("a".into()), &plan(), 5000);
        assert!(none.get("s", 5000).is_none());
        let plans = RecentPlans::new(1);
        for index in 0..=PLANS_MAX {
            plans.keep(&index.to_string(), &RequestId("a".into()), &plan(), 0);
        }
        assert!(plans.get("0", 0).is_none() && plans.get("1", 0).is_some());
    }
}
