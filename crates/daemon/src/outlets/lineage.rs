//! Tells lineage tools of runs: OpenLineage's run events, posted to an API or written to a topic.
//!
//! The event says which run it is of; the ledger says the rest. It is read when the event is told, and what it has forgotten
//! by then is left out.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dagwright_bus::kafka::{Error as BusError, Producer};
use dagwright_model::{
    event::{EventData, EventKind},
    plan::Plan,
    record::{Record, RecordBody, RunEnded, RunStarted},
};
use dagwright_store::{Error as StoreError, Register};
use dagwright_wire::{
    cloudevent::{CloudEvent, Data},
    openlineage::{Known, MEDIA_TYPE, RunEvent, Transition},
};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tokio::time::sleep;

use super::{
    endpoint::{Endpoint, send},
    receiver::Receiver,
    verdict::Verdict,
};

/// How often to look whether the ledger here has what an event tells of, and the pause in between. An event may be faster than
/// the copy of the ledger, by the time that the copy needs to take a transaction in.
const LOOKS_MAX: usize = 50;
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Who is told of runs.
pub(super) struct Lineage {
    register: Arc<dyn Register>,
    namespace: String,
    to: Target,
}

/// Where run events go.
pub(super) enum Target {
    /// To an API, with what shows that we may.
    Api(Endpoint, Option<HeaderValue>),
    /// To a topic.
    Topic(Producer, String),
}

/// What an event says of a run.
struct Told {
    transition: Transition,
    at: DateTime<Utc>,
    /// Which of the request's records it is.
    sequence: u64,
    data: EventData,
}

/// What the ledger says of a run.
#[derive(Default)]
struct Story {
    plan: Option<Plan>,
    known: Known,
    started: Option<Box<RunStarted>>,
    ended: Option<RunEnded>,
}

// === impl Lineage ===

impl Lineage {
    pub(super) fn new(register: Arc<dyn Register>, namespace: String, to: Target) -> Self {
        Self { register, namespace, to }
    }

    /// Reads what the ledger says, as soon as it says what the event tells of.
    async fn story(&self, told: &Arc<Told>) -> Result<Story, String> {
        for _ in 0..LOOKS_MAX {
            let (register, wanted) = (self.register.clone(), told.clone());
            let looked = tokio::task::spawn_blocking(move || look(&*register, &wanted)).await;
            match looked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
                Some(story) => return Ok(story),
                None => sleep(LOOK_AGAIN).await,
            }
        }
        Err("the ledger here is behind the events".into())
    }
}

#[async_trait]
impl Receiver for Lineage {
    async fn tell(&self, event: &CloudEvent) -> Verdict {
        let Some(told) = Told::of(event) else {
            return Verdict::Refused { why: "it does not say which run it is of".into() };
        };
        let told = Arc::new(told);
        let story = match self.story(&told).await {
            Ok(story) => story,
            Err(why) => return Verdict::Away { why, retry_after: None },
        };
        let (started, ended) = (story.started.as_deref(), story.ended.as_ref());
        let run_event = RunEvent {
            namespace: &self.namespace,
            transition: told.transition,
            at: told.at,
            request: &told.data.request_id,
            pipeline: &told.data.pipeline,
            base: started.and_then(|started| started.base.as_deref()),
            interval: started.and_then(|started| started.interval.as_ref()),
            plan: story.plan.as_ref(),
            known: &story.known,
            counts: ended.map(|ended| &ended.counts),
            problem: told.data.error.as_ref(),
        };
        let body = run_event.to_json().to_string().into_bytes();
        let traceparent = event.extensions.get("traceparent");
        match &self.to {
            Target::Api(endpoint, authorization) => {
                let mut post = endpoint.post().header(CONTENT_TYPE, MEDIA_TYPE);
                if let Some(authorization) = authorization {
                    post = post.header(AUTHORIZATION, authorization.clone());
                }
                if let Some(traceparent) = traceparent {
                    post = post.header("traceparent", traceparent);
                }
                send(post.body(body)).await
            }
            Target::Topic(producer, topic) => {
                let mut headers = vec![("content-type".to_owned(), Some(MEDIA_TYPE.into()))];
                headers.extend(traceparent.map(|text| ("traceparent".to_owned(), Some(text.clone().into_bytes()))));
                // As OpenLineage's own clients do: the runs of a job are in one partition, in order.
                let key = format!("run:{}/{}", self.namespace, told.data.pipeline);
                match producer.produce_elsewhere(topic, key.as_bytes(), &body, &headers).await {
                    Ok(_) => Verdict::Delivered,
                    Err(error) => judge(&error),
                }
            }
        }
    }
}

// === impl Told ===

impl Told {
    /// Reads an event of ours.
    fn of(event: &CloudEvent) -> Option<Self> {
        let kind = EventKind::ALL.iter().find(|kind| kind.type_name() == event.kind)?;
        let Some(Data::Json(text)) = &event.data else { return None };
        Some(Self {
            transition: Transition::of(*kind)?,
            at: event.time?,
            sequence: event.extensions.get("sequence")?.parse().ok()?,
            data: serde_json::from_str(text.as_str()).ok()?,
        })
    }
}

