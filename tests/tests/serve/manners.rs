//! Rude callers: refused with a code, disconnected, and nobody else notices.

use std::{
    io::{BufReader, ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use dagwright_tests::{Workspace, daemon::Daemon, http};
use serde_json::Value;

/// The longest that the service may take to lose its patience of one second.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn bodies_that_are_too_large_or_never_come_are_refused() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[("HTTP__TIMEOUT", "1s"), ("HTTP__BODY_MAX", "64KiB")]);
    let yaml = ("content-type", "application/yaml");
    let post = |body: &[u8]| http::call(daemon.address, "POST", "/api/v1/requests", &[yaml], body);
    post(&vec![b'#'; 100 << 10]).refused(413, "DW0802");
    post(b"").refused(400, "DW0801");

    let mut slow = http::connect(daemon.address);
    let head = "POST /api/v1/requests HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/yaml\r\ncontent-length: 100\r\n\r\n";
    write!(slow, "{head}version: 1").expect("sent");
    http::read(&mut BufReader::new(slow)).refused(408, "DW0819");
}

#[test]
fn a_head_that_never_ends_ends_the_connection() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[("HTTP__TIMEOUT", "1s")]);
    let mut slow = http::connect(daemon.address);
    write!(slow, "GET /api/v1/requests HTTP/1.1\r\nhost: local").expect("sent");
    let mut said = String::new();
    slow.read_to_string(&mut said).expect("an end");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    http::call(daemon.address, "GET", "/livez", &[], b"").expect(200);
}

#[test]
fn who_takes_nothing_is_disconnected() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[("HTTP__TIMEOUT", "1s")]);
    let mut greedy = http::connect(daemon.address);
    let asked = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let since = Instant::now();
    // It asks and asks, and reads no answer; once nobody answers any longer its asking fails.
    let refused = loop {
        assert!(since.elapsed() < PATIENCE, "it is still served");
        if let Err(error) = greedy.write_all(asked.as_bytes()) {
            break error.kind();
        }
    };
    assert!(matches!(refused, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    http::call(daemon.address, "GET", "/livez", &[], b"").expect(200);
}

#[test]
fn nonsense_on_the_wire_costs_nobody_anything() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[("HTTP__TIMEOUT", "1s")]);
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n", &[0xff; 70_000]]
    {
        let mut stream = http::connect(daemon.address);
        // It may be cut off before all is sent.
        let _ = stream.write_all(nonsense);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&said));
    }
    http::call(daemon.address, "GET", "/readyz", &[], b"").expect(200);
}

const READER: &str = "a-reader-0123456789abcdef";
const SENDER: &str = "a-sender-0123456789abcdef";

/// Starts a service that knows a reader and a sender, says no more than it must, and loses its patience soon.
fn guarded(workspace: &Workspace, settings: &[(&str, &str)]) -> Daemon {
    let file = workspace.write(
        "dagwright.toml",
        "[http]\ntimeout = \"1s\"\nkeep_alive = \"1s\"\nbody_max = \"64KiB\"\n\
         [log]\nlevel = \"error\"\n\
         [http.tokens.reader]\ntoken_env = \"READER\"\nscopes = [\"read\"]\n\
         [http.tokens.sender]\ntoken_env = \"SENDER\"\nscopes = [\"submit\"]\n",
    );
    let settings = [settings, &[("READER", READER), ("SENDER", SENDER)]].concat();
    Daemon::logged(workspace, &settings, &["--config", &file.to_string_lossy()])
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn metrics(daemon: &Daemon) -> String {
    let headers = [("authorization", &*bearer(READER))];
    http::call(daemon.address, "GET", "/metrics", &headers, b"").expect(200).body.clone()
}

/// Returns the audit lines.
fn audit(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    // The last line may be half written.
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "audit").collect()
}

#[track_caller]
fn until(what: &str, daemon: &Daemon, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "in vain until {what}:\n{}\n{}", metrics(daemon), daemon.log());
    }
}

