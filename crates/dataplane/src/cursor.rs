//! Cursors: where an incremental read continues, and how far it came.
//!
//! Between tasks a cursor is text in its type's canonical form; here it is compared as what it means.

use std::cmp::Ordering;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::{SortOptions, cast, sort_to_indices},
};
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime};
use dagwright_model::{
    code::Code,
    id::Name,
    schema::DataType,
    spec::{Incremental, Lag},
};

use crate::{
    error::{Error, Result},
    types::{arrow_field, arrow_type},
    values,
};

/// A cursor's value, comparable with others of its type.
#[derive(Clone, Debug, PartialEq)]
enum Cursor {
    Integer(i64),
    /// Digits without the point, and how many stand behind it.
    Decimal(i128, u32),
    Date(NaiveDate),
    Time(NaiveTime),
    Timestamp(NaiveDateTime),
    Instant(DateTime<chrono::Utc>),
    Text(String),
}

/// Returns the larger of two cursors; one that is missing is smaller than any.
///
/// # Errors
/// DW0309 when one is not of the type.
pub fn largest(source: &Name, data_type: &DataType, a: Option<String>, b: Option<String>) -> Result<Option<String>> {
    pick(source, data_type, a, b, Ordering::Greater)
}

/// Returns the smaller of two cursors that are there.
///
/// # Errors
/// As [`largest`].
pub fn smallest(source: &Name, data_type: &DataType, a: String, b: String) -> Result<Option<String>> {
    pick(source, data_type, Some(a), Some(b), Ordering::Less)
}

fn pick(
    source: &Name,
    data_type: &DataType,
    a: Option<String>,
    b: Option<String>,
    wanted: Ordering,
) -> Result<Option<String>> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (one, other) => return Ok(one.or(other)),
    };
    let (first, second) = (parse(source, data_type, &a)?, parse(source, data_type, &b)?);
    Ok(Some(if compare(&first, &second) == wanted { a } else { b }))
}

/// Returns the cursor that a read continues after: the committed one less the lag, but not before the initial value.
///
/// # Errors
/// DW0309 when a cursor or the lag does not fit the type.
pub fn continue_after(
    source: &Name,
    incremental: &Incremental,
    data_type: &DataType,
    committed: Option<String>,
) -> Result<Option<String>> {
    let initial = incremental.initial_value.clone();
    let Some(committed) = committed else { return Ok(initial) };
    let back = match incremental.lag {
        Some(lag) => less(source, data_type, &committed, lag)?,
        None => committed,
    };
    largest(source, data_type, Some(back), initial)
}

/// Returns the largest value of a column in a batch, as text.
///
/// # Errors
/// DW0309 when the column is not there or has no order.
pub fn largest_in(source: &Name, batch: &RecordBatch, column: &str, data_type: &DataType) -> Result<Option<String>> {
    let broken = || invalid(source, "the cursor's column is not in what was read, or has no order");
    let array: &ArrayRef = batch.column_by_name(column).ok_or_else(broken)?;
    let array = if *array.data_type() == arrow_type(data_type) {
        array.clone()
    } else {
        cast(array, &arrow_type(data_type)).map_err(|_| broken())?
    };
    if array.null_count() == array.len() {
        return Ok(None);
    }
    let options = SortOptions { descending: true, nulls_first: false };
    let first = sort_to_indices(&array, Some(options), Some(1)).map_err(|_| broken())?;
    let field = arrow_field(&dagwright_model::schema::Column {
        name: column.into(),
        data_type: data_type.clone(),
        nullable: true,
    });
    let row = first.values().first().copied().unwrap_or_default() as usize;
    Ok(Some(values::text(array.as_ref(), row, &field)))
}

