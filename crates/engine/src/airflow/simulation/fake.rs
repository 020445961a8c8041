//! An Airflow that is none: DAGs, runs and tries in memory, which change with the time of the test.
//!
//! It does what was seen of real ones, and fails as they do: it is away, loses answers, tells late, twice or never, and
//! forgets everything. What it is asked is counted.

mod course;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dagwright_airflow::{
    Airflow, Answer, Asset, AssetEvent, AssetEventFilter, Backfill, BackfillAction, BackfillRequest, Clear,
    ClearedTask, Connection, ConnectionTest, Dag, DagFilter, DagVersion, Deleted, Error, Health, ImportError, Log,
    Page, Pool, PoolSet, Result, Run, RunFilter, RunMark, RunState, Span, Subject, TaskInstance, TaskKey, TaskMark,
    TaskState, Trigger, Triggered, Version,
};
use dagwright_model::{code::Code, task::Counts};
use fastrand::Rng;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};

use self::course::Course;
use super::now;
use crate::airflow::{
    deploy::{self, Change, Destination, Found, Leftover, Placed, View},
    told::Told,
};

/// How often it looks for new files by itself.
const PARSES_EVERY: Duration = Duration::from_secs(300);

/// More than is told while nobody listens.
const TOLD_MAX: usize = 100_000;

/// How it behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How many of a hundred calls fail before they do anything.
    pub(crate) refuses: u8,
    /// How many of a hundred calls do what they are to do, and nobody hears of it.
    pub(crate) loses: u8,
    /// How many of a hundred events are never told; as many are told twice, and as many late.
    pub(crate) silent: u8,
    /// How many of a hundred tries fail.
    pub(crate) fails: u8,
    /// The longest that a try takes.
    pub(crate) longest: Duration,
    /// How long it parses a file.
    pub(crate) parses: Duration,
}

/// An Airflow, and the place that it reads DAGs from.
pub(crate) struct Fake {
    habits: Habits,
    tasks: Vec<String>,
    state: Mutex<State>,
    told: mpsc::Sender<Told>,
    /// That it parses soon.
    wish: Arc<Notify>,
}

struct State {
    rng: Rng,
    away: bool,
    /// Counts how often it forgot everything.
    epoch: u32,
    /// What lies where it reads DAGs: the tag of each DAG's plan.
    files: BTreeMap<String, String>,
    /// The files that it has parsed.
    parsed: BTreeMap<String, String>,
    runs: BTreeMap<(String, String), FakeRun>,
    /// How runs had ended when it forgot them.
    forgotten: BTreeMap<String, RunState>,
    /// How often each run was created.
    created: BTreeMap<String, u32>,
    asked: BTreeMap<&'static str, u32>,
}

struct FakeRun {
    state: RunState,
    conf: Map<String, Value>,
    /// Counts how often it was taken up.
    generation: u32,
    started: DateTime<Utc>,
    updated: DateTime<Utc>,
    tasks: Vec<FakeTask>,
}

#[derive(Clone)]
struct FakeTask {
    id: String,
    state: Option<TaskState>,
    attempt: u32,
    /// Which try is its last one.
    last: u32,
    started: Option<DateTime<Utc>>,
    ended: Option<DateTime<Utc>>,
    code: Option<Code>,
}

// === impl Fake ===

impl Fake {
    /// Makes one whose DAGs all have these tasks, one after the other; what it tells goes to the receiver.
    pub(crate) fn start(seed: u64, habits: Habits, tasks: &[&str]) -> (Arc<Self>, mpsc::Receiver<Told>) {
        let (told, heard) = mpsc::channel(TOLD_MAX);
        let state = State {
            rng: Rng::with_seed(seed),
            away: false,
            epoch: 0,
            files: BTreeMap::new(),
            parsed: BTreeMap::new(),
            runs: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            created: BTreeMap::new(),
            asked: BTreeMap::new(),
        };
        let tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
        let fake = Arc::new(Self { habits, tasks, state: Mutex::new(state), told, wish: Arc::default() });
        let parser = Arc::downgrade(&fake);
        tokio::spawn(async move {
            while let Some(fake) = parser.upgrade() {
                let (wish, pause) = (fake.wish.clone(), fake.habits.parses);
                let news = fake.state().news();
                drop(fake);
                for (dag_id, tag) in news {
                    sleep(pause).await;
                    let Some(fake) = parser.upgrade() else { return };
                    fake.state().parsed.insert(dag_id, tag);
                }
                // Its own time comes, or somebody wishes it.
                let _ = timeout(PARSES_EVERY, wish.notified()).await;
            }
        });
        (fake, heard)
    }

