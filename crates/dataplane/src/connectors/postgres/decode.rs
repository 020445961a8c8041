//! Decodes binary `COPY … TO STDOUT` into Arrow columns.
//!
//! The server sends one message a row. A value that Arrow cannot hold (infinite dates, NaN as a decimal, nested arrays)
//! becomes NULL and is reported as a [`Misfit`]; what happens to it is the caller's policy.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
        Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, NullBufferBuilder,
        StringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::Field,
    error::ArrowError,
};

use super::{numeric, types::Wire};

/// What every binary `COPY` starts with; flags and the length of an extension follow.
pub(crate) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(crate) const EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
pub(crate) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A value that became NULL because Arrow cannot hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The row in the batch.
    pub row: usize,
    /// The column.
    pub column: usize,
    /// Why, without the value.
    pub reason: &'static str,
}

/// Says that the stream is not what the protocol promises.
#[derive(Debug, thiserror::Error)]
#[error("the server's binary COPY is malformed")]
pub(crate) struct Malformed;

/// Collects rows into columns.
pub(crate) struct Decoder {
    columns: Vec<ColumnBuilder>,
    header_seen: bool,
    trailer_seen: bool,
    rows: usize,
    bytes: usize,
    misfits: Vec<Misfit>,
}

enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder, u8, u8),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    List { items: Box<ColumnBuilder>, length: i32, offsets: Vec<i32>, valid: NullBufferBuilder },
}

// === impl Decoder ===

impl Decoder {
    /// Decodes columns that travel like this.
    pub(crate) fn new(wires: &[Wire], rows: usize) -> Self {
        let columns = wires.iter().map(|wire| ColumnBuilder::new(wire, rows)).collect();
        Self { columns, header_seen: false, trailer_seen: false, rows: 0, bytes: 0, misfits: Vec::new() }
    }

    /// Returns how many rows were taken since the last [`Self::finish`].
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns how many bytes they had.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells whether the trailer was seen, so that no row is missing.
    pub(crate) fn ended(&self) -> bool {
        self.trailer_seen
    }

    /// Takes a message: one row, the first one after the header; or the trailer.
    pub(crate) fn push(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let mut rest = message;
        if !self.header_seen {
            rest = rest.strip_prefix(SIGNATURE).ok_or(Malformed)?;
            let _flags = take(&mut rest, 4)?;
            let extension = usize::try_from(take_i32(&mut rest)?).map_err(|_| Malformed)?;
            take(&mut rest, extension)?;
            self.header_seen = true;
        }
        self.bytes += message.len();
        while !rest.is_empty() {
            let fields = i16::from_be_bytes(array(take(&mut rest, 2)?)?);
            if fields == -1 {
                self.trailer_seen = true;
                return if rest.is_empty() { Ok(()) } else { Err(Malformed) };
            }
            if usize::try_from(fields) != Ok(self.columns.len()) {
                return Err(Malformed);
            }
            for (index, column) in self.columns.iter_mut().enumerate() {
                let value = take_value(&mut rest)?;
                if let Err(reason) = column.push(value)? {
                    self.misfits.push(Misfit { row: self.rows, column: index, reason });
                }
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Returns the rows so far, and starts anew.
    pub(crate) fn finish(&mut self) -> Result<(Vec<ArrayRef>, Vec<Misfit>), ArrowError> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<_, _>>()?;
        self.rows = 0;
        self.bytes = 0;
        Ok((arrays, std::mem::take(&mut self.misfits)))
    }
}

// === impl ColumnBuilder ===

impl ColumnBuilder {
    fn new(wire: &Wire, rows: usize) -> Self {
        match wire {
            Wire::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Wire::Int2 => Self::Int2(Int16Builder::with_capacity(rows)),
            Wire::Int4 => Self::Int4(Int32Builder::with_capacity(rows)),
            Wire::Int8 => Self::Int8(Int64Builder::with_capacity(rows)),
            Wire::Float4 => Self::Float4(Float32Builder::with_capacity(rows)),
            Wire::Float8 => Self::Float8(Float64Builder::with_capacity(rows)),
            Wire::Numeric { precision, scale, .. } => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(wire.arrow());
                Self::Numeric(builder, *precision, *scale)
            }
            Wire::Text => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            Wire::Jsonb => Self::Jsonb(StringBuilder::with_capacity(rows, rows * 16)),
            Wire::Bytea => Self::Bytea(BinaryBuilder::with_capacity(rows, rows * 16)),
            Wire::Date => Self::Date(Date32Builder::with_capacity(rows)),
            Wire::Time => Self::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            Wire::Timestamp { .. } => {
                Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(wire.arrow()))
            }
            Wire::Uuid => Self::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            Wire::List { item, .. } => Self::List {
                items: Box::new(Self::new(item, rows)),
                length: 0,
                offsets: vec![0],
                valid: NullBufferBuilder::new(rows),
            },
        }
    }

