//! `dagwright doctor`: looks at everything that must be there, and says what is wrong and how to mend it.
//!
//! It changes nothing: a store that is not there yet is not made, connections are only asked for one row, and Kafka only
//! what it answers without an effect that anybody sees.

use std::{fs, io, path::Path, process::Stdio, time::Duration};

use anyhow::Result;
use clap::Args;
use dagwright_agents::{
    observer::{ProcessObserver, Settings},
    ports::Observer as _,
};
use dagwright_airflow::Airflow as _;
use dagwright_bus::kafka::{State, check_up};
use dagwright_compiler::ANCHOR;
use dagwright_model::{
    code::Code,
    facts::{ProbeReply, ProbeRequest},
    id::Name,
    spec::Spec,
    task::Problem,
};
use dagwright_store::{Error as StoreError, MemoryStore, SledStore};
use dagwright_telemetry::chain::ErrorChain;
use serde::Serialize;
use tokio::process::Command;

use crate::{
    admission::Admission,
    api::{Page, Request},
    cli::Common,
    client::{self, Access, Client},
    config::{BusKind, Config, EngineKind},
    desk::task_program,
    engines,
    exit::Exit,
    http::{auth::Gate, tls::Certificate},
    kafka,
    output::Output,
    refusal, render,
};

/// The longest that looking at one thing may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Arguments of `dagwright doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also ask the service there
    #[arg(long, env = "DAGWRIGHT_URL", value_name = "URL")]
    url: Option<url::Url>,
    #[command(flatten)]
    access: Access,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    /// The thing.
    what: String,
    /// What is fine about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    /// What is not as it should be, although it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<Problem>,
}

/// Looks at everything.
pub(crate) async fn execute(arguments: &Doctor, common: &Common, output: Output) -> Result<Exit> {
    let config = Config::load_service(common.config.as_deref(), None)?;
    let mut findings = vec![finding("configuration", settings(&config)), finding("store", store(&config.store.path))];
    findings.push(finding("staging", folder(&config.staging())));
    findings.push(finding("quarantine", folder(&config.quarantine())));
    findings.push(finding("worker", worker(&config).await));
    findings.extend(connections(&config).await);
    if config.bus.kind == BusKind::Kafka {
        let body_max = usize::try_from(config.http.body_max.0).unwrap_or(usize::MAX);
        findings.extend(check_up(&kafka::settings(&config), body_max).await.into_iter().map(Finding::from));
    }
    if config.engine.kind == EngineKind::Airflow {
        findings.push(finding("airflow", airflow(&config).await));
        findings.push(airflow_dags(&config).await);
    }
    for (name, webhook) in &config.webhooks {
        let url = webhook.url().map_err(anyhow::Error::msg);
        findings.push(finding(&format!("webhook {name}"), outlet_at(url).await));
    }
    if let Some(url) = config.lineage.url().transpose() {
        findings.push(finding("lineage", outlet_at(url.map_err(anyhow::Error::msg)).await));
    }
    if let Some(url) = &arguments.url {
        let service = client::Service { url: url.clone(), access: arguments.access.clone() };
        findings.push(finding("service", service_at(&service).await));
    }
    for finding in &findings {
        output.text(&line(finding))?;
    }
    output.json(&findings)?;
    let first = findings.iter().find_map(|finding| finding.problem.as_ref());
    Ok(first.map_or(Exit::Done, |problem| Exit::of(problem.code)))
}

fn line(Finding { what, found, problem, doubt }: &Finding) -> String {
    let what = render::safe(what);
    let told = |sign, problem| format!("{sign} {what}: {}", render::problem::problem(problem));
    match (problem, doubt) {
        (Some(problem), _) => told(render::styled(render::BAD, "✗"), problem),
        (None, Some(doubt)) => told(render::styled(render::WARN, "!"), doubt),
        (None, None) => {
            let found = render::safe(found.as_deref().unwrap_or_default());
            format!("{} {what}: {found}\n", render::styled(render::GOOD, "✓"))
        }
    }
}

fn finding(what: &str, found: Result<String>) -> Finding {
    let what = what.to_owned();
    match found {
        Ok(found) => Finding { what, found: Some(found), problem: None, doubt: None },
        Err(error) => Finding { what, found: None, problem: Some(refusal::problem(&error)), doubt: None },
    }
}