    /// Takes it away, or brings it back; what runs goes on.
    pub(crate) fn set_away(&self, away: bool) {
        self.state().away = away;
    }

    /// Forgets all DAGs and runs, as a database that was reset.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.epoch += 1;
        let runs = std::mem::take(&mut state.runs);
        let ended = runs.into_iter().filter(|(_, run)| run.state.is_final());
        state.forgotten.extend(ended.map(|((_, run_id), run)| (run_id, run.state)));
        state.parsed.clear();
    }

    /// Returns the state of each run by its id, or in which it had ended before it was forgotten.
    pub(crate) fn runs(&self) -> BTreeMap<String, RunState> {
        let state = self.state();
        let runs = state.runs.iter().map(|((_, run_id), run)| (run_id.clone(), run.state.clone()));
        state.forgotten.clone().into_iter().chain(runs).collect()
    }

    /// Returns how often each run was created.
    pub(crate) fn created(&self) -> BTreeMap<String, u32> {
        self.state().created.clone()
    }

    /// Returns what it was asked so far, and forgets it.
    pub(crate) fn asked(&self) -> BTreeMap<&'static str, u32> {
        std::mem::take(&mut self.state().asked)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a call, unless it is lost.
    async fn answer<T>(&self, call: &'static str, act: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let (latency, away, refuses, loses) = {
            let mut state = self.state();
            *state.asked.entry(call).or_default() += 1;
            let (refuses, loses) = (self.habits.refuses, self.habits.loses);
            let roll = state.rng.u8(0..100);
            let latency = Duration::from_millis(state.rng.u64(1..50));
            (latency, state.away, roll < refuses, roll >= refuses && roll < refuses + loses)
        };
        let timed_out = || Error::TimedOut { call: Subject::bare(call) };
        if away {
            sleep(Duration::from_secs(1)).await;
            return Err(timed_out());
        }
        sleep(latency).await;
        if refuses {
            return Err(Error::Unavailable { call: Subject::bare(call), status: 503, detail: "busy".into() });
        }
        let answer = act(&mut self.state());
        if loses && answer.is_ok() { Err(timed_out()) } else { answer }
    }

    /// Lets a run take its course, from where it stands.
    fn live(self: Arc<Self>, key: (String, String), generation: u32) {
        tokio::spawn(async move {
            let epoch = self.state().epoch;
            Course { fake: self, key, epoch, generation }.run().await;
        });
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

fn missing(call: &'static str, name: &str) -> Error {
    Error::NotFound { call: Subject::of(call, name), detail: "not found".into() }
}

/// Lets a call come to its end, though whoever made it may go: it was sent.
async fn heeded<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(call).await.expect("no panic")
}

fn not_asked<T>(call: &'static str) -> Result<T> {
    Err(Error::BadCall { call: Subject::bare(call), reason: "the engine does not call it" })
}

// === impl State ===

impl State {
    /// Returns the files that it has not parsed as they are.
    fn news(&self) -> Vec<(String, String)> {
        let is_news = |(dag_id, tag): &(&String, &String)| self.parsed.get(*dag_id) != Some(*tag);
        self.files.iter().filter(is_news).map(|(dag_id, tag)| (dag_id.clone(), tag.clone())).collect()
    }
}

// === impl FakeRun ===

impl FakeRun {
    fn show(&self, key: &(String, String)) -> Run {
        let answer = json!({
            "dag_id": key.0, "dag_run_id": key.1, "state": self.state.as_str(), "run_type": "manual",
            "conf": self.conf, "start_date": self.started,
        });
        serde_json::from_value(answer).expect("a run")
    }
}

// === impl FakeTask ===

impl FakeTask {
    fn show(&self, key: &(String, String)) -> TaskInstance {
        TaskInstance {
            id: None,
            dag_id: key.0.clone(),
            run_id: key.1.clone(),
            task_id: self.id.clone(),
            map_index: -1,
            state: self.state.clone(),
            try_number: self.attempt,
            max_tries: Some(i64::from(self.last) - 1),
            start_date: self.started,
            end_date: self.ended,
            queued_when: None,
            operator: None,
            pool: None,
            hostname: None,
            note: None,
        }
    }
}

