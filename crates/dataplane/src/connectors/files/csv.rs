//! Finds the fields of CSV records.
//!
//! The grammar is RFC 4180 with a choice of delimiter, quote and escape, as lenient as most readers: a quote opens a
//! field only at its start and is an ordinary character elsewhere; lines end in LF or CRLF; empty lines are no records
//! (except in files of one column, where they are a NULL). Text after a closing quote makes a record malformed.

use super::chunk;

/// How fields are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// Between fields.
    pub(crate) delimiter: u8,
    /// Around fields that hold delimiters, quotes or line ends; `None`: never.
    pub(crate) quote: Option<u8>,
    /// Before a quote within quotes; `None`: quotes are doubled.
    pub(crate) escape: Option<u8>,
}

/// Where a field's text stands in its chunk, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first byte.
    start: u32,
    /// The length, and how it is written in the upper two bits.
    length_and_form: u32,
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Form {
    /// As it is.
    Plain = 0,
    /// Within quotes.
    Quoted = 1,
    /// Within quotes, with escapes.
    Escaped = 2,
    /// There is none: NULL.
    Missing = 3,
}

/// A record that is not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Where it starts in its chunk.
    pub(crate) start: usize,
    /// Where it ends, without the line end.
    pub(crate) end: usize,
    /// What is wrong.
    pub(crate) fault: Fault,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has this many fields.
    Fields(usize),
    /// Something follows a closing quote.
    AfterQuote,
    /// It is not one JSON object.
    NotAnObject,
}

/// The fields of a chunk, row by row.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The wanted fields of each record, in the file's order.
    pub(crate) spans: Vec<Span>,
    /// Where each record starts.
    pub(crate) starts: Vec<u32>,
    /// The records that are not well formed, in order; they have no spans.
    pub(crate) malformed: Vec<Malformed>,
}

/// Which fields are wanted, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// For each field of the file, whether it is wanted.
    pub(crate) wanted: Vec<bool>,
    /// Whether missing fields are NULL.
    pub(crate) fill: bool,
}

const FORM_SHIFT: u32 = 30;
const LENGTH_MASK: u32 = (1 << FORM_SHIFT) - 1;

// === impl Span ===

impl Span {
    /// A field that is not there.
    pub(crate) const MISSING: Self = Self { start: 0, length_and_form: (Form::Missing as u32) << FORM_SHIFT };

    /// Makes a span; both positions are below [`chunk::RECORD_BYTES_MAX`] plus a chunk.
    #[inline]
    pub(crate) fn new(start: usize, end: usize, form: Form) -> Self {
        debug_assert!(start <= end && end - start <= LENGTH_MASK as usize);
        #[expect(clippy::cast_possible_truncation, reason = "chunks are far smaller than 1 GiB")]
        let (start, length) = (start as u32, (end - start) as u32);
        Self { start, length_and_form: length | ((form as u32) << FORM_SHIFT) }
    }

    /// Returns how it is written.
    #[inline]
    pub(crate) fn form(self) -> Form {
        match self.length_and_form >> FORM_SHIFT {
            0 => Form::Plain,
            1 => Form::Quoted,
            2 => Form::Escaped,
            _ => Form::Missing,
        }
    }

    /// Returns its bytes as they stand in the chunk.
    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &bytes[start..start + (self.length_and_form & LENGTH_MASK) as usize]
    }

    /// Tells whether its text is empty.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.length_and_form & LENGTH_MASK == 0
    }

    /// Tells whether it is plain and empty.
    #[inline]
    pub(crate) fn is_plain_empty(self) -> bool {
        self.length_and_form == 0
    }
}

// === impl Table ===

