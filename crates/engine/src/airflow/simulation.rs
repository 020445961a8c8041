//! Runs on an Airflow that fails in every way that real ones were seen to, in the time of the test: hours pass in no time.
//!
//! Whatever happens, every run ends in the state that Airflow has, and Airflow has one run for each request. A failing seed
//! is named, and gives the same disasters again, though not the same interleaving.

mod fake;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use dagwright_airflow::RunState;
use dagwright_compiler::Layout;
use dagwright_model::{
    id::RequestId,
    plan::Plan,
    record::{Record, RecordBody, TaskInstance},
    task::Status,
};
use dagwright_store::{MemoryStore, Store};
use fastrand::Rng;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::fake::{Fake, Habits, Handle};
use super::{
    AirflowEngine, Settings,
    deploy::{Choice, Rule},
    run_id,
    told::{Ear, Told},
};
use crate::{
    Cancel, Engine, Error, Job, Replanning, RunOutcome,
    tests::fixture::{accepted, name, plan, started, task},
};

/// How many seeds one test run tries; each is tens of milliseconds.
const SEEDS: u64 = 40;

/// The longest that all runs of a simulation may take, in its time.
const PATIENCE: Duration = Duration::from_hours(24 * 5);

/// What Airflow does when nobody disturbs it.
const CALM: Habits =
    Habits { refuses: 0, loses: 0, silent: 0, fails: 0, longest: Duration::from_mins(5), parses: Duration::ZERO };

/// What it does at its worst.
const WILD: Habits = Habits { refuses: 5, loses: 5, silent: 20, fails: 12, ..CALM };

/// A daemon's part in it, with the Airflow that it calls.
struct World {
    fake: Arc<Fake>,
    store: Arc<MemoryStore>,
    plans: Vec<(RequestId, Arc<Plan>)>,
    heard: mpsc::Receiver<Told>,
    daemon: Option<Daemon>,
    /// Who asked for a run to end.
    cancelled: BTreeSet<RequestId>,
}

/// What a crash takes away.
struct Daemon {
    engine: Arc<AirflowEngine>,
    runs: Vec<(RequestId, Cancel, Running)>,
}

type Running = JoinHandle<Result<RunOutcome, Error>>;

// === impl World ===

impl World {
    /// Makes as many requests as it has DAGs, each of its own pipeline.
    fn start(seed: u64, habits: Habits, requests: usize) -> Self {
        let (fake, heard) = Fake::start(seed, habits, &["read", "load"]);
        let store = Arc::new(MemoryStore::default());
        let plan_of = |index: usize| {
            let pipeline = format!("p{index}");
            let tasks = vec![task("read", &[]), task("load", &["read"])];
            Arc::new(Plan { pipeline: name(&pipeline), dag_id: pipeline, ..plan(tasks) })
        };
        let plans: Vec<_> = (0..requests).map(|index| (RequestId(format!("r{index}")), plan_of(index))).collect();
        for (request, plan) in &plans {
            let body = RecordBody::Accepted(Box::new(accepted(&plan.dag_id)));
            store.append(&[Record { request: request.clone(), sequence: 0, at: 0, body }]).expect("accepts");
        }
        let mut world = Self { fake, store, plans, heard, daemon: None, cancelled: BTreeSet::new() };
        world.start_daemon();
        world
    }

    /// Lets a daemon take up what is open.
    fn start_daemon(&mut self) {
        let settings = Settings {
            layout: Rule { choice: Choice::Fixed(Layout::File), loader_from: usize::MAX },
            patience: Duration::from_mins(20),
            keep: None,
            look_back: Duration::from_hours(24),
            approvals: false,
        };
        let (airflow, destination) = (Arc::new(Handle(self.fake.clone())), Arc::new(Handle(self.fake.clone())));
        let engine = Arc::new(AirflowEngine::start(airflow, destination, self.store.clone(), settings));
        let mut runs = Vec::new();
        for (request, plan) in &self.plans {
            let (events, mut told) = mpsc::channel(16);
            let cancel = Cancel::default();
            if self.cancelled.contains(request) {
                cancel.request(None);
            }
            let job = Job {
                request: request.clone(),
                plan: plan.clone(),
                connections: BTreeMap::new(),
                store: self.store.clone(),
                events,
                cancel: cancel.clone(),
                replanning: Replanning::Left(2),
            };
            let (engine, plan) = (engine.clone(), plan.clone());
            let run = tokio::spawn(async move {
                tokio::spawn(async move { while told.recv().await.is_some() {} });
                let is_deployed = engine.deploy(&plan).await;
                assert_eq!(is_deployed, Ok(()), "nothing stands against it");
                engine.run(job, started(&plan)).await
            });
            runs.push((request.clone(), cancel, run));
        }
        self.daemon = Some(Daemon { engine, runs });
    }

