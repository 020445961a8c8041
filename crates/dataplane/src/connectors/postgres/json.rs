//! Writes a cell of an Arrow array as JSON: for nested values in `jsonb` columns, and for rejected rows.

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType as Arrow, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type},
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::{Map, Value};

/// Returns a value as JSON; what JSON has no type for becomes text in its canonical form.
pub(crate) fn cell(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        Arrow::Boolean => Value::Bool(array.as_boolean().value(row)),
        Arrow::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        Arrow::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        Arrow::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        // NaN and infinity become null, as in most JSON writers.
        Arrow::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        Arrow::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        Arrow::Utf8 => array.as_string::<i32>().value(row).into(),
        Arrow::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell(&*items, item)).collect()
        }
        Arrow::Struct(fields) => {
            let columns = array.as_struct().columns();
            let members = fields.iter().zip(columns);
            Value::Object(
                members.map(|(field, column)| (field.name().clone(), cell(column, row))).collect::<Map<_, _>>(),
            )
        }
        _ => match ArrayFormatter::try_new(array, &FormatOptions::default()) {
            Ok(formatter) => formatter.value(row).try_to_string().map_or(Value::Null, Value::String),
            Err(_) => Value::Null,
        },
    }
}
