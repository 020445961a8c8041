//! Counts add up, whatever the data: a property over small random pipelines.

use dagwright_model::spec::{GateRule, LossyCast, OnFail, OrderBy, QualityGate, SinkMode};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, proptest};

use crate::memory::{Bench, block_on, name, people};

const PEOPLE: &str = "id:int64? who:string?";

fn rows() -> impl Strategy<Value = Vec<(Option<i64>, Option<String>)>> {
    let who = proptest::option::of("[0-9a-c]{0,3}");
    proptest::collection::vec((proptest::option::of(0..6_i64), who), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn counts_add_up(
        rows in rows(),
        chunk in 1..7_usize,
        gate_source in any::<bool>(),
        gate_step in any::<bool>(),
        upsert in any::<bool>(),
        twice in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let batches: Vec<_> = rows
            .chunks(chunk)
            .map(|rows| people(&rows.iter().map(|(id, who)| (*id, who.as_deref())).collect::<Vec<_>>()))
            .collect();
        let (even, odd): (Vec<_>, Vec<_>) = batches.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        let streams = [even, odd].map(|half| half.into_iter().map(|(_, batch)| batch).collect::<Vec<_>>());
        bench.source("src", PEOPLE, streams.to_vec());
        bench.step("some", "SELECT id, who FROM src WHERE id IS NULL OR id <> 3");
        bench.work().max_rejected = "100%".parse().unwrap();
        let gate = |gate: &str, on: &str, rule| QualityGate {
            name: name(gate),
            on: name(on),
            rule,
            on_fail: OnFail::Quarantine,
            max_rejected: "100%".parse().unwrap(),
        };
        if gate_source {
            bench.gate(gate("known", "src", GateRule::NotNull(vec!["who".into()])));
        }
        if gate_step {
            bench.gate(gate("early", "some", GateRule::Check("id < 4".into())));
        }
        let sinks: &[&str] = if twice { &["out", "other"] } else { &["out"] };
        for sink in sinks {
            let sink = bench.sink(sink, "some", "id:int64? who:int32?");
            sink.lossy = LossyCast::Quarantine;
            sink.min_rows = 0;
            if upsert {
                sink.mode = SinkMode::Upsert;
                sink.key = vec!["id".into()];
                sink.dedupe = vec![OrderBy { column: "who".into(), descending: true }];
            }
        }
        let outcome = block_on(bench.run());
        prop_assert_eq!(&outcome.problem, &None);
        let source = outcome.counts.sources["src"];
        prop_assert_eq!(source.read, rows.len() as u64);
        prop_assert_eq!(source.read, source.passed + source.quarantined);
        let unknown = rows.iter().filter(|(_, who)| who.is_none()).count() as u64;
        prop_assert_eq!(source.quarantined, if gate_source { unknown } else { 0 });
        let mut quarantined = source.quarantined;
        for sink in sinks {
            let counts = outcome.counts.sinks[*sink];
            prop_assert_eq!(counts.produced, outcome.counts.steps["some"]);
            prop_assert_eq!(counts.produced, counts.loaded + counts.quarantined + counts.superseded);
            prop_assert_eq!(counts.loaded, bench.loaded(sink).num_rows() as u64);
            quarantined += counts.quarantined;
        }
        if twice {
            // Rows that a gate rejects are rejected once, and missing in both sinks.
            quarantined -= outcome.counts.gates.get("early").copied().unwrap_or_default();
        }
        prop_assert_eq!(bench.quarantined().len() as u64, quarantined);
    }
}
