//! Dead letters, by the command and a real Kafka: what was refused is seen, and taken on once when its cause is away.

use std::collections::BTreeMap;

use dagwright_tests::{
    Ended, Workspace,
    daemon::Daemon,
    events,
    kafka::{Client, Kafka, Record},
};
use serde_json::{Value, json};

const REQUESTS: &str = "dagwright.requests.v1";
const FOREIGN: &str = "team-a.requests";
const EVENTS: &str = "dagwright.events.v1";
const DEAD_LETTERS: &str = "dagwright.requests.dlq.v1";

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What nobody can read, and what would clear the screen of whoever looks.
const MALFORMED: &[u8] = b"{ \x1b[2J\xff\n  nonsense";

fn spec(workspace: &Workspace, namespace: Option<&str>, pipeline: &str) -> Value {
    let path = |name: &str| workspace.path(name).display().to_string();
    let mut spec = json!({
        "version": 1, "pipeline": pipeline,
        "source": { "uri": path("in.csv") },
        "sink": { "uri": path(&format!("out/{pipeline}.parquet")), "mode": "replace" },
    });
    if let Some(namespace) = namespace {
        spec["namespace"] = namespace.into();
    }
    spec
}

fn start(workspace: &Workspace, config: &str, uris: &str) -> Daemon {
    Daemon::with(workspace, &[("DAGWRIGHT__URIS__ALLOW", uris)], &["--config", config])
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Returns the events of a kind, or all.
fn told_of(client: &mut Client, kind: &str) -> Vec<Value> {
    let read = |record: Record| {
        let event = serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON");
        events::check(&event);
        event
    };
    let is_wanted = |event: &Value| kind.is_empty() || event["type"] == format!("dev.dagwright.{kind}.v1");
    client.read(EVENTS).into_iter().map(read).filter(is_wanted).collect()
}

/// How often each pipeline was told what.
fn told(client: &mut Client) -> BTreeMap<(String, String), usize> {
    let mut told = BTreeMap::new();
    for event in told_of(client, "") {
        *told.entry((text(&event["data"]["pipeline"]), text(&event["type"]))).or_default() += 1;
    }
    told
}

fn letters(listing: &Value) -> Vec<(&str, &str)> {
    let letters = listing["letters"].as_array().expect("letters").iter();
    letters.map(|it| (it["letter"].as_str().expect("a text"), it["code"].as_str().expect("a text"))).collect()
}

#[test]
fn what_was_refused_is_taken_on_once_when_its_cause_is_away() {
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    let config = workspace.write(
        "dagwright.toml",
        format!(
            "[bus]\nkind = \"kafka\"\n[kafka]\nbrokers = \"{}\"\npartitions = 1\ninstance = \"one\"\n\
             [[kafka.ingress]]\ntopic = \"{FOREIGN}\"\nnamespaces = [\"team_a\"]\nscopes = [\"submit\"]\n",
            kafka.bootstrap()
        ),
    );
    let config = config.to_str().expect("text");
    let dlq = |arguments: &[&str]| -> Ended {
        let mut command = workspace.dagwright();
        command.args(["dlq", arguments[0], "--config", config]).args(&arguments[1..]);
        command.output().expect("dagwright starts").into()
    };
    let json = |arguments: &[&str]| -> Value {
        let ended = dlq(&[arguments, &["--json"]].concat());
        serde_json::from_str(&ended.expect(0).stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {ended:?}"))
    };
    dlq(&["list"]).expect_problem(2, "DW0816");

    let mut client = kafka.client();
    client.create_topic(FOREIGN, 1);
    let mut refusing = start(&workspace, config, "/elsewhere/**");
    client.produce(REQUESTS, &[Record::new("k", MALFORMED).header("note", "\u{1b}[1m")]);
    assert_eq!(client.consume(DEAD_LETTERS, 1).len(), 1);
    // Without a name, and with one, from a topic that may ask for the pipelines of one namespace only.
    client.produce(REQUESTS, &[Record::new("", spec(&workspace, None, "bare").to_string())]);
    assert_eq!(client.consume(DEAD_LETTERS, 2).len(), 2);
    let event = json!({
        "specversion": "1.0", "type": "dev.dagwright.pipeline.requested.v1", "source": "/tests", "id": "1",
        "traceparent": TRACEPARENT, "data": { "spec": spec(&workspace, Some("team_a"), "named") },
    });
    let structured =
        |event: &Value| Record::new("", event.to_string()).header("content-type", "application/cloudevents+json");
    client.produce(FOREIGN, &[structured(&event)]);
    assert_eq!(client.consume(DEAD_LETTERS, 3).len(), 3);

    let listing = json(&["list"]);
    assert_eq!(
        letters(&listing).iter().map(|it| it.1).collect::<Vec<_>>(),
        ["DW0806", "DW0806", "DW0801"],
        "{listing}"
    );
    assert_eq!(listing["older"], json!([]));
    let (newest, oldest) = (letters(&listing)[0].0, letters(&listing)[2].0);
    let first = json(&["list", "--limit", "1"]);
    assert_eq!(letters(&first), [(newest, "DW0806")]);
    let before = first["older"][0].as_str().expect("older ones");
    assert_eq!(letters(&json(&["list", "--before", before]))[..], letters(&listing)[1..]);
    assert_eq!(letters(&json(&["list", "--topic", FOREIGN])), [(newest, "DW0806")]);
    assert_eq!(letters(&json(&["list", "--code", "DW0801"])), [(oldest, "DW0801")]);
    let people = dlq(&["list"]);
    assert!(people.expect(0).stdout.contains(newest) && people.stdout.contains("team-a.requests/0/0"), "{people:?}");

    let people = dlq(&["show", oldest]);
    let shown = &people.expect(0).stdout;
    assert!(!shown.contains('\u{1b}') && shown.contains("{ \\u{1b}[2J\\xff") && shown.contains("DW0801"), "{shown}");
    let machines = json(&["show", oldest]);
    assert_eq!((&machines["attempts"], &machines["headers"][0]), (&json!(1), &json!(["note", "\u{1b}[1m"])));
    assert!(machines["value"]["base64"].is_string(), "{machines}");
    let raw = workspace.dagwright().args(["dlq", "show", oldest, "--raw", "--config", config]).output();
    assert_eq!(raw.expect("dagwright starts").stdout, MALFORMED);
    dlq(&["show", "0/1000000"]).expect_problem(2, "DW0815");
    assert_eq!(dlq(&["show", "seventeen"]).code, Some(2));

    // Who asked is told by an event, where it can be told what for.
    let refused = told_of(&mut client, "request.rejected");
    let places: Vec<_> =
        refused.iter().map(|event| (text(&event["data"]["pipeline"]), event["data"]["identity"].clone())).collect();
    let identity = |source: &str, id: &str| json!({ "source": source, "id": id });
    let bare = ("bare".to_owned(), identity("/kafka/dagwright.requests.v1", "0/1"));
    assert_eq!(places, [bare, ("team_a.named".to_owned(), identity("/tests", "1"))]);
    for event in &refused {
        assert_eq!(event["data"]["error"]["code"], "DW0806", "{event}");
        assert_eq!(text(&event["id"]), format!("{}/refused/1", text(&event["data"]["request_id"])));
        assert!(event.get("sequence").is_none(), "{event}");
    }
    assert_eq!(refused[1]["traceparent"], TRACEPARENT);

    // The same settings: refused again, and counted. Then others.
    let sent = json(&["replay", newest]);
    let place = (&sent["sent"][0]["topic"], &sent["sent"][0]["attempt"]);
    assert_eq!(place, (&json!(FOREIGN), &json!(2)), "{sent}");
    assert_eq!(client.consume(DEAD_LETTERS, 4).len(), 4);
    let again = json(&["list", "--limit", "1"]);
    assert_eq!(
        (&again["letters"][0]["attempts"], &again["letters"][0]["replay_of"]),
        (&json!(2), &json!("team-a.requests/0/0"))
    );
    let refused = told_of(&mut client, "request.rejected");
    let ids: Vec<_> = refused.iter().map(|event| text(&event["id"])).collect();
    assert_eq!((ids.len(), ids[1].replace("/refused/1", "/refused/2")), (3, ids[2].clone()));
    refusing.signal("TERM");
    assert_eq!(refusing.ended(), Some(0));
    let uris = format!("{}/**", workspace.path("in.csv").parent().expect("a folder").display());
    let accepting = start(&workspace, config, &uris);
    for _ in 0..2 {
        let sent = json(&["replay", "--code", "DW0806"]);
        let topics: Vec<_> = sent["sent"].as_array().expect("sent").iter().map(|it| &it["topic"]).collect();
        assert_eq!(topics, [REQUESTS, FOREIGN], "each request once, the oldest first: {sent}");
    }
    // A letter behind them says that they were read, there and at home.
    for (topic, letters) in [(FOREIGN, 5), (REQUESTS, 6)] {
        client.produce(topic, &[Record::new("", "behind: [")]);
        assert_eq!(client.consume(DEAD_LETTERS, letters).len(), letters);
    }
    let mut seen = 0;
    let ended = |told: &BTreeMap<(String, String), usize>, pipeline: &str| {
        told.contains_key(&(pipeline.to_owned(), "dev.dagwright.run.succeeded.v1".to_owned()))
    };
    loop {
        let told = told(&mut client);
        if ["bare", "team_a.named"].iter().all(|pipeline| ended(&told, pipeline)) {
            break;
        }
        seen = client.consume(EVENTS, seen + 1).len().max(seen + 1);
    }
    let told = told(&mut client);
    for pipeline in ["bare", "team_a.named"] {
        for kind in ["request.accepted", "run.started", "run.succeeded"] {
            let count = told.get(&(pipeline.to_owned(), format!("dev.dagwright.{kind}.v1")));
            assert_eq!(count, Some(&1), "{pipeline} {kind}: {told:?}");
        }
    }
    drop(accepting);
}

#[test]
fn without_kafka_there_are_none() {
    let workspace = Workspace::new();
    workspace.run(["dlq", "list"]).expect_problem(2, "DW0701");
    let unreachable = workspace
        .dagwright()
        .args(["dlq", "list"])
        .envs([("DAGWRIGHT__BUS__KIND", "kafka"), ("DAGWRIGHT__KAFKA__BROKERS", "127.0.0.1:1")])
        .output();
    Ended::from(unreachable.expect("dagwright starts")).expect_problem(3, "DW0814");
}
