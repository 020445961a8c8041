//! The embedded engine: the shell around [`Run`].
//!
//! It decides nothing. It hands the machine what happens, appends what the machine records, tells whoever watches,
//! and then performs the effects: tries, timers, stops. All of a run lives in one future, so dropping that ends it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use dagwright_model::{
    record::{RecordBody, RunStarted, TaskInstance},
    task::{Partition, Problem, Status, TaskRun},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{pin, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::{
    Engine, Error, Job,
    environment::{self, connection_variable},
    event::{RunEvent, Voice},
    journal::Journal,
    launch::{Finished, Launch, Order},
    metrics,
    outcome::RunOutcome,
    process::Processes,
    run::{Effect, Event, Run},
    verdict,
};

/// How long a task that was told to stop may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// How an embedded engine runs tasks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The task program: a path, or a name to look for in PATH.
    pub program: PathBuf,
    /// What stands before `run --spec - --lease-stdin` in its arguments; usually nothing.
    pub arguments: Vec<OsString>,
    /// The environment of every task; connections come on top.
    pub environment: BTreeMap<OsString, OsString>,
    /// How many tasks run at once.
    pub parallelism: NonZeroUsize,
    /// How long a task that was told to stop may take before it is killed.
    pub grace: Duration,
}

/// The embedded engine: runs plans on this machine, as child processes.
#[derive(Debug)]
pub struct LocalEngine {
    processes: Processes,
    parallelism: NonZeroUsize,
}

/// One run under way.
struct Shell<'a, L> {
    launcher: &'a L,
    job: Job,
    run: Run,
    journal: Journal,
    /// Tries and timers; each ends with what it has to tell.
    pending: FuturesUnordered<BoxFuture<'a, Told>>,
    /// How to stop the tries that run.
    stops: HashMap<TaskInstance, CancellationToken>,
    /// Warnings and log tail of last tries.
    extras: HashMap<TaskInstance, (Vec<Problem>, String)>,
}

/// What a pending future ends with.
struct Told {
    event: Event,
    extras: Option<(TaskInstance, Finished)>,
}

// === impl Settings ===

impl Settings {
    /// Returns the usual settings for a task program: this process's environment as far as tasks may have it, and as
    /// many tasks at once as there are cores.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: environment::inherited(),
            parallelism: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            grace: GRACE,
        }
    }
}

// === impl LocalEngine ===

impl LocalEngine {
    /// Makes an engine.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { program, arguments, environment, parallelism, grace } = settings;
        Self { processes: Processes { program, arguments, environment, grace }, parallelism }
    }
}

#[async_trait]
impl Engine for LocalEngine {
    async fn run(&self, job: Job, started: RunStarted) -> Result<RunOutcome, Error> {
        drive(&self.processes, self.parallelism, job, Some(started)).await
    }

    async fn resume(&self, job: Job) -> Result<RunOutcome, Error> {
        drive(&self.processes, self.parallelism, job, None).await
    }
}

/// Runs a plan to its end, from wherever the ledger says that it stands.
async fn drive(
    launcher: &impl Launch,
    parallelism: NonZeroUsize,
    job: Job,
    started: Option<RunStarted>,
) -> Result<RunOutcome, Error> {
    let mut run = Run::new(job.plan.clone(), parallelism, job.replanning)?;
    let (journal, records) = Journal::open(&job).await?;
    for record in &records {
        let misfit = |_| Error::Misfit { request: job.request.clone(), sequence: record.sequence };
        run.replay(&record.body).map_err(misfit)?;
    }
    let resumed = run.started().is_some();
    let Some(started) = run.started().cloned().or(started) else {
        return Err(Error::NotStarted { request: job.request });
    };
    let given = job.plan.hash();
    if started.plan_hash != given {
        return Err(Error::OtherPlan { request: job.request, begun: started.plan_hash, given });
    }
    let _open = metrics::run_open();
    let mut shell = Shell {
        launcher,
        job,
        run,
        journal,
        pending: FuturesUnordered::new(),
        stops: HashMap::new(),
        extras: HashMap::new(),
    };
    if resumed {
        shell.retell(&started).await;
    }
    shell.follow(started).await
}

// === impl Shell ===

impl<'a, L: Launch> Shell<'a, L> {
    /// Tells whoever watches what earlier engines did.
    async fn retell(&mut self, started: &RunStarted) {
        self.journal.tell(RunEvent::RunStarted { plan_hash: started.plan_hash.clone(), resumed: true }).await;
        for ended in self.run.settled() {
            self.journal.tell_of(&RecordBody::TaskEnded(Box::new(ended))).await;
        }
    }

    /// Goes on until the run ended.
    async fn follow(mut self, started: RunStarted) -> Result<RunOutcome, Error> {
        let cancel = self.job.cancel.clone();
        let requested = cancel.requested();
        pin!(requested);
        let mut cancelling = false;
        self.step(Event::Begun(Box::new(started))).await?;
        loop {
            if let Some(outcome) = self.run.outcome(|instance| self.extras.get(instance).cloned().unwrap_or_default()) {
                return Ok(outcome);
            }
            let event = tokio::select! {
                biased;
                by = &mut requested, if !cancelling => {
                    cancelling = true;
                    Event::CancelRequested { by }
                }
                Some(told) = self.pending.next() => self.take(told),
                else => unreachable!("a run that has not ended waits for something"),
            };
            self.step(event).await?;
        }
    }

