//! Builds typed columns from fields of text.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, ListArray, PrimitiveArray,
        StringArray, StructArray, new_null_array,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowPrimitiveType, Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use dagwright_model::schema::DataType;

use super::{
    csv::{self, Form, Span},
    json::{self, Json},
    value,
};
use crate::types::arrow_type;

/// How text becomes values.
#[derive(Clone, Debug)]
pub(crate) struct Syntax {
    /// How escapes are undone.
    pub(crate) escapes: Escapes,
    /// Unquoted texts that mean NULL.
    pub(crate) nulls: Vec<Vec<u8>>,
    /// Whether the unquoted empty text is NULL in text columns; in others it always is.
    pub(crate) empty_is_null: bool,
}

/// How escapes are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// As in CSV.
    Csv {
        /// The quote.
        quote: u8,
        /// The escape.
        escape: Option<u8>,
    },
    /// As in JSON.
    Json,
}

/// One column's fields.
pub(crate) struct Cells<'a> {
    /// What the spans point into.
    pub(crate) bytes: &'a [u8],
    /// All spans, row by row.
    pub(crate) spans: &'a [Span],
    /// How many there are in a row.
    pub(crate) width: usize,
    /// Which of them is the column's.
    pub(crate) slot: usize,
    /// How text becomes values.
    pub(crate) syntax: &'a Syntax,
}

// === impl Syntax ===

impl Syntax {
    /// The syntax of values in JSON.
    pub(crate) const JSON: Self = Self { escapes: Escapes::Json, nulls: Vec::new(), empty_is_null: false };

    /// Returns the syntax of values in CSV, where `null_values` mean NULL.
    pub(crate) fn csv(dialect: csv::Dialect, null_values: &[String]) -> Self {
        let nulls: Vec<Vec<u8>> = null_values.iter().map(|text| text.clone().into_bytes()).collect();
        let empty_is_null = nulls.is_empty() || nulls.iter().any(Vec::is_empty);
        let nulls = nulls.into_iter().filter(|text| !text.is_empty()).collect();
        let escapes = Escapes::Csv { quote: dialect.quote.unwrap_or(b'"'), escape: dialect.escape };
        Self { escapes, nulls, empty_is_null }
    }

    /// Tells whether a field is NULL in a text column.
    #[inline]
    pub(crate) fn is_null(&self, span: Span, bytes: &[u8]) -> bool {
        match span.form() {
            Form::Missing => true,
            Form::Plain if span.is_empty() => self.empty_is_null,
            Form::Plain if self.nulls.is_empty() => false,
            Form::Plain => self.nulls.iter().any(|null| null == span.of(bytes)),
            Form::Quoted | Form::Escaped => false,
        }
    }

    /// Returns a field's text without escapes; `None` for an invalid escape.
    #[inline]
    pub(crate) fn text<'a>(&self, span: Span, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let text = span.of(bytes);
        if span.form() != Form::Escaped {
            return Some(text);
        }
        scratch.clear();
        match self.escapes {
            Escapes::Csv { quote, escape } => csv::unescape(text, quote, escape, scratch),
            Escapes::Json => json::unescape(text, scratch)?,
        }
        Some(scratch)
    }
}

// === impl Cells ===

