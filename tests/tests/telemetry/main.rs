//! What the daemon says of itself, end to end: metrics, one trace for each request, logs, readiness.
//!
//! The request stands in the ledger when the daemon starts, as one that an earlier process took on: so its trace goes on
//! with the next process, too.

mod collector;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dagwright_model::{
    id::RequestId,
    record::{Accepted, Ingress, Purpose, Record, RecordBody},
    spec::Spec,
};
use dagwright_store::{SledStore, Store};
use dagwright_tests::{
    Workspace, bin_dir, http,
    kafka::{Kafka, Record as Produced},
    repository, tools,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use self::collector::{Collector, Span, get};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// When `docs/metrics.md` says that metrics of Kafka are there.
const WITH_KAFKA: &str = "with `bus.kind = \"kafka\"`";

const TOKEN: &str = "a-token-that-nobody-guesses";

const SPEC: &str = "\
version: 1
pipeline: small
sources:
  numbers: { uri: HERE/numbers.csv }
transform:
  - { name: doubled, sql: SELECT n * 2 AS n FROM numbers }
sink: { uri: HERE/out/, format: parquet, from: doubled, mode: replace }
";

/// A daemon, killed with the test.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

// === impl Daemon ===

impl Daemon {
    /// Starts one over the workspace's store, and waits until it takes requests on.
    fn start(workspace: &Workspace, settings: &[(&str, &str)]) -> Self {
        Self::start_with(workspace, settings, &[])
    }

    fn start_with(workspace: &Workspace, settings: &[(&str, &str)], arguments: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let mut command: Command = workspace.dagwright();
        command.arg("serve").args(arguments);
        command.env("DAGWRIGHT__HTTP__LISTEN", free.to_string()).env("DAGWRIGHT__LOG__FORMAT", "json");
        command.envs(settings.iter().copied()).env_remove("RUST_LOG");
        // Spans leave soon, and nothing waits for them.
        command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
        let log = fs::File::create(workspace.path("log")).expect("a file");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("dagwright starts");
        let daemon = Self { child, address: free };
        daemon.until("it is ready", |daemon| {
            get(daemon.address, "/readyz", None).is_some_and(|(status, _)| status == 200)
        });
        daemon
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < Duration::from_secs(120), "waited in vain until {what}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn metrics(&self) -> String {
        let (status, text) = get(self.address, "/metrics", Some(TOKEN)).expect("an answer");
        assert_eq!(status, 200, "{text}");
        text
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it lives");
    }

    /// Ends it in good order; returns what it logged.
    #[track_caller]
    fn end(mut self, workspace: &Workspace) -> Vec<Value> {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("it ends");
        let log = fs::read_to_string(workspace.path("log")).expect("a log");
        assert!(status.success(), "{status}\n{log}");
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn here(workspace: &Workspace) -> String {
    workspace.path("").to_str().expect("a path").trim_end_matches('/').to_owned()
}

/// A workspace whose ledger has an accepted request.
fn with_request() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("numbers.csv", "n\n1\n2\n3\n");
    let spec_text = SPEC.replace("HERE", &here(&workspace));
    let spec = Spec::parse(&spec_text).expect("a valid spec");
    let accepted = Accepted {
        pipeline: spec.dag_id(),
        spec_hash: spec.hash(),
        spec_text,
        ingress: Ingress::Http,
        purpose: Purpose::Run,
        base: None,
        params: Default::default(),
        interval: None,
        backfill: false,
        revision: None,
        identity: None,
        requester: None,
        traceparent: Some(format!("00-{TRACE}-{CALLER}-01")),
        follows: None,
    };
    let body = RecordBody::Accepted(Box::new(accepted));
    let record = Record { request: RequestId("r1".into()), sequence: 0, at: 1_700_000_000_000, body };
    let store = SledStore::open(&workspace.path(".dagwright"), Duration::from_secs(60)).expect("a store");
    store.append(&[record]).expect("appends");
    workspace
}

/// Returns a worker program that writes down what it is asked to do, and in which trace, and then does it.
fn watched_worker(workspace: &Workspace) -> String {
    let (asked, task) = (workspace.path("asked"), bin_dir().join("dagwright-task"));
    let script = format!("#!/bin/sh\necho \"$1 $TRACEPARENT\" >> {asked:?}\nexec {task:?} \"$@\"\n");
    let worker = workspace.write("worker", script);
    fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("a program");
    worker.to_string_lossy().into_owned()
}

/// The table of `docs/metrics.md`: each metric with when it is there.
fn documented() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository().join("docs/metrics.md")).expect("the table");
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), (*cells.get(5)?).to_owned()))
    };
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert!(rows.len() > 25, "{} metrics", rows.len());
    rows
}

