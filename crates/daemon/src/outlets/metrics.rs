//! What is measured of outlets; how many events wait for each is the outbox's `dagwright_outbox_depth_events`.

use std::{sync::LazyLock, time::Duration};

use dagwright_telemetry::metric::{Appears, FAST_SECONDS, Label, Metric};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

const WEBHOOK: Label = Label::few("webhook", "one for each outlet in the configuration");

const POSTS: Metric =
    Metric::counter("dagwright_webhook_posts_total", "{post}", "Posts of events to webhooks, each try by itself.")
        .labels(&[WEBHOOK, Label::of("outcome", &["delivered", "away", "unfit", "refused"])])
        .appears(Appears::After("the start of an outlet"));
const REFUSED: Metric = Metric::counter(
    "dagwright_webhook_events_refused_total",
    "{event}",
    "Events that a webhook refused again and again, and that it will not be told of any more.",
)
.labels(&[WEBHOOK])
.appears(Appears::After("the start of an outlet"));
const POST_SECONDS: Metric = Metric::histogram(
    "dagwright_webhook_post_seconds",
    "s",
    FAST_SECONDS,
    "the first post",
    "How long posts to webhooks took.",
)
.labels(&[WEBHOOK]);

/// Every metric of outlets.
#[cfg(test)]
pub(crate) const TABLE: &[Metric] = &[POSTS, REFUSED, POST_SECONDS];

/// What came of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    Away,
    Unfit,
    Refused,
}

struct Instruments {
    posts: Counter<u64>,
    refused: Counter<u64>,
    post_seconds: Histogram<f64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright");
    Instruments {
        posts: POSTS.to_counter(&meter),
        refused: REFUSED.to_counter(&meter),
        post_seconds: POST_SECONDS.to_histogram(&meter),
    }
});

/// Makes the series of an outlet.
pub(super) fn prepare(webhook: &str) {
    for outcome in [Outcome::Delivered, Outcome::Away, Outcome::Unfit, Outcome::Refused] {
        INSTRUMENTS.posts.add(0, &labels(webhook, outcome));
    }
    INSTRUMENTS.refused.add(0, &[KeyValue::new(WEBHOOK.name, webhook.to_owned())]);
}

pub(super) fn posted(webhook: &str, outcome: Outcome, took: Duration) {
    INSTRUMENTS.posts.add(1, &labels(webhook, outcome));
    INSTRUMENTS.post_seconds.record(took.as_secs_f64(), &[KeyValue::new(WEBHOOK.name, webhook.to_owned())]);
}

pub(super) fn given_up(webhook: &str) {
    INSTRUMENTS.refused.add(1, &[KeyValue::new(WEBHOOK.name, webhook.to_owned())]);
}

fn labels(webhook: &str, outcome: Outcome) -> [KeyValue; 2] {
    let outcome = match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Away => "away",
        Outcome::Unfit => "unfit",
        Outcome::Refused => "refused",
    };
    [KeyValue::new(WEBHOOK.name, webhook.to_owned()), KeyValue::new("outcome", outcome)]
}
