//! Webhooks end to end: every event arrives, those of a pipeline in order, whatever goes away in between.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use dagwright_tests::{
    Workspace,
    daemon::Daemon,
    http,
    kafka::{Kafka, Record},
    receiver::{Post, Receiver},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Writes a configuration with an outlet named `hook`.
fn configure(workspace: &Workspace, receiver: std::net::SocketAddr, settings: &str) {
    let url = format!("http://{receiver}/hooks/x");
    let text = format!("[webhooks.hook]\nurl = \"{url}\"\nbackoff = \"10ms\"\nbackoff_max = \"100ms\"\n{settings}");
    workspace.write("c.toml", text);
}

fn start(workspace: &Workspace) -> Daemon {
    Daemon::with(workspace, &[("HOOK_SECRET", SECRET)], &["--config", "c.toml"])
}

/// Asks for a pipeline that copies a file; returns the request's id.
fn submit(daemon: &Daemon, workspace: &Workspace, pipeline: &str, key: &str) -> String {
    let body = spec(workspace, pipeline).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let reply = http::call(daemon.address, "POST", "/api/v1/requests", &headers, body.as_bytes());
    reply.expect(202).json()["request_id"].as_str().expect("an id").to_owned()
}

fn spec(workspace: &Workspace, pipeline: &str) -> Value {
    let (namespace, name) = pipeline.split_once('.').map_or((None, pipeline), |(space, name)| (Some(space), name));
    let path = |name: &str| workspace.path(name).display().to_string();
    let mut spec = json!({
        "version": 1, "pipeline": name, "source": { "uri": path("in.csv") },
        "sink": { "uri": path(&format!("out/{pipeline}.parquet")), "mode": "replace" },
    });
    if let Some(namespace) = namespace {
        spec["namespace"] = namespace.into();
    }
    spec
}

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,name\n1,a\n2,b\n3,c\n");
    workspace
}

/// Reads events until so many requests have ended; returns all, as CloudEvents.
fn until_ended(daemon: &Daemon, requests: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut ended = 0;
    for told in http::Events::open(daemon.address, "/api/v1/events?after=0", None) {
        ended += usize::from(told.event == "run.succeeded");
        assert!(!["run.failed", "request.rejected"].contains(&told.event.as_str()), "{told:?}");
        events.push(told.data);
        if ended == requests {
            break;
        }
    }
    events
}

/// Returns the ids of events by pipeline, in order.
fn by_pipeline<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Vec<String>> {
    let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}")).to_owned();
        ids.entry(text("partitionkey")).or_default().push(text("id"));
    }
    ids
}

/// Returns the events that were taken, repeats left out.
fn taken(posts: &[Post]) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    posts.iter().filter(|post| post.is_taken() && seen.insert(post.id().to_owned())).map(Post::json).collect()
}

#[test]
fn an_outage_delays_events_and_drops_none() {
    let (workspace, address) = (workspace(), Receiver::nowhere());
    configure(&workspace, address, "");
    let mut daemon = start(&workspace);
    for (pipeline, key) in [("a", "1"), ("b", "2"), ("a", "3")] {
        submit(&daemon, &workspace, pipeline, key);
    }
    until_ended(&daemon, 3);
    daemon.signal("KILL");
    assert_eq!(daemon.ended(), None);

    let daemon = start(&workspace);
    let metrics = http::call(daemon.address, "GET", "/metrics", &[], b"").expect(200).body.clone();
    let depth = metrics.lines().find(|line| line.starts_with("dagwright_outbox_depth_events{"));
    let depth = depth.unwrap_or_else(|| panic!("no depth:\n{metrics}"));
    assert!(depth.contains("reader=\"webhooks.hook\"") && !depth.ends_with(" 0"), "{depth}");
    submit(&daemon, &workspace, "c", "4");
    let events = until_ended(&daemon, 4);
    let receiver = Receiver::start(address, |_, _| (204, ""));
    let posts = receiver.until(|posts| taken(posts).len() >= events.len());
    assert_eq!(by_pipeline(&taken(&posts)), by_pipeline(&events));
    assert_eq!(posts.len(), events.len(), "nothing was taken before, so nothing is told twice");
}

