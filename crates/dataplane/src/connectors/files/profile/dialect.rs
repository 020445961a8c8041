//! Finds out how a text is written: its encoding, and for CSV its delimiter, quote, escape and header.

use std::collections::BTreeMap;

use dagwright_model::{spec::Encoding, spec::FileFormat};

use super::super::{
    chunk,
    column::Syntax,
    csv::{self, Dialect, Form},
    text, value,
};

/// How many records a guess rests on.
const RECORDS_MAX: usize = 200;

/// The delimiters tried, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// Tells the encoding of a text by its first bytes; `None`: no text.
pub(super) fn encoding(head: &[u8], cut: bool) -> Option<Encoding> {
    match head {
        [0xef, 0xbb, 0xbf, ..] => return Some(Encoding::Utf8),
        [0xff, 0xfe, ..] => return Some(Encoding::Utf16Le),
        [0xfe, 0xff, ..] => return Some(Encoding::Utf16Be),
        _ => {}
    }
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd, half) = (zeros(0), zeros(1), head.len() / 2);
    if half > 0 && even + odd > 0 {
        // Mostly Latin text in UTF-16 has a zero in every other byte.
        return match (even * 10 > half * 7, odd * 10 > half * 7) {
            (false, true) if even * 20 < half => Some(Encoding::Utf16Le),
            (true, false) if odd * 20 < half => Some(Encoding::Utf16Be),
            _ => None,
        };
    }
    match std::str::from_utf8(head) {
        Ok(_) => Some(Encoding::Utf8),
        // The last character may be cut.
        Err(error) if cut && error.error_len().is_none() => Some(Encoding::Utf8),
        Err(_) => {
            let controls =
                head.iter().filter(|byte| **byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c)).count();
            (controls == 0).then_some(Encoding::Latin1)
        }
    }
}

/// Tells the format of a text by its content.
pub(super) fn format(text: &[u8]) -> FileFormat {
    if text.trim_ascii_start().starts_with(b"{") { FileFormat::Ndjson } else { FileFormat::Csv }
}

/// Finds the dialect that makes the most regular records; parts that are given stay as they are.
pub(super) fn dialect(text: &[u8], delimiter: Option<u8>, quote: Option<u8>, escape: Option<u8>) -> Dialect {
    let quote = quote.or_else(|| Some(if single_quoted(text) { b'\'' } else { b'"' }));
    let delimiters: Vec<u8> = delimiter.map_or(DELIMITERS.to_vec(), |delimiter| vec![delimiter]);
    let mut escapes = vec![escape];
    let escaped_quote = quote.map(|quote| [b'\\', quote]);
    if escape.is_none() && escaped_quote.is_some_and(|pair| memchr::memmem::find(text, &pair).is_some()) {
        escapes.push(Some(b'\\'));
    }
    let mut best: Option<(f64, Dialect)> = None;
    for delimiter in delimiters {
        for escape in &escapes {
            let dialect = Dialect { delimiter, quote, escape: *escape };
            let score = regularity(text, dialect);
            if best.is_none_or(|(known, _)| score > known + 1e-9) {
                best = Some((score, dialect));
            }
        }
    }
    best.map_or(Dialect { delimiter: b',', quote, escape: None }, |(_, dialect)| dialect)
}

/// Splits the start of a text into records.
pub(super) fn records(text: &[u8], dialect: Dialect, most: usize) -> Vec<&[u8]> {
    // A text that is cut ends within a record.
    let whole = chunk::last_record_end(text, dialect).unwrap_or(text.len());
    let mut rest = &text[..whole];
    let mut records = Vec::new();
    while !rest.is_empty() && records.len() < most {
        let end = csv::record_end(rest, dialect);
        let record = &rest[..end];
        rest = &rest[end..];
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        if !record.is_empty() {
            records.push(record);
        }
    }
    records
}

/// Scores how many records have the most common number of fields, and more fields higher; one field says nothing.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn regularity(text: &[u8], dialect: Dialect) -> f64 {
    let records = records(text, dialect, RECORDS_MAX);
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    let mut broken = 0;
    for record in &records {
        let fields = csv::fields(record, dialect);
        // A quote within a field's plain text hints at the wrong dialect.
        let quote = dialect.quote.unwrap_or(b'"');
        let odd = |span: &csv::Span| span.form() == Form::Plain && memchr::memchr(quote, span.of(record)).is_some();
        broken += usize::from(fields.iter().any(odd));
        *counts.entry(fields.len()).or_default() += 1;
    }
    let Some((fields, common)) = counts.iter().max_by_key(|(fields, count)| (**count, **fields)) else { return 0.0 };
    if *fields < 2 {
        return 0.0;
    }
    let regular = (common - broken.min(*common)) as f64 / records.len() as f64;
    regular * regular * (1.0 + (*fields as f64).ln())
}

