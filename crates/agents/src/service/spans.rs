//! What the trace of a request shows of it.
//!
//! Every span is a child of the context in the ledger, so a trace goes on with the next process. What agents say is told
//! after the fact, from the ledger: that holds wherever the agents are, and costs their messages nothing.

use std::collections::BTreeMap;

use dagwright_engine::RunOutcome;
use dagwright_model::{
    id::RequestId,
    message::{Envelope, Message, Party},
    record::{Accepted, Record, RecordBody},
    task::{Problem, Status},
};
use dagwright_negotiation::session::Ending;
use dagwright_telemetry::trace::{self, Past};
use tracing::{Span, field};

/// Whose spans they are.
const SCOPE: &str = "dagwright-agents";

/// What a participant is at work on.
struct Asked {
    what: &'static str,
    round: Option<u32>,
    at: u64,
}

/// Returns a span that is in no trace: it gives the log lines of a request the ids to find them by.
pub(super) fn log(request: &RequestId, traceparent: Option<&str>) -> Span {
    let trace_id = traceparent.and_then(trace::trace_id);
    tracing::info_span!(target: "log", "request", request_id = %request, trace_id)
}

pub(super) fn negotiation(accepted: &Accepted) -> Span {
    let span = tracing::info_span!(
        "negotiation",
        pipeline = accepted.pipeline,
        outcome = field::Empty,
        otel.status_code = field::Empty,
        error.code = field::Empty,
    );
    trace::continue_from(&span, accepted.traceparent.as_deref());
    span
}

/// Notes how a negotiation ended, and shows what each agent did in it, as its records say.
pub(super) fn negotiated(span: &Span, ending: &Ending, records: &[Record]) {
    let (outcome, code) = match ending {
        Ending::Sealed(_) => ("sealed", None),
        Ending::Deadlocked(_) => ("deadlocked", None),
        Ending::Expired { .. } => ("expired", None),
        Ending::Failed(problems) => ("failed", problems.first().map(|problem| problem.code)),
    };
    span.record("outcome", outcome);
    if outcome != "sealed" {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(code) = code {
        span.record("error.code", field::display(code));
    }
    let mut asked = BTreeMap::new();
    let work = records.iter().filter_map(|record| match &record.body {
        RecordBody::MessageSent(envelope) => said(envelope, record.at, &mut asked),
        _ => None,
    });
    trace::tell(SCOPE, span, work.collect::<Vec<_>>());
}

pub(super) fn compiled(traceparent: Option<&str>, began_ms: u64, ended_ms: u64) {
    let past = Past { name: "compile", began_ms, ended_ms, attributes: Vec::new(), failure: None };
    trace::tell_from(SCOPE, traceparent, [past]);
}

pub(super) fn run(accepted: &Accepted) -> Span {
    let span = tracing::info_span!(
        "run",
        pipeline = accepted.pipeline,
        otel.status_code = field::Empty,
        error.code = field::Empty,
    );
    trace::continue_from(&span, accepted.traceparent.as_deref());
    span
}

pub(super) fn ran(span: &Span, outcome: &RunOutcome) {
    match outcome.status {
        Status::Succeeded => {}
        Status::Failed | Status::Cancelled => {
            span.record("otel.status_code", "ERROR");
            if let Some(problem) = &outcome.problem {
                span.record("error.code", field::display(problem.code));
            }
        }
    }
}

/// Takes a message in; returns what a participant has done when it answers.
fn said(envelope: &Envelope, at: u64, asked: &mut BTreeMap<Party, Asked>) -> Option<Past> {
    let mut ask = |what, round| {
        asked.insert(envelope.to.clone(), Asked { what, round, at });
        None
    };
    let failure = match &envelope.body {
        Message::Observe { .. } => return ask("observe", None),
        Message::CallForProposals(call) => return ask("propose", Some(call.round)),
        Message::Conflicts { round, .. } => return ask("counter", Some(*round)),
        Message::Award { .. } => return ask("commit", None),
        Message::Observed { .. }
        | Message::Proposals { .. }
        | Message::Counter { .. }
        | Message::Refuse { .. }
        | Message::Committed => None,
        Message::CommitFailed { problems } => problems.first().map(|Problem { code, .. }| code.to_string()),
        Message::Sealed { .. } | Message::Deadlocked { .. } | Message::Expired { .. } | Message::Failed { .. } => {
            return None;
        }
    };
    let Asked { what, round, at: began_ms } = asked.remove(&envelope.from)?;
    let mut attributes = vec![("agent", envelope.from.role.as_str().to_owned())];
    attributes.extend(round.map(|round| ("round", round.to_string())));
    Some(Past { name: what, began_ms, ended_ms: at, attributes, failure })
}
