//! Task events as JSON lines: what `dagwright-task` writes to its standard output, and how its parent reads it.
//!
//! The reader trusts nothing: a line may be of any length, hold any bytes, or never end. What is not an event is
//! counted and dropped, so a library that prints to standard output disturbs nobody.

use dagwright_model::task::TaskEvent;

/// The longest event line, in bytes. The outcome of a split lists every file of a source; 16 MiB holds over 100 000
/// paths.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Renders an event as one line, the line feed included.
#[must_use]
pub fn encode(event: &TaskEvent) -> String {
    // JSON escapes line feeds in texts, so the line stays one.
    let mut line = serde_json::to_string(event).unwrap_or_default();
    line.push('\n');
    line
}

/// Splits a byte stream into lines and reads each as an event.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// Whether the current line has outgrown the bound; its rest is dropped.
    overlong: bool,
    strays: u64,
}

// === impl Decoder ===

impl Decoder {
    /// Takes the next bytes and returns the events of the lines they complete.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<TaskEvent> {
        let mut events = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            events.extend(self.end_line());
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        events
    }

    /// Ends the stream; returns the event of a last line without line feed.
    pub fn finish(&mut self) -> Option<TaskEvent> {
        self.end_line()
    }

    /// Returns how many non-empty lines were no events.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.overlong || self.line.len() + bytes.len() > LINE_BYTES_MAX {
            self.overlong = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<TaskEvent> {
        let line = std::mem::take(&mut self.line);
        let overlong = std::mem::take(&mut self.overlong);
        if line.trim_ascii().is_empty() && !overlong {
            return None;
        }
        let event = if overlong { None } else { serde_json::from_slice(&line).ok() };
        self.strays += u64::from(event.is_none());
        event
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{id::TaskId, task::TaskEvent};

    use super::{Decoder, LINE_BYTES_MAX, encode};

    fn progress(rows: u64) -> TaskEvent {
        TaskEvent::Progress { rows_read: rows, bytes_read: 0, rows_written: 0 }
    }

    #[test]
    fn events_survive_any_cut() {
        let events = [
            TaskEvent::Started { task: TaskId("line\nfeed".into()), rows_expected: Some(1), bytes_expected: None },
            progress(1),
            progress(2),
        ];
        let text: String = events.iter().map(encode).collect();
        for size in 1..text.len() {
            let mut decoder = Decoder::default();
            let read: Vec<_> = text.as_bytes().chunks(size).flat_map(|chunk| decoder.push(chunk)).collect();
            assert_eq!(read, events, "chunks of {size}");
            assert_eq!((decoder.finish(), decoder.strays()), (None, 0));
        }
    }

    #[test]
    fn what_is_no_event_is_dropped_and_counted() {
        let mut decoder = Decoder::default();
        let text = format!("hello\n\n{{\"event\":\"nonsense\"}}\n\u{0}\u{1}\n{}[1,2]\n", encode(&progress(7)));
        assert_eq!(decoder.push(text.as_bytes()), [progress(7)]);
        assert_eq!(decoder.push(&[0xff, 0xfe, b'\n']), []);
        assert_eq!(decoder.strays(), 5);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            assert_eq!(decoder.push(&chunk), []);
            assert!(decoder.line.capacity() <= 2 * LINE_BYTES_MAX);
        }
        assert_eq!(decoder.push(b"\n"), []);
        assert_eq!(decoder.push(encode(&progress(1)).as_bytes()), [progress(1)]);
        assert_eq!(decoder.strays(), 1);
    }

    #[test]
    fn a_last_line_needs_no_line_feed() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(encode(&progress(3)).trim_end().as_bytes()), []);
        assert_eq!(decoder.finish(), Some(progress(3)));
    }
}
