//! How long negotiating and compiling take when the profiles are known: the median over many rounds, printed.
//!
//! The facts are those that crate `negotiation` keeps for its goldens, so nothing is observed and nothing is read but
//! the specs. Run by `make bench`, in release.

use std::time::{Duration, Instant};

use dagwright_compiler::{Target, compile};
use dagwright_model::{
    facts::ProbeRequest,
    id::RequestId,
    message::{Fact, Facts, Question},
    spec::Spec,
};
use dagwright_negotiation::{replay::converse, session::Ending};
use dagwright_tests::repository;

/// Enough for a steady median, and still over within seconds.
const ROUNDS: usize = 201;

fn main() {
    println!("| negotiate + compile, profiles known | median ms |\n|---|---|");
    for example in ["flights", "flights_conflict", "flights_postgres"] {
        println!("| examples/{example}.yaml | {:.2} |", median(example).as_secs_f64() * 1000.0);
    }
}

fn median(example: &str) -> Duration {
    let read = |path: String| std::fs::read_to_string(repository().join(path)).expect("a file of the repository");
    let spec = Spec::parse(&read(format!("examples/{example}.yaml"))).expect("a valid example");
    let facts: Facts =
        serde_json::from_str(&read(format!("crates/negotiation/tests/facts/{example}.json"))).expect("facts");
    let observe = |question: &Question| match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(facts.typing.clone()),
    };
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let spec = spec.clone();
            let start = Instant::now();
            let found = converse(RequestId("bench".into()), spec, observe);
            let Ending::Sealed(plan) = found.ending else { panic!("{example} does not seal") };
            let artifacts = compile(&plan, Target::Airflow3);
            let elapsed = start.elapsed();
            assert_eq!(artifacts.len(), 2);
            elapsed
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}
