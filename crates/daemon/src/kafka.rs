//! Kafka as ingress and ledger: joins the group, admits what its topics bring, and acts for the pipelines of the
//! partitions that are assigned.
//!
//! A message is done with once one transaction holds what came of it and its offset: the acceptance with its event, what
//! is asked of whoever acts for its pipeline, or a dead letter, with the event that tells of it where it is known of which
//! pipeline. So each has one outcome, whoever reads it how often.
//!
//! What is asked of this instance stands in the ledger too, whose topic only instances write to: that a requester is who
//! it says was checked where the request came in. Nothing in a message says who sent it but the topic that it is in.

mod accepting;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use dagwright_agents::{
    Service,
    shared_ledger::{Feed, Heard, SharedLedger, told},
};
use dagwright_bus::kafka::{
    Commit, CommitError, Committer, Instance, Outgoing, Owned, Ownership, Producer, Received, Requests, Settings,
    Stats, Topics,
};
use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    code::Code,
    event::{self, Refusal},
    id::RequestId,
    record::{Accepted, EventIdentity, Ingress, Record, RecordBody},
    task::Problem,
};
use dagwright_store::{Cache, Error as StoreError, Register, Store};
use dagwright_wire::{
    cloudevent::{Binding, Message},
    request,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::watch;

use self::accepting::Accepting;
use crate::{
    admission::{Admission, Admitted, Rejected, Requester, pipeline_of},
    audit::{Came, Line},
    config::{Config, Scope},
};

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
    pub(crate) stats: Arc<Stats>,
    heard: Heard,
    instance: Instance,
    requests: Requests,
    topics: Topics,
}

/// What becomes of a message.
struct Decision {
    commit: Commit,
    /// The acceptance that the commit holds.
    accepted: Option<Record>,
    /// What is written down of it.
    line: Line,
}

/// What came of a decision.
struct Outcome {
    committed: Result<(), CommitError>,
    accepted: Option<Record>,
    /// The request that was to be accepted, and the epoch of the ownership on which that rests.
    accepting: Option<(RequestId, u64)>,
    line: Line,
}

/// Reads messages and decides about them.
struct Desk {
    config: Arc<Config>,
    admission: Arc<Admission>,
    ledger: SharedLedger,
    topics: Topics,
    accepting: Accepting,
    /// What is asked and was looked at since partitions last moved.
    looked_at: HashSet<(RequestId, AskKind)>,
    /// Requests that are to be taken on, in the order in which they were handed on.
    handed_on: VecDeque<RequestId>,
    /// When the last one was handed on by us; each is later than the one before.
    handed_on_at: u64,
}

// === impl Station ===

