//! The ledger that many instances share: a topic is the truth, a store beside each instance its cache.
//!
//! [`SharedLedger`] is the [`Store`] of whoever acts for a pipeline: an append becomes visible in the topic together with
//! the events that it tells, or is refused because the pipeline belongs to another instance. What is asked of whoever
//! that is, any instance writes. [`Feed`] takes in what all instances wrote. Why this is exact stands in
//! `docs/adr/0009-ledger-on-kafka.md` and `docs/adr/0014-asks-in-the-ledger.md`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dagwright_bus::kafka::{
    Commit, CommitError, Committer, Destination, Instance, LedgerCache, LedgerRecord, Outgoing, Owned, Ownership,
    Producer, Reader, Topics,
};
use dagwright_model::{
    ask::{Ask, AskKind},
    event::Event,
    id::{PlanHash, RequestId},
    message::Observation,
    plan::Plan,
    record::{Record, RecordBody},
};
use dagwright_store::{
    Cache, Entry, Error, Forgettable, Listener, Mark, Outbox, PipelineSummary, Register, RequestSummary, Retention,
    Store,
};
use dagwright_wire::{ask, cloudevent, record};
use futures::executor::block_on;
use tokio::sync::watch;

/// How long what was taken in may be on its way to the disk; what a crash takes is read again.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Says in a ledger record that takes back a request's first one when that request had been accepted: one that was accepted
/// later, under the same id, stays.
const FORGOTTEN: &str = "dagwright-accepted-at";

/// How long to wait until what was asked comes back by the topic; it is there in any case.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait for what others wrote before answering from what is known.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(2);

/// The ledger as one instance uses it.
#[derive(Clone)]
pub struct SharedLedger {
    cache: Arc<dyn Cache>,
    committer: Committer,
    owned: watch::Receiver<Arc<Owned>>,
    topics: Topics,
    appending: Arc<Turns>,
    producer: Producer,
    reader: Reader,
    heard: Heard,
}

/// The requests to which somebody appends. Two who did so at a time would both find that theirs is the next record: one who
/// follows a request may not know yet that its pipeline was lost, and is another's by now or ours again.
#[derive(Debug, Default)]
struct Turns {
    taken: Mutex<HashSet<RequestId>>,
    given_back: Condvar,
}

/// Somebody's turn to append to a request, until dropped.
struct Turn<'a> {
    request: RequestId,
    turns: &'a Turns,
}

/// Tells when something was taken in; clones tell the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<News>);

#[derive(Default)]
struct News {
    /// Counts what was asked.
    asked: watch::Sender<u64>,
    taken_in: Mutex<()>,
    changed: Condvar,
}

/// Takes in what stands in the ledger's topic.
pub struct Feed {
    cache: Arc<dyn Cache>,
    topics: Topics,
    flushed: Instant,
    heard: Heard,
}

// === impl SharedLedger ===

impl SharedLedger {
    /// Makes the ledger of an instance; `heard` is its feed's.
    #[must_use]
    pub fn new(cache: Arc<dyn Cache>, instance: &Instance, producer: Producer, heard: Heard) -> Self {
        Self {
            cache,
            committer: instance.committer(),
            owned: instance.owned(),
            topics: instance.topics().clone(),
            producer,
            reader: instance.reader(),
            heard,
            appending: Arc::default(),
        }
    }

    /// Returns what the acceptance of a request, and what it tells, look like in the topics; for whoever commits it
    /// together with the offset of the message that it came with.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the request was accepted before, or what is wrong with the cache.
    pub fn acceptance(&self, record: &Record) -> Result<Vec<Outgoing>, Error> {
        let events = self.cache.foresee(std::slice::from_ref(record))?;
        self.outgoing(std::slice::from_ref(record), &events)
    }

    /// Returns what an ask looks like in the topic; for whoever commits it together with an offset.
    #[must_use]
    pub fn asking(&self, ask: &Ask) -> Outgoing {
        let home = Destination::LedgerOf(self.topics.home(&ask.pipeline));
        Outgoing::new(home, ask::key(&ask.request, ask.kind()), ask::encode(ask))
    }

