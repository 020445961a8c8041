//! The shell, with tries that are no processes: time is paused, so pauses of hours take none.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId},
    message::Observation,
    plan::Plan,
    record::{Record, RecordBody},
    task::{Outcome, Status, TaskEvent},
    units::Span,
};
use dagwright_store::{MemoryStore, RequestSummary, Store};
use tokio::{
    sync::mpsc::{self, Receiver},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::drive;
use crate::{
    Cancel, Error, Job, Replanning, RunEvent, RunOutcome, event,
    event::Voice,
    launch::{Finished, Launch, Order},
    tests::fixture::{accept, connected, failed, name, plan, request, started, succeeded, task, teardown},
};

/// What a try does, by `task#attempt`.
#[derive(Clone, Debug)]
enum Act {
    /// Takes this long, unless told to stop.
    Take(Duration, Box<Outcome>),
    /// Runs until told to stop.
    Hang,
    /// Says so much that nobody can listen.
    Chatter(u64),
}

/// Acts as scripted; what the script leaves out succeeds at once.
#[derive(Debug)]
struct Stage {
    script: HashMap<&'static str, Act>,
    store: Arc<MemoryStore>,
    /// What was launched, with the variables of its connections.
    launched: Mutex<Vec<(String, Vec<String>)>>,
}

impl Stage {
    fn new(script: impl IntoIterator<Item = (&'static str, Act)>) -> Self {
        let store = Arc::new(MemoryStore::default());
        accept(&*store);
        Self { script: script.into_iter().collect(), store, launched: Mutex::default() }
    }

    fn launched(&self) -> Vec<String> {
        self.launched.lock().expect("unpoisoned").iter().map(|(name, _)| name.clone()).collect()
    }
}

#[async_trait]
impl Launch for Stage {
    async fn launch(&self, order: Order, stop: CancellationToken, mut voice: Voice) -> Finished {
        let (id, attempt) = (order.task.task.id, order.task.run.attempt);
        let recorded = self.store.read(&request(), 0).expect("reads").into_iter().any(|record| {
            matches!(record.body, RecordBody::TaskStarted(started)
                if started.instance.task == id && started.attempt == attempt)
        });
        assert!(recorded, "{id} started before that was recorded");
        let name = format!("{id}#{attempt}");
        let variables = order.connections.into_iter().map(|(variable, _)| variable).collect();
        self.launched.lock().expect("unpoisoned").push((name.clone(), variables));
        let outcome = match self.script.get(name.as_str()) {
            None => succeeded(),
            Some(Act::Take(time, outcome)) => tokio::select! {
                () = sleep(*time) => (**outcome).clone(),
                () = stop.cancelled() => failed(Code::Cancelled),
            },
            Some(Act::Hang) => {
                stop.cancelled().await;
                failed(Code::Cancelled)
            }
            Some(Act::Chatter(lines)) => {
                for rows_read in 0..*lines {
                    voice.hear(TaskEvent::Progress { rows_read, bytes_read: 0, rows_written: 0 }).await;
                }
                succeeded()
            }
        };
        Finished { outcome, warnings: voice.into_warnings(), log_tail: "log".into() }
    }
}

fn job(plan: &Plan, store: Arc<dyn Store>) -> (Job, Receiver<RunEvent>) {
    let (events, heard) = event::channel();
    let job = Job {
        request: request(),
        plan: Arc::new(plan.clone()),
        connections: [(name("warehouse"), "postgresql://u:secret@db/w".into())].into(),
        store,
        events,
        cancel: Cancel::default(),
        replanning: Replanning::Left(2),
    };
    (job, heard)
}

async fn run(stage: &Stage, plan: &Plan) -> RunOutcome {
    let (job, _heard) = job(plan, stage.store.clone());
    drive(stage, NonZeroUsize::MIN, job, Some(started(plan))).await.expect("runs")
}

fn code(outcome: &RunOutcome) -> Option<Code> {
    outcome.problem.as_ref().map(|problem| problem.code)
}

fn fail() -> Act {
    Act::Take(Duration::ZERO, Box::new(failed(Code::SinkUnreachable)))
}

#[tokio::test(start_paused = true)]
async fn retries_wait_for_their_backoff() {
    let stage = Stage::new([("a#1", fail()), ("a#2", fail()), ("a#3", fail())]);
    let began = Instant::now();
    let outcome = run(&stage, &plan(vec![task("a", &[])])).await;
    assert_eq!(outcome.status, Status::Succeeded);
    assert_eq!(stage.launched(), ["a#1", "a#2", "a#3", "a#4"]);
    // Simulated time: 30 + 60 + 120 s.
    assert_eq!(began.elapsed().as_secs(), 210);
}

#[tokio::test(start_paused = true)]
async fn a_try_that_takes_too_long_is_stopped() {
    let stage = Stage::new([("a#1", Act::Hang)]);
    let outcome = run(&stage, &plan(vec![task("a", &[]), teardown("z", &[])])).await;
    assert_eq!((outcome.status, code(&outcome)), (Status::Failed, Some(Code::TaskTimedOut)));
    assert_eq!(stage.launched(), ["a#1", "z#1"]);
    assert_eq!(outcome.tasks[0].log_tail, "log");
    assert_eq!(outcome.tasks[1].log_tail, "");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_stopped() {
    let half_an_hour = Duration::from_mins(30);
    let slow = |outcome| Act::Take(half_an_hour, Box::new(outcome));
    let stage = Stage::new([("a#1", slow(succeeded())), ("b#1", slow(succeeded()))]);
    let mut planned = plan(vec![task("a", &[]), task("b", &[]), teardown("z", &[])]);
    planned.deadline = Some(Span(45 * 60_000));
    planned.tasks.iter_mut().for_each(|task| task.timeout = Span(3_600_000));
    let outcome = run(&stage, &planned).await;
    assert_eq!((outcome.status, code(&outcome)), (Status::Failed, Some(Code::TaskTimedOut)));
    assert_eq!(stage.launched(), ["a#1", "b#1", "z#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_ends_its_tasks_and_tears_down() {
    let stage = Stage::new([("a#1", Act::Hang)]);
    let planned = plan(vec![task("a", &[]), task("b", &["a"]), teardown("z", &[])]);
    let (job, mut heard) = job(&planned, stage.store.clone());
    let cancel = job.cancel.clone();
    let watch = async move {
        let mut told = Vec::new();
        while let Some(event) = heard.recv().await {
            if matches!(event, RunEvent::TaskStarted { .. }) {
                cancel.request(None);
            }
            told.push(event);
        }
        told
    };
    let (outcome, told) = tokio::join!(drive(&stage, NonZeroUsize::MIN, job, Some(started(&planned))), watch);
    let outcome = outcome.expect("runs");
    assert_eq!((outcome.status, code(&outcome)), (Status::Cancelled, Some(Code::Cancelled)));
    assert_eq!(stage.launched(), ["a#1", "z#1"]);
    let words: Vec<_> = told.iter().map(word).collect();
    assert_eq!(
        words,
        ["run started", "start a", "cancelling", "end a Cancelled", "start z", "end z Succeeded", "run Cancelled"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_at_once_starts_only_teardown() {
    let stage = Stage::new([]);
    let planned = plan(vec![task("a", &[]), teardown("z", &[])]);
    let (job, _heard) = job(&planned, stage.store.clone());
    job.cancel.request(None);
    let outcome = drive(&stage, NonZeroUsize::MIN, job, Some(started(&planned))).await.expect("runs");
    assert_eq!((outcome.status, code(&outcome)), (Status::Cancelled, Some(Code::Cancelled)));
    assert_eq!(stage.launched(), ["z#1"]);
}

#[tokio::test(start_paused = true)]
async fn only_progress_is_dropped_when_nobody_keeps_up() {
    let stage = Stage::new([("a#1", Act::Chatter(100))]);
    let planned = plan(vec![task("a", &[])]);
    let (mut job, _) = job(&planned, stage.store.clone());
    let (events, mut heard) = mpsc::channel(1);
    job.events = events;
    let watch = async move {
        let mut told = Vec::new();
        while let Some(event) = heard.recv().await {
            told.push(word(&event));
        }
        told
    };
    let (outcome, told) = tokio::join!(drive(&stage, NonZeroUsize::MIN, job, Some(started(&planned))), watch);
    assert_eq!(outcome.expect("runs").status, Status::Succeeded);
    let (progress, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|word| word == "progress a");
    assert_eq!(others, ["run started", "start a", "end a Succeeded", "run Succeeded"]);
    assert!(progress.len() < 100, "{}", progress.len());
}

#[tokio::test(start_paused = true)]
async fn a_task_gets_its_own_connections_only() {
    let stage = Stage::new([]);
    let outcome = run(&stage, &plan(vec![connected("a", "warehouse"), task("b", &["a"])])).await;
    assert_eq!(outcome.status, Status::Succeeded);
    let launched = stage.launched.lock().expect("unpoisoned").clone();
    let variables = vec!["DAGWRIGHT_CONN_WAREHOUSE".to_string()];
    assert_eq!(launched, [("a#1".to_string(), variables), ("b#1".to_string(), Vec::new())]);

    let stage = Stage::new([]);
    let outcome = run(&stage, &plan(vec![connected("a", "lake"), teardown("z", &[])])).await;
    assert_eq!(code(&outcome), Some(Code::ConnectionMissing));
    assert_eq!(stage.launched(), ["z#1"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_goes_on_and_an_ended_one_is_told() {
    let stage = Stage::new([("b#1", Act::Hang)]);
    let planned = plan(vec![task("a", &[]), task("b", &["a"]), task("c", &["b"])]);
    let (first, mut heard) = job(&planned, stage.store.clone());
    // Dropping the future is what a crash is to the ledger.
    tokio::select! {
        _ = drive(&stage, NonZeroUsize::MIN, first, Some(started(&planned))) => panic!("b hangs"),
        () = async { while word(&heard.recv().await.expect("an event")) != "start b" {} } => {}
    }
    let (second, mut heard) = job(&planned, stage.store.clone());
    let outcome = drive(&stage, NonZeroUsize::MIN, second, None).await.expect("runs");
    assert_eq!(outcome.status, Status::Succeeded);
    assert_eq!(stage.launched(), ["a#1", "b#1", "b#2", "c#1"]);
    let mut told = Vec::new();
    while let Some(event) = heard.recv().await {
        told.push(word(&event));
    }
    assert_eq!(told[..3], ["run resumed", "end a Succeeded", "start b"]);

    let (third, _) = job(&planned, stage.store.clone());
    let again = drive(&stage, NonZeroUsize::MIN, third, Some(started(&planned))).await.expect("runs");
    assert_eq!((again.status, again.counts), (outcome.status, outcome.counts));
    assert_eq!(stage.launched().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_go_on_says_why() {
    let (one, other) = (plan(vec![task("a", &[])]), plan(vec![task("b", &[])]));
    let stage = Stage::new([]);
    let (nothing, _) = job(&one, stage.store.clone());
    let error = drive(&stage, NonZeroUsize::MIN, nothing, None).await.expect_err("nothing began");
    assert!(matches!(error, Error::NotStarted { .. }), "{error}");
    run(&stage, &one).await;
    let (foreign, _) = job(&other, stage.store.clone());
    let error = drive(&stage, NonZeroUsize::MIN, foreign, None).await.expect_err("another plan");
    assert!(matches!(error, Error::OtherPlan { .. } | Error::Misfit { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_that_cannot_be_recorded() {
    for appends in 0..3 {
        let stage = Stage::new([]);
        let planned = plan(vec![task("a", &[]), task("b", &["a"])]);
        let full = Full { inner: stage.store.clone(), left: AtomicUsize::new(appends) };
        let (job, _heard) = job(&planned, Arc::new(full));
        let error = drive(&stage, NonZeroUsize::MIN, job, Some(started(&planned))).await.expect_err("full");
        assert!(matches!(error, Error::Append { .. }), "{error}");
        assert_eq!(stage.launched().len(), appends);
    }
}

/// A store on a disk that fills up.
#[derive(Debug)]
struct Full {
    inner: Arc<MemoryStore>,
    left: AtomicUsize,
}

type Stored<T> = Result<T, dagwright_store::Error>;

impl Store for Full {
    fn append(&self, records: &[Record]) -> Stored<()> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_err(|_| dagwright_store::Error::Poisoned)?;
        self.inner.append(records)
    }

    fn read(&self, request: &RequestId, from: u64) -> Stored<Vec<Record>> {
        self.inner.read(request, from)
    }

    fn request(&self, request: &RequestId) -> Stored<Option<RequestSummary>> {
        self.inner.request(request)
    }

    fn requests(&self, pipeline: &str, limit: usize) -> Stored<Vec<RequestSummary>> {
        self.inner.requests(pipeline, limit)
    }

    fn unfinished(&self, run_key: &str) -> Stored<Option<RequestId>> {
        self.inner.unfinished(run_key)
    }

    fn baseline(&self, pipeline: &str) -> Stored<Option<PlanHash>> {
        self.inner.baseline(pipeline)
    }

    fn plan(&self, hash: &PlanHash) -> Stored<Option<Plan>> {
        self.inner.plan(hash)
    }

    fn fact(&self, key: &str) -> Stored<Option<Observation>> {
        self.inner.fact(key)
    }
}

fn word(event: &RunEvent) -> String {
    match event {
        RunEvent::RunStarted { resumed: false, .. } => "run started".into(),
        RunEvent::RunStarted { resumed: true, .. } => "run resumed".into(),
        RunEvent::TaskStarted { instance, .. } => format!("start {instance}"),
        RunEvent::TaskProgress { instance, .. } => format!("progress {instance}"),
        RunEvent::TaskWarned { instance, .. } => format!("warning {instance}"),
        RunEvent::TaskRetrying { instance, .. } => format!("retry {instance}"),
        RunEvent::TaskEnded { instance, outcome, .. } => format!("end {instance} {:?}", outcome.status),
        RunEvent::RunCancelling => "cancelling".into(),
        RunEvent::RunEnded { status, .. } => format!("run {status:?}"),
    }
}
