//! Adopts runs that nobody asked us for: those that a schedule, an asset or a person started in Airflow, and those that were
//! cleared there after they had ended. Each becomes a request that follows the run, so that what becomes of it stands in the
//! ledger and is told to the outside like any other.
//!
//! A run is known by its DAG, its id, and when it started: a cleared run starts anew, and is another request. Whoever finds
//! it first, and however often, makes the same one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use dagwright_engine::airflow::{run_id, watch::Stranger};
use dagwright_model::{
    code::Code,
    id::RequestId,
    record::{Accepted, EventIdentity, Followed, Ingress, Purpose, RecordBody},
    spec::Interval,
};
use dagwright_store::{Error as StoreError, Register};
use tokio::{sync::mpsc, time::sleep};

use super::{Refused, Service, blocking};

/// How long it is waited before a run is taken on that there was no room for.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// By how much the clocks of Airflow and of this process may differ.
const CLOCKS_MS: u64 = 60_000;

impl Service {
    /// Adopts runs as they are found, until nobody is left who finds any.
    pub async fn adopt_all(self, mut strangers: mpsc::Receiver<Stranger>) {
        while let Some(stranger) = strangers.recv().await {
            let (dag_id, run_id) = (stranger.dag_id.clone(), stranger.run_id.clone());
            loop {
                match self.adopt(stranger.clone()).await {
                    Ok(true) => tracing::info!(dag_id, run_id, "follows a run that Airflow started"),
                    Ok(false) => {}
                    // Those of the past are found once, and the others would be refused as well.
                    Err(error) if is_overloaded(&error) => {
                        tracing::debug!(dag_id, run_id, "a run that Airflow started waits until there is room");
                        sleep(ROOM_WAIT).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(dag_id, run_id, %error, "could not take on a run that Airflow started");
                    }
                }
                break;
            }
        }
    }

    /// Adopts a run, if it is of a pipeline of ours and nobody follows it; returns whether that is news.
    async fn adopt(&self, stranger: Stranger) -> Result<bool, Refused> {
        let register = self.shared.resources.register.clone();
        let found = blocking(move || acceptance(&*register, &stranger)).await;
        let Some((request, accepted)) = found.map_err(|error| self.shared.refused(error))? else { return Ok(false) };
        Ok(self.submit(request, accepted).await? == super::Submitted::Accepted)
    }
}

/// Returns the request that follows a run; `None` when the run is none of ours, or is followed.
fn acceptance(register: &dyn Register, stranger: &Stranger) -> Result<Option<(RequestId, Accepted)>, StoreError> {
    let Some(started_at) = stranger.started_at else { return Ok(None) };
    let Some(pipeline) = register.pipeline(&stranger.dag_id)? else { return Ok(None) };
    if !register.acts_for(&stranger.dag_id) {
        return Ok(None);
    }
    let of_request = stranger.request.clone().filter(|request| run_id::is_of(&stranger.run_id, request));
    if let Some(request) = &of_request {
        // Its own request follows it until it ends; after that it is news when somebody clears it, and what is over by now is
        // when it started anew later than its request ended.
        let is_news = match register.request(request)? {
            Some(summary) if !summary.state.is_final() => false,
            Some(summary) => !stranger.state.is_final() || is_later(started_at, summary.changed_at),
            None => !stranger.state.is_final(),
        };
        if !is_news {
            return Ok(None);
        }
    }
    let id = format!("{}@{}", stranger.run_id, started_at.to_rfc3339());
    let request = RequestId::derive(&stranger.dag_id, EventIdentity::AIRFLOW, &id);
    if register.request(&request)?.is_some() {
        return Ok(None);
    }
    // What was deployed last; a listener tells exactly.
    let latest = pipeline.ran.iter().chain(&pipeline.applied).map(|request| register.request(request));
    let mut latest = latest.collect::<Result<Vec<_>, _>>()?;
    latest.sort_by_key(|summary| summary.as_ref().map(|summary| summary.accepted_at));
    let Some(latest) = latest.into_iter().flatten().next_back() else { return Ok(None) };
    let Some(plan) = stranger.plan.clone().or(latest.plan) else { return Ok(None) };
    let Some(RecordBody::Accepted(template)) = register.read(&latest.request, 0)?.into_iter().next().map(|r| r.body)
    else {
        return Ok(None);
    };
    let interval = stranger.interval.map(|(start, end)| Interval { start: start.to_rfc3339(), end: end.to_rfc3339() });
    let accepted = Accepted {
        ingress: Ingress::Airflow,
        purpose: Purpose::Run,
        interval,
        backfill: stranger.run_type.as_deref() == Some("backfill"),
        revision: None,
        identity: Some(EventIdentity { source: EventIdentity::AIRFLOW.into(), id }),
        requester: None,
        traceparent: None,
        follows: Some(Followed { dag_run: stranger.run_id.clone(), plan }),
        ..*template
    };
    Ok(Some((request, accepted)))
}

fn is_later(started_at: DateTime<Utc>, changed_at: u64) -> bool {
    u64::try_from(started_at.timestamp_millis()).is_ok_and(|started_at| started_at > changed_at + CLOCKS_MS)
}

