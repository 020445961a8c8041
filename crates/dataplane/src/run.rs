//! Runs one task: what `dagwright-task run` does once its spec is read.

mod cleanup;
mod dedupe;
mod graph;
mod input;
mod move_;
mod output;
mod pass;
mod publish;
mod reuse;
mod split;
mod views;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use dagwright_model::{
    code::{Code, TaskExit},
    facts::Identity,
    id::Name,
    spec::Locator,
    task::{Counts, Outcome, Partition, RunContext, Status, TASK_VERSION, TaskEvent, TaskRun, TaskSpec, Work},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connectors::{self, Environment, ReadContext, Sink, Source, WriteContext},
    error::{Error, Result},
    events::{Events, memory_peak_bytes},
    staging,
    tally::{Rejects, SinkTally, SourceTally},
    transform::BATCH_ROWS,
};

/// Finds the connector of a locator; tests bring their own.
pub trait Connectors: Send + Sync {
    /// Returns the connector that reads a locator.
    ///
    /// # Errors
    /// As [`connectors::source_for`].
    fn source(&self, locator: &Locator, environment: &Environment) -> Result<Box<dyn Source>>;

    /// Returns the connector that writes a locator.
    ///
    /// # Errors
    /// As [`connectors::sink_for`].
    fn sink(&self, locator: &Locator, environment: &Environment) -> Result<Box<dyn Sink>>;

    /// Returns the connector that writes to a connection's system.
    ///
    /// # Errors
    /// As [`connectors::sink_for_connection`].
    fn sink_of(&self, connection: &Name, environment: &Environment) -> Result<Box<dyn Sink>>;
}

/// The connectors of this crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltIn;

/// What a task gets from the process it runs in.
#[derive(Clone)]
pub struct Host {
    /// Connections and keys.
    pub environment: Arc<Environment>,
    /// The connectors.
    pub connectors: Arc<dyn Connectors>,
    /// Where events go.
    pub events: Events,
    /// Ends the task when it is cancelled.
    pub cancel: CancellationToken,
    /// How many cores to use.
    pub cores: usize,
}

/// A task, the run it belongs to, and the process it runs in.
pub(crate) struct Task {
    spec: TaskSpec,
    run: Arc<RunContext>,
    sealed: Arc<BTreeMap<Name, Identity>>,
    host: Host,
}

/// What a task did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    repeated: bool,
    counts: Counts,
    partitions: Vec<Partition>,
    cursors: BTreeMap<Name, String>,
}

/// Why a task did not, and what it had counted until then.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    counts: Box<Counts>,
}

/// Runs a task to its end, and says what came of it; the outcome is also the last event.
pub async fn run(task: TaskRun, host: Host) -> Outcome {
    let started = Instant::now();
    let events = host.events.clone();
    events.send(&TaskEvent::Started { task: task.task.id.clone(), rows_expected: None, bytes_expected: None });
    let cancel = host.cancel.clone();
    let done = work(task, host).await;
    let outcome = outcome(done, &cancel, started);
    events.send(&TaskEvent::Outcome(Box::new(outcome.clone())));
    outcome
}

/// Returns the outcome of a task that could not even start.
#[must_use]
pub fn failed(error: Error) -> Outcome {
    outcome(Err(error.into()), &CancellationToken::new(), Instant::now())
}

/// Returns how a task is told that it was cancelled.
#[must_use]
pub fn cancelled(subject: &str) -> Error {
    Error::new(Code::Cancelled, subject, "the task was told to stop; nothing became visible", "run it again")
}

async fn work(task: TaskRun, host: Host) -> Result<Done, Failure> {
    let TaskRun { task: spec, run } = task;
    if spec.version != TASK_VERSION {
        return Err(Error::new(
            Code::TaskSpecInvalid,
            spec.id.to_string(),
            format!("the task spec has version {}, this program reads {TASK_VERSION}", spec.version),
            "use the dagwright-task of the release that made the plan, or plan again",
        )
        .into());
    }
    host.environment.check_sealed(&spec.connections)?;
    let sealed = Arc::new(spec.connections.clone());
    let task = Task { spec, run: Arc::new(run), sealed, host };
    let done = match &task.spec.work {
        Work::Split(work) => split::run(&task, work).await,
        Work::Move(work) => move_::run(&task, work).await,
        Work::Publish(work) => publish::run(&task, work).await,
        Work::Cleanup => cleanup::run(&task).await,
    };
    let drifted = matches!(&done, Err(failure) if failure.error.code().exit() == TaskExit::SchemaDrift);
    if drifted
        && task.run.keep_staged
        && let Err(error) = staging::set_back(&task.spec.pipeline, &task.run).await
    {
        tracing::warn!(code = %error.code(), "the next plan will find nothing staged");
    }
    done
}