impl Table {
    /// Finds the fields of all records in `bytes`, which are whole records; returns how many bytes were read.
    pub(crate) fn read(&mut self, bytes: &[u8], dialect: Dialect, shape: &Shape) {
        let mut at = 0;
        while at < bytes.len() {
            at = self.record(bytes, at, dialect, shape);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "chunks are far smaller than 4 GiB")]
    fn record(&mut self, bytes: &[u8], start: usize, dialect: Dialect, shape: &Shape) -> usize {
        let expected = shape.wanted.len();
        let first_span = self.spans.len();
        let mut at = start;
        let mut fields = 0;
        let mut fault = None;
        let end = loop {
            let field = at;
            let (content, stop) = if dialect.quote.is_some() && bytes.get(at) == dialect.quote.as_ref() {
                let quote = bytes[at];
                let (span, after) = quoted(bytes, field, quote, dialect.escape);
                let stop = after + until(&bytes[after..], dialect.delimiter);
                let trailing = &bytes[after..stop];
                let line_ends = matches!(bytes.get(stop), None | Some(b'\n'));
                if !(trailing.is_empty() || (trailing == b"\r" && line_ends)) {
                    fault = fault.or(Some(Fault::AfterQuote));
                }
                (span, stop)
            } else {
                let stop = field + until(&bytes[field..], dialect.delimiter);
                let mut end = stop;
                if end > field && bytes[end - 1] == b'\r' && bytes.get(stop) != Some(&dialect.delimiter) {
                    end -= 1;
                }
                (Span::new(field, end, Form::Plain), stop)
            };
            match shape.wanted.get(fields) {
                Some(true) => self.spans.push(content),
                Some(false) => {}
                None => fault = fault.or(Some(Fault::Fields(0))),
            }
            fields += 1;
            if bytes.get(stop) == Some(&dialect.delimiter) {
                at = stop + 1;
            } else {
                break stop;
            }
        };
        let next = (end + 1).min(bytes.len()).max(start + 1);
        let text_end = if end > start && bytes[end - 1] == b'\r' { end - 1 } else { end };
        if fields == 1 && expected != 1 && text_end == start {
            self.spans.truncate(first_span);
            return next;
        }
        if fields < expected && fault.is_none() {
            if shape.fill {
                let missing = shape.wanted[fields..].iter().filter(|wanted| **wanted);
                self.spans.extend(missing.map(|_| Span::MISSING));
            } else {
                fault = Some(Fault::Fields(0));
            }
        }
        match fault {
            None => self.starts.push(start as u32),
            Some(fault) => {
                self.spans.truncate(first_span);
                let fault = if let Fault::Fields(_) = fault { Fault::Fields(fields) } else { fault };
                self.malformed.push(Malformed { start, end: text_end, fault });
            }
        }
        next
    }
}

/// Splits one record into its fields; for headers and samples.
pub(crate) fn fields(bytes: &[u8], dialect: Dialect) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = 0;
    loop {
        let stop;
        if dialect.quote.is_some() && bytes.get(at) == dialect.quote.as_ref() {
            let (span, after) = quoted(bytes, at, bytes[at], dialect.escape);
            spans.push(span);
            stop = after + until(&bytes[after..], dialect.delimiter);
        } else {
            stop = at + until(&bytes[at..], dialect.delimiter);
            let text = &bytes[at..stop];
            let text = if bytes.get(stop) == Some(&dialect.delimiter) {
                text
            } else {
                text.strip_suffix(b"\r").unwrap_or(text)
            };
            spans.push(Span::new(at, at + text.len(), Form::Plain));
        }
        if bytes.get(stop) != Some(&dialect.delimiter) {
            return spans;
        }
        at = stop + 1;
    }
}

/// Returns where the record that starts at the start of `bytes` ends, line end included.
pub(crate) fn record_end(bytes: &[u8], dialect: Dialect) -> usize {
    let mut at = 0;
    loop {
        if dialect.quote.is_some() && bytes.get(at) == dialect.quote.as_ref() {
            at = quoted(bytes, at, bytes[at], dialect.escape).1;
        }
        at += until(&bytes[at..], dialect.delimiter);
        if bytes.get(at) != Some(&dialect.delimiter) {
            return (at + 1).min(bytes.len());
        }
        at += 1;
    }
}

/// Reads a quoted field; returns it and what comes after its closing quote.
fn quoted(bytes: &[u8], start: usize, quote: u8, escape: Option<u8>) -> (Span, usize) {
    let content = start + 1;
    // The chunker refuses a quote that is never closed; samples may be cut.
    let closed = chunk::closing(bytes, content, quote, escape).unwrap_or(bytes.len());
    let text = &bytes[content.min(closed)..closed];
    let escaped =
        memchr::memchr(quote, text).is_some() || escape.is_some_and(|escape| memchr::memchr(escape, text).is_some());
    let form = if escaped { Form::Escaped } else { Form::Quoted };
    (Span::new(content.min(closed), closed, form), (closed + 1).min(bytes.len()))
}

/// Returns how far it is to the next delimiter or line end, or to the end.
#[inline]
fn until(bytes: &[u8], delimiter: u8) -> usize {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // Eight bytes at once: the lowest set high bit marks the first zero byte of `x`.
    let zeros = |x: u64| x.wrapping_sub(LOW) & !x & HIGH;
    let (delimiters, line_ends) = (u64::from_ne_bytes([delimiter; 8]), u64::from_ne_bytes([b'\n'; 8]));
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let found = zeros(word ^ delimiters) | zeros(word ^ line_ends);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|&byte| byte == delimiter || byte == b'\n').unwrap_or(rest.len())
}