    /// Appends one value; the inner error says why it became NULL.
    fn push(&mut self, value: Option<&[u8]>) -> Result<Result<(), &'static str>, Malformed> {
        let Some(value) = value else {
            self.push_null();
            return Ok(Ok(()));
        };
        let pushed = match self {
            Self::Bool(builder) => {
                builder.append_value(array::<1>(value)?[0] != 0);
                Ok(())
            }
            Self::Int2(builder) => {
                builder.append_value(i16::from_be_bytes(array(value)?));
                Ok(())
            }
            Self::Int4(builder) => {
                builder.append_value(i32::from_be_bytes(array(value)?));
                Ok(())
            }
            Self::Int8(builder) => {
                builder.append_value(i64::from_be_bytes(array(value)?));
                Ok(())
            }
            Self::Float4(builder) => {
                builder.append_value(f32::from_be_bytes(array(value)?));
                Ok(())
            }
            Self::Float8(builder) => {
                builder.append_value(f64::from_be_bytes(array(value)?));
                Ok(())
            }
            Self::Numeric(builder, precision, scale) => {
                let decoded = numeric::decode(value, *precision, *scale);
                builder.append_option(decoded);
                decoded.map(|_| ()).ok_or("not finite, or more digits than its type")
            }
            Self::Text(builder) => push_text(builder, value),
            Self::Jsonb(builder) => match value.split_first() {
                Some((1, text)) => push_text(builder, text),
                _ => return Err(Malformed),
            },
            Self::Bytea(builder) => {
                builder.append_value(value);
                Ok(())
            }
            Self::Date(builder) => {
                let days = i32::from_be_bytes(array(value)?);
                // The ends of the range mean plus and minus infinity.
                let days = days.checked_add(EPOCH_DAYS).filter(|_| days != i32::MIN);
                builder.append_option(days);
                days.map(|_| ()).ok_or("not a finite date")
            }
            Self::Time(builder) => {
                let micros = i64::from_be_bytes(array(value)?);
                // PostgreSQL knows 24:00:00; Arrow does not.
                let micros = Some(micros).filter(|micros| (0..86_400_000_000).contains(micros));
                builder.append_option(micros);
                micros.map(|_| ()).ok_or("not a time of day")
            }
            Self::Timestamp(builder) => {
                let micros = i64::from_be_bytes(array(value)?);
                let micros = micros.checked_add(EPOCH_MICROS).filter(|_| micros != i64::MIN);
                builder.append_option(micros);
                micros.map(|_| ()).ok_or("not a finite timestamp")
            }
            Self::Uuid(builder) => {
                builder.append_value(value).map_err(|_| Malformed)?;
                Ok(())
            }
            Self::List { items, length, offsets, valid } => {
                let pushed = push_items(items, length, value)?;
                offsets.push(*length);
                valid.append(pushed.is_ok());
                pushed
            }
        };
        Ok(pushed)
    }

    fn push_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int2(builder) => builder.append_null(),
            Self::Int4(builder) => builder.append_null(),
            Self::Int8(builder) => builder.append_null(),
            Self::Float4(builder) => builder.append_null(),
            Self::Float8(builder) => builder.append_null(),
            Self::Numeric(builder, ..) => builder.append_null(),
            Self::Text(builder) | Self::Jsonb(builder) => builder.append_null(),
            Self::Bytea(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Uuid(builder) => builder.append_null(),
            Self::List { length, offsets, valid, .. } => {
                offsets.push(*length);
                valid.append_null();
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int2(builder) => Arc::new(builder.finish()),
            Self::Int4(builder) => Arc::new(builder.finish()),
            Self::Int8(builder) => Arc::new(builder.finish()),
            Self::Float4(builder) => Arc::new(builder.finish()),
            Self::Float8(builder) => Arc::new(builder.finish()),
            Self::Numeric(builder, ..) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Jsonb(builder) => Arc::new(builder.finish()),
            Self::Bytea(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Uuid(builder) => Arc::new(builder.finish()),
            Self::List { items, length, offsets, valid } => {
                *length = 0;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
                let items = items.finish()?;
                let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
                Arc::new(ListArray::try_new(field, offsets, items, valid.finish())?)
            }
        })
    }
}

fn push_text(builder: &mut StringBuilder, value: &[u8]) -> Result<(), &'static str> {
    match std::str::from_utf8(value) {
        Ok(text) => {
            builder.append_value(text);
            Ok(())
        }
        // Only a database of encoding SQL_ASCII sends such a thing.
        Err(_) => {
            builder.append_null();
            Err("not UTF-8")
        }
    }
}

/// Appends the items of an array: dimensions, flags, item type; length and lower bound of each dimension; the items.
fn push_items(
    items: &mut ColumnBuilder,
    length: &mut i32,
    value: &[u8],
) -> Result<Result<(), &'static str>, Malformed> {
    let mut rest = value;
    let dimensions = take_i32(&mut rest)?;
    take(&mut rest, 8)?;
    match dimensions {
        0 => return Ok(Ok(())),
        1 => {}
        _ => return Ok(Err("an array of several dimensions")),
    }
    let count = take_i32(&mut rest)?;
    take(&mut rest, 4)?;
    let mut verdict = Ok(());
    for _ in 0..count {
        let item = take_value(&mut rest)?;
        if let Err(reason) = items.push(item)? {
            verdict = Err(reason);
        }
        *length = length.checked_add(1).ok_or(Malformed)?;
    }
    Ok(verdict)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = tail;
    Ok(taken)
}

fn take_i32(rest: &mut &[u8]) -> Result<i32, Malformed> {
    Ok(i32::from_be_bytes(array(take(rest, 4)?)?))
}

fn take_value<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    match take_i32(rest)? {
        -1 => Ok(None),
        length => take(rest, usize::try_from(length).map_err(|_| Malformed)?).map(Some),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Decoder, SIGNATURE, Wire};

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            let list = Wire::List { item: Box::new(Wire::Text), oid: 25 };
            let numeric = Wire::Numeric { precision: 38, scale: 9, strip: false };
            let mut decoder = Decoder::new(&[Wire::Int4, list, numeric, Wire::Uuid], 8);
            let mut message = if header { SIGNATURE.to_vec() } else { Vec::new() };
            message.extend(bytes);
            let _ = decoder.push(&message);
        }
    }
}
