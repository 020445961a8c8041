//! Every call: what is sent to either API, and what is made of its answer.

use std::fmt;

use dagwright_airflow::{
    Airflow, Answer, Api, AssetEventFilter, BackfillAction, BackfillRequest, Clear, ClearedTask, DagFilter, Deleted,
    Error, PoolSet, Reprocess, RunFilter, RunMark, RunState, Span, TaskKey, TaskMark, TaskState, Trigger, Triggered,
};
use dagwright_model::code::Code;
use serde_json::{Map, Value, json};
use wiremock::ResponseTemplate;

use crate::{BOTH, Fake, problem, run, task};

const RUNS: &str = "/dags/flights/dagRuns";
const TASKS: &str = "/dags/flights/dagRuns/r1/taskInstances";
const CLEAR: &str = "/dags/flights/clearTaskInstances";

fn trigger() -> Trigger {
    Trigger {
        dag_id: "flights".into(),
        run_id: "r1".into(),
        conf: Map::from_iter([("region".to_owned(), json!("eu"))]),
        logical_date: None,
        data_interval: None,
        note: None,
    }
}

fn key(map_index: Option<u32>) -> TaskKey {
    TaskKey { dag_id: "flights".into(), run_id: "r1".into(), task_id: "load".into(), map_index }
}

fn clear(tasks: Option<Vec<ClearedTask>>) -> Clear {
    Clear { dag_id: "flights".into(), run_id: "r1".into(), tasks, only_failed: true, downstream: false }
}

fn named(task_id: &str, map_index: Option<i64>) -> ClearedTask {
    ClearedTask { task_id: task_id.into(), map_index }
}

#[track_caller]
fn expect_not_offered<T: fmt::Debug>(answer: Result<T, Error>) {
    let error = answer.expect_err("v1 has nothing like it");
    assert!(matches!(error, Error::NotOffered { .. }), "{error}");
    assert_eq!(error.code(), Code::AirflowNotOffered);
}

#[tokio::test]
async fn the_version_is_found_and_asked_for_once() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.answer("GET", "/dags/flights", 404, problem(api, 404, "no DAG flights")).await;
        let client = fake.client();
        for _ in 0..3 {
            assert!(client.dag("flights").await.expect_err("no DAG").is_not_found());
        }
        let asked = fake.server.received_requests().await.expect("requests").len();
        assert_eq!(asked, 3 + if api == Api::V1 { 2 } else { 1 });
        assert_eq!(client.version().await.expect("a version").major, if api == Api::V1 { 2 } else { 3 });
    }
}

#[tokio::test]
async fn health_is_read() {
    let body = json!({
        "metadatabase": { "status": "healthy" },
        "scheduler": { "status": "healthy", "latest_scheduler_heartbeat": "2025-01-01T00:00:00.000000+00:00" },
        "triggerer": { "status": null, "latest_triggerer_heartbeat": null },
        "dag_processor": { "status": null, "latest_dag_processor_heartbeat": null },
    });
    for (api, path) in [(Api::V1, "/health"), (Api::V2, "/monitor/health")] {
        let fake = Fake::start(api).await;
        fake.answer("GET", path, 200, body.clone()).await;
        let health = fake.client().health().await.expect("health");
        assert!(health.is_healthy());
        assert!(health.scheduler.latest_heartbeat.is_some());
        let fake = Fake::start(api).await;
        let mut body = body.clone();
        body["scheduler"]["status"] = json!("unhealthy");
        fake.answer("GET", path, 200, body).await;
        assert!(!fake.client().health().await.expect("health").is_healthy());
    }
}

