//! What a task says of itself: its log on standard error, and where a collector is named, its spans.
//!
//! The one who started it hands over a trace context (`TRACEPARENT`) and the collector (`OTEL_EXPORTER_OTLP_ENDPOINT`).
//! Without a collector, or in a trace that is not sampled, no exporter is made, so most tasks pay nothing for it.

use std::{env, io, panic, time::Duration};

use dagwright_model::task::{Outcome, TaskRun, Work};
use dagwright_telemetry::{
    export::{self, ENDPOINT_VARIABLE, Settings},
    trace,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, field};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// How long the last spans may take to be sent: a collector that is away must not hold a finished task up.
const FLUSH: Duration = Duration::from_secs(2);

/// What a task says of itself.
pub(super) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts to log, and to trace where somebody wants it.
    pub(super) fn start() -> Self {
        let filter = EnvFilter::try_from_env("DAGWRIGHT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).with_filter(filter);
        let (traces, problem) = match exporter() {
            Some(Ok(traces)) => (Some(traces), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        tracing_subscriber::registry().with(log).with(traces.as_ref().map(export::layer)).init();
        if let Some(error) = problem {
            tracing::warn!(%error, "cannot send spans");
        }
        // The message of a panic may quote a value; its place does not.
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "panicked");
        }));
        Self { traces }
    }

    /// Sends what has not been sent.
    pub(super) fn end(self) {
        if let Some(traces) = self.traces {
            export::flush(&traces, None, FLUSH);
        }
    }
}

/// Makes the provider of spans, if they are to be sent.
fn exporter() -> Option<Result<SdkTracerProvider, export::Error>> {
    let endpoint = env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty())?;
    context().filter(|context| trace::is_sampled(context))?;
    let (service, version) = ("dagwright-task", env!("CARGO_PKG_VERSION"));
    Some(Settings { service, version, endpoint: Some(endpoint), sample_ratio: 1.0 }.traces())
}

fn context() -> Option<String> {
    env::var(trace::VARIABLE).ok()
}

/// Returns the span of a task's work, which goes on with the trace of whoever started it.
pub(super) fn work(task: &TaskRun) -> Span {
    let (name, context) = (task.task.id.to_string(), context());
    let trace_id = context.as_deref().and_then(trace::trace_id);
    let span = tracing::info_span!(
        "work",
        task = name,
        kind = match task.task.work {
            Work::Split(_) => "split",
            Work::Move(_) => "move",
            Work::Publish(_) => "publish",
            Work::Cleanup => "cleanup",
        },
        attempt = task.run.attempt,
        trace_id,
        rows_read = field::Empty,
        rows_loaded = field::Empty,
        otel.status_code = field::Empty,
        error.code = field::Empty,
    );
    trace::continue_from(&span, context.as_deref());
    span
}

/// Notes what came of the work: numbers and codes alone.
pub(super) fn done(span: &Span, outcome: &Outcome) {
    span.record("rows_read", outcome.counts.sources.values().map(|source| source.read).sum::<u64>());
    span.record("rows_loaded", outcome.counts.sinks.values().map(|sink| sink.loaded).sum::<u64>());
    if let Some(problem) = &outcome.problem {
        span.record("otel.status_code", "ERROR");
        span.record("error.code", field::display(problem.code));
    }
}
