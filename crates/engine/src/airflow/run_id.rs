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

/// What begins the ids of runs that we trigger.
const PREFIX: &str = "dagwright__";

/// Returns the id of the run of a request: derived, so that however often it is triggered there is one.
#[must_use]
pub fn of(request: &RequestId) -> String {
    format!("{PREFIX}{request}")
}

/// Returns what identifies the effects of a run: the request that it was triggered for, or else the run itself, as the
/// operators say.
#[must_use]
pub fn effect(dag_id: &str, run_id: &str) -> String {
    run_id.strip_prefix(PREFIX).map_or_else(|| format!("{dag_id}/{run_id}"), str::to_owned)
}

/// Returns how the run of a request is triggered.
pub(crate) fn trigger(plan: &Plan, request: &RequestId, started: &RunStarted, run_id: &str) -> Trigger {
    let params: &BTreeMap<String, Value> = &started.params;
    let mut conf: Map<String, Value> = params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    conf.insert(REQUEST_KEY.into(), request.0.clone().into());
    if started.backfill {
        conf.insert(BACKFILL_KEY.into(), true.into());
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
