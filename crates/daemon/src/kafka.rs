//! Kafka as ingress and ledger: joins the group, admits what its topics bring, and acts for the pipelines of the
//! partitions that are assigned.
//!
//! A message is done with once one transaction holds what came of it and its offset: the acceptance with its event, the
//! message itself at its pipeline's home, or a dead letter, with the event that tells of it where it is known of which
//! pipeline. So each has one outcome, whoever reads it how often.

mod accepting;
mod note;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use dagwright_agents::{
    Service,
    shared_ledger::{Feed, SharedLedger, told},
};
use dagwright_bus::kafka::{
    Commit, CommitError, Committer, Destination, Instance, Outgoing, Owned, Ownership, Producer, Received, Requests,
    Settings, Stats, Topics,
};
use dagwright_model::{
    code::Code,
    event::{self, Refusal},
    id::RequestId,
    record::{Accepted, EventIdentity, Ingress, Record, RecordBody},
    request::Request,
    task::Problem,
};
use dagwright_store::{Cache, Error as StoreError, Store as _};
use dagwright_wire::{
    cloudevent::{self, Binding, Message},
    request,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde_json::json;
use tokio::sync::watch;

use self::{accepting::Accepting, note::Note};
use crate::{
    admission::{Admission, Admitted, Rejected, Requester, pipeline_of},
    config::{Config, Scope},
};

/// Names the caller of HTTP for whom a request was handed on.
const REQUESTER: &str = "dagwright-requester";

/// What is said of a request that was read from one topic and does not fit into another.
const TOO_LARGE: &str = "what is to be written of the request is longer than a topic's max.message.bytes allows";

/// How many messages may be on their way into a transaction; more only wait longer.
const COMMITTING_MAX: usize = 512;

/// How much of each part of a reason an event tells; it may quote what somebody sent.
const TOLD_BYTES_MAX: usize = 2 << 10;

/// How long the group is given to take over what this instance leaves.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// This process's part in the group.
pub(crate) struct Station {
    pub(crate) ledger: SharedLedger,
    pub(crate) producer: Producer,
    pub(crate) stats: Arc<Stats>,
    instance: Instance,
    requests: Requests,
    topics: Topics,
}

/// What becomes of a message.
struct Decision {
    commit: Commit,
    /// The acceptance that the commit holds.
    accepted: Option<Record>,
    note: Note,
}

/// What came of a decision.
struct Outcome {
    committed: Result<(), CommitError>,
    accepted: Option<Record>,
    /// The request that was to be accepted, and the epoch of the ownership on which that rests.
    accepting: Option<(RequestId, u64)>,
    note: Note,
}

/// Reads messages and decides about them.
struct Desk {
    config: Arc<Config>,
    admission: Arc<Admission>,
    ledger: SharedLedger,
    topics: Topics,
    accepting: Accepting,
}

// === impl Station ===

impl Station {
    /// Makes the topics that are missing and joins the group.
    pub(crate) async fn join(config: &Config, cache: Arc<dyn Cache>) -> Result<Self> {
        let settings = settings(config);
        let topics = Topics::ensure(&settings).await?;
        let feed = Feed::new(cache.clone(), topics.clone());
        let stats = Arc::new(Stats::default());
        dagwright_bus::metrics::observe(&stats, &topics);
        let (instance, requests) = Instance::start(settings.clone(), topics.clone(), feed, stats.clone()).await?;
        let ledger = SharedLedger::new(cache, instance.committer(), instance.owned(), topics.clone());
        let producer = Producer::new(&settings, topics.clone()).await?;
        Ok(Self { ledger, producer, stats, instance, requests, topics })
    }

    /// Returns the topics.
    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Takes requests and acts for what is assigned until `stop`, or until the instance fails.
    pub(crate) async fn work(
        self,
        config: Arc<Config>,
        admission: Arc<Admission>,
        service: Service,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let Self { ledger, producer: _, stats: _, instance, requests, topics } = self;
        let desk = Desk { config, admission, ledger, topics: topics.clone(), accepting: Accepting::default() };
        let mut failure = instance.failure();
        let ended = tokio::select! {
            ended = take(requests, desk, instance.committer(), service.clone()) => ended,
            ended = follow_ownership(instance.owned(), topics, service) => ended,
            failed = failure.wait_for(Option::is_some) => match failed.ok().and_then(|failed| failed.clone()) {
                Some(error) => Err(anyhow::Error::new(error).context("kafka cannot be used any longer")),
                None => Ok(()),
            },
            () = stop => Ok(()),
        };
        if tokio::time::timeout(CLOSE_MAX, instance.close()).await.is_err() {
            tracing::warn!("left the group without its word");
        }
        ended
    }
}

/// Takes one message after the other; what was decided goes into transactions together.
async fn take(mut requests: Requests, mut desk: Desk, committer: Committer, service: Service) -> Result<()> {
    let mut committing: FuturesOrdered<BoxFuture<'static, Outcome>> = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(outcome) = committing.next() => {
                let Outcome { committed, accepted, accepting, note } = outcome;
                if let Some((request, epoch)) = accepting {
                    desk.accepting.end(&request, epoch);
                }
                if committed.is_ok() {
                    note.tell();
                }
                match (committed, accepted) {
                    (Ok(()), Some(record)) => desk.take_on(record, &service).await?,
                    (Ok(()), None) => {}
                    (Err(CommitError::TooLarge), _) => {
                        tracing::warn!("what was to be written of a message was too long, so it is a dead letter");
                    }
                    // It comes again, here or elsewhere.
                    (Err(error), _) => tracing::info!(%error, "a message was not done with"),
                }
            }
            received = requests.next(), if committing.len() < COMMITTING_MAX => {
                let Some(mut received) = received else { return Ok(()) };
                // Held until the commit has its outcome, so that what waits for that is bounded as well.
                let room = received.take_room();
                let decision = desk.decide(received).await?;
                let epoch = decision.commit.ownership.epoch();
                let accepting = decision.accepted.as_ref().map(|record| (record.request.clone(), epoch));
                // In the order in which they came; what becomes of them is heard later.
                let submitted = committer.submit(decision.commit).await;
                committing.push_back(Box::pin(async move {
                    let committed = match submitted {
                        Ok(outcome) => outcome.visible().await,
                        Err(error) => Err(error),
                    };
                    drop(room);
                    Outcome { committed, accepted: decision.accepted, accepting, note: decision.note }
                }));
            }
        }
    }
}

