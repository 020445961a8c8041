//! A negotiation, message by message.

use std::fmt::Write as _;

use dagwright_model::facts::ProbeRequest;
use dagwright_model::message::{Envelope, Fact, Message, Question, Role, Transcript};

use super::{DIM, number, safe, styled};

/// Renders a transcript, a line each message.
pub(crate) fn transcript(transcript: &Transcript) -> String {
    let mut text = String::new();
    for (index, envelope) in transcript.0.iter().enumerate() {
        let _ = writeln!(text, "  {:>2} {} {}", index + 1, styled(DIM, direction(envelope)), said(&envelope.body));
    }
    text
}

fn direction(envelope: &Envelope) -> String {
    let (arrow, other) = match envelope.from.role {
        Role::Orchestrator => ("→", envelope.to.role),
        other => ("←", other),
    };
    format!("{arrow} {:<14}", other.as_str())
}

fn said(message: &Message) -> String {
    match message {
        Message::Observe { questions } => {
            format!("what is there? {}", questions.iter().map(asked).collect::<Vec<_>>().join(", "))
        }
        Message::Observed { observations } => {
            let failed = observations.iter().filter(|seen| matches!(seen.fact, Fact::Unavailable(_))).count();
            let all = number::counted(observations.len() as u64, "fact");
            if failed == 0 { all } else { format!("{all}, {failed} of them unavailable") }
        }
        Message::CallForProposals(call) => format!("round {}: how would you do it?", call.round),
        Message::Proposals { alternatives, .. } => {
            let ids = alternatives.iter().map(|offer| safe(&offer.id)).collect::<Vec<_>>();
            format!("offers {}", ids.join(", "))
        }
        Message::Conflicts { round, conflicts } => {
            let named = conflicts.iter().map(|conflict| safe(&conflict.message)).collect::<Vec<_>>();
            format!("round {round}: that does not fit: {}", named.join("; "))
        }
        Message::Counter { alternatives, .. } => {
            let ids = alternatives.iter().map(|offer| safe(&offer.id)).collect::<Vec<_>>();
            format!("counters with {}", ids.join(", "))
        }
        Message::Refuse { reason, .. } => format!("has nothing further to offer: {}", safe(reason)),
        Message::Award { alternatives } => {
            format!("chosen: {}", alternatives.iter().map(|id| safe(id)).collect::<Vec<_>>().join(", "))
        }
        Message::Committed => "stands by it".into(),
        Message::CommitFailed { problems } | Message::Failed { problems } => {
            problems.iter().map(|problem| safe(&problem.message)).collect::<Vec<_>>().join("; ")
        }
        Message::Sealed { plan } => format!("sealed as plan {}", plan.short()),
        Message::Deadlocked { conflicts } => {
            format!("deadlocked on {}", number::counted(conflicts.len() as u64, "conflict"))
        }
        Message::Expired { bound, .. } => format!("the bound on {} was reached", bound.as_str()),
    }
}

fn asked(question: &Question) -> String {
    match question {
        Question::Probe(ProbeRequest::Source { name, .. } | ProbeRequest::Sink { name, .. }) => name.to_string(),
        Question::Type(request) => number::counted(request.steps.len() as u64, "step"),
    }
}