fn page<T>(items: impl Iterator<Item = T>, span: Span) -> Page<T> {
    let all: Vec<T> = items.collect();
    let total = all.len() as u64;
    let offset = usize::try_from(span.offset).unwrap_or(usize::MAX);
    let limit = usize::try_from(span.limit).unwrap_or(usize::MAX);
    Page { items: all.into_iter().skip(offset).take(limit).collect(), total }
}

fn dag(dag_id: &str, tag: &str) -> Dag {
    Dag {
        dag_id: dag_id.into(),
        is_paused: false,
        is_active: true,
        has_import_errors: false,
        file_token: dag_id.into(),
        fileloc: None,
        relative_fileloc: None,
        bundle_name: Some("fake".into()),
        bundle_version: None,
        last_parsed_time: None,
        description: None,
        tags: vec![dagwright_compiler::TAG.into(), tag.into()],
    }
}

/// The handle that calls are made through, as runs outlive calls.
#[derive(Clone, Debug)]
pub(crate) struct Handle(pub(crate) Arc<Fake>);

// === impl Handle ===

impl Handle {
    async fn trigger_now(&self, trigger: &Trigger) -> Result<Triggered> {
        // What it writes it is slow at, so that a question which is asked later may be answered sooner.
        let pause = self.0.state().rng.u64(0..1500);
        sleep(Duration::from_millis(pause)).await;
        let key = (trigger.dag_id.clone(), trigger.run_id.clone());
        let mut is_new = false;
        let start = |state: &mut State| {
            if !state.parsed.contains_key(&key.0) {
                return Err(missing("trigger DAG", &key.0));
            }
            if let Some(run) = state.runs.get(&key) {
                return Ok(Triggered::Found(run.show(&key)));
            }
            let retries = 1;
            let task = |id: &String| FakeTask {
                id: id.clone(),
                state: None,
                attempt: 0,
                last: 1 + retries,
                started: None,
                ended: None,
                code: None,
            };
            let run = FakeRun {
                state: RunState::Running,
                conf: trigger.conf.clone(),
                generation: 0,
                started: now(),
                updated: now(),
                tasks: self.0.tasks.iter().map(task).collect(),
            };
            let shown = run.show(&key);
            state.runs.insert(key.clone(), run);
            *state.created.entry(key.1.clone()).or_default() += 1;
            is_new = true;
            Ok(Triggered::Started(shown))
        };
        let answer = self.0.answer("trigger", start).await;
        if is_new {
            self.0.clone().live(key, 0);
        }
        answer
    }

    async fn clear_now(&self, clear: &Clear) -> Result<Vec<ClearedTask>> {
        assert!(clear.only_failed && clear.tasks.is_none(), "nothing else is asked for");
        let key = (clear.dag_id.clone(), clear.run_id.clone());
        let mut taken_up = None;
        let act = |state: &mut State| {
            let run = state.runs.get_mut(&key).ok_or_else(|| missing("clear run", &key.1))?;
            let mut cleared = BTreeSet::new();
            for task in &mut run.tasks {
                if matches!(task.state, Some(TaskState::Failed | TaskState::UpstreamFailed)) {
                    (task.state, task.last) = (None, task.attempt + 2);
                    cleared.insert(ClearedTask { task_id: task.id.clone(), map_index: None });
                }
            }
            if !cleared.is_empty() {
                run.generation += 1;
                (run.state, run.started, run.updated) = (RunState::Running, now(), now());
                taken_up = Some(run.generation);
            }
            Ok(cleared.into_iter().collect())
        };
        let answer = self.0.answer("clear", act).await;
        if let Some(generation) = taken_up {
            self.0.clone().live(key, generation);
        }
        answer
    }
}

#[async_trait]
impl Airflow for Handle {
    async fn health(&self) -> Result<Health> {
        not_asked("health")
    }

    async fn version(&self) -> Result<Version> {
        self.0.answer("version", |_| Ok(Version { major: 3, minor: 3, patch: 2 })).await
    }

    async fn dag(&self, dag_id: &str) -> Result<Dag> {
        let look = |state: &mut State| {
            state.parsed.get(dag_id).map(|tag| dag(dag_id, tag)).ok_or_else(|| missing("read DAG", dag_id))
        };
        self.0.answer("dag", look).await
    }