fn less(source: &Name, data_type: &DataType, committed: &str, lag: Lag) -> Result<String> {
    let unfit = || invalid(source, "the lag does not fit the cursor's type");
    let cursor = parse(source, data_type, committed)?;
    Ok(match (cursor, lag) {
        (Cursor::Integer(value), Lag::Number(lag)) => {
            value.saturating_sub(i64::try_from(lag).unwrap_or(i64::MAX)).to_string()
        }
        (Cursor::Decimal(digits, scale), Lag::Number(lag)) => {
            let lag = 10_i128.checked_pow(scale).and_then(|unit| unit.checked_mul(i128::from(lag)));
            decimal_text(lag.and_then(|lag| digits.checked_sub(lag)).ok_or_else(unfit)?, scale)
        }
        (Cursor::Date(date), Lag::Time(span)) => {
            // A lag of part of a day reaches into the day before.
            let days = span.duration().as_millis().div_ceil(86_400_000);
            let days = i64::try_from(days).ok().and_then(Duration::try_days);
            days.and_then(|days| date.checked_sub_signed(days)).ok_or_else(unfit)?.to_string()
        }
        (Cursor::Timestamp(at), Lag::Time(span)) => {
            let lag = Duration::from_std(span.duration()).map_err(|_| unfit())?;
            timestamp_text(at.checked_sub_signed(lag).ok_or_else(unfit)?)
        }
        (Cursor::Instant(at), Lag::Time(span)) => {
            let lag = Duration::from_std(span.duration()).map_err(|_| unfit())?;
            let at = at.checked_sub_signed(lag).ok_or_else(unfit)?;
            format!("{}Z", timestamp_text(at.naive_utc()))
        }
        _ => return Err(unfit()),
    })
}

fn parse(source: &Name, data_type: &DataType, text: &str) -> Result<Cursor> {
    let unfit = || invalid(source, &format!("a cursor's text does not read as {data_type}"));
    let text = text.trim();
    Ok(match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => Cursor::Integer(text.parse().map_err(|_| unfit())?),
        DataType::Decimal { scale, .. } => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let padded = format!("{whole}{fraction:0<width$}", width = usize::from(*scale));
            if fraction.len() > usize::from(*scale) {
                return Err(unfit());
            }
            Cursor::Decimal(padded.parse().map_err(|_| unfit())?, u32::from(*scale))
        }
        // An initial value may give a date where instants are meant, and the other way round.
        DataType::Date => Cursor::Date(timestamp(text).ok_or_else(unfit)?.date()),
        DataType::Time => Cursor::Time(text.parse().map_err(|_| unfit())?),
        DataType::Timestamp => Cursor::Timestamp(timestamp(text).ok_or_else(unfit)?),
        DataType::TimestampTz => match DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
            Ok(at) => Cursor::Instant(at.to_utc()),
            Err(_) => Cursor::Instant(timestamp(text).ok_or_else(unfit)?.and_utc()),
        },
        DataType::String { .. } | DataType::Uuid => Cursor::Text(text.to_owned()),
        DataType::Boolean
        | DataType::Float32
        | DataType::Float64
        | DataType::Binary
        | DataType::Json
        | DataType::List(_)
        | DataType::Struct(_) => return Err(invalid(source, &format!("{data_type} has no order for a cursor"))),
    })
}

fn timestamp(text: &str) -> Option<NaiveDateTime> {
    let text = text.replacen(' ', "T", 1);
    let text = text.strip_suffix('Z').unwrap_or(&text);
    let date = || text.parse::<NaiveDate>().ok().map(|date| date.and_time(NaiveTime::MIN));
    text.parse::<NaiveDateTime>().ok().or_else(date)
}

fn timestamp_text(at: NaiveDateTime) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.f").to_string()
}

fn decimal_text(digits: i128, scale: u32) -> String {
    if scale == 0 {
        return digits.to_string();
    }
    let (sign, digits) = if digits < 0 { ("-", digits.unsigned_abs()) } else { ("", digits.unsigned_abs()) };
    let unit = 10_u128.pow(scale);
    format!("{sign}{}.{:0>width$}", digits / unit, digits % unit, width = scale as usize)
}

