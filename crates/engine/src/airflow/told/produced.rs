//! Records of the event producer in Airflow's own provider for Kafka, on the topic `airflow.events`.
//!
//! Looked at in apache-airflow-providers-apache-kafka 2.1.0, run under Airflow 2.11.2 and 3.3.2. Its settings say that
//! it is there since 1.14.1, which was never published: 1.14.0 does not have it yet, 1.15.0 does, with the same records.
//!
//! | part of a record | what it is |
//! |---|---|
//! | key | `<dag_id>/<run_id>`, so that what is told of a run keeps its order |
//! | headers | none |
//! | value | one JSON object, in ASCII |
//!
//! | field | what it is |
//! |---|---|
//! | `schema_version` | 1 |
//! | `source` | which Airflow: a setting, else the machine's name |
//! | `event` | `dag_run.` and `running`, `success` or `failed`; `task_instance.` and one of these or `skipped` |
//! | `timestamp` | when its hook was called, with microseconds and `+00:00` |
//! | `dag_id`, `run_id` | the run |
//! | `run_type`, `msg` | of a run: texts, empty where there is none |
//! | `logical_date`, `start_date`, `end_date` | of a run: as Python prints instants (a blank before the time), empty where there is none |
//! | `task_id`, `try_number`, `map_index` (−1 where it is not mapped) | of a task instance |
//! | `previous_state` | of a task instance: `queued`, or in 3.x `TaskInstanceState.QUEUED`; passed over here |
//! | `error` | of a try that failed, where Airflow has it: whatever text the exception has |
//!
//! So it does not say for which request a run is, by which plan, when a try started, or whether another one follows. And it
//! is a listener, so it knows nothing of what listeners are not told of. Events of every DAG of that Airflow are on the
//! topic: whose DAG is whose is not known here.

use dagwright_airflow::{RunState, TaskState};
use dagwright_model::{code::Code, id::TaskId};
use serde_json::Value;

use super::{
    Failure, Refused, Told, ToldRun, ToldTask, What,
    fields::{Fields, MESSAGE_CHARS_MAX, object},
};

/// The longest record that is read, in bytes: what topics take unless they are told to take more.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// The version of the records that is read.
const VERSION: u64 = 1;

/// Reads the value of a record; `None` where it tells of something else than runs and tasks coming into a state.
///
/// # Errors
/// [`Refused`] when it is not as the producer writes it.
pub fn read(value: &[u8]) -> Result<Option<Told>, Refused> {
    let map = object(value, RECORD_BYTES_MAX)?;
    let fields = Fields(&map);
    if fields.get("schema_version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(Refused::Version { field: "schema_version" });
    }
    let what = match fields.text("event")? {
        "dag_run.running" => run(fields, RunState::Running)?,
        "dag_run.success" => run(fields, RunState::Success)?,
        "dag_run.failed" => run(fields, RunState::Failed)?,
        "task_instance.running" => task(fields, TaskState::Running)?,
        "task_instance.success" => task(fields, TaskState::Success)?,
        "task_instance.failed" => task(fields, TaskState::Failed)?,
        "task_instance.skipped" => task(fields, TaskState::Skipped)?,
        _ => return Ok(None),
    };
    Ok(Some(Told {
        dag_id: fields.text("dag_id")?.into(),
        run_id: fields.text("run_id")?.into(),
        at: fields.instant("timestamp")?,
        what,
    }))
}

fn run(fields: Fields<'_>, state: RunState) -> Result<What, Refused> {
    let run_type = fields.text_or_none("run_type")?.filter(|kind| !kind.is_empty());
    // A run that is taken up again keeps its old end until it ends again.
    let ended_at = if state == RunState::Running { None } else { fields.instant_or_none("end_date")? };
    Ok(What::Run(Box::new(ToldRun {
        state,
        run_type: run_type.map(Into::into),
        interval: None,
        request: None,
        plan: None,
        clear_number: None,
        started_at: fields.instant_or_none("start_date")?,
        ended_at,
    })))
}

fn task(fields: Fields<'_>, state: TaskState) -> Result<What, Refused> {
    Ok(What::Task(Box::new(ToldTask {
        task: TaskId(fields.text("task_id")?.into()),
        map_index: fields.map_index("map_index")?,
        attempt: fields.number("try_number")?,
        max_tries: None,
        failure: (state == TaskState::Failed).then(|| failure(fields)),
        state,
        is_last: None,
        started_at: None,
        ended_at: None,
        counts: None,
    })))
}