impl From<dagwright_bus::kafka::Finding> for Finding {
    fn from(dagwright_bus::kafka::Finding { what, state }: dagwright_bus::kafka::Finding) -> Self {
        match state {
            State::Fine(found) => Self { what, found: Some(found), problem: None, doubt: None },
            State::Doubtful(doubt) => Self { what, found: None, problem: None, doubt: Some(doubt) },
            State::Bad(problem) => Self { what, found: None, problem: Some(problem), doubt: None },
        }
    }
}

/// Checks what only using a setting shows.
fn settings(config: &Config) -> Result<String> {
    Gate::new(&config.http)?;
    config.http.tls.as_ref().map(Certificate::read).transpose()?;
    let store = std::sync::Arc::new(MemoryStore::default());
    if let Err(message) = Admission::new(std::sync::Arc::new(config.clone()), store) {
        let hint = "config/default.toml shows what a glob looks like".into();
        let subject = "uris.allow".into();
        return Err(refusal::Refusal::Problem(Problem { code: Code::ConfigInvalid, subject, message, hint }).into());
    }
    let who = match config.http.tokens.len() {
        0 => "everybody on this machine may call".into(),
        tokens => render::number::counted(tokens as u64, "token"),
    };
    let uris = render::number::counted(config.uris.allow.len() as u64, "glob");
    Ok(format!("{who}, {uris} of URIs for requests to `serve`"))
}

fn store(path: &Path) -> Result<String> {
    if !path.exists() {
        return folder(&path.to_string_lossy());
    }
    match SledStore::open(path, Duration::ZERO) {
        Ok(_) => Ok(format!("{} opens", path.display())),
        Err(StoreError::Busy { .. }) => Ok(format!("{} is in use: a service or a command runs", path.display())),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a folder can be written, or made.
fn folder(path: &str) -> Result<String> {
    if path.contains("://") {
        return Ok(format!("{path}, which the first run looks at"));
    }
    let absolute = std::path::absolute(path)?;
    let there = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&absolute);
    let is_writable = fs::metadata(there).and_then(|found| {
        if !found.is_dir() {
            return Err(io::Error::other("it is no folder"));
        }
        nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).map_err(io::Error::from)
    });
    match is_writable {
        Ok(()) if there == absolute => Ok(format!("{path} can be written")),
        Ok(()) => Ok(format!("{path} will be made")),
        Err(error) => Err(refusal::Refusal::Problem(Problem {
            code: Code::StoreUnusable,
            subject: path.into(),
            message: format!("{} cannot be written: {error}", there.display()),
            hint: "mend its permissions, or set another folder".into(),
        })
        .into()),
    }
}

async fn worker(config: &Config) -> Result<String> {
    let program = task_program(config)?;
    let mut command = Command::new(&program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(TIMEOUT, command.output()).await;
    let broken = |message: String| {
        refusal::Refusal::Problem(Problem {
            code: Code::TaskCommandMissing,
            subject: program.display().to_string(),
            message,
            hint: "set task.command to the dagwright-task of this version".into(),
        })
    };
    match ran {
        Ok(Ok(output)) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(format!("{version}, {}", program.display()))
        }
        Ok(Ok(output)) => Err(broken(format!("it ended with {}", output.status)).into()),
        Ok(Err(error)) => Err(broken(format!("it does not start: {error}")).into()),
        Err(_) => Err(broken(format!("it did not answer within {} s", TIMEOUT.as_secs())).into()),
    }
}

/// Asks each connection for one row, through the worker program, as a pipeline would.
async fn connections(config: &Config) -> Vec<Finding> {
    let connections = match (config.all_connections(), task_program(config)) {
        (Ok(connections), Ok(command)) => (connections, command),
        (Err(error), _) => return vec![finding("connections", Err(error.into()))],
        // Told of the worker already.
        (_, Err(_)) => return Vec::new(),
    };
    let (connections, command) = connections;
    let names: Vec<_> = connections.keys().cloned().collect();
    let observer =
        ProcessObserver::new(Settings { command, base: None, connections, timeout: TIMEOUT, parallelism: 1 });
    let mut findings = Vec::new();
    for name in names {
        let found = connection(&observer, &name).await;
        findings.push(finding(&format!("connection {name}"), found));
    }
    findings
}

