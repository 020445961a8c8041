//! Daemons behind one load balancer, over a real Kafka: whichever is asked, what is asked is done once by the one that acts
//! for the pipeline, in the name of who asked; and nobody is given a right by what a message says of its sender.

use std::{collections::BTreeMap, fs};

use dagwright_tests::{
    Workspace,
    daemon::Daemon,
    http::{self, Reply},
    kafka::{Client, Kafka, Record},
};
use serde_json::{Value, json};

const REQUESTS: &str = "dagwright.requests.v1";
const EVENTS: &str = "dagwright.events.v1";
const DEAD_LETTERS: &str = "dagwright.requests.dlq.v1";

/// More pipelines than partitions, so that each daemon acts for some.
const PIPELINES: usize = 8;

/// Who calls, and what they may do.
const TOKENS: &str = "
[http.tokens.ann]
token_env = \"TOKEN_ANN\"
scopes = [\"read\", \"submit\"]
[http.tokens.eve]
token_env = \"TOKEN_EVE\"
scopes = [\"read\", \"submit\", \"operate\"]
";

/// Starts a daemon of the group; its store is its own.
fn start(kafka: &Kafka, workspace: &Workspace, instance: &str, settings: &str) -> Daemon {
    let store = workspace.path(&format!("store-{instance}"));
    let file = workspace.path("dagwright.toml");
    fs::write(&file, format!("{TOKENS}{settings}")).expect("written");
    let variables = [
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        ("DAGWRIGHT__KAFKA__PARTITIONS", "4"),
        ("DAGWRIGHT__KAFKA__INSTANCE", instance),
        ("DAGWRIGHT__STORE__PATH", store.to_str().expect("text")),
        ("TOKEN_ANN", "ann-0123456789abcdef"),
        ("TOKEN_EVE", "eve-0123456789abcdef"),
    ];
    Daemon::with(workspace, &variables, &["--config", file.to_str().expect("text")])
}

fn call(daemon: &Daemon, who: &str, method: &str, path: &str, body: &Value) -> Reply {
    let authorization = format!("Bearer {who}-0123456789abcdef");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::call(daemon.address, method, &format!("/api/v1{path}"), &headers, body.as_bytes())
}

/// Returns the spec of a pipeline that copies a file once a person has approved it.
fn spec(workspace: &Workspace, pipeline: &str, approval: &str) -> Value {
    let path = |name: &str| workspace.path(name).display().to_string();
    json!({
        "version": 1, "pipeline": pipeline,
        "source": { "uri": path("in.csv") },
        "sink": { "uri": path(&format!("out/{pipeline}.parquet")), "mode": "replace" },
        "policy": { "approval": approval },
    })
}

/// Sends a request for each pipeline, by turns to one daemon and the other; returns their ids, by pipeline.
fn submit_all(daemons: [&Daemon; 2], workspace: &Workspace) -> BTreeMap<String, String> {
    let submit = |index: usize| {
        let pipeline = format!("p{index}");
        let asked = json!({ "spec": spec(workspace, &pipeline, "always") });
        let answer = call(daemons[index % 2], "ann", "POST", "/requests", &asked);
        let id = answer.expect(202).json()["request_id"].as_str().expect("an id").to_owned();
        (pipeline, id)
    };
    (0..PIPELINES).map(submit).collect()
}

/// Waits until as many events of a kind were told, and returns the pipelines that they are of.
fn until(client: &mut Client, kind: &str, count: usize) -> Vec<String> {
    let mut seen = 0;
    loop {
        let all = client.read(EVENTS);
        let events = all.iter().map(|record| -> Value {
            serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON")
        });
        let of_kind: Vec<_> = events
            .filter(|event| event["type"] == format!("dev.dagwright.{kind}.v1"))
            .map(|event| event["data"]["pipeline"].as_str().expect("a pipeline").to_owned())
            .collect();
        if of_kind.len() >= count {
            return of_kind;
        }
        seen = seen.max(all.len());
        assert!(client.consume(EVENTS, seen + 1).len() > seen, "only {of_kind:?} were told of {kind}");
    }
}

/// Waits until a daemon knows that a request is in such a state.
fn until_known(daemon: &Daemon, id: &str, is_it: impl Fn(&str) -> bool) {
    let path = format!("/api/v1/events?request={id}");
    let mut events = http::Events::open_as(daemon.address, &path, "Bearer ann-0123456789abcdef");
    loop {
        let known = call(daemon, "ann", "GET", &format!("/requests/{id}"), &Value::Null).expect(200).json();
        if is_it(known["state"].as_str().expect("a state")) {
            return;
        }
        assert!(events.next().is_some(), "{known} stays as it is");
    }
}

/// Returns the path that decides about the plan of a request.
fn approval(daemon: &Daemon, id: &str) -> String {
    let known = call(daemon, "ann", "GET", &format!("/requests/{id}"), &Value::Null);
    format!("/plans/{}/approve", known.expect(200).json()["plan_hash"].as_str().expect("a plan"))
}

fn story(daemon: &Daemon, id: &str) -> String {
    call(daemon, "ann", "GET", &format!("/requests/{id}/explain"), &Value::Null).expect(200).body.clone()
}

#[track_caller]
fn once_each(mut pipelines: Vec<String>) {
    pipelines.sort();
    assert_eq!(pipelines, (0..PIPELINES).map(|index| format!("p{index}")).collect::<Vec<_>>());
}

#[test]
fn whichever_daemon_is_asked_it_is_done_once_and_in_the_name_of_who_asked() {
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n");
    let (one, two) = (start(&kafka, &workspace, "one", ""), start(&kafka, &workspace, "two", ""));
    let mut client = kafka.client();
    let ids = submit_all([&one, &two], &workspace);
    once_each(until(&mut client, "approval.needed", PIPELINES));
    for daemon in [&one, &two] {
        for id in ids.values() {
            until_known(daemon, id, |state| state == "awaiting_approval");
        }
    }
    for (index, id) in ids.values().enumerate() {
        let (first, second) = if index % 2 == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!(call(first, "ann", "GET", &format!("/requests/{id}"), &Value::Null).json()["requester"], "ann");
        if index < PIPELINES / 2 {
            let path = approval(second, id);
            call(first, "ann", "POST", &path, &Value::Null).refused(403, "DW0808");
            // Whoever acts for it may need longer than a caller is kept waiting.
            let approved = call(first, "eve", "POST", &path, &Value::Null);
            assert!(matches!(approved.status, 200 | 202), "{approved:?}");
            until_known(second, id, |state| state != "awaiting_approval");
            call(second, "eve", "POST", &path, &Value::Null).refused(409, "DW0811");
        } else {
            let path = format!("/requests/{id}/cancel");
            call(first, "eve", "POST", &path, &Value::Null).expect(202);
            // The other one may hear of its end before or after: then it is told again, to no effect.
            let again = call(second, "eve", "POST", &path, &Value::Null);
            assert!(matches!(again.status, 202 | 409), "{again:?}");
        }
    }
    let ran = until(&mut client, "run.succeeded", PIPELINES / 2);
    let ended = until(&mut client, "request.rejected", PIPELINES / 2);
    once_each(ran.into_iter().chain(ended).collect());
    once_each(until(&mut client, "request.accepted", PIPELINES));
    assert_eq!(until(&mut client, "run.started", PIPELINES / 2).len(), PIPELINES / 2);
    for (index, id) in ids.values().enumerate() {
        let wanted = if index < PIPELINES / 2 { "eve approved it." } else { "eve asked it to stop." };
        for daemon in [&one, &two] {
            let story = story(daemon, id);
            assert_eq!(story.matches(wanted).count(), 1, "{story}");
        }
    }
}

#[test]
fn what_was_asked_is_done_once_although_who_acts_is_killed_before() {
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n");
    let (lost, kept) = (start(&kafka, &workspace, "lost", ""), start(&kafka, &workspace, "kept", ""));
    let mut client = kafka.client();
    let ids = submit_all([&lost, &kept], &workspace);
    once_each(until(&mut client, "approval.needed", PIPELINES));
    for id in ids.values() {
        until_known(&kept, id, |state| state == "awaiting_approval");
    }
    let paths: Vec<_> = ids.values().map(|id| approval(&kept, id)).collect();
    // It hears of nothing any more, and the group does not know yet.
    lost.signal("STOP");
    let answers: Vec<_> = paths.iter().map(|path| call(&kept, "eve", "POST", path, &Value::Null)).collect();
    let handed_on = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202)), "{answers:?}");
    assert!(handed_on > 0, "the one that was stopped acted for no pipeline: {answers:?}");
    let sent_again = answers.iter().zip(&paths).find(|(answer, _)| answer.status == 202);
    assert_eq!(sent_again.map(|(answer, _)| answer.json()["settled"].clone()), Some(json!(false)));
    lost.signal("KILL");
    once_each(until(&mut client, "run.succeeded", PIPELINES));
    once_each(until(&mut client, "run.started", PIPELINES));
    for id in ids.values() {
        assert_eq!(story(&kept, id).matches("eve approved it.").count(), 1);
    }
}

