//! What is heard by whom, and what is found of what nobody told.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use dagwright_airflow::{Run, RunState};
use dagwright_store::{MemoryStore, Register as _};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{Heard, Pace, Stranger, Watch};
use crate::{
    airflow::{
        fake::FakeAirflow,
        told::{Told, ToldRun, What},
    },
    tests::fixture,
};

fn at(second: u32) -> DateTime<Utc> {
    format!("2025-01-01T00:00:{second:02}Z").parse().expect("an instant")
}

fn told(run_id: &str, started: u32) -> Told {
    let run = ToldRun {
        state: RunState::Running,
        run_type: None,
        interval: None,
        request: None,
        plan: None,
        clear_number: None,
        started_at: Some(at(started)),
        ended_at: None,
    };
    Told { dag_id: "p".into(), run_id: run_id.into(), at: at(0), what: What::Run(Box::new(run)) }
}

fn run(run_id: &str, started: u32) -> Run {
    let started = at(started).to_rfc3339();
    let run = serde_json::json!({ "dag_id": "p", "dag_run_id": run_id, "state": "success", "start_date": started });
    serde_json::from_value(run).expect("a run")
}

#[tokio::test]
async fn whoever_follows_a_run_hears_of_it_and_nobody_else() {
    let (watch, mut strangers) = Watch::new();
    let mut place = watch.follow("p", "followed");
    watch.hear(told("followed", 1));
    assert!(matches!(place.heard.recv().await, Some(Heard::LookNow)));
    assert!(strangers.try_recv().is_err());
    watch.hear(told("another", 1));
    assert!(matches!(strangers.try_recv(), Ok(Stranger { run_id, .. }) if run_id == "another"));
    drop(place);
    watch.hear(told("followed", 1));
    assert!(strangers.try_recv().is_ok(), "nobody follows it any more");
}

#[tokio::test]
async fn the_next_who_follows_a_run_keeps_its_place_when_the_first_goes() {
    let (watch, _strangers) = Watch::new();
    let first = watch.follow("p", "run");
    let mut second = watch.follow("p", "run");
    drop(first);
    watch.hear(told("run", 1));
    assert!(matches!(second.heard.recv().await, Some(Heard::LookNow)));
}

#[tokio::test]
async fn a_run_that_ended_is_no_stranger_until_it_starts_anew() {
    let (watch, mut strangers) = Watch::new();
    watch.remember(&run("done", 1));
    watch.hear(told("done", 1));
    assert!(strangers.try_recv().is_err(), "a late event");
    watch.hear(told("done", 2));
    assert!(strangers.try_recv().is_ok(), "it was cleared");
}

#[tokio::test]
async fn who_hears_too_much_misses_some_and_blocks_nobody() {
    let (watch, _strangers) = Watch::new();
    let mut place = watch.follow("p", "run");
    for _ in 0..10_000 {
        watch.hear(told("run", 1));
    }
    let mut heard = 0;
    while place.heard.try_recv().is_ok() {
        heard += 1;
    }
    assert_eq!(heard, super::HEARD_MAX);
    assert_eq!(Arc::strong_count(&watch), 2);
}

#[tokio::test(start_paused = true)]
async fn questions_keep_their_pace() {
    let began = Instant::now();
    let mut pace = Pace(began);
    for _ in 0..20 {
        pace.wait().await;
    }
    assert!(began.elapsed() >= Duration::from_millis(9500), "{:?}", began.elapsed());
}

/// A run of `p` that started and ended so many hours ago.
fn ended(run_id: &str, hours_ago: i64) -> Run {
    let at = super::now() - TimeDelta::hours(hours_ago);
    Run { start_date: Some(at), end_date: Some(at), ..run(run_id, 0) }
}

/// A process that lists the runs of an Airflow, and keeps where it was in a store.
struct Process {
    watch: Arc<Watch>,
    strangers: mpsc::Receiver<Stranger>,
    listing: JoinHandle<()>,
}

// === impl Process ===

impl Process {
    fn start(airflow: &Arc<FakeAirflow>, store: &Arc<MemoryStore>) -> Self {
        let (watch, strangers) = Watch::new();
        let week = TimeDelta::days(7);
        let listing = tokio::spawn(watch.clone().reconcile(airflow.clone(), store.clone(), week));
        Self { watch, strangers, listing }
    }

    /// Returns the runs that are found within some rounds.
    async fn found(&mut self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let rounds = tokio::time::timeout(Duration::from_mins(5), async {
            while let Some(stranger) = self.strangers.recv().await {
                found.insert(stranger.run_id);
            }
        });
        assert!(rounds.await.is_err(), "the process ended");
        found
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.listing.abort();
    }
}

