//! What REST v2 says in its own way: Airflow 3.x, as it was seen to answer.
//!
//! It takes no key that it does not know, and asks for a logical date, if only for null. That a run id is taken it says as any
//! violated constraint, without naming the run.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    backfill::BackfillRequest,
    run::Trigger,
    service::Pool,
    task::{Answer, Clear, ClearedTask, TaskMark},
    v1::{self, instant},
};

/// What logs come as, one JSON object a line; it has no text.
pub(crate) const LOG: &str = "application/x-ndjson";

/// What a task asks people, as far as their answer goes.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    #[serde(default)]
    response_received: bool,
    #[serde(default)]
    chosen_options: Option<Vec<String>>,
    #[serde(default)]
    responded_by_user: Option<User>,
}

#[derive(Debug, Deserialize)]
struct User {
    name: String,
}

impl Question {
    /// Returns the answer, once there is one.
    pub(crate) fn answer(self) -> Option<Answer> {
        let chosen = self.chosen_options.filter(|_| self.response_received)?;
        Some(Answer { chosen, by: self.responded_by_user.map(|user| user.name) })
    }
}

pub(crate) fn trigger(trigger: &Trigger) -> Value {
    let mut body = v1::common(trigger);
    body.insert("logical_date".into(), json!(trigger.logical_date.map(instant)));
    Value::Object(body)
}

pub(crate) fn clear(clear: &Clear, dry_run: bool) -> Value {
    let named = |task: &ClearedTask| match task.map_index {
        Some(index) => json!([task.task_id, index]),
        None => json!(task.task_id),
    };
    v1::clearing(clear, dry_run, clear.tasks.as_ref().map(|tasks| tasks.iter().map(named).collect()))
}

pub(crate) fn mark_task(mark: TaskMark) -> Value {
    json!({ "new_state": mark.as_str() })
}

/// The body that changes a pool's slots: whatever the mask of what is to be changed says, the rest is asked for too.
pub(crate) fn pool_slots(pool: &Pool, slots: i64) -> Value {
    json!({ "pool": pool.name, "slots": slots, "include_deferred": pool.include_deferred })
}

pub(crate) fn backfill(request: &BackfillRequest) -> Value {
    json!({
        "dag_id": request.dag_id,
        "from_date": instant(request.from),
        "to_date": instant(request.to),
        "run_backwards": request.backwards,
        "dag_run_conf": request.conf,
        "reprocess_behavior": request.reprocess.as_str(),
        "max_active_runs": request.max_active_runs,
    })
}
