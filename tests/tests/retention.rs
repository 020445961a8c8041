//! What ended long ago is forgotten, and nothing that is needed goes with it.

use std::{
    thread,
    time::{Duration, Instant},
};

use dagwright_tests::{Workspace, daemon::Daemon, duckdb, http, kafka::Kafka, receiver::Receiver};
use serde_json::json;

const LEDGER: &str = "dagwright.ledger.v1";

/// How long to wait for what a daemon does by itself.
const PATIENCE: Duration = Duration::from_secs(120);

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    workspace
}

/// Asks for a pipeline that appends a file's rows; returns the answer's status and the request's id.
fn submit(daemon: &Daemon, workspace: &Workspace, pipeline: &str, key: &str) -> (u16, String) {
    let path = |name: &str| workspace.path(name).display().to_string();
    let spec = json!({
        "version": 1, "pipeline": pipeline, "source": { "uri": path("in.csv") },
        "sink": { "uri": format!("{}/", path(&format!("out/{pipeline}"))), "format": "parquet", "mode": "append" },
    });
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let reply = http::call(daemon.address, "POST", "/api/v1/requests", &headers, spec.to_string().as_bytes());
    (reply.status, reply.json()["request_id"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned())
}

fn status(daemon: &Daemon, request: &str) -> u16 {
    http::call(daemon.address, "GET", &format!("/api/v1/requests/{request}"), &[], b"").status
}

/// Waits until a request's run succeeded. It may be forgotten soon after.
fn until_ran(daemon: &Daemon, request: &str) {
    let state = || {
        let reply = http::call(daemon.address, "GET", &format!("/api/v1/requests/{request}"), &[], b"");
        if reply.status == 404 {
            "unknown".to_owned()
        } else {
            reply.json()["state"].as_str().expect("text").to_owned()
        }
    };
    until("it ran", || match state().as_str() {
        "succeeded" => true,
        "failed" | "unknown" => panic!("it came to nothing"),
        _ => false,
    });
}

fn rows(workspace: &Workspace, pipeline: &str) -> String {
    let files = workspace.path(&format!("out/{pipeline}/*.parquet"));
    duckdb(&format!("select count(*) from '{}'", files.display())).remove(0)
}

/// Returns the position of the oldest event.
fn oldest(daemon: &Daemon) -> u64 {
    let mut events = http::Events::open(daemon.address, "/api/v1/events?after=0", None);
    events.next().and_then(|told| told.id).expect("a position")
}

#[test]
fn requests_and_events_go_when_they_are_old() {
    let workspace = workspace();
    let daemon = Daemon::start(&workspace, &[("RETENTION__REQUESTS", "3s"), ("RETENTION__EVENTS", "3s")]);
    let (_, first) = submit(&daemon, &workspace, "p", "1");
    until_ran(&daemon, &first);
    let (_, second) = submit(&daemon, &workspace, "p", "2");
    until_ran(&daemon, &second);
    until("the first is forgotten", || status(&daemon, &first) == 404);
    assert_eq!(status(&daemon, &second), 200, "it ran last, which `diff` compares with");
    until("events are forgotten", || oldest(&daemon) > 2);
    let gone = http::call(daemon.address, "GET", "/api/v1/events?after=1", &[], b"");
    gone.refused(410, "DW0832");
    assert_eq!(rows(&workspace, "p"), "6");

    // It is taken on anew, and has no second effect: the sink remembers what the ledger does not.
    let (answer, again) = submit(&daemon, &workspace, "p", "1");
    assert_eq!((answer, &again), (202, &first));
    until_ran(&daemon, &again);
    assert_eq!(rows(&workspace, "p"), "6");
    let metrics = http::call(daemon.address, "GET", "/metrics", &[], b"").expect(200).body.clone();
    let line =
        metrics.lines().find(|line| line.starts_with("dagwright_store_forgotten_total{") && line.contains("requests"));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
}

#[test]
fn events_wait_for_a_webhook_that_is_away() {
    let (workspace, address) = (workspace(), Receiver::nowhere());
    let text = format!(
        "[retention]\nrequests = \"1s\"\nevents = \"1s\"\n\
         [webhooks.hook]\nurl = \"http://{address}/\"\nbackoff = \"10ms\"\nbackoff_max = \"100ms\"\n"
    );
    workspace.write("c.toml", text);
    let daemon = Daemon::with(&workspace, &[], &["--config", "c.toml"]);
    let (_, first) = submit(&daemon, &workspace, "p", "1");
    until("it ended", || daemon.get("/runs").to_string().contains("succeeded"));
    submit(&daemon, &workspace, "p", "2");
    until("it is forgotten", || status(&daemon, &first) == 404);
    assert_eq!(oldest(&daemon), 1, "nobody was told of it yet");
    let receiver = Receiver::start(address, |_, _| (200, ""));
    receiver.until(|posts| posts.iter().filter(|post| post.body.contains("run.succeeded")).count() == 2);
    until("events are forgotten", || oldest(&daemon) > 1);
}

#[test]
fn instances_that_share_a_ledger_forget_together() {
    let (kafka, workspace) = (Kafka::start(), workspace());
    let start = |instance: &str, store: &str| {
        let store = workspace.path(store);
        let variables = [
            ("DAGWRIGHT__BUS__KIND", "kafka"),
            ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
            ("DAGWRIGHT__KAFKA__PARTITIONS", "2"),
            ("DAGWRIGHT__KAFKA__INSTANCE", instance),
            ("DAGWRIGHT__RETENTION__REQUESTS", "5s"),
            ("DAGWRIGHT__STORE__PATH", store.to_str().expect("text")),
        ];
        Daemon::with(&workspace, &variables, &[])
    };
    let (one, other) = (start("one", "store-one"), start("other", "store-other"));
    let mut client = kafka.client();
    let (_, first) = submit(&one, &workspace, "p", "1");
    until("it is known to both", || status(&one, &first) == 200 && status(&other, &first) == 200);
    until("it ran", || has(&one, &first, "succeeded"));
    let (_, second) = submit(&one, &workspace, "p", "2");
    until("both forgot it", || status(&one, &first) == 404 && status(&other, &first) == 404);
    until("the other is there", || status(&one, &second) == 200 && status(&other, &second) == 200);
    let ledger = client.read(LEDGER);
    let of_first = |record: &&dagwright_tests::kafka::Record| {
        record.key.as_deref().is_some_and(|key| key.starts_with(format!("{first}/").as_bytes()))
    };
    let (taken_back, written): (Vec<_>, Vec<_>) =
        ledger.iter().filter(of_first).partition(|record| record.value.is_none());
    assert!(taken_back.len() >= written.len() && !written.is_empty(), "every record is taken back");

    // From the topic alone the same is known.
    drop(other);
    let anew = start("other", "store-anew");
    until("it has read the ledger", || status(&anew, &second) == 200);
    assert_eq!(status(&anew, &first), 404);
}

fn has(daemon: &Daemon, request: &str, state: &str) -> bool {
    let reply = http::call(daemon.address, "GET", &format!("/api/v1/requests/{request}"), &[], b"");
    reply.status == 200 && reply.json()["state"] == state
}
