//! What REST v1 says in its own way: Airflow 2.11, as it was seen to answer.
//!
//! Marking and clearing change nothing unless `dry_run: false` says so; XComs are Python's text unless asked for otherwise; of
//! a pool without end it cannot answer at all (500), as its open slots are no number that JSON has.

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::{
    run::Trigger,
    task::{Clear, TaskMark},
};

/// What logs come as; the other choice is Python's representation of lines, in JSON.
pub(crate) const LOG: &str = "text/plain";

/// How an XCom's value comes as JSON.
pub(crate) const XCOM: [(&str, &str); 1] = [("stringify", "false")];

pub(crate) fn trigger(trigger: &Trigger) -> Value {
    let mut body = common(trigger);
    // Without a logical date Airflow takes the instant of the call; an explicit null it refuses.
    if let Some(date) = trigger.logical_date {
        body.insert("logical_date".into(), json!(instant(date)));
    }
    Value::Object(body)
}

/// What both APIs want of a trigger.
pub(crate) fn common(trigger: &Trigger) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("dag_run_id".into(), json!(trigger.run_id));
    body.insert("conf".into(), json!(trigger.conf));
    if let Some((start, end)) = trigger.data_interval {
        body.insert("data_interval_start".into(), json!(instant(start)));
        body.insert("data_interval_end".into(), json!(instant(end)));
    }
    if let Some(note) = &trigger.note {
        body.insert("note".into(), json!(note));
    }
    body
}

/// The body of a clearing; the tasks are named without their map index, which v1 has no place for.
pub(crate) fn clear(clear: &Clear, dry_run: bool) -> Value {
    let tasks = clear.tasks.as_ref().map(|tasks| tasks.iter().map(|task| json!(task.task_id)).collect());
    clearing(clear, dry_run, tasks)
}

/// What both APIs want of a clearing, all of it said: their defaults are a dry run and, of v1, a run that stays ended.
pub(crate) fn clearing(clear: &Clear, dry_run: bool, tasks: Option<Vec<Value>>) -> Value {
    let mut body = json!({
        "dry_run": dry_run,
        "dag_run_id": clear.run_id,
        "only_failed": clear.only_failed,
        "only_running": false,
        "reset_dag_runs": true,
        "include_upstream": false,
        "include_downstream": clear.downstream,
        "include_future": false,
        "include_past": false,
    });
    if let Some(tasks) = tasks {
        body["task_ids"] = Value::Array(tasks);
    }
    body
}

pub(crate) fn mark_task(mark: TaskMark) -> Value {
    json!({ "dry_run": false, "new_state": mark.as_str() })
}

/// The body that changes a pool's slots.
pub(crate) fn pool_slots(slots: i64) -> Value {
    json!({ "slots": slots })
}

/// Writes an instant as both APIs take it, in queries too.
pub(crate) fn instant(at: chrono::DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
