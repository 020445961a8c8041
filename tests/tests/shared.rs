//! Daemons that share the work through a real Kafka: each request has one outcome and one effect, whoever is lost.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_tests::{
    Workspace,
    daemon::Daemon,
    duckdb, events,
    kafka::{Client, Kafka, Record},
};
use serde_json::{Value, json};

const REQUESTS: &str = "dagwright.requests.v1";
const EVENTS: &str = "dagwright.events.v1";
const DEAD_LETTERS: &str = "dagwright.requests.dlq.v1";

/// Starts a daemon of the group; its store is its own.
fn start(kafka: &Kafka, workspace: &Workspace, instance: &str) -> Daemon {
    let store = workspace.path(&format!("store-{instance}"));
    let variables = [
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PARTITIONS", "4"),
        ("DAGWRIGHT__KAFKA__INSTANCE", instance),
        ("DAGWRIGHT__STORE__PATH", store.to_str().expect("text")),
    ];
    Daemon::with(workspace, &variables, &[])
}

/// Returns a request, as a CloudEvent, that copies a file.
fn request(workspace: &Workspace, pipeline: &str, id: &str) -> Value {
    let path = |name: &str| workspace.path(name).display().to_string();
    json!({
        "specversion": "1.0", "type": "dev.dagwright.pipeline.requested.v1", "source": "/tests", "id": id,
        "datacontenttype": "application/json",
        "data": { "spec": {
            "version": 1, "pipeline": pipeline,
            "source": { "uri": path("in.csv") },
            "sink": { "uri": path(&format!("out/{pipeline}.parquet")), "mode": "replace" },
        } },
    })
}

fn record(key: &str, request: &Value) -> Record {
    Record::new(key, request.to_string()).header("content-type", "application/cloudevents+json")
}

/// Reads events until every pipeline's run has ended; returns the kinds by pipeline.
fn until_all_ended(client: &mut Client, pipelines: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut seen = 0;
    while ended != *pipelines {
        // Waits for at least one more than there were.
        assert!(client.consume(EVENTS, seen + 1).len() > seen, "nothing further was told: {kinds:?}");
        let all = client.read(EVENTS);
        seen = all.len();
        kinds.clear();
        for record in all {
            let event: Value = serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON");
            events::check(&event);
            let pipeline = event["data"]["pipeline"].as_str().expect("a pipeline").to_owned();
            let kind = event["type"].as_str().expect("a type");
            let kind = kind.trim_start_matches("dev.dagwright.").trim_end_matches(".v1").to_owned();
            if matches!(kind.as_str(), "run.succeeded" | "run.failed" | "request.rejected") {
                ended.insert(pipeline.clone());
            }
            kinds.entry(pipeline).or_default().push(kind);
        }
    }
    kinds
}

#[test]
fn a_request_of_kafkas_own_producer_ends_as_loaded_data_and_as_events() {
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    let mut daemon = start(&kafka, &workspace, "one");
    let spec = request(&workspace, "copied", "1")["data"].clone();
    // Without a key or an envelope, and at a partition that is not its home; then what nobody can read.
    kafka.console_produce(REQUESTS, &[Record::new("", spec.to_string()), Record::new("", "{ nonsense")]);

    let mut client = kafka.client();
    let kinds = until_all_ended(&mut client, &["copied".to_owned()].into());
    let wanted = [
        "request.accepted",
        "plan.sealed",
        "dag.compiled",
        "dag.compiled",
        "run.started",
        "task.started",
        "task.succeeded",
        "run.succeeded",
    ];
    assert_eq!(kinds["copied"], wanted);
    assert_eq!(kafka.console_consume(EVENTS, wanted.len()).len(), wanted.len());
    let loaded = format!("select count(*), sum(id) from '{}'", workspace.path("out/copied.parquet").display());
    assert_eq!(duckdb(&loaded), ["3", "6"]);

    let dead = client.consume(DEAD_LETTERS, 1);
    assert_eq!(dead[0].value.as_deref(), Some(b"{ nonsense".as_slice()));
    let code = dead[0].headers.iter().find(|(name, _)| name == "dagwright-error-code");
    assert!(code.is_some_and(|(_, code)| code.as_deref().is_some_and(|code| code.starts_with(b"DW01"))), "{dead:?}");
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn nothing_is_lost_or_doubled_when_a_daemon_is_killed() {
    const PIPELINES: usize = 12;
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    let (lost, _kept) = (start(&kafka, &workspace, "lost"), start(&kafka, &workspace, "kept"));
    let pipelines: BTreeSet<_> = (0..PIPELINES).map(|index| format!("p{index}")).collect();
    let mut client = kafka.client();
    let requests: Vec<_> = pipelines.iter().map(|name| record(name, &request(&workspace, name, "1"))).collect();
    client.produce(REQUESTS, &requests);
    // The first effects are there: then one goes, in the middle of whatever it does, and everything is sent again.
    assert_eq!(client.consume(EVENTS, PIPELINES).len(), PIPELINES);
    lost.signal("KILL");
    client.produce(REQUESTS, &requests);
    let again = start(&kafka, &workspace, "lost");

    let kinds = until_all_ended(&mut client, &pipelines);
    for (pipeline, kinds) in &kinds {
        let count = |kind: &str| kinds.iter().filter(|known| *known == kind).count();
        assert_eq!((count("request.accepted"), count("run.started"), count("run.succeeded")), (1, 1, 1), "{kinds:?}");
        let loaded = format!("select count(*) from '{}'", workspace.path(&format!("out/{pipeline}.parquet")).display());
        assert_eq!(duckdb(&loaded), ["3"], "{pipeline}");
    }
    drop(again);
}