fn compare(a: &Cursor, b: &Cursor) -> Ordering {
    match (a, b) {
        (Cursor::Integer(a), Cursor::Integer(b)) => a.cmp(b),
        (Cursor::Decimal(a, _), Cursor::Decimal(b, _)) => a.cmp(b),
        (Cursor::Date(a), Cursor::Date(b)) => a.cmp(b),
        (Cursor::Time(a), Cursor::Time(b)) => a.cmp(b),
        (Cursor::Timestamp(a), Cursor::Timestamp(b)) => a.cmp(b),
        (Cursor::Instant(a), Cursor::Instant(b)) => a.cmp(b),
        (Cursor::Text(a), Cursor::Text(b)) => a.cmp(b),
        // Both were parsed as the same type.
        _ => Ordering::Equal,
    }
}

fn invalid(source: &Name, message: &str) -> Error {
    Error::new(
        Code::CursorInvalid,
        source.as_str(),
        message,
        "choose a cursor column that is never NULL and only grows, and a lag of its kind",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use dagwright_model::{
        id::Name,
        spec::{Incremental, Lag},
    };

    fn source() -> Name {
        Name::new("flights").unwrap()
    }

    #[track_caller]
    fn check(data_type: &str, committed: Option<&str>, initial: Option<&str>, lag: Option<Lag>, wanted: Option<&str>) {
        let incremental = Incremental { cursor: "c".into(), initial_value: initial.map(Into::into), lag };
        let data_type = data_type.parse().unwrap();
        let found = super::continue_after(&source(), &incremental, &data_type, committed.map(Into::into));
        assert_eq!(found.ok(), Some(wanted.map(ToOwned::to_owned)));
    }

    #[test]
    fn a_read_continues_after_the_committed_cursor_less_the_lag() {
        let day = Some(Lag::Time("1d".parse().unwrap()));
        check("int64", None, None, None, None);
        check("int64", None, Some("5"), None, Some("5"));
        check("int64", Some("10"), Some("5"), None, Some("10"));
        check("int64", Some("10"), Some("5"), Some(Lag::Number(3)), Some("7"));
        check("int64", Some("10"), Some("9"), Some(Lag::Number(3)), Some("9"));
        check("decimal(10,2)", Some("9.50"), None, Some(Lag::Number(10)), Some("-0.50"));
        check("date", Some("2013-01-31"), Some("2013-01-01"), day, Some("2013-01-30"));
        check("timestamp", Some("2013-01-31T04:00:00"), None, day, Some("2013-01-30T04:00:00"));
        check(
            "timestamptz",
            Some("2013-01-31T04:00:00.25Z"),
            Some("2013-01-01"),
            day,
            Some("2013-01-30T04:00:00.250Z"),
        );
        check("string", Some("b"), Some("a"), None, Some("b"));
    }

    #[test]
    fn a_cursor_of_another_type_is_refused() {
        let incremental = Incremental { cursor: "c".into(), initial_value: None, lag: Some(Lag::Number(1)) };
        let after = |data_type: &str, committed: &str| {
            super::continue_after(&source(), &incremental, &data_type.parse().unwrap(), Some(committed.into()))
        };
        assert!(after("date", "2013-01-01").is_err());
        assert!(after("int64", "x").is_err());
        assert!(after("float64", "1").is_err());
    }

    #[test]
    fn the_largest_value_of_a_batch_is_text_that_reads_back() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None, Some(11), Some(5)]));
        let times: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 86_400_000_000, 7]).with_timezone("UTC"));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", times)]).unwrap();
        let largest = |column: &str, data_type: &str| {
            let data_type = data_type.parse().unwrap();
            let found = super::largest_in(&source(), &batch, column, &data_type).unwrap();
            super::largest(&source(), &data_type, found.clone(), found).unwrap()
        };
        assert_eq!(largest("n", "int64").as_deref(), Some("11"));
        assert_eq!(largest("t", "timestamptz").as_deref(), Some("1970-01-02T00:00:00Z"));
    }
}