    async fn dags(&self, _: &DagFilter, span: Span) -> Result<Page<Dag>> {
        let list = |state: &mut State| Ok(page(state.parsed.iter().map(|(dag_id, tag)| dag(dag_id, tag)), span));
        self.0.answer("dags", list).await
    }

    async fn set_paused(&self, _: &str, _: bool) -> Result<Dag> {
        not_asked("pause")
    }

    async fn delete_dag(&self, _: &str) -> Result<Deleted> {
        not_asked("delete")
    }

    async fn reparse(&self, _: &str) -> Result<()> {
        let wish = |_: &mut State| {
            self.0.wish.notify_one();
            Ok(())
        };
        self.0.answer("reparse", wish).await
    }

    async fn dag_versions(&self, _: &str, _: Span) -> Result<Page<DagVersion>> {
        not_asked("versions")
    }

    async fn import_errors(&self, _: Span) -> Result<Page<ImportError>> {
        self.0.answer("import_errors", |_| Ok(Page { items: Vec::new(), total: 0 })).await
    }

    async fn trigger(&self, trigger: &Trigger) -> Result<Triggered> {
        let (this, trigger) = (self.clone(), trigger.clone());
        heeded(async move { this.trigger_now(&trigger).await }).await
    }

    async fn run(&self, dag_id: &str, run_id: &str) -> Result<Run> {
        let key = (dag_id.to_owned(), run_id.to_owned());
        let look = |state: &mut State| {
            state.runs.get(&key).map(|run| run.show(&key)).ok_or_else(|| missing("read run", run_id))
        };
        self.0.answer("run", look).await
    }

    async fn runs(&self, filter: &RunFilter, span: Span) -> Result<Page<Run>> {
        let wanted = |run: &FakeRun| {
            filter.states.contains(&run.state) && filter.updated_at_gte.is_none_or(|since| run.updated >= since)
        };
        let list = |state: &mut State| {
            let Page { items, total } = page(state.runs.iter().filter(|(_, run)| wanted(run)), span);
            Ok(Page { items: items.into_iter().map(|(key, run)| run.show(key)).collect(), total })
        };
        self.0.answer("runs", list).await
    }

    async fn mark_run(&self, dag_id: &str, run_id: &str, mark: RunMark) -> Result<Run> {
        assert_eq!(mark, RunMark::Failed, "nothing else is asked for");
        let key = (dag_id.to_owned(), run_id.to_owned());
        let mark = |state: &mut State| {
            let run = state.runs.get_mut(&key).ok_or_else(|| missing("mark run", run_id))?;
            (run.state, run.updated) = (RunState::Failed, now());
            run.generation += 1;
            for task in &mut run.tasks {
                if task.state == Some(TaskState::Running) {
                    (task.state, task.ended) = (Some(TaskState::Failed), Some(now()));
                }
            }
            Ok(run.show(&key))
        };
        self.0.answer("mark", mark).await
    }

    async fn task_instance(&self, _: &TaskKey) -> Result<TaskInstance> {
        not_asked("task instance")
    }

    async fn task_instances(&self, dag_id: &str, run_id: &str, span: Span) -> Result<Page<TaskInstance>> {
        let key = (dag_id.to_owned(), run_id.to_owned());
        let list = |state: &mut State| {
            let run = state.runs.get(&key).ok_or_else(|| missing("list tasks of run", run_id))?;
            Ok(page(run.tasks.iter().map(|task| task.show(&key)), span))
        };
        self.0.answer("task_instances", list).await
    }

    async fn mapped_task_instances(&self, _: &str, _: &str, _: &str, _: Span) -> Result<Page<TaskInstance>> {
        not_asked("mapped task instances")
    }

    async fn log(&self, key: &TaskKey, try_number: u32, _: usize) -> Result<Log> {
        let of_run = (key.dag_id.clone(), key.run_id.clone());
        let read = |state: &mut State| {
            let tasks = state.runs.get(&of_run).map(|run| &run.tasks);
            let task = tasks.and_then(|tasks| tasks.iter().find(|task| task.id == key.task_id));
            let task =
                task.filter(|task| task.attempt >= try_number).ok_or_else(|| missing("read log", &key.task_id))?;
            let text = task.code.map(|code| format!("ERROR - AirflowException: {code}: gone\n")).unwrap_or_default();
            Ok(Log { text, left_out: 0, is_complete: true })
        };
        self.0.answer("log", read).await
    }

