//! Lineage end to end: OpenLineage's run events, as its published schemas want them, whatever goes away in between.

#[path = "../../crates/wire/tests/outside/openlineage/schemas.rs"]
mod schemas;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use dagwright_tests::{
    Postgres, Workspace,
    daemon::Daemon,
    http,
    kafka::Kafka,
    receiver::{Post, Receiver},
};
use schemas::conforms;
use serde_json::{Value, json};

const KEY: &str = "a-key-0123456789abcdef";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("customers.csv", "id,name\n1,Ann\n2,Bo\n");
    workspace.write("orders.csv", "id,customer,amount\n10,1,5\n11,2,7\n12,1,9\n");
    workspace
}

/// Writes a configuration that tells an API.
fn configure(workspace: &Workspace, api: SocketAddr, settings: &str) {
    let text = format!(
        "[lineage]\nurl = \"http://{api}/api/v1/lineage\"\napi_key_env = \"LINEAGE_KEY\"\nbackoff = \"10ms\"\nbackoff_max = \"100ms\"\n{settings}"
    );
    workspace.write("c.toml", text);
}

fn start(workspace: &Workspace, variables: &[(&str, &str)]) -> Daemon {
    let mut all = vec![("LINEAGE_KEY", KEY)];
    all.extend(variables);
    Daemon::with(workspace, &all, &["--config", "c.toml"])
}

/// Returns a pipeline that joins two files.
fn spec(workspace: &Workspace, pipeline: &str, sink: Value) -> Value {
    let uri = |name: &str| json!({ "uri": workspace.path(name).display().to_string() });
    json!({
        "version": 1, "namespace": "sales", "pipeline": pipeline, "owner": "ann", "description": "Orders with names.",
        "sources": { "orders": uri("orders.csv"), "customers": uri("customers.csv") },
        "transform": [{ "name": "named", "sql":
            "SELECT o.id, upper(c.name) AS customer, o.amount FROM orders o JOIN customers c ON c.id = o.customer" }],
        "sink": sink,
    })
}

/// Returns a sink that is a file.
fn file(workspace: &Workspace, min_rows: u64) -> Value {
    json!({ "uri": workspace.path("out/orders.parquet").display().to_string(), "mode": "replace", "min_rows": min_rows })
}

/// Asks for a run and waits for its end; returns the request's id.
fn run(daemon: &Daemon, spec: &Value, key: &str, end: &str) -> String {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let reply = http::call(daemon.address, "POST", "/api/v1/requests", &headers, spec.to_string().as_bytes());
    let request = reply.expect(202).json()["request_id"].as_str().expect("an id").to_owned();
    for told in http::Events::open(daemon.address, "/api/v1/events?after=0", None) {
        if told.data["subject"] == *request && told.event.starts_with("run.") && told.event != "run.started" {
            assert_eq!(told.event, end, "{told:?}");
            break;
        }
    }
    request
}

/// Returns the events that were taken.
fn taken(posts: &[Post]) -> Vec<Value> {
    posts.iter().filter(|post| post.is_taken()).map(Post::json).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["eventType"].as_str().expect("a kind")).collect()
}

/// Returns where a column is made from, as `dataset field how`.
fn origins(event: &Value, column: &str) -> Vec<String> {
    let fields = event["outputs"][0]["facets"]["columnLineage"]["fields"][column]["inputFields"].as_array();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let told =
        |field: &Value| [&field["name"], &field["field"], &field["transformations"][0]["subtype"]].map(text).join(" ");
    fields.unwrap_or_else(|| panic!("no lineage of {column}: {event}")).iter().map(told).collect()
}

#[test]
fn a_join_into_a_warehouse_is_told_by_column_when_the_api_is_there() {
    let server = Postgres::shared();
    let url = server.database("lineage");
    let (workspace, api) = (workspace(), Receiver::nowhere());
    configure(&workspace, api, "namespace = \"prod\"");
    let daemon = start(&workspace, &[("DAGWRIGHT_CONN_WAREHOUSE", &url)]);
    let sink = json!({ "connection": "warehouse", "table": "public.orders", "mode": "upsert", "key": ["id"] });
    let request = run(&daemon, &spec(&workspace, "orders", sink), "1", "run.succeeded");
    daemon.signal("KILL");
    drop(daemon);

    // Nobody was there to be told, and the process that knew is gone.
    let _daemon = start(&workspace, &[("DAGWRIGHT_CONN_WAREHOUSE", &url)]);
    let receiver = Receiver::start(api, |_, _| (201, ""));
    let posts = receiver.until(|posts| taken(posts).len() == 2);
    for post in &posts {
        assert_eq!(
            (post.path.as_str(), post.headers["content-type"].as_str()),
            ("/api/v1/lineage", "application/json")
        );
        assert_eq!(post.headers["authorization"], format!("Bearer {KEY}"));
        conforms(&post.json());
    }
    let events = taken(&posts);
    assert_eq!(kinds(&events), ["START", "COMPLETE"]);
    let path = |name: &str| workspace.path(name).canonicalize().expect("a file").display().to_string();
    let address = url.rsplit_once('@').map_or(url.as_str(), |(_, rest)| rest);
    let address = address.trim_start_matches("postgresql://").split('/').next().expect("an address");
    for event in &events {
        assert_eq!(event["run"]["runId"].as_str().expect("an id").replace('-', ""), request);
        assert_eq!(event["job"]["namespace"], "prod");
        assert_eq!(event["job"]["name"], "sales.orders");
        assert_eq!(event["job"]["facets"]["ownership"]["owners"][0]["name"], "ann");
        let inputs: Vec<_> = event["inputs"].as_array().expect("inputs").iter().map(|input| &input["name"]).collect();
        assert_eq!(inputs, [&path("customers.csv"), &path("orders.csv")]);
        let output = &event["outputs"][0];
        assert_eq!(output["name"], "lineage.public.orders");
        assert_eq!(output["namespace"], format!("postgres://{address}"));
        assert_eq!(origins(event, "customer"), [format!("{} name TRANSFORMATION", path("customers.csv"))]);
        assert_eq!(origins(event, "amount"), [format!("{} amount IDENTITY", path("orders.csv"))]);
        assert!(!event.to_string().contains("Ann"), "no value of the data is told: {event}");
    }
    let rows = |dataset: &Value, facets: &str, facet: &str| dataset[facets][facet]["rowCount"].clone();
    let done = &events[1];
    assert_eq!(rows(&done["inputs"][0], "inputFacets", "inputStatistics"), 2);
    assert_eq!(rows(&done["inputs"][1], "inputFacets", "inputStatistics"), 3);
    assert_eq!(rows(&done["outputs"][0], "outputFacets", "outputStatistics"), 3);
}