#[tokio::test]
async fn dags_are_read_listed_paused_and_deleted() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let mut dag = json!({
            "dag_id": "flights", "is_paused": true, "file_token": "to.ken", "fileloc": "/dags/flights.py",
            "has_import_errors": false, "last_parsed_time": null, "tags": [{ "name": "b" }, { "name": "a", "dag_id": "flights" }],
        });
        match api {
            Api::V1 => dag["is_active"] = json!(false),
            Api::V2 => {
                dag["is_stale"] = json!(true);
                dag["bundle_name"] = json!("dags-folder");
                dag["relative_fileloc"] = json!("flights.py");
            }
        }
        fake.answer("GET", "/dags/flights", 200, dag.clone()).await;
        fake.answer("GET", "/dags", 200, json!({ "dags": [dag], "total_entries": 1 })).await;
        fake.answer("PATCH", "/dags/flights", 200, dag).await;
        fake.respond("DELETE", "/dags/flights", ResponseTemplate::new(204)).await;
        fake.respond("PUT", "/parseDagFile/to.ken", ResponseTemplate::new(201)).await;
        let client = fake.client();
        let dag = client.dag("flights").await.expect("a DAG");
        assert_eq!((dag.is_active, dag.is_paused, dag.tags), (false, true, vec!["a".to_owned(), "b".to_owned()]));
        let filter = DagFilter { tags: vec!["a".into(), "b".into()], inactive_too: false };
        assert_eq!(client.dags(&filter, Span { limit: 5, offset: 10 }).await.expect("DAGs").items.len(), 1);
        client.set_paused("flights", false).await.expect("a DAG");
        client.reparse(&dag.file_token).await.expect("taken");
        assert_eq!(client.delete_dag("flights").await.expect("deleted"), Deleted::Now);
        let active = if api == Api::V1 { "only_active" } else { "exclude_stale" };
        assert_eq!(
            fake.said().await,
            [
                "GET /dags/flights".to_owned(),
                format!("GET /dags?{active}=true&order_by=dag_id&tags=a&tags=b&limit=5&offset=10"),
                "PATCH /dags/flights?update_mask=is_paused {\"is_paused\":false}".to_owned(),
                "PUT /parseDagFile/to.ken".to_owned(),
                "DELETE /dags/flights".to_owned(),
            ]
        );
        for request in fake.sent().await.iter().filter(|request| request.body.is_empty()) {
            assert!(!request.headers.contains_key("content-type"), "v1 refuses a content type without a body");
        }
    }
}

#[tokio::test]
async fn a_pending_parse_and_a_deleted_dag_are_as_good() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.answer("PUT", "/parseDagFile/token", 409, problem(api, 409, "Duplicate request")).await;
        fake.answer("DELETE", "/dags/gone", 404, problem(api, 404, "no such DAG")).await;
        fake.answer("DELETE", "/dags/busy", 409, problem(api, 409, "tasks are still running")).await;
        let client = fake.client();
        client.reparse("token").await.expect("one is pending");
        assert_eq!(client.delete_dag("gone").await.expect("gone"), Deleted::Before);
        assert!(client.delete_dag("busy").await.expect_err("busy").is_conflict());
    }
}

#[tokio::test]
async fn import_errors_and_versions_are_listed() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let mut error = json!({
            "import_error_id": 7, "timestamp": "2025-01-01T00:00:00+00:00", "filename": "/dags/bad.py", "stack_trace": "SyntaxError",
        });
        if api == Api::V2 {
            error["filename"] = json!("bad.py");
            error["bundle_name"] = json!("dags-folder");
        }
        fake.answer("GET", "/importErrors", 200, json!({ "import_errors": [error], "total_entries": 1 })).await;
        let version = json!({
            "id": "x", "version_number": 2, "dag_id": "flights", "bundle_name": "b", "bundle_version": "abc",
            "created_at": "2025-01-01T00:00:00Z",
        });
        fake.answer("GET", "/dags/flights/dagVersions", 200, json!({ "dag_versions": [version], "total_entries": 2 }))
            .await;
        let client = fake.client();
        let errors = client.import_errors(Span::first()).await.expect("errors");
        assert!(errors.items[0].is_of("bad.py"));
        assert_eq!(errors.items[0].bundle_name.is_some(), api == Api::V2);
        match api {
            Api::V1 => expect_not_offered(client.dag_versions("flights", Span::first()).await),
            Api::V2 => {
                let versions = client.dag_versions("flights", Span::first()).await.expect("versions");
                assert_eq!((versions.total, versions.items[0].version_number), (2, 2));
            }
        }
    }
}