    async fn xcom(&self, key: &TaskKey, _: &str) -> Result<Value> {
        let of_run = (key.dag_id.clone(), key.run_id.clone());
        let read = |state: &mut State| {
            let counts = serde_json::to_value(Counts::default()).expect("JSON");
            state.runs.contains_key(&of_run).then_some(counts).ok_or_else(|| missing("read XCom", &key.task_id))
        };
        self.0.answer("xcom", read).await
    }

    async fn answer(&self, _: &TaskKey) -> Result<Option<Answer>> {
        not_asked("answer")
    }

    async fn preview_clear(&self, _: &Clear) -> Result<Vec<ClearedTask>> {
        not_asked("preview")
    }

    async fn clear(&self, clear: &Clear) -> Result<Vec<ClearedTask>> {
        let (this, clear) = (self.clone(), clear.clone());
        heeded(async move { this.clear_now(&clear).await }).await
    }

    async fn mark_task(&self, _: &TaskKey, _: TaskMark) -> Result<()> {
        not_asked("mark task")
    }

    async fn start_backfill(&self, _: &BackfillRequest) -> Result<Backfill> {
        not_asked("backfill")
    }

    async fn preview_backfill(&self, _: &BackfillRequest) -> Result<Vec<DateTime<Utc>>> {
        not_asked("preview backfill")
    }

    async fn backfill(&self, _: u64) -> Result<Backfill> {
        not_asked("read backfill")
    }

    async fn act_on_backfill(&self, _: u64, _: BackfillAction) -> Result<Backfill> {
        not_asked("act on backfill")
    }

    async fn asset(&self, _: &str) -> Result<Asset> {
        not_asked("asset")
    }

    async fn asset_events(&self, _: &AssetEventFilter, _: Span) -> Result<Page<AssetEvent>> {
        not_asked("asset events")
    }

    async fn create_asset_event(&self, _: &str, _: &Map<String, Value>) -> Result<AssetEvent> {
        not_asked("create asset event")
    }

    async fn pool(&self, _: &str) -> Result<Pool> {
        not_asked("pool")
    }

    async fn pools(&self, _: Span) -> Result<Page<Pool>> {
        not_asked("pools")
    }

    async fn set_pool(&self, _: &str, _: i64) -> Result<PoolSet> {
        not_asked("set pool")
    }

    async fn connection(&self, _: &str) -> Result<Connection> {
        not_asked("connection")
    }

    async fn test_connection(&self, _: &str) -> Result<ConnectionTest> {
        not_asked("test connection")
    }
}

/// What lies where it reads DAGs, to those who ask: each DAG is a file of its own, so nobody needs to.
struct Nothing;

impl View for Nothing {
    fn names(&self) -> std::result::Result<BTreeSet<String>, deploy::Error> {
        Ok(BTreeSet::new())
    }

    fn read(&self, names: BTreeSet<String>) -> std::result::Result<BTreeMap<String, Found>, deploy::Error> {
        Ok(names.into_iter().map(|name| (name, Found::Absent)).collect())
    }
}

impl Destination for Handle {
    fn update(
        &self,
        draft: &mut dyn FnMut(&dyn View) -> std::result::Result<Change, deploy::Error>,
    ) -> std::result::Result<Placed, deploy::Error> {
        let change = draft(&Nothing)?;
        let mut state = self.0.state();
        let before = state.files.clone();
        for (dag_id, files) in &change.dags {
            let plan = files.keys().find_map(|name| name.strip_suffix(".plan.json")).expect("a plan file");
            let (_, hash) = plan.rsplit_once('.').expect("a name with the plan's hash");
            state.files.insert(dag_id.clone(), format!("plan {hash}"));
        }
        if !change.common.is_empty() {
            state.files.insert(dagwright_compiler::ANCHOR.into(), "anchor".into());
        }
        Ok(Placed { changed: state.files != before, version: None })
    }

    fn leftovers(&self) -> std::result::Result<Vec<Leftover>, deploy::Error> {
        Ok(Vec::new())
    }

    fn discard(&self, _: &Leftover) -> std::result::Result<(), deploy::Error> {
        Ok(())
    }
}