    /// Keeps what is for the outcome alone, and returns what is for the machine.
    fn take(&mut self, told: Told) -> Event {
        if let Some((instance, finished)) = told.extras {
            self.stops.remove(&instance);
            let log_tail = match finished.outcome.status {
                Status::Succeeded => String::new(),
                Status::Failed | Status::Cancelled => finished.log_tail,
            };
            if finished.warnings.is_empty() && log_tail.is_empty() {
                // Of an earlier try there may be some.
                self.extras.remove(&instance);
            } else {
                self.extras.insert(instance, (finished.warnings, log_tail));
            }
        }
        told.event
    }

    /// Takes one step: the records first, all together; then the effects.
    async fn step(&mut self, event: Event) -> Result<(), Error> {
        let mut records = Vec::new();
        let mut others = Vec::new();
        for effect in self.run.apply(event) {
            match effect {
                Effect::Record(body) => records.push(*body),
                Effect::ArmDeadline(_) | Effect::Launch { .. } | Effect::Stop { .. } | Effect::Delay { .. } => {
                    others.push(effect);
                }
            }
        }
        self.journal.write(records).await?;
        others.into_iter().for_each(|effect| self.perform(effect));
        Ok(())
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // Appended before.
            Effect::Record(_) => {}
            Effect::ArmDeadline(after) => self.later(after, Event::DeadlineReached),
            Effect::Delay { instance, attempt, pause } => {
                self.later(pause, Event::RetryDue { instance, attempt });
            }
            Effect::Stop { instance } => {
                if let Some(stop) = self.stops.get(&instance) {
                    stop.cancel();
                }
            }
            Effect::Launch { instance, attempt, partition, timeout } => {
                self.launch(instance, attempt, partition, timeout);
            }
        }
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.pending.push(async move { sleep(after).map(|()| Told { event, extras: None }).await }.boxed());
    }

    fn launch(&mut self, instance: TaskInstance, attempt: u32, partition: Option<Partition>, timeout: Duration) {
        let stop = CancellationToken::new();
        self.stops.insert(instance.clone(), stop.clone());
        let order = self.order(&instance, attempt, partition);
        let voice = Voice::new(instance.clone(), self.job.events.clone());
        let launcher = self.launcher;
        let Some(role) = self.run.planned(&instance.task).map(|planned| planned.role) else {
            unreachable!("the machine starts only what it was made of");
        };
        let span = tracing::info_span!(
            "task",
            task = %instance.task,
            map_index = instance.map_index,
            role = role.as_str(),
            attempt,
            otel.status_code = field::Empty,
            error.code = field::Empty,
        );
        let told = span.clone();
        let attempt_of = async move {
            let _running = metrics::task_running(role);
            let (finished, timed_out) = match order {
                // Stopped before it started.
                Ok(_) if stop.is_cancelled() => (Finished::without_process(verdict::unwanted(&instance.task)), false),
                Ok(order) => within(timeout, launcher, order, stop, voice).await,
                Err(finished) => (*finished, false),
            };
            if let Some(problem) = &finished.outcome.problem {
                told.record("otel.status_code", "ERROR");
                told.record("error.code", field::display(problem.code));
            }
            let outcome = Box::new(finished.outcome.clone());
            let event = Event::TaskEnded { instance: instance.clone(), attempt, outcome, timed_out };
            Told { event, extras: Some((instance, finished)) }
        };
        self.pending.push(attempt_of.instrument(span).boxed());
    }

    /// Puts together what a try is given, or why it cannot be.
    fn order(
        &self,
        instance: &TaskInstance,
        attempt: u32,
        partition: Option<Partition>,
    ) -> Result<Order, Box<Finished>> {
        let (Some(planned), Some(started)) = (self.run.planned(&instance.task), self.run.started()) else {
            unreachable!("the machine starts only what it was made of, after it began");
        };
        let mut connections = Vec::with_capacity(planned.spec.connections.len());
        for connection in planned.spec.connections.keys() {
            let variable = connection_variable(connection);
            let Some(url) = self.job.connections.get(connection) else {
                let outcome = verdict::unconnected(connection.as_str(), &variable);
                return Err(Box::new(Finished::without_process(outcome)));
            };
            connections.push((variable, url.clone()));
        }
        // What makes partitions visible is told how many there are.
        let partition = partition.or_else(|| self.run.published(planned).cloned());
        let task = TaskRun { task: planned.spec.clone(), run: started.context(attempt, partition) };
        Ok(Order { task, connections })
    }
}

/// Runs a try, and tells it to stop when it takes too long; returns whether it did.
async fn within(
    timeout: Duration,
    launcher: &impl Launch,
    order: Order,
    stop: CancellationToken,
    voice: Voice,
) -> (Finished, bool) {
    let work = launcher.launch(order, stop.clone(), voice);
    pin!(work);
    tokio::select! {
        biased;
        finished = &mut work => (finished, false),
        () = sleep(timeout) => {
            stop.cancel();
            (work.await, true)
        }
    }
}