#[test]
fn what_is_told_again_after_a_kill_is_the_same() {
    let (workspace, is_open) = (workspace(), Arc::new(AtomicBool::new(false)));
    let open = is_open.clone();
    let answer = move |_: &Post, _: &[Post]| if open.load(SeqCst) { (200, "") } else { (503, "") };
    let receiver = Receiver::start(Receiver::nowhere(), answer);
    configure(&workspace, receiver.address, "");
    let daemon = start(&workspace, &[]);
    run(&daemon, &spec(&workspace, "orders", file(&workspace, 1)), "1", "run.succeeded");
    let before = receiver.until(|posts| !posts.is_empty());
    daemon.signal("KILL");
    drop(daemon);

    is_open.store(true, SeqCst);
    let daemon = start(&workspace, &[]);
    let events = taken(&receiver.until(|posts| taken(posts).len() == 2));
    assert_eq!(kinds(&events), ["START", "COMPLETE"]);
    assert_eq!(events[0], before[0].json(), "whole, byte for byte: the ledger did not change");
    // The plan is known by now, and was agreed on for the first request.
    run(&daemon, &spec(&workspace, "orders", file(&workspace, 1)), "2", "run.succeeded");
    let events = taken(&receiver.until(|posts| taken(posts).len() == 4));
    assert_ne!(events[2]["run"]["runId"], events[0]["run"]["runId"]);
    assert_eq!(events[3]["outputs"], events[1]["outputs"]);
    events.iter().for_each(conforms);
}

#[test]
fn a_failed_run_is_told_and_what_is_refused_holds_nobody_up() {
    let workspace = workspace();
    let receiver = Receiver::start(Receiver::nowhere(), |post, _| {
        let event = post.json();
        let is_unwanted = event["job"]["name"] == "sales.unwanted" && event["eventType"] == "START";
        if is_unwanted { (422, "") } else { (200, "") }
    });
    configure(&workspace, receiver.address, "tries = 2");
    let daemon = start(&workspace, &[]);
    run(&daemon, &spec(&workspace, "unwanted", file(&workspace, 1)), "1", "run.succeeded");
    run(&daemon, &spec(&workspace, "short", file(&workspace, 99)), "2", "run.failed");
    let posts = receiver.until(|posts| taken(posts).len() == 3);
    posts.iter().for_each(|post| conforms(&post.json()));
    let unwanted = posts.iter().filter(|post| !post.is_taken()).count();
    assert_eq!(unwanted, 2, "it was tried as often as `tries` says");
    let events = taken(&posts);
    let of = |job: &str| -> Vec<Value> { events.iter().filter(|event| event["job"]["name"] == job).cloned().collect() };
    assert_eq!(kinds(&of("sales.unwanted")), ["COMPLETE"]);
    let short = of("sales.short");
    assert_eq!(kinds(&short), ["START", "FAIL"]);
    let message = short[1]["run"]["facets"]["errorMessage"]["message"].as_str().expect("a message");
    assert!(message.starts_with("DW"), "{message}");
    let metrics = http::call(daemon.address, "GET", "/metrics", &[], b"").expect(200).body.clone();
    let refused = metrics.lines().find(|line| line.starts_with("dagwright_lineage_events_refused_total{"));
    assert!(refused.is_some_and(|line| line.contains("to=\"http\"") && line.ends_with(" 1")), "{refused:?}");
}

#[test]
fn a_topic_holds_the_runs_of_a_job_in_order() {
    let (kafka, workspace) = (Kafka::start(), workspace());
    workspace.write("c.toml", "[lineage]\ntopic = \"lineage.events\"\n");
    let mut client = kafka.client();
    client.create_topic("lineage.events", 3);
    let variables = [
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PARTITIONS", "2"),
        ("DAGWRIGHT__KAFKA__INSTANCE", "one"),
    ];
    let daemon = start(&workspace, &variables);
    let requests = [("1", "run.succeeded"), ("2", "run.succeeded")]
        .map(|(key, end)| run(&daemon, &spec(&workspace, "orders", file(&workspace, 1)), key, end));
    let records = client.consume("lineage.events", 4);
    let events: Vec<Value> = records
        .iter()
        .map(|record| {
            assert_eq!(record.key.as_deref(), Some(&b"run:dagwright/sales.orders"[..]));
            serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON")
        })
        .collect();
    events.iter().for_each(conforms);
    assert_eq!(kinds(&events), ["START", "COMPLETE", "START", "COMPLETE"]);
    let runs: Vec<_> =
        events.iter().map(|event| event["run"]["runId"].as_str().expect("an id").replace('-', "")).collect();
    let [first, second] = requests;
    assert_eq!(runs, [first.clone(), first, second.clone(), second]);
    for event in &events {
        assert_eq!(origins(event, "amount").len(), 1);
    }
}
