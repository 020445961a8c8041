//! A collector: takes OTLP over HTTP and keeps it. Also the few words of HTTP that asking the daemon takes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message;

/// How long anything here may take; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The longest request that is read.
const BODY_MAX: usize = 16 << 20;

/// A span, as far as tests look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) failed: bool,
    pub(crate) nanoseconds: u64,
}

/// What was sent.
#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    metrics: Vec<String>,
}

/// Takes what is sent to it until the test process ends.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    kept: Arc<(Mutex<Kept>, Condvar)>,
}

// === impl Collector ===

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let kept = Arc::<(Mutex<Kept>, Condvar)>::default();
        let keeper = kept.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let keeper = keeper.clone();
                thread::spawn(move || serve(connection, &keeper));
            }
        });
        Self { address, kept }
    }

    /// Waits until the spans satisfy a condition, and returns them.
    #[track_caller]
    pub(crate) fn spans(&self, wanted: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let (kept, told) = &*self.kept;
        let kept = kept.lock().expect("no panic");
        let (kept, timeout) = told.wait_timeout_while(kept, PATIENCE, |kept| !wanted(&kept.spans)).expect("no panic");
        assert!(!timeout.timed_out(), "these spans came, and not what was waited for: {:#?}", kept.spans);
        kept.spans.clone()
    }

    /// Returns the names of the metrics that were sent.
    pub(crate) fn metrics(&self) -> Vec<String> {
        self.kept.0.lock().expect("no panic").metrics.clone()
    }
}

fn serve(connection: TcpStream, kept: &(Mutex<Kept>, Condvar)) {
    let mut reader = BufReader::new(connection);
    while let Some((path, body)) = request(&mut reader) {
        {
            let mut now = kept.0.lock().expect("no panic");
            match path.as_str() {
                "/v1/traces" => now.spans.extend(spans(&body)),
                "/v1/metrics" => now.metrics.extend(metrics(&body)),
                other => panic!("nobody asked for {other}"),
            }
        }
        kept.1.notify_all();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if reader.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// Reads a request's path and body; `None` at the end of the connection.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1).expect("a request line").to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').expect("a header");
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        }
    }
    assert!(length <= BODY_MAX, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole body");
    Some((path, body))
}

fn spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in ExportTraceServiceRequest::decode(body).expect("OTLP").resource_spans {
        let about = attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: about["service.name"].clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                attributes: attributes(span.attributes),
                failed: span.status.is_some_and(|status| status.code == 2),
                nanoseconds: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
            });
        }
    }
    spans
}

fn metrics(body: &[u8]) -> Vec<String> {
    let request = ExportMetricsServiceRequest::decode(body).expect("OTLP");
    let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

/// Asks the daemon for a path; returns status and body. `None` while nobody listens.
pub(crate) fn get(address: SocketAddr, path: &str, token: Option<&str>) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
