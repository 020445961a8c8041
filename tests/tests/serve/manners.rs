//! Rude callers: refused with a code, disconnected, and nobody else notices.

use std::{
    io::{BufReader, ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use dagwright_tests::{Workspace, daemon::Daemon, http};

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