#[test]
fn what_fails_is_tried_again_and_what_is_refused_holds_nobody_up_for_ever() {
    let workspace = workspace();
    let receiver = Receiver::start(Receiver::nowhere(), |post, before| {
        let again = before.iter().filter(|known| known.id() == post.id()).count();
        let event = post.json();
        match (event["type"].as_str().expect("a type"), event["partitionkey"].as_str().expect("a pipeline")) {
            ("dev.dagwright.plan.sealed.v1", "a") => (422, ""),
            // Somebody before the receiver dislikes this one; others pass.
            ("dev.dagwright.run.started.v1", "b") => (403, ""),
            ("dev.dagwright.run.started.v1", _) if again == 0 => (307, "location: http://127.0.0.1:1/\r\n"),
            _ if again == 0 => (503, "retry-after: 0\r\n"),
            _ => (200, ""),
        }
    });
    configure(&workspace, receiver.address, "tries = 3\nsecret_env = \"HOOK_SECRET\"");
    let daemon = start(&workspace);
    for (pipeline, key) in [("a", "1"), ("b", "2"), ("c", "3")] {
        submit(&daemon, &workspace, pipeline, key);
    }
    let is_refused = |event: &Value| {
        let (kind, pipeline) = (event["type"].as_str(), event["partitionkey"].as_str());
        [("dev.dagwright.plan.sealed.v1", "a"), ("dev.dagwright.run.started.v1", "b")]
            .contains(&(kind.unwrap_or_default(), pipeline.unwrap_or_default()))
    };
    until_ended(&daemon, 3);
    // Something is taken after the event that was refused with 403: so it is the event's fault.
    submit(&daemon, &workspace, "c", "4");
    let events = until_ended(&daemon, 4);
    let wanted: Vec<_> = events.iter().filter(|event| !is_refused(event)).cloned().collect();
    let posts = receiver.until(|posts| taken(posts).len() == wanted.len());
    assert_eq!(by_pipeline(&taken(&posts)), by_pipeline(&wanted));
    for event in events.iter().filter(|event| is_refused(event)) {
        let tries = posts.iter().filter(|post| post.id() == event["id"]).count();
        assert!(tries >= 3, "{tries} of {event}");
    }
    posts.iter().for_each(check_signature);

    let count = |name: &str, label: &str| -> usize {
        let metrics = http::call(daemon.address, "GET", "/metrics", &[], b"").expect(200).body.clone();
        let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(label));
        let line = line.unwrap_or_else(|| panic!("{name}:\n{metrics}"));
        line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number")
    };
    assert_eq!(count("dagwright_webhook_events_refused_total{", "webhook=\"hook\""), 2);
    // The last answer has left the receiver, and may not have come yet.
    let delivered = || count("dagwright_webhook_posts_total{", "outcome=\"delivered\"");
    for _ in 0..100 {
        if delivered() == wanted.len() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    assert_eq!(delivered(), wanted.len());
}

/// Checks what Standard Webhooks and the CloudEvents HTTP binding say of a post.
#[track_caller]
fn check_signature(post: &Post) {
    assert_eq!(post.path, "/hooks/x");
    assert_eq!(post.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    let event = post.json();
    assert_eq!(event["id"], post.id());
    assert_eq!(event["traceparent"], post.headers["traceparent"].as_str());
    let secret = BASE64_STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("a key");
    mac.update(format!("{}.{}.{}", post.id(), post.headers["webhook-timestamp"], post.body).as_bytes());
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(post.headers["webhook-signature"], signature);
}

#[test]
fn a_service_that_stops_flushes_and_the_next_one_goes_on_from_there() {
    let workspace = workspace();
    let receiver = Receiver::start(Receiver::nowhere(), |_, _| (200, ""));
    configure(&workspace, receiver.address, "");
    let mut daemon = start(&workspace);
    submit(&daemon, &workspace, "a", "1");
    let events = until_ended(&daemon, 1);
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));
    assert_eq!(by_pipeline(&taken(&receiver.posts())), by_pipeline(&events), "it flushed");

    let daemon = start(&workspace);
    submit(&daemon, &workspace, "a", "2");
    let events = until_ended(&daemon, 2);
    let posts = receiver.until(|posts| taken(posts).len() == events.len());
    assert_eq!(by_pipeline(&taken(&posts)), by_pipeline(&events));
    assert_eq!(posts.len(), events.len(), "nothing was told twice");
}