    /// Takes the daemon away in the middle of whatever it does.
    async fn crash(&mut self) {
        let daemon = self.daemon.take().expect("a daemon");
        for (.., run) in &daemon.runs {
            run.abort();
        }
        drop(daemon);
        // What is being written is written or not before anything else happens: time stands still meanwhile.
        sleep(Duration::from_millis(1)).await;
    }

    /// Lets time pass.
    async fn pass(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while let Ok(Some(told)) = timeout(end - Instant::now(), self.heard.recv()).await {
            if let Some(daemon) = &self.daemon {
                daemon.engine.hear(told);
            }
        }
    }

    /// Waits until every run has ended, and returns how.
    async fn end(&mut self) -> BTreeMap<RequestId, Status> {
        let deadline = Instant::now() + PATIENCE;
        let is_over = |daemon: &Daemon| daemon.runs.iter().all(|(.., run)| run.is_finished());
        while !self.daemon.as_ref().is_some_and(is_over) {
            assert!(Instant::now() < deadline, "these runs do not end: {:?}", self.fake.runs());
            self.pass(Duration::from_secs(30)).await;
        }
        let mut ends = BTreeMap::new();
        for (request, _, run) in self.daemon.take().expect("a daemon").runs {
            let outcome = run.await.expect("no panic").expect("an outcome");
            ends.insert(request, outcome.status);
        }
        ends
    }

    /// Holds what the ledger says against what Airflow has.
    fn check(&self, ends: &BTreeMap<RequestId, Status>, forgotten: u32) {
        let (runs, created) = (self.fake.runs(), self.fake.created());
        let mut ours = BTreeSet::new();
        for (request, status) in ends {
            let run_id = run_id::of(request, 1);
            let state = runs.get(&run_id);
            let story = self.story(request);
            match status {
                Status::Succeeded => assert_eq!(state, Some(&RunState::Success), "{story}"),
                Status::Failed => assert_eq!(state, Some(&RunState::Failed), "{story}"),
                Status::Cancelled => {
                    assert!(self.cancelled.contains(request), "{story}");
                    assert!(state.is_none_or(RunState::is_final), "{state:?} {story}");
                }
            }
            let times = created.get(&run_id).copied().unwrap_or_default();
            assert!(times <= 1 + forgotten, "the run of {request} was created {times} times");
            ours.insert(run_id);
            self.check_ledger(request);
        }
        assert!(runs.keys().all(|run_id| ours.contains(run_id)), "{runs:?}");
    }

    /// Returns what the ledger says of a request, for when it is wrong.
    fn story(&self, request: &RequestId) -> String {
        let records = self.store.read(request, 0).expect("reads");
        let lines = records.iter().map(|record| format!("\n{} {:.300}", record.sequence, format!("{:?}", record.body)));
        format!("{request}:{}", lines.collect::<String>())
    }

    /// Tries begin once, end once, and the run ends once, whatever was told.
    fn check_ledger(&self, request: &RequestId) {
        let mut began: BTreeSet<(TaskInstance, u32)> = BTreeSet::new();
        let mut ends = 0;
        for record in self.store.read(request, 0).expect("reads") {
            match record.body {
                RecordBody::TaskStarted(started) => {
                    assert!(began.insert((started.instance, started.attempt)), "{request} {}", record.sequence);
                }
                // Airflow counts tries anew in a run that it had forgotten.
                RecordBody::RemedyApplied(applied) if applied.remedy == dagwright_model::record::RunRemedy::Trigger => {
                    began.clear();
                }
                RecordBody::RunEnded(_) => ends += 1,
                _ => {}
            }
        }
        assert_eq!(ends, 1, "{request}");
    }
}

/// The wall clock, as fast as the time of the test.
pub(super) fn now() -> DateTime<Utc> {
    static BEGAN: OnceLock<SystemTime> = OnceLock::new();
    thread_local! {
        static ORIGIN: OnceCell<Instant> = const { OnceCell::new() };
    }
    let began = *BEGAN.get_or_init(SystemTime::now);
    let origin = ORIGIN.with(|origin| *origin.get_or_init(Instant::now));
    (began + origin.elapsed()).into()
}

/// Runs a simulation in its own time.
fn simulate<T>(simulation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(simulation)
}

