//! The one implementation of [`Store`], over any ordered map with atomic batches.
//!
//! Everything derived (summaries, the unfinished run, the baseline, plans and facts by hash) is written in the same
//! batch as the records it is derived from, so neither can be there without the other.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use dagwright_model::{
    canonical,
    id::{PlanHash, RequestId},
    message::Observation,
    plan::Plan,
    record::{Accepted, Record, RecordBody},
    task::Status,
};
use dagwright_wire::record;
use serde::de::DeserializeOwned;

use crate::{APPEND_RECORDS_MAX, Error, RequestState, RequestSummary, Store, keys};

/// Keys and values.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

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

    /// Writes every entry (`None` removes), or none of them; on disk when this returns.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn write(&self, batch: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), Error>;
}

/// A store over an ordered map.
#[derive(Debug)]
pub struct Ledger<M> {
    map: M,
    /// Held from reading the expected sequence until the batch is on disk.
    writing: Mutex<()>,
}

/// The changes of one append.
#[derive(Debug, Default)]
struct Batch(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

// === impl Ledger ===

impl<M: OrderedMap> Ledger<M> {
    /// Makes a store of a map that holds nothing, or what a ledger wrote.
    pub fn new(map: M) -> Self {
        Self { map, writing: Mutex::new(()) }
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

    /// Applies one record to the request's summary and to what is derived.
    fn derive(
        &self,
        batch: &mut Batch,
        summary: Option<RequestSummary>,
        record: &Record,
    ) -> Result<RequestSummary, Error> {
        let mut summary = match (summary, &record.body) {
            (None, RecordBody::Accepted(accepted)) => {
                let summary = accept(record, accepted)?;
                batch.put(keys::of_pipeline(&summary.pipeline, summary.accepted_at, &summary.request), Vec::new());
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
        summary.changed_at = record.at;
        match &record.body {
            RecordBody::Accepted(_)
            | RecordBody::MessageSent(_)
            | RecordBody::DagCompiled(_)
            | RecordBody::TaskStarted(_)
            | RecordBody::TaskEnded(_)
            | RecordBody::RetryScheduled(_) => {}
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
            }
            RecordBody::Deadlocked(_) => summary.state = RequestState::Deadlocked,
            RecordBody::Failed(_) => summary.state = RequestState::Failed,
            RecordBody::RunStarted(started) => {
                summary.state = RequestState::Running;
                batch.put(keys::baseline(&summary.pipeline), started.plan_hash.0.clone().into_bytes());
            }
            RecordBody::Cancelled => summary.state = RequestState::Cancelled,
            RecordBody::RunEnded(ended) => {
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
        Ok(summary)
    }
}

impl<M: OrderedMap> Store for Ledger<M> {
    fn append(&self, records: &[Record]) -> Result<(), Error> {
        let Some(first) = records.first() else { return Ok(()) };
        check(records)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = self.request(&first.request)?;
        let expected = summary.as_ref().map_or(0, |summary| summary.next_sequence);
        if first.sequence != expected {
            let request = first.request.clone();
            return Err(Error::Conflict { request, expected, given: first.sequence });
        }
        let mut batch = Batch::default();
        for record in records {
            let bytes = record::encode(record);
            if bytes.len() > record::RECORD_BYTES_MAX {
                return Err(Error::Misuse { what: "a record is longer than can be read back" });
            }
            batch.put(keys::record(&record.request, record.sequence), bytes);
            summary = Some(self.derive(&mut batch, summary, record)?);
        }
        batch.put(keys::summary(&first.request), canonical::to_bytes(&summary));
        self.map.write(batch.0)
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

// === impl RequestSummary ===

impl RequestSummary {
    fn is_unfinished_run(&self) -> bool {
        use dagwright_model::record::Purpose;
        match self.purpose {
            Purpose::Run => self.state.is_unfinished(),
            Purpose::Plan => false,
        }
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

fn accept(record: &Record, accepted: &Accepted) -> Result<RequestSummary, Error> {
    if !keys::is_text(&accepted.pipeline) {
        return Err(Error::Misuse { what: "a pipeline is empty, too long, or holds a zero byte" });
    }
    Ok(RequestSummary {
        request: record.request.clone(),
        pipeline: accepted.pipeline.clone(),
        spec_hash: accepted.spec_hash.clone(),
        purpose: accepted.purpose,
        run_key: accepted.run_key(),
        accepted_at: record.at,
        changed_at: record.at,
        next_sequence: 0,
        state: RequestState::Negotiating,
        plan: None,
    })
}
