//! What Airflow's listener posts: believed by its signature, bounded, and heard once.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use actix_web::{
    http::{Method, StatusCode},
    test::TestRequest,
};
use chrono::Utc;
use dagwright_engine::airflow::told::{Ear, Told, What, posted::EVENT_BYTES_MAX};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{World, asks, of_repository};
use crate::{config::Config, http, outlets::signature::Signer};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";

/// Remembers what it was told.
#[derive(Default)]
struct Notes(Mutex<Vec<Told>>);

impl Ear for Notes {
    fn hear(&self, told: Told) {
        self.0.lock().expect("no panic").push(told);
    }
}

/// A service that hears, with the file of its secrets.
struct Hearing {
    world: World,
    notes: Arc<Notes>,
    secrets: NamedTempFile,
}

impl Hearing {
    async fn with(secrets: &str, settings: &str) -> Self {
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(secrets.as_bytes()).expect("written");
        let notes = Arc::new(Notes::default());
        let settings = format!("{settings}[airflow.feedback]\nsecret_file = {:?}\n", file.path());
        let world = World::hearing(&settings, &[], Some(notes.clone())).await;
        Self { world, notes, secrets: file }
    }

    async fn new() -> Self {
        Self::with(SECRET, "").await
    }

    async fn post(&self, event: &Value) -> super::Answer {
        self.world.call(posts(event, SECRET)).await
    }

    #[track_caller]
    fn heard(&self, count: usize) {
        assert_eq!(self.notes.0.lock().expect("no panic").len(), count);
    }
}