#[tokio::test]
async fn a_trigger_starts_a_run_and_a_repeat_finds_it() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.once("POST", RUNS, ResponseTemplate::new(200).set_body_json(run(api, "r1", "queued"))).await;
        let taken = match api {
            Api::V1 => problem(api, 409, "DAGRun with DAG ID: 'flights' and DAGRun ID: 'r1' already exists"),
            Api::V2 => {
                json!({ "detail": { "reason": "Unique constraint violation", "statement": "hidden", "message": "Serious error" } })
            }
        };
        fake.answer("POST", RUNS, 409, taken).await;
        fake.answer("GET", &format!("{RUNS}/r1"), 200, run(api, "r1", "running")).await;
        let client = fake.client();
        let first = client.trigger(&trigger()).await.expect("a run");
        assert!(matches!(&first, Triggered::Started(run) if run.state == RunState::Queued));
        assert_eq!(first.run().bundle_version.is_some(), api == Api::V2);
        let again = client.trigger(&trigger()).await.expect("a run");
        assert!(matches!(&again, Triggered::Found(run) if run.state == RunState::Running && run.run_id == "r1"));
        let body = match api {
            Api::V1 => r#"{"conf":{"region":"eu"},"dag_run_id":"r1"}"#,
            Api::V2 => r#"{"conf":{"region":"eu"},"dag_run_id":"r1","logical_date":null}"#,
        };
        assert_eq!(fake.said().await[0], format!("POST {RUNS} {body}"));
    }
}

#[tokio::test]
async fn a_trigger_says_all_it_was_given() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.answer("POST", RUNS, 200, run(api, "r1", "queued")).await;
        let at = |text: &str| text.parse().expect("an instant");
        let given = Trigger {
            conf: Map::new(),
            logical_date: Some(at("2025-01-02T00:00:00Z")),
            data_interval: Some((at("2025-01-01T00:00:00Z"), at("2025-01-02T00:00:00Z"))),
            note: Some("by request".into()),
            ..trigger()
        };
        fake.client().trigger(&given).await.expect("a run");
        let body: Value = fake.sent().await[0].body_json().expect("JSON");
        assert_eq!(
            body,
            json!({
                "dag_run_id": "r1", "conf": {}, "note": "by request", "logical_date": "2025-01-02T00:00:00.000000Z",
                "data_interval_start": "2025-01-01T00:00:00.000000Z", "data_interval_end": "2025-01-02T00:00:00.000000Z",
            })
        );
    }
}

#[tokio::test]
async fn a_trigger_that_meets_another_run_is_a_conflict() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.answer("POST", RUNS, 409, problem(api, 409, "a run with that logical date already exists")).await;
        fake.answer("GET", &format!("{RUNS}/r1"), 404, problem(api, 404, "no such run")).await;
        let error = fake.client().trigger(&trigger()).await.expect_err("a conflict");
        assert!(error.is_conflict() && error.to_string().contains("logical date"), "{error}");
    }
}

#[tokio::test]
async fn runs_are_read_listed_in_pages_and_marked() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let page = json!({ "dag_runs": [run(api, "r1", "running"), run(api, "r2", "of a later version")], "total_entries": 3 });
        fake.answer("GET", "/dags/~/dagRuns", 200, page.clone()).await;
        fake.answer("GET", RUNS, 200, page).await;
        fake.answer("PATCH", &format!("{RUNS}/r1"), 200, run(api, "r1", "failed")).await;
        let client = fake.client();
        let since = "2025-01-01T00:00:00.25Z".parse().expect("an instant");
        let filter = RunFilter { updated_at_gte: Some(since), ..RunFilter::default() };
        let first = Span { limit: 2, offset: 0 };
        let runs = client.runs(&filter, first).await.expect("runs");
        assert_eq!(runs.items[1].state, RunState::Other("of a later version".into()));
        let next = first.after(&runs).expect("a third");
        let filter = RunFilter {
            dag_id: Some("flights".into()),
            states: vec![RunState::Queued, RunState::Running],
            ..RunFilter::default()
        };
        client.runs(&filter, next).await.expect("runs");
        let marked = client.mark_run("flights", "r1", RunMark::Failed).await.expect("a run");
        assert!(marked.state.is_final());
        assert_eq!(
            fake.said().await,
            [
                "GET /dags/~/dagRuns?order_by=id&updated_at_gte=2025-01-01T00%3A00%3A00.250000Z&limit=2&offset=0",
                "GET /dags/flights/dagRuns?order_by=id&state=queued&state=running&limit=2&offset=2",
                "PATCH /dags/flights/dagRuns/r1 {\"state\":\"failed\"}",
            ]
        );
    }
}