/// Removes the escapes from a quoted field's text.
pub(crate) fn unescape(text: &[u8], quote: u8, escape: Option<u8>, into: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let follows = tail.first();
        let escapes = (first == quote && follows == Some(&quote)) || (Some(first) == escape && follows.is_some());
        if escapes {
            into.push(tail[0]);
            rest = &tail[1..];
        } else {
            into.push(first);
            rest = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dialect, Fault, Form, Shape, Table, unescape};

    const COMMA: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape: None };

    fn rows(text: &str, columns: usize, dialect: Dialect) -> (Vec<Vec<String>>, Vec<Fault>) {
        let mut table = Table::default();
        table.read(text.as_bytes(), dialect, &Shape { wanted: vec![true; columns], fill: false });
        let cell = |span: &super::Span| {
            let mut text_of = span.of(text.as_bytes()).to_vec();
            if span.form() == Form::Escaped {
                let mut clean = Vec::new();
                unescape(&text_of, b'"', dialect.escape, &mut clean);
                text_of = clean;
            }
            String::from_utf8(text_of).unwrap()
        };
        let rows = table.spans.chunks(columns).map(|row| row.iter().map(cell).collect()).collect();
        (rows, table.malformed.iter().map(|malformed| malformed.fault).collect())
    }

    #[track_caller]
    fn check(text: &str, columns: usize, wanted: &[&[&str]], faults: &[Fault]) {
        let (found, found_faults) = rows(text, columns, COMMA);
        assert_eq!(found, wanted, "{text:?}");
        assert_eq!(found_faults, faults, "{text:?}");
    }

    #[test]
    fn records_become_fields() {
        check("a,b\nc,d\n", 2, &[&["a", "b"], &["c", "d"]], &[]);
        check("a,b\r\nc,d", 2, &[&["a", "b"], &["c", "d"]], &[]);
        check(",\n,", 2, &[&["", ""], &["", ""]], &[]);
        check("\"a,\"\"b\"\"\n\",c\n", 2, &[&["a,\"b\"\n", "c"]], &[]);
        check("\"\",\"\"\r\n", 2, &[&["", ""]], &[]);
        check("5\" pipe,a\n", 2, &[&["5\" pipe", "a"]], &[]);
        check("a,b\n\n\r\nc,d\n", 2, &[&["a", "b"], &["c", "d"]], &[]);
        check("a\n\nb\n", 1, &[&["a"], &[""], &["b"]], &[]);
        check("averyveryverylongfield,b\n", 2, &[&["averyveryverylongfield", "b"]], &[]);
    }

    #[test]
    fn malformed_records_are_told() {
        check("a,b\nc\nd,e,f\ng,h", 2, &[&["a", "b"], &["g", "h"]], &[Fault::Fields(1), Fault::Fields(3)]);
        check("\"a\"x,b\nc,d", 2, &[&["c", "d"]], &[Fault::AfterQuote]);
    }

    #[test]
    fn quotes_can_be_escaped() {
        let dialect = Dialect { escape: Some(b'\\'), ..COMMA };
        let (found, faults) = rows("\"a\\\",\\\\\",b\n", 2, dialect);
        assert_eq!((found, faults), (vec![vec!["a\",\\".to_owned(), "b".into()]], vec![]));
    }

    #[test]
    fn missing_fields_can_be_filled() {
        let mut table = Table::default();
        table.read(b"a\nb,c,d\n", COMMA, &Shape { wanted: vec![true, false, true], fill: true });
        assert_eq!(table.spans.len(), 4);
        assert_eq!(table.spans[1].form(), Form::Missing);
        assert!(table.malformed.is_empty());
    }
}

#[cfg(test)]
mod properties {
    use proptest::prelude::{Strategy, any, prop};

    use super::{Dialect, Shape, Table};
    use crate::connectors::files::{chunk::Chunker, fault::Subject};

    /// The texts of all well-formed records, and the lines of the malformed ones.
    fn read(text: &[u8], dialect: Dialect, chunk_bytes: usize) -> Option<(Vec<Vec<u8>>, Vec<u64>)> {
        let shape = Shape { wanted: vec![true, true], fill: false };
        let subject = Subject::source("s");
        let mut chunker = Chunker::new(text, Some(dialect), chunk_bytes, "f", &subject);
        let (mut texts, mut malformed) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunker.next().ok()? {
            let mut table = Table::default();
            table.read(&chunk.bytes, dialect, &shape);
            texts.extend(table.spans.iter().map(|span| span.of(&chunk.bytes).to_vec()));
            let line = |start: usize| chunk.line + crate::connectors::files::chunk::lines(&chunk.bytes[..start]);
            malformed.extend(table.malformed.iter().map(|record| line(record.start)));
        }
        Some((texts, malformed))
    }

    proptest::proptest! {
        #[test]
        fn cutting_does_not_change_what_is_read(
            text in prop::collection::vec(prop::sample::select(b"ab,\"\"\\\n\r".to_vec()), 0..200),
            escape in any::<bool>().prop_map(|escape| escape.then_some(b'\\')),
            chunk_bytes in 1_usize..64,
        ) {
            let dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape };
            proptest::prop_assert_eq!(read(&text, dialect, chunk_bytes), read(&text, dialect, 1 << 16));
        }
    }
}
