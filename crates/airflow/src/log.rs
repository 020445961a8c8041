//! The end of a log, kept while it is read.
//!
//! Airflow 2 sends lines of text, Airflow 3 one JSON object a line. Logs hold what programs print: they are bounded, and freed
//! of control characters.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::{task::Log, version::Api};

/// The longest line that is read, in bytes; what is longer loses its middle.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Keeps the last lines of a log.
pub(crate) struct Tail {
    api: Api,
    bytes_max: usize,
    lines: VecDeque<String>,
    bytes: usize,
    left_out: u64,
    partial: Vec<u8>,
    /// How much of the partial line is not kept.
    skipped: u64,
}

// === impl Tail ===

impl Tail {
    /// Keeps up to `bytes_max` bytes.
    pub(crate) fn new(api: Api, bytes_max: usize) -> Self {
        let (lines, partial) = (VecDeque::new(), Vec::new());
        Self { api, bytes_max, lines, bytes: 0, left_out: 0, partial, skipped: 0 }
    }

    /// Goes on with a part of the log.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let mut parts = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE_BYTES_MAX - self.partial.len();
            self.partial.extend_from_slice(&part[..part.len().min(room)]);
            self.skipped += part.len().saturating_sub(room) as u64;
            if parts.peek().is_some() {
                self.end_line();
            }
        }
    }

    /// Returns what was kept.
    pub(crate) fn finish(mut self, is_complete: bool) -> Log {
        if !self.partial.is_empty() {
            self.end_line();
        }
        Log { text: self.lines.into_iter().collect(), left_out: self.left_out, is_complete }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\r');
        let rendered = match (self.api, serde_json::from_str(line)) {
            (Api::V2, Ok(Value::Object(message))) => render(&message),
            _ => line.to_owned(),
        };
        let mut text: String = rendered.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
        if self.skipped > 0 {
            text.push('…');
        }
        self.left_out += std::mem::take(&mut self.skipped);
        text.push('\n');
        if text.len() > self.bytes_max {
            let cut = (text.len() - self.bytes_max..=text.len()).find(|at| text.is_char_boundary(*at));
            let rest = text.split_off(cut.unwrap_or(text.len()));
            self.left_out += text.len() as u64;
            text = rest;
        }
        self.bytes += text.len();
        self.lines.push_back(text);
        while self.bytes > self.bytes_max
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes -= first.len();
            self.left_out += first.len() as u64;
        }
    }
}

/// Writes a message of Airflow 3 as a line: time, level, event, and then what was raised.
fn render(message: &Map<String, Value>) -> String {
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    let level = text("level").map(str::to_uppercase);
    let event = text("event").map(ToOwned::to_owned).unwrap_or_else(|| Value::Object(message.clone()).to_string());
    let head = [text("timestamp"), level.as_deref(), Some(event.as_str())];
    let mut line = head.into_iter().flatten().collect::<Vec<_>>().join(" ");
    for raised in message.get("error_detail").and_then(Value::as_array).into_iter().flatten() {
        let part = |key: &str| raised.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        line.push_str(&format!("\n{}: {}", part("exc_type"), part("exc_value")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, Tail};
    use crate::{task::Log, version::Api};

    #[track_caller]
    fn check(api: Api, bytes_max: usize, log: &[u8], text: &str, left_out: u64) {
        for size in [1, 3, log.len().max(1)] {
            let mut tail = Tail::new(api, bytes_max);
            log.chunks(size).for_each(|chunk| tail.push(chunk));
            assert_eq!(tail.finish(true), Log { text: text.to_owned(), left_out, is_complete: true }, "by {size}");
        }
    }

    #[test]
    fn the_last_lines_are_kept() {
        check(Api::V1, 100, b"", "", 0);
        check(Api::V1, 100, b"one\r\ntwo\nthree", "one\ntwo\nthree\n", 0);
        check(Api::V1, 10, b"one\ntwo\nthree\n", "two\nthree\n", 4);
        check(Api::V1, 4, b"one\nhundred\n", "red\n", 8);
        check(Api::V1, 3, "ééé\n".as_bytes(), "é\n", 4);
        check(Api::V1, 100, b"\x1b[31mred\x1b[0m\x00 \xff\n", "[31mred[0m \u{fffd}\n", 0);
        check(Api::V1, 0, b"one\n", "", 4);
    }

    #[test]
    fn messages_become_lines() {
        check(
            Api::V2,
            1000,
            br#"{"timestamp":"2025-01-01T00:00:00Z","event":"Task failed","level":"error","logger":"task","error_detail":[{"exc_type":"ValueError","exc_value":"no such\tthing","frames":[]}]}
{"event":"::group::","timestamp":null}
{"content":"of another version"}
not JSON
"#,
            "2025-01-01T00:00:00Z ERROR Task failed\nValueError: no such\tthing\n::group::\n{\"content\":\"of another version\"}\nnot JSON\n",
            0,
        );
        check(Api::V1, 1000, b"{\"event\":\"text\"}\n", "{\"event\":\"text\"}\n", 0);
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let mut tail = Tail::new(Api::V2, usize::MAX);
        let chunk = vec![b'x'; LINE_BYTES_MAX / 2];
        (0..100).for_each(|_| tail.push(&chunk));
        let log = tail.finish(false);
        assert_eq!(log.text.len(), LINE_BYTES_MAX + "…\n".len());
        assert_eq!(log.left_out, (49 * LINE_BYTES_MAX) as u64);
    }
}
