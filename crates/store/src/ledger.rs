//! The one implementation of [`Store`], over any ordered map with atomic batches.
//!
//! Everything derived (summaries, indexes, the baseline, plans and facts by hash, events) is written in the same batch
//! as the records it is derived from, so neither can be there without the other.
//!
//! Batches are applied one after the other, and flushed side by side: a flush covers whatever was applied before it, so
//! many writers share the price of one.

mod asks;
mod cache;
mod retention;
mod summary;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use dagwright_model::{
    ask::{Ask, AskKind},
    canonical,
    event::{Event, Rows},
    id::{PlanHash, RequestId},
    message::Observation,
    plan::Plan,
    record::{PipelineStatus, Purpose, Record, RecordBody},
    task::Status,
};
use dagwright_wire::record;
use serde::de::DeserializeOwned;

use crate::{
    APPEND_RECORDS_MAX, Error, Listener, Outbox, PipelineSummary, Register, RequestState, RequestSummary, Store, keys,
    metrics,
};

/// The most readers whose position is measured: outlets, of which a configuration has a handful.
const READERS_MAX: usize = 16;

/// Keys and values.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Keys and the values that they get; `None` removes one.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An ordered map of bytes with atomic, durable batches.
pub trait OrderedMap: fmt::Debug + Send + Sync {
    /// Returns the value of a key.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Returns the entries from `first` up to but not including `end`, in the order of keys, or in the opposite order
    /// for `descending`; at most `limit`.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn range(&self, first: &[u8], end: &[u8], descending: bool, limit: usize) -> Result<Entries, Error>;

    /// Makes all changes or none of them; readers see them at once.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn apply(&self, batch: Changes) -> Result<(), Error>;

    /// Brings whatever was applied before to the disk.
    ///
    /// # Errors
    /// What is wrong with the storage; then every later call fails too.
    fn flush(&self) -> Result<(), Error>;
}

/// A store over an ordered map.
pub struct Ledger<M> {
    map: M,
    /// Held from reading the expected sequence until the batch is applied.
    writing: Mutex<Positions>,
    /// The newest event that is on disk; 0 before the first append.
    flushed: AtomicU64,
    /// How far those are who delivered in this process, at most [`READERS_MAX`]; for metrics alone.
    readers: Mutex<BTreeMap<String, u64>>,
    listener: RwLock<Option<Listener>>,
}

/// Where the next event goes.
#[derive(Debug, Default)]
struct Positions {
    /// The newest event; `None` until somebody looked.
    newest: Option<u64>,
}

/// The changes of one append.
#[derive(Debug, Default)]
struct Batch(Changes);

// === impl Ledger ===

impl<M: OrderedMap> Ledger<M> {
    /// Makes a store of a map that holds nothing, or what a ledger wrote.
    pub fn new(map: M) -> Self {
        Self {
            map,
            writing: Mutex::default(),
            flushed: AtomicU64::new(0),
            readers: Mutex::default(),
            listener: RwLock::default(),
        }
    }

    fn write(&self, records: &[Record]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut positions = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.newest(&positions)?;
        let mut batch = Batch::default();
        let events = self.stage(&mut batch, records)?;
        let newest = batch.tell(before, &events);
        self.map.apply(batch.0)?;
        positions.newest = Some(newest);
        drop(positions);
        self.map.flush()?;
        self.told(before, newest);
        Ok(())
    }

