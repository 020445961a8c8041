//! Who follows which run, and what is asked of Airflow so that no end is missed.
//!
//! Events make it quick, this makes it certain: runs that ended lately are listed again and again, whoever told of them or
//! did not, and each run that is followed is looked at in turn. All of that together stays within a pace, however many runs
//! are followed, since it is other people's Airflow too.

mod past;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use dagwright_airflow::{Airflow, Run, RunFilter, RunState, Span};
use dagwright_model::id::{PlanHash, RequestId};
use dagwright_store::Register;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::past::{PAGES_A_ROUND, Past};
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
    /// Whether this process acts for more pipelines than when it last looked back.
    took_over: AtomicBool,
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
        let watch =
            Self { followed: Mutex::default(), ended: Mutex::default(), strangers, took_over: AtomicBool::new(false) };
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

    /// Has the next round begin to look for what happened before to pipelines that this process acts for now.
    pub(crate) fn took_over(&self) {
        self.took_over.store(true, Ordering::Release);
    }

    /// Asks Airflow again and again; never ends. What happened while no process listed is looked for up to `look_back` ago.
    pub(crate) async fn reconcile(
        self: Arc<Self>,
        airflow: Arc<dyn Airflow>,
        register: Arc<dyn Register>,
        look_back: TimeDelta,
    ) {
        let mut past = Past::open(register, look_back).await;
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
            if self.took_over.swap(false, Ordering::AcqRel) {
                past.begin(now());
            }
            if let Err(error) = self.list_past(&*airflow, &mut past, &mut pace).await {
                // The same page is asked for again.
                metrics::reconciliation_failed(error.code());
                tracing::debug!(%error, "runs that ended meanwhile could not be listed");
            }
            past.keep(since).await;
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
                // Full: it is found again in the next round.
                let _ = self.take(run);
            }
        }
        Ok(())
    }

    /// Lists some of what is left of the past, as far as there is room for what is found.
    async fn list_past(
        &self,
        airflow: &dyn Airflow,
        past: &mut Past,
        pace: &mut Pace,
    ) -> Result<(), dagwright_airflow::Error> {
        for _ in 0..PAGES_A_ROUND {
            let Some((filter, at)) = past.next(self.strangers.capacity()) else { return Ok(()) };
            pace.wait().await;
            let page = airflow.runs(&filter, at).await?;
            metrics::reconciled();
            let then = at.after(&page);
            if !page.items.into_iter().all(|run| self.take(run)) {
                // Events took the room: the page is listed again.
                return Ok(());
            }
            past.listed(then);
        }
        Ok(())
    }

    /// Passes on a run that was listed, to whoever follows it, or as a stranger; returns whether there was room.
    fn take(&self, run: Run) -> bool {
        let key = (run.dag_id.clone(), run.run_id.clone());
        let is_followed = self.followed().contains_key(&key);
        match (is_followed, run.state.is_final()) {
            (true, true) => self.tell(&key, Heard::LookNow),
            (true, false) => true,
            (false, _) => self.find(Stranger::from(run)),
        }
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

    /// Passes on a run that nobody follows, unless it is known to be over; returns whether there was room.
    fn find(&self, stranger: Stranger) -> bool {
        let key = (stranger.dag_id.clone(), stranger.run_id.clone());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = ended.started.get(&key).is_some_and(|started| *started == stranger.started_at);
        drop(ended);
        // Where nobody adopts runs, there is nobody who misses them.
        is_over || !matches!(self.strangers.try_send(stranger), Err(TrySendError::Full(_)))
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
