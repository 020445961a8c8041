//! What is measured of HTTP and of the process, and the table of everything that is measured anywhere.

#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use dagwright_model::record::Ingress;
use dagwright_telemetry::metric::{Appears, FAST_SECONDS, Label, Metric};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

const ROUTE: Label = Label::few("route", "the paths of the API as they are declared, and `unmatched`");
const METHOD: Label = Label::of("method", &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"]);

const HTTP_REQUESTS: Metric =
    Metric::counter("dagwright_http_requests_total", "{request}", "Requests that were answered over HTTP.")
        .labels(&[ROUTE, METHOD, Label::few("status", "HTTP's status codes that the API answers with")])
        .appears(Appears::After("the first answer"));
const HTTP_SECONDS: Metric = Metric::histogram(
    "dagwright_http_request_seconds",
    "s",
    FAST_SECONDS,
    "the first answer",
    "How long it took until an answer began.",
)
.labels(&[ROUTE, METHOD]);
const REFUSED: Metric = Metric::counter(
    "dagwright_requests_refused_total",
    "{request}",
    "Calls over HTTP and messages from Kafka that were refused, by the code that they were refused with.",
)
.labels(&[Label::of("ingress", &["http", "kafka"]), Label::few("code", "the codes of docs/errors")])
.appears(Appears::After("the first refusal"));
const CONNECTIONS: Metric = Metric::gauge("dagwright_http_connections_open", "{connection}", "Open connections.");
const CONNECTIONS_MAX: Metric = Metric::gauge(
    "dagwright_http_connections_max",
    "{connection}",
    "How many connections may be open; further ones wait.",
);
pub(crate) const BUILD: Metric =
    Metric::gauge("dagwright_build_info", "", "1, with the version that runs.").labels(&[VERSION]);
pub(crate) const RSS: Metric = proc(Metric::gauge("process_resident_memory_bytes", "By", "Resident memory."));
pub(crate) const CPU: Metric =
    Metric::counter("process_cpu_seconds_total", "s", "User and system time spent on processors.");
pub(crate) const FDS: Metric = proc(Metric::gauge("process_open_fds", "{file}", "Open file descriptors."));
pub(crate) const THREADS: Metric = proc(Metric::gauge("process_threads", "{thread}", "Threads."));
pub(crate) const START: Metric =
    Metric::gauge("process_start_time_seconds", "s", "When the process began, in seconds since the Unix epoch.");

const VERSION: Label = Label::few("version", "the one that runs");

#[cfg(test)]
const TABLE: &[Metric] =
    &[HTTP_REQUESTS, HTTP_SECONDS, REFUSED, CONNECTIONS, CONNECTIONS_MAX, BUILD, RSS, CPU, FDS, THREADS, START];

/// Every metric, by the crate that measures it.
#[cfg(test)]
pub(crate) const ALL: [(&str, &[Metric]); 8] = [
    ("agents", dagwright_agents::metrics::TABLE),
    ("engine", dagwright_engine::metrics::TABLE),
    ("bus", dagwright_bus::metrics::TABLE),
    ("store", dagwright_store::metrics::TABLE),
    ("daemon", TABLE),
    ("webhooks", crate::outlets::metrics::WEBHOOKS),
    ("lineage", crate::outlets::metrics::LINEAGE),
    ("feedback", crate::feedback::metrics::TABLE),
];

struct Instruments {
    requests: Counter<u64>,
    seconds: Histogram<f64>,
    refused: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright");
    Instruments {
        requests: HTTP_REQUESTS.to_counter(&meter),
        seconds: HTTP_SECONDS.to_histogram(&meter),
        refused: REFUSED.to_counter(&meter),
    }
});

/// Makes every series that can be there from the start.
pub(crate) fn prepare() {
    dagwright_agents::metrics::prepare();
    dagwright_engine::metrics::prepare();
    dagwright_store::metrics::prepare();
    crate::feedback::metrics::prepare();
    LazyLock::force(&INSTRUMENTS);
}

/// Measures an answer. `route` is the path as it is declared, never the one that was asked for.
pub(crate) fn answered(route: Option<&str>, method: &str, status: u16, took: Duration) {
    let method = match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    };
    let route = KeyValue::new(ROUTE.name, route.unwrap_or("unmatched").to_owned());
    let method = KeyValue::new(METHOD.name, method);
    INSTRUMENTS.seconds.record(took.as_secs_f64(), &[route.clone(), method.clone()]);
    INSTRUMENTS.requests.add(1, &[route, method, KeyValue::new("status", i64::from(status))]);
}

/// Counts what was refused. `code` is one of docs/errors.
pub(crate) fn refused(ingress: Ingress, code: &str) {
    let ingress = match ingress {
        Ingress::CommandLine | Ingress::Airflow => return,
        Ingress::Http => "http",
        Ingress::Kafka => "kafka",
    };
    INSTRUMENTS.refused.add(1, &[KeyValue::new("ingress", ingress), KeyValue::new("code", code.to_owned())]);
}

/// Shows how many connections are open from now on, and how many may be.
pub(crate) fn observe_connections(open: impl Fn() -> usize + Send + Sync + 'static, max: usize) {
    let meter = global::meter("dagwright");
    CONNECTIONS.observe_gauge(&meter, move |observer| observer.observe(open() as u64, &[]));
    CONNECTIONS_MAX.observe_gauge(&meter, move |observer| observer.observe(max as u64, &[]));
}

const fn proc(metric: Metric) -> Metric {
    metric.appears(Appears::Where("on systems with /proc"))
}
