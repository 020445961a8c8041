//! Where a command's answer goes: text for people, or one JSON object for machines, never both.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::render::{BAD, WARN, is_hidden, styled};

/// Writes answers to standard output and remarks to standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

/// Writes JSON of one line, with escapes for what could repaint the terminal of somebody who looks at it. Other readers
/// find the same values.
struct Visible;

// === impl Output ===

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints text, unless the answer is JSON.
    pub(crate) fn text(self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.raw(text) }
    }

    /// Prints text in either case.
    pub(crate) fn raw(self, text: &str) -> io::Result<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Prints the one JSON object, if that is what was asked for.
    pub(crate) fn json(self, value: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        value.serialize(&mut Serializer::with_formatter(&mut out, Visible))?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Says how it goes, on standard error.
    pub(crate) fn remark(self, text: &str) {
        anstream::eprintln!("{text}");
    }

    /// Says something that is no part of the answer.
    pub(crate) fn warn(self, text: &str) {
        anstream::eprintln!("{} {text}", styled(WARN, "warning:"));
    }

    /// Says why there is no answer.
    pub(crate) fn error(self, text: &str) {
        anstream::eprint!("{} {text}", styled(BAD, "error:"));
    }

    /// Says why there is no answer, in words that need no introduction.
    pub(crate) fn plain_error(self, text: &str) {
        anstream::eprint!("{text}");
    }

    /// Tells whether a person watches: then progress may move.
    pub(crate) fn is_watched(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }
}

// === impl Visible ===

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, character)| is_hidden(*character)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + hidden.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::ser::Serializer;

    use super::Visible;

    #[test]
    fn json_says_the_same_and_paints_nothing() {
        let value = serde_json::json!({ "a\u{9b}b": ["\u{1b}[2J", "\u{202e}é\u{e0041}\u{7f}", "\"\n"] });
        let mut out = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut out, Visible)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(super::is_hidden) && text.contains('é'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
