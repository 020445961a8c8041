//! The embedded engine killed with signal 9 at every moment that its tasks can tell apart.
//!
//! The engine runs in a process of its own: this test binary, started again. Its tasks stop at gates, sockets that the
//! test keeps: there it lets them go on, or kills their engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use dagwright_model::{plan::Plan, record::RecordBody, task::Status};
use dagwright_store::{SledStore, Store};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
};

use super::{
    fake_task::{self, Script, script},
    fixture::{accept, mapped, plan, request, split, started, task, teardown},
};
use crate::{Cancel, Engine, Job, LocalEngine, Replanning, event};

const ENGINE_FOLDER: &str = "FAKE_ENGINE_FOLDER";

/// Far longer than a killed process holds its lock.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// Where an engine in a process of its own, its tasks and the test meet.
struct Arena {
    folder: TempDir,
    listener: UnixListener,
}

impl Arena {
    fn new(plan: &Plan, script: &Script) -> Self {
        let folder = TempDir::new().expect("a folder");
        accept(&store(folder.path()));
        fs::write(folder.path().join("plan"), serde_json::to_vec(plan).expect("JSON")).expect("writes");
        fs::write(folder.path().join("script"), serde_json::to_vec(script).expect("JSON")).expect("writes");
        let listener = UnixListener::bind(fake_task::gate(folder.path())).expect("a socket");
        Self { folder, listener }
    }

