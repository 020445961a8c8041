//! The embedded engine with real processes that behave well, badly, and not at all.

use std::{path::Path, sync::Arc, time::Duration};

use dagwright_model::{
    code::Code,
    id::Name,
    plan::Plan,
    task::{Outcome, Status},
    units::Span,
};
use dagwright_store::MemoryStore;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixListener,
    sync::mpsc::Receiver,
};

use super::{
    fake_task::{self, Script, script},
    fixture::{accept, connected, mapped, name, plan, request, split, started, task, teardown},
};
use crate::{Cancel, Engine, Job, LocalEngine, Replanning, RunEvent, RunOutcome, Settings, event};

fn job(plan: &Plan) -> (Job, Receiver<RunEvent>) {
    let store = Arc::new(MemoryStore::default());
    accept(&*store);
    let (events, heard) = event::channel();
    let connections = [(name("warehouse"), "postgresql://db/w".to_string())].into();
    let cancel = Cancel::default();
    (
        Job {
            request: request(),
            plan: Arc::new(plan.clone()),
            connections,
            store,
            events,
            cancel,
            replanning: Replanning::Never { why: "" },
        },
        heard,
    )
}

/// Retries at once, but twice only.
fn impatient(mut plan: Plan) -> Plan {
    (plan.retries.max, plan.retries.backoff) = (2, Span(1));
    plan
}

async fn run_with(settings: Settings, plan: &Plan) -> RunOutcome {
    let (job, mut heard) = job(plan);
    let engine = LocalEngine::new(settings);
    let read = async { while heard.recv().await.is_some() {} };
    let (outcome, ()) = tokio::join!(engine.run(job, started(plan)), read);
    outcome.expect("runs")
}

async fn run(script: &Script, folder: &Path, plan: &Plan) -> RunOutcome {
    run_with(fake_task::settings(script, folder), plan).await
}

/// Runs one task, and returns how often it was tried, what came of it, and its log.
async fn run_one(steps: &[(&str, &[&str])]) -> (u32, Outcome, String) {
    let folder = TempDir::new().expect("a folder");
    let outcome = run(&script(steps), folder.path(), &impatient(plan(vec![task("a", &[])]))).await;
    let task = outcome.tasks.into_iter().next().expect("a task");
    (task.attempts, task.outcome.expect("an outcome"), task.log_tail)
}

fn code(outcome: &Outcome) -> Option<Code> {
    outcome.problem.as_ref().map(|problem| problem.code)
}

#[tokio::test]
async fn a_plan_runs_through() {
    let folder = TempDir::new().expect("a folder");
    let steps = script(&[("s", &["split 3"]), ("z", &["fail DW0401"])]);
    let tasks = vec![split("s", 3), mapped("m", "s"), task("publish", &["m"]), teardown("z", &["publish"])];
    let outcome = run(&steps, folder.path(), &impatient(plan(tasks))).await;
    assert_eq!((outcome.status, outcome.problem), (Status::Succeeded, None));
    assert_eq!(outcome.counts.sinks.values().map(|sink| sink.loaded).sum::<u64>(), 4);
    let tries: Vec<_> = outcome.tasks.iter().map(|task| (task.instance.to_string(), task.attempts)).collect();
    let wanted = [("s", 1), ("m[0]", 1), ("m[1]", 1), ("m[2]", 1), ("publish", 1), ("z", 3)];
    assert_eq!(tries, wanted.map(|(name, count)| (name.to_string(), count)));
}

