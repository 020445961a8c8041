//! Single values of Arrow arrays, as JSON and as canonical text.

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
        UInt32Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use dagwright_model::schema;
use serde_json::{Map, Number, Value};

use crate::types::LOGICAL_TYPE;

/// Returns a value as JSON: numbers, truth values, lists and structs as such, all else as text.
#[must_use]
pub fn json(array: &dyn Array, row: usize, field: &Field) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let float = |value: f64| Number::from_f64(value).map_or_else(|| Value::from(value.to_string()), Value::Number);
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|index| json(&items, index, item)).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let member = |(index, field): (usize, &std::sync::Arc<Field>)| {
                (field.name().clone(), json(columns.column(index), row, field))
            };
            Value::Object(fields.iter().enumerate().map(member).collect::<Map<_, _>>())
        }
        _ => Value::from(text(array, row, field)),
    }
}

/// Returns a non-NULL value as canonical text.
#[must_use]
pub fn text(array: &dyn Array, row: usize, field: &Field) -> String {
    match array.data_type() {
        DataType::FixedSizeBinary(16) if is_uuid(field) => uuid_text(array.as_fixed_size_binary().value(row)),
        DataType::FixedSizeBinary(_) => hex(array.as_fixed_size_binary().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::List(_) | DataType::Struct(_) => json(array, row, field).to_string(),
        _ => {
            let options = FormatOptions::default();
            match ArrayFormatter::try_new(array, &options) {
                Ok(formatter) => formatter.value(row).to_string(),
                // Not reached: every type of the model can be shown.
                Err(_) => String::new(),
            }
        }
    }
}

/// Tells whether a field holds UUIDs.
#[must_use]
pub fn is_uuid(field: &Field) -> bool {
    field.metadata().get(LOGICAL_TYPE).is_some_and(|text| text.parse() == Ok(schema::DataType::Uuid))
}

/// Returns a UUID's 16 bytes as text.
#[must_use]
pub fn uuid_text(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    parts.map(|(from, to)| digits.get(from..to).unwrap_or_default()).join("-")
}

/// Reads a UUID's text, with or without hyphens.
#[must_use]
pub fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let mut bytes = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
