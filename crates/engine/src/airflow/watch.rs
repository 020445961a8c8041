//! Who follows which run, and what is asked of Airflow so that no end is missed.
//!
//! Events make it quick, this makes it certain: runs that ended lately are listed again and again, whoever told of them or
//! did not, and each run that is followed is looked at in turn. All of that together stays within a pace, however many runs
//! are followed, since it is other people's Airflow too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use dagwright_airflow::{Airflow, Run, RunFilter, RunState, Span};
use dagwright_model::id::{PlanHash, RequestId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::told::{Told, ToldTask, What};
use crate::airflow::metrics;

/// How much may wait for one who follows a run; what finds no room is found by a later look.
const HEARD_MAX: usize = 256;

/// How many runs that nobody follows may wait to be looked at by whoever adopts them.
const STRANGERS_MAX: usize = 1024;

/// How often it is looked for runs that ended.
const ROUND: Duration = Duration::from_secs(5);

/// How far back each round looks beyond the one before: clocks differ, and a transaction may be seen late.
const OVERLAP: TimeDelta = TimeDelta::seconds(90);

/// The shortest time between two questions of rounds: at most two a second.
const PACE: Duration = Duration::from_millis(500);

/// How long a run is left alone that was heard of.
const SILENCE: Duration = Duration::from_secs(20);

/// How many ended runs are remembered, so that their late events are not taken for new runs.
const ENDED_MAX: usize = 10_000;

/// Something that one who follows a run hears of it.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// A try of a task came into a state.
    Task(Box<ToldTask>),
    /// The run may have ended, or something may have been missed.
    LookNow,
}

/// A run that nobody follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Stranger {
    /// The DAG.
    pub dag_id: String,
    /// The run's id.
    pub run_id: String,
    /// Its state.
    pub state: RunState,
    /// How it came about.
    pub run_type: Option<String>,
    /// Its data interval, where it has one.
    pub interval: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// The request that it was triggered for.
    pub request: Option<RequestId>,
    /// The plan that its DAG was compiled from, where that was told.
    pub plan: Option<PlanHash>,
    /// When it started, or was last taken up again.
    pub started_at: Option<DateTime<Utc>>,
}

/// The runs that are followed.
#[derive(Debug)]
pub(crate) struct Watch {
    followed: Mutex<BTreeMap<Key, Followed>>,
    /// Ended runs by when they had started.
    ended: Mutex<Ended>,
    strangers: mpsc::Sender<Stranger>,
}

type Key = (String, String);

#[derive(Debug)]
struct Followed {
    inbox: mpsc::Sender<Heard>,
    /// When it was last heard of or looked at.
    heard: Instant,
}

#[derive(Debug, Default)]
struct Ended {
    started: HashMap<Key, Option<DateTime<Utc>>>,
    order: std::collections::VecDeque<Key>,
}

/// Follows a run as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    watch: Arc<Watch>,
    key: Key,
    pub(crate) heard: mpsc::Receiver<Heard>,
}

// === impl Watch ===

