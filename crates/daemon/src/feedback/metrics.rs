//! What is measured of what Airflow tells.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use dagwright_telemetry::metric::{Label, Metric, SLOW_SECONDS};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

const SOURCE: Label = Label::of("source", &["http", "kafka"]);

const EVENTS: Metric = Metric::counter(
    "dagwright_feedback_events_total",
    "{event}",
    "Events of Airflow that were posted, or read from the topic of its event producer (of whichever DAGs).",
)
.labels(&[SOURCE, Label::of("outcome", &["heard", "repeated", "passed_over", "refused"])]);
const LAG_SECONDS: Metric = Metric::histogram(
    "dagwright_feedback_lag_seconds",
    "s",
    SLOW_SECONDS,
    "the first event of Airflow was heard",
    "How long after Airflow knew of something it was heard here, by the clocks of both machines.",
)
.labels(&[SOURCE]);
const DROPPED: Metric = Metric::counter(
    "dagwright_feedback_events_dropped_total",
    "{event}",
    "Events that Airflow's machines say were lost, as their spools were full.",
);

/// Every metric of feedback.
#[cfg(test)]
pub(crate) const TABLE: &[Metric] = &[EVENTS, LAG_SECONDS, DROPPED];

/// Which way an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Posted.
    Http,
    /// Read from a topic.
    Kafka,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Heard,
    Repeated,
    PassedOver,
    Refused,
}

struct Instruments {
    events: Counter<u64>,
    lag_seconds: Histogram<f64>,
    dropped: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright");
    Instruments {
        events: EVENTS.to_counter(&meter),
        lag_seconds: LAG_SECONDS.to_histogram(&meter),
        dropped: DROPPED.to_counter(&meter),
    }
});

/// Makes every series that can be there from the start.
pub(crate) fn prepare() {
    LazyLock::force(&INSTRUMENTS);
}

/// Counts an event that was heard, and measures how late.
pub(super) fn heard(source: Source, at: DateTime<Utc>, now: DateTime<Utc>) {
    // A clock that is ahead is no reason for less than nothing.
    let late = (now - at).to_std().unwrap_or_default();
    INSTRUMENTS.lag_seconds.record(late.as_secs_f64(), &[source_label(source)]);
    count(source, Outcome::Heard);
}

/// Counts an event.
pub(crate) fn count(source: Source, outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Heard => "heard",
        Outcome::Repeated => "repeated",
        Outcome::PassedOver => "passed_over",
        Outcome::Refused => "refused",
    };
    INSTRUMENTS.events.add(1, &[source_label(source), KeyValue::new("outcome", outcome)]);
}

/// Counts events that got lost.
pub(super) fn dropped(count: u32) {
    INSTRUMENTS.dropped.add(u64::from(count), &[]);
}

fn source_label(source: Source) -> KeyValue {
    KeyValue::new(
        SOURCE.name,
        match source {
            Source::Http => "http",
            Source::Kafka => "kafka",
        },
    )
}