#[tokio::test]
async fn whatever_a_task_says_only_its_outcome_counts() {
    for step in ["junk", "endless", "flood", "progress", "warn"] {
        let (tries, outcome, log) = run_one(&[("a", &[step, "succeed"])]).await;
        assert_eq!((tries, outcome.status, log.as_str()), (1, Status::Succeeded, ""), "{step}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let (tries, outcome, _) = run_one(&[("a#1", &["abort"]), ("a#2", &["fail DW0302"]), ("a#3", &["succeed"])]).await;
    assert_eq!((tries, outcome.status), (3, Status::Succeeded));
    for (steps, tries, wanted) in [
        (&["abort"][..], 3, Code::TaskCrashed),
        (&["exit 0"], 3, Code::TaskCrashed),
        (&["exit 101"], 3, Code::TaskCrashed),
        (&["deaf"], 3, Code::TaskCrashed),
        (&["exit 10"], 1, Code::TaskSpecInvalid),
        (&["fail DW0401"], 3, Code::SinkUnreachable),
        (&["fail DW0504"], 1, Code::GateFailed),
    ] {
        let (tried, outcome, _) = run_one(&[("a", steps)]).await;
        assert_eq!((tried, outcome.status, code(&outcome)), (tries, Status::Failed, Some(wanted)), "{steps:?}");
    }
}

#[tokio::test]
async fn a_failure_comes_with_the_end_of_the_log() {
    let (_, _, log) = run_one(&[("a", &["flood", "log last words", "fail DW0305"])]).await;
    assert!(log.ends_with("line 49999\nlast words\n"), "{log}");
    assert!(log.len() <= 16 << 10, "{}", log.len());
}

#[tokio::test]
async fn a_task_that_does_not_read_its_spec_holds_nothing_up() {
    let mut large = impatient(plan(vec![task("a", &[])]));
    large.tasks[0].spec.pipeline = "x".repeat(1 << 20);
    let folder = TempDir::new().expect("a folder");
    let outcome = run(&script(&[("a", &["deaf"])]), folder.path(), &large).await;
    assert_eq!(outcome.status, Status::Failed);
}

#[tokio::test]
async fn a_task_lives_in_a_clean_environment_and_leads_its_group() {
    let folder = TempDir::new().expect("a folder");
    let settings = fake_task::settings(&script(&[("a", &["facts"])]), folder.path());
    let mut names: Vec<_> = settings.environment.keys().map(|name| name.to_string_lossy().into_owned()).collect();
    names.push("DAGWRIGHT_CONN_WAREHOUSE".into());
    names.sort();
    let outcome = run_with(settings, &plan(vec![connected("a", "warehouse")])).await;
    assert_eq!(outcome.status, Status::Succeeded);
    let facts = std::fs::read_to_string(folder.path().join("facts")).expect("facts");
    assert_eq!(facts, format!("{} true", names.join(" ")));
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !facts.contains("CARGO"), "{facts}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let folder = TempDir::new().expect("a folder");
    let outcome = run_with(Settings::new(folder.path().join("nothing")), &plan(vec![task("a", &[])])).await;
    let problem = outcome.problem.expect("a problem");
    assert_eq!((outcome.tasks[0].attempts, problem.code), (1, Code::TaskCommandMissing));
    assert!(problem.message.contains("nothing"), "{}", problem.message);
}

#[tokio::test]
async fn a_cancelled_task_ends_with_its_lease_or_is_killed() {
    for (step, wanted) in [("hang", Code::Cancelled), ("stubborn", Code::Cancelled)] {
        let folder = TempDir::new().expect("a folder");
        let planned = plan(vec![task("a", &[]), teardown("z", &[])]);
        let (job, mut heard) = job(&planned);
        let cancel = job.cancel.clone();
        let mut settings = fake_task::settings(&script(&[("a", &[step])]), folder.path());
        if step == "stubborn" {
            settings.grace = Duration::from_millis(1);
        }
        let engine = LocalEngine::new(settings);
        let watch = async {
            while let Some(event) = heard.recv().await {
                // It runs, since it said so itself.
                if matches!(event, RunEvent::TaskProgress { .. }) {
                    cancel.request(None);
                }
            }
        };
        let (outcome, ()) = tokio::join!(engine.run(job, started(&planned)), watch);
        let outcome = outcome.expect("runs");
        assert_eq!(outcome.status, Status::Cancelled, "{step}");
        let ended: Vec<_> = outcome.tasks.iter().filter_map(|task| task.outcome.as_ref()).collect();
        assert_eq!((code(ended[0]), ended[1].status), (Some(wanted), Status::Succeeded), "{step}");
    }
}

#[tokio::test]
async fn a_task_over_its_time_is_stopped() {
    let folder = TempDir::new().expect("a folder");
    let mut planned = plan(vec![task("a", &[])]);
    planned.tasks[0].timeout = Span(200);
    let outcome = run(&script(&[("a", &["hang"])]), folder.path(), &planned).await;
    assert_eq!(outcome.problem.map(|problem| problem.code), Some(Code::TaskTimedOut));
}

#[tokio::test]
async fn a_dropped_run_leaves_no_process() {
    let folder = TempDir::new().expect("a folder");
    let listener = UnixListener::bind(fake_task::gate(folder.path())).expect("a socket");
    let planned = plan(vec![task("a", &[])]);
    let (job, _heard) = job(&planned);
    let engine = LocalEngine::new(fake_task::settings(&script(&[("a", &["gate in", "stubborn"])]), folder.path()));
    let mut words = String::new();
    let greet = async {
        let mut stream = BufReader::new(listener.accept().await.expect("a task").0);
        stream.read_line(&mut words).await.expect("reads");
        stream
    };
    let mut stream = tokio::select! {
        outcome = engine.run(job, started(&planned)) => panic!("it does not end: {outcome:?}"),
        stream = greet => stream,
    };
    assert_eq!(words, "a#1 in\n");
    // The other end of the socket closes when the process is gone.
    assert_eq!(stream.read_to_string(&mut words).await.expect("reads to the end"), 0);
}

#[test]
fn a_job_shows_no_credentials() {
    let planned = plan(Vec::new());
    let (mut job, _) = job(&planned);
    job.connections.insert(Name::new("ops").expect("a name"), "postgresql://u:hidden@db/x".into());
    let shown = format!("{job:?}");
    assert!(shown.contains("ops") && !shown.contains("hidden"), "{shown}");
}