    /// Measures how far each reader is behind; those that deliver are few.
    fn count_undelivered(&self, newest: u64) {
        for (reader, delivered) in &*self.readers.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics::undelivered(reader, newest.saturating_sub(*delivered));
        }
    }

    /// Returns the position of the newest event in the map.
    fn last_position(&self) -> Result<u64, Error> {
        let newest = self.map.range(&keys::event(0), &keys::event(u64::MAX), true, 1)?;
        Ok(newest.first().and_then(|(key, _)| keys::event_position(key)).unwrap_or(0))
    }

    fn json<T: DeserializeOwned>(&self, key: &[u8], what: &'static str) -> Result<Option<T>, Error> {
        let Some(bytes) = self.map.get(key)? else { return Ok(None) };
        let value =
            serde_json::from_slice(&bytes).map_err(|source| Error::Unreadable { what, source: source.into() })?;
        Ok(Some(value))
    }

    fn text(&self, key: &[u8], what: &'static str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.map.get(key)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|source| Error::Unreadable { what, source: source.into() })?;
        Ok(Some(text))
    }

    fn newest(&self, positions: &Positions) -> Result<u64, Error> {
        positions.newest.map_or_else(|| self.last_position(), Ok)
    }

    /// Puts the records of one request, and what is derived from them, into a batch; returns what they tell.
    fn stage(&self, batch: &mut Batch, records: &[Record]) -> Result<Vec<Event>, Error> {
        let Some(first) = records.first() else { return Ok(Vec::new()) };
        check(records)?;
        let key = keys::summary(&first.request);
        let known = batch.holds(&key, &self.map)?;
        let read = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::Unreadable { what: "a request's summary", source: source.into() })
        };
        let mut summary: Option<RequestSummary> = known.map(read).transpose()?;
        let expected = summary.as_ref().map_or(0, |summary| summary.next_sequence);
        if first.sequence != expected {
            let request = first.request.clone();
            return Err(Error::Conflict { request, expected, given: first.sequence });
        }
        let mut events = Vec::new();
        for record in records {
            let bytes = record::encode(record);
            if bytes.len() > record::RECORD_BYTES_MAX {
                return Err(Error::TooLong { request: record.request.clone(), what: "the ledger" });
            }
            batch.put(keys::record(&record.request, record.sequence), bytes);
            let derived = self.derive(batch, summary, record)?;
            events.extend(derived.tell(record));
            summary = Some(derived);
        }
        batch.put(key, canonical::to_bytes(&summary));
        Ok(events)
    }

    /// Notes that events are on disk, and tells whoever listens.
    fn told(&self, before: u64, newest: u64) {
        self.flushed.fetch_max(newest, Ordering::AcqRel);
        if newest > before {
            self.count_undelivered(newest);
        }
        if newest > before
            && let Some(listener) = &*self.listener.read().unwrap_or_else(PoisonError::into_inner)
        {
            listener(newest);
        }
    }

    /// Returns what [`Register::recent`] does of one pipeline.
    fn recent_of(
        &self,
        pipeline: &str,
        before: Option<(u64, &RequestId)>,
        limit: usize,
    ) -> Result<Vec<RequestSummary>, Error> {
        if !keys::is_text(pipeline) {
            return Ok(Vec::new());
        }
        let (first, mut end) = keys::of_pipeline_range(pipeline);
        if let Some((at, request)) = before {
            end = keys::of_pipeline(pipeline, at, request);
        }
        let mut summaries = Vec::new();
        loop {
            let wanted = limit - summaries.len();
            let entries = self.map.range(&first, &end, true, wanted)?;
            for (key, _) in &entries {
                let Some(request) = keys::request_of_pipeline(key, pipeline) else { continue };
                // Somebody only looked: such requests share the index, and are passed over.
                summaries.extend(self.request(&request)?.filter(|summary| summary.purpose != Purpose::Plan));
            }
            match entries.into_iter().next_back() {
                Some((last, _)) if summaries.len() < limit => end = last,
                _ => return Ok(summaries),
            }
        }
    }

    /// Takes a record into its pipeline's summary.
    fn derive_pipeline(&self, batch: &mut Batch, summary: &RequestSummary, record: &Record) -> Result<(), Error> {
        match &record.body {
            RecordBody::Accepted(_) | RecordBody::PipelineChanged(_) | RecordBody::RunStarted(_) => {}
            _ => return Ok(()),
        }
        if summary.purpose == Purpose::Plan {
            return Ok(()); // Somebody looked; the pipeline may never have been asked for.
        }
        let mut pipeline = match self.pipeline_in(batch, &summary.pipeline)? {
            Some(known) => known,
            None => PipelineSummary {
                pipeline: summary.pipeline.clone(),
                status: PipelineStatus::Active,
                revision: 0,
                applied: None,
                baseline: None,
                newest: summary.request.clone(),
                newest_at: summary.accepted_at,
                ran: None,
                changed: None,
            },
        };
        match &record.body {
            RecordBody::Accepted(_) => {
                pipeline.newest = summary.request.clone();
                pipeline.newest_at = summary.accepted_at;
            }
            RecordBody::RunStarted(started) => {
                pipeline.baseline = Some(started.plan_hash.clone());
                pipeline.ran = Some(summary.request.clone());
            }
            RecordBody::PipelineChanged(changed) => {
                pipeline.changed = Some(summary.request.clone());
                pipeline.status = changed.status;
                pipeline.revision = changed.revision;
                match changed.status {
                    PipelineStatus::Active => pipeline.applied = Some(summary.request.clone()),
                    PipelineStatus::Paused => {}
                    PipelineStatus::Deleted => pipeline.applied = None,
                }
            }
            _ => {}
        }
        batch.put(keys::pipeline(&summary.pipeline), canonical::to_bytes(&pipeline));
        Ok(())
    }

    /// Returns what is known of a pipeline once a batch is applied.
    fn pipeline_in(&self, batch: &Batch, pipeline: &str) -> Result<Option<PipelineSummary>, Error> {
        let Some(bytes) = batch.holds(&keys::pipeline(pipeline), &self.map)? else { return Ok(None) };
        let known = serde_json::from_slice(&bytes);
        known.map(Some).map_err(|source| Error::Unreadable { what: "a pipeline's summary", source: source.into() })
    }

    /// Applies one record to the request's summary and to what is derived.
    fn derive(
        &self,
        batch: &mut Batch,
        summary: Option<RequestSummary>,
        record: &Record,
    ) -> Result<RequestSummary, Error> {
        let mut summary = match (summary, &record.body) {
            (None, RecordBody::Accepted(accepted)) => {
                let mut summary = summary::accept(record, accepted)?;
                if let Some(known) = self.pipeline_in(batch, &summary.pipeline)?
                    && summary.purpose != Purpose::Plan
                {
                    summary.accepted_at = summary.accepted_at.max(known.newest_at.saturating_add(1));
                    summary.changed_at = summary.accepted_at;
                }
                batch.put(keys::of_pipeline(&summary.pipeline, summary.accepted_at, &summary.request), Vec::new());
                let by_time = match summary.purpose {
                    Purpose::Plan => keys::looked(summary.accepted_at, &summary.request),
                    _ => keys::by_time(summary.accepted_at, &summary.request),
                };
                batch.put(by_time, Vec::new());
                if summary.is_served() {
                    batch.put(keys::open(summary.accepted_at, &summary.request), Vec::new());
                }
                summary
            }
            (None, _) => return Err(Error::Misuse { what: "the first record of a request is its acceptance" }),
            (Some(_), RecordBody::Accepted(_)) => {
                return Err(Error::Misuse { what: "a request is accepted once" });
            }
            (Some(summary), _) => summary,
        };
        let was_unfinished = summary.is_unfinished_run();
        summary.next_sequence = record.sequence + 1;
        summary.changed_at = summary.changed_at.max(record.at);
        match &record.body {
            RecordBody::Accepted(_)
            | RecordBody::MessageSent(_)
            | RecordBody::DagCompiled(_)
            | RecordBody::TaskStarted(_)
            | RecordBody::TaskEnded(_)
            | RecordBody::RetryScheduled(_)
            | RecordBody::RemedyApplied(_)
            | RecordBody::Replanned(_) => {}
            RecordBody::FactRecorded(fact) => {
                if !keys::is_text(&fact.key) {
                    return Err(Error::Misuse { what: "a fact's key is empty, too long, or holds a zero byte" });
                }
                batch.put(keys::fact(&fact.key), canonical::to_bytes(&fact.observation));
            }
            RecordBody::PlanSealed(sealed) => {
                if !keys::is_text(&sealed.hash.0) {
                    return Err(Error::Misuse { what: "a plan's hash is empty, too long, or holds a zero byte" });
                }
                summary.state = RequestState::Sealed;
                summary.plan = Some(sealed.hash.clone());
                batch.put(keys::plan(&sealed.hash), canonical::to_bytes(&sealed.plan));
                batch.put(keys::sealed(&sealed.hash, &record.request), Vec::new());
            }
            RecordBody::PlanReused(reused) => {
                summary.state = RequestState::Sealed;
                summary.plan = Some(reused.hash.clone());
                batch.put(keys::reused(&reused.hash, &record.request), Vec::new());
            }
            RecordBody::Deadlocked(ended) => {
                summary.state = RequestState::Deadlocked;
                summary.problem = ended.problems.first().cloned();
            }
            RecordBody::Failed(ended) => {
                summary.state = RequestState::Failed;
                summary.problem = ended.problems.first().cloned();
            }
            RecordBody::ApprovalNeeded(_) => summary.state = RequestState::AwaitingApproval,
            RecordBody::Approved(_) => summary.state = RequestState::Sealed,
            RecordBody::Declined(_) => summary.state = RequestState::Failed,
            RecordBody::PipelineChanged(_) => summary.state = RequestState::Succeeded,
            RecordBody::RunStarted(started) => {
                summary.state = RequestState::Running;
                summary.replans = false;
                summary.run_started_at = Some(record.at);
                summary.dag_run.clone_from(&started.dag_run);
                batch.put(keys::baseline(&summary.pipeline), started.plan_hash.0.clone().into_bytes());
            }
            RecordBody::Cancelled(_) => {
                summary.state = match summary.state {
                    RequestState::Running => RequestState::Cancelling,
                    _ => RequestState::Cancelled,
                }
            }
            // The agents go on with it.
            RecordBody::RunEnded(ended) if ended.is_setback() => {
                summary.state = RequestState::Negotiating;
                summary.replans = true;
            }
            RecordBody::RunEnded(ended) => {
                summary.rows = Some(Rows::of(&ended.counts));
                summary.problem = ended.problem.clone();
                summary.state = match ended.status {
                    Status::Succeeded => RequestState::Succeeded,
                    Status::Failed => RequestState::Failed,
                    Status::Cancelled => RequestState::Cancelled,
                }
            }
        }
        let key = keys::unfinished(&summary.run_key);
        match (was_unfinished, summary.is_unfinished_run()) {
            (false, true) => batch.put(key, summary.request.0.clone().into_bytes()),
            // Only its own entry: a newer request may stand there already.
            (true, false) if batch.holds(&key, &self.map)?.as_deref() == Some(summary.request.0.as_bytes()) => {
                batch.remove(key);
            }
            (true, false) | (true, true) | (false, false) => {}
        }
        if summary.state.is_final() && summary.is_served() {
            batch.remove(keys::open(summary.accepted_at, &summary.request));
        }
        self.settle(batch, record)?;
        self.derive_pipeline(batch, &summary, record)?;
        Ok(summary)
    }
}