/// Reads what the ledger says of a run; `None` where it has not heard of it yet. A request that it does not know, it has
/// forgotten.
fn look(register: &dyn Register, told: &Told) -> Result<Option<Story>, StoreError> {
    register.catch_up(Some(&told.data.pipeline))?;
    let records = register.read(&told.data.request_id, 0)?;
    if records.last().is_some_and(|last| last.sequence < told.sequence) {
        return Ok(None);
    }
    let (mut story, mut hash, mut from) = (Story::default(), told.data.plan_hash.clone(), None);
    for record in &records {
        // What comes after the event is not told by it.
        if record.sequence > told.sequence {
            break;
        }
        match &record.body {
            RecordBody::PlanReused(reused) => from = Some(reused.from.clone()),
            RecordBody::RunStarted(started) => {
                hash = Some(started.plan_hash.clone());
                story.started = Some(started.clone());
            }
            RecordBody::RunEnded(ended) => story.ended = Some(ended.clone()),
            _ => {}
        }
    }
    story.plan = hash.map(|hash| register.plan(&hash)).transpose()?.flatten();
    let agreed: Vec<Record> = match from {
        Some(from) => register.read(&from, 0)?,
        None => Vec::new(),
    };
    story.known = Known::of(agreed.iter().chain(&records));
    Ok(Some(story))
}

/// Says what a failure to write says.
fn judge(error: &BusError) -> Verdict {
    let why = error.to_string();
    match error {
        BusError::TooLarge { .. } => Verdict::Refused { why },
        error if error.is_retryable() => Verdict::Away { why, retry_after: None },
        _ => Verdict::Unfit { why },
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        event::{self, Event, Subject},
        id::{PlanHash, RequestId},
        record::{Record, RecordBody},
    };
    use dagwright_store::{MemoryStore, Store};
    use dagwright_wire::{cloudevent, openlineage::Transition};
    use serde_json::{Value, json};

    use super::{Told, look};

    fn record(sequence: u64, body: Value) -> Record {
        let body: RecordBody = serde_json::from_value(body).expect("a record");
        Record { request: RequestId("r".into()), sequence, at: 1_735_700_400_125, body }
    }

    fn started() -> Record {
        let hash = "ab".repeat(32);
        let interval = json!({ "start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z" });
        let body = json!({
            "record": "run_started", "plan_hash": hash, "effect": "r", "generation": 0, "base": "/base", "staging": "s",
            "quarantine": "q", "interval": interval,
        });
        record(2, body)
    }

    fn event(record: &Record) -> Event {
        let plan = PlanHash("ab".repeat(32));
        let subject = Subject { pipeline: "p", plan: Some(&plan), runs: true, dag_run: None, traceparent: None };
        event::of(subject, record).expect("an event")
    }

    fn told(record: &Record) -> Option<Told> {
        Told::of(&cloudevent::of_event(&event(record)))
    }

    #[test]
    fn the_ledger_says_what_an_event_leaves_out() {
        let (store, told) = (MemoryStore::default(), told(&started()).expect("a run"));
        assert_eq!((told.transition, told.sequence), (Transition::Start, 2));
        let forgotten = look(&store, &told).expect("read").expect("what is forgotten is not waited for");
        assert!(forgotten.started.is_none() && forgotten.plan.is_none());

        let accepted = json!({
            "record": "accepted", "pipeline": "p", "spec_text": "pipeline: p\n", "spec_hash": "0".repeat(64),
            "ingress": "http", "purpose": "run", "base": null,
        });
        let reused = json!({ "record": "plan_reused", "hash": "ab".repeat(32), "from": "r" });
        store.append(&[record(0, accepted), record(1, reused)]).expect("appends");
        assert!(look(&store, &told).expect("read").is_none(), "the copy of the ledger is behind");

        store.append(&[started()]).expect("appends");
        let ended = record(3, json!({ "record": "run_ended", "status": "succeeded", "problem": null }));
        store.append(&[ended]).expect("appends");
        let story = look(&store, &told).expect("read").expect("known");
        assert_eq!(story.started.expect("started").base.as_deref(), Some("/base"));
        assert!(story.ended.is_none(), "it had not ended when this happened");
    }

    #[test]
    fn only_what_happens_to_runs_is_told() {
        let ended = |status: &str| record(3, json!({ "record": "run_ended", "status": status, "problem": null }));
        let transition = |record: &Record| told(record).map(|told| told.transition);
        assert_eq!(transition(&ended("succeeded")), Some(Transition::Complete));
        assert_eq!(transition(&ended("failed")), Some(Transition::Fail));
        assert_eq!(transition(&ended("cancelled")), Some(Transition::Abort));
        let compiled = json!({
            "record": "dag_compiled", "plan_hash": "ab".repeat(32), "target": "airflow3", "file": "p.py", "file_hash": "0",
        });
        assert_eq!(transition(&record(3, compiled)), None);
    }
}
