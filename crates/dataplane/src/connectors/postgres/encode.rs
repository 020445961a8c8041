//! Encodes Arrow batches for binary `COPY … FROM STDIN`.
//!
//! Columns are resolved to typed arrays once a batch; then rows are written one after the other into chunks of about
//! [`CHUNK_BYTES`], which is what the server's buffers and the processor's cache like.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
        Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType as Arrow, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
    error::ArrowError,
};
use bytes::Bytes;
use postgres_types::Oid;

use super::{
    decode::{EPOCH_DAYS, EPOCH_MICROS, SIGNATURE},
    json, numeric,
    types::Wire,
};

/// How many bytes are sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// How a column is written, and what it is called in errors.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The column.
    pub name: String,
    /// How it travels.
    pub wire: Wire,
}

/// Why a batch cannot be written; the text names a column, never a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// A value is outside of what PostgreSQL holds.
    #[error("column {0:?}: a value is outside of what PostgreSQL's type holds")]
    OutOfRange(String),
    /// The array is of another type.
    #[error("column {0:?}: a value does not fit the column's type")]
    Cast(String),
    /// The batch has another number of columns.
    #[error("the batch has another number of columns than the table")]
    Columns,
}

/// Writes batches.
pub(crate) struct Encoder {
    targets: Vec<Target>,
    /// What every row ends with: the encoded run id, or nothing.
    suffix: Vec<u8>,
    fields: i16,
    chunk: Vec<u8>,
}

enum Cells {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric { values: Decimal128Array, scale: u8, strip: bool },
    Text(StringArray),
    Jsonb(StringArray),
    Bytea(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Uuid(FixedSizeBinaryArray),
    List { lists: ListArray, items: Box<Cells>, oid: Oid },
}

struct OutOfRange;

// === impl Encoder ===

impl Encoder {
    /// Encodes these columns, and after them a UUID that is the same in every row.
    pub(crate) fn new(targets: Vec<Target>, run_id: Option<[u8; 16]>) -> Self {
        let mut suffix = Vec::new();
        if let Some(id) = run_id {
            suffix.extend_from_slice(&16_i32.to_be_bytes());
            suffix.extend_from_slice(&id);
        }
        let fields = i16::try_from(targets.len() + usize::from(run_id.is_some())).unwrap_or(i16::MAX);
        let mut chunk = Vec::with_capacity(CHUNK_BYTES * 2);
        chunk.extend_from_slice(SIGNATURE);
        chunk.extend_from_slice(&[0; 8]);
        Self { targets, suffix, fields, chunk }
    }