#[test]
fn an_outlet_tells_what_it_is_for_from_now_on() {
    let workspace = workspace();
    workspace.write("c.toml", "");
    let mut daemon = start(&workspace);
    submit(&daemon, &workspace, "told.a", "1");
    until_ended(&daemon, 1);
    daemon.signal("TERM");
    assert_eq!(daemon.ended(), Some(0));

    let receiver = Receiver::start(Receiver::nowhere(), |_, _| (200, ""));
    let settings = "mode = \"binary\"\nevents = [\"run.*\"]\nnamespaces = [\"told\"]";
    configure(&workspace, receiver.address, settings);
    let daemon = start(&workspace);
    let told = submit(&daemon, &workspace, "told.a", "2");
    submit(&daemon, &workspace, "untold.a", "3");
    submit(&daemon, &workspace, "a", "4");
    until_ended(&daemon, 4);
    let last = submit(&daemon, &workspace, "told.b", "5");
    let posts = receiver.until(|posts| posts.len() == 4);
    let seen: Vec<_> =
        posts.iter().map(|post| (post.headers["ce-type"].as_str(), post.headers["ce-subject"].as_str())).collect();
    let (started, succeeded) = ("dev.dagwright.run.started.v1", "dev.dagwright.run.succeeded.v1");
    assert_eq!(seen, [(started, &*told), (succeeded, &*told), (started, &*last), (succeeded, &*last)]);
    for post in &posts {
        assert_eq!(
            (post.headers["ce-specversion"].as_str(), post.headers["content-type"].as_str()),
            ("1.0", "application/json")
        );
        assert_eq!(post.headers["ce-id"], post.id());
        assert_eq!(post.json()["request_id"], post.headers["ce-subject"].as_str());
        assert!(!post.headers.contains_key("webhook-signature"), "nothing is set to sign with");
    }
}

#[test]
fn whoever_takes_over_in_the_group_tells_what_is_left() {
    const PIPELINES: usize = 6;
    let (kafka, workspace, address) = (Kafka::start(), workspace(), Receiver::nowhere());
    configure(&workspace, address, "");
    let start = |instance: &str| {
        let store = workspace.path(&format!("store-{instance}"));
        let variables = [
            ("DAGWRIGHT__BUS__KIND", "kafka"),
            ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
            ("DAGWRIGHT__KAFKA__PARTITIONS", "4"),
            ("DAGWRIGHT__KAFKA__INSTANCE", instance),
            ("DAGWRIGHT__KAFKA__PROPERTIES__SESSION__TIMEOUT__MS", "6000"),
            ("DAGWRIGHT__STORE__PATH", store.to_str().expect("text")),
        ];
        Daemon::with(&workspace, &variables, &["--config", "c.toml"])
    };
    let (lost, _kept) = (start("lost"), start("kept"));
    let mut client = kafka.client();
    let ask = |round: &str| -> Vec<_> {
        let request = |index| {
            let pipeline = format!("p{index}");
            let event = json!({
                "specversion": "1.0", "type": "dev.dagwright.pipeline.requested.v1", "source": "/tests",
                "id": round, "datacontenttype": "application/json", "data": { "spec": spec(&workspace, &pipeline) },
            });
            Record::new(pipeline.as_str(), event.to_string()).header("content-type", "application/cloudevents+json")
        };
        (0..PIPELINES).map(request).collect()
    };
    client.produce("dagwright.requests.v1", &ask("1"));
    // The receiver is away while the first requests run; then one instance goes for good while it is told of them.
    assert_eq!(client.consume("dagwright.events.v1", PIPELINES).len(), PIPELINES);
    let receiver = Receiver::start(address, |_, _| (200, ""));
    receiver.until(|posts| !posts.is_empty());
    lost.signal("KILL");
    client.produce("dagwright.requests.v1", &ask("2"));
    let ends =
        |posts: &[Post]| taken(posts).iter().filter(|event| event["type"] == "dev.dagwright.run.succeeded.v1").count();
    let posts = receiver.until(|posts| ends(posts) == 2 * PIPELINES);
    let all: Vec<Value> = client
        .read("dagwright.events.v1")
        .iter()
        .map(|record| serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON"))
        .collect();
    all.iter().for_each(dagwright_tests::events::check);
    assert_eq!(by_pipeline(&taken(&posts)), by_pipeline(&all));
}