#[test]
fn runs_end_as_airflow_says() {
    simulate(async {
        let mut world = World::start(1, CALM, 20);
        let ends = world.end().await;
        assert!(ends.values().all(|status| *status == Status::Succeeded), "{ends:?}");
        world.check(&ends, 0);
    });
}

#[test]
fn runs_end_as_airflow_says_when_nothing_is_told() {
    simulate(async {
        let mut world = World::start(2, Habits { silent: 100, fails: 20, ..CALM }, 20);
        let ends = world.end().await;
        world.check(&ends, 0);
    });
}

#[test]
fn an_airflow_that_parses_one_after_the_other_is_waited_for() {
    simulate(async {
        // The last of them is shown long after the patience of the first is over.
        let mut world = World::start(9, Habits { parses: Duration::from_mins(2), ..CALM }, 60);
        let ends = world.end().await;
        assert!(ends.values().all(|status| *status == Status::Succeeded), "{ends:?}");
    });
}

#[test]
fn an_airflow_that_is_away_for_an_hour_is_waited_for() {
    for (seed, before) in [(3, 0), (4, 1), (5, 20), (6, 120), (7, 400)] {
        simulate(async {
            let mut world = World::start(seed, CALM, 20);
            world.pass(Duration::from_secs(before)).await;
            world.fake.asked();
            world.fake.set_away(true);
            world.pass(Duration::from_hours(1)).await;
            let asked: u32 = world.fake.asked().values().sum();
            assert!(asked <= 2 * 3600, "asked {asked} times in an hour");
            world.fake.set_away(false);
            let ends = world.end().await;
            assert!(ends.values().all(|status| *status == Status::Succeeded), "{ends:?}");
            world.check(&ends, 0);
        });
    }
}

#[test]
fn no_run_goes_on_whose_request_was_cancelled_while_it_was_triggered() {
    // Around the moment at which this Airflow, which knows no DAG of ours to be asked by, looks for files by itself.
    for after in (299_000..304_000).step_by(100) {
        simulate(async {
            let mut world = World::start(after, CALM, 8);
            world.pass(Duration::from_millis(after)).await;
            let daemon = world.daemon.as_ref().expect("a daemon");
            for (request, cancel, _) in &daemon.runs {
                cancel.request(None);
                world.cancelled.insert(request.clone());
            }
            let ends = world.end().await;
            // What was sent is heard by then.
            world.pass(Duration::from_secs(3)).await;
            world.check(&ends, 0);
        });
    }
}

#[test]
fn whatever_happens_every_run_ends_in_the_state_that_airflow_has() {
    for seed in 0..SEEDS {
        simulate(async {
            eprintln!("seed {seed}");
            let mut rng = Rng::with_seed(seed);
            let mut world = World::start(seed, WILD, 12);
            let mut forgotten = 0;
            for _ in 0..rng.u32(1..12) {
                world.pass(Duration::from_millis(rng.u64(0..600_000))).await;
                match rng.u8(0..10) {
                    0..6 => {
                        world.crash().await;
                        let down = Duration::from_millis(rng.u64(0..300_000));
                        world.pass(down).await;
                        world.start_daemon();
                    }
                    6 | 7 => {
                        world.fake.set_away(true);
                        world.pass(Duration::from_millis(rng.u64(0..3_600_000))).await;
                        world.fake.set_away(false);
                    }
                    // A run is triggered again three times at most.
                    8 if forgotten < 3 => {
                        forgotten += 1;
                        world.fake.forget();
                    }
                    _ => {
                        let daemon = world.daemon.as_ref().expect("a daemon");
                        let (request, cancel, run) = rng.choice(&daemon.runs).expect("a run");
                        if !run.is_finished() {
                            cancel.request(None);
                            world.cancelled.insert(request.clone());
                        }
                    }
                }
            }
            let ends = world.end().await;
            world.check(&ends, forgotten);
        });
    }
}

#[test]
fn thousands_of_runs_cost_airflow_two_questions_a_second() {
    simulate(async {
        let habits = Habits { longest: Duration::from_hours(200), ..CALM };
        let mut world = World::start(8, habits, 5000);
        world.pass(Duration::from_mins(20)).await;
        for is_back in [false, true] {
            if is_back {
                world.fake.set_away(true);
                world.pass(Duration::from_mins(5)).await;
                world.fake.set_away(false);
            }
            world.fake.asked();
            let seconds = 1200;
            world.pass(Duration::from_secs(seconds)).await;
            let asked = world.fake.asked();
            // A look that began before may end within.
            assert!(u64::from(asked.values().sum::<u32>()) <= 2 * seconds + 10, "{asked:?}");
        }
    });
}