    /// Takes in acceptances that were committed.
    ///
    /// # Errors
    /// What is wrong with the cache.
    pub fn accepted(&self, records: &[Record]) -> Result<(), Error> {
        self.cache.learn(records)
    }

    /// Returns the right to act for a pipeline, while this instance has it.
    #[must_use]
    pub fn ownership(&self, pipeline: &str) -> Option<Ownership> {
        let home = (Arc::from(self.topics.requests.as_str()), self.topics.home(pipeline));
        self.owned.borrow().get(&home).filter(|ownership| ownership.is_current()).cloned()
    }
}

// === impl Turns, Turn ===

impl Turns {
    /// Waits until nobody else appends to a request.
    fn take(&self, request: &RequestId) -> Turn<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = |taken: &mut HashSet<RequestId>| taken.contains(request);
        let mut taken = self.given_back.wait_while(taken, is_taken).unwrap_or_else(PoisonError::into_inner);
        taken.insert(request.clone());
        Turn { request: request.clone(), turns: self }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.request);
        self.turns.given_back.notify_all();
    }
}

/// Renders an event as it stands in its topic.
#[must_use]
pub fn told(event: &Event) -> Outgoing {
    let content = cloudevent::of_event(event).to_structured();
    let mut told = Outgoing::new(Destination::Events, event.data.pipeline.clone(), content);
    told.headers.push(("content-type".into(), Some(cloudevent::STRUCTURED_JSON.into())));
    told
}

impl SharedLedger {
    /// Renders records, what they tell, and that what they settle is asked no more.
    fn outgoing(&self, records: &[Record], events: &[Event]) -> Result<Vec<Outgoing>, Error> {
        let key = |record: &Record| format!("{}/{}", record.request, record.sequence);
        let in_ledger = records.iter().map(|it| Outgoing::new(Destination::Ledger, key(it), record::encode(it)));
        let mut outgoing: Vec<_> = in_ledger.chain(events.iter().map(told)).collect();
        let settled: Vec<AskKind> = records.iter().flat_map(|record| record.body.settles()).copied().collect();
        if let (Some(first), false) = (records.first(), settled.is_empty()) {
            let asks = self.cache.asks(&first.request)?;
            let done = asks.iter().filter(|ask| settled.contains(&ask.kind()));
            outgoing.extend(done.map(|ask| {
                let key = ask::key(&ask.request, ask.kind());
                Outgoing { value: None, ..Outgoing::new(Destination::Ledger, key, Vec::new()) }
            }));
        }
        Ok(outgoing)
    }

