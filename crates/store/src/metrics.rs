//! What is measured of the ledger and its outbox.

use std::{sync::LazyLock, time::Duration};

use dagwright_telemetry::metric::{Appears, FAST_SECONDS, Label, Metric};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

use crate::Error;

const APPEND_SECONDS: Metric = Metric::histogram(
    "dagwright_store_append_seconds",
    "s",
    FAST_SECONDS,
    "the first append",
    "How long appends to the ledger took, their flush included.",
)
.labels(&[Label::of("outcome", &["appended", "conflict", "failed"])]);

const OUTBOX_DEPTH: Metric = Metric::gauge(
    "dagwright_outbox_depth_events",
    "{event}",
    "Events that are in the outbox and not delivered to this reader.",
)
.labels(&[Label::few("reader", "one for each outlet in the configuration")])
.appears(Appears::After("the start of an outlet"));

const FORGOTTEN: Metric =
    Metric::counter("dagwright_store_forgotten_total", "{item}", "What was removed from the store because of its age.")
        .labels(&[Label::of("what", &["requests", "events"])]);

/// Every metric of this crate.
pub const TABLE: &[Metric] = &[APPEND_SECONDS, OUTBOX_DEPTH, FORGOTTEN];

struct Instruments {
    append_seconds: Histogram<f64>,
    outbox_depth: Gauge<u64>,
    forgotten: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright-store");
    Instruments {
        append_seconds: APPEND_SECONDS.to_histogram(&meter),
        outbox_depth: OUTBOX_DEPTH.to_gauge(&meter),
        forgotten: FORGOTTEN.to_counter(&meter),
    }
});

/// Makes every series that can be there from the start.
pub fn prepare() {
    LazyLock::force(&INSTRUMENTS);
}

pub(crate) fn forgotten(what: &'static str, count: usize) {
    INSTRUMENTS.forgotten.add(count as u64, &[KeyValue::new("what", what)]);
}

pub(crate) fn appended(outcome: &Result<(), Error>, took: Duration) {
    let outcome = match outcome {
        Ok(()) => "appended",
        Err(Error::Conflict { .. }) => "conflict",
        Err(_) => "failed",
    };
    INSTRUMENTS.append_seconds.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
}

/// Measures how many events wait for a reader, for those that read them elsewhere than here too.
pub fn undelivered(reader: &str, events: u64) {
    INSTRUMENTS.outbox_depth.record(events, &[KeyValue::new("reader", reader.to_owned())]);
}