#[test]
fn rude_callers_are_refused_written_down_and_counted() {
    let workspace = Workspace::new();
    let daemon = guarded(&workspace, &[]);
    let call = |method: &str, token: &str, body: &[u8]| {
        let headers = [("authorization", &*bearer(token)), ("content-type", "application/yaml")];
        http::call(daemon.address, method, "/api/v1/requests", &headers, body)
    };
    call("GET", "a-guess-0123456789abcdef", b"").refused(401, "DW0807");
    http::call(daemon.address, "GET", "/api/v1/requests", &[], b"").refused(401, "DW0807");
    call("POST", READER, b"version: 1").refused(403, "DW0808");
    call("POST", SENDER, &vec![b'#'; 100 << 10]).refused(413, "DW0802");

    let head = |method: &str| {
        format!("{method} /api/v1/requests HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SENDER}\r\n")
    };
    let mut slow_body = http::connect(daemon.address);
    write!(slow_body, "{}content-type: application/yaml\r\ncontent-length: 9\r\n\r\nv", head("POST")).expect("sent");
    http::read(&mut BufReader::new(slow_body)).refused(408, "DW0819");
    let mut slow_head = http::connect(daemon.address);
    write!(slow_head, "{}", head("GET")).expect("sent");
    let mut said = String::new();
    slow_head.read_to_string(&mut said).expect("an end");
    // Who has asked for something is known to be polite, and has no more time for that.
    let mut slow_again = BufReader::new(http::connect(daemon.address));
    write!(slow_again.get_mut(), "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    http::read(&mut slow_again).expect(200);
    write!(slow_again.get_mut(), "GET /livez HTTP/1.1\r\nhost: local").expect("sent");
    slow_again.read_to_string(&mut said).expect("an end");

    let wanted = [("DW0807", 2), ("DW0808", 1), ("DW0802", 1), ("DW0819", 3)];
    until("all are counted", &daemon, || {
        let told = metrics(&daemon);
        let is_counted = |(code, times): &(&str, usize)| {
            let line = format!("dagwright_requests_refused_total{{code=\"{code}\",ingress=\"http\"}} {times}");
            told.lines().any(|told| told == line)
        };
        wanted.iter().all(is_counted)
    });
    let lines = audit(&daemon);
    for (code, times) in wanted {
        let found: Vec<_> = lines.iter().filter(|line| line["fields"]["code"] == code).collect();
        assert_eq!(found.len(), times, "{code}: {lines:#?}");
        for line in found {
            let fields = &line["fields"];
            assert_eq!((&fields["outcome"], &fields["peer"]), (&"refused".into(), &"127.0.0.1".into()), "{line}");
            let caller = match code {
                "DW0808" => "reader",
                "DW0802" => "sender",
                _ => continue,
            };
            assert_eq!(fields["caller"], caller, "{line}");
        }
    }
    assert!(!daemon.log().contains("a-guess"), "a token is in the log");
}

#[test]
fn what_callers_do_is_written_down_whatever_the_level_is() {
    let workspace = Workspace::new();
    let daemon = guarded(&workspace, &[]);
    let send = |spec: &str, traceparent: &str| {
        let headers = [
            ("authorization", &*bearer(SENDER)),
            ("content-type", "application/yaml"),
            ("idempotency-key", "one"),
            ("traceparent", traceparent),
        ];
        http::call(daemon.address, "POST", "/api/v1/requests", &headers, spec.as_bytes())
    };
    let (trace, spec) = ("4bf92f3577b34da6a3ce929d0e0e4736", crate::spec(&workspace, "flights.yaml"));
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let receipt = send(&spec, &traceparent).expect(202).json();
    send(&spec, &traceparent).expect(200);
    send(&spec.replace("uri: ", "uri: /elsewhere"), &traceparent).refused(403, "DW0806");

    let lines = audit(&daemon);
    let outcomes: Vec<_> = lines.iter().map(|line| line["fields"]["outcome"].as_str().expect("an outcome")).collect();
    assert_eq!(outcomes, ["accepted", "repeated", "refused"], "{lines:#?}");
    for line in &lines {
        let fields = &line["fields"];
        assert_eq!((&fields["caller"], &fields["action"]), (&"sender".into(), &"run".into()), "{line}");
        assert_eq!((&fields["pipeline"], &line["trace_id"]), (&receipt["pipeline"], &trace.into()), "{line}");
    }
    assert!(lines[..2].iter().all(|line| line["request_id"] == receipt["request_id"]), "{lines:#?}");
    assert_eq!(lines[2]["fields"]["code"], "DW0806");
    let others = daemon.log().lines().filter(|line| line.contains("\"INFO\"") && !line.contains("\"audit\"")).count();
    assert_eq!(others, 0, "the level holds for everything else");
}

#[test]
fn connections_that_ask_for_nothing_give_way() {
    const MAX: usize = 2;
    let workspace = Workspace::new();
    let daemon = guarded(
        &workspace,
        &[("DAGWRIGHT__HTTP__CONNECTIONS", "2"), ("DAGWRIGHT__HTTP__WORKERS", "1"), ("DAGWRIGHT__LOG__LEVEL", "warn")],
    );
    let silent: Vec<_> = (0..3 * MAX).map(|_| http::connect(daemon.address)).collect();
    // It waits until those before it are cut off.
    let told = metrics(&daemon);
    assert!(told.lines().any(|line| line == "dagwright_http_connections_max 2"), "{told}");
    until("they are counted", &daemon, || {
        let told = metrics(&daemon);
        let line = format!("dagwright_requests_refused_total{{code=\"DW0819\",ingress=\"http\"}} {}", silent.len());
        told.lines().any(|told| told == line)
    });
    assert!(daemon.log().contains("as many connections are open as may be"), "{}", daemon.log());
    assert_eq!(audit(&daemon).len(), silent.len());
    assert!(metrics(&daemon).lines().any(|line| line == "dagwright_http_connections_open 1"), "this one");
}
