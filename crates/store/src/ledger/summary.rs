//! What is known of a request at a glance: at its acceptance, and what follows from it.

use dagwright_model::{
    event::{self, Event, Subject},
    record::{Accepted, Ingress, Purpose, Record},
};

use crate::{Error, RequestState, RequestSummary, keys};

/// Returns what is known of a request at its acceptance.
pub(super) fn accept(record: &Record, accepted: &Accepted) -> Result<RequestSummary, Error> {
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
        ingress: accepted.ingress,
        requester: accepted.requester.clone(),
        traceparent: accepted.traceparent.clone(),
        run_started_at: None,
        dag_run: None,
        replans: false,
        rows: None,
        problem: None,
    })
}

// === impl RequestSummary ===

impl RequestSummary {
    pub(super) fn is_unfinished_run(&self) -> bool {
        match self.purpose {
            Purpose::Run => self.state.is_unfinished(),
            Purpose::Plan | Purpose::Apply | Purpose::Pause | Purpose::Delete => false,
        }
    }

    /// Tells whether a service took the request on, which then goes on with it; a command does that itself.
    pub(super) fn is_served(&self) -> bool {
        match self.ingress {
            Ingress::Http | Ingress::Kafka | Ingress::Airflow => true,
            Ingress::CommandLine => false,
        }
    }

    /// Returns what the outside is told of a record that this summary has taken in.
    pub(super) fn tell(&self, record: &Record) -> Option<Event> {
        if self.purpose == Purpose::Plan {
            return None; // Whoever only looks gets the answer at once, and changes nothing.
        }
        let subject = Subject {
            pipeline: &self.pipeline,
            plan: self.plan.as_ref(),
            runs: self.run_started_at.is_some() && !self.replans,
            dag_run: self.dag_run.as_deref(),
            traceparent: self.traceparent.as_deref(),
        };
        event::of(subject, record)
    }
}
