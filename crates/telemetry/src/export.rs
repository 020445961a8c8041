//! The SDK, and OTLP over HTTP with protobuf.
//!
//! The SDK sends from threads of its own, in batches, and drops what a collector does not take: a collector that is slow
//! or away holds nothing up. The standard variables `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`, `OTEL_RESOURCE_ATTRIBUTES`
//! and the limits of spans and batches count as OpenTelemetry defines them.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::runtime::{Builder, Runtime};
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, filter_fn},
    registry::LookupSpan,
};

/// The variable that says where a process sends its telemetry; `/v1/traces` and `/v1/metrics` follow it.
pub const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// How long one export may take; OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer of a collector that is read; it says how much it took.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Whose spans are sent: those of this workspace, whose fields are known to hold neither rows nor secrets.
const TARGETS: &str = "dagwright";

/// Where telemetry goes, and what it says of its sender.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The collector's base URL; `None` makes contexts and sends nothing.
    pub endpoint: Option<String>,
    /// The share of the traces begun here that is sent; of others, whoever began them decided.
    pub sample_ratio: f64,
}

/// Why telemetry cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter refused its settings.
    #[error("could not make the OTLP exporter for {endpoint}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// Why.
        source: ExporterBuildError,
    },
    /// The HTTP client could not be made.
    #[error("could not make the OTLP exporter's HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends requests from the SDK's threads, which run no event loop.
struct Client {
    runtime: Runtime,
    http: reqwest::Client,
}

// === impl Settings ===

impl Settings {
    /// Makes the provider of spans, and makes it the global one.
    ///
    /// # Errors
    /// When there is an endpoint, and its exporter cannot be made.
    pub fn traces(&self) -> Result<SdkTracerProvider, Error> {
        let sampler = match self.endpoint {
            Some(_) => Sampler::TraceIdRatioBased(self.sample_ratio),
            None => Sampler::AlwaysOff,
        };
        let mut provider = SdkTracerProvider::builder()
            .with_resource(self.resource())
            .with_sampler(Sampler::ParentBased(Box::new(sampler)));
        if let Some(endpoint) = &self.endpoint {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(Client::new(endpoint)?)
                .with_endpoint(signal(endpoint, "traces"))
                .build()
                .map_err(|source| Error::Exporter { endpoint: endpoint.clone(), source })?;
            provider = provider.with_batch_exporter(exporter);
        }
        let provider = provider.build();
        global::set_tracer_provider(provider.clone());
        Ok(provider)
    }

    /// Makes what sends metrics once in an interval; `None` without an endpoint.
    ///
    /// # Errors
    /// When the exporter cannot be made.
    pub fn metrics(&self, interval: Duration) -> Result<Option<PeriodicReader<MetricExporter>>, Error> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(Client::new(endpoint)?)
            .with_endpoint(signal(endpoint, "metrics"))
            .build()
            .map_err(|source| Error::Exporter { endpoint: endpoint.clone(), source })?;
        Ok(Some(PeriodicReader::builder(exporter).with_interval(interval).build()))
    }

    /// Says who sends.
    #[must_use]
    pub fn resource(&self) -> Resource {
        let version = KeyValue::new("service.version", self.version);
        Resource::builder().with_service_name(self.service).with_attribute(version).build()
    }
}

/// Makes spans of this workspace spans of OpenTelemetry's.
pub fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_ours: FilterFn<fn(&Metadata<'_>) -> bool> =
        filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(TARGETS));
    let layer: OpenTelemetryLayer<S, SdkTracer> = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("dagwright"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false);
    layer.with_filter(is_ours)
}

/// Sends what has not been sent, as far as that is possible within a time.
pub fn flush(traces: &SdkTracerProvider, metrics: Option<&SdkMeterProvider>, patience: Duration) {
    if let Err(error) = traces.shutdown_with_timeout(patience) {
        tracing::warn!(%error, "could not send the last spans");
    }
    if let Some(Err(error)) = metrics.map(|metrics| metrics.shutdown_with_timeout(patience)) {
        tracing::warn!(%error, "could not send the last metrics");
    }
}

fn signal(endpoint: &str, signal: &str) -> String {
    format!("{}/v1/{signal}", endpoint.trim_end_matches('/'))
}

// === impl Client ===

impl Client {
    fn new(endpoint: &str) -> Result<Self, Error> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| Error::Client(error.into()))?;
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        // To read the system's certificates takes longer than many a task.
        let http = http.tls_built_in_root_certs(!endpoint.starts_with("http:"));
        let http = http.build().map_err(|error| Error::Client(error.into()))?;
        Ok(Self { runtime, http })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        // The thread belongs to the SDK, which calls nothing else from it.
        self.runtime.block_on(async {
            let mut answer = self.http.execute(request).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Err("the collector's answer is too long".into());
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::builder().status(answer.status());
            if let Some(headers) = response.headers_mut() {
                headers.clone_from(answer.headers());
            }
            Ok(response.body(body.into())?)
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