#[tokio::test]
async fn task_instances_are_read_and_marked() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let list =
            json!({ "task_instances": [task(api, "load", 0, "awaiting_input"), task(api, "split", -1, "success")] });
        fake.answer("GET", TASKS, 200, list.clone()).await;
        fake.answer("GET", &format!("{TASKS}/load/listMapped"), 200, list).await;
        let mut fresh = task(api, "load", -1, "");
        fresh["state"] = Value::Null;
        fake.answer("GET", &format!("{TASKS}/load"), 200, fresh).await;
        fake.answer("GET", &format!("{TASKS}/load/3"), 200, task(api, "load", 3, "up_for_retry")).await;
        fake.answer("PATCH", &format!("{TASKS}/load/3"), 200, json!({ "task_id": "load" })).await;
        let client = fake.client();
        let tasks = client.task_instances("flights", "r1", Span::first()).await.expect("tasks");
        assert_eq!(tasks.total, 2, "a list without a count is counted");
        assert_eq!(tasks.items[0].state, Some(TaskState::AwaitingInput));
        assert_eq!(tasks.items[0].id.is_some(), api == Api::V2);
        assert_eq!((tasks.items[0].key(), tasks.items[1].key().map_index), (key(Some(0)), None));
        client.mapped_task_instances("flights", "r1", "load", Span::first()).await.expect("tasks");
        assert_eq!(client.task_instance(&key(None)).await.expect("a task").state, None);
        assert_eq!(client.task_instance(&key(Some(3))).await.expect("a task").state, Some(TaskState::UpForRetry));
        client.mark_task(&key(Some(3)), TaskMark::Success).await.expect("marked");
        let marked = match api {
            Api::V1 => r#"{"dry_run":false,"new_state":"success"}"#,
            Api::V2 => r#"{"new_state":"success"}"#,
        };
        assert_eq!(fake.said().await.last(), Some(&format!("PATCH {TASKS}/load/3 {marked}")));
    }
}

#[tokio::test]
async fn xcoms_come_as_json() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let value = json!({ "rows": 3, "parts": ["a"] });
        let entry = json!({ "key": "return_value", "task_id": "load", "map_index": 2, "value": value });
        fake.answer("GET", &format!("{TASKS}/load/xcomEntries/return_value"), 200, entry).await;
        assert_eq!(fake.client().xcom(&key(Some(2)), "return_value").await.expect("a value"), value);
        let query = if api == Api::V1 { "?map_index=2&stringify=false" } else { "?map_index=2" };
        assert_eq!(fake.said().await, [format!("GET {TASKS}/load/xcomEntries/return_value{query}")]);
    }
}

#[tokio::test]
async fn an_answer_is_read_once_there_is_one() {
    let fake = Fake::start(Api::V2).await;
    let path = format!("{TASKS}/load/-1/hitlDetails");
    fake.answer("GET", &path, 404, json!({ "detail": "Human-in-the-loop detail does not exist" })).await;
    assert_eq!(fake.client().answer(&key(None)).await.expect("no answer"), None);
    let fake = Fake::start(Api::V2).await;
    let mut question = json!({
        "task_instance": {}, "options": ["Approve", "Reject"], "subject": "s", "response_received": false,
        "chosen_options": null, "responded_by_user": null,
    });
    fake.answer("GET", &path, 200, question.clone()).await;
    assert_eq!(fake.client().answer(&key(None)).await.expect("no answer"), None);
    let fake = Fake::start(Api::V2).await;
    question["response_received"] = true.into();
    question["chosen_options"] = json!(["Approve"]);
    question["responded_by_user"] = json!({ "id": "7", "name": "jane" });
    fake.answer("GET", &path, 200, question).await;
    let answer = Answer { chosen: vec!["Approve".into()], by: Some("jane".into()) };
    assert_eq!(fake.client().answer(&key(None)).await.expect("an answer"), Some(answer));
    assert_eq!(fake.said().await, [format!("GET {path}")]);
    for older in ["2.11.2", "3.0.6"] {
        let refused = Fake::of(older).await.client().answer(&key(None)).await.expect_err("has none");
        assert_eq!(refused.code(), Code::AirflowNotOffered, "{older}");
    }
}

