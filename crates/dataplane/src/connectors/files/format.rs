//! Writes values as text: the canonical form that CSV, NDJSON, masks, cursors and profiles share, and that reads back.

use std::io::Write;

use arrow::{
    array::{
        Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
        Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray, StructArray, Time64MicrosecondArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType as Arrow, Field, TimeUnit},
};
use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use dagwright_model::schema::DataType;

use super::json;
use crate::types::LOGICAL_TYPE;

/// The values of an array of one of the types of [`crate::types`].
pub(crate) enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, usize),
    Text(&'a StringArray),
    Document(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Uuid(&'a FixedSizeBinaryArray),
    List(&'a ListArray, Box<Values<'a>>),
    Struct(&'a StructArray, Vec<(&'a str, Values<'a>)>),
}

// === impl Values ===

impl<'a> Values<'a> {
    /// Looks at an array; `None` when its type is not one of [`crate::types`].
    pub(crate) fn new(array: &'a dyn Array, field: &Field) -> Option<Self> {
        let json = DataType::Json.to_string();
        Some(match array.data_type() {
            Arrow::Boolean => Self::Boolean(array.as_boolean()),
            Arrow::Int16 => Self::Int16(array.as_primitive()),
            Arrow::Int32 => Self::Int32(array.as_primitive()),
            Arrow::Int64 => Self::Int64(array.as_primitive()),
            Arrow::Float32 => Self::Float32(array.as_primitive()),
            Arrow::Float64 => Self::Float64(array.as_primitive()),
            Arrow::Decimal128(_, scale) => Self::Decimal(array.as_primitive(), usize::try_from(*scale).ok()?),
            Arrow::Utf8 if field.metadata().get(LOGICAL_TYPE) == Some(&json) => Self::Document(array.as_string()),
            Arrow::Utf8 => Self::Text(array.as_string()),
            Arrow::Binary => Self::Binary(array.as_binary()),
            Arrow::Date32 => Self::Date(array.as_primitive()),
            Arrow::Time64(TimeUnit::Microsecond) => Self::Time(array.as_primitive()),
            Arrow::Timestamp(TimeUnit::Microsecond, zone) => Self::Timestamp(array.as_primitive(), zone.is_some()),
            Arrow::FixedSizeBinary(16) => Self::Uuid(array.as_fixed_size_binary()),
            Arrow::List(item) => {
                let list = array.as_list();
                Self::List(list, Box::new(Self::new(list.values().as_ref(), item)?))
            }
            Arrow::Struct(fields) => {
                let structs = array.as_struct();
                let members = fields.iter().zip(structs.columns());
                let members = members
                    .zip(structs.column_names())
                    .map(|((field, column), name)| Some((name, Self::new(column.as_ref(), field)?)));
                Self::Struct(structs, members.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    /// Tells whether a value is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(array) => array.is_null(row),
            Self::Int16(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Float32(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Text(array) | Self::Document(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Timestamp(array, _) => array.is_null(row),
            Self::Uuid(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
        }
    }

    /// Writes a value that is not NULL.
    pub(crate) fn text(&self, row: usize, into: &mut Vec<u8>) {
        match self {
            Self::Boolean(array) => put(into, array.value(row)),
            Self::Int16(array) => put(into, array.value(row)),
            Self::Int32(array) => put(into, array.value(row)),
            Self::Int64(array) => put(into, array.value(row)),
            Self::Float32(array) => put_debug(into, array.value(row)),
            Self::Float64(array) => put_debug(into, array.value(row)),
            Self::Decimal(array, scale) => decimal(array.value(row), *scale, into),
            Self::Text(array) | Self::Document(array) => into.extend_from_slice(array.value(row).as_bytes()),
            Self::Binary(array) => into.extend_from_slice(hex::encode(array.value(row)).as_bytes()),
            Self::Date(array) => date(array.value(row), into),
            Self::Time(array) => clock(array.value(row), into),
            Self::Timestamp(array, zoned) => {
                let micros = array.value(row);
                let days = micros.div_euclid(86_400_000_000);
                date(i32::try_from(days).unwrap_or(i32::MAX), into);
                into.push(b'T');
                clock(micros.rem_euclid(86_400_000_000), into);
                if *zoned {
                    into.push(b'Z');
                }
            }
            Self::Uuid(array) => {
                for (at, byte) in array.value(row).iter().enumerate() {
                    if matches!(at, 4 | 6 | 8 | 10) {
                        into.push(b'-');
                    }
                    into.extend_from_slice(hex::encode([*byte]).as_bytes());
                }
            }
            Self::List(..) | Self::Struct(..) => self.json(row, into),
        }
    }

    /// Writes a value, NULL included, as JSON.
    pub(crate) fn json(&self, row: usize, into: &mut Vec<u8>) {
        if self.is_null(row) {
            into.extend_from_slice(b"null");
            return;
        }
        match self {
            Self::Boolean(_)
            | Self::Int16(_)
            | Self::Int32(_)
            | Self::Int64(_)
            | Self::Decimal(..)
            | Self::Document(_) => {
                self.text(row, into);
            }
            Self::Float32(array) if array.value(row).is_finite() => self.text(row, into),
            Self::Float64(array) if array.value(row).is_finite() => self.text(row, into),
            Self::Text(array) => json::write_string(array.value(row), into),
            Self::Float32(_)
            | Self::Float64(_)
            | Self::Binary(_)
            | Self::Date(_)
            | Self::Time(_)
            | Self::Timestamp(..)
            | Self::Uuid(_) => {
                into.push(b'"');
                self.text(row, into);
                into.push(b'"');
            }
            Self::List(array, items) => {
                into.push(b'[');
                let (from, to) = (array.value_offsets()[row], array.value_offsets()[row + 1]);
                for at in from..to {
                    if at > from {
                        into.push(b',');
                    }
                    items.json(usize::try_from(at).unwrap_or_default(), into);
                }
                into.push(b']');
            }
            Self::Struct(_, members) => {
                into.push(b'{');
                for (at, (name, values)) in members.iter().enumerate() {
                    if at > 0 {
                        into.push(b',');
                    }
                    json::write_string(name, into);
                    into.push(b':');
                    values.json(row, into);
                }
                into.push(b'}');
            }
        }
    }
}

fn put(into: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to memory does not fail.
    let _ = write!(into, "{value}");
}

/// The shortest text that reads back, with an exponent where that is shorter.
fn put_debug(into: &mut Vec<u8>, value: impl std::fmt::Debug) {
    let _ = write!(into, "{value:?}");
}

fn decimal(value: i128, scale: usize, into: &mut Vec<u8>) {
    if scale == 0 {
        return put(into, value);
    }
    if value < 0 {
        into.push(b'-');
    }
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    into.extend_from_slice(whole.as_bytes());
    into.push(b'.');
    into.extend_from_slice(fraction.as_bytes());
}

fn date(days: i32, into: &mut Vec<u8>) {
    const EPOCH_FROM_CE: i32 = 719_163;
    let day = days.checked_add(EPOCH_FROM_CE).and_then(NaiveDate::from_num_days_from_ce_opt).unwrap_or(NaiveDate::MAX);
    let _ = write!(into, "{:04}-{:02}-{:02}", day.year(), day.month(), day.day());
}

fn clock(micros: i64, into: &mut Vec<u8>) {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default().time();
    let _ = write!(into, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    let fraction = time.nanosecond() / 1000;
    if fraction > 0 {
        let _ = write!(into, ".{fraction:06}");
    }
}
