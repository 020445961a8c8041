//! A negotiation told to a person: what was chosen, what lost and why, and how conflicts were resolved.
//!
//! Plain data, for a terminal, JSON or a DAG's documentation; it holds no time and no value from the data.

use dagwright_model::{
    message::{Conflict, Cost, Message, Party, Role, Transcript},
    plan::{Choice, Plan},
};
use serde::Serialize;

/// A negotiation, told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What the run is expected to cost; `None` without a plan.
    pub cost: Option<Cost>,
    /// One for each subject; empty without a plan.
    pub choices: Vec<Choice>,
    /// The conflicts on the way, round by round.
    pub rounds: Vec<Round>,
    /// The conflicts that were left.
    pub open: Vec<Conflict>,
    /// The transcript, one line a message.
    pub lines: Vec<Line>,
}

/// A round of conflicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Round {
    /// Its number.
    pub round: u32,
    /// What stood in the way.
    pub conflicts: Vec<Conflict>,
    /// Who countered with what: alternative and rationale.
    pub counters: Vec<(String, String)>,
    /// Who had nothing to offer.
    pub refusals: Vec<Role>,
}

/// A message in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Who said it.
    pub from: Party,
    /// To whom.
    pub to: Party,
    /// Which message.
    pub kind: &'static str,
    /// What it came to, in a few words.
    pub summary: String,
}

/// Tells a negotiation.
#[must_use]
pub fn explain(plan: Option<&Plan>, transcript: &Transcript) -> Explanation {
    let mut rounds: Vec<Round> = Vec::new();
    let mut open = Vec::new();
    for envelope in &transcript.0 {
        match &envelope.body {
            Message::Conflicts { round, conflicts } if rounds.last().is_none_or(|last| last.round < *round) => {
                let conflicts = conflicts.clone();
                rounds.push(Round { round: *round, conflicts, counters: Vec::new(), refusals: Vec::new() });
            }
            Message::Counter { round, alternatives } => {
                if let Some(last) = rounds.last_mut().filter(|last| last.round == *round) {
                    last.counters.extend(alternatives.iter().map(|a| (a.id.clone(), a.rationale.clone())));
                }
            }
            Message::Refuse { round, .. } => {
                if let Some(last) = rounds.last_mut().filter(|last| last.round == *round) {
                    last.refusals.push(envelope.from.role);
                }
            }
            Message::Deadlocked { conflicts } | Message::Expired { conflicts, .. } => open.clone_from(conflicts),
            Message::Conflicts { .. }
            | Message::Observe { .. }
            | Message::Observed { .. }
            | Message::CallForProposals(_)
            | Message::Proposals { .. }
            | Message::Award { .. }
            | Message::Committed
            | Message::CommitFailed { .. }
            | Message::Sealed { .. }
            | Message::Failed { .. } => {}
        }
    }
    let lines = transcript.0.iter().map(|envelope| Line {
        from: envelope.from.clone(),
        to: envelope.to.clone(),
        kind: envelope.body.kind(),
        summary: summary(&envelope.body),
    });
    Explanation {
        cost: plan.map(|plan| plan.cost),
        choices: plan.map(|plan| plan.choices.clone()).unwrap_or_default(),
        rounds,
        open,
        lines: lines.collect(),
    }
}

/// Puts a message in a few words.
#[must_use]
pub fn summary(message: &Message) -> String {
    let ids = |alternatives: &[dagwright_model::message::Alternative]| {
        alternatives.iter().map(|alternative| alternative.id.as_str()).collect::<Vec<_>>().join(", ")
    };
    let conflicts_in_words =
        |found: &[Conflict]| found.iter().map(|conflict| conflict.message.as_str()).collect::<Vec<_>>().join("; ");
    match message {
        Message::Observe { questions } => count(questions.len(), "question"),
        Message::Observed { observations } => count(observations.len(), "fact"),
        Message::CallForProposals(call) => format!("round {}", call.round),
        Message::Proposals { alternatives, .. } | Message::Counter { alternatives, .. } => ids(alternatives),
        Message::Conflicts { round, conflicts } => format!("round {round}: {}", conflicts_in_words(conflicts)),
        Message::Refuse { reason, .. } => reason.clone(),
        Message::Award { alternatives } => alternatives.join(", "),
        Message::Committed => String::new(),
        Message::CommitFailed { problems } | Message::Failed { problems } => {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        Message::Sealed { plan } => plan.short().to_string(),
        Message::Deadlocked { conflicts } => conflicts_in_words(conflicts),
        Message::Expired { bound, .. } => format!("bound of {} reached", bound.as_str()),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
