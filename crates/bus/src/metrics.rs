//! What is measured of Kafka: the counts that an instance keeps, shown whenever somebody asks.
//!
//! Lag is told by topic, not by partition: partitions wander between the instances of a group, and what one of them last
//! knew of a partition that is another's now is no longer true.

use std::sync::Arc;

use dagwright_telemetry::metric::{Appears, Label, Metric};
use opentelemetry::{KeyValue, global};

use crate::kafka::{Count, Stats, Topics};

const RECEIVED: Metric = kafka(Metric::counter(
    "dagwright_kafka_records_received_total",
    "{record}",
    "Records that were taken from topics with requests, those that came again included.",
));
const COMMITTED: Metric = kafka(Metric::counter(
    "dagwright_kafka_records_committed_total",
    "{record}",
    "Records of ledger, events and other topics that became visible.",
));
const TRANSACTIONS: Metric = kafka(Metric::counter(
    "dagwright_kafka_transactions_total",
    "{transaction}",
    "Transactions that became visible, and those that came to nothing and were tried again.",
))
.labels(&[Label::of("outcome", &["committed", "aborted"])]);
const COMMITS_LOST: Metric = kafka(Metric::counter(
    "dagwright_kafka_commits_lost_total",
    "{commit}",
    "Commits that were refused as their partition is another's, or whose outcome was not known; nothing is lost with them.",
))
.labels(&[Label::of("reason", &["fenced", "in_doubt"])]);
const PRODUCERS_REBUILT: Metric = kafka(Metric::counter(
    "dagwright_kafka_producers_rebuilt_total",
    "{producer}",
    "Producers that were given up for a new one.",
));
const DEAD_LETTERS: Metric = kafka(Metric::counter(
    "dagwright_dead_letters_total",
    "{record}",
    "Requests that could not be read or were refused, and went to the dead letters.",
));
const FORWARDED: Metric = kafka(Metric::counter(
    "dagwright_kafka_requests_forwarded_total",
    "{record}",
    "Requests that went on to their pipeline's partition.",
));
const LEDGER_READ: Metric = kafka(Metric::counter(
    "dagwright_kafka_ledger_records_read_total",
    "{record}",
    "Ledger records that were read into the local cache.",
));
const PAUSED: Metric = kafka(Metric::gauge(
    "dagwright_kafka_paused",
    "",
    "1 while requests are left where they are, as there is no room for more.",
));
const LAG: Metric = kafka(Metric::gauge(
    "dagwright_consumer_lag_records",
    "{record}",
    "Records behind what was committed, over the partitions that this process owns, as of some seconds ago; Kafka's markers count.",
))
.labels(&[Label::few("topic", "the topics with requests: our own, and those of `kafka.ingress`")]);

/// Every metric of this crate.
pub const TABLE: &[Metric] = &[
    RECEIVED,
    COMMITTED,
    TRANSACTIONS,
    COMMITS_LOST,
    PRODUCERS_REBUILT,
    DEAD_LETTERS,
    FORWARDED,
    LEDGER_READ,
    PAUSED,
    LAG,
];

/// Shows what an instance counts, from now on: once in a process.
pub fn observe(stats: &Arc<Stats>, topics: &Topics) {
    type Read = fn(&Stats) -> &Count;
    type Told = (Metric, &'static str, [(&'static str, Read); 2]);
    let topics: Vec<_> = [&topics.requests].into_iter().chain(&topics.ingress).cloned().collect();
    let meter = global::meter("dagwright-bus");
    let plain: [(Metric, Read); 6] = [
        (RECEIVED, |stats| &stats.consumed),
        (COMMITTED, |stats| &stats.produced),
        (PRODUCERS_REBUILT, |stats| &stats.rebuilt),
        (DEAD_LETTERS, |stats| &stats.dead_letters),
        (FORWARDED, |stats| &stats.forwarded),
        (LEDGER_READ, |stats| &stats.tailed),
    ];
    for (metric, read) in plain {
        let stats = stats.clone();
        metric.observe_counter(&meter, move |observer| observer.observe(read(&stats).get(), &[]));
    }
    let told: [Told; 2] = [
        (TRANSACTIONS, "outcome", [("committed", |stats| &stats.committed), ("aborted", |stats| &stats.aborted)]),
        (COMMITS_LOST, "reason", [("fenced", |stats| &stats.fenced), ("in_doubt", |stats| &stats.in_doubt)]),
    ];
    for (metric, label, series) in told {
        let stats = stats.clone();
        metric.observe_counter(&meter, move |observer| {
            for (value, read) in series {
                observer.observe(read(&stats).get(), &[KeyValue::new(label, value)]);
            }
        });
    }
    let paused = stats.clone();
    PAUSED.observe_gauge(&meter, move |observer| observer.observe(u64::from(paused.paused.get()), &[]));
    let stats = stats.clone();
    LAG.observe_gauge(&meter, move |observer| {
        let lag = stats.lag();
        for topic in &topics {
            let behind = lag.iter().filter(|((known, _), _)| known == topic).map(|(_, behind)| behind).sum();
            observer.observe(behind, &[KeyValue::new("topic", topic.clone())]);
        }
    });
}

const fn kafka(metric: Metric) -> Metric {
    metric.appears(Appears::Where("with `bus.kind = \"kafka\"`"))
}