#[test]
fn what_a_message_says_of_its_sender_gives_no_rights() {
    const RULES: &str = "
[kafka.requests]
scopes = [\"submit\"]
[[kafka.ingress]]
topic = \"operators\"
scopes = [\"submit\", \"operate\"]
[[kafka.ingress]]
topic = \"guests\"
scopes = [\"submit\"]
namespaces = [\"guests\"]
";
    let kafka = Kafka::start();
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n");
    let mut client = kafka.client();
    client.create_topic("operators", 2);
    client.create_topic("guests", 2);
    let daemon = start(&kafka, &workspace, "one", RULES);
    let event = |id: &str, data: Value| {
        let event = json!({
            "specversion": "1.0", "type": "dev.dagwright.pipeline.requested.v1", "source": "/tests", "id": id,
            "datacontenttype": "application/json", "data": data,
        });
        let record = Record::new("", event.to_string()).header("content-type", "application/cloudevents+json");
        record.header("dagwright-requester", "eve")
    };
    let asked = |action: &str| json!({ "action": action, "spec": spec(&workspace, "forged", "never") });
    let pause = || json!({ "action": "pause", "pipeline": "forged" });
    client.produce(REQUESTS, &[event("apply", asked("apply"))]);
    until(&mut client, "dag.deployed", 1);
    // Refused: the topic may not operate, and that one is not open to this pipeline; allowed: the operators' own.
    client.produce(REQUESTS, &[event("pause-forged", pause())]);
    client.produce("guests", &[event("run-outside", asked("run"))]);
    let dead = client.consume(DEAD_LETTERS, 2);
    let mut codes: Vec<_> = dead.iter().flat_map(|letter| &letter.headers).collect();
    codes.retain(|(name, _)| name == "dagwright-error-code");
    let mut codes: Vec<_> =
        codes.iter().map(|(_, code)| String::from_utf8_lossy(code.as_deref().unwrap_or_default())).collect();
    codes.sort();
    assert_eq!(codes, ["DW0806", "DW0808"], "{dead:?}");
    client.produce("operators", &[event("pause", pause())]);
    until(&mut client, "dag.removed", 1);
    let requests = call(&daemon, "ann", "GET", "/requests", &Value::Null).expect(200).json();
    let requesters: Vec<_> = requests["items"].as_array().expect("items").iter().map(|it| &it["requester"]).collect();
    assert_eq!(requesters, ["kafka:operators", "kafka:dagwright.requests.v1"], "{requests}");
}