async fn connection(observer: &ProcessObserver, name: &Name) -> Result<String> {
    let text = format!(
        "{{version: 1, pipeline: doctor, source: {{connection: {name}, query: SELECT 1 AS one}}, \
         sink: {{connection: {name}, table: doctor, mode: append}}}}"
    );
    let spec = Spec::parse(&text).map_err(refusal::Refusal::Arguments)?;
    let Some((source_name, source)) = spec.sources.into_iter().next() else {
        anyhow::bail!("a spec without a source was parsed");
    };
    match observer.probe(&ProbeRequest::Source { name: source_name, source, keys: Vec::new() }).await {
        ProbeReply::Failed(problem) => Err(refusal::Refusal::Problem(problem).into()),
        ProbeReply::Source(profile) => {
            let identity = profile.identity;
            let host = identity.host.unwrap_or_default();
            Ok(format!("{}://{host} answers", identity.scheme))
        }
        ProbeReply::Sink(_) => Ok("answers".into()),
    }
}

/// Asks Airflow for its version and its health.
async fn airflow(config: &Config) -> Result<String> {
    let client = engines::client(config)?;
    let called = |error: dagwright_airflow::Error| {
        let message = ErrorChain(&error).to_string();
        let hint = "see docs/errors for what to mend".into();
        let problem = Problem { code: error.code(), subject: config.airflow.url.clone(), message, hint };
        anyhow::Error::from(refusal::Refusal::Problem(problem))
    };
    let version = client.version().await.map_err(called)?;
    let health = client.health().await.map_err(called)?;
    if health.is_healthy() {
        return Ok(format!("{version} at {}, its scheduler is alive", config.airflow.url));
    }
    Err(refusal::Refusal::Problem(Problem {
        code: Code::AirflowUnavailable,
        subject: config.airflow.url.clone(),
        message: format!("Airflow {version} answers, but its scheduler, DAG processor or database does not do well"),
        hint: "see its health page; until then deployed DAGs do not run".into(),
    })
    .into())
}

/// Looks whether Airflow reads what is deployed, by the DAG that is always there.
async fn airflow_dags(config: &Config) -> Finding {
    let what = "airflow.deploy".to_owned();
    let path = config.airflow.deploy.path.display().to_string();
    let subject = path.clone();
    let doubt = |message: &str, hint: &str| Problem {
        code: Code::DagUnseen,
        subject: path.clone(),
        message: message.into(),
        hint: hint.into(),
    };
    let folder = folder(&subject);
    let Ok(found) = folder else { return finding(&what, folder) };
    let Ok(client) = engines::client(config) else { return finding(&what, Ok(found)) };
    let doubt = match client.dag(ANCHOR).await {
        Ok(dag) if dag.is_active => return finding(&what, Ok(format!("{found}, and Airflow reads what is there"))),
        Ok(_) => doubt("Airflow no longer sees the DAG dagwright_anchor", "does it still read that folder or bundle?"),
        Err(error) if error.is_not_found() => doubt(
            "Airflow does not see the DAG dagwright_anchor, which `serve` deploys when it starts",
            "start `serve`; then, does Airflow read that folder or bundle? It looks every refresh_interval (300 s)",
        ),
        // Told of Airflow already.
        Err(_) => return finding(&what, Ok(found)),
    };
    Finding { what, found: None, problem: None, doubt: Some(doubt) }
}

/// Connects to where events are posted, and posts nothing.
async fn outlet_at(url: Result<url::Url>) -> Result<String> {
    let url = url?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    // Brackets are part of a URL, not of the address.
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let connected = tokio::time::timeout(TIMEOUT, tokio::net::TcpStream::connect((address, port))).await;
    let why = match connected {
        Ok(Ok(_)) => {
            return Ok(format!("{host}:{port} can be connected to; whether it takes events, the first one shows"));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} s", TIMEOUT.as_secs()),
    };
    Err(refusal::Refusal::Problem(Problem {
        code: Code::WebhookUnreachable,
        subject: format!("{host}:{port}"),
        message: format!("could not connect to where events are posted: {why}"),
        hint: "mend the receiver, or the outlet's url; until then its events wait and nothing is lost".into(),
    })
    .into())
}

async fn service_at(service: &client::Service) -> Result<String> {
    let client = Client::new(service)?;
    let (ready, said) = client.ready().await?;
    let page: Page<Request> = client.get("/requests?limit=1").await?;
    if !ready {
        return Err(refusal::Refusal::Problem(Problem {
            code: Code::Overloaded,
            subject: service.url.to_string(),
            message: format!("the service answers, and is not ready: {said}"),
            hint: "wait until it has started; its log says what it waits for".into(),
        })
        .into());
    }
    let newest = page.items.first().map(|request| format!("; its newest request came in at {}", request.accepted_at));
    Ok(format!("{} is ready{}", service.url, newest.unwrap_or_default()))
}
