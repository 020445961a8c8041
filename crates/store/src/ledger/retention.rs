//! Forgetting what is old.
//!
//! A request goes in one batch, so a crash leaves all of it or nothing; what was not flushed is forgotten again. Plans are
//! counted by who has them: a plan goes with the last request that has it, and the request that holds it in its records
//! goes after those that only use it.

use std::sync::PoisonError;

use dagwright_model::{
    canonical,
    event::Event,
    id::{PlanHash, RequestId},
    record::{Purpose, RecordBody},
};
use dagwright_wire::record;

use super::{Batch, Ledger, OrderedMap};
use crate::{
    Error, Forgettable, Mark, Outbox, Register, RequestState, RequestSummary, Retention, Store, keys, metrics,
};

impl<M: OrderedMap> Retention for Ledger<M> {
    fn forgettable(&self, before: u64, after: Option<&Mark>, limit: usize) -> Result<Forgettable, Error> {
        let mut found = Forgettable::default();
        let looked = after.is_some_and(|mark| mark.looked);
        let key = |at, request: &RequestId| {
            if looked { keys::looked(at, request) } else { keys::by_time(at, request) }
        };
        let nobody = RequestId(String::new());
        let (first, end) = match after {
            // Behind it: nothing stands between a key and itself with a zero.
            Some(mark) => ([key(mark.at, &mark.request), vec![0]].concat(), key(before, &nobody)),
            None => (keys::by_time_first(), key(before, &nobody)),
        };
        let entries = if first < end { self.map.range(&first, &end, false, limit)? } else { Vec::new() };
        for (key, _) in &entries {
            let Some(summary) = keys::timed_request(key).map(|id| self.request(&id)).transpose()?.flatten() else {
                continue;
            };
            if summary.changed_at < before && self.may_go(&summary)? {
                found.requests.push(summary);
            }
        }
        let last = entries.last().filter(|_| entries.len() == limit);
        found.next = match last.and_then(|(key, _)| Some((keys::time(key)?, keys::timed_request(key)?))) {
            Some((at, request)) => Some(Mark { looked, at, request }),
            None if looked => None,
            None => Some(Mark { looked: true, at: 0, request: nobody }),
        };
        Ok(found)
    }

    fn forget(&self, requests: &[RequestId]) -> Result<usize, Error> {
        let mut forgotten = 0;
        for request in requests {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // What was found before may be otherwise now.
            let Some(summary) = self.request(request)? else { continue };
            if self.may_go(&summary)? {
                self.map.apply(self.removal(&summary)?.0)?;
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            self.map.flush()?;
        }
        metrics::forgotten("requests", forgotten);
        Ok(forgotten)
    }

    fn forget_events(&self, before: u64, up_to: u64, limit: usize) -> Result<usize, Error> {
        let end = self.newest_event()?.min(up_to.saturating_add(1));
        let mut batch = Batch::default();
        for (key, bytes) in self.map.range(&keys::event(0), &keys::event(end), false, limit)? {
            let event: Event = serde_json::from_slice(&bytes)
                .map_err(|source| Error::Unreadable { what: "an event", source: source.into() })?;
            if event.at >= before {
                break;
            }
            batch.remove(key);
        }
        let forgotten = batch.0.len();
        if forgotten > 0 {
            self.map.apply(batch.0)?;
            self.map.flush()?;
        }
        metrics::forgotten("events", forgotten);
        Ok(forgotten)
    }
}

impl<M: OrderedMap> Ledger<M> {
    /// Tells whether a request has ended and is needed by nothing that is kept.
    fn may_go(&self, summary: &RequestSummary) -> Result<bool, Error> {
        let has_ended = summary.state.is_final()
            // Nobody goes on with what a command left, but with a plan that it runs.
            || (!summary.is_served()
                && (summary.purpose == Purpose::Plan || summary.state == RequestState::Negotiating));
        Ok(has_ended && !self.pipeline_needs(summary)? && !self.others_need_its_plan(summary)?)
    }

