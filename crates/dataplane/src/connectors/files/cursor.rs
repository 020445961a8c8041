//! Committed cursors: how they are named and compared.

use std::cmp::Ordering;

use dagwright_model::schema::DataType;

use super::value;

/// Returns the name under which a source's cursor is committed.
pub(crate) fn name(pipeline: &str, source: &str) -> String {
    format!("{pipeline}/{source}")
}

/// Compares two cursors of a type; texts that do not read as it compare as text.
pub(crate) fn compare(data_type: &DataType, a: &str, b: &str) -> Ordering {
    fn by<T: PartialOrd>(a: &str, b: &str, read: impl Fn(&[u8]) -> Option<T>) -> Option<Ordering> {
        read(a.as_bytes())?.partial_cmp(&read(b.as_bytes())?)
    }
    let instant = |text: &[u8]| value::timestamptz(text).or_else(|| value::timestamp(text));
    let compared = match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => by(a, b, value::int64),
        DataType::Float32 | DataType::Float64 => by(a, b, value::float64),
        DataType::Decimal { scale, .. } => by(a, b, |text| value::decimal(text, 38, *scale)),
        DataType::Date => by(a, b, value::date),
        DataType::Time => by(a, b, value::time),
        DataType::Timestamp | DataType::TimestampTz => by(a, b, instant),
        _ => None,
    };
    compared.unwrap_or_else(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::compare;

    #[test]
    fn cursors_compare_by_type() {
        for (data_type, a, b) in [
            ("int64", "9", "10"),
            ("decimal(10,2)", "9.50", "10"),
            ("date", "2013-01-09", "2013-01-10"),
            ("timestamptz", "2013-01-01T01:00:00+02:00", "2013-01-01T00:00:00Z"),
            ("string", "10", "9"),
        ] {
            assert_eq!(compare(&data_type.parse().unwrap(), a, b), Ordering::Less, "{data_type}");
        }
    }
}
