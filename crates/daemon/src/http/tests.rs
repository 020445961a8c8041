//! The API over a ledger in memory, a world that is remembered, and an engine whose runs end when they are let.

mod access;
mod api;
mod document;
mod events;
mod feedback;

use std::{collections::BTreeMap, io::Write as _, path::Path, sync::Arc, time::Duration};

use actix_web::{
    App,
    body::MessageBody as _,
    http::{Method, StatusCode, header::HeaderMap},
    middleware::from_fn,
    test::{TestRequest, init_service, try_call_service},
    web::Data,
};
use async_trait::async_trait;
use dagwright_agents::{
    Lineup, Ports, Service,
    ports::{Observer, SystemClock},
    service::{Resources, Settings},
};
use dagwright_bus::in_process::InProcess;
use dagwright_engine::{Engine, Error as EngineError, Job, RunOutcome, airflow::told::Ear};
use dagwright_model::{
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::{RequestId, TaskId},
    message::{Bounds, Facts},
    record::{Record, RecordBody, RunEnded, RunStarted, TaskEnded, TaskInstance, TaskStarted},
    task::{Counts, Outcome, SinkCounts, SourceCounts, Status},
};
use dagwright_store::{MemoryStore, Outbox, RequestState, Store};
use prometheus::Registry;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{auth::Gate, events::STREAMS_MAX};
use crate::{admission::Admission, config::Config, feedback::Feedback, live::Live, serve::State, telemetry::LogLevel};

/// What every service here allows.
const SETTINGS: &str = "[uris]\nallow = [\"/data/**\"]\n";

/// A world that looks as it did when the facts of an example were recorded.
struct Remembered(Facts);

#[async_trait]
impl Observer for Remembered {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        match request {
            ProbeRequest::Source { name, .. } => ProbeReply::Source(self.0.sources[name].clone()),
            ProbeRequest::Sink { name, .. } => ProbeReply::Sink(self.0.sinks[name].clone()),
        }
    }

    async fn type_steps(&self, _: &TypingRequest) -> TypingReply {
        TypingReply::Typed(self.0.typing.clone())
    }
}

/// An engine with one task, whose runs end when they are let.
#[derive(Debug)]
struct Stage {
    let_end: Arc<Semaphore>,
}

#[async_trait]
impl Engine for Stage {
    async fn run(&self, job: Job, started: RunStarted) -> Result<RunOutcome, EngineError> {
        let instance = TaskInstance { task: TaskId("load".into()), map_index: None };
        let append = |body| {
            let known = job.store.request(&job.request).expect("reads").expect("known");
            let record = Record { request: job.request.clone(), sequence: known.next_sequence, at: 1_000, body };
            job.store.append(&[record]).expect("appends");
        };
        append(RecordBody::RunStarted(Box::new(started)));
        append(RecordBody::TaskStarted(TaskStarted { instance: instance.clone(), attempt: 1, partition: None }));
        self.let_end.acquire().await.expect("open").forget();
        let counts = Counts {
            sources: [("flights".parse().expect("a name"), SourceCounts { read: 5, passed: 5, ..Default::default() })]
                .into(),
            sinks: [("lake".parse().expect("a name"), SinkCounts { produced: 5, loaded: 5, ..Default::default() })]
                .into(),
            ..Counts::default()
        };
        let outcome = Outcome {
            status: Status::Succeeded,
            repeated: false,
            counts: counts.clone(),
            partitions: Vec::new(),
            cursors: BTreeMap::new(),
            problem: None,
            elapsed_ms: 7,
            memory_peak_bytes: 0,
        };
        append(RecordBody::TaskEnded(Box::new(TaskEnded { instance, attempt: 1, outcome })));
        let status = Status::Succeeded;
        append(RecordBody::RunEnded(RunEnded { status, problem: None, counts: counts.clone(), setback: None }));
        Ok(RunOutcome { status, problem: None, counts, setback: None, tasks: Vec::new() })
    }

    async fn resume(&self, job: Job) -> Result<RunOutcome, EngineError> {
        Err(EngineError::NotStarted { request: job.request })
    }
}

/// A service.
struct World {
    store: Arc<MemoryStore>,
    state: Data<State>,
    let_end: Arc<Semaphore>,
}

