//! What was found, offered, refused and agreed.

use std::collections::BTreeMap;

use dagwright_model::{
    message::{Alternative, Conflict, Envelope, Fact, Message, Observation, SOLE_INSTANCE},
    plan::Plan,
};

use super::problem;
use crate::render::{facts, number, plan};

/// Tells what was observed, and by whom.
pub(super) fn fact(observation: &Observation) -> String {
    let by = &observation.origin.source;
    let by = if by.is_empty() { String::new() } else { format!(" (from {by})") };
    match &observation.fact {
        Fact::Source(profile) => format!("extraction saw {}: {}{by}.", profile.source, facts::source(profile)),
        Fact::Sink(inspection) => format!("loading saw {}: {}{by}.", inspection.sink, facts::sink(inspection)),
        Fact::Typing(typing) => {
            let steps = number::counted(typing.steps.len() as u64, "step");
            format!("transformation typed {steps}{by}.")
        }
        Fact::Unavailable(problems) => {
            format!("Something could not be seen{by}: {}", problems.iter().map(problem).collect::<Vec<_>>().join(" "))
        }
    }
}

/// Tells what a message said, if it says anything that others do not tell.
pub(super) fn said(envelope: &Envelope) -> Vec<String> {
    // The agent of a role, unless it is another one.
    let from = match envelope.from.instance.as_str() {
        SOLE_INSTANCE => envelope.from.role.to_string(),
        _ => envelope.from.to_string(),
    };
    match &envelope.body {
        Message::Proposals { alternatives, .. } => vec![format!("{from} offered {}.", offers(alternatives))],
        Message::Conflicts { round, conflicts } => {
            let first = format!("Round {round}: {} in the way.", number::counted(conflicts.len() as u64, "thing"));
            [vec![first], conflicts.iter().map(conflict).collect()].concat()
        }
        Message::Counter { alternatives, .. } => {
            let because = alternatives.iter().map(|offer| offer.rationale.as_str()).collect::<Vec<_>>().join("; ");
            vec![format!("{from} countered with {}: {because}.", offers(alternatives))]
        }
        Message::Refuse { round: 0, reason } => vec![format!("{from} looked at nothing: {reason}.")],
        Message::Refuse { reason, .. } => vec![format!("{from} had nothing further to offer: {reason}.")],
        Message::CommitFailed { problems } => {
            let why = problems.iter().map(problem).collect::<Vec<_>>().join(" ");
            vec![format!("{from} did not commit to the plan: {why}")]
        }
        Message::Deadlocked { conflicts } => conflicts.iter().map(conflict).collect(),
        Message::Expired { bound, conflicts } => {
            let first = format!("The bound on {} was reached.", bound.as_str());
            [vec![first], conflicts.iter().map(conflict).collect()].concat()
        }
        // Told by the facts, by the plan, or by how it ended.
        Message::Observe { .. }
        | Message::Observed { .. }
        | Message::CallForProposals(_)
        | Message::Award { .. }
        | Message::Committed
        | Message::Sealed { .. }
        | Message::Failed { .. } => Vec::new(),
    }
}

/// Tells what won, at which cost, and what lost and why.
pub(super) fn choices(sealed: &Plan) -> Vec<String> {
    let mut told = Vec::new();
    for choice in &sealed.choices {
        let chosen = plan::variant(&choice.chosen);
        let cost = plan::cost(&choice.cost);
        told.push(format!("{} does {chosen} for {} ({cost}): {}.", choice.role, choice.subject, choice.rationale));
        told.extend(choice.rejected.iter().map(|lost| {
            format!("Not {} ({}): {}.", plan::variant(&lost.alternative), plan::cost(&lost.cost), lost.why)
        }));
    }
    told
}

fn offers(alternatives: &[Alternative]) -> String {
    let mut subjects: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for offer in alternatives {
        subjects.entry(&offer.subject).or_default().push(plan::variant(&offer.id));
    }
    let told = subjects.into_iter().map(|(subject, variants)| format!("{} for {subject}", variants.join(" or ")));
    let told = told.collect::<Vec<_>>().join(", ");
    if told.is_empty() { "nothing".into() } else { told }
}

fn conflict(conflict: &Conflict) -> String {
    let ways = conflict.remedies.iter().map(|remedy| match remedy.path.as_str() {
        "" => remedy.change.clone(),
        path => format!("{path}: {}", remedy.change),
    });
    let ways = ways.collect::<Vec<_>>().join("; or ");
    let ways = if ways.is_empty() { String::new() } else { format!(" A way out: {ways}.") };
    format!("{} on {}: {}.{ways}", conflict.owner, conflict.subject, conflict.message)
}
