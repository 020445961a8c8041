//! Faults from outside, against the real service: whatever is sent to it, and whatever becomes of its disk, its clock and its
//! way to the broker, each request has one outcome and one effect, and everything that goes wrong is told with a code.

mod clock;
mod disk;
mod large;
mod malformed;
#[path = "../../../crates/wire/tests/outside/hostile/messages.rs"]
mod messages;
mod secure;

use std::collections::{BTreeMap, BTreeSet};

use dagwright_tests::{
    Workspace,
    daemon::Daemon,
    duckdb,
    kafka::{Client, Record},
};
use serde_json::{Value, json};

/// How many partitions requests and ledger have in these tests.
const PARTITIONS: u16 = 2;

/// The rows of the file that requests copy.
const ROWS: &str = "id,name\n1,a\n2,b\n3,c\n";

/// A place of a service's own on a broker that others use too.
#[derive(Clone, Copy)]
struct Place<'a> {
    brokers: &'a str,
    prefix: &'a str,
}

// === impl Place ===

impl Place<'_> {
    fn topic(self, what: &str) -> String {
        format!("{}.{what}.v1", self.prefix)
    }

    fn variables(self) -> Vec<(String, String)> {
        [
            ("BUS__KIND", "kafka"),
            ("KAFKA__BROKERS", self.brokers),
            ("KAFKA__PREFIX", self.prefix),
            ("KAFKA__GROUP", self.prefix),
            ("KAFKA__INSTANCE", "one"),
            ("KAFKA__PARTITIONS", &PARTITIONS.to_string()),
        ]
        .map(|(key, value)| (format!("DAGWRIGHT__{key}"), value.to_owned()))
        .into()
    }

    fn start(self, workspace: &Workspace) -> Daemon {
        Daemon::with(workspace, &borrowed(&self.variables()), &[])
    }
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Returns the spec of a pipeline that copies a file.
fn spec(workspace: &Workspace, pipeline: &str) -> Value {
    let path = |name: &str| workspace.path(name).display().to_string();
    json!({
        "version": 1, "pipeline": pipeline,
        "source": { "uri": path("in.csv") },
        "sink": { "uri": path(&format!("out/{pipeline}.csv")), "mode": "replace" },
    })
}

/// Returns a request for that, as a CloudEvent.
fn request(workspace: &Workspace, pipeline: &str, id: &str) -> Record {
    let event = json!({
        "specversion": "1.0", "type": "dev.dagwright.pipeline.requested.v1", "source": "/tests", "id": id,
        "data": { "spec": spec(workspace, pipeline) },
    });
    Record::new(pipeline, event.to_string()).header("content-type", "application/cloudevents+json")
}

/// Reads events until every pipeline's request has its outcome; returns the kinds by pipeline.
fn until_all_ended(client: &mut Client, topic: &str, pipelines: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = 0;
    loop {
        let ended = |name: &String| kinds.get(name).is_some_and(|kinds| kinds.iter().any(|kind| is_outcome(kind)));
        if pipelines.iter().all(ended) {
            return kinds;
        }
        // Waits for at least one more than there were.
        assert!(client.consume(topic, seen + 1).len() > seen, "nothing further was told: {kinds:?}");
        let all = client.read(topic);
        seen = all.len();
        kinds.clear();
        for record in all {
            let event: Value = serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON");
            let pipeline = event["data"]["pipeline"].as_str().expect("a pipeline").to_owned();
            let kind = event["type"].as_str().expect("a type");
            let kind = kind.trim_start_matches("dev.dagwright.").trim_end_matches(".v1").to_owned();
            kinds.entry(pipeline).or_default().push(kind);
        }
    }
}

fn is_outcome(kind: &str) -> bool {
    matches!(kind, "run.succeeded" | "run.failed" | "run.cancelled" | "request.rejected" | "plan.deadlocked")
}

/// Asserts that each request was taken on, run and done once, and that its rows were loaded.
#[track_caller]
fn assert_done_once(workspace: &Workspace, kinds: &BTreeMap<String, Vec<String>>) {
    for (pipeline, kinds) in kinds {
        let count = |kind: &str| kinds.iter().filter(|known| *known == kind).count();
        let outcomes = kinds.iter().filter(|kind| is_outcome(kind)).count();
        let counts = (count("request.accepted"), count("run.started"), count("run.succeeded"), outcomes);
        assert_eq!(counts, (1, 1, 1, 1), "{pipeline}: {kinds:?}");
        assert_loaded(workspace, pipeline);
    }
}

#[track_caller]
fn assert_loaded(workspace: &Workspace, pipeline: &str) {
    let file = workspace.path(&format!("out/{pipeline}.csv"));
    assert_eq!(duckdb(&format!("select count(*), sum(id) from '{}'", file.display())), ["3", "6"], "{pipeline}");
}
