//! What a run that we trigger is called, and what it is given.

use std::collections::BTreeMap;

use dagwright_airflow::Trigger;
use dagwright_model::{id::RequestId, plan::Plan, record::RunStarted};
use serde_json::{Map, Value, json};

/// The key in a run's conf that says which request it is for; the operators derive effect keys from it.
pub(crate) const REQUEST_KEY: &str = "dagwright_request_id";

/// The key in a run's conf with the data interval of the request.
pub(crate) const INTERVAL_KEY: &str = "dagwright_interval";

/// The key in a run's conf that says that committed cursors neither bound the reading nor move.
pub(crate) const BACKFILL_KEY: &str = "dagwright_backfill";

/// The key in a run's conf that says that staged relations outlive a failure over a schema: another plan may go on from them.
pub(crate) const KEEP_STAGED_KEY: &str = "dagwright_keep_staged";

/// What begins the ids of runs that we trigger.
const PREFIX: &str = "dagwright__";

/// What stands before the version of the plan, from the second on.
const VERSION: &str = "__v";

/// Returns the id of the run of a version of a request's plan: derived, so that however often it is triggered there is one.
#[must_use]
pub fn of(request: &RequestId, version: u32) -> String {
    match version {
        0 | 1 => format!("{PREFIX}{request}"),
        later => format!("{PREFIX}{request}{VERSION}{later}"),
    }
}

/// Tells whether a run is one of a request, of whatever version of its plan.
#[must_use]
pub fn is_of(run_id: &str, request: &RequestId) -> bool {
    let rest = run_id.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(request.0.as_str()));
    let version = rest.map(|rest| rest.strip_prefix(VERSION).map_or((rest, true), |version| (version, false)));
    match version {
        Some((rest, true)) => rest.is_empty(),
        Some((version, false)) => version.parse::<u32>().is_ok_and(|version| of(request, version) == run_id),
        None => false,
    }
}

/// Returns what identifies the effects of a run: the request that it was triggered for, or else the run itself, as the
/// operators say.
#[must_use]
pub fn effect(dag_id: &str, run_id: &str) -> String {
    let Some(request) = run_id.strip_prefix(PREFIX) else { return format!("{dag_id}/{run_id}") };
    let version = request.rsplit_once(VERSION).filter(|(_, version)| version.parse::<u32>().is_ok());
    version.map_or(request, |(request, _)| request).to_owned()
}

/// Returns how the run of a request is triggered.
pub(crate) fn trigger(plan: &Plan, request: &RequestId, started: &RunStarted, run_id: &str) -> Trigger {
    let params: &BTreeMap<String, Value> = &started.params;
    let mut conf: Map<String, Value> = params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    conf.insert(REQUEST_KEY.into(), request.0.clone().into());
    if started.backfill {
        conf.insert(BACKFILL_KEY.into(), true.into());
    }
    if started.keep_staged {
        conf.insert(KEEP_STAGED_KEY.into(), true.into());
    }
    if let Some(interval) = &started.interval {
        conf.insert(INTERVAL_KEY.into(), json!({ "start": interval.start, "end": interval.end }));
    }
    Trigger {
        dag_id: plan.dag_id.clone(),
        run_id: run_id.to_owned(),
        conf,
        // Airflow has one run of a DAG for each logical date, and many requests may be about one interval.
        logical_date: None,
        data_interval: None,
        note: Some(format!("Triggered by Dagwright for request {request}.")),
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::id::RequestId;

    use super::{effect, is_of, of};

    #[test]
    fn each_version_of_a_plan_has_one_run_and_all_have_one_effect() {
        let request = RequestId("0a1b".into());
        assert_eq!(of(&request, 1), "dagwright__0a1b");
        assert_eq!(of(&request, 2), "dagwright__0a1b__v2");
        for version in [1, 2, 13] {
            let run_id = of(&request, version);
            assert_eq!(effect("p", &run_id), "0a1b");
            assert!(is_of(&run_id, &request), "{run_id}");
            assert!(!is_of(&run_id, &RequestId("0a1".into())), "{run_id}");
        }
        for other in
            ["scheduled__2025", "dagwright__0a1b__v", "dagwright__0a1b__v1", "dagwright__0a1b__v02", "dagwright__0a1bc"]
        {
            assert!(!is_of(other, &request), "{other}");
        }
        assert_eq!(effect("p", "scheduled__2025"), "p/scheduled__2025");
    }
}