impl Station {
    /// Makes the topics that are missing and joins the group.
    pub(crate) async fn join(config: &Config, cache: Arc<dyn Cache>) -> Result<Self> {
        let settings = settings(config);
        let topics = Topics::ensure(&settings).await?;
        let producer = Producer::new(&settings, topics.clone()).await?;
        let (feed, heard) = Feed::new(cache.clone(), topics.clone());
        let stats = Arc::new(Stats::default());
        dagwright_bus::metrics::observe(&stats, &topics);
        let (instance, requests) = Instance::start(settings, topics.clone(), feed, stats.clone()).await?;
        let ledger = SharedLedger::new(cache, &instance, producer, heard.clone());
        Ok(Self { ledger, stats, heard, instance, requests, topics })
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
        let Self { ledger, stats: _, heard, instance, requests, topics } = self;
        let desk = Desk {
            config,
            admission,
            ledger,
            topics: topics.clone(),
            accepting: Accepting::default(),
            looked_at: HashSet::new(),
            handed_on: VecDeque::new(),
            handed_on_at: 0,
        };
        let asks = Asks { asked: heard.asked(), owned: instance.owned() };
        let mut failure = instance.failure();
        let ended = tokio::select! {
            ended = take(requests, asks, desk, instance.committer(), service.clone()) => ended,
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

/// Tells when to look at what is asked.
struct Asks {
    asked: watch::Receiver<u64>,
    owned: watch::Receiver<Arc<Owned>>,
}

/// Takes one message after the other, and what is asked; what was decided goes into transactions together.
async fn take(
    mut requests: Requests,
    mut asks: Asks,
    mut desk: Desk,
    committer: Committer,
    service: Service,
) -> Result<()> {
    let mut committing: FuturesOrdered<BoxFuture<'static, Outcome>> = FuturesOrdered::new();
    // What an earlier process heard of, or others asked before we came.
    desk.look(&service).await?;
    loop {
        let has_room = committing.len() < COMMITTING_MAX;
        let mut room = None;
        let decision = tokio::select! {
            Some(outcome) = committing.next() => {
                desk.conclude(outcome, &service).await?;
                None
            }
            received = requests.next(), if has_room => {
                let Some(mut received) = received else { return Ok(()) };
                // Held until the commit has its outcome, so that what waits for that is bounded as well.
                room = Some(received.take_room());
                Some(desk.decide(received).await?)
            }
            () = std::future::ready(()), if has_room && !desk.handed_on.is_empty() => desk.decide_next().await?,
            asked = asks.asked.changed() => {
                asked.context("the ledger is read no more")?;
                desk.look(&service).await?;
                None
            }
            moved = asks.owned.changed() => {
                moved.context("left the group")?;
                // What was another's to do may be ours now.
                desk.looked_at.clear();
                desk.look(&service).await?;
                None
            }
        };
        let Some(Decision { commit, accepted, line }) = decision else { continue };
        let epoch = commit.ownership.epoch();
        let accepting = accepted.as_ref().map(|record| (record.request.clone(), epoch));
        // In the order in which they came; what becomes of them is heard later.
        let submitted = committer.submit(commit).await;
        committing.push_back(Box::pin(async move {
            let committed = match submitted {
                Ok(outcome) => outcome.visible().await,
                Err(error) => Err(error),
            };
            drop(room);
            Outcome { committed, accepted, accepting, line }
        }));
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
    /// Takes in what came of a decision.
    async fn conclude(&mut self, outcome: Outcome, service: &Service) -> Result<()> {
        let Outcome { committed, accepted, accepting, line } = outcome;
        if let Some((request, epoch)) = accepting {
            self.accepting.end(&request, epoch);
        }
        match committed {
            Ok(()) => {
                line.tell();
                if let Some(record) = accepted {
                    self.take_on(record, service).await?;
                }
            }
            Err(CommitError::TooLarge) => {
                tracing::warn!("what was to be written of a message was too long, so it is a dead letter");
                Line { code: Some(Code::RequestTooLarge.to_string()), came: Came::Refused, ..line }.tell();
            }
            // It comes again, here or elsewhere.
            Err(error) => tracing::info!(%error, "a message was not done with"),
        }
        Ok(())
    }

    /// Looks at what is asked and was not looked at before.
    async fn look(&mut self, service: &Service) -> Result<()> {
        let (ledger, looked_at) = (self.ledger.clone(), std::mem::take(&mut self.looked_at));
        let looked = move || {
            let asked: HashSet<_> = ledger.asked()?.into_iter().collect();
            let new: Vec<_> = asked.difference(&looked_at).cloned().collect();
            let mut handed_on = Vec::new();
            for (request, _) in new.iter().filter(|(_, kind)| *kind == AskKind::TakeOn) {
                let take_on = ledger.asks(request)?.into_iter().find(|ask| ask.kind() == AskKind::TakeOn);
                handed_on.extend(take_on.map(|ask| (ask.at, ask.request)));
            }
            handed_on.sort();
            Ok::<_, StoreError>((asked, new, handed_on))
        };
        let (asked, new, handed_on) = tokio::task::spawn_blocking(looked).await.context("the cache ended")??;
        // What was settled meanwhile is forgotten: it may be asked again.
        self.looked_at = asked;
        self.handed_on.extend(handed_on.into_iter().map(|(_, request)| request));
        for (request, _) in new.iter().filter(|(_, kind)| *kind != AskKind::TakeOn) {
            service.hear(request).await?;
        }
        Ok(())
    }

    /// Decides about the next request that an instance handed on; `None` when it is another's, or done already.
    async fn decide_next(&mut self) -> Result<Option<Decision>> {
        let Some(request) = self.handed_on.pop_front() else { return Ok(None) };
        let (ledger, id) = (self.ledger.clone(), request.clone());
        let asks = tokio::task::spawn_blocking(move || ledger.asks(&id)).await.context("the cache ended")??;
        let accepted = asks.into_iter().find_map(|ask| match ask.body {
            AskBody::TakeOn(accepted) => Some(accepted),
            AskBody::Cancel(_) | AskBody::Approve(_) | AskBody::Decline(_) => None,
        });
        let Some(accepted) = accepted else { return Ok(None) };
        let Some(ownership) = self.ledger.ownership(&accepted.pipeline) else { return Ok(None) };
        if self.accepting.contains(&request, ownership.epoch()) {
            return Ok(None);
        }
        let line = Line::of(&accepted, &request);
        // As long as what is asked was not too long, what is recorded of it is not either.
        self.accept(request, *accepted, (ownership, None, None), line).await
    }

    /// Decides what becomes of a message.
    async fn decide(&mut self, received: Received) -> Result<Decision> {
        let requester = self.requester(&received);
        let mut line = Line::by(&requester);
        line.entry.subject = Some(received.place().to_string());
        let read = match read(&received) {
            Ok(read) => read,
            Err((code, reason)) => return Ok(buried(&received, code, &reason, line)),
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
        line.entry.action = read.request.action.as_str().into();
        line.entry.traced(read.traceparent.as_deref());
        let (admission, known) = (self.admission.clone(), identity.clone());
        let (request, traceparent) = (read.request, read.traceparent.clone());
        let admitted = tokio::task::spawn_blocking(move || {
            let admitted = admission.admit(&request, known, traceparent, &requester);
            admitted.map_err(|rejected| (rejected, pipeline_of(&request)))
        });
        let Admitted { request, accepted } = match admitted.await.context("admission ended")? {
            Ok(admitted) => admitted,
            Err((Rejected::Store(error), _)) => return Err(error.into()),
            Err((rejected, pipeline)) => {
                let (code, reason) = rejected.reason();
                let Some(pipeline) = pipeline else { return Ok(buried(&received, code, &reason, line)) };
                let request = RequestId::derive(&pipeline, &identity.source, &identity.id);
                (line.entry.pipeline, line.entry.request_id) = (Some(pipeline.clone()), Some(request.0.clone()));
                if self.is_taken_on(request, received.ownership.epoch()).await? {
                    // What was fine when it came: that one has its outcome.
                    return Ok(repeated(&received, line));
                }
                let refused = event::refused(Refusal {
                    pipeline: &pipeline,
                    identity: &identity,
                    attempt: received.attempt(),
                    at: now_ms(),
                    traceparent: read.traceparent.as_deref(),
                    problem: in_short(rejected.problem()),
                });
                let mut decision = buried(&received, code, &reason, line);
                decision.commit.records.push(told(&refused));
                return Ok(decision);
            }
        };
        (line.entry.pipeline, line.entry.request_id) = (Some(accepted.pipeline.clone()), Some(request.0.clone()));
        line.entry.traced(accepted.traceparent.as_deref());
        let is_at_home = received.ownership.topic() == self.topics.requests
            && received.ownership.partition() == self.topics.home(&accepted.pipeline);
        if is_at_home && self.accepting.contains(&request, received.ownership.epoch()) {
            return Ok(repeated(&received, line));
        }
        let (ownership, consumed) = (received.ownership.clone(), Some(received.offset));
        let otherwise = Some(vec![received.dead_letter(Code::RequestTooLarge, TOO_LARGE)]);
        if is_at_home {
            line.came = Came::Accepted;
            let accepted = self.accept(request, accepted, (ownership, consumed, otherwise), line.clone()).await?;
            return Ok(accepted.unwrap_or_else(|| repeated(&received, line)));
        }
        if self.is_taken_on(request.clone(), received.ownership.epoch()).await? {
            return Ok(repeated(&received, line));
        }
        line.came = Came::HandedOn;
        self.handed_on_at = now_ms().max(self.handed_on_at + 1);
        let (pipeline, at) = (accepted.pipeline.clone(), self.handed_on_at);
        let ask = Ask { request, pipeline, at, body: AskBody::TakeOn(Box::new(accepted)) };
        let commit = Commit { ownership, consumed, records: vec![self.ledger.asking(&ask)], otherwise };
        Ok(Decision { commit, accepted: None, line })
    }

    /// Accepts a request; `None` for a repeat, as the first one has its outcome.
    async fn accept(
        &mut self,
        request: RequestId,
        accepted: Accepted,
        (ownership, consumed, otherwise): (Ownership, Option<i64>, Option<Vec<Outgoing>>),
        line: Line,
    ) -> Result<Option<Decision>> {
        let body = RecordBody::Accepted(Box::new(accepted));
        let record = Record { request: request.clone(), sequence: 0, at: now_ms(), body };
        let (ledger, copy) = (self.ledger.clone(), record.clone());
        let records = tokio::task::spawn_blocking(move || ledger.acceptance(&copy)).await.context("the cache ended")?;
        match records {
            Ok(records) => {
                self.accepting.begin(request, ownership.epoch());
                let commit = Commit { ownership, consumed, records, otherwise };
                Ok(Some(Decision { commit, accepted: Some(record), line }))
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
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

    /// Says who sent a message: all that is known is the topic, to which those write whom the brokers let.
    fn requester(&self, received: &Received) -> Requester {
        let topic = received.ownership.topic();
        let kafka = &self.config.kafka;
        let rule = kafka.ingress.iter().find(|rule| rule.topic == topic);
        let (scopes, namespaces) = match rule {
            Some(rule) => (&rule.scopes, &rule.namespaces),
            None => (&kafka.requests.scopes, &kafka.requests.namespaces),
        };
        Requester {
            ingress: Ingress::Kafka,
            name: Some(format!("kafka:{topic}")),
            namespaces: namespaces.clone(),
            may_submit: scopes.contains(&Scope::Submit),
            may_operate: scopes.contains(&Scope::Operate),
        }
    }
}

/// Reads a message, or says with which code it cannot be.
fn read(received: &Received) -> Result<request::Received, (Code, String)> {
    if !received.headers_readable {
        return Err((Code::RequestInvalid, "a header's name is not text".into()));
    }
    let headers: Vec<(&str, &[u8])> =
        received.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
    let body = received.value.as_deref().unwrap_or_default();
    let read = request::decode(Message { binding: Binding::Kafka, headers: &headers, body });
    read.map_err(|error| (error.code(), error.to_string()))
}

/// Puts a message to the dead letters.
fn buried(received: &Received, code: Code, reason: &str, line: Line) -> Decision {
    let records = vec![received.dead_letter(code, reason)];
    done(received, records, Line { code: Some(code.to_string()), came: Came::Refused, ..line })
}

/// Passes over a message whose request has been taken on.
fn repeated(received: &Received, line: Line) -> Decision {
    done(received, Vec::new(), Line { came: Came::Repeated, ..line })
}

fn done(received: &Received, records: Vec<Outgoing>, line: Line) -> Decision {
    let commit =
        Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise: None };
    Decision { commit, accepted: None, line }
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
