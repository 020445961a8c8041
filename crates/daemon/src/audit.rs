//! The audit log: who asked for what, and what came of it.
//!
//! Each call that changes something leaves a line, and so does each that is refused. Its lines have a target of their own
//! and are there whatever the log's level is, so they say all that is needed by themselves: the spans around them may not
//! be logged.

use std::net::IpAddr;

use dagwright_agents::metrics::{Answer, received};
use dagwright_model::{
    id::RequestId,
    record::{Accepted, Ingress},
};
use dagwright_telemetry::trace;
use tracing::field::display;

use crate::{admission::Requester, metrics};

/// The target of the lines.
pub(crate) const TARGET: &str = "audit";

/// What a line says, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name of a token or topic.
    pub(crate) caller: String,
    /// From where.
    pub(crate) peer: Option<IpAddr>,
    /// What was asked for.
    pub(crate) action: String,
    /// What it is about, where that is no request.
    pub(crate) subject: Option<String>,
    pub(crate) pipeline: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// A request was taken on.
    Accepted,
    /// It was known already.
    Repeated,
    /// It stands in the ledger, and another instance goes on with it.
    HandedOn,
    /// Something else was done.
    Done,
    /// It was refused, with this code.
    Refused(&'a str),
}

// === impl Entry ===

impl Entry {
    /// Notes the trace that a context belongs to.
    pub(crate) fn traced(&mut self, traceparent: Option<&str>) {
        self.trace_id = traceparent.and_then(trace::trace_id);
    }

    /// Writes the line.
    pub(crate) fn write(&self, outcome: Outcome) {
        let Self { caller, action, subject, pipeline, request_id, trace_id, .. } = self;
        let (caller, action) = (caller.as_str(), action.as_str());
        let (subject, pipeline) = (subject.as_deref(), pipeline.as_deref());
        let (request_id, trace_id, peer) = (request_id.as_deref(), trace_id.as_deref(), self.peer.map(display));
        let outcome = match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Repeated => "repeated",
            Outcome::HandedOn => "handed_on",
            Outcome::Done => "done",
            Outcome::Refused(code) => {
                let outcome = "refused";
                return tracing::warn!(
                    target: TARGET, caller, peer, action, subject, pipeline, request_id, trace_id, code, outcome, "refused"
                );
            }
        };
        tracing::info!(
            target: TARGET, caller, peer, action, subject, pipeline, request_id, trace_id, outcome, "asked for"
        );
    }
}

/// What is learnt of something that is asked for, until it is written down and counted.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) ingress: Ingress,
    pub(crate) entry: Entry,
    pub(crate) came: Came,
    /// Why it is refused.
    pub(crate) code: Option<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Accepted,
    Repeated,
    HandedOn,
    Done,
    Refused,
}

// === impl Line ===

impl Line {
    /// Begins the line of a requester.
    pub(crate) fn by(requester: &Requester) -> Self {
        let caller = requester.name.clone().unwrap_or_else(|| "anonymous".into());
        let entry = Entry { caller, action: "submit".into(), ..Entry::default() };
        Self { ingress: requester.ingress, entry, came: Came::Refused, code: None }
    }

    /// Makes the line of a request that another instance admitted.
    pub(crate) fn of(accepted: &Accepted, request: &RequestId) -> Self {
        let caller = accepted.requester.clone().unwrap_or_else(|| "anonymous".into());
        let subject = Some("ledger".to_owned());
        let mut entry = Entry { caller, action: "submit".into(), subject, ..Entry::default() };
        entry.pipeline = Some(accepted.pipeline.clone());
        entry.request_id = Some(request.0.clone());
        entry.traced(accepted.traceparent.as_deref());
        Self { ingress: accepted.ingress, entry, came: Came::Accepted, code: None }
    }

    /// Writes it down.
    pub(crate) fn write(&self) {
        let outcome = match self.came {
            Came::Accepted => Outcome::Accepted,
            Came::Repeated => Outcome::Repeated,
            Came::HandedOn => Outcome::HandedOn,
            Came::Done => Outcome::Done,
            Came::Refused => Outcome::Refused(self.code.as_deref().unwrap_or_default()),
        };
        self.entry.write(outcome);
    }

    /// Writes down what a message of Kafka came to, and counts it; HTTP's are counted where they are answered.
    pub(crate) fn tell(&self) {
        self.write();
        match self.came {
            _ if self.ingress != Ingress::Kafka => {}
            Came::Accepted => received(Ingress::Kafka, Answer::Accepted),
            Came::Repeated => received(Ingress::Kafka, Answer::Repeated),
            Came::Refused => metrics::refused(Ingress::Kafka, self.code.as_deref().unwrap_or_default()),
            Came::HandedOn | Came::Done => {}
        }
    }
}