impl<M: OrderedMap> Store for Ledger<M> {
    fn append(&self, records: &[Record]) -> Result<(), Error> {
        let began = Instant::now();
        let outcome = self.write(records);
        metrics::appended(&outcome, began.elapsed());
        outcome
    }

    fn read(&self, request: &RequestId, from: u64) -> Result<Vec<Record>, Error> {
        let Some(summary) = self.request(request)? else { return Ok(Vec::new()) };
        // Up to what the summary says: records appended meanwhile wait for the next call.
        let (first, end) = (keys::record(request, from), keys::record(request, summary.next_sequence));
        if first >= end {
            return Ok(Vec::new());
        }
        let entries = self.map.range(&first, &end, false, usize::MAX)?;
        let read = |bytes: &[u8]| {
            record::decode(bytes).map_err(|source| Error::Unreadable { what: "a record", source: source.into() })
        };
        entries.iter().map(|(_, bytes)| read(bytes)).collect()
    }

    fn request(&self, request: &RequestId) -> Result<Option<RequestSummary>, Error> {
        if keys::is_text(&request.0) { self.json(&keys::summary(request), "a request's summary") } else { Ok(None) }
    }

    fn requests(&self, pipeline: &str, limit: usize) -> Result<Vec<RequestSummary>, Error> {
        if !keys::is_text(pipeline) {
            return Ok(Vec::new());
        }
        let (first, end) = keys::of_pipeline_range(pipeline);
        let entries = self.map.range(&first, &end, true, limit)?;
        let mut summaries = Vec::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(request) = keys::request_of_pipeline(&key, pipeline) {
                summaries.extend(self.request(&request)?);
            }
        }
        Ok(summaries)
    }

    fn unfinished(&self, run_key: &str) -> Result<Option<RequestId>, Error> {
        Ok(self.text(&keys::unfinished(run_key), "an unfinished run")?.map(RequestId))
    }

    fn baseline(&self, pipeline: &str) -> Result<Option<PlanHash>, Error> {
        Ok(self.text(&keys::baseline(pipeline), "a baseline")?.map(PlanHash))
    }

    fn plan(&self, hash: &PlanHash) -> Result<Option<Plan>, Error> {
        self.json(&keys::plan(hash), "a plan")
    }

    fn fact(&self, key: &str) -> Result<Option<Observation>, Error> {
        self.json(&keys::fact(key), "a fact")
    }
}