impl Cells<'_> {
    fn rows(&self) -> usize {
        self.spans.len() / self.width.max(1)
    }

    /// Builds the column; rows whose text does not read as the type are NULL in it and named in `misfits`.
    pub(crate) fn array(&self, data_type: &DataType, misfits: &mut Vec<u32>) -> ArrayRef {
        match data_type {
            DataType::Boolean => self.booleans(misfits),
            DataType::Int16 => self.primitive::<Int16Type>(misfits, |text| value::int64(text)?.try_into().ok()),
            DataType::Int32 => self.primitive::<Int32Type>(misfits, |text| value::int64(text)?.try_into().ok()),
            DataType::Int64 => self.primitive::<Int64Type>(misfits, value::int64),
            #[expect(clippy::cast_possible_truncation, reason = "float32 is asked for")]
            DataType::Float32 => self.primitive::<Float32Type>(misfits, |text| {
                let narrow = value::float64(text)? as f32;
                (narrow.is_finite() || !text.iter().any(u8::is_ascii_digit)).then_some(narrow)
            }),
            DataType::Float64 => self.primitive::<Float64Type>(misfits, value::float64),
            DataType::Decimal { precision, scale } => self.decimals(*precision, *scale, misfits),
            DataType::Date => self.primitive::<Date32Type>(misfits, value::date),
            DataType::Time => self.primitive::<Time64MicrosecondType>(misfits, value::time),
            DataType::Timestamp => self.primitive::<TimestampMicrosecondType>(misfits, value::timestamp),
            DataType::TimestampTz => {
                let (values, nulls) = self.values(misfits, 0, value::timestamptz);
                let array = PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls);
                Arc::new(array.with_timezone("UTC"))
            }
            DataType::String { length } => self.strings(*length, misfits),
            DataType::Json => self.documents(misfits),
            DataType::Binary => {
                let (values, nulls) = self.values(misfits, Vec::new(), value::binary);
                let rows = values.iter().enumerate();
                let values = rows.map(|(row, bytes)| {
                    nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)).then_some(bytes.as_slice())
                });
                Arc::new(BinaryArray::from_iter(values))
            }
            DataType::Uuid => {
                let (values, nulls) = self.values(misfits, [0; 16], value::uuid);
                Arc::new(FixedSizeBinaryArray::new(16, Buffer::from(values.concat()), nulls))
            }
            DataType::List(_) | DataType::Struct(_) => self.nested(data_type, misfits),
        }
    }

    /// Reads each field with `parse`; NULL and misfits hold `absent`.
    #[inline]
    fn values<T: Clone>(
        &self,
        misfits: &mut Vec<u32>,
        absent: T,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> (Vec<T>, Option<NullBuffer>) {
        let rows = self.rows();
        let mut values = Vec::with_capacity(rows);
        let mut valid = Validity::new(rows);
        let mut scratch = Vec::new();
        for (row, cells) in self.spans.chunks_exact(self.width.max(1)).enumerate() {
            let span = cells[self.slot];
            if span.is_plain_empty() || (span.form() != Form::Quoted && self.syntax.is_null(span, self.bytes)) {
                values.push(absent.clone());
                valid.clear(row);
                continue;
            }
            let text = self.syntax.text(span, self.bytes, &mut scratch).map(value::trimmed);
            match text.and_then(&parse) {
                Some(value) => values.push(value),
                None => {
                    values.push(absent.clone());
                    valid.clear(row);
                    if text.is_none_or(|text| !text.is_empty()) || span.form() != Form::Plain {
                        misfits.push(index(row));
                    }
                }
            }
        }
        (values, valid.finish())
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        misfits: &mut Vec<u32>,
        parse: impl Fn(&[u8]) -> Option<T::Native>,
    ) -> ArrayRef {
        let (values, nulls) = self.values(misfits, T::Native::default(), parse);
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
    }

    fn decimals(&self, precision: u8, scale: u8, misfits: &mut Vec<u32>) -> ArrayRef {
        let (values, nulls) = self.values(misfits, 0, |text| value::decimal(text, precision, scale));
        let array = Decimal128Array::new(values.into(), nulls)
            .with_data_type(arrow_type(&DataType::Decimal { precision, scale }));
        Arc::new(array)
    }

    fn booleans(&self, misfits: &mut Vec<u32>) -> ArrayRef {
        let (values, nulls) = self.values(misfits, false, value::boolean);
        Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
    }

    fn strings(&self, length_max: Option<u32>, misfits: &mut Vec<u32>) -> ArrayRef {
        let fits = |text: &[u8]| match length_max {
            // No text has more characters than bytes.
            Some(most) if text.len() > most as usize => {
                std::str::from_utf8(text).is_ok_and(|text| text.chars().count() <= most as usize)
            }
            _ => true,
        };
        self.texts(misfits, fits)
    }

    fn documents(&self, misfits: &mut Vec<u32>) -> ArrayRef {
        self.texts(misfits, |text| Json::parse(text).is_some())
    }

    fn texts(&self, misfits: &mut Vec<u32>, fits: impl Fn(&[u8]) -> bool) -> ArrayRef {
        let rows = self.rows();
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut values = Vec::with_capacity(self.bytes.len() / self.width.max(1));
        let mut valid = Validity::new(rows);
        let mut scratch = Vec::new();
        offsets.push(0);
        for (row, cells) in self.spans.chunks_exact(self.width.max(1)).enumerate() {
            let span = cells[self.slot];
            if self.syntax.is_null(span, self.bytes) {
                valid.clear(row);
            } else {
                match self.syntax.text(span, self.bytes, &mut scratch).filter(|text| fits(text)) {
                    Some(text) => values.extend_from_slice(text),
                    None => {
                        valid.clear(row);
                        misfits.push(index(row));
                    }
                }
            }
            offsets.push(index(values.len()).cast_signed());
        }
        let offsets = OffsetBuffer::new(offsets.into());
        let nulls = valid.finish();
        match StringArray::try_new(offsets, Buffer::from_vec(values), nulls) {
            Ok(array) => Arc::new(array),
            // Chunks are checked to be UTF-8 before, and escapes only give UTF-8.
            Err(_) => {
                misfits.extend(0..index(rows));
                new_null_array(&arrow_type(&DataType::TEXT), rows)
            }
        }
    }

    fn nested(&self, data_type: &DataType, misfits: &mut Vec<u32>) -> ArrayRef {
        let mut texts = Vec::new();
        for cells in self.spans.chunks_exact(self.width.max(1)) {
            let span = cells[self.slot];
            let null = span.is_plain_empty() || self.syntax.is_null(span, self.bytes);
            let mut scratch = Vec::new();
            texts.push(
                (!null)
                    .then(|| self.syntax.text(span, self.bytes, &mut scratch).map(<[u8]>::to_vec).unwrap_or_default()),
            );
        }
        let parsed: Vec<Option<Json<'_>>> = texts.iter().map(|text| text.as_deref().and_then(Json::parse)).collect();
        for (row, (text, value)) in texts.iter().zip(&parsed).enumerate() {
            if text.is_some() && value.is_none() {
                misfits.push(index(row));
            }
        }
        let rows: Vec<u32> = (0..index(parsed.len())).collect();
        let items: Vec<Option<&Json<'_>>> = parsed.iter().map(Option::as_ref).collect();
        let array = nested(data_type, &items, &rows, misfits);
        misfits.sort_unstable();
        misfits.dedup();
        array
    }
}

