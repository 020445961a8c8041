//! Where a command's answer goes: text for people, or one JSON object for machines, never both.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::render::{BAD, WARN, styled};

/// Writes answers to standard output and remarks to standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

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
        serde_json::to_writer(&mut out, value)?;
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
