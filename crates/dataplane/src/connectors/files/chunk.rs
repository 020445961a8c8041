//! Cuts text into chunks of whole records.
//!
//! One thread reads and cuts; chunks are parsed on all cores. The cut must know which line ends stand within quotes, so
//! it follows the quotes from the file's start, by the same rule as [`super::csv`]: a quote opens a field only at the
//! field's start. That is a search for quotes and line ends, many times faster than parsing.

use std::io::Read;

use dagwright_model::code::Code;
use memchr::{memchr, memchr2, memrchr};

use super::{csv::Dialect, fault::Subject};
use crate::error::Result;

/// The size of a chunk, unless one record is longer: large enough that threads seldom meet, small enough for caches.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// The longest record. Longer ones are seldom records, more often an open quote or no text at all.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Whole records.
#[derive(Debug, PartialEq)]
pub(crate) struct Chunk {
    /// Their bytes, line ends included.
    pub(crate) bytes: Vec<u8>,
    /// The number of the first line, from 1.
    pub(crate) line: u64,
}

/// Cuts one file into chunks.
pub(crate) struct Chunker<R> {
    reader: R,
    /// The quotes to follow; `None`: every line is a record.
    dialect: Option<Dialect>,
    chunk_bytes: usize,
    rest: Vec<u8>,
    line: u64,
    ended: bool,
    name: String,
    subject: Subject,
}

// === impl Chunker ===

impl<R: Read> Chunker<R> {
    /// Starts at the start of a file.
    pub(crate) fn new(reader: R, dialect: Option<Dialect>, chunk_bytes: usize, name: &str, subject: &Subject) -> Self {
        let (name, subject) = (name.into(), subject.clone());
        Self { reader, dialect, chunk_bytes, rest: Vec::new(), line: 1, ended: false, name, subject }
    }

    /// Returns the next chunk, or `None` at the end.
    ///
    /// # Errors
    /// What reading gave, DW0308 for a record that is too long, DW0306 for a quote that is never closed.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut target = self.chunk_bytes;
        loop {
            self.fill(&mut bytes, target)?;
            if self.ended {
                return self.last(bytes);
            }
            if let Some(end) = self.last_record_end(&bytes) {
                let mut rest = Vec::with_capacity(self.chunk_bytes + (bytes.len() - end));
                rest.extend_from_slice(&bytes[end..]);
                bytes.truncate(end);
                self.rest = rest;
                return Ok(Some(self.chunk(bytes)));
            }
            if bytes.len() > RECORD_BYTES_MAX {
                return Err(self.subject.error(
                    Code::RecordTooLong,
                    format!("{}:{}: a record is longer than {} MiB", self.name, self.line, RECORD_BYTES_MAX >> 20),
                    "check that the file is text of the given format, and that each quote is closed",
                ));
            }
            target = (bytes.len() * 2).min(RECORD_BYTES_MAX + 1);
        }
    }

    fn fill(&mut self, bytes: &mut Vec<u8>, target: usize) -> Result<()> {
        while bytes.len() < target && !self.ended {
            let missing = target - bytes.len();
            bytes.reserve(missing);
            let read = self.reader.by_ref().take(missing as u64).read_to_end(bytes);
            self.ended = read.map_err(|error| self.subject.io(&self.name, error))? < missing;
        }
        Ok(())
    }

    fn last(&mut self, bytes: Vec<u8>) -> Result<Option<Chunk>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.dialect.is_some_and(|dialect| is_open(&bytes, dialect)) {
            return Err(self.subject.malformed(
                format!("{}: a quote after line {} is never closed", self.name, self.line),
                "close the quote, or give the right `csv.quote` and `csv.escape`",
            ));
        }
        Ok(Some(self.chunk(bytes)))
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Chunk {
        let line = self.line;
        self.line += lines(&bytes);
        Chunk { bytes, line }
    }

    fn last_record_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.dialect {
            Some(dialect) => last_record_end(bytes, dialect),
            None => memrchr(b'\n', bytes).map(|at| at + 1),
        }
    }
}