fn samples() -> Vec<Value> {
    let text = of_repository("crates/engine/src/airflow/told/samples/posted-3.3.2.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A post as the listener makes it.
fn posts(event: &Value, secrets: &str) -> TestRequest {
    let id = event["id"].as_str().unwrap_or("none");
    posts_as(id, Utc::now().timestamp(), event.to_string(), secrets)
}

fn posts_as(id: &str, at: i64, body: String, secrets: &str) -> TestRequest {
    let signature = Signer::new(secrets).expect("secrets").sign(id, at.unsigned_abs(), body.as_bytes());
    asks(Method::POST, "/api/v1/feedback")
        .insert_header(("content-type", "application/json"))
        .insert_header(("webhook-id", id))
        .insert_header(("webhook-timestamp", at.to_string()))
        .insert_header(("webhook-signature", signature))
        .set_payload(body)
}

#[actix_web::test]
async fn what_is_posted_is_heard_once_and_in_order() {
    let hearing = Hearing::new().await;
    for event in samples() {
        for _ in 0..2 {
            let answer = hearing.post(&event).await;
            assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
        }
    }
    let heard = hearing.notes.0.lock().expect("no panic");
    let wanted: Vec<_> = samples().iter().map(|event| event["task_id"].as_str().unwrap_or("run").to_owned()).collect();
    let found = heard.iter().map(|told| match &told.what {
        What::Run(_) => "run".to_owned(),
        What::Task(task) => task.task.0.clone(),
    });
    assert_eq!(found.collect::<Vec<_>>(), wanted);
}

#[actix_web::test]
async fn what_was_dropped_is_taken_in_and_nothing_to_hear() {
    let hearing = Hearing::new().await;
    let report = json!({
        "version": 1, "id": "a".repeat(32), "kind": "events_dropped", "at": "2026-01-02T03:04:05Z", "host": "worker-1",
        "airflow_version": "3.3.2", "report": "dropped-1", "dropped": 12,
    });
    assert_eq!(hearing.post(&report).await.status, StatusCode::NO_CONTENT);
    hearing.heard(0);
}

#[actix_web::test]
async fn nobody_is_believed_without_a_signature() {
    let hearing = Hearing::new().await;
    let event = samples().remove(0);
    let id = event["id"].as_str().expect("an id");
    let now = Utc::now().timestamp();
    let plain = || {
        let request = asks(Method::POST, "/api/v1/feedback").insert_header(("content-type", "application/json"));
        request.set_payload(event.to_string())
    };
    let signature = ("webhook-signature", Signer::new(SECRET).expect("usable").sign(id, now.unsigned_abs(), b"{}"));
    for request in [
        plain(),
        plain().insert_header(("authorization", format!("Bearer {SECRET}"))),
        plain().insert_header(("webhook-id", id)).insert_header(("webhook-timestamp", now.to_string())),
        plain().insert_header(("webhook-id", id)).insert_header(signature.clone()),
        // Of another body, of another secret, of another id, with no time.
        plain()
            .insert_header(("webhook-id", id))
            .insert_header(("webhook-timestamp", now.to_string()))
            .insert_header(signature),
        posts(&event, OTHER),
        posts(&event, SECRET).insert_header(("webhook-id", "0".repeat(32))),
        posts(&event, SECRET).insert_header(("webhook-timestamp", "soon")),
        posts(&event, SECRET).insert_header(("webhook-timestamp", (now + 1).to_string())),
        // Made long ago, or by a clock that is wrong.
        posts_as(id, now - 400, event.to_string(), SECRET),
        posts_as(id, now + 400, event.to_string(), SECRET),
    ] {
        hearing.world.call(request).await.is_refused(401, "DW0820");
    }
    hearing.heard(0);
    // An old event that is posted now is as good as any.
    assert_eq!(hearing.world.call(posts_as(id, now - 200, event.to_string(), SECRET)).await.status.as_u16(), 204);
    hearing.heard(1);
}

#[actix_web::test]
async fn a_secret_is_changed_without_a_gap() {
    let both = Hearing::with(&format!("{OTHER} {SECRET}"), "").await;
    let [first, second, ..] = samples().try_into().unwrap_or_else(|all: Vec<Value>| [all[0].clone(), all[1].clone()]);
    assert_eq!(both.world.call(posts(&first, SECRET)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(both.world.call(posts(&second, OTHER)).await.status, StatusCode::NO_CONTENT);
    both.heard(2);

    let hearing = Hearing::new().await;
    hearing.world.call(posts(&first, OTHER)).await.is_refused(401, "DW0820");
    std::fs::write(hearing.secrets.path(), OTHER).expect("written");
    let settings = &hearing.world.state.config.airflow.feedback;
    hearing.world.state.feedback.change(settings).expect("a secret");
    assert_eq!(hearing.world.call(posts(&first, OTHER)).await.status, StatusCode::NO_CONTENT);
    std::fs::write(hearing.secrets.path(), "nonsense").expect("written");
    assert!(hearing.world.state.feedback.change(settings).is_err());
    assert_eq!(hearing.world.call(posts(&second, OTHER)).await.status, StatusCode::NO_CONTENT, "as it was");
}

#[actix_web::test]
async fn what_is_no_event_is_refused_for_good() {
    let hearing = Hearing::new().await;
    let mut event = samples().remove(0);
    let id = event["id"].as_str().expect("an id").to_owned();
    let now = Utc::now().timestamp();
    let signed = |body: &str| posts_as(&id, now, body.to_owned(), SECRET);
    for body in ["", "[]", "{", "\u{0}"] {
        hearing.world.call(signed(body)).await.is_refused(400, "DW0121");
    }
    hearing.world.call(signed("{}")).await.is_refused(422, "DW0121");
    event["state"] = "sideways".into();
    let told = hearing.post(&event).await.is_refused(422, "DW0121");
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("`state`") && !detail.contains("sideways")));
    event = samples().remove(0);
    hearing.world.call(posts_as(&"b".repeat(32), now, event.to_string(), SECRET)).await.is_refused(422, "DW0121");
    hearing.world.call(signed(&" ".repeat(EVENT_BYTES_MAX + 1))).await.is_refused(413, "DW0802");
    let other_type = signed(&event.to_string()).insert_header(("content-type", "text/plain"));
    hearing.world.call(other_type).await.is_refused(415, "DW0801");
    let zipped = signed(&event.to_string()).insert_header(("content-encoding", "br"));
    hearing.world.call(zipped).await.is_refused(415, "DW0801");
    let answer = hearing.world.get("/api/v1/feedback").await;
    answer.is_refused(405, "DW0801");
    assert_eq!(answer.header("allow"), Some("POST"));
    hearing.heard(0);
}

#[actix_web::test]
async fn what_a_setting_or_a_later_time_mends_is_not_refused_for_good() {
    let event = samples().remove(0);
    let closed = World::new().await;
    let told = closed.call(posts(&event, SECRET)).await.is_refused(403, "DW0806");
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("engine is not Airflow")));
    let no_secret = World::hearing("", &[], Some(Arc::new(Notes::default()))).await;
    let told = no_secret.call(posts(&event, SECRET)).await.is_refused(403, "DW0806");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("airflow.feedback")));

    let hearing = Hearing::new().await;
    hearing.world.state.closing.cancel();
    hearing.post(&event).await.is_refused(503, "DW0812");
    hearing.heard(0);
}

