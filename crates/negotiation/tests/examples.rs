//! The plans of the example pipelines, from facts recorded once: a change of any rule shows here.

use std::{fmt::Write as _, fs, path::Path};

use dagwright_model::{
    canonical,
    facts::ProbeRequest,
    id::RequestId,
    message::{Bounds, Conflict, Fact, Facts, Question},
    spec::Spec,
};
use dagwright_negotiation::{
    explain::{Explanation, explain},
    replay::{converse, replay},
    session::Ending,
};

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[track_caller]
fn check(example: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let spec = Spec::parse(&read(here.join(format!("../../examples/{example}.yaml")))).expect("a valid example");
    let facts: Facts = serde_json::from_str(&read(here.join(format!("tests/facts/{example}.json")))).expect("facts");
    let observe = |question: &Question| match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(facts.typing.clone()),
    };
    let found = converse(RequestId("request".into()), spec.clone(), observe);
    let again = converse(RequestId("request".into()), spec.clone(), observe);
    assert_eq!(canonical::to_bytes(&found.transcript), canonical::to_bytes(&again.transcript), "N6");
    replay(spec, Bounds::default(), &found.transcript).expect("the transcript replays");
    let plan = match &found.ending {
        Ending::Sealed(plan) => Some(&**plan),
        Ending::Deadlocked(_) | Ending::Expired { .. } | Ending::Failed(_) => None,
    };
    insta::assert_snapshot!(format!("{example}.explanation"), told(&explain(plan, &found.transcript)));
    if let Some(plan) = plan {
        insta::assert_snapshot!(format!("{example}.plan"), canonical::to_pretty(plan));
    }
}

/// The explanation as indented text, to be read in a diff.
fn told(explanation: &Explanation) -> String {
    let mut text = String::new();
    for choice in &explanation.choices {
        let cost = choice.cost;
        let _ =
            writeln!(text, "{}: {} ({} ms, {} B)", choice.subject, choice.rationale, cost.cpu_ms, cost.memory_bytes);
        for lost in &choice.rejected {
            let _ = writeln!(text, "  not {}: {}", lost.alternative, lost.why);
        }
    }
    for round in &explanation.rounds {
        let _ = writeln!(text, "round {}", round.round);
        conflicts(&mut text, &round.conflicts);
        for (id, rationale) in &round.counters {
            let _ = writeln!(text, "  countered by {id}: {rationale}");
        }
        for role in &round.refusals {
            let _ = writeln!(text, "  refused by {role}");
        }
    }
    if !explanation.open.is_empty() {
        let _ = writeln!(text, "left open");
        conflicts(&mut text, &explanation.open);
    }
    for line in &explanation.lines {
        let said = format!("{} → {}: {} {}", line.from, line.to, line.kind, line.summary);
        let _ = writeln!(text, "{}", said.trim_end());
    }
    text
}

fn conflicts(text: &mut String, conflicts: &[Conflict]) {
    for conflict in conflicts {
        let _ = writeln!(text, "  {} of {}: {}", conflict.owner, conflict.subject, conflict.message);
        for remedy in &conflict.remedies {
            let _ = writeln!(text, "    {}: {}", remedy.path, remedy.change);
        }
    }
}

#[test]
fn flights() {
    check("flights");
}

#[test]
fn flights_conflict() {
    check("flights_conflict");
}

#[test]
fn flights_deadlock() {
    check("flights_deadlock");
}

#[test]
fn flights_postgres() {
    check("flights_postgres");
}
