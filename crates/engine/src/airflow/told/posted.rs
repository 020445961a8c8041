//! Events that the listener of `dagwright-airflow` posts: one JSON object each, described by
//! `docs/feedback.schema.json`. Fields that are not known are passed over, as later versions may have more.
//!
//! Who posts has shown by a signature that it is the listener. What it says is bounded and checked all the same: it tells
//! what Airflow, and whoever starts runs there, wrote into names and messages.

use chrono::{DateTime, Utc};
use dagwright_airflow::{RunState, TaskState};
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
};

use super::{
    Failure, Refused, Told, ToldRun, ToldTask, What,
    fields::{Fields, MESSAGE_CHARS_MAX, object},
};

/// The longest event that is taken, in bytes: what the listener's spool holds of one.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

/// The version of the contract that is read.
const VERSION: u64 = 1;

/// How long an event's id is, in hexadecimal digits.
const ID_DIGITS: usize = 32;

/// The longest id of a request, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 200;

/// An event, with what is the same for every kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// Derived from what happened, so the same change has the same id however often, and by whomever, it is told.
    pub id: String,
    /// When the listener's hook was called, by the clock of `host`.
    pub at: DateTime<Utc>,
    /// The machine that tells it.
    pub host: String,
    /// What is told.
    pub content: Content,
}

/// What an event tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A run or a task came into a state.
    Told(Box<Told>),
    /// So many events got lost, as the spool of the machine had no room for them.
    Dropped(u32),
}

type Interval = (DateTime<Utc>, DateTime<Utc>);

/// Reads an event.
///
/// # Errors
/// [`Refused`] when it is not as the contract says; it never will be.
pub fn read(bytes: &[u8]) -> Result<Posted, Refused> {
    let map = object(bytes, EVENT_BYTES_MAX)?;
    let fields = Fields(&map);
    if fields.get("version").and_then(serde_json::Value::as_u64) != Some(VERSION) {
        return Err(Refused::Version { field: "version" });
    }
    let id = fields.text("id")?;
    if !is_hexadecimal(id, ID_DIGITS) {
        return Err(Refused::Field { field: "id", problem: "is no 32 hexadecimal digits" });
    }
    let at = fields.instant("at")?;
    let content = match fields.text("kind")? {
        "dag_run" => Content::Told(Box::new(told(fields, at, What::Run(Box::new(run(fields)?)))?)),
        "task_instance" => Content::Told(Box::new(told(fields, at, What::Task(Box::new(task(fields)?)))?)),
        "events_dropped" => match fields.number("dropped")? {
            0 => return Err(Refused::Field { field: "dropped", problem: "is 0" }),
            dropped => Content::Dropped(dropped),
        },
        _ => return Err(Refused::Field { field: "kind", problem: "is none that is known" }),
    };
    Ok(Posted { id: id.into(), at, host: fields.text("host")?.into(), content })
}

fn told(fields: Fields<'_>, at: DateTime<Utc>, what: What) -> Result<Told, Refused> {
    Ok(Told { dag_id: fields.text("dag_id")?.into(), run_id: fields.text("dag_run_id")?.into(), at, what })
}

fn run(fields: Fields<'_>) -> Result<ToldRun, Refused> {
    let state = match fields.text("state")? {
        "running" => RunState::Running,
        "success" => RunState::Success,
        "failed" => RunState::Failed,
        _ => return Err(Refused::Field { field: "state", problem: "is none of a DAG run that is told of" }),
    };
    Ok(ToldRun {
        state,
        run_type: fields.text_or_none("run_type")?.map(Into::into),
        interval: interval(fields)?,
        request: request(fields)?,
        plan: plan(fields)?,
        clear_number: fields.number_or_none("clear_number")?,
        started_at: fields.instant_or_none("started_at")?,
        ended_at: fields.instant_or_none("ended_at")?,
    })
}

fn task(fields: Fields<'_>) -> Result<ToldTask, Refused> {
    let (state, is_last) = match fields.text("state")? {
        "running" => (TaskState::Running, None),
        "success" => (TaskState::Success, None),
        "failed" => (TaskState::Failed, Some(true)),
        "up_for_retry" => (TaskState::UpForRetry, Some(false)),
        "skipped" => (TaskState::Skipped, None),
        _ => return Err(Refused::Field { field: "state", problem: "is none of a task instance that is told of" }),
    };
    Ok(ToldTask {
        task: TaskId(fields.text("task_id")?.into()),
        map_index: fields.map_index("map_index")?,
        attempt: fields.number("try_number")?,
        max_tries: fields.number_or_none("max_tries")?,
        state,
        is_last,
        started_at: fields.instant_or_none("started_at")?,
        ended_at: fields.instant_or_none("ended_at")?,
        failure: failure(fields)?,
        counts: fields.counts("counts")?,
    })
}