/// Returns what failed. A message that starts with one of our codes never holds data; any other may, and is not kept.
fn failure(fields: Fields<'_>) -> Failure {
    let text = fields.get("error").and_then(Value::as_str).unwrap_or_default();
    let code = text.split_once(": ").and_then(|(code, _)| Code::try_from(code.to_owned()).ok());
    let shown = |char: char| if char.is_control() { ' ' } else { char };
    Failure { code, message: code.map(|_| text.chars().take(MESSAGE_CHARS_MAX).map(shown).collect()) }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use serde_json::{Value, json};

    use super::{RECORD_BYTES_MAX, read};
    use crate::airflow::told::{Failure, Refused, RunState, TaskState, Told, What};

    /// What the producer wrote, as `key` and `value`: a mapped pipeline that succeeds, and one whose quality gate fails.
    const SAMPLES: [&str; 2] =
        [include_str!("samples/produced-2.11.2.jsonl"), include_str!("samples/produced-3.3.2.jsonl")];

    fn records(sample: &str) -> Vec<(String, String)> {
        let record = |line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let text = |name| record[name].as_str().expect("a text").to_owned();
            (text("key"), text("value"))
        };
        sample.lines().map(record).collect()
    }

    #[track_caller]
    fn told(value: &str) -> Told {
        read(value.as_bytes()).expect("a record").expect("of a run or a task")
    }

    fn sample(event: &str) -> Value {
        let all =
            records(SAMPLES[1]).into_iter().map(|(_, value)| serde_json::from_str::<Value>(&value).expect("JSON"));
        all.into_iter().find(|value| value["event"] == event).expect("a sample")
    }

    #[test]
    fn what_the_producer_writes_is_read() {
        for sample in SAMPLES {
            let records = records(sample);
            assert_eq!(records.len(), 16);
            let (mut runs, mut mapped) = (Vec::new(), 0);
            for (key, value) in records {
                let told = told(&value);
                assert_eq!(key, format!("{}/{}", told.dag_id, told.run_id));
                match told.what {
                    What::Run(run) => {
                        assert_eq!(run.run_type.as_deref(), Some("manual"));
                        assert!(run.started_at < run.ended_at && run.ended_at < Some(told.at));
                        runs.push((told.dag_id, run.state));
                    }
                    What::Task(task) => {
                        assert_eq!((task.attempt, task.is_last), (1, None));
                        mapped += usize::from(task.map_index.is_some());
                        let failure = task.failure.map(|failure| failure.code.expect("a code").to_string());
                        assert_eq!(failure.as_deref(), (task.state == TaskState::Failed).then_some("DW0501"));
                    }
                }
            }
            assert_eq!(runs, [("parts".into(), RunState::Success), ("carriers".into(), RunState::Failed)]);
            assert_eq!(mapped, 6, "two for each of three instances");
        }
    }

    #[test]
    fn instants_may_be_of_other_zones_or_none() {
        let mut record = sample("dag_run.success");
        record["start_date"] = "2026-01-02T05:04:05+02:00".into();
        record["end_date"] = "".into();
        let What::Run(run) = told(&record.to_string()).what else { panic!("a run") };
        let wanted: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().expect("an instant");
        assert_eq!((run.started_at, run.ended_at), (Some(wanted), None));
        record["event"] = "dag_run.running".into();
        record["end_date"] = "2026-01-01 00:00:00+00:00".into();
        let What::Run(run) = told(&record.to_string()).what else { panic!("a run") };
        assert_eq!(run.ended_at, None, "the end of before it was cleared");
    }

    #[test]
    fn texts_that_may_hold_data_are_not_kept() {
        let mut record = sample("task_instance.failed");
        for (error, code, message) in [
            (json!(null), None, None),
            (json!("KeyError: 'ann@example.org'"), None, None),
            (json!("DW9999: ann"), None, None),
            (json!("DW0401 ann"), None, None),
            (json!("DW0401: no route\n\u{1b}[2J"), Some("DW0401"), Some("DW0401: no route  [2J")),
        ] {
            record["error"] = error.clone();
            let What::Task(task) = told(&record.to_string()).what else { panic!("a task") };
            let Failure { code: found, message: kept } = task.failure.expect("a failure");
            assert_eq!((found.map(|code| code.to_string()).as_deref(), kept.as_deref()), (code, message), "{error}");
        }
        record["error"] = format!("DW0401: {}", "x".repeat(100_000)).into();
        let What::Task(task) = told(&record.to_string()).what else { panic!("a task") };
        assert_eq!(task.failure.and_then(|failure| failure.message).map(|message| message.len()), Some(2_000));
    }

    #[test]
    fn what_is_no_record_of_the_producer_is_refused_by_its_field() {
        let long = "x".repeat(1_001);
        let (run, task) = ("dag_run.success", "task_instance.success");
        for (event, field, values) in [
            (run, "schema_version", vec![json!(null), json!(2), json!("1")]),
            (run, "event", vec![json!(null), json!(1), json!("")]),
            (run, "timestamp", vec![json!(null), json!(""), json!("soon"), json!(1_700_000_000)]),
            (run, "dag_id", vec![json!(null), json!(""), json!(long), json!("a\nb")]),
            (run, "run_id", vec![json!(null), json!([]), json!(long)]),
            (run, "start_date", vec![json!("None"), json!(0)]),
            (run, "end_date", vec![json!("2026-01-02")]),
            (run, "run_type", vec![json!(1), json!(long)]),
            (task, "task_id", vec![json!(null), json!(""), json!(long)]),
            (task, "map_index", vec![json!(null), json!(-2), json!(0.5)]),
            (task, "try_number", vec![json!(null), json!(-1), json!("1")]),
        ] {
            for value in values {
                let mut record = sample(event);
                record[field] = value.clone();
                let refused = read(record.to_string().as_bytes()).expect_err(field);
                let named = match &refused {
                    Refused::Version { field } | Refused::Field { field, .. } => *field,
                    other => panic!("{field}: {other}"),
                };
                assert_eq!(named, field, "{value}: {refused}");
            }
        }
        assert_eq!(read(b"[]"), Err(Refused::NoObject));
        assert!(matches!(read(&vec![b' '; RECORD_BYTES_MAX + 1]), Err(Refused::TooLong { .. })));
    }

    #[test]
    fn what_later_versions_tell_of_is_passed_over() {
        let mut record = sample("dag_run.success");
        for event in ["asset.changed", "dag_run.queued", "task_instance.deferred"] {
            record["event"] = event.into();
            assert_eq!(read(record.to_string().as_bytes()), Ok(None));
        }
    }
}