#[tokio::test]
async fn the_end_of_a_log_is_read() {
    for (api, accept, log, wanted) in [
        (Api::V1, "text/plain", "one\ntwo\nthree\n", "two\nthree\n"),
        (
            Api::V2,
            "application/x-ndjson",
            "{\"event\":\"one\"}\n{\"event\":\"two\"}\n{\"event\":\"three\"}\n",
            "two\nthree\n",
        ),
    ] {
        let fake = Fake::start(api).await;
        fake.respond("GET", &format!("{TASKS}/load/logs/2"), ResponseTemplate::new(200).set_body_raw(log, accept))
            .await;
        let log = fake.client().log(&key(Some(1)), 2, 10).await.expect("a log");
        assert_eq!((log.text.as_str(), log.left_out, log.is_complete), (wanted, 4, true));
        let sent = fake.sent().await;
        assert_eq!(sent[0].headers["accept"], accept);
        assert_eq!(sent[0].url.query(), Some("map_index=1&full_content=true"));
    }
}

#[tokio::test]
async fn clearing_looks_first_and_says_that_it_means_it() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        fake.answer(
            "POST",
            CLEAR,
            200,
            json!({ "task_instances": [task(api, "load", 1, "failed"), task(api, "load", 0, "failed")] }),
        )
        .await;
        let client = fake.client();
        let cleared = client.clear(&clear(Some(vec![named("load", None)]))).await.expect("cleared");
        assert_eq!(cleared, [named("load", Some(0)), named("load", Some(1))]);
        let bodies: Vec<Value> = fake.sent().await.iter().map(|request| request.body_json().expect("JSON")).collect();
        let mut wanted = json!({
            "dry_run": true, "dag_run_id": "r1", "only_failed": true, "only_running": false, "reset_dag_runs": true,
            "include_upstream": false, "include_downstream": false, "include_future": false, "include_past": false,
            "task_ids": ["load"],
        });
        assert_eq!(bodies[0], wanted);
        wanted["dry_run"] = json!(false);
        assert_eq!(bodies[1], wanted);
        assert_eq!(client.preview_clear(&clear(None)).await.expect("tasks").len(), 2);
        let previewed: Value = fake.sent().await[2].body_json().expect("JSON");
        assert_eq!((&previewed["dry_run"], previewed.get("task_ids")), (&json!(true), None));
        let error = client.clear(&clear(Some(vec![]))).await.expect_err("no task");
        assert!(matches!(error, Error::BadCall { .. }), "{error}");
        assert_eq!(fake.sent().await.len(), 3);
    }
}

#[tokio::test]
async fn nothing_is_cleared_that_is_of_another_run() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let mut other = task(api, "load", 0, "failed");
        other["dag_run_id"] = json!("r0");
        fake.answer("POST", CLEAR, 200, json!({ "task_instances": [task(api, "load", 0, "failed"), other] })).await;
        assert!(fake.client().clear(&clear(None)).await.expect_err("another run").is_conflict());
        assert_eq!(fake.sent().await.len(), 1);
    }
}

#[tokio::test]
async fn single_mapped_instances_are_cleared_in_v2_only() {
    let one = clear(Some(vec![named("load", Some(4)), named("publish", None)]));
    let fake = Fake::start(Api::V1).await;
    expect_not_offered(fake.client().clear(&one).await);
    assert_eq!(fake.said().await, [""; 0]);
    let fake = Fake::start(Api::V2).await;
    fake.answer("POST", CLEAR, 200, json!({ "task_instances": [], "total_entries": 0 })).await;
    assert_eq!(fake.client().clear(&one).await.expect("cleared"), []);
    let body: Value = fake.sent().await[1].body_json().expect("JSON");
    assert_eq!(body["task_ids"], json!([["load", 4], "publish"]));
}