/// Returns the names of the metrics in a scrape.
fn scraped(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[track_caller]
fn promtool(arguments: &[&str], stdin: &str) {
    let program = tools().join("promtool-2.42.0/bin/promtool");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run tests/scripts/tools.sh promtool");
    child.stdin.take().expect("a pipe").write_all(stdin.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // Of hints, too: it exits with 3 then.
    assert!(output.status.success(), "promtool {arguments:?}:\n{told}");
}

#[test]
fn every_metric_is_there_when_the_table_says() {
    let workspace = with_request();
    workspace.write("c.toml", "[http.tokens.ops]\ntoken_env = \"OPS\"\nscopes = [\"read\"]\n");
    let daemon = Daemon::start_with(&workspace, &[("OPS", TOKEN)], &["--config", "c.toml"]);
    assert_eq!(get(daemon.address, "/metrics", None).map(|(status, _)| status), Some(401));
    assert_eq!(get(daemon.address, "/metrics", Some("another")).map(|(status, _)| status), Some(401));
    let succeeded = "dagwright_requests_total{outcome=\"succeeded\",purpose=\"run\"} 1";
    let first = daemon.metrics();
    daemon.until("the request has succeeded", |daemon| daemon.metrics().contains(succeeded));
    let last = daemon.metrics();
    for text in [&first, &last] {
        promtool(&["check", "metrics"], text);
    }
    let (first, names) = (scraped(&first), scraped(&last));
    for (name, there) in documented() {
        match there.as_str() {
            "at once" => assert!(first.contains(name.as_str()), "{name} is not there at once"),
            // Nothing is delivered anywhere here.
            "after the start of an outlet" | "after the first post" => {
                assert!(!names.contains(name.as_str()), "{name} is there without an outlet");
            }
            airflow if airflow.contains("Airflow") => {
                assert!(!names.contains(name.as_str()), "{name} is there without Airflow");
            }
            WITH_KAFKA => assert!(!names.contains(name.as_str()), "{name} is there without Kafka"),
            _ => assert!(names.contains(name.as_str()), "{name} is not there after a run"),
        }
    }
    let known: BTreeSet<_> = documented().into_iter().map(|(name, _)| name).collect();
    let unknown: Vec<_> = names.iter().filter(|name| !known.contains(**name)).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    for line in [
        "dagwright_rows_read_total{connector=\"local\"} 3",
        "dagwright_rows_loaded_total{connector=\"local\"} 3",
        "dagwright_runs_total{status=\"succeeded\"} 1",
        "dagwright_requests_open 0",
        "dagwright_runs_open 0",
        "dagwright_tasks_running{role=\"loading\"} 0",
        "dagwright_negotiation_rounds_count 1",
    ] {
        assert!(last.lines().any(|found| found == line), "{line} is not in\n{last}");
    }
}

#[test]
fn a_request_is_one_trace_from_the_ledger_into_the_worker() {
    let (workspace, collector) = (with_request(), Collector::start());
    let endpoint = format!("http://{}", collector.address);
    let (worker, asked) = (watched_worker(&workspace), workspace.path("asked"));
    let settings = [("DAGWRIGHT__TELEMETRY__OTLP__ENDPOINT", &*endpoint), ("DAGWRIGHT__TASK__COMMAND", &*worker)];
    let daemon = Daemon::start(&workspace, &settings);
    collector.spans(|spans| spans.iter().any(|span| span.name == "run"));
    let log = daemon.end(&workspace);
    let spans = collector.spans(|_| true);

    let foreign: Vec<_> = spans.iter().filter(|span| span.trace != TRACE).collect();
    assert!(foreign.is_empty(), "spans of other traces: {foreign:#?}");
    let of = |name: &str| spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<Span>>();
    let one = |name: &str| -> Span {
        let found = of(name);
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        found[0].clone()
    };
    for name in ["negotiation", "compile", "run"] {
        let span = one(name);
        assert_eq!((span.parent.as_str(), span.service.as_str()), (CALLER, "dagwright"), "{name}");
        assert!(!span.failed);
    }
    let negotiation = one("negotiation");
    for (name, agents) in
        [("observe", &["extraction", "loading"][..]), ("propose", &["extraction", "transformation", "loading"])]
    {
        let found = of(name);
        for agent in agents {
            assert!(found.iter().any(|span| span.attributes["agent"] == *agent), "{agent} in {found:#?}");
        }
        assert!(found.iter().all(|span| span.parent == negotiation.id), "{found:#?}");
    }
    assert!(of("commit").iter().all(|span| span.parent == negotiation.id));
    // Each look at the world is a span, and its process goes on with that.
    let asked = fs::read_to_string(asked).expect("processes were started");
    for (name, subcommand, subjects) in
        [("probe", "probe", &[Some("numbers"), Some("sink")][..]), ("type", "plan", &[None])]
    {
        let found = of(name);
        assert!(found.iter().all(|span| span.parent == CALLER), "{found:#?}");
        for subject in subjects {
            let is_it = |span: &&Span| span.attributes.get("subject").map(String::as_str) == *subject;
            let span = found.iter().find(is_it).unwrap_or_else(|| panic!("no {name} of {subject:?}: {found:#?}"));
            let line = format!("{subcommand} 00-{TRACE}-{}-01", span.id);
            assert!(asked.lines().any(|asked| asked == line), "{line} is not in\n{asked}");
        }
    }
    let (tasks, run) = (of("task"), one("run"));
    assert!(!tasks.is_empty() && tasks.iter().all(|task| task.parent == run.id), "{tasks:#?}");
    let work = of("work");
    assert_eq!(work.len(), tasks.len(), "{work:#?}");
    for work in &work {
        assert_eq!(work.service, "dagwright-task");
        let task = tasks.iter().find(|task| task.id == work.parent).unwrap_or_else(|| panic!("{work:#?}"));
        assert_eq!(task.attributes["task"], work.attributes["task"]);
        assert!(task.nanoseconds >= work.nanoseconds);
    }
    for name in ["transfer", "publish"] {
        let found = of(name);
        assert!(!found.is_empty() && found.iter().all(|span| work.iter().any(|work| work.id == span.parent)), "{name}");
    }

    let line = log.iter().find(|line| line["fields"]["what"] == "dag_compiled").expect("the line of a record");
    assert_eq!((&line["trace_id"], &line["request_id"]), (&TRACE.into(), &"r1".into()), "{line}");
    assert_eq!(line["level"], "INFO");
    let sent = collector.metrics();
    for name in ["dagwright_requests_total", "dagwright_task_seconds", "process_resident_memory_bytes"] {
        assert!(sent.iter().any(|sent| sent == name), "{name} was not sent by OTLP");
    }
}

#[test]
fn a_request_without_a_trace_begins_one() {
    let (workspace, collector) = (Workspace::new(), Collector::start());
    workspace.write("numbers.csv", "n\n1\n2\n3\n");
    let endpoint = format!("http://{}", collector.address);
    let allowed = format!("{}/**", here(&workspace));
    let settings = [("DAGWRIGHT__TELEMETRY__OTLP__ENDPOINT", &*endpoint), ("DAGWRIGHT__URIS__ALLOW", &*allowed)];
    let daemon = Daemon::start(&workspace, &settings);
    let spec = SPEC.replace("HERE", &here(&workspace));
    let headers = [("content-type", "application/yaml")];
    let receipt = http::call(daemon.address, "POST", "/api/v1/requests", &headers, spec.as_bytes()).expect(202).json();
    let spans = collector.spans(|spans| spans.iter().any(|span| span.name == "run"));
    let log = daemon.end(&workspace);

    let one = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        found[0]
    };
    let root = one("request");
    assert_eq!((root.parent.as_str(), root.service.as_str()), ("", "dagwright"));
    for name in ["admission", "negotiation", "run"] {
        let span = one(name);
        assert_eq!((&span.trace, &span.parent), (&root.trace, &root.id), "{name}");
    }
    let line = log.iter().find(|line| line["target"] == "audit").expect("an audit line");
    assert_eq!(
        (&line["request_id"], &line["trace_id"]),
        (&receipt["request_id"], &root.trace.as_str().into()),
        "{line}"
    );
}

#[test]
fn with_kafka_metrics_are_there_and_the_trace_goes_on_from_headers_into_the_worker() {
    let (workspace, collector, kafka) = (Workspace::new(), Collector::start(), Kafka::start());
    workspace.write("numbers.csv", "n\n1\n2\n3\n");
    workspace.write("c.toml", "[http.tokens.ops]\ntoken_env = \"OPS\"\nscopes = [\"read\"]\n");
    let endpoint = format!("http://{}", collector.address);
    let allowed = format!("{}/**", here(&workspace));
    let settings = [
        ("OPS", TOKEN),
        ("DAGWRIGHT__TELEMETRY__OTLP__ENDPOINT", &*endpoint),
        ("DAGWRIGHT__URIS__ALLOW", &*allowed),
        ("DAGWRIGHT__BUS__KIND", "kafka"),
        ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap()),
        // All come in where they are at home: elsewhere a repeat may be handed on.
        ("DAGWRIGHT__KAFKA__PARTITIONS", "1"),
    ];
    let daemon = Daemon::start_with(&workspace, &settings, &["--config", "c.toml"]);
    let first = daemon.metrics();
    promtool(&["check", "metrics"], &first);
    let names = scraped(&first);
    for (name, there) in documented() {
        if ["at once", WITH_KAFKA].contains(&there.as_str()) {
            assert!(names.contains(name.as_str()), "{name} is not there at once");
        }
    }

    let spec = SPEC.replace("HERE", &here(&workspace));
    let asked = Produced::new("", spec).header("content-type", "application/yaml");
    let asked = asked.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    // One again, and what nobody can read.
    let named =
        |record: Produced| record.header("ce_specversion", "1.0").header("ce_id", "1").header("ce_source", "/tests");
    let asked = named(asked).header("ce_type", "dev.dagwright.pipeline.requested.v1");
    let nonsense = Produced::new("", "{ nonsense");
    kafka.client().produce("dagwright.requests.v1", &[asked.clone(), asked, nonsense]);
    let wanted = [
        "dagwright_requests_total{outcome=\"succeeded\",purpose=\"run\"} 1",
        "dagwright_requests_received_total{answer=\"accepted\",ingress=\"kafka\"} 1",
        "dagwright_requests_received_total{answer=\"repeated\",ingress=\"kafka\"} 1",
        "dagwright_requests_refused_total{code=\"DW0101\",ingress=\"kafka\"} 1",
        "dagwright_dead_letters_total 1",
        "dagwright_kafka_paused 0",
    ];
    daemon.until("all is counted", |daemon| {
        let told = daemon.metrics();
        wanted.iter().all(|line| told.lines().any(|found| found == *line))
    });
    let last = daemon.metrics();
    promtool(&["check", "metrics"], &last);
    let value = |name: &str| -> f64 {
        let line = last.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{last}"))
    };
    assert!(value("dagwright_kafka_records_received_total") >= 3.0);
    assert!(value("dagwright_kafka_transactions_total{outcome=\"committed\"}") >= 1.0);
    assert!(value("dagwright_consumer_lag_records{topic=\"dagwright.requests.v1\"}") >= 0.0);

    let spans = collector.spans(|spans| {
        let has = |name: &str| spans.iter().any(|span| span.name == name);
        has("run") && has("work")
    });
    let log = daemon.end(&workspace);
    let spans: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).collect();
    for name in ["admission", "negotiation", "compile", "run"] {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert!(!found.is_empty() && found.iter().all(|span| span.parent == CALLER), "{name}: {found:#?}");
    }
    let of = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let (run, tasks, work) = (of("run"), of("task"), of("work"));
    assert!(!tasks.is_empty() && tasks.iter().all(|task| task.parent == run[0].id), "{tasks:#?}");
    assert!(work.iter().all(|work| work.service == "dagwright-task"), "{work:#?}");
    assert!(work.iter().all(|work| tasks.iter().any(|task| task.id == work.parent)), "{work:#?}");

    let audit: Vec<_> = log.iter().filter(|line| line["target"] == "audit").collect();
    let mut outcomes: Vec<_> = audit.iter().map(|line| line["fields"]["outcome"].as_str().expect("text")).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["accepted", "refused", "repeated"], "{audit:#?}");
    for line in audit {
        assert_eq!(line["fields"]["caller"], "kafka:dagwright.requests.v1", "{line}");
        if line["fields"]["outcome"] == "refused" {
            assert_eq!(line["fields"]["code"], "DW0101", "{line}");
        } else {
            assert_eq!((&line["fields"]["pipeline"], &line["trace_id"]), (&"small".into(), &TRACE.into()), "{line}");
        }
    }
}

