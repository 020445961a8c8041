//! Casts one column, and compares it with what it was.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, ListArray, StringBuilder, StructArray},
    buffer::BooleanBuffer,
    compute::kernels::boolean::{and, or},
    compute::{CastOptions, cast_with_options, is_not_null, is_null, kernels::cmp::distinct},
    datatypes::{DataType, Field},
    error::ArrowError,
};
use dagwright_model::schema;
use serde::de::IgnoredAny;

use crate::values;

/// Casts every value that can be; the others become NULL.
pub(super) fn cast(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef, ArrowError> {
    let nested = matches!(from.data_type(), DataType::List(_) | DataType::Struct(_));
    match (from.data_type(), to.data_type()) {
        (_, DataType::Utf8) if nested || values::is_uuid(from) => Ok(texts(array, from)),
        (DataType::Utf8, DataType::FixedSizeBinary(16)) if values::is_uuid(to) => uuids(array),
        (DataType::List(item), DataType::List(wanted)) => {
            let list = array.as_list::<i32>();
            let items = cast(list.values(), item, wanted)?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(ListArray::try_new(wanted.clone(), list.offsets().clone(), items, nulls)?))
        }
        (DataType::Struct(fields), DataType::Struct(wanted)) => {
            let columns = array.as_struct();
            let cast_field = |wanted: &Arc<Field>| {
                let found = fields.iter().enumerate().find(|(_, field)| field.name() == wanted.name());
                let (index, field) = found.ok_or_else(|| ArrowError::CastError("a field is missing".into()))?;
                cast(columns.column(index), field, wanted)
            };
            let arrays = wanted.iter().map(cast_field).collect::<Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new(wanted.clone(), arrays, columns.nulls().cloned())?))
        }
        (_, wanted) => cast_with_options(array, wanted, &CastOptions { safe: true, ..CastOptions::default() }),
    }
}

/// Finds the values that a lossy cast lost: those that became NULL, and those that do not come back.
pub(super) fn misfits(
    array: &ArrayRef,
    from: &Field,
    casted: &ArrayRef,
    to: &Field,
    wanted: &schema::DataType,
) -> Result<BooleanArray, ArrowError> {
    let lost = and(&is_not_null(array)?, &is_null(casted)?)?;
    let length = match wanted {
        schema::DataType::String { length: Some(length) } => Some(*length as usize),
        _ => None,
    };
    if let Some(length) = length {
        let texts = casted.as_string::<i32>();
        let too_long = |row| texts.is_valid(row) && longer(texts.value(row), length);
        let too_long = BooleanArray::new(BooleanBuffer::collect_bool(texts.len(), too_long), None);
        return or(&lost, &too_long);
    }
    if *from.data_type() == DataType::Utf8 {
        if *wanted == schema::DataType::Json {
            let texts = array.as_string::<i32>();
            let invalid = |row| texts.is_valid(row) && serde_json::from_str::<IgnoredAny>(texts.value(row)).is_err();
            return or(&lost, &BooleanArray::new(BooleanBuffer::collect_bool(texts.len(), invalid), None));
        }
        // A text has many forms: that it could be read is all that counts.
        return Ok(lost);
    }
    match (from.data_type(), to.data_type()) {
        // A zone is taken on or off as UTC; every value comes back. A time of day is asked for without its day.
        (DataType::Timestamp(..), DataType::Timestamp(..) | DataType::Time64(_)) => Ok(lost),
        (DataType::List(_) | DataType::Struct(_), _) => Ok(lost),
        (back, _) => {
            let returned = cast_with_options(casted, back, &CastOptions { safe: true, ..CastOptions::default() })?;
            let changed = and(&distinct(&returned, array)?, &is_not_null(casted)?)?;
            or(&lost, &changed)
        }
    }
}

fn longer(text: &str, characters: usize) -> bool {
    // Bytes bound characters from above: most texts need no count.
    text.len() > characters && text.chars().nth(characters).is_some()
}

fn texts(array: &ArrayRef, from: &Field) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(array.len(), array.len() * 36);
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
        } else {
            builder.append_value(values::text(array, row, from));
        }
    }
    Arc::new(builder.finish())
}

fn uuids(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let texts = array.as_string::<i32>();
    let mut builder = FixedSizeBinaryBuilder::with_capacity(array.len(), 16);
    for text in texts {
        match text.and_then(values::uuid_bytes) {
            Some(bytes) => builder.append_value(bytes)?,
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}