#[tokio::test]
async fn backfills_are_v2s() {
    let at = |text: &str| text.parse().expect("an instant");
    let request = BackfillRequest {
        dag_id: "flights".into(),
        from: at("2025-01-01T00:00:00Z"),
        to: at("2025-01-03T00:00:00Z"),
        conf: Map::new(),
        reprocess: Reprocess::Failed,
        backwards: false,
        max_active_runs: 2,
    };
    let fake = Fake::start(Api::V1).await;
    let client = fake.client();
    expect_not_offered(client.start_backfill(&request).await);
    expect_not_offered(client.preview_backfill(&request).await);
    expect_not_offered(client.backfill(1).await);
    expect_not_offered(client.act_on_backfill(1, BackfillAction::Cancel).await);
    assert_eq!(fake.said().await, [""; 0]);

    let fake = Fake::start(Api::V2).await;
    let mut told = json!({
        "id": 7, "dag_id": "flights", "from_date": "2025-01-01T00:00:00Z", "to_date": "2025-01-03T00:00:00Z",
        "is_paused": false, "completed_at": null,
    });
    fake.once("POST", "/backfills", ResponseTemplate::new(200).set_body_json(told.clone())).await;
    fake.answer(
        "POST",
        "/backfills",
        409,
        problem(Api::V2, 409, "There is already a running backfill for dag flights"),
    )
    .await;
    let dates = json!({ "backfills": [{ "logical_date": "2025-01-01T00:00:00Z" }, { "logical_date": null }], "total_entries": 2 });
    fake.answer("POST", "/backfills/dry_run", 200, dates).await;
    fake.answer("PUT", "/backfills/7/pause", 409, problem(Api::V2, 409, "Backfill is already completed.")).await;
    fake.answer("PUT", "/backfills/7/cancel", 409, problem(Api::V2, 409, "Backfill is already completed.")).await;
    told["completed_at"] = json!("2025-01-04T00:00:00Z");
    fake.answer("GET", "/backfills/7", 200, told).await;
    let client = fake.client();
    assert_eq!(client.preview_backfill(&request).await.expect("dates"), [request.from]);
    assert_eq!(client.start_backfill(&request).await.expect("a backfill").id, 7);
    assert!(client.start_backfill(&request).await.expect_err("another").is_conflict());
    let backwards = BackfillRequest { to: at("2024-12-31T00:00:00Z"), ..request.clone() };
    let said = fake.said().await;
    assert_eq!(client.start_backfill(&backwards).await.expect_err("no dates").code(), Code::AirflowRefused);
    assert_eq!(fake.said().await, said, "not every 3.x would refuse it");
    assert!(client.act_on_backfill(7, BackfillAction::Pause).await.expect_err("over").is_conflict());
    assert!(client.act_on_backfill(7, BackfillAction::Cancel).await.expect("over").completed_at.is_some());
    let body: Value = fake.sent().await[1].body_json().expect("JSON");
    assert_eq!(
        body,
        json!({
            "dag_id": "flights", "from_date": "2025-01-01T00:00:00.000000Z", "to_date": "2025-01-03T00:00:00.000000Z",
            "run_backwards": false, "dag_run_conf": {}, "reprocess_behavior": "failed", "max_active_runs": 2,
        })
    );
}

#[tokio::test]
async fn assets_are_found_by_their_whole_uri() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let (path, events) = if api == Api::V1 { ("datasets", "dataset_events") } else { ("assets", "asset_events") };
        let list: Vec<_> = (1..=2)
            .map(|id| json!({ "id": id, "uri": format!("dagwright://flights/sink{}", ["", "2"][2 - id]) }))
            .collect();
        fake.answer("GET", &format!("/{path}"), 200, json!({ path: list, "total_entries": 2 })).await;
        let event = match api {
            Api::V1 => json!({
                "id": 1, "dataset_id": 2, "dataset_uri": "dagwright://flights/sink", "extra": { "rows": 3 }, "source_map_index": -1,
                "timestamp": "2025-01-01T00:00:00+00:00", "created_dagruns": [{ "dag_id": "next", "dag_run_id": "r9", "state": "queued" }],
            }),
            Api::V2 => json!({
                "id": 1, "asset_id": 2, "uri": "dagwright://flights/sink", "extra": { "rows": 3 }, "source_map_index": -1,
                "timestamp": "2025-01-01T00:00:00Z", "created_dagruns": [{ "dag_id": "next", "run_id": "r9", "state": "queued" }],
            }),
        };
        fake.answer("GET", &format!("/{path}/events"), 200, json!({ events: [event.clone()], "total_entries": 1 }))
            .await;
        fake.answer("POST", &format!("/{path}/events"), 200, event).await;
        let client = fake.client();
        assert_eq!(client.asset("dagwright://flights/sink").await.expect("an asset").id, 2);
        assert!(client.asset("dagwright://flights/sin").await.expect_err("only a part").is_not_found());
        let filter =
            AssetEventFilter { asset_id: Some(2), source_run_id: Some("r 1".into()), ..AssetEventFilter::default() };
        let found = client.asset_events(&filter, Span::first()).await.expect("events").items;
        assert_eq!((found[0].asset_id, found[0].created_dagruns[0].run_id.as_str()), (2, "r9"));
        assert_eq!(found[0].uri.as_deref(), Some("dagwright://flights/sink"));
        let id = if api == Api::V1 { "dataset_id" } else { "asset_id" };
        let listed = format!("GET /{path}/events?order_by=timestamp&{id}=2&source_run_id=r+1&limit=100&offset=0");
        assert_eq!(fake.said().await.last(), Some(&listed));
        client.create_asset_event("dagwright://flights/sink", &Map::new()).await.expect("an event");
        let body = match api {
            Api::V1 => r#"{"dataset_uri":"dagwright://flights/sink","extra":{}}"#,
            Api::V2 => r#"{"asset_id":2,"extra":{}}"#,
        };
        assert_eq!(fake.said().await.last(), Some(&format!("POST /{path}/events {body}")));
    }
}