fn is_overloaded(error: &Refused) -> bool {
    matches!(error, Refused::Problem(problem) if problem.code == Code::Overloaded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::{DateTime, Utc};
    use dagwright_engine::airflow::{run_id, watch::Stranger};
    use dagwright_model::{
        id::{PlanHash, RequestId},
        record::{Accepted, Ingress, Purpose, Record, RecordBody, RunEnded, RunStarted},
        task::{Counts, Status},
    };
    use dagwright_store::{MemoryStore, Register, Store};

    use super::acceptance;

    fn hash() -> PlanHash {
        PlanHash("ab".repeat(32))
    }

    /// A ledger in which a request of `p` ran, up to its end or not.
    fn ledger(ended: bool) -> MemoryStore {
        ledger_at(ended, 0)
    }

    /// The same, whose records were made at a time.
    fn ledger_at(ended: bool, at: u64) -> MemoryStore {
        let store = MemoryStore::default();
        let accepted = Accepted {
            pipeline: "p".into(),
            spec_text: "pipeline: p\n".into(),
            spec_hash: "0".repeat(64),
            ingress: Ingress::Http,
            purpose: Purpose::Run,
            base: None,
            params: BTreeMap::new(),
            interval: None,
            backfill: false,
            revision: None,
            identity: None,
            requester: Some("ann".into()),
            traceparent: None,
            follows: None,
        };
        let started = RunStarted {
            plan_hash: hash(),
            effect: "r".into(),
            generation: 0,
            base: None,
            staging: "staging".into(),
            quarantine: "quarantine".into(),
            interval: None,
            params: BTreeMap::new(),
            backfill: false,
            keep_staged: false,
            dag_run: Some(run_id::of(&request(), 1)),
            version: 1,
        };
        let reused = dagwright_model::record::PlanReused { hash: hash(), from: request() };
        let mut bodies = vec![
            RecordBody::Accepted(Box::new(accepted)),
            RecordBody::PlanReused(reused),
            RecordBody::RunStarted(Box::new(started)),
        ];
        if ended {
            let counts = Counts::default();
            bodies.push(RecordBody::RunEnded(RunEnded {
                status: Status::Succeeded,
                problem: None,
                counts,
                setback: None,
            }));
        }
        let records: Vec<_> = bodies
            .into_iter()
            .zip(0..)
            .map(|(body, sequence)| Record { request: request(), sequence, at, body })
            .collect();
        store.append(&records).expect("appends");
        store
    }

    fn request() -> RequestId {
        RequestId("r".into())
    }

    fn at(second: u32) -> Option<DateTime<Utc>> {
        Some(format!("2025-01-01T00:00:{second:02}Z").parse().expect("an instant"))
    }

    fn stranger(run_id: &str, state: &str, request: Option<RequestId>) -> Stranger {
        Stranger {
            dag_id: "p".into(),
            run_id: run_id.into(),
            state: state.to_owned().into(),
            run_type: Some("scheduled".into()),
            interval: at(0).zip(at(9)),
            request,
            plan: None,
            started_at: at(10),
        }
    }

    #[test]
    fn a_run_of_the_schedule_is_adopted_once() {
        let store = ledger(true);
        let found = stranger("scheduled__1", "running", None);
        let (request, accepted) = acceptance(&store, &found).expect("reads").expect("news");
        assert_eq!((accepted.ingress, accepted.requester.clone()), (Ingress::Airflow, None));
        let followed = accepted.follows.clone().expect("a run");
        assert_eq!((followed.dag_run.as_str(), followed.plan), ("scheduled__1", hash()));
        assert_eq!(accepted.interval.clone().expect("an interval").start, "2025-01-01T00:00:00+00:00");
        let record =
            Record { request: request.clone(), sequence: 0, at: 1, body: RecordBody::Accepted(Box::new(accepted)) };
        store.append(&[record]).expect("appends");
        for state in ["running", "success", "failed"] {
            assert_eq!(acceptance(&store, &stranger("scheduled__1", state, None)).expect("reads"), None);
        }
        // Cleared, it starts anew.
        let cleared = Stranger { started_at: at(20), ..found };
        assert_ne!(acceptance(&store, &cleared).expect("reads").expect("news").0, request);
    }

    #[test]
    fn the_run_of_a_request_is_adopted_when_it_is_cleared_after_its_end() {
        let own = run_id::of(&request(), 1);
        // It started at 10 s, and its request ended at 20 s by another clock.
        let began = u64::try_from(at(0).expect("an instant").timestamp_millis()).expect("after 1970");
        let store = |ended| ledger_at(ended, began + 20_000);
        let news =
            |ended, state| acceptance(&store(ended), &stranger(&own, state, Some(request()))).expect("reads").is_some();
        assert!(!news(false, "running") && !news(false, "success"), "it is followed");
        assert!(!news(true, "success"), "it has just ended");
        assert!(news(true, "running"), "somebody cleared it");
        // Cleared and over while nobody looked.
        let later = at(0).map(|at| at + chrono::TimeDelta::seconds(90));
        let over = Stranger { started_at: later, ..stranger(&own, "success", Some(request())) };
        assert!(acceptance(&store(true), &over).expect("reads").is_some());
        assert!(acceptance(&store(false), &over).expect("reads").is_none(), "it is followed");
        // Whatever a run's conf says, it is that of a request only by its name.
        let other = acceptance(&ledger(true), &stranger("manual__1", "success", Some(request())));
        assert!(other.expect("reads").is_some());
    }

    #[test]
    fn what_is_none_of_ours_is_left_alone() {
        let store = ledger(true);
        let of_others = Stranger { dag_id: "q".into(), ..stranger("scheduled__1", "running", None) };
        assert_eq!(acceptance(&store, &of_others).expect("reads"), None);
        let unstarted = Stranger { started_at: None, ..stranger("scheduled__1", "queued", None) };
        assert_eq!(acceptance(&store, &unstarted).expect("reads"), None);
        assert!(store.pipeline("q").expect("reads").is_none());
    }
}
