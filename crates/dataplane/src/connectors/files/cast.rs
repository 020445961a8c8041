//! Gives Arrow columns of other writers the sealed types, and tells which values did not fit.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, StringArray},
    compute::{CastOptions, cast, cast_with_options, kernels::cmp::not_distinct},
    datatypes::{DataType as Arrow, Field},
};
use dagwright_model::schema::{Column, DataType};

use super::{
    column::{Cells, Syntax},
    csv::{Form, Span},
    format::Values,
};
use crate::types::{arrow_type, model_column};

/// Returns `array` with the type of `column`; rows that do not fit are NULL and named in `misfits`.
///
/// `None` when no conversion has a meaning.
pub(crate) fn convert(array: &ArrayRef, field: &Field, column: &Column, misfits: &mut Vec<u32>) -> Option<ArrayRef> {
    let wanted = arrow_type(&column.data_type);
    let plain = plain(array)?;
    match &column.data_type {
        DataType::Json if !matches!(plain.data_type(), Arrow::Utf8) => return documents(&plain, field),
        DataType::Json | DataType::String { length: Some(_) } => {
            return from_text(&texts(&plain, field)?, column, misfits);
        }
        DataType::String { length: None } => return texts(&plain, field).map(|texts| Arc::new(texts) as ArrayRef),
        _ => {}
    }
    if *plain.data_type() == wanted {
        return Some(plain);
    }
    if let Arrow::Utf8 = plain.data_type() {
        return from_text(plain.as_string(), column, misfits);
    }
    if let (Arrow::Binary, DataType::Uuid) = (plain.data_type(), &column.data_type) {
        let bytes: Vec<Option<&[u8]>> = plain.as_binary::<i32>().iter().collect();
        note(misfits, bytes.iter().map(|bytes| bytes.is_some_and(|bytes| bytes.len() != 16)));
        let fitting = bytes.iter().map(|bytes| bytes.filter(|bytes| bytes.len() == 16));
        return FixedSizeBinaryArray::try_from_sparse_iter_with_size(fitting, 16)
            .ok()
            .map(|array| Arc::new(array) as ArrayRef);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let converted = cast_with_options(&plain, &wanted, &options).ok()?;
    // A cast may round or cut silently; what does not come back the same did not fit.
    let back = cast_with_options(&converted, plain.data_type(), &options).ok()?;
    if plain.data_type().is_nested() {
        note(
            misfits,
            (0..plain.len())
                .map(|row| plain.is_valid(row) && plain.slice(row, 1).as_ref() != back.slice(row, 1).as_ref()),
        );
    } else {
        let same = not_distinct(&plain, &back).ok()?;
        note(misfits, same.iter().map(|same| same == Some(false)));
    }
    if misfits.is_empty() {
        return Some(converted);
    }
    let mut fitting = vec![true; plain.len()];
    misfits.iter().for_each(|row| fitting[*row as usize] = false);
    arrow::compute::nullif(
        &converted,
        &arrow::array::BooleanArray::from(fitting.iter().map(|fits| !fits).collect::<Vec<_>>()),
    )
    .ok()
}

/// Returns the canonical text of each value.
pub(crate) fn texts(array: &ArrayRef, field: &Field) -> Option<StringArray> {
    let plain = plain(array)?;
    if let Arrow::Utf8 = plain.data_type() {
        return Some(plain.as_string::<i32>().clone());
    }
    written(&plain, field, |values, row, into| values.text(row, into))
}

fn documents(array: &ArrayRef, field: &Field) -> Option<ArrayRef> {
    written(array, field, |values, row, into| values.json(row, into)).map(|texts| Arc::new(texts) as ArrayRef)
}

fn written(array: &ArrayRef, field: &Field, write: impl Fn(&Values<'_>, usize, &mut Vec<u8>)) -> Option<StringArray> {
    let known = canonical(array, field)?;
    let values = Values::new(known.as_ref(), field)?;
    let mut scratch = Vec::new();
    let texts = (0..known.len()).map(|row| {
        (!values.is_null(row)).then(|| {
            scratch.clear();
            write(&values, row, &mut scratch);
            String::from_utf8_lossy(&scratch).into_owned()
        })
    });
    Some(texts.collect())
}

/// Returns the array as one of the types of [`crate::types`].
fn canonical(array: &ArrayRef, field: &Field) -> Option<ArrayRef> {
    let column = model_column(&field.clone().with_data_type(array.data_type().clone()))?;
    let wanted = arrow_type(&column.data_type);
    if *array.data_type() == wanted { Some(array.clone()) } else { cast(array, &wanted).ok() }
}

/// Undoes dictionaries and views.
fn plain(array: &ArrayRef) -> Option<ArrayRef> {
    let wanted = match array.data_type() {
        Arrow::Dictionary(_, value) => return plain(&cast(array, value).ok()?),
        Arrow::Utf8View | Arrow::LargeUtf8 => Arrow::Utf8,
        Arrow::BinaryView | Arrow::LargeBinary => Arrow::Binary,
        _ => return Some(array.clone()),
    };
    cast(array, &wanted).ok()
}

/// Reads text as the column's type.
fn from_text(texts: &StringArray, column: &Column, misfits: &mut Vec<u32>) -> Option<ArrayRef> {
    let offsets = texts.value_offsets();
    let place = |at: usize| usize::try_from(offsets[at]).unwrap_or_default();
    let span = |row: usize| {
        if texts.is_null(row) { Span::MISSING } else { Span::new(place(row), place(row + 1), Form::Quoted) }
    };
    // Spans are shorter than a gigabyte each, and so must be what they point into.
    if texts.value_data().len() > u32::MAX as usize {
        return None;
    }
    let spans: Vec<Span> = (0..texts.len()).map(span).collect();
    let cells = Cells { bytes: texts.value_data(), spans: &spans, width: 1, slot: 0, syntax: &Syntax::JSON };
    Some(cells.array(&column.data_type, misfits))
}

fn note(misfits: &mut Vec<u32>, rows: impl Iterator<Item = bool>) {
    misfits.extend((0_u32..).zip(rows).filter(|(_, misfit)| *misfit).map(|(row, _)| row));
}