fn outcome(done: Result<Done, Failure>, cancel: &CancellationToken, started: Instant) -> Outcome {
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let memory_peak_bytes = memory_peak_bytes();
    match done {
        Ok(Done { repeated, counts, partitions, cursors }) => Outcome {
            status: Status::Succeeded,
            repeated,
            counts,
            partitions,
            cursors,
            problem: None,
            elapsed_ms,
            memory_peak_bytes,
        },
        Err(Failure { error, counts }) => {
            // What breaks because the task was told to stop is not what a person should read.
            let error = if cancel.is_cancelled() { cancelled(&error.problem.subject) } else { error };
            let status = match error.code() {
                Code::Cancelled | Code::TaskTimedOut => Status::Cancelled,
                _ => Status::Failed,
            };
            if status == Status::Failed {
                let chain = chain(&error);
                tracing::error!(code = %error.code(), subject = error.problem.subject, causes = chain, "task failed");
            }
            Outcome {
                status,
                repeated: false,
                counts: *counts,
                partitions: Vec::new(),
                cursors: BTreeMap::new(),
                problem: Some(*error.problem),
                elapsed_ms,
                memory_peak_bytes,
            }
        }
    }
}

/// The kinds of the failures behind one; their texts may hold values, so only what is known not to is shown.
fn chain(error: &Error) -> String {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(match cause.downcast_ref::<std::io::Error>() {
            Some(io) => format!("io: {:?}", io.kind()),
            None => match cause.downcast_ref::<object_store::Error>() {
                Some(store) => format!("object store: {}", store_kind(store)),
                None => "another failure".into(),
            },
        });
        next = cause.source();
    }
    causes.join(" <- ")
}

fn store_kind(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::NotFound { .. } => "not found",
        object_store::Error::PermissionDenied { .. } => "permission denied",
        object_store::Error::Unauthenticated { .. } => "unauthenticated",
        object_store::Error::AlreadyExists { .. } => "already exists",
        object_store::Error::Precondition { .. } => "precondition",
        _ => "failure",
    }
}

// === impl BuiltIn ===

impl Connectors for BuiltIn {
    fn source(&self, locator: &Locator, environment: &Environment) -> Result<Box<dyn Source>> {
        connectors::source_for(locator, environment)
    }

    fn sink(&self, locator: &Locator, environment: &Environment) -> Result<Box<dyn Sink>> {
        connectors::sink_for(locator, environment)
    }

    fn sink_of(&self, connection: &Name, environment: &Environment) -> Result<Box<dyn Sink>> {
        connectors::sink_for_connection(connection, environment)
    }
}

// === impl Failure ===

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, counts: Box::default() }
    }
}

// === impl Task ===

impl Task {
    fn read_context(&self, name: &Name, tally: Arc<SourceTally>, rejects: Rejects) -> ReadContext {
        ReadContext {
            name: name.clone(),
            run: self.run.clone(),
            environment: self.host.environment.clone(),
            sealed: self.sealed.clone(),
            after_cursor: None,
            streams: self.host.cores,
            batch_rows: BATCH_ROWS,
            tally,
            rejects,
            cancel: self.host.cancel.clone(),
        }
    }

    fn write_context(&self, tally: Arc<SinkTally>) -> WriteContext {
        WriteContext {
            pipeline: self.spec.pipeline.clone(),
            run: self.run.clone(),
            environment: self.host.environment.clone(),
            sealed: self.sealed.clone(),
            tally,
            cancel: self.host.cancel.clone(),
        }
    }

    fn sink(&self, locator: &Locator) -> Result<Box<dyn Sink>> {
        self.host.connectors.sink(locator, &self.host.environment)
    }
}