fn failure(fields: Fields<'_>) -> Result<Option<Failure>, Refused> {
    let Some(error) = fields.object_or_none("error")? else { return Ok(None) };
    // A code of a later version is none here; the message has it too.
    let code = error.text_or_none("code")?.and_then(|code| Code::try_from(code.to_owned()).ok());
    let kind = error.text_or_none("type")?;
    // Where the message might hold data, the type stands for it.
    let message = error.bounded("message", MESSAGE_CHARS_MAX)?.or(kind);
    Ok(Some(Failure { code, message: message.map(Into::into) }))
}

fn interval(fields: Fields<'_>) -> Result<Option<Interval>, Refused> {
    let Some(interval) = fields.object_or_none("data_interval")? else { return Ok(None) };
    let (start, end) = (interval.instant("start")?, interval.instant("end")?);
    if start >= end {
        return Err(Refused::Field { field: "data_interval", problem: "ends before it starts" });
    }
    Ok(Some((start, end)))
}

fn request(fields: Fields<'_>) -> Result<Option<RequestId>, Refused> {
    let Some(id) = fields.text_or_none("request_id")? else { return Ok(None) };
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let begins_well = id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !begins_well || id.len() > REQUEST_ID_BYTES_MAX || !id.bytes().all(is_fine) {
        return Err(Refused::Field { field: "request_id", problem: "is no id of a request" });
    }
    Ok(Some(RequestId(id.into())))
}