impl Watch {
    /// Makes a watch that tells of runs that nobody follows.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Stranger>) {
        let (strangers, found) = mpsc::channel(STRANGERS_MAX);
        let watch = Self { followed: Mutex::default(), ended: Mutex::default(), strangers };
        (Arc::new(watch), found)
    }

    /// Follows a run from here on.
    pub(crate) fn follow(self: &Arc<Self>, dag_id: &str, run_id: &str) -> Place {
        let (inbox, heard) = mpsc::channel(HEARD_MAX);
        let key = (dag_id.to_owned(), run_id.to_owned());
        self.followed().insert(key.clone(), Followed { inbox, heard: Instant::now() });
        Place { watch: self.clone(), key, heard }
    }

    /// Passes on what was told to whoever follows the run.
    pub(crate) fn hear(&self, told: Told) {
        let Told { dag_id, run_id, at: _, what } = told;
        let key = (dag_id, run_id);
        let heard = match &what {
            What::Task(task) => Heard::Task(task.clone()),
            What::Run(_) => Heard::LookNow,
        };
        if self.tell(&key, heard) {
            return;
        }
        if let What::Run(run) = what {
            let (dag_id, run_id) = key;
            self.find(Stranger {
                dag_id,
                run_id,
                state: run.state,
                run_type: run.run_type,
                interval: run.interval,
                request: run.request,
                plan: run.plan,
                started_at: run.started_at,
            });
        }
    }

    /// Remembers a run that ended, so that what is still told of it is not taken for another one.
    pub(crate) fn remember(&self, run: &Run) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (run.dag_id.clone(), run.run_id.clone());
        if ended.started.insert(key.clone(), run.start_date).is_none() {
            ended.order.push_back(key);
        }
        while ended.order.len() > ENDED_MAX {
            if let Some(oldest) = ended.order.pop_front() {
                ended.started.remove(&oldest);
            }
        }
    }

    /// Asks Airflow again and again; never ends.
    pub(crate) async fn reconcile(self: Arc<Self>, airflow: Arc<dyn Airflow>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace(Instant::now());
        let mut since = now();
        let mut is_away = false;
        loop {
            rounds.tick().await;
            if self.followed().is_empty() && self.strangers.is_closed() {
                continue;
            }
            let began = now();
            match self.list(&*airflow, since - OVERLAP, &mut pace).await {
                Ok(()) => {
                    since = began;
                    if std::mem::take(&mut is_away) {
                        // What ended meanwhile was listed, and everybody has been silent: they look in turn.
                        tracing::info!("Airflow answers again");
                    }
                }
                Err(error) => {
                    metrics::reconciliation_failed(error.code());
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(%error, "Airflow cannot be asked how its runs are; it is asked again");
                    }
                    continue;
                }
            }
            self.look_in_turn(&mut pace).await;
        }
    }

    /// Lists what ended since, and what runs that nobody follows.
    async fn list(
        &self,
        airflow: &dyn Airflow,
        since: DateTime<Utc>,
        pace: &mut Pace,
    ) -> Result<(), dagwright_airflow::Error> {
        let states = vec![RunState::Success, RunState::Failed, RunState::Running];
        let filter = RunFilter { dag_id: None, updated_at_gte: Some(since), states };
        let mut span = Some(Span::first());
        while let Some(at) = span {
            pace.wait().await;
            let page = airflow.runs(&filter, at).await?;
            metrics::reconciled();
            span = at.after(&page);
            for run in page.items {
                let key = (run.dag_id.clone(), run.run_id.clone());
                let is_followed = self.followed().contains_key(&key);
                match (is_followed, run.state.is_final()) {
                    (true, true) => {
                        self.tell(&key, Heard::LookNow);
                    }
                    (true, false) => {}
                    (false, _) => self.find(Stranger::from(run)),
                }
            }
        }
        Ok(())
    }

    /// Lets those who heard nothing for long look, one after the other.
    async fn look_in_turn(&self, pace: &mut Pace) {
        let now = Instant::now();
        let mut silent: Vec<_> = {
            let followed = self.followed();
            let silent = followed.iter().filter(|(_, followed)| now - followed.heard >= SILENCE);
            silent.map(|(key, followed)| (followed.heard, key.clone())).collect()
        };
        silent.sort();
        // A look is two questions at least, so a round has room for half as many.
        let most = usize::try_from(ROUND.as_millis() / PACE.as_millis() / 2).unwrap_or(1);
        for (_, key) in silent.into_iter().take(most) {
            pace.wait().await;
            pace.wait().await;
            self.tell(&key, Heard::LookNow);
        }
    }

    /// Tells whoever follows a run; returns whether anybody does.
    fn tell(&self, key: &Key, heard: Heard) -> bool {
        let mut followed = self.followed();
        let Some(follower) = followed.get_mut(key) else { return false };
        follower.heard = Instant::now();
        // Full: a look comes in its turn.
        let _ = follower.inbox.try_send(heard);
        true
    }

    /// Passes on a run that nobody follows, unless it is known to be over.
    fn find(&self, stranger: Stranger) {
        let key = (stranger.dag_id.clone(), stranger.run_id.clone());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = ended.started.get(&key).is_some_and(|started| *started == stranger.started_at);
        drop(ended);
        if !is_over {
            // Full: it is found again in the next round.
            let _ = self.strangers.try_send(stranger);
        }
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<Key, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.heard.close();
        let mut followed = self.watch.followed();
        // Somebody else may follow it by now.
        if followed.get(&self.key).is_some_and(|followed| followed.inbox.is_closed()) {
            followed.remove(&self.key);
        }
    }
}

// === impl Stranger ===

impl From<Run> for Stranger {
    fn from(run: Run) -> Self {
        let of_request = |conf: &serde_json::Map<String, serde_json::Value>| {
            conf.get(super::run_id::REQUEST_KEY)?.as_str().map(|id| RequestId(id.into()))
        };
        Self {
            request: run.conf.as_ref().and_then(of_request),
            interval: run.data_interval_start.zip(run.data_interval_end).filter(|(start, end)| start < end),
            dag_id: run.dag_id,
            run_id: run.run_id,
            state: run.state,
            run_type: run.run_type,
            plan: None,
            started_at: run.start_date,
        }
    }
}

/// Spaces questions out.
struct Pace(Instant);

// === impl Pace ===

impl Pace {
    async fn wait(&mut self) {
        sleep_until(self.0).await;
        self.0 = Instant::now() + PACE;
    }
}

#[cfg(not(test))]
fn now() -> DateTime<Utc> {
    std::time::SystemTime::now().into()
}

#[cfg(test)]
use super::simulation::now;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use chrono::{DateTime, Utc};
    use dagwright_airflow::{Run, RunState};
    use tokio::time::Instant;

    use super::{Heard, Pace, Stranger, Watch};
    use crate::airflow::told::{Told, ToldRun, What};

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
}