impl<M: OrderedMap> Register for Ledger<M> {
    fn open_requests(&self) -> Result<Vec<RequestId>, Error> {
        let (first, end) = keys::open_range();
        let entries = self.map.range(&first, &end, false, usize::MAX)?;
        Ok(entries.iter().filter_map(|(key, _)| keys::timed_request(key)).collect())
    }

    fn recent(
        &self,
        pipeline: Option<&str>,
        before: Option<(u64, &RequestId)>,
        limit: usize,
    ) -> Result<Vec<RequestSummary>, Error> {
        if let Some(pipeline) = pipeline {
            return self.recent_of(pipeline, before, limit);
        }
        let end = match before {
            Some((at, request)) => keys::by_time(at, request),
            None => keys::by_time_end(),
        };
        let entries = self.map.range(&keys::by_time_first(), &end, true, limit)?;
        let mut summaries = Vec::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(request) = keys::timed_request(&key) {
                summaries.extend(self.request(&request)?);
            }
        }
        Ok(summaries)
    }

    fn pipeline(&self, pipeline: &str) -> Result<Option<PipelineSummary>, Error> {
        if keys::is_text(pipeline) { self.json(&keys::pipeline(pipeline), "a pipeline's summary") } else { Ok(None) }
    }

    fn ask(&self, ask: &Ask) -> Result<bool, Error> {
        self.keep(ask)
    }

    fn asks(&self, request: &RequestId) -> Result<Vec<Ask>, Error> {
        self.kept(request)
    }

    fn asked(&self) -> Result<Vec<(RequestId, AskKind)>, Error> {
        self.all_kept()
    }

    fn pipelines(&self, after: &str, limit: usize) -> Result<Vec<PipelineSummary>, Error> {
        let (first, end) = keys::pipelines_after(after);
        let entries = self.map.range(&first, &end, false, limit)?;
        let read = |(_, bytes): &(Vec<u8>, Vec<u8>)| {
            serde_json::from_slice(bytes)
                .map_err(|source| Error::Unreadable { what: "a pipeline's summary", source: source.into() })
        };
        entries.iter().map(read).collect()
    }

    fn bookmark(&self, name: &str) -> Result<Option<u64>, Error> {
        let at = self.map.get(&keys::bookmark(name))?.map(<[u8; 8]>::try_from);
        Ok(at.and_then(Result::ok).map(u64::from_be_bytes))
    }

    fn keep_bookmark(&self, name: &str, at: u64) -> Result<(), Error> {
        if !keys::is_text(name) {
            return Err(Error::Misuse { what: "a bookmark's name is empty, too long, or holds a zero byte" });
        }
        self.map.apply([(keys::bookmark(name), Some(at.to_be_bytes().to_vec()))].into())
    }
}