    /// Waits until the ledger was taken in up to an offset, or a while.
    fn wait_for(&self, partition: i32, offset: i64) -> Result<(), Error> {
        let log = log(&self.topics, partition);
        let deadline = Instant::now() + HEARD_WITHIN;
        let News { taken_in, changed, .. } = &*self.heard.0;
        let mut taken_in = taken_in.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let reached = self.cache.reached(&log)?.and_then(|reached| i64::try_from(reached).ok());
            let left = deadline.saturating_duration_since(Instant::now());
            if reached.is_some_and(|reached| reached > offset) || left.is_zero() {
                return Ok(());
            }
            taken_in = changed.wait_timeout(taken_in, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Store for SharedLedger {
    fn append(&self, records: &[Record]) -> Result<(), Error> {
        let Some(first) = records.first() else { return Ok(()) };
        let elsewhere = || Error::Elsewhere { request: first.request.clone() };
        let pipeline = match &first.body {
            RecordBody::Accepted(accepted) => accepted.pipeline.clone(),
            _ => self.cache.request(&first.request)?.ok_or_else(elsewhere)?.pipeline,
        };
        let _turn = self.appending.take(&first.request);
        let ownership = self.ownership(&pipeline).ok_or_else(elsewhere)?;
        let events = self.cache.foresee(records)?;
        let told = self.outgoing(records, &events)?;
        let commit = Commit { ownership, consumed: None, records: told, otherwise: None };
        // Callers are where blocking is allowed.
        match block_on(self.committer.commit(commit)) {
            Ok(()) => self.cache.learn(records),
            Err(CommitError::TooLarge) => {
                Err(Error::TooLong { request: first.request.clone(), what: "a topic of Kafka" })
            }
            Err(CommitError::Lost | CommitError::OutOfOrder { .. } | CommitError::Closed) => Err(elsewhere()),
        }
    }

    fn read(&self, request: &RequestId, from: u64) -> Result<Vec<Record>, Error> {
        self.cache.read(request, from)
    }

    fn request(&self, request: &RequestId) -> Result<Option<RequestSummary>, Error> {
        self.cache.request(request)
    }

    fn requests(&self, pipeline: &str, limit: usize) -> Result<Vec<RequestSummary>, Error> {
        self.cache.requests(pipeline, limit)
    }

    fn unfinished(&self, run_key: &str) -> Result<Option<RequestId>, Error> {
        self.cache.unfinished(run_key)
    }

    fn baseline(&self, pipeline: &str) -> Result<Option<PlanHash>, Error> {
        self.cache.baseline(pipeline)
    }

    fn plan(&self, hash: &PlanHash) -> Result<Option<Plan>, Error> {
        self.cache.plan(hash)
    }

    fn fact(&self, key: &str) -> Result<Option<Observation>, Error> {
        self.cache.fact(key)
    }
}

impl Register for SharedLedger {
    fn open_requests(&self) -> Result<Vec<RequestId>, Error> {
        self.cache.open_requests()
    }

    fn recent(
        &self,
        pipeline: Option<&str>,
        before: Option<(u64, &RequestId)>,
        limit: usize,
    ) -> Result<Vec<RequestSummary>, Error> {
        self.cache.recent(pipeline, before, limit)
    }

    fn pipeline(&self, pipeline: &str) -> Result<Option<PipelineSummary>, Error> {
        self.cache.pipeline(pipeline)
    }

    fn pipelines(&self, after: &str, limit: usize) -> Result<Vec<PipelineSummary>, Error> {
        self.cache.pipelines(after, limit)
    }

    /// Blocks until what is asked came back by the topic, for a bounded time.
    fn ask(&self, ask: &Ask) -> Result<bool, Error> {
        if self.cache.asks(&ask.request)?.iter().any(|known| known.kind() == ask.kind()) {
            return Ok(true);
        }
        // Callers are where blocking is allowed.
        let (partition, offset) = block_on(self.producer.produce(&self.asking(ask)))
            .map_err(|error| Error::Unreached { code: error.code(), source: error.into() })?;
        self.wait_for(partition, offset)?;
        Ok(true)
    }

    fn asks(&self, request: &RequestId) -> Result<Vec<Ask>, Error> {
        self.cache.asks(request)
    }

    fn asked(&self) -> Result<Vec<(RequestId, AskKind)>, Error> {
        self.cache.asked()
    }

    fn catch_up(&self, pipeline: Option<&str>) -> Result<(), Error> {
        let all = 0..i32::from(self.topics.partitions);
        let is_met = match pipeline {
            // Nobody else writes what happens to it.
            Some(pipeline) if self.acts_for(pipeline) => true,
            Some(pipeline) => self.reader.catch_up([self.topics.home(pipeline)], CAUGHT_UP_WITHIN),
            None => self.reader.catch_up(all, CAUGHT_UP_WITHIN),
        };
        if !is_met {
            tracing::debug!(pipeline, "answering from what is known of the ledger");
        }
        Ok(())
    }

    fn bookmark(&self, name: &str) -> Result<Option<u64>, Error> {
        self.cache.bookmark(name)
    }

    fn keep_bookmark(&self, name: &str, at: u64) -> Result<(), Error> {
        self.cache.keep_bookmark(name, at)
    }

    fn acts_for(&self, pipeline: &str) -> bool {
        self.ownership(pipeline).is_some()
    }
}

impl Outbox for SharedLedger {
    fn events(&self, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, Error> {
        self.cache.events(after, limit)
    }

    fn newest_event(&self) -> Result<u64, Error> {
        self.cache.newest_event()
    }

    fn oldest_event(&self) -> Result<Option<u64>, Error> {
        self.cache.oldest_event()
    }

    fn delivered(&self, reader: &str) -> Result<Option<u64>, Error> {
        self.cache.delivered(reader)
    }

    fn deliver(&self, reader: &str, position: u64) -> Result<(), Error> {
        self.cache.deliver(reader, position)
    }

    fn listen(&self, listener: Listener) {
        self.cache.listen(listener);
    }
}

impl Retention for SharedLedger {
    /// Looks only for what is ours to forget: others forget theirs.
    fn forgettable(&self, before: u64, after: Option<&Mark>, limit: usize) -> Result<Forgettable, Error> {
        let mut found = self.cache.forgettable(before, after, limit)?;
        found.requests.retain(|summary| self.acts_for(&summary.pipeline));
        Ok(found)
    }

    /// Takes the records back in the topic, where compaction then frees their room; all instances follow.
    fn forget(&self, requests: &[RequestId]) -> Result<usize, Error> {
        let mut forgotten = 0;
        for request in requests {
            let _turn = self.appending.take(request);
            let Some(summary) = self.cache.request(request)? else { continue };
            let Some(ownership) = self.ownership(&summary.pipeline) else { continue };
            let Some(accepted_at) = self.cache.read(request, 0)?.first().map(|record| record.at) else { continue };
            let commit =
                Commit { ownership, consumed: None, records: taken_back(&summary, accepted_at), otherwise: None };
            // Callers are where blocking is allowed.
            match block_on(self.committer.commit(commit)) {
                Ok(()) => {}
                // Whoever acts for the pipeline now goes on.
                Err(CommitError::Lost | CommitError::OutOfOrder { .. } | CommitError::Closed) => continue,
                Err(CommitError::TooLarge) => {
                    return Err(Error::Misuse { what: "Kafka takes no records without content" });
                }
            }
            // The topic tells the same in a moment; what is asked of us until then should find it gone.
            forgotten += self.cache.forget(std::slice::from_ref(request))?;
        }
        Ok(forgotten)
    }

    fn forget_events(&self, before: u64, up_to: u64, limit: usize) -> Result<usize, Error> {
        self.cache.forget_events(before, up_to, limit)
    }
}

/// Returns what takes back a request: its last record first, so that compaction, which begins with what is old, never
/// leaves a record without those before it.
fn taken_back(summary: &RequestSummary, accepted_at: u64) -> Vec<Outgoing> {
    let take_back = |sequence| {
        let key = format!("{}/{sequence}", summary.request);
        let mut record = Outgoing { to: Destination::Ledger, key: Some(key.into()), value: None, headers: Vec::new() };
        if sequence == 0 {
            record.headers.push((FORGOTTEN.into(), Some(accepted_at.to_string().into_bytes())));
        }
        record
    };
    (0..summary.next_sequence).rev().map(take_back).collect()
}

/// Returns what a record of the topic says.
fn entry(found: &LedgerRecord) -> Result<Option<Entry>, dagwright_wire::Error> {
    let is_ask = found.key.as_deref().is_some_and(ask::is_key);
    match &found.value {
        Some(bytes) if is_ask => return ask::decode(bytes).map(Entry::Ask).map(Some),
        Some(bytes) => return record::decode(bytes).map(Entry::Record).map(Some),
        // The record that settled what was asked stands before it.
        None if is_ask => return Ok(None),
        None => {}
    }
    let header = found.headers.iter().find(|(name, _)| name == FORGOTTEN).and_then(|(_, value)| value.as_deref());
    let accepted_at = header.and_then(|value| str::from_utf8(value).ok()?.parse().ok());
    let key = found.key.as_deref().and_then(|key| str::from_utf8(key).ok()?.strip_suffix("/0"));
    // What takes back a later record alone says nothing: the first one of its request follows.
    Ok(accepted_at.zip(key).map(|(accepted_at, id)| Entry::Forgotten { request: RequestId(id.into()), accepted_at }))
}

impl std::fmt::Debug for SharedLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedLedger").field("topic", &self.topics.ledger).finish_non_exhaustive()
    }
}

// === impl Heard ===

impl Heard {
    /// Hears when something is asked; what, stands in the cache.
    #[must_use]
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.0.asked.subscribe()
    }

    fn tell(&self, is_asked: bool) {
        // Held, so that nobody looks before and waits after.
        drop(self.0.taken_in.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_all();
        if is_asked {
            self.0.asked.send_modify(|asked| *asked += 1);
        }
    }
}

// === impl Feed ===

impl Feed {
    /// Makes the feed of a cache, and what tells of it.
    #[must_use]
    pub fn new(cache: Arc<dyn Cache>, topics: Topics) -> (Self, Heard) {
        let heard = Heard::default();
        (Self { cache, topics, flushed: Instant::now(), heard: heard.clone() }, heard)
    }
}

/// Returns the name under which a cache knows a partition of the ledger.
fn log(topics: &Topics, partition: i32) -> String {
    format!("{}/{partition}", topics.ledger)
}

impl LedgerCache for Feed {
    fn offsets(&mut self) -> Result<BTreeMap<i32, i64>, Box<dyn std::error::Error + Send + Sync>> {
        let mut offsets = BTreeMap::new();
        for partition in 0..i32::from(self.topics.partitions) {
            if let Some(reached) = self.cache.reached(&log(&self.topics, partition))? {
                offsets.insert(partition, i64::try_from(reached)?);
            }
        }
        Ok(offsets)
    }

    fn apply(&mut self, records: Vec<LedgerRecord>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut partitions: BTreeMap<i32, (u64, Vec<Entry>)> = BTreeMap::new();
        let mut is_asked = false;
        for found in records {
            let (reached, known) = partitions.entry(found.partition).or_default();
            *reached = u64::try_from(found.offset)? + 1;
            let entry = entry(&found)?;
            is_asked |= matches!(entry, Some(Entry::Ask(_)));
            known.extend(entry);
        }
        for (partition, (reached, known)) in partitions {
            self.cache.absorb(&log(&self.topics, partition), reached, &known)?;
        }
        if self.flushed.elapsed() >= FLUSH_AFTER {
            self.cache.flush()?;
            self.flushed = Instant::now();
        }
        self.heard.tell(is_asked);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dagwright_bus::kafka::LedgerRecord;
    use dagwright_model::{
        id::RequestId,
        record::{Ingress, Purpose},
    };
    use dagwright_store::{Entry, RequestState, RequestSummary};

    use super::{Turns, entry, taken_back};

    #[test]
    fn one_at_a_time_appends_to_a_request() {
        let (turns, id) = (Turns::default(), |text: &str| RequestId(text.into()));
        let first = turns.take(&id("a"));
        drop(turns.take(&id("b")));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(turns.take(&id("a"))));
            // Others are served meanwhile, and the second one cannot have had its turn.
            drop(turns.take(&id("b")));
            assert!(!second.is_finished());
            drop(first);
            second.join().expect("its turn comes");
        });
        assert!(turns.taken.lock().expect("no panic").is_empty());
    }