/// Goes on with what is open where a partition was won, and stops where one was lost.
async fn follow_ownership(mut owned: watch::Receiver<Arc<Owned>>, topics: Topics, service: Service) -> Result<()> {
    let mut acting: BTreeMap<i32, Ownership> = BTreeMap::new();
    loop {
        let now: BTreeMap<i32, Ownership> = owned
            .borrow_and_update()
            .iter()
            .filter(|((topic, _), _)| **topic == *topics.requests)
            .map(|((_, partition), ownership)| (*partition, ownership.clone()))
            .collect();
        let is_same = |partition: &i32, ownership: &Ownership| acting.get(partition) == Some(ownership);
        let lost: HashSet<i32> = acting
            .iter()
            .filter(|(partition, ownership)| now.get(partition) != Some(ownership))
            .map(|(partition, _)| *partition)
            .collect();
        let won: HashSet<i32> = now
            .iter()
            .filter(|(partition, ownership)| !is_same(partition, ownership))
            .map(|(partition, _)| *partition)
            .collect();
        if !lost.is_empty() {
            tracing::info!(partitions = ?lost, "lost partitions");
            let topics = topics.clone();
            service.release(move |pipeline| lost.contains(&topics.home(pipeline))).await;
        }
        if !won.is_empty() {
            tracing::info!(partitions = ?won, "acting for partitions");
            service.go_on(|pipeline| won.contains(&topics.home(pipeline))).await?;
        }
        acting = now;
        owned.changed().await.context("left the group")?;
    }
}

// === impl Desk ===

