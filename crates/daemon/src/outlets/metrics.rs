//! What is measured of outlets; how many events wait for each is the outbox's `dagwright_outbox_depth_events`.

use std::{sync::LazyLock, time::Duration};

use dagwright_telemetry::metric::{Appears, FAST_SECONDS, Label, Metric};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

const WEBHOOK: Label = Label::few("webhook", "one for each outlet in the configuration");
const TO: Label = Label::few("to", "`http` and `kafka`, as far as they are set");
const OUTCOME: Label = Label::of("outcome", &["delivered", "away", "unfit", "refused"]);

const POSTS: Metric =
    Metric::counter("dagwright_webhook_posts_total", "{post}", "Posts of events to webhooks, each try by itself.")
        .labels(&[WEBHOOK, OUTCOME])
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

const LINEAGE_POSTS: Metric = Metric::counter(
    "dagwright_lineage_posts_total",
    "{post}",
    "Posts of OpenLineage's run events, each try by itself.",
)
.labels(&[TO, OUTCOME])
.appears(Appears::After("the start of an outlet"));
const LINEAGE_REFUSED: Metric = Metric::counter(
    "dagwright_lineage_events_refused_total",
    "{event}",
    "Run events that were refused again and again, and that are not posted any more.",
)
.labels(&[TO])
.appears(Appears::After("the start of an outlet"));
const LINEAGE_POST_SECONDS: Metric = Metric::histogram(
    "dagwright_lineage_post_seconds",
    "s",
    FAST_SECONDS,
    "the first post",
    "How long posts of run events took.",
)
.labels(&[TO]);

/// Every metric of webhooks.
#[cfg(test)]
pub(crate) const WEBHOOKS: &[Metric] = &[POSTS, REFUSED, POST_SECONDS];

/// Every metric of lineage.
#[cfg(test)]
pub(crate) const LINEAGE: &[Metric] = &[LINEAGE_POSTS, LINEAGE_REFUSED, LINEAGE_POST_SECONDS];

/// What came of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    Away,
    Unfit,
    Refused,
}

/// The series of one outlet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Series {
    /// Of a webhook, by its name.
    Webhook(String),
    /// Of lineage, by where it goes.
    Lineage(&'static str),
}

struct Instruments {
    posts: Counter<u64>,
    refused: Counter<u64>,
    post_seconds: Histogram<f64>,
}

static OF_WEBHOOKS: LazyLock<Instruments> = LazyLock::new(|| Instruments::new(&POSTS, &REFUSED, &POST_SECONDS));
static OF_LINEAGE: LazyLock<Instruments> =
    LazyLock::new(|| Instruments::new(&LINEAGE_POSTS, &LINEAGE_REFUSED, &LINEAGE_POST_SECONDS));

// === impl Instruments ===

impl Instruments {
    fn new(posts: &Metric, refused: &Metric, post_seconds: &Metric) -> Self {
        let meter = global::meter("dagwright");
        Self {
            posts: posts.to_counter(&meter),
            refused: refused.to_counter(&meter),
            post_seconds: post_seconds.to_histogram(&meter),
        }
    }
}

// === impl Series ===

impl Series {
    /// Returns the name of the outlet, for the log.
    pub(super) fn outlet(&self) -> String {
        match self {
            Self::Webhook(name) => name.clone(),
            Self::Lineage(to) => format!("lineage.{to}"),
        }
    }

    /// Makes the series.
    pub(super) fn prepare(&self) {
        for outcome in [Outcome::Delivered, Outcome::Away, Outcome::Unfit, Outcome::Refused] {
            self.instruments().posts.add(0, &[self.label(), outcome.label()]);
        }
        self.instruments().refused.add(0, &[self.label()]);
    }

    pub(super) fn posted(&self, outcome: Outcome, took: Duration) {
        self.instruments().posts.add(1, &[self.label(), outcome.label()]);
        self.instruments().post_seconds.record(took.as_secs_f64(), &[self.label()]);
    }

    pub(super) fn given_up(&self) {
        self.instruments().refused.add(1, &[self.label()]);
    }

    fn instruments(&self) -> &'static Instruments {
        match self {
            Self::Webhook(_) => &OF_WEBHOOKS,
            Self::Lineage(_) => &OF_LINEAGE,
        }
    }

    fn label(&self) -> KeyValue {
        match self {
            Self::Webhook(name) => KeyValue::new(WEBHOOK.name, name.clone()),
            Self::Lineage(to) => KeyValue::new(TO.name, *to),
        }
    }
}

// === impl Outcome ===

impl Outcome {
    fn label(self) -> KeyValue {
        let outcome = match self {
            Self::Delivered => "delivered",
            Self::Away => "away",
            Self::Unfit => "unfit",
            Self::Refused => "refused",
        };
        KeyValue::new(OUTCOME.name, outcome)
    }
}