    #[test]
    fn what_is_taken_back_reads_as_forgotten_once_at_its_end() {
        let summary = RequestSummary {
            request: RequestId("r/x".into()),
            pipeline: "p".into(),
            spec_hash: String::new(),
            purpose: Purpose::Run,
            run_key: "k".into(),
            accepted_at: 42,
            changed_at: 50,
            next_sequence: 3,
            state: RequestState::Succeeded,
            plan: None,
            ingress: Ingress::Kafka,
            requester: None,
            traceparent: None,
            run_started_at: None,
            dag_run: None,
            replans: false,
            rows: None,
            problem: None,
        };
        let read = |(offset, it): (i64, dagwright_bus::kafka::Outgoing)| {
            assert_eq!(it.value, None);
            entry(&LedgerRecord {
                partition: 0,
                offset,
                key: it.key,
                value: it.value.as_deref().map(<[u8]>::to_vec),
                headers: it.headers,
            })
            .unwrap()
        };
        let told: Vec<_> = (0..).zip(taken_back(&summary, 42)).map(read).collect();
        assert_eq!(told, [None, None, Some(Entry::Forgotten { request: summary.request, accepted_at: 42 })]);
        let foreign = LedgerRecord { partition: 0, offset: 9, key: None, value: None, headers: Vec::new() };
        assert_eq!(entry(&foreign).unwrap(), None);
    }
}
