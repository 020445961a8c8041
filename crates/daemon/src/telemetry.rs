//! What `serve` says of itself: logs, traces, metrics. Started before anything that says something.
//!
//! | module | what it is |
//! |---|---|
//! | `json` | log lines as JSON |
//! | `process` | what the system says of this process |

mod json;
mod process;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context, Result};
use dagwright_telemetry::export::{self, Settings};
use opentelemetry::global;
use opentelemetry_sdk::{metrics::SdkMeterProvider, trace::SdkTracerProvider};
use prometheus::Registry;
use tracing_subscriber::{
    EnvFilter, Layer, Registry as Spans,
    filter::{FilterExt, LevelFilter, Targets, filter_fn},
    layer::{Filter, SubscriberExt},
    reload::{self, Handle},
    util::SubscriberInitExt,
};

use crate::{
    audit,
    config::{Config, Log, LogFormat},
    metrics,
};

/// How long the last spans and metrics may take to be sent when the daemon ends.
const FLUSH: Duration = Duration::from_secs(2);

/// What `serve` says of itself.
pub(crate) struct Telemetry {
    pub(crate) level: LogLevel,
    /// What Prometheus is told.
    pub(crate) registry: Registry,
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

/// How much is logged.
#[derive(Clone)]
pub(crate) struct LogLevel(Handle<EnvFilter, Spans>);

// === impl Telemetry ===

impl Telemetry {
    /// Starts to log, to trace and to measure, as configured; once in a process.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        let otlp = &config.telemetry.otlp;
        let settings = Settings {
            service: "dagwright",
            version: env!("CARGO_PKG_VERSION"),
            endpoint: otlp.endpoint().map(str::to_owned),
            sample_ratio: otlp.sample_ratio,
        };
        let traces = settings.traces()?;
        let (filter, level) = reload::Layer::new(filter(&config.log)?);
        let lines = match config.log.format {
            LogFormat::Text => {
                let colours = io::stderr().is_terminal();
                tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(io::stderr).boxed()
            }
            LogFormat::Json => json::Lines::new(io::stderr).boxed(),
        };
        Spans::default().with(lines.with_filter(audited(filter, config.log.audit))).with(export::layer(&traces)).init();

        let registry = Registry::new();
        // Names are written as Prometheus wants them, so that they are the same everywhere.
        let scrape = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_units()
            .without_counter_suffixes()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .context("could not prepare /metrics")?;
        let mut provider = SdkMeterProvider::builder().with_resource(settings.resource()).with_reader(scrape);
        if let Some(reader) = settings.metrics(Duration::from_millis(otlp.metrics_interval.0))? {
            provider = provider.with_reader(reader);
        }
        let provider = provider.build();
        global::set_meter_provider(provider.clone());
        metrics::prepare();
        process::observe();
        Ok(Self { level: LogLevel(level), registry, traces, metrics: provider })
    }

    /// Sends what has not been sent.
    pub(crate) async fn end(self) {
        let flush = move || export::flush(&self.traces, Some(&self.metrics), FLUSH);
        // It blocks, and panics only where the SDK does.
        let _ = tokio::task::spawn_blocking(flush).await;
    }
}

// === impl LogLevel ===

impl LogLevel {
    /// Makes one that changes no log.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self(reload::Layer::new(EnvFilter::new("off")).1)
    }

    /// Logs as much as `log` says from now on.
    pub(crate) fn set(&self, log: &Log) -> Result<()> {
        self.0.reload(filter(log)?).context("the log is gone")
    }
}

/// Sees to it that audit lines are there whatever else is, or never.
fn audited(
    filter: impl Filter<Spans> + Send + Sync + 'static,
    is_wanted: bool,
) -> Box<dyn Filter<Spans> + Send + Sync> {
    if is_wanted {
        // None of them is below this level.
        Box::new(filter.or(Targets::new().with_target(audit::TARGET, LevelFilter::INFO)))
    } else {
        Box::new(filter.and(filter_fn(|about| about.target() != audit::TARGET)))
    }
}

/// What is logged: as `RUST_LOG` says, else as configured.
fn filter(log: &Log) -> Result<EnvFilter> {
    match EnvFilter::try_from_default_env() {
        Ok(filter) => Ok(filter),
        Err(_) => log.filter().context("log.level is not valid"),
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{EnvFilter, Layer, Registry as Spans, layer::SubscriberExt, reload};

    use super::{audited, json};

    /// Returns the messages that are logged where `level` is, after a reload to it from another.
    fn logged(level: &str, audit: bool) -> Vec<String> {
        let sink = json::tests::Sink::default();
        let (filter, handle) = reload::Layer::new(EnvFilter::new("trace"));
        let lines = json::Lines::new(sink.clone()).with_filter(audited(filter, audit));
        tracing::subscriber::with_default(Spans::default().with(lines), || {
            handle.reload(EnvFilter::new(level)).expect("it is there");
            tracing::info!(target: "audit", "asked");
            tracing::warn!(target: "audit", "refused");
            tracing::info!("plain");
            tracing::error!("failed");
        });
        sink.lines().iter().map(|line| line["message"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn audit_lines_are_there_whatever_the_level_is_unless_they_are_not_wanted() {
        for level in ["error", "off", "audit=off,error"] {
            let found = logged(level, true);
            assert!(found.starts_with(&["asked".into(), "refused".into()]), "{level}: {found:?}");
            assert!(!found.contains(&"plain".to_owned()), "{level}: {found:?}");
        }
        assert_eq!(logged("info", true), ["asked", "refused", "plain", "failed"]);
        assert_eq!(logged("info", false), ["plain", "failed"]);
        assert_eq!(logged("audit=info", false), Vec::<String>::new());
    }
}