    /// Encodes a batch and hands over what is full; `send` tells whether to go on.
    pub(crate) fn push(&mut self, batch: &RecordBatch, mut send: impl FnMut(Bytes) -> bool) -> Result<(), EncodeError> {
        if batch.num_columns() != self.targets.len() {
            return Err(EncodeError::Columns);
        }
        let columns = self.targets.iter().zip(batch.columns());
        let columns = columns
            .map(|(target, array)| Cells::new(array, &target.wire).map_err(|_| EncodeError::Cast(target.name.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            self.chunk.extend_from_slice(&self.fields.to_be_bytes());
            for (index, cells) in columns.iter().enumerate() {
                let written = cells.write(row, &mut self.chunk);
                written.map_err(|OutOfRange| EncodeError::OutOfRange(self.targets[index].name.clone()))?;
            }
            self.chunk.extend_from_slice(&self.suffix);
            if self.chunk.len() >= CHUNK_BYTES && !send(self.take()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns what is left, with the trailer.
    pub(crate) fn finish(mut self) -> Bytes {
        self.chunk.extend_from_slice(&(-1_i16).to_be_bytes());
        self.take()
    }

    fn take(&mut self) -> Bytes {
        // A little more than a chunk, so that the row that fills it seldom makes it grow.
        std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 3))).into()
    }
}

// === impl Cells ===

impl Cells {
    fn new(array: &ArrayRef, wire: &Wire) -> Result<Self, ArrowError> {
        let nested = matches!(array.data_type(), Arrow::Struct(_) | Arrow::List(_));
        if nested && matches!(wire, Wire::Text | Wire::Jsonb) {
            let texts: StringArray =
                (0..array.len()).map(|row| array.is_valid(row).then(|| json::cell(array, row).to_string())).collect();
            return Ok(if *wire == Wire::Jsonb { Self::Jsonb(texts) } else { Self::Text(texts) });
        }
        let array = match wire {
            // The scale is the array's own: an unbounded `numeric` takes any.
            Wire::Numeric { .. } if matches!(array.data_type(), Arrow::Decimal128(..)) => array.clone(),
            Wire::List { .. } if matches!(array.data_type(), Arrow::List(_)) => array.clone(),
            _ => as_type(array, &wire.arrow())?,
        };
        Ok(match wire {
            Wire::Bool => Self::Bool(array.as_boolean().clone()),
            Wire::Int2 => Self::Int2(array.as_primitive::<Int16Type>().clone()),
            Wire::Int4 => Self::Int4(array.as_primitive::<Int32Type>().clone()),
            Wire::Int8 => Self::Int8(array.as_primitive::<Int64Type>().clone()),
            Wire::Float4 => Self::Float4(array.as_primitive::<Float32Type>().clone()),
            Wire::Float8 => Self::Float8(array.as_primitive::<Float64Type>().clone()),
            Wire::Numeric { strip, .. } => {
                let values = array.as_primitive::<Decimal128Type>().clone();
                let scale = u8::try_from(values.scale())
                    .map_err(|_| ArrowError::CastError("a decimal of negative scale".into()))?;
                Self::Numeric { values, scale, strip: *strip }
            }
            Wire::Text => Self::Text(array.as_string::<i32>().clone()),
            Wire::Jsonb => Self::Jsonb(array.as_string::<i32>().clone()),
            Wire::Bytea => Self::Bytea(array.as_binary::<i32>().clone()),
            Wire::Date => Self::Date(array.as_primitive::<Date32Type>().clone()),
            Wire::Time => Self::Time(array.as_primitive::<Time64MicrosecondType>().clone()),
            Wire::Timestamp { .. } => Self::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone()),
            Wire::Uuid => Self::Uuid(array.as_fixed_size_binary().clone()),
            Wire::List { item, oid } => {
                let lists = array.as_list::<i32>().clone();
                let items = Box::new(Self::new(lists.values(), item)?);
                Self::List { lists, items, oid: *oid }
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int2(array) => array.is_null(row),
            Self::Int4(array) => array.is_null(row),
            Self::Int8(array) => array.is_null(row),
            Self::Float4(array) => array.is_null(row),
            Self::Float8(array) => array.is_null(row),
            Self::Numeric { values, .. } => values.is_null(row),
            Self::Text(array) | Self::Jsonb(array) => array.is_null(row),
            Self::Bytea(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Uuid(array) => array.is_null(row),
            Self::List { lists, .. } => lists.is_null(row),
        }
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), OutOfRange> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        match self {
            Self::Bool(array) => sized(out, [u8::from(array.value(row))]),
            Self::Int2(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Int4(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Int8(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Float4(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Float8(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Numeric { values, scale, strip } => {
                return with_length(out, |out| {
                    numeric::encode(values.value(row), *scale, *strip, out);
                    Ok(())
                });
            }
            Self::Text(array) => slice(out, array.value(row).as_bytes())?,
            Self::Jsonb(array) => {
                let text = array.value(row).as_bytes();
                out.extend_from_slice(&length(text.len() + 1)?.to_be_bytes());
                out.push(1);
                out.extend_from_slice(text);
            }
            Self::Bytea(array) => slice(out, array.value(row))?,
            Self::Date(array) => {
                // The ends of the range mean infinity, and are far outside of what the server takes.
                let days = array.value(row).checked_sub(EPOCH_DAYS).filter(|days| *days != i32::MIN);
                sized(out, days.ok_or(OutOfRange)?.to_be_bytes());
            }
            Self::Time(array) => sized(out, array.value(row).to_be_bytes()),
            Self::Timestamp(array) => {
                let micros = array.value(row).checked_sub(EPOCH_MICROS).filter(|micros| *micros != i64::MIN);
                sized(out, micros.ok_or(OutOfRange)?.to_be_bytes());
            }
            Self::Uuid(array) => slice(out, array.value(row))?,
            Self::List { lists, items, oid } => {
                let (from, to) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
                return with_length(out, |out| write_items(items, from, to, *oid, out));
            }
        }
        Ok(())
    }
}

fn write_items(items: &Cells, from: i32, to: i32, oid: Oid, out: &mut Vec<u8>) -> Result<(), OutOfRange> {
    let range = usize::try_from(from).map_err(|_| OutOfRange)?..usize::try_from(to).map_err(|_| OutOfRange)?;
    let nulls = range.clone().any(|item| items.is_null(item));
    // An empty array has no dimension.
    out.extend_from_slice(&i32::from(!range.is_empty()).to_be_bytes());
    out.extend_from_slice(&i32::from(nulls).to_be_bytes());
    out.extend_from_slice(&oid.to_be_bytes());
    if !range.is_empty() {
        out.extend_from_slice(&(to - from).to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
    }
    for item in range {
        items.write(item, out)?;
    }
    Ok(())
}

fn as_type(array: &ArrayRef, wanted: &Arrow) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == wanted {
        return Ok(array.clone());
    }
    cast_with_options(array, wanted, &CastOptions { safe: false, ..CastOptions::default() })
}

#[inline]
fn sized<const N: usize>(out: &mut Vec<u8>, value: [u8; N]) {
    // A number of a few bytes always fits.
    out.extend_from_slice(&(N as i32).to_be_bytes());
    out.extend_from_slice(&value);
}

#[inline]
fn slice(out: &mut Vec<u8>, value: &[u8]) -> Result<(), OutOfRange> {
    out.extend_from_slice(&length(value.len())?.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

fn with_length(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), OutOfRange>,
) -> Result<(), OutOfRange> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let written = length(out.len() - start - 4)?;
    out[start..start + 4].copy_from_slice(&written.to_be_bytes());
    Ok(())
}

fn length(bytes: usize) -> Result<i32, OutOfRange> {
    i32::try_from(bytes).map_err(|_| OutOfRange)
}