impl<M: OrderedMap> Outbox for Ledger<M> {
    fn events(&self, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, Error> {
        let newest = self.newest_event()?;
        if after >= newest {
            return Ok(Vec::new());
        }
        let entries = self.map.range(&keys::event(after + 1), &keys::event(newest.saturating_add(1)), false, limit)?;
        let read = |(key, bytes): &(Vec<u8>, Vec<u8>)| {
            let event = serde_json::from_slice(bytes)
                .map_err(|source| Error::Unreadable { what: "an event", source: source.into() })?;
            Ok((keys::event_position(key).unwrap_or(0), event))
        };
        entries.iter().map(read).collect()
    }

    fn newest_event(&self) -> Result<u64, Error> {
        match self.flushed.load(Ordering::Acquire) {
            // Nothing was told since the map was opened, so what stands there is on disk.
            0 if self.writing.lock().unwrap_or_else(PoisonError::into_inner).newest.is_none() => self.last_position(),
            flushed => Ok(flushed),
        }
    }

    fn oldest_event(&self) -> Result<Option<u64>, Error> {
        let oldest = self.map.range(&keys::event(0), &keys::event(u64::MAX), false, 1)?;
        Ok(oldest.first().and_then(|(key, _)| keys::event_position(key)))
    }

    fn delivered(&self, reader: &str) -> Result<Option<u64>, Error> {
        let position = self.map.get(&keys::delivered(reader))?.map(<[u8; 8]>::try_from);
        Ok(position.and_then(Result::ok).map(u64::from_be_bytes))
    }

    fn deliver(&self, reader: &str, position: u64) -> Result<(), Error> {
        if !keys::is_text(reader) {
            return Err(Error::Misuse { what: "a reader's name is empty, too long, or holds a zero byte" });
        }
        self.map.apply([(keys::delivered(reader), Some(position.to_be_bytes().to_vec()))].into())?;
        self.map.flush()?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_MAX || readers.contains_key(reader) {
            readers.insert(reader.to_owned(), position);
        }
        drop(readers);
        self.count_undelivered(self.newest_event()?);
        Ok(())
    }

    fn listen(&self, listener: Listener) {
        *self.listener.write().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }
}

impl<M: fmt::Debug> fmt::Debug for Ledger<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("map", &self.map).finish_non_exhaustive()
    }
}