/// Counts line ends.
pub(crate) fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Returns where the last record that ends in `bytes` ends; `bytes` must begin at a record's start.
pub(crate) fn last_record_end(bytes: &[u8], dialect: Dialect) -> Option<usize> {
    walk(bytes, dialect).0
}

/// Tells whether a quote is open at the end of `bytes`, which must begin at a record's start.
fn is_open(bytes: &[u8], dialect: Dialect) -> bool {
    walk(bytes, dialect).1
}

fn walk(bytes: &[u8], dialect: Dialect) -> (Option<usize>, bool) {
    let line_end = |from: usize, to: usize| memrchr(b'\n', &bytes[from..to]).map(|at| from + at + 1);
    let Some(quote) = dialect.quote else { return (line_end(0, bytes.len()), false) };
    let mut end = None;
    let mut unquoted = 0;
    loop {
        let opened = next_opening(bytes, unquoted, quote, dialect.delimiter);
        end = line_end(unquoted, opened.unwrap_or(bytes.len())).or(end);
        let Some(opened) = opened else { return (end, false) };
        let Some(closed) = closing(bytes, opened + 1, quote, dialect.escape) else { return (end, true) };
        unquoted = closed + 1;
    }
}

/// Finds the next quote at a field's start.
fn next_opening(bytes: &[u8], mut from: usize, quote: u8, delimiter: u8) -> Option<usize> {
    loop {
        let at = from + memchr(quote, &bytes[from..])?;
        if at == 0 || bytes[at - 1] == delimiter || bytes[at - 1] == b'\n' {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Finds the quote that closes a field whose content starts at `from`.
pub(crate) fn closing(bytes: &[u8], mut from: usize, quote: u8, escape: Option<u8>) -> Option<usize> {
    loop {
        let rest = bytes.get(from..)?;
        let at = from
            + match escape {
                Some(escape) => memchr2(quote, escape, rest)?,
                None => memchr(quote, rest)?,
            };
        let doubled = bytes[at] == quote && bytes.get(at + 1) == Some(&quote);
        if bytes[at] != quote || doubled {
            from = at + 2;
        } else {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Chunk, Chunker, last_record_end};
    use crate::connectors::files::{csv::Dialect, fault::Subject};

    const DIALECT: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape: None };

    #[track_caller]
    fn check(bytes: &[u8], wanted: Option<usize>) {
        assert_eq!(last_record_end(bytes, DIALECT), wanted, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn records_end_outside_quotes() {
        check(b"a,b", None);
        check(b"a,b\nc", Some(4));
        check(b"\"a\nb\",c\nd", Some(8));
        check(b"\"a\nb\",\"c\n", None);
        check(b"x\n\"a\nb", Some(2));
        check(b"5\" pipe,a\nb", Some(10));
        check(b"\"a\"\"\n\",b\n", Some(9));
        check(b"\"\",b\n", Some(5));
        check(b"a,\"\"\nb", Some(5));
    }

    #[test]
    fn chunks_are_whole_records_and_know_their_line() {
        let text = "a,\"x\ny\"\nbb,c\n\nlast,1".as_bytes();
        for chunk_bytes in 1..30 {
            let subject = Subject::source("s");
            let mut chunker = Chunker::new(text, Some(DIALECT), chunk_bytes, "f", &subject);
            let mut joined = Vec::new();
            while let Some(Chunk { bytes, line }) = chunker.next().unwrap() {
                assert_eq!(line, 1 + super::lines(&joined), "{chunk_bytes}");
                joined.extend(bytes);
                assert_eq!(last_record_end(&joined, DIALECT).unwrap_or(0) == joined.len(), joined.len() < text.len());
            }
            assert_eq!(joined, text);
        }
    }
}