#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    let workspace = with_request();
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let endpoint = format!("http://{nobody}");
    let daemon = Daemon::start(&workspace, &[("DAGWRIGHT__TELEMETRY__OTLP__ENDPOINT", &endpoint)]);
    let succeeded = "dagwright_requests_total{outcome=\"succeeded\",purpose=\"run\"} 1";
    daemon.until("the request has succeeded", |daemon| daemon.metrics().contains(succeeded));
    daemon.end(&workspace);
}

#[test]
fn settings_are_read_again_and_bad_ones_change_nothing() {
    let workspace = Workspace::new();
    let config = |text: &str| workspace.write("c.toml", text);
    config("[log]\nlevel = \"warn\"\n");
    let daemon = Daemon::start_with(&workspace, &[], &["--config", "c.toml"]);
    let logged = |text: &str| {
        let log = fs::read_to_string(workspace.path("log")).expect("a log");
        log.lines().any(|line| line.contains(text))
    };

    config("[log]\nlevel = \"loud\"\n[limits]\nruns = \"many\"\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until("the old one stays", |_| logged("the old configuration stays in force"));
    assert!(logged("limits.runs"));

    config("[log]\nlevel = \"info\"\n[store]\npath = \"elsewhere\"\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until("it is told what needs a restart", |_| logged("need a restart"));
    assert!(logged("store.path"));

    config("[log]\nlevel = \"info\"\n[limits]\nruns = 7\n");
    daemon.signal(Signal::SIGHUP);
    daemon.until("it is reloaded", |_| logged("\"configuration reloaded\""));
    daemon.end(&workspace);
}

#[test]
fn readiness_has_reasons_and_liveness_is_plain() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    assert_eq!(get(daemon.address, "/livez", None), Some((200, "ok\n".into())));
    let (status, body) = get(daemon.address, "/readyz", None).expect("an answer");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(body["ready"], true);
    assert_eq!(body["checked"], serde_json::json!(["ledger", "dispatcher", "agents", "draining"]));
    daemon.end(&workspace);
}

#[test]
fn rules_and_dashboards_are_promql() {
    let rules = repository().join("deploy/prometheus/rules.yaml");
    promtool(&["check", "rules", rules.to_str().expect("a path")], "");
    let dashboard = fs::read_to_string(repository().join("deploy/grafana/dagwright.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let mut count = 0;
    for target in targets {
        let query =
            target["expr"].as_str().expect("an expression").replace("$__rate_interval", "5m").replace("$job", ".*");
        assert!(!query.contains('$'), "{query}");
        count += 1;
        rules.push_str(&format!("      - record: panel:{count}\n        expr: {}\n", Value::from(query)));
    }
    assert!(count > 25, "{count} queries");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(rules.as_bytes()).expect("written");
    promtool(&["check", "rules", file.path().to_str().expect("a path")], "");
}