// === impl Batch ===

impl Batch {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// Puts events behind the one at `newest`; returns the position of the last.
    fn tell(&mut self, newest: u64, events: &[Event]) -> u64 {
        (newest + 1..).zip(events).fold(newest, |_, (position, event)| {
            self.put(keys::event(position), canonical::to_bytes(event));
            position
        })
    }

    /// Returns what a key will hold once this is written.
    fn holds(&self, key: &[u8], map: &impl OrderedMap) -> Result<Option<Vec<u8>>, Error> {
        match self.0.get(key) {
            Some(value) => Ok(value.clone()),
            None => map.get(key),
        }
    }
}

/// Checks what can be checked of records without reading.
fn check(records: &[Record]) -> Result<(), Error> {
    let misuse = |what| Err(Error::Misuse { what });
    if records.len() > APPEND_RECORDS_MAX {
        return misuse("too many records at once");
    }
    let follows = |pair: &[Record]| {
        pair[0].request == pair[1].request && pair[0].sequence.checked_add(1) == Some(pair[1].sequence)
    };
    if !records.windows(2).all(follows) {
        return misuse("the records do not follow each other");
    }
    if !records.iter().all(|record| keys::is_text(&record.request.0)) {
        return misuse("a request id is empty, too long, or holds a zero byte");
    }
    Ok(())
}