fn airflow(runs: Vec<Run>) -> Arc<FakeAirflow> {
    let airflow = FakeAirflow::new(3, "/nowhere".into());
    airflow.state().runs = runs;
    Arc::new(airflow)
}

fn hours_ago(hours: i64) -> u64 {
    u64::try_from((super::now() - TimeDelta::hours(hours)).timestamp_millis()).expect("after 1970")
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_no_process_listed_is_found_by_the_next() {
    let store = Arc::new(MemoryStore::default());
    store.keep_bookmark("airflow.runs", hours_ago(10)).expect("kept");
    let airflow = airflow(vec![ended("before", 12), ended("meanwhile", 9), ended("lately", 1)]);
    let mut process = Process::start(&airflow, &store);
    assert_eq!(process.found().await, names(&[]), "it does not act for any pipeline yet");
    assert!(store.bookmark("airflow.runs").expect("reads").expect("kept") <= hours_ago(10));
    process.watch.took_over();
    assert_eq!(process.found().await, names(&["meanwhile", "lately"]));
    drop(process);

    // The next one begins where this one was.
    assert!(store.bookmark("airflow.runs").expect("reads").expect("kept") > hours_ago(1));
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    assert_eq!(process.found().await, names(&[]));
}

#[tokio::test(start_paused = true)]
async fn it_looks_back_only_so_far() {
    let store = Arc::new(MemoryStore::default());
    store.keep_bookmark("airflow.runs", hours_ago(24 * 30)).expect("kept");
    let airflow = airflow(vec![ended("long ago", 24 * 10), ended("this week", 24 * 6)]);
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    assert_eq!(process.found().await, names(&["this week"]));
}

#[tokio::test(start_paused = true)]
async fn where_the_bookmark_was_lost_the_ledger_tells() {
    let store = Arc::new(MemoryStore::default());
    let airflow = airflow(vec![ended("before", 6), ended("meanwhile", 2)]);
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    assert_eq!(process.found().await, names(&[]), "where nothing was ever asked for, nothing ran for it");
    drop(process);

    let store = Arc::new(MemoryStore::default());
    fixture::accept_at(&*store, hours_ago(4));
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    assert_eq!(process.found().await, names(&["meanwhile"]));
}

#[tokio::test(start_paused = true)]
async fn however_much_ended_meanwhile_nothing_is_lost_for_want_of_room() {
    let store = Arc::new(MemoryStore::default());
    store.keep_bookmark("airflow.runs", hours_ago(10)).expect("kept");
    let all: Vec<_> = (0..3 * super::STRANGERS_MAX).map(|number| ended(&number.to_string(), 5)).collect();
    let airflow = airflow(all.clone());
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    // Nobody takes them for a while, and Airflow is away for a while.
    let mut ticks = tokio::time::interval(Duration::from_mins(5));
    ticks.tick().await;
    ticks.tick().await;
    assert_eq!(process.strangers.len() / 100, super::STRANGERS_MAX / 100);
    airflow.state().is_away = true;
    ticks.tick().await;
    airflow.state().is_away = false;
    let found = process.found().await;
    assert_eq!(found.len(), all.len());
}

#[tokio::test(start_paused = true)]
async fn pipelines_that_come_a_little_later_are_looked_back_for_as_far() {
    let store = Arc::new(MemoryStore::default());
    store.keep_bookmark("airflow.runs", hours_ago(10)).expect("kept");
    let airflow = airflow(vec![ended("meanwhile", 9)]);
    let mut process = Process::start(&airflow, &store);
    for _ in 0..2 {
        process.watch.took_over();
        assert_eq!(process.found().await, names(&["meanwhile"]));
    }
    // What comes later was listed by somebody else until now.
    process.found().await;
    process.watch.took_over();
    assert_eq!(process.found().await, names(&[]));
}

#[tokio::test(start_paused = true)]
async fn pipelines_that_were_taken_over_are_looked_back_for() {
    let store = Arc::new(MemoryStore::default());
    let airflow = airflow(Vec::new());
    let mut process = Process::start(&airflow, &store);
    process.watch.took_over();
    assert_eq!(process.found().await, names(&[]));
    // It ended when another process acted for it, which died then.
    let ended = Run { end_date: Some(super::now() - TimeDelta::minutes(5)), ..ended("of another", 1) };
    airflow.state().runs.push(ended);
    assert_eq!(process.found().await, names(&[]));
    process.watch.took_over();
    assert_eq!(process.found().await, names(&["of another"]));
}
