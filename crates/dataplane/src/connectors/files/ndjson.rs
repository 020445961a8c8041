//! Finds the wanted members of the objects in newline-delimited JSON.

use std::{borrow::Cow, collections::HashMap};

use dagwright_model::schema::{Column, DataType};

use super::{
    csv::{Fault, Form, Malformed, Span, Table},
    json::{self, Kind, Reader, Token},
};

/// The members that are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    slots: HashMap<Vec<u8>, usize>,
    /// For each slot: the key, to compare without hashing when members keep their order.
    keys: Vec<Vec<u8>>,
    /// For each slot: whether strings keep their quotes, because JSON itself is wanted.
    raw: Vec<bool>,
}

// === impl Members ===

impl Members {
    /// Prepares to read columns; each gets the slot of its position.
    pub(crate) fn new(columns: &[Column]) -> Self {
        let keys: Vec<Vec<u8>> = columns.iter().map(|column| column.name.clone().into_bytes()).collect();
        let slots = keys.iter().cloned().zip(0..).collect();
        let raw = columns.iter().map(|column| is_raw(&column.data_type)).collect();
        Self { slots, keys, raw }
    }

    /// Finds the members of all objects in `bytes`, which are whole lines; empty lines are none.
    #[expect(clippy::cast_possible_truncation, reason = "chunks are far smaller than 4 GiB")]
    pub(crate) fn read(&self, bytes: &[u8], table: &mut Table) {
        let mut start = 0;
        while start < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at);
            let line = &bytes[start..end];
            if !line.trim_ascii().is_empty() {
                if self.line(bytes, start, end, &mut table.spans).is_some() {
                    table.starts.push(start as u32);
                } else {
                    table.spans.truncate(table.starts.len() * self.keys.len());
                    table.malformed.push(Malformed { start, end, fault: Fault::NotAnObject });
                }
            }
            start = end + 1;
        }
    }

    fn line(&self, bytes: &[u8], start: usize, end: usize, spans: &mut Vec<Span>) -> Option<()> {
        let first = spans.len();
        spans.resize(first + self.keys.len(), Span::MISSING);
        let mut next = 0;
        Reader::new(&bytes[start..end]).object(|key, escaped, value| {
            let key = clean(key, escaped);
            let slot = if self.keys.get(next).is_some_and(|expected| *expected == *key) {
                Some(next)
            } else {
                self.slots.get(key.as_ref()).copied()
            };
            if let Some(slot) = slot {
                spans[first + slot] = span(start, value, self.raw[slot]);
                next = slot + 1;
            }
        })
    }
}

/// Tells whether a column keeps the text of JSON values.
fn is_raw(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Json | DataType::List(_) | DataType::Struct(_))
}

/// Returns a key without escapes; one with an invalid escape matches nothing.
pub(crate) fn clean(key: &[u8], escaped: bool) -> Cow<'_, [u8]> {
    if !escaped {
        return Cow::Borrowed(key);
    }
    let mut clean = Vec::with_capacity(key.len());
    match json::unescape(key, &mut clean) {
        Some(()) => Cow::Owned(clean),
        None => Cow::Borrowed(b"\xff"),
    }
}

/// Returns where a value stands.
pub(crate) fn span(start: usize, value: Token, raw: bool) -> Span {
    match value.kind {
        Kind::Null => Span::MISSING,
        Kind::String if raw => Span::new(start + value.start - 1, start + value.end + 1, Form::Plain),
        Kind::String if value.escaped => Span::new(start + value.start, start + value.end, Form::Escaped),
        Kind::String => Span::new(start + value.start, start + value.end, Form::Quoted),
        Kind::Literal | Kind::Nested => Span::new(start + value.start, start + value.end, Form::Plain),
    }
}
