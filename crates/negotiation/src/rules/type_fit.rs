//! Whether values of one type fit another: exact, lossless, or lossy, and then what the profile says of the values.
//!
//! A lossy conversion that nothing speaks against is made with every value checked. One that the profile shows to
//! fail on some values is a conflict, until a policy says what becomes of them.

use dagwright_model::{
    facts::{ColumnProfile, SourceProfile},
    schema::{Column, DataType, Verdict},
    spec::FileFormat,
};

use super::percent;

/// How a column's values fit a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All, as they are.
    Exact,
    /// All, in another type.
    Lossless,
    /// Maybe not all, but nothing is known against any.
    Checked,
    /// Some are known not to; the text says how many of what.
    Misfit(String),
    /// None.
    Impossible,
}

/// Judges how a column fits a type, by its type and by what was seen of it where it comes from.
#[must_use]
pub fn judge(column: &Column, to: &DataType, seen: Option<(&ColumnProfile, &SourceProfile)>) -> Fit {
    match column.data_type.cast_to(to) {
        Verdict::Exact => Fit::Exact,
        Verdict::Lossless => Fit::Lossless,
        Verdict::Impossible => Fit::Impossible,
        Verdict::Lossy => match seen.and_then(|(column, source)| misfits(column, source, to)) {
            Some(misfit) => Fit::Misfit(misfit),
            None => Fit::Checked,
        },
    }
}

/// Returns what in a column's profile speaks against a type, as `3.1 % not numeric`.
#[must_use]
pub fn misfits(seen: &ColumnProfile, source: &SourceProfile, to: &DataType) -> Option<String> {
    let values = source.rows_sampled.saturating_sub(seen.nulls);
    if values == 0 {
        return None;
    }
    if let Some(count) = seen.misfits.get(&to.to_string()) {
        // A number may be one and still have too many digits; only text tells the two apart.
        let is_text = matches!(seen.column.data_type, DataType::String { .. });
        let how = if is_text { format!("not {}", kind(to)) } else { "of the values do not fit".into() };
        return (*count > 0).then(|| format!("{} {how}", percent(*count, values)));
    }
    if matches!(seen.column.data_type, DataType::String { .. }) && !matches!(to, DataType::String { .. }) {
        let same_kind = |(name, count): (&String, &u64)| {
            let known: DataType = name.parse().ok()?;
            (kind(&known) == kind(to)).then_some(*count)
        };
        return match seen.misfits.iter().filter_map(same_kind).min() {
            Some(0) => None,
            Some(count) => Some(format!("{} not {}", percent(count, values), kind(to))),
            // Text files were searched for types that most values read as; what was not found is not there.
            None if matches!(source.format, Some(FileFormat::Csv | FileFormat::Ndjson)) => {
                Some(format!("most values not {}", kind(to)))
            }
            None => None,
        };
    }
    let ends = [seen.min.as_deref(), seen.max.as_deref()];
    let outside = ends.iter().flatten().any(|value| is_outside(value, to));
    outside.then(|| format!("some values {}", if to.is_number() { "out of its range" } else { "too long" }))
}

/// Names what values of a type look like, for people.
fn kind(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "true or false",
        DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal { .. } => "numeric",
        DataType::Date => "a date",
        DataType::Time => "a time",
        DataType::Timestamp | DataType::TimestampTz => "a timestamp",
        DataType::Uuid => "a UUID",
        DataType::Json | DataType::List(_) | DataType::Struct(_) => "JSON",
        DataType::String { .. } => "text that short",
        DataType::Binary => "binary",
    }
}

/// Tells whether a value, as text, is certainly no value of the type.
fn is_outside(value: &str, to: &DataType) -> bool {
    let bound = match to {
        DataType::Int16 => f64::from(i16::MAX),
        DataType::Int32 => f64::from(i32::MAX),
        // The largest double below 2^63.
        DataType::Int64 => 9_223_372_036_854_774_784.0,
        DataType::Decimal { precision, scale } => 10_f64.powi(i32::from(*precision) - i32::from(*scale)) - 1e-9,
        DataType::String { length: Some(length) } => return value.chars().count() > *length as usize,
        _ => return false,
    };
    // One more negative than positive integer is let through to be checked value by value.
    value.parse::<f64>().is_ok_and(|number| number.abs() > bound + 1.0 || number > bound)
}

#[cfg(test)]
mod tests {
    use super::Fit;
    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(from: &str, to: &str, change: impl FnOnce(&mut dagwright_model::facts::ColumnProfile), wanted: Fit) {
        let mut fixture = Fixture::files(1);
        let column = fixture.column_mut("amount");
        column.column.data_type = from.parse().expect("a type");
        (column.min, column.max) = (None, None);
        change(column);
        let profile = fixture.case().profile(&fixture.source).expect("observed");
        let seen = profile.columns.iter().find(|seen| seen.column.name == "amount").expect("a column");
        let found = super::judge(&seen.column, &to.parse().expect("a type"), Some((seen, profile)));
        assert_eq!(found, wanted, "{from} to {to}");
    }

    #[test]
    fn types_and_values_both_count() {
        let range = |min: &str, max: &str| {
            let (min, max) = (Some(min.to_string()), Some(max.to_string()));
            move |column: &mut dagwright_model::facts::ColumnProfile| (column.min, column.max) = (min, max)
        };
        let misfits = |name: &str, count: u64| {
            let name = name.to_string();
            move |column: &mut dagwright_model::facts::ColumnProfile| {
                column.misfits.insert(name, count);
            }
        };
        check("int64", "int64", |_| {}, Fit::Exact);
        check("int32", "int64", |_| {}, Fit::Lossless);
        check("int64", "int32", |_| {}, Fit::Checked);
        check("int64", "int32", range("0", "2147483647"), Fit::Checked);
        check("int64", "int32", range("0", "2147483648"), Fit::Misfit("some values out of its range".into()));
        check("int64", "decimal(3,0)", range("-43", "1301"), Fit::Misfit("some values out of its range".into()));
        check("string", "decimal(10,2)", misfits("decimal(10,2)", 31), Fit::Misfit("3.1 % not numeric".into()));
        check("string", "decimal(10,2)", misfits("float64", 31), Fit::Misfit("3.1 % not numeric".into()));
        check("string", "decimal(10,2)", misfits("float64", 0), Fit::Checked);
        check("string", "decimal(10,2)", |_| {}, Fit::Misfit("most values not numeric".into()));
        check("string", "string(3)", range("a", "abcd"), Fit::Misfit("some values too long".into()));
        check("string", "string(4)", range("a", "abcd"), Fit::Checked);
        check("binary", "int32", |_| {}, Fit::Impossible);
    }
}