/// Tells whether fields stand in single quotes and none in double ones.
fn single_quoted(text: &[u8]) -> bool {
    let opening = |pair: &[u8; 2]| memchr::memmem::find(text, pair).is_some();
    memchr::memchr(b'"', text).is_none()
        && DELIMITERS.iter().any(|delimiter| {
            opening(&[*delimiter, b'\'']) && [*delimiter, b'\n', b'\r'].iter().any(|after| opening(&[b'\'', *after]))
        })
}

/// Tells whether the first record holds names: it is all text, distinct, and the records below look different.
pub(super) fn has_header(records: &[&[u8]], dialect: Dialect) -> bool {
    let Some((first, rest)) = records.split_first() else { return true };
    let syntax = Syntax::csv(dialect, &[]);
    let cells = |record: &[u8]| {
        let mut scratch = Vec::new();
        let spans = csv::fields(record, dialect);
        let texts = spans.iter().map(|span| syntax.text(*span, record, &mut scratch).unwrap_or_default().to_vec());
        texts.collect::<Vec<_>>()
    };
    let names = cells(first);
    let is_value = |text: &[u8]| {
        let text = value::trimmed(text);
        value::float64(text).is_some()
            || value::date(text).is_some()
            || value::timestamp(text).is_some()
            || value::timestamptz(text).is_some()
    };
    if names.iter().any(|name| is_value(name)) {
        return false;
    }
    let distinct = text::header_names(first, dialect);
    let clean = names.iter().zip(&distinct).all(|(name, unique)| name.trim_ascii() == unique.as_bytes());
    if !clean {
        // Repeated or empty texts in the first record are data, unless values of another kind stand below.
        return rest.iter().any(|record| cells(record).iter().any(|cell| is_value(cell)));
    }
    // Where a name occurs again as a value of its own column, it is no name.
    !rest
        .iter()
        .take(RECORDS_MAX)
        .any(|record| cells(record).iter().zip(&names).any(|(cell, name)| cell == name && !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::Encoding;

    use super::{dialect, encoding, has_header, records};

    #[test]
    fn encodings_are_told_by_their_bytes() {
        let utf16: Vec<u8> = "a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16_be: Vec<u8> = "a,b\n1,2\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (head, wanted) in [
            ("a,b\né".as_bytes(), Some(Encoding::Utf8)),
            (b"\xef\xbb\xbfa", Some(Encoding::Utf8)),
            (b"caf\xe9,1\n", Some(Encoding::Latin1)),
            (&utf16, Some(Encoding::Utf16Le)),
            (&utf16_be, Some(Encoding::Utf16Be)),
            (b"\x00\x01\x02\x03\xff\xfe", None),
            (b"\x89PNG\r\n\x1a\n", None),
            (b"", Some(Encoding::Utf8)),
        ] {
            assert_eq!(encoding(head, false), wanted, "{head:?}");
        }
    }

    #[track_caller]
    fn check(text: &str, delimiter: u8, quote: u8, escape: Option<u8>, header: bool) {
        let found = dialect(text.as_bytes(), None, None, None);
        assert_eq!((found.delimiter, found.quote, found.escape), (delimiter, Some(quote), escape), "{text:?}");
        assert_eq!(has_header(&records(text.as_bytes(), found, 100), found), header, "{text:?}");
    }

    #[test]
    fn dialects_are_told_by_their_records() {
        check("a,b\n1,2\n3,4\n", b',', b'"', None, true);
        check("1,2\n3,4\n", b',', b'"', None, false);
        check("a;b\n1,5;2\n3,5;4\n", b';', b'"', None, true);
        check("a\tb, c\n1\t2\n", b'\t', b'"', None, true);
        check("a|b\nx|'y|z'\n", b'|', b'\'', None, true);
        check("a,b\n\"x\\\"y,z\",1\n\"q\\\"r,s\",2\n", b',', b'"', Some(b'\\'), true);
        check("name\nx\ny\n", b',', b'"', None, true);
        check("x,y\nx,z\n", b',', b'"', None, false);
    }
}