/// Builds an array of JSON values; `rows` says to which row each belongs.
fn nested(data_type: &DataType, items: &[Option<&Json<'_>>], rows: &[u32], misfits: &mut Vec<u32>) -> ArrayRef {
    let mut valid = Validity::new(items.len());
    match data_type {
        DataType::List(inner) => {
            let (mut children, mut child_rows, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(items.len()));
            for (at, item) in items.iter().enumerate() {
                let length = match item {
                    Some(Json::Array(values)) => {
                        children.extend(values.iter().map(Some));
                        child_rows.extend(std::iter::repeat_n(rows[at], values.len()));
                        values.len()
                    }
                    other => {
                        absent(*other, rows[at], misfits);
                        valid.clear(at);
                        0
                    }
                };
                lengths.push(length);
            }
            let values = nested(inner, &children, &child_rows, misfits);
            let field = Arc::new(Field::new_list_field(arrow_type(inner), true));
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, valid.finish()))
        }
        DataType::Struct(fields) => {
            let mut members: Vec<Vec<Option<&Json<'_>>>> = vec![Vec::with_capacity(items.len()); fields.len()];
            for (at, item) in items.iter().enumerate() {
                let found = match item {
                    Some(Json::Object(found)) => found.as_slice(),
                    other => {
                        absent(*other, rows[at], misfits);
                        valid.clear(at);
                        &[]
                    }
                };
                for ((name, _), column) in fields.iter().zip(&mut members) {
                    column.push(found.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value));
                }
            }
            let arrow: arrow::datatypes::Fields =
                fields.iter().map(|(name, inner)| Field::new(name, arrow_type(inner), true)).collect();
            let columns =
                fields.iter().zip(&members).map(|((_, inner), items)| nested(inner, items, rows, misfits)).collect();
            let nulls = valid.finish();
            match StructArray::try_new_with_length(arrow, columns, nulls, items.len()) {
                Ok(array) => Arc::new(array),
                Err(_) => new_null_array(&arrow_type(data_type), items.len()),
            }
        }
        scalar => {
            let (mut bytes, mut spans) = (Vec::new(), Vec::with_capacity(items.len()));
            for item in items {
                let start = bytes.len();
                let form = match item {
                    None | Some(Json::Null) => Form::Missing,
                    Some(Json::String(text)) if *scalar != DataType::Json => {
                        bytes.extend(text.bytes());
                        Form::Quoted
                    }
                    Some(value) => {
                        json::write(value, &mut bytes);
                        Form::Plain
                    }
                };
                spans.push(if form == Form::Missing { Span::MISSING } else { Span::new(start, bytes.len(), form) });
            }
            let mut misfit_items = Vec::new();
            let cells = Cells { bytes: &bytes, spans: &spans, width: 1, slot: 0, syntax: &Syntax::JSON };
            let array = cells.array(scalar, &mut misfit_items);
            misfits.extend(misfit_items.iter().map(|at| rows[*at as usize]));
            array
        }
    }
}

fn absent(item: Option<&Json<'_>>, row: u32, misfits: &mut Vec<u32>) {
    if !matches!(item, None | Some(Json::Null)) {
        misfits.push(row);
    }
}

/// Which rows hold a value; costs nothing while all do.
struct Validity {
    rows: usize,
    valid: Vec<bool>,
}

impl Validity {
    fn new(rows: usize) -> Self {
        Self { rows, valid: Vec::new() }
    }

    #[inline]
    fn clear(&mut self, row: usize) {
        if self.valid.is_empty() {
            self.valid.resize(self.rows, true);
        }
        self.valid[row] = false;
    }

    fn finish(self) -> Option<NullBuffer> {
        (!self.valid.is_empty()).then(|| NullBuffer::from(self.valid))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "chunks and their rows are far below 4 GiB")]
fn index(at: usize) -> u32 {
    at as u32
}
