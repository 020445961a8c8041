//! Observes through `dagwright-task`: a process for each question, so that a hostile file ends a process and no agent.
//!
//! The request goes in on standard input, the reply comes back as one JSON document on standard output. Both are
//! bounded, and so is the time. Connections travel in the environment alone, and so does the context of the trace that the
//! process goes on with (`TRACEPARENT`).

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use async_trait::async_trait;
use dagwright_engine::environment;
use dagwright_model::{
    code::Code,
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::Name,
    spec::Locator,
    task::Problem,
};
use dagwright_telemetry::trace;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
};
use tracing::Span;

use crate::ports::Observer;

/// The longest reply read, in bytes: a profile of a thousand columns is far below.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// The longest log read, in bytes; what comes after it is dropped.
const LOG_BYTES_MAX: u64 = 64 << 10;

/// How to start the worker program.
#[derive(Clone)]
pub struct Settings {
    /// The worker program.
    pub command: PathBuf,
    /// The folder that relative URIs start from; `None` refuses them.
    pub base: Option<PathBuf>,
    /// URLs by connection name; secrets.
    pub connections: BTreeMap<Name, String>,
    /// The longest one observation may take.
    pub timeout: Duration,
    /// How many observations may run at a time.
    pub parallelism: usize,
}

/// Observes by starting `dagwright-task probe` and `dagwright-task plan`.
pub struct ProcessObserver {
    settings: Settings,
    permits: Semaphore,
}

// === impl ProcessObserver ===

impl ProcessObserver {
    /// Makes an observer; nothing is started before it is asked.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let permits = Semaphore::new(settings.parallelism.max(1));
        Self { settings, permits }
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        subcommand: &str,
        subject: &str,
        connection: Option<&Name>,
        question: &Q,
    ) -> Result<A, Problem> {
        // Held until the process has ended; the semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let answer = tokio::time::timeout(self.settings.timeout, self.run(subcommand, subject, connection, question));
        answer.await.unwrap_or_else(|_| {
            Err(problem(
                Code::TaskTimedOut,
                subject,
                format!("observing took longer than {} s", self.settings.timeout.as_secs()),
                "check that the system answers; for files, that the path does not match far more than is meant",
            ))
        })
    }

    async fn run<Q: Serialize, A: DeserializeOwned>(
        &self,
        subcommand: &str,
        subject: &str,
        connection: Option<&Name>,
        question: &Q,
    ) -> Result<A, Problem> {
        let mut child = self.start(subcommand, subject, connection)?;
        let request = serde_json::to_vec(question).map_err(|error| internal(subject, &error))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(internal(subject, &"a pipe is missing"));
        };
        let (mut reply, mut log) = (Vec::new(), Vec::new());
        let write = async move {
            // A process that ends early says why on its way out; a broken pipe says less.
            let _ = stdin.write_all(&request).await;
            let _ = stdin.shutdown().await;
        };
        let read_log = async {
            let mut stderr = stderr;
            let _ = (&mut stderr).take(LOG_BYTES_MAX).read_to_end(&mut log).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        };
        let mut bounded = stdout.take(REPLY_BYTES_MAX);
        let ((), read, ()) = tokio::join!(write, bounded.read_to_end(&mut reply), read_log);
        read.map_err(|error| internal(subject, &error))?;
        let status = child.wait().await.map_err(|error| internal(subject, &error))?;
        tracing::debug!(subject, %status, log = %String::from_utf8_lossy(&log), "observation ended");
        serde_json::from_slice(&reply).map_err(|_| {
            problem(
                Code::TaskCrashed,
                subject,
                format!("dagwright-task {subcommand} ended without an answer ({status})"),
                "its log is shown with --verbose; a process that was killed may have run out of memory",
            )
        })
    }

    fn start(&self, subcommand: &str, subject: &str, connection: Option<&Name>) -> Result<Child, Problem> {
        let mut command = Command::new(&self.settings.command);
        command.args([subcommand, "--spec", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        // Only the connection that is asked about; the others are none of this process's business.
        command.env_clear().envs(environment::inherited());
        command.envs(trace::of(&Span::current()).map(|context| (trace::VARIABLE, context)));
        if let Some((name, url)) = connection.and_then(|name| self.settings.connections.get_key_value(name)) {
            command.env(environment::connection_variable(name), url);
        }
        if let Some(base) = &self.settings.base {
            command.arg("--base").arg(base);
        }
        command.spawn().map_err(|error| {
            problem(
                Code::TaskCommandMissing,
                subject,
                format!("could not start {}: {error}", self.settings.command.display()),
                "install dagwright-task beside dagwright, or set task.command",
            )
        })
    }
}

#[async_trait]
impl Observer for ProcessObserver {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        let (name, locator) = match request {
            ProbeRequest::Source { name, source, .. } => (name, &source.locator),
            ProbeRequest::Sink { name, locator, .. } => (name, locator),
        };
        let connection = match locator {
            Locator::Table { connection, .. } | Locator::Query { connection, .. } => Some(connection),
            Locator::Uri(_) => None,
        };
        if let Some(connection) = connection.filter(|name| !self.settings.connections.contains_key(*name)) {
            return ProbeReply::Failed(problem(
                Code::ConnectionMissing,
                connection.as_str(),
                format!("connection \"{connection}\" is not defined, or not open to this namespace"),
                &format!(
                    "set {}=postgresql://…, or [connections.{connection}] in the configuration",
                    environment::connection_variable(connection)
                ),
            ));
        }
        match self.ask("probe", name.as_str(), connection, request).await {
            Ok(reply) => reply,
            Err(problem) => ProbeReply::Failed(problem),
        }
    }

    async fn type_steps(&self, request: &TypingRequest) -> TypingReply {
        match self.ask("plan", "transform", None, request).await {
            Ok(reply) => reply,
            Err(problem) => TypingReply::Failed(vec![problem]),
        }
    }
}

fn problem(code: Code, subject: &str, message: String, hint: &str) -> Problem {
    Problem { code, subject: subject.into(), message, hint: hint.into() }
}

fn internal(subject: &str, error: &impl ToString) -> Problem {
    problem(Code::Internal, subject, format!("could not talk to dagwright-task: {}", error.to_string()), "report this")
}
