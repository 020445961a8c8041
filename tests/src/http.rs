//! HTTP as its bytes are: enough to call a service, to watch its events, and to be rude to it.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::events;

/// The longest that a test waits for bytes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a call was answered with.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// A server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its position, if it has one.
    pub id: Option<u64>,
    /// What happened.
    pub event: String,
    /// The CloudEvent.
    pub data: Value,
}

/// A stream of server-sent events.
pub struct Events {
    reader: BufReader<TcpStream>,
    text: String,
}

/// Connects.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time limit");
    stream
}

/// Calls, and reads the answer to its end.
///
/// # Panics
/// When there is none.
#[track_caller]
#[must_use]
pub fn call(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut stream = connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).expect("sent");
    // Who refuses a body need not read it.
    let _ = stream.write_all(body);
    read(&mut BufReader::new(stream))
}

/// Reads an answer.
///
/// # Panics
/// When there is none.
#[track_caller]
#[must_use]
pub fn read(reader: &mut impl BufRead) -> Reply {
    let (status, headers) = head(reader);
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = chunk(reader) {
            body.extend_from_slice(&chunk);
        }
    } else if let Some(length) = header("content-length") {
        body = vec![0; length.parse().expect("a length")];
        reader.read_exact(&mut body).expect("a whole body");
    }
    Reply { status, headers, body: String::from_utf8(body).expect("text") }
}

/// Calls somebody who may end meanwhile; returns the status, if one was told.
#[must_use]
pub fn attempt(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    request.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    request.extend(body);
    stream.write_all(&request).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.split(' ').nth(1)?.parse().ok()
}

fn head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let first = line(reader);
    let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
    let mut headers = Vec::new();
    loop {
        let line = line(reader);
        match line.split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return (status.unwrap_or_else(|| panic!("no status in {first:?}")), headers),
        }
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// Reads a chunk; `None` for the last one, and where the stream breaks off.
fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let length = usize::from_str_radix(&line(reader), 16).ok().filter(|length| *length > 0)?;
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

// === impl Reply ===

impl Reply {
    /// Returns the body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Expects a status.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Expects problem details with a status and a code.
    ///
    /// # Panics
    /// When there are none, or others.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        self.expect(status);
        assert!(self.headers.contains(&("content-type".into(), "application/problem+json".into())), "{self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
    }
}

// === impl Events ===

impl Events {
    /// Opens a stream.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    #[must_use]
    pub fn open(address: SocketAddr, path: &str, after: Option<u64>) -> Self {
        let after = after.map(|after| format!("last-event-id: {after}\r\n")).unwrap_or_default();
        Self::open_with(address, path, &after)
    }

    /// Opens a stream with an authorization.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    #[must_use]
    pub fn open_as(address: SocketAddr, path: &str, authorization: &str) -> Self {
        Self::open_with(address, path, &format!("authorization: {authorization}\r\n"))
    }

    #[track_caller]
    fn open_with(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = connect(address);
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n").expect("sent");
        let mut reader = BufReader::new(stream);
        let (status, headers) = head(&mut reader);
        assert_eq!(status, 200, "{headers:?}");
        Self { reader, text: String::new() }
    }
}

impl Iterator for Events {
    type Item = Told;

    /// Waits for the next event; `None` when the stream ended.
    fn next(&mut self) -> Option<Told> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                let (id, event, data) = (field("id"), field("event"), field("data"));
                self.text = rest.to_owned();
                if let Some(data) = data {
                    let (id, event) = (id.and_then(|id| id.parse().ok()), event.unwrap_or_default());
                    let data = serde_json::from_str(&data).expect("JSON");
                    events::check(&data);
                    return Some(Told { id, event, data });
                }
            }
            self.text.push_str(&String::from_utf8(chunk(&mut self.reader)?).expect("text"));
        }
    }
}