/// What a call was answered with.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl World {
    /// Starts a service whose runs end at once.
    async fn new() -> Self {
        Self::with("", &[]).await
    }

    /// Starts a service with further settings, and variables of its environment.
    async fn with(settings: &str, variables: &[(&str, &str)]) -> Self {
        Self::hearing(settings, variables, None).await
    }

    /// Starts one that somebody hears through what Airflow tells.
    async fn hearing(settings: &str, variables: &[(&str, &str)], ear: Option<Arc<dyn Ear>>) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(format!("{SETTINGS}{settings}").as_bytes()).expect("written");
        let config = Arc::new(Config::load(Some(file.path())).expect("valid settings"));
        let store = Arc::new(MemoryStore::default());
        let (tell, news) = watch::channel(0);
        store.listen(Arc::new(move |position| {
            tell.send_replace(position);
        }));
        let let_end = Arc::new(Semaphore::new(1_000));
        let service = Service::start(
            Resources {
                agents: Ports {
                    bus: Arc::new(InProcess::new()),
                    observer: Arc::new(Remembered(
                        serde_json::from_str(&of_repository("crates/negotiation/tests/facts/flights.json"))
                            .expect("facts"),
                    )),
                    store: store.clone(),
                    clock: Arc::new(SystemClock),
                    lineup: Lineup::default(),
                },
                register: store.clone(),
                engine: Arc::new(Stage { let_end: let_end.clone() }),
                connections: BTreeMap::new(),
            },
            Settings {
                staging: "/staging".into(),
                quarantine: "/quarantine".into(),
                bounds: Bounds::default(),
                replans_max: 2,
                facts_age_max: Duration::ZERO,
                negotiations_max: 4,
                runs_max: 4,
                open_max: 50,
            },
        )
        .await
        .expect("starts");
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let state = State {
            admission: Arc::new(Admission::new(config.clone(), store.clone()).expect("globs")),
            kafka: None,
            live: Live::new(None, config.clone(), LogLevel::detached()).expect("settings"),
            metrics: Registry::new(),
            ear,
            feedback: Feedback::new(&config.airflow.feedback).expect("secrets"),
            certificate: None,
            gate: Arc::new(Gate::with(&config.http, variable).expect("tokens")),
            config,
            service,
            register: store.clone(),
            outbox: store.clone(),
            news,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            closing: CancellationToken::new(),
        };
        Self { store, state: Data::new(state), let_end }
    }

    /// Lets no run end from now on.
    fn hold(&self) {
        self.let_end.forget_permits(1_000);
    }

    async fn call(&self, request: TestRequest) -> Answer {
        let state = self.state.clone();
        let app =
            App::new().configure(move |config| super::service(config, state)).wrap(from_fn(super::fault::explain));
        let app = init_service(app).await;
        let request = request.peer_addr("127.0.0.1:4711".parse().expect("an address"));
        let (status, headers, body) = match try_call_service(&app, request.to_request()).await {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers().clone());
                let body = actix_web::body::to_bytes(response.into_body()).await;
                (status, headers, body.unwrap_or_else(|_| panic!("the body broke off")))
            }
            Err(error) => {
                let response = error.error_response();
                let (status, headers) = (response.status(), response.headers().clone());
                (status, headers, response.into_body().try_into_bytes().unwrap_or_else(|_| panic!("a stream")))
            }
        };
        let text = String::from_utf8(body.to_vec()).expect("text");
        Answer { status, headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(asks(Method::GET, path)).await
    }

    async fn submit(&self, spec: &str, key: &str) -> Answer {
        self.call(sends(spec).insert_header(("idempotency-key", key))).await
    }

    /// Sends a spec and waits for a state of its request; returns the request.
    async fn submitted(&self, spec: &str, key: &str, wanted: RequestState) -> String {
        let answer = self.submit(spec, key).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        let id = answer.json()["request_id"].as_str().expect("an id").to_owned();
        self.until(&id, wanted).await;
        id
    }

    async fn until(&self, request: &str, wanted: RequestState) {
        let (id, mut news) = (RequestId(request.into()), self.state.news.clone());
        let wait = async {
            loop {
                news.borrow_and_update();
                if self.store.request(&id).expect("reads").map(|summary| summary.state) == Some(wanted) {
                    return;
                }
                news.changed().await.expect("a store that tells");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes about within a minute");
    }
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Expects problem details.
    #[track_caller]
    fn is_refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let details = self.json();
        assert_eq!((&details["code"], &details["status"]), (&code.into(), &status.into()), "{details}");
        assert_eq!(details["type"], format!("urn:dagwright:error:{code}"));
        assert!(details["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{details}");
        details
    }
}

/// A call from this machine.
fn asks(method: Method, path: &str) -> TestRequest {
    TestRequest::default().method(method).uri(path).insert_header(("host", "localhost:8642"))
}

/// A call that sends a spec.
fn sends(spec: &str) -> TestRequest {
    asks(Method::POST, "/api/v1/requests")
        .insert_header(("content-type", "application/yaml"))
        .set_payload(spec.to_owned())
}

/// The spec of the example, of another pipeline, with paths that are allowed here.
fn spec(pipeline: &str) -> String {
    let text = of_repository("examples/flights.yaml").replace("flights_daily", pipeline);
    text.replace("uri: ../", "uri: /data/").replace("uri: out/", "uri: /data/out/")
}

fn of_repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).expect("a file of the repository")
}