impl Desk {
    /// Decides what becomes of a message.
    async fn decide(&mut self, received: Received) -> Result<Decision> {
        let requester = self.requester(&received);
        let mut note = Note::of(&received, requester.name.as_deref());
        let (ownership, consumed) = (&received.ownership, Some(received.offset));
        let done = |records, note| Decision {
            commit: Commit { ownership: ownership.clone(), consumed, records, otherwise: None },
            accepted: None,
            note,
        };
        let too_large = || vec![received.dead_letter(Code::RequestTooLarge, TOO_LARGE)];
        let buried =
            |code, reason: &str, note: Note| done(vec![received.dead_letter(code, reason)], note.refused(code));
        if !received.headers_readable {
            return Ok(buried(Code::RequestInvalid, "a header's name is not text", note));
        }
        let headers: Vec<(&str, &[u8])> =
            received.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
        let body = received.value.as_deref().unwrap_or_default();
        let read = match request::decode(Message { binding: Binding::Kafka, headers: &headers, body }) {
            Ok(read) => read,
            Err(error) => return Ok(buried(error.code(), &error.to_string(), note)),
        };
        // Without a name it is the record that it is, or that it was first: to replay it twice is to send one request.
        let place = || {
            let place = received.replay_of().unwrap_or_else(|| received.place());
            EventIdentity {
                source: format!("/kafka/{}", place.topic),
                id: format!("{}/{}", place.partition, place.offset),
            }
        };
        let identity = read.identity.unwrap_or_else(place);
        let name = requester.name.clone();
        let (admission, known) = (self.admission.clone(), identity.clone());
        let (request, traceparent) = (read.request, read.traceparent.clone());
        note.entry.action = request.action.as_str().into();
        note.entry.traced(traceparent.as_deref());
        let admitted = tokio::task::spawn_blocking(move || {
            let admitted = admission.admit(&request, known, traceparent, &requester);
            admitted.map_err(|rejected| (rejected, pipeline_of(&request)))
        });
        let Admitted { request, accepted } = match admitted.await.context("admission ended")? {
            Ok(admitted) => admitted,
            Err((Rejected::Store(error), _)) => return Err(error.into()),
            Err((rejected, pipeline)) => {
                let (code, reason) = rejected.reason();
                let letter = received.dead_letter(code, &reason);
                let Some(pipeline) = pipeline else { return Ok(done(vec![letter], note.refused(code))) };
                let request = RequestId::derive(&pipeline, &identity.source, &identity.id);
                (note.entry.request_id, note.entry.pipeline) = (Some(request.0.clone()), Some(pipeline.clone()));
                if self.is_taken_on(request, received.ownership.epoch()).await? {
                    // A repeat of what was fine when it came: that one has its outcome.
                    return Ok(done(Vec::new(), note.repeated()));
                }
                let refused = event::refused(Refusal {
                    pipeline: &pipeline,
                    identity: &identity,
                    attempt: received.attempt(),
                    at: now_ms(),
                    traceparent: read.traceparent.as_deref(),
                    problem: in_short(rejected.problem()),
                });
                return Ok(done(vec![letter, told(&refused)], note.refused(code)));
            }
        };
        (note.entry.request_id, note.entry.pipeline) = (Some(request.0.clone()), Some(accepted.pipeline.clone()));
        note.entry.traced(accepted.traceparent.as_deref());
        let is_at_home = received.ownership.topic() == self.topics.requests
            && received.ownership.partition() == self.topics.home(&accepted.pipeline);
        if !is_at_home {
            let mut forwarded = received.forward(&accepted.pipeline);
            if received.ownership.topic() != self.topics.requests {
                // Only on our own topic it is believed, so there must be nothing that somebody else wrote.
                forwarded.headers.retain(|(header, _)| header != REQUESTER);
                forwarded.headers.push((REQUESTER.into(), name.map(String::into_bytes)));
            }
            let mut decision = done(vec![forwarded], note);
            decision.commit.otherwise = Some(too_large());
            return Ok(decision);
        }
        let epoch = received.ownership.epoch();
        if self.accepting.contains(&request, epoch) {
            return Ok(done(Vec::new(), note.repeated()));
        }
        let at = now_ms();
        let body = RecordBody::Accepted(Box::new(accepted));
        let record = Record { request: request.clone(), sequence: 0, at, body };
        let (ledger, copy) = (self.ledger.clone(), record.clone());
        let records = tokio::task::spawn_blocking(move || ledger.acceptance(&copy)).await.context("the cache ended")?;
        match records {
            Ok(records) => {
                self.accepting.begin(request, epoch);
                let mut decision = done(records, note.accepted());
                (decision.accepted, decision.commit.otherwise) = (Some(record), Some(too_large()));
                Ok(decision)
            }
            // A repeat: the first one has its outcome.
            Err(StoreError::Conflict { .. }) => Ok(done(Vec::new(), note.repeated())),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether a request was taken on, or is about to be.
    async fn is_taken_on(&self, request: RequestId, epoch: u64) -> Result<bool> {
        if self.accepting.contains(&request, epoch) {
            return Ok(true);
        }
        let ledger = self.ledger.clone();
        let known = tokio::task::spawn_blocking(move || ledger.request(&request)).await.context("the cache ended")?;
        Ok(known?.is_some())
    }

    /// Goes on with a request whose acceptance was committed.
    async fn take_on(&self, record: Record, service: &Service) -> Result<()> {
        let RecordBody::Accepted(accepted) = &record.body else { return Ok(()) };
        let (pipeline, purpose, request) = (accepted.pipeline.clone(), accepted.purpose, record.request.clone());
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.accepted(&record)).await.context("the cache ended")??;
        service.take_on(pipeline, request, purpose).await;
        Ok(())
    }

    /// Says who sent a message, as far as that is known: HTTP names its callers on our own topic, which is ours to trust.
    fn requester(&self, received: &Received) -> Requester {
        let topic = received.ownership.topic();
        let named = received.header(REQUESTER).filter(|_| topic == self.topics.requests);
        let named = named.and_then(|name| str::from_utf8(name).ok()).map(Into::into);
        let rule = self.config.kafka.ingress.iter().find(|rule| rule.topic == topic);
        Requester {
            ingress: Ingress::Kafka,
            name: named.or_else(|| Some(format!("kafka:{topic}"))),
            namespaces: rule.and_then(|rule| rule.namespaces.clone()),
            may_operate: rule.is_none_or(|rule| rule.scopes.contains(&Scope::Operate)),
        }
    }
}

/// Returns the record with which HTTP hands a request to whoever acts for its pipeline.
pub(crate) fn handed_on(accepted: &Accepted, asked: &Request, requester: Option<&str>) -> Outgoing {
    let mut event = json!({
        "specversion": "1.0",
        "type": request::REQUESTED,
        "datacontenttype": "application/json",
        "data": asked,
    });
    if let Some(EventIdentity { source, id }) = &accepted.identity {
        (event["source"], event["id"]) = (source.as_str().into(), id.as_str().into());
    }
    if let Some(traceparent) = &accepted.traceparent {
        event["traceparent"] = traceparent.as_str().into();
    }
    let mut record = Outgoing::new(Destination::Requests, accepted.pipeline.as_str(), event.to_string());
    record.headers.push(("content-type".into(), Some(cloudevent::STRUCTURED_JSON.into())));
    if let Some(requester) = requester {
        record.headers.push((REQUESTER.into(), Some(requester.into())));
    }
    record
}

/// Returns what the bus is told of the settings.
pub(crate) fn settings(config: &Config) -> Settings {
    let kafka = &config.kafka;
    let mut settings = Settings::new(&kafka.brokers, instance_name(&kafka.instance));
    settings.prefix.clone_from(&kafka.prefix);
    settings.group.clone_from(&kafka.group);
    settings.partitions = kafka.partitions;
    settings.replication = (kafka.replication > 0).then_some(kafka.replication);
    let kept = config.retention.events.0;
    settings.events_retention_ms = Some(if kept == 0 { "-1".into() } else { kept.to_string() });
    settings.ingress = kafka.ingress.iter().map(|rule| rule.topic.clone()).collect();
    settings.properties = kafka.flat_properties();
    settings
}

/// Returns a problem with no more of what somebody sent than an event has room for.
fn in_short(mut problem: Problem) -> Problem {
    for text in [&mut problem.subject, &mut problem.message, &mut problem.hint] {
        if text.len() > TOLD_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TOLD_BYTES_MAX));
            text.push('…');
        }
    }
    problem
}

/// Returns the configured name, or the machine's.
fn instance_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = machine.trim().chars().filter(|it| it.is_ascii_alphanumeric() || "-_.".contains(*it)).collect();
    if name.is_empty() { "dagwright".into() } else { name }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
