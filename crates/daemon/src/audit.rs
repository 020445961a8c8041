//! The audit log: who asked for what, and what came of it.
//!
//! Each call that changes something leaves a line, and so does each that is refused. Its lines have a target of their own
//! and are there whatever the log's level is, so they say all that is needed by themselves: the spans around them may not
//! be logged.

use std::net::IpAddr;

use dagwright_store::RequestSummary;
use dagwright_telemetry::trace;
use tracing::field::display;

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

    /// Notes which request it is about.
    pub(crate) fn about(&mut self, request: &RequestSummary) {
        (self.request_id, self.pipeline) = (Some(request.request.0.clone()), Some(request.pipeline.clone()));
        self.traced(request.traceparent.as_deref());
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
