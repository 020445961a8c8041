//! The client against a server that answers as each Airflow was seen to, and as none should.
//!
//! `calls` goes through every call on both APIs: what is sent, and what is made of the answer. `faults` goes through what may
//! go wrong. The contract with real Airflows is tested by `tests/tests/airflow_client.rs`.

mod calls;
mod faults;
mod logging_in;

use std::{collections::BTreeMap, time::Duration};

use dagwright_airflow::{Api, Client, Credentials, Secret, Settings};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{method, path},
};

/// Both APIs, with the version that answers.
const BOTH: [Api; 2] = [Api::V1, Api::V2];

/// The password and token of the tests: nothing may show it.
const SECRET: &str = "hunter2";

/// A server that says which Airflow it is.
struct Fake {
    server: MockServer,
    api: Api,
}

impl Fake {
    async fn start(api: Api) -> Self {
        Self::of(match api {
            Api::V1 => "2.11.2",
            Api::V2 => "3.3.2",
        })
        .await
    }

    async fn of(version: &str) -> Self {
        let (api, answers) =
            if version.starts_with('2') { (Api::V1, "/api/v1/version") } else { (Api::V2, "/api/v2/version") };
        let fake = Self { server: MockServer::start().await, api };
        let told = ResponseTemplate::new(200).set_body_json(json!({ "version": version, "git_version": null }));
        Mock::given(method("GET")).and(path(answers)).respond_with(told).mount(&fake.server).await;
        fake
    }

    fn root(&self) -> &'static str {
        match self.api {
            Api::V1 => "/api/v1",
            Api::V2 => "/api/v2",
        }
    }

    /// Answers a call below the API's root.
    async fn answer(&self, verb: &str, below: &str, status: u16, body: Value) {
        self.respond(verb, below, ResponseTemplate::new(status).set_body_json(body)).await;
    }

    async fn respond(&self, verb: &str, below: &str, response: ResponseTemplate) {
        let at = format!("{}{below}", self.root());
        Mock::given(method(verb)).and(path(at)).respond_with(response).mount(&self.server).await;
    }

    /// Answers a call once, before what else it is answered with.
    async fn once(&self, verb: &str, below: &str, response: ResponseTemplate) {
        let at = format!("{}{below}", self.root());
        let mock = Mock::given(method(verb)).and(path(at)).respond_with(response);
        mock.up_to_n_times(1).with_priority(1).mount(&self.server).await;
    }

    fn settings(&self, credentials: Credentials) -> Settings {
        let mut settings = Settings::new(self.server.uri().parse().expect("a URL"), credentials).expect("settings");
        settings.pause = Duration::from_millis(1);
        settings.pause_max = Duration::from_millis(5);
        settings
    }

    /// A client with a token that somebody gave.
    fn client(&self) -> Client {
        self.client_of(Credentials::Token(Secret::new(SECRET)))
    }

    fn client_of(&self, credentials: Credentials) -> Client {
        Client::new(self.settings(credentials)).expect("a client")
    }

    /// What was sent, but for what asks for the version.
    async fn sent(&self) -> Vec<Request> {
        let all = self.server.received_requests().await.expect("recording is on");
        all.into_iter().filter(|request| !request.url.path().ends_with("/version")).collect()
    }

    /// What was sent, as `GET /api/v2/dags?limit=100 {body}`; the API's root is left out.
    async fn said(&self) -> Vec<String> {
        self.sent().await.iter().map(|request| said(request, self.root())).collect()
    }
}

fn said(request: &Request, root: &str) -> String {
    let path = request.url.path();
    let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Keys in order, whatever order they were written in.
    let body = serde_json::from_slice::<BTreeMap<String, Value>>(&request.body);
    let body = body.map(|body| serde_json::to_string(&body).expect("JSON")).unwrap_or_default();
    format!("{} {}{query} {body}", request.method, path.strip_prefix(root).unwrap_or(path)).trim_end().to_owned()
}

/// A run as an API tells it.
fn run(api: Api, run_id: &str, state: &str) -> Value {
    let mut run = json!({
        "dag_id": "flights",
        "dag_run_id": run_id,
        "state": state,
        "run_type": "manual",
        "logical_date": "2025-01-01T00:00:00+00:00",
        "data_interval_start": null,
        "data_interval_end": null,
        "start_date": null,
        "end_date": null,
        "conf": { "region": "eu" },
        "note": null,
    });
    match api {
        Api::V1 => run["external_trigger"] = json!(true),
        Api::V2 => {
            run["bundle_version"] = json!("abc");
            run["logical_date"] = Value::Null;
        }
    }
    run
}

/// A task instance as an API tells it.
fn task(api: Api, task_id: &str, map_index: i64, state: &str) -> Value {
    let mut task = json!({
        "dag_id": "flights",
        "dag_run_id": "r1",
        "task_id": task_id,
        "map_index": map_index,
        "state": state,
        "try_number": 2,
        "max_tries": 3,
        "start_date": "2025-01-01T00:00:01.5+00:00",
        "end_date": null,
        "operator": "DagwrightLoad",
        "pool": "default_pool",
        "hostname": "worker",
        "note": null,
        "rendered_fields": {},
    });
    if api == Api::V2 {
        task["id"] = json!("0198c8f0-0000-7000-8000-000000000000");
    }
    task
}

/// An error as an API tells it.
fn problem(api: Api, status: u16, detail: &str) -> Value {
    match api {
        Api::V1 => json!({ "detail": detail, "status": status, "title": "Of that kind", "type": "about:blank" }),
        Api::V2 => json!({ "detail": detail }),
    }
}
