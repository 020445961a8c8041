//! What is asked of whoever acts for a pipeline, until a record settles it.
//!
//! Whether an ask counts is decided by what stands before it, so all who read the same log keep the same asks.

use std::sync::PoisonError;

use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    id::RequestId,
    record::Record,
};
use dagwright_wire::ask;

use super::{Batch, Ledger, OrderedMap};
use crate::{Error, RequestState, RequestSummary, keys};

impl<M: OrderedMap> Ledger<M> {
    /// See [`Register::ask`](crate::Register::ask).
    pub(super) fn keep(&self, ask: &Ask) -> Result<bool, Error> {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        let waits = self.stage_ask(&mut batch, ask)?;
        if batch.0.is_empty() {
            return Ok(waits);
        }
        self.map.apply(batch.0)?;
        drop(writing);
        self.map.flush()?;
        Ok(waits)
    }

    /// Puts what is asked into a batch, if it counts; returns whether anything of its kind waits then.
    pub(super) fn stage_ask(&self, batch: &mut Batch, ask: &Ask) -> Result<bool, Error> {
        if !keys::is_text(&ask.request.0) {
            return Err(Error::Misuse { what: "a request id is empty, too long, or holds a zero byte" });
        }
        let key = keys::ask(&ask.request, ask.kind());
        if batch.holds(&key, &self.map)?.is_some() {
            return Ok(true);
        }
        let known = batch.holds(&keys::summary(&ask.request), &self.map)?;
        let read = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::Unreadable { what: "a request's summary", source: source.into() })
        };
        let known: Option<RequestSummary> = known.map(read).transpose()?;
        let counts = match (&ask.body, &known) {
            (AskBody::TakeOn(_), known) => known.is_none(),
            (AskBody::Cancel(_), Some(known)) => !known.state.is_final() && known.state != RequestState::Cancelling,
            // Whoever takes it on finds both.
            (AskBody::Cancel(_), None) => batch.holds(&keys::ask(&ask.request, AskKind::TakeOn), &self.map)?.is_some(),
            (AskBody::Approve(decision) | AskBody::Decline(decision), Some(known)) => {
                known.state == RequestState::AwaitingApproval && known.plan.as_ref() == Some(&decision.plan_hash)
            }
            (AskBody::Approve(_) | AskBody::Decline(_), None) => false,
        };
        if counts {
            batch.put(key, ask::encode(ask));
        }
        Ok(counts)
    }

    /// Removes what a record settles.
    pub(super) fn settle(&self, batch: &mut Batch, record: &Record) -> Result<(), Error> {
        for kind in record.body.settles() {
            let key = keys::ask(&record.request, *kind);
            // Most requests are never asked for anything.
            if batch.holds(&key, &self.map)?.is_some() {
                batch.remove(key);
            }
        }
        Ok(())
    }

    /// See [`Register::asks`](crate::Register::asks).
    pub(super) fn kept(&self, request: &RequestId) -> Result<Vec<Ask>, Error> {
        if !keys::is_text(&request.0) {
            return Ok(Vec::new());
        }
        let (first, end) = keys::asks_of(request);
        let entries = self.map.range(&first, &end, false, usize::MAX)?;
        let read = |bytes: &[u8]| {
            ask::decode(bytes).map_err(|source| Error::Unreadable { what: "what is asked", source: source.into() })
        };
        entries.iter().map(|(_, bytes)| read(bytes)).collect()
    }

    /// See [`Register::asked`](crate::Register::asked).
    pub(super) fn all_kept(&self) -> Result<Vec<(RequestId, AskKind)>, Error> {
        let (first, end) = keys::asks();
        let entries = self.map.range(&first, &end, false, usize::MAX)?;
        Ok(entries.iter().filter_map(|(key, _)| keys::asked(key)).collect())
    }
}
