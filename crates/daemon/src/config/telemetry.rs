//! `[log]` and `[telemetry]`: what `serve` says of itself, and where to.

use dagwright_model::units::Span;
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// How `serve` logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// A level, or what `RUST_LOG` may hold; that variable wins.
    pub(crate) level: String,
    /// Whether audit lines are there, whatever the level is.
    pub(crate) audit: bool,
}

/// What a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Where telemetry is sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Telemetry {
    pub(crate) otlp: Otlp,
}

/// A collector that speaks OTLP over HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Otlp {
    /// Its base URL; empty sends nothing.
    pub(crate) endpoint: String,
    /// The share of traces that is sent of those that begin here.
    pub(crate) sample_ratio: f64,
    /// How often metrics are sent.
    pub(crate) metrics_interval: Span,
}

// === impl Otlp ===

impl Otlp {
    /// Returns the collector's base URL, if there is one.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        Some(self.endpoint.as_str()).filter(|endpoint| !endpoint.is_empty())
    }
}

// === impl Log ===

impl Log {
    /// Returns what is logged.
    pub(crate) fn filter(&self) -> Result<EnvFilter, ParseError> {
        EnvFilter::builder().parse(&self.level)
    }
}