    fn pipeline_needs(&self, summary: &RequestSummary) -> Result<bool, Error> {
        let Some(pipeline) = self.pipeline(&summary.pipeline)? else { return Ok(false) };
        let (request, is) = (&summary.request, |other: &Option<RequestId>| other.as_ref() == Some(&summary.request));
        // An older version did not write down who ran last, and who changed the pipeline.
        let may_have_run = pipeline.ran.is_none() && pipeline.baseline.is_some() && pipeline.baseline == summary.plan;
        let may_have_changed =
            pipeline.changed.is_none() && matches!(summary.purpose, Purpose::Apply | Purpose::Pause | Purpose::Delete);
        Ok(pipeline.newest == *request
            || is(&pipeline.applied)
            || is(&pipeline.ran)
            || is(&pipeline.changed)
            || may_have_run
            || may_have_changed)
    }

    /// Tells whether a plan lies in this request's records alone, and another request uses it.
    fn others_need_its_plan(&self, summary: &RequestSummary) -> Result<bool, Error> {
        let Some(plan) = &summary.plan else { return Ok(false) };
        let own = keys::sealed(plan, &summary.request);
        if self.map.get(&own)?.is_none() {
            return Ok(false);
        }
        let [first, used, end] = keys::of_plan_ranges(plan);
        let is_another = |entries: Vec<(Vec<u8>, Vec<u8>)>| entries.iter().any(|(key, _)| *key != own);
        let is_elsewhere = is_another(self.map.range(&first, &used, false, 2)?);
        Ok(!is_elsewhere && is_another(self.map.range(&used, &end, false, 1)?))
    }

    /// Returns what removes a request, and what only it has.
    pub(super) fn removal(&self, summary: &RequestSummary) -> Result<Batch, Error> {
        let request = &summary.request;
        let mut batch = Batch::default();
        let (first, end) = keys::records_range(request);
        for (key, bytes) in self.map.range(&first, &end, false, usize::MAX)? {
            batch.remove(key);
            let read = record::decode(&bytes)
                .map_err(|source| Error::Unreadable { what: "a record", source: source.into() })?;
            match read.body {
                RecordBody::FactRecorded(fact) => {
                    let key = keys::fact(&fact.key);
                    // A later answer is another request's.
                    if self.map.get(&key)? == Some(canonical::to_bytes(&fact.observation)) {
                        batch.remove(key);
                    }
                }
                RecordBody::PlanSealed(sealed) => self.leave(&mut batch, &sealed.hash, request)?,
                RecordBody::PlanReused(reused) => self.leave(&mut batch, &reused.hash, request)?,
                _ => {}
            }
        }
        batch.remove(keys::of_pipeline(&summary.pipeline, summary.accepted_at, request));
        batch.remove(keys::by_time(summary.accepted_at, request));
        batch.remove(keys::looked(summary.accepted_at, request));
        batch.remove(keys::open(summary.accepted_at, request));
        batch.remove(keys::summary(request));
        Ok(batch)
    }

    /// Notes that a request has a plan no more; the last one takes it along.
    fn leave(&self, batch: &mut Batch, plan: &PlanHash, request: &RequestId) -> Result<(), Error> {
        let own = [keys::sealed(plan, request), keys::reused(plan, request)];
        let [first, _, end] = keys::of_plan_ranges(plan);
        let entries = self.map.range(&first, &end, false, own.len() + 1)?;
        // Without an entry of its own it is of an older version: then nobody knows who else has the plan.
        let is_known = entries.iter().any(|(key, _)| own.contains(key));
        if is_known && entries.iter().all(|(key, _)| own.contains(key)) {
            batch.remove(keys::plan(plan));
        }
        own.into_iter().for_each(|key| batch.remove(key));
        Ok(())
    }
}
