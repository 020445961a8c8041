//! A run's part of the ledger, as an engine writes it: records are appended first, then measured and told.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use dagwright_model::{
    id::RequestId,
    plan::Plan,
    record::{Record, RecordBody},
};
use dagwright_store::Store;
use tokio::{sync::mpsc::Sender, task::spawn_blocking};

use crate::{Error, Job, event::RunEvent, metrics};

/// Where the records of one run go.
pub(crate) struct Journal {
    request: RequestId,
    plan: Arc<Plan>,
    store: Arc<dyn Store>,
    events: Sender<RunEvent>,
    next_sequence: u64,
}

// === impl Journal ===

impl Journal {
    /// Opens the journal of a job, and returns what stands in it since the last setback: the run of an earlier version of
    /// the plan has ended, and says nothing of this one.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(crate) async fn open(job: &Job) -> Result<(Self, Vec<Record>), Error> {
        let (store, request) = (job.store.clone(), job.request.clone());
        let records = blocking(move || store.read(&request, 0)).await;
        let records = records.map_err(|source| Error::Read { request: job.request.clone(), source })?;
        let journal = Self {
            request: job.request.clone(),
            plan: job.plan.clone(),
            store: job.store.clone(),
            events: job.events.clone(),
            next_sequence: records.last().map_or(0, |last| last.sequence + 1),
        };
        let is_setback = |record: &Record| matches!(&record.body, RecordBody::RunEnded(ended) if ended.is_setback());
        let first = records.iter().rposition(is_setback).map_or(0, |last| last + 1);
        let records = records.into_iter().skip(first).collect();
        Ok((journal, records))
    }

    /// Appends records, all together, then tells of them.
    ///
    /// # Errors
    /// When the ledger cannot be written; nothing was told then.
    pub(crate) async fn write(&mut self, bodies: Vec<RecordBody>) -> Result<(), Error> {
        if bodies.is_empty() {
            return Ok(());
        }
        // For people only; a clock before the epoch is as good as any.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let numbered = (self.next_sequence..).zip(bodies);
        let records: Vec<_> =
            numbered.map(|(sequence, body)| Record { request: self.request.clone(), sequence, at, body }).collect();
        self.next_sequence += records.len() as u64;
        let (store, request) = (self.store.clone(), self.request.clone());
        let appended = blocking(move || store.append(&records).map(|()| records)).await;
        let records = appended.map_err(|source| Error::Append { request, source })?;
        for record in &records {
            tracing::debug!(request_id = %record.request, sequence = record.sequence, what = record.body.kind(), "recorded");
            metrics::recorded(&record.body, &self.plan);
            self.tell_of(&record.body).await;
        }
        Ok(())
    }

    /// Tells whoever watches what a record says.
    pub(crate) async fn tell_of(&self, body: &RecordBody) {
        if let Some(event) = RunEvent::of(body, &self.plan) {
            self.tell(event).await;
        }
    }

    /// Tells whoever watches.
    pub(crate) async fn tell(&self, event: RunEvent) {
        // A closed channel means that nobody listens, which is no reason to stop.
        let _ = self.events.send(event).await;
    }
}

/// Calls what blocks where blocking is allowed. A panic in there goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => unreachable!("nobody aborts what blocks: {error}"),
        },
    }
}