#[tokio::test]
async fn pools_are_made_changed_or_kept() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let pool =
            |name: &str, slots: i64| json!({ "name": name, "slots": slots, "occupied_slots": 0, "open_slots": slots });
        fake.answer("GET", "/pools/own", 200, pool("own", 4)).await;
        fake.answer("GET", "/pools/new", 404, problem(api, 404, "no such pool")).await;
        fake.answer("POST", "/pools", 200, pool("new", 4)).await;
        fake.answer("PATCH", "/pools/own", 200, pool("own", 8)).await;
        let client = fake.client();
        assert!(matches!(client.set_pool("own", 4).await, Ok(PoolSet::Kept(pool)) if pool.slots == 4));
        assert!(matches!(client.set_pool("own", 8).await, Ok(PoolSet::Changed(pool)) if pool.slots == 8));
        assert!(matches!(client.set_pool("new", 4).await, Ok(PoolSet::Made(pool)) if pool.name == "new"));
        let body = match api {
            Api::V1 => r#"{"slots":8}"#,
            Api::V2 => r#"{"include_deferred":false,"pool":"own","slots":8}"#,
        };
        assert_eq!(fake.said().await[2], format!("PATCH /pools/own?update_mask=slots {body}"));
        assert_eq!(fake.said().await[4], "POST /pools {\"name\":\"new\",\"slots\":4}");
    }
    for version in ["2.11.2", "3.0.6"] {
        let fake = Fake::of(version).await;
        expect_not_offered(fake.client().set_pool("endless", -1).await);
        assert_eq!(fake.said().await, [""; 0], "{version}");
    }
}

#[tokio::test]
async fn connections_are_read_and_tried_out() {
    for api in BOTH {
        let fake = Fake::start(api).await;
        let told = json!({
            "connection_id": "ops", "conn_type": "postgres", "host": "db", "port": 5432, "schema": "x", "login": "u", "password": "***",
            "extra": "{}", "description": null,
        });
        fake.answer("GET", "/connections/ops", 200, told).await;
        fake.once(
            "POST",
            "/connections/test",
            ResponseTemplate::new(200).set_body_json(json!({ "status": false, "message": "no\nroute" })),
        )
        .await;
        let disabled =
            "Testing connections is disabled in Airflow configuration. Contact your deployment admin to enable it.";
        fake.answer("POST", "/connections/test", 403, problem(api, 403, disabled)).await;
        let client = fake.client();
        let connection = client.connection("ops").await.expect("a connection");
        assert_eq!((connection.conn_type.as_str(), connection.port), ("postgres", Some(5432)));
        if api == Api::V2 {
            let test = client.test_connection("ops").await.expect("a result");
            assert_eq!((test.works, test.message.as_str()), (false, "no route"));
            assert_eq!(
                fake.said().await[2],
                "POST /connections/test {\"conn_type\":\"postgres\",\"connection_id\":\"ops\"}"
            );
        }
        expect_not_offered(client.test_connection("ops").await);
    }
    // It would try out a connection without a password.
    let fake = Fake::of("3.0.6").await;
    expect_not_offered(fake.client().test_connection("ops").await);
    assert_eq!(fake.said().await, [""; 0]);
}