#[actix_web::test]
async fn neither_tokens_nor_shares_of_callers_stand_in_the_way_of_airflow() {
    let limits = "[http]\nrequests_per_second = 2\n";
    let hearing = Hearing::with(SECRET, limits).await;
    for event in samples() {
        assert_eq!(hearing.post(&event).await.status, StatusCode::NO_CONTENT);
    }
    let event = samples().remove(0);
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(hearing.world.call(posts(&event, OTHER)).await.status.as_u16());
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "who guesses has a share: {statuses:?}");
    assert_eq!(hearing.post(&event).await.status, StatusCode::NO_CONTENT);
}

#[test]
fn settings_that_cannot_be_used_are_told() {
    let faults = |toml: &str| {
        let mut file = NamedTempFile::new().expect("a file");
        file.write_all(toml.as_bytes()).expect("written");
        match Config::load_service(Some(file.path()), None) {
            Ok(_) => Vec::new(),
            Err(crate::config::Error::Invalid(faults)) => faults.into_iter().map(|fault| fault.key).collect(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(faults("[airflow.events]\ntopic = \"airflow.events\""), ["airflow.events.topic"]);
    assert_eq!(faults("[airflow.feedback]\nsecret_file = \"/nowhere\""), ["airflow.feedback.secret_file"]);
    assert_eq!(faults("[airflow.feedback]\nsecret_file = \"/x\"\nsecret_env = \"X\""), ["airflow.feedback"]);
    assert_eq!(faults(""), [""; 0]);
}

/// Posts what is on its standard input, a line each, with what the package posts with.
const POSTER: &str = r#"
import importlib.util, json, pathlib, sys

def load(name):
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(sys.argv[1], name + ".py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

poster = load("post").Poster(sys.argv[2], load("signature").Signer(sys.argv[3]), timeout=60)
for line in sys.stdin:
    answer = poster.post(json.loads(line)["id"], line.strip().encode())
    print(answer.verdict.value, answer.reason)
"#;

#[actix_web::test]
async fn the_package_that_posts_and_the_daemon_understand_each_other() {
    let hearing = Hearing::with(SECRET, "[http]\nlisten = \"127.0.0.1:0\"\n").await;
    let (server, address) = http::start(hearing.world.state.clone().into_inner()).expect("a server");
    let handle = server.handle();
    let serving = tokio::spawn(server);
    let post = |secrets: String, lines: Vec<String>| async move {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/airflow/src/dagwright_airflow");
        let url = format!("http://{address}");
        let posted = tokio::task::spawn_blocking(move || {
            let mut python = Command::new("python3");
            python.args(["-c", POSTER]).arg(package).args([url, secrets]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = python.spawn().expect("python3");
            child.stdin.take().expect("a pipe").write_all(lines.join("\n").as_bytes()).expect("written");
            child.wait_with_output().expect("an end")
        });
        let output = posted.await.expect("no panic");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text").lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let lines: Vec<_> = samples().iter().map(Value::to_string).collect();
    let answers = post(format!("{OTHER} {SECRET}"), lines.clone()).await;
    assert_eq!(answers, vec!["taken 204"; lines.len()]);
    hearing.heard(lines.len());
    let answers = post(OTHER.into(), lines[..1].to_vec()).await;
    assert!(matches!(&answers[..], [one] if one.starts_with("later 401 ") && one.contains("DW0820")), "{answers:?}");
    let answers = post(SECRET.into(), vec![lines[0].replace("\"version\":1", "\"version\":2")]).await;
    assert!(matches!(&answers[..], [one] if one.starts_with("refused 422 ") && one.contains("DW0121")), "{answers:?}");
    hearing.heard(lines.len());
    handle.stop(false).await;
    serving.await.expect("no panic").expect("ended well");
}