    fn start_engine(&self) -> Child {
        Command::new(env::current_exe().expect("this program"))
            .args(["tests::crash::engine_process", "--exact", "--nocapture"])
            .env(ENGINE_FOLDER, self.folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("starts")
    }

    /// Runs to the end, killing the engine where `kill(engine, gate)` says so; returns how many gates were passed.
    async fn run(&self, mut kill: impl FnMut(usize, usize) -> bool) -> usize {
        let mut passed = 0;
        for engine in 0.. {
            let mut child = self.start_engine();
            let mut gates = 0;
            loop {
                let mut stream = tokio::select! {
                    biased;
                    accepted = self.listener.accept() => accepted.expect("a task").0,
                    status = child.wait() => {
                        assert!(status.expect("ends").success(), "engine {engine} failed");
                        return passed;
                    }
                };
                gates += 1;
                passed += 1;
                if kill(engine, gates) {
                    child.kill().await.expect("kills");
                    break;
                }
                // It may be of an engine that is dead already.
                let _ = stream.write_all(b"!").await;
                hold_open(stream);
            }
        }
        unreachable!("engines are numbered without end")
    }

    /// Checks the ledger and the effects of a run that ended.
    fn check(&self, effects: &[&str]) {
        let records = store(self.folder.path()).read(&request(), 0).expect("reads");
        let mut open = BTreeMap::new();
        let (mut starts, mut done) = (0, BTreeSet::new());
        for record in &records {
            match &record.body {
                RecordBody::RunStarted(_) => starts += 1,
                RecordBody::TaskStarted(started) => {
                    assert!(!done.contains(&started.instance), "{} ran again", started.instance);
                    let before = open.insert(started.instance.clone(), started.attempt);
                    assert!(before.is_none_or(|before| before < started.attempt), "{}", started.instance);
                }
                RecordBody::TaskEnded(ended) => {
                    assert_eq!(open.get(&ended.instance), Some(&ended.attempt), "{}", ended.instance);
                    assert_eq!(ended.outcome.status, Status::Succeeded, "{}", ended.instance);
                    assert!(done.insert(ended.instance.clone()), "{} ended twice", ended.instance);
                }
                RecordBody::RunEnded(ended) => assert_eq!(ended.status, Status::Succeeded),
                RecordBody::RetryScheduled(retry) => panic!("{} failed", retry.instance),
                _ => {}
            }
        }
        assert_eq!(starts, 1);
        let last = records.last().expect("records");
        assert!(matches!(last.body, RecordBody::RunEnded(_)), "{}", last.body.kind());
        let made = fs::read_to_string(fake_task::effects(self.folder.path())).expect("effects");
        let mut made: Vec<_> = made.lines().collect();
        made.sort_unstable();
        assert_eq!(made, effects);
    }
}

/// Keeps a connection until the task's end, without anybody waiting for it.
fn hold_open(mut stream: UnixStream) {
    tokio::spawn(async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
}

fn store(folder: &Path) -> SledStore {
    SledStore::open(&folder.join("store"), LOCK_WAIT).expect("the store opens")
}

fn pipeline() -> (Plan, Script) {
    let tasks = vec![split("s", 2), mapped("m", "s"), task("publish", &["m"]), teardown("z", &["publish"])];
    let steps = script(&[
        ("s", &["gate begun", "split 2"]),
        ("m", &["gate begun", "effect", "gate done"]),
        ("publish", &["gate begun", "effect", "gate done"]),
        ("z", &["gate begun"]),
    ]);
    (plan(tasks), steps)
}

const EFFECTS: [&str; 3] = ["r/m[0]", "r/m[1]", "r/publish"];

/// The engine of the tests below; without its variable it does nothing.
#[test]
fn engine_process() {
    let Some(folder) = env::var_os(ENGINE_FOLDER).map(PathBuf::from) else { return };
    let read = |file| fs::read(folder.join(file)).expect("reads");
    let plan: Plan = serde_json::from_slice(&read("plan")).expect("a plan");
    let script: Script = serde_json::from_slice(&read("script")).expect("a script");
    let engine = LocalEngine::new(fake_task::settings(&script, &folder));
    let (events, mut heard) = event::channel();
    let (began, cancel) = (started(&plan), Cancel::default());
    let store = Arc::new(store(&folder));
    let job = Job {
        request: request(),
        plan: Arc::new(plan),
        connections: BTreeMap::new(),
        store,
        events,
        cancel,
        replanning: Replanning::Never { why: "" },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (outcome, ()) = runtime
        .block_on(async { tokio::join!(engine.run(job, began), async { while heard.recv().await.is_some() {} }) });
    assert_eq!(outcome.expect("runs").status, Status::Succeeded);
}

#[tokio::test]
async fn killed_anywhere_a_run_has_every_effect_once() {
    let (plan, script) = pipeline();
    let undisturbed = Arena::new(&plan, &script);
    let gates = undisturbed.run(|_, _| false).await;
    undisturbed.check(&EFFECTS);
    assert_eq!(gates, 8);
    for moment in 1..=gates {
        let arena = Arena::new(&plan, &script);
        arena.run(|engine, gate| engine == 0 && gate == moment).await;
        arena.check(&EFFECTS);
    }
}

#[tokio::test]
async fn killed_again_and_again_a_run_has_every_effect_once() {
    let (plan, script) = pipeline();
    let arena = Arena::new(&plan, &script);
    arena.run(|engine, gate| engine < 6 && gate == 1 + engine % 3).await;
    arena.check(&EFFECTS);
}

#[tokio::test]
async fn a_killed_engine_leaves_no_task() {
    let arena = Arena::new(&plan(vec![task("a", &[])]), &script(&[("a", &["gate begun", "hang"])]));
    let mut engine = arena.start_engine();
    let stream = tokio::select! {
        accepted = arena.listener.accept() => accepted.expect("a task").0,
        status = engine.wait() => panic!("the engine ended by itself: {status:?}"),
    };
    let mut stream = BufReader::new(stream);
    let mut words = String::new();
    stream.read_line(&mut words).await.expect("reads");
    assert_eq!(words, "a#1 begun\n");
    stream.write_all(b"!").await.expect("lets it go on");
    engine.kill().await.expect("kills");
    // The other end of the socket closes when the task is gone.
    assert_eq!(stream.read_to_string(&mut words).await.expect("reads to the end"), 0);
}