fn plan(fields: Fields<'_>) -> Result<Option<PlanHash>, Refused> {
    let Some(hash) = fields.text_or_none("plan_hash")? else { return Ok(None) };
    if !is_hexadecimal(hash, 64) {
        return Err(Refused::Field { field: "plan_hash", problem: "is no 64 hexadecimal digits" });
    }
    Ok(Some(PlanHash(hash.into())))
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use dagwright_model::task::Counts;
    use serde_json::{Value, json};

    use super::{Content, EVENT_BYTES_MAX, Posted, read};
    use crate::airflow::told::{Refused, RunState, TaskState, Told, What};

    /// What the package posted under the Airflows that it is tested with: a mapped pipeline that succeeds, and one whose
    /// quality gate fails.
    const SAMPLES: [&str; 2] =
        [include_str!("samples/posted-2.11.2.jsonl"), include_str!("samples/posted-3.3.2.jsonl")];

    fn told(posted: Posted) -> Told {
        match posted.content {
            Content::Told(told) => *told,
            Content::Dropped(_) => panic!("{posted:?}"),
        }
    }

    fn sample(state: &str, kind: &str) -> Value {
        let all = SAMPLES[1].lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut found = all.filter(|event| event["state"] == state && event["kind"] == kind);
        found.next().expect("a sample")
    }

    #[test]
    fn what_the_package_posts_is_read() {
        for sample in SAMPLES {
            let all: Vec<_> = sample.lines().map(|line| told(read(line.as_bytes()).expect("an event"))).collect();
            assert_eq!(all.len(), 16);
            let mut counted = Counts::default();
            for told in &all {
                assert!(told.run_id.starts_with("manual__"));
                let is_parts = told.dag_id == "parts";
                assert!(is_parts || told.dag_id == "carriers");
                match &told.what {
                    What::Run(run) => {
                        assert_eq!(run.state, if is_parts { RunState::Success } else { RunState::Failed });
                        assert_eq!(run.request.as_ref().map(|id| id.0.as_str()), is_parts.then_some("0198-abc"));
                        assert!(run.plan.as_ref().is_some_and(|plan| plan.0.len() == 64));
                        assert_eq!((run.run_type.as_deref(), run.clear_number), (Some("manual"), Some(0)));
                        assert!(run.started_at < run.ended_at && run.interval.is_none());
                    }
                    What::Task(task) => {
                        assert_eq!(
                            (task.attempt, task.is_last),
                            (1, (task.state == TaskState::Failed).then_some(true))
                        );
                        assert_eq!(task.ended_at.is_some(), task.state != TaskState::Running);
                        assert_eq!(task.counts.is_some(), task.state == TaskState::Success);
                        assert_eq!(task.map_index.is_some(), is_parts && task.task.0 == "load_sink");
                        assert_eq!(task.failure.is_some(), task.state == TaskState::Failed);
                        task.counts.iter().for_each(|counts| counted.add(counts));
                    }
                }
            }
            let failures: Vec<_> = all
                .iter()
                .filter_map(|told| match &told.what {
                    What::Task(task) => task.failure.clone(),
                    What::Run(_) => None,
                })
                .collect();
            let [failure] = failures.as_slice() else { panic!("{failures:?}") };
            assert_eq!(failure.code.map(|code| code.to_string()).as_deref(), Some("DW0501"));
            assert_eq!(failure.message.as_deref(), Some("DW0501: too many (has_carrier). look"));
            assert!(!counted.sinks.is_empty(), "{counted:?}");
        }
    }

    #[test]
    fn the_example_of_the_documentation_is_one() {
        let documentation = include_str!("../../../../../docs/airflow.md");
        let (_, rest) = documentation.split_once("```json\n").expect("an example");
        let (example, _) = rest.split_once("\n```").expect("an end");
        let example = example.replace("8a3c…", &"8a3c".repeat(8)).replace("f48f…", &"f48f".repeat(16));
        let told = told(read(example.as_bytes()).expect("an event"));
        let What::Task(task) = told.what else { panic!("{told:?}") };
        assert_eq!(
            (told.dag_id.as_str(), task.task.0.as_str(), task.max_tries),
            ("aviation.flights_daily", "load_sink", Some(3))
        );
        assert!(task.started_at < task.ended_at);
    }

    #[test]
    fn what_was_dropped_is_told() {
        let event = json!({
            "version": 1, "id": "0".repeat(32), "kind": "events_dropped", "at": "2026-01-02T03:04:05Z", "host": "worker-1",
            "airflow_version": null, "report": "dropped-1", "dropped": 7, "and": { "more": ["later"] },
        });
        let posted = read(event.to_string().as_bytes()).expect("an event");
        assert_eq!((posted.content, posted.host.as_str()), (Content::Dropped(7), "worker-1"));
    }

    #[test]
    fn what_airflow_does_not_have_is_nothing() {
        let mut event = sample("running", "task_instance");
        for (field, value) in event.as_object_mut().expect("an object") {
            if ![
                "version",
                "id",
                "kind",
                "at",
                "host",
                "dag_id",
                "dag_run_id",
                "state",
                "task_id",
                "map_index",
                "try_number",
            ]
            .contains(&field.as_str())
            {
                *value = Value::Null;
            }
        }
        let told = told(read(event.to_string().as_bytes()).expect("an event"));
        let What::Task(task) = told.what else { panic!("{told:?}") };
        assert_eq!((task.started_at, task.max_tries, task.failure), (None, None, None));
    }

    #[test]
    fn a_try_that_is_not_the_last_says_so() {
        let mut event = sample("failed", "task_instance");
        event["state"] = "up_for_retry".into();
        event["error"] = json!({ "code": "DW9999", "type": "KeyError", "message": null });
        let told = told(read(event.to_string().as_bytes()).expect("an event"));
        let What::Task(task) = told.what else { panic!("{told:?}") };
        assert_eq!((task.state, task.is_last), (TaskState::UpForRetry, Some(false)));
        let failure = task.failure.expect("a failure");
        assert_eq!((failure.code, failure.message.as_deref()), (None, Some("KeyError")));
    }

    #[test]
    fn counts_that_do_not_add_up_are_none() {
        let mut event = sample("success", "task_instance");
        for counts in [
            json!({ "sinks": { "s": { "produced": -1, "loaded": 0, "quarantined": 0, "superseded": 0, "bytes": 0 } } }),
            json!({ "steps": { "s": u64::MAX } }),
            json!({ "steps": { "s": 1.5 } }),
            json!({ "steps": { "NO NAME": 1 } }),
            json!({ "sources": [] }),
        ] {
            event["counts"] = counts.clone();
            let told = told(read(event.to_string().as_bytes()).expect("an event"));
            let What::Task(task) = told.what else { panic!("{told:?}") };
            assert_eq!((task.state, task.counts), (TaskState::Success, None), "{counts}");
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused_by_its_field() {
        let long = "x".repeat(1_001);
        let both = ["dag_run", "task_instance"];
        for (kinds, field, values) in [
            (&both[..], "version", vec![json!(null), json!(2), json!("1"), json!(1.5)]),
            (
                &both,
                "id",
                vec![
                    json!(null),
                    json!(7),
                    json!(""),
                    json!("0".repeat(31)),
                    json!("G".repeat(32)),
                    json!("é".repeat(16)),
                ],
            ),
            (&both, "kind", vec![json!(null), json!("asset"), json!(["dag_run"])]),
            (
                &both,
                "at",
                vec![json!(null), json!(0), json!("soon"), json!("2026-13-02T03:04:05Z"), json!("2026-01-02T03:04:05")],
            ),
            (&both, "host", vec![json!(null), json!(""), json!(long), json!("a\nb")]),
            (&both, "dag_id", vec![json!(null), json!(7), json!(""), json!(long), json!("a\u{0}b")]),
            (&both, "dag_run_id", vec![json!(null), json!({}), json!(long), json!("\u{1b}[2J")]),
            (&both, "state", vec![json!(null), json!("queued"), json!("SUCCESS"), json!(1)]),
            (&both, "started_at", vec![json!(5), json!("never")]),
            (&both, "ended_at", vec![json!(true), json!("2026-01-02")]),
            (
                &both[..1],
                "data_interval",
                vec![json!("daily"), json!({ "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z" })],
            ),
            (&both[..1], "run_type", vec![json!(1), json!(long)]),
            (
                &both[..1],
                "request_id",
                vec![json!(1), json!(""), json!("-x"), json!("a b"), json!("x".repeat(201)), json!("ä")],
            ),
            (&both[..1], "plan_hash", vec![json!(""), json!("A".repeat(64)), json!("a".repeat(63)), json!([])]),
            (&both[..1], "clear_number", vec![json!(-1), json!(1.5), json!("1"), json!(u64::from(u32::MAX) + 1)]),
            (&both[1..], "task_id", vec![json!(null), json!(""), json!(long)]),
            (&both[1..], "map_index", vec![json!(null), json!(-2), json!(1e10), json!("0")]),
            (&both[1..], "try_number", vec![json!(null), json!(-1), json!(1e300)]),
            (&both[1..], "max_tries", vec![json!(-1), json!("3")]),
            (&both[1..], "error", vec![json!("KeyError"), json!([])]),
            (&both[1..], "counts", vec![json!(1), json!([1])]),
        ] {
            for (kind, value) in kinds.iter().flat_map(|kind| values.iter().map(move |value| (kind, value))) {
                let mut event = sample("success", kind);
                event[field] = value.clone();
                let refused = read(event.to_string().as_bytes()).expect_err(field);
                let named = match &refused {
                    Refused::Version { field } | Refused::Field { field, .. } => *field,
                    other => panic!("{field}: {other}"),
                };
                assert_eq!(named, field, "{kind}, {value}: {refused}");
                assert_eq!(refused.code().to_string(), "DW0121");
            }
        }
    }

    #[test]
    fn parts_of_what_is_told_are_refused_by_theirs() {
        let mut event = sample("failed", "task_instance");
        event["error"] = json!({ "message": "x".repeat(2_001) });
        let refused = |event: &Value| read(event.to_string().as_bytes()).expect_err("refused").to_string();
        assert_eq!(refused(&event), "`message` is too long");
        let mut event = sample("failed", "dag_run");
        event["data_interval"] = json!({ "start": "2026-01-02T00:00:00Z" });
        assert_eq!(refused(&event), "`end` is missing");
    }

    #[test]
    fn what_is_no_event_at_all_is_refused() {
        let deep = "[".repeat(EVENT_BYTES_MAX);
        for bytes in [&b""[..], b"null", b"[]", b"{", b"\xff\xfe", b"{} {}", br#"{"id": "\ud800"}"#, deep.as_bytes()] {
            assert_eq!(read(bytes), Err(Refused::NoObject));
        }
        let refused = read(&vec![b' '; EVENT_BYTES_MAX + 1]).expect_err("refused");
        assert_eq!(refused, Refused::TooLong { bytes: EVENT_BYTES_MAX + 1, max: EVENT_BYTES_MAX });
        assert_eq!(refused.code().to_string(), "DW0802");
    }
}
