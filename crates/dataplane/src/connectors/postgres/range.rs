//! Which rows are read: those after the cursor, of the interval, of the partition; as conditions for the server.

use dagwright_model::{
    code::Code,
    task::{PartitionRange, SourceRead},
};

use super::{
    catalog::PgColumn,
    effects::comparable,
    fault::Subject,
    sql::{Bounds, quoted},
};
use crate::{connectors::ReadContext, error::Result};

/// Returns the condition of the cursor, if there is one that the server can judge.
///
/// It is an early one: the rows are judged again when they were decoded. Rows without a cursor come along, so that
/// they are noticed.
pub(crate) fn cursor_condition(
    read: &SourceRead,
    context: &ReadContext,
    columns: &[PgColumn],
    bounds: &mut Bounds,
) -> Option<String> {
    let incremental = read.incremental.as_ref()?;
    let name = &incremental.incremental.cursor;
    let column = columns.iter().find(|column| column.name == *name)?;
    let native = &column.native;
    let same_order = native.data_type == incremental.data_type
        || (native.data_type.is_number() && incremental.data_type.is_number());
    // A masked cursor has another order, and so has text that is read as something else.
    if native.cast.is_some() || !same_order || read.masks.contains_key(name) {
        return None;
    }
    let condition = if context.run.backfill {
        let interval = context.run.interval.as_ref()?;
        let from = compared(column, ">=", &interval.start, bounds);
        format!("{from} AND {}", compared(column, "<", &interval.end, bounds))
    } else {
        let after = context.after_cursor.as_ref().or(incremental.incremental.initial_value.as_ref())?;
        compared(column, ">", after, bounds)
    };
    Some(or_null(condition, column))
}

/// Returns the condition of the partition; `None` for a read of everything.
pub(crate) fn partition_condition(
    read: &SourceRead,
    context: &ReadContext,
    columns: &[PgColumn],
    subject: &Subject,
    bounds: &mut Bounds,
) -> Result<Option<String>> {
    if !read.partitioned {
        return Ok(None);
    }
    let invalid = |message: &str| subject.error(Code::TaskSpecInvalid, message, "plan again");
    let partition =
        context.run.partition.as_ref().ok_or_else(|| invalid("a partitioned read was given no partition"))?;
    let PartitionRange::KeyRange { column, from, to } = &partition.range else {
        return Err(invalid("a table is read by ranges of a key, not by files"));
    };
    let found = columns.iter().find(|found| found.name == *column);
    let found = found.ok_or_else(|| super::read::missing_column(subject, column))?;
    Ok(key_range(found, from.as_deref(), to.as_deref(), bounds))
}

/// Returns `from <= column < to`; without `to` also the rows where the column is NULL.
pub(crate) fn key_range(
    column: &PgColumn,
    from: Option<&str>,
    to: Option<&str>,
    bounds: &mut Bounds,
) -> Option<String> {
    let lower = from.map(|from| compared(column, ">=", from, bounds));
    let upper = to.map(|to| compared(column, "<", to, bounds));
    match (lower, upper) {
        (Some(lower), Some(upper)) => Some(format!("{lower} AND {upper}")),
        (Some(lower), None) => Some(or_null(lower, column)),
        (None, upper) => upper,
    }
}

fn or_null(condition: String, column: &PgColumn) -> String {
    if column.nullable { format!("(({condition}) OR {} IS NULL)", quoted(&column.name)) } else { condition }
}

fn compared(column: &PgColumn, operator: &str, value: &str, bounds: &mut Bounds) -> String {
    let typed = comparable(&column.native.data_type);
    let name = quoted(&column.name);
    // The column itself is not cast, so that its index serves; text alone needs the order of its bytes.
    let name = if typed.starts_with("text") { format!("{name}::{typed}") } else { name };
    format!("{name} {operator} {}::{typed}", bounds.add(value))
}
