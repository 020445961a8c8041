//! Logical types, columns, and the typed check between what is provided and what is required.
//!
//! A [`DataType`] is what a value *means*, independent of Arrow, Parquet or PostgreSQL; connectors map to and from
//! it. It is written as text (`decimal(10,2)`), in specs, plans and messages alike.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The largest precision of a decimal, in digits (128-bit).
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// How deep lists and structs may nest; deeper is refused, so that hostile types cannot exhaust the stack.
const NESTING_DEPTH_MAX: usize = 16;

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataType {
    /// `boolean`
    Boolean,
    /// `int16`: signed, 16 bits.
    Int16,
    /// `int32`: signed, 32 bits.
    Int32,
    /// `int64`: signed, 64 bits.
    Int64,
    /// `float32`: IEEE 754 single precision.
    Float32,
    /// `float64`: IEEE 754 double precision.
    Float64,
    /// `decimal(precision,scale)`: exact, at most 38 digits.
    Decimal {
        /// All digits, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// `string`, or `string(n)` with at most `n` characters.
    String {
        /// The most characters a value may have; `None` is unbounded.
        length: Option<u32>,
    },
    /// `binary`: bytes.
    Binary,
    /// `date`: a calendar day.
    Date,
    /// `time`: a time of day in microseconds.
    Time,
    /// `timestamp`: a local date and time in microseconds, without a zone.
    Timestamp,
    /// `timestamptz`: an instant in microseconds, UTC.
    TimestampTz,
    /// `uuid`
    Uuid,
    /// `json`: a JSON document as text.
    Json,
    /// `list<T>`
    List(Box<DataType>),
    /// `struct<a:T,b:T>`
    Struct(Vec<(String, DataType)>),
}

/// Says that a text is not a [`DataType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a type; known are boolean, int16, int32, int64, float32, float64, decimal(p,s), string, string(n), binary, date, time, timestamp, timestamptz, uuid, json, list<T>, struct<name:T,…>"
)]
pub struct InvalidType(String);

/// A named, typed column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Column {
    /// The name as the system spells it; any text, so it must be quoted wherever it becomes SQL.
    pub name: String,
    /// What its values mean.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Whether NULL may occur.
    pub nullable: bool,
}

/// What converting every value of one type to another does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The same type.
    Exact,
    /// Another type that holds every value.
    Lossless,
    /// Some value may not fit or would lose digits: needs a policy that the request allows.
    Lossy,
    /// No conversion has a meaning.
    Impossible,
}

// === impl DataType ===

impl DataType {
    /// Unbounded text.
    pub const TEXT: Self = Self::String { length: None };

    /// Tells what casting every value of `self` to `to` does.
    #[must_use]
    pub fn cast_to(&self, to: &Self) -> Verdict {
        use DataType as T;
        use Verdict::{Exact, Impossible, Lossless, Lossy};
        if self == to {
            return Exact;
        }
        match (self, to) {
            (T::String { length: from }, T::String { length: to }) => match (from, to) {
                (_, None) => Lossless,
                (Some(from), Some(to)) if from <= to => Lossless,
                (_, Some(_)) => Lossy,
            },
            // Text holds the canonical form of every scalar; reading it back may fail.
            (T::List(_) | T::Struct(_), T::Json) => Lossless,
            (T::List(from), T::List(to)) => from.cast_to(to).max(Lossless),
            (T::Struct(from), T::Struct(to)) => cast_struct(from, to),
            (T::List(_) | T::Struct(_), _) | (_, T::List(_) | T::Struct(_)) => Impossible,
            (T::Binary, _) | (_, T::Binary) => Impossible,
            (from, T::String { length: None }) if from.is_scalar() => Lossless,
            (from, T::String { length: Some(length) }) => match from.text_length_max() {
                Some(longest) if longest <= *length => Lossless,
                _ => Lossy,
            },
            (T::String { .. }, _) => Lossy,
            (T::Json, _) | (_, T::Json) => Impossible,
            (from, to) if from.is_number() && to.is_number() => cast_number(from, to),
            (T::Boolean, number) | (number, T::Boolean) if number.is_integer() => Lossy,
            (T::Date, T::Timestamp | T::TimestampTz) => Lossless,
            (T::Timestamp, T::TimestampTz) | (T::TimestampTz, T::Timestamp) => Lossy,
            (T::Timestamp | T::TimestampTz, T::Date | T::Time) => Lossy,
            (T::Boolean | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Decimal { .. }, _)
            | (T::Date | T::Time | T::Timestamp | T::TimestampTz | T::Uuid, _) => Impossible,
        }
    }

    /// Returns the narrowest type that holds every value of both, if there is one that is not text.
    #[must_use]
    pub fn common_with(&self, other: &Self) -> Option<Self> {
        if self.cast_to(other) <= Verdict::Lossless {
            return Some(other.clone());
        }
        if other.cast_to(self) <= Verdict::Lossless {
            return Some(self.clone());
        }
        let (a, b) = (self.decimal_digits()?, other.decimal_digits()?);
        let (whole, scale) = (a.0.max(b.0), a.1.max(b.1));
        (whole + scale <= DECIMAL_PRECISION_MAX).then_some(Self::Decimal { precision: whole + scale, scale })
    }

    /// Tells whether this is an integer type.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::Int16 | Self::Int32 | Self::Int64)
    }

    /// Tells whether this is a numeric type.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.is_integer() || matches!(self, Self::Float32 | Self::Float64 | Self::Decimal { .. })
    }

    /// Tells whether values have a total order that a cursor or a range split can rest on.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        self.is_integer()
            || matches!(self, Self::Decimal { .. } | Self::Date | Self::Time | Self::Timestamp | Self::TimestampTz)
            || matches!(self, Self::String { .. } | Self::Uuid)
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Struct(_) | Self::Binary)
    }

    /// Digits before and after the point that every value of an exact number fits in.
    fn decimal_digits(&self) -> Option<(u8, u8)> {
        match self {
            Self::Int16 => Some((5, 0)),
            Self::Int32 => Some((10, 0)),
            Self::Int64 => Some((19, 0)),
            Self::Decimal { precision, scale } => Some((precision - scale, *scale)),
            _ => None,
        }
    }

    /// The most characters the canonical text of a value has, where that is bounded.
    fn text_length_max(&self) -> Option<u32> {
        match self {
            Self::Boolean => Some(5),
            Self::Int16 => Some(6),
            Self::Int32 => Some(11),
            Self::Int64 => Some(20),
            Self::Decimal { precision, .. } => Some(u32::from(*precision) + 3),
            Self::Date => Some(10),
            Self::Time => Some(15),
            Self::Timestamp => Some(26),
            Self::TimestampTz => Some(32),
            Self::Uuid => Some(36),
            Self::String { length } => *length,
            Self::Float32 | Self::Float64 | Self::Binary | Self::Json | Self::List(_) | Self::Struct(_) => None,
        }
    }
}

fn cast_number(from: &DataType, to: &DataType) -> Verdict {
    use DataType as T;
    // Whole digits that the float's mantissa holds exactly: 2^24 and 2^53.
    let fits = match (from, to) {
        (T::Float32, T::Float64) | (T::Int16, T::Float32) | (T::Int16 | T::Int32, T::Float64) => true,
        (T::Int16, T::Int32 | T::Int64) | (T::Int32, T::Int64) => true,
        (_, T::Decimal { precision, scale }) => {
            from.decimal_digits().is_some_and(|(whole, fraction)| whole <= precision - scale && fraction <= *scale)
        }
        (T::Decimal { precision, scale: 0 }, T::Int16) => *precision <= 4,
        (T::Decimal { precision, scale: 0 }, T::Int32) => *precision <= 9,
        (T::Decimal { precision, scale: 0 }, T::Int64) => *precision <= 18,
        _ => false,
    };
    if fits { Verdict::Lossless } else { Verdict::Lossy }
}

fn cast_struct(from: &[(String, DataType)], to: &[(String, DataType)]) -> Verdict {
    to.iter()
        .map(|(name, to)| match from.iter().find(|(known, _)| known == name) {
            Some((_, from)) => from.cast_to(to),
            None => Verdict::Impossible,
        })
        .max()
        .unwrap_or(Verdict::Impossible)
        .max(if from.len() > to.len() { Verdict::Lossy } else { Verdict::Lossless })
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::String { length: None } => f.write_str("string"),
            Self::String { length: Some(length) } => write!(f, "string({length})"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::Uuid => f.write_str("uuid"),
            Self::Json => f.write_str("json"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (index, (name, data_type)) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    // Field names are free text: quoted as JSON where they are not plain.
                    if is_plain_field(name) {
                        write!(f, "{comma}{name}:{data_type}")?;
                    } else {
                        write!(f, "{comma}{}:{data_type}", serde_json::Value::from(name.as_str()))?;
                    }
                }
                f.write_str(">")
            }
        }
    }
}

fn is_plain_field(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl FromStr for DataType {
    type Err = InvalidType;

    fn from_str(text: &str) -> Result<Self, InvalidType> {
        let mut rest = text.trim();
        let parsed = parse_type(&mut rest, 0);
        parsed.filter(|_| rest.is_empty()).ok_or_else(|| InvalidType(text.into()))
    }
}

fn parse_type(rest: &mut &str, depth: usize) -> Option<DataType> {
    if depth > NESTING_DEPTH_MAX {
        return None;
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (word, tail) = rest.split_at(end);
    *rest = tail;
    Some(match word {
        "boolean" | "bool" => DataType::Boolean,
        "int16" => DataType::Int16,
        "int32" | "int" => DataType::Int32,
        "int64" => DataType::Int64,
        "float32" => DataType::Float32,
        "float64" | "float" => DataType::Float64,
        "binary" => DataType::Binary,
        "date" => DataType::Date,
        "time" => DataType::Time,
        "timestamp" => DataType::Timestamp,
        "timestamptz" => DataType::TimestampTz,
        "uuid" => DataType::Uuid,
        "json" => DataType::Json,
        "string" => match parse_numbers(rest) {
            Some(numbers) => match numbers[..] {
                [length] if length > 0 => DataType::String { length: Some(length) },
                _ => return None,
            },
            None => DataType::TEXT,
        },
        "decimal" => match parse_numbers(rest)?[..] {
            [precision, scale] if scale <= precision && (1..=38).contains(&precision) => {
                DataType::Decimal { precision: u8::try_from(precision).ok()?, scale: u8::try_from(scale).ok()? }
            }
            _ => return None,
        },
        "list" => {
            eat(rest, '<')?;
            let item = parse_type(rest, depth + 1)?;
            eat(rest, '>')?;
            DataType::List(Box::new(item))
        }
        "struct" => {
            eat(rest, '<')?;
            let mut fields = Vec::new();
            loop {
                let name = parse_field_name(rest)?;
                eat(rest, ':')?;
                fields.push((name, parse_type(rest, depth + 1)?));
                if eat(rest, ',').is_none() {
                    break;
                }
            }
            eat(rest, '>')?;
            DataType::Struct(fields)
        }
        _ => return None,
    })
}

fn eat(rest: &mut &str, wanted: char) -> Option<()> {
    *rest = rest.trim_start().strip_prefix(wanted)?;
    Some(())
}

fn parse_numbers(rest: &mut &str) -> Option<Vec<u32>> {
    let (inside, tail) = rest.strip_prefix('(')?.split_once(')')?;
    let numbers = inside.split(',').map(|part| part.trim().parse().ok()).collect::<Option<Vec<u32>>>()?;
    *rest = tail;
    Some(numbers)
}

fn parse_field_name(rest: &mut &str) -> Option<String> {
    let text = rest.trim_start();
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = values.next()?.ok()?;
        *rest = &text[values.byte_offset()..];
        return Some(name);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, tail) = text.split_at(end);
    *rest = tail;
    (!name.is_empty()).then(|| name.into())
}

impl TryFrom<String> for DataType {
    type Error = InvalidType;

    fn try_from(text: String) -> Result<Self, InvalidType> {
        text.parse()
    }
}

impl From<DataType> for String {
    fn from(data_type: DataType) -> Self {
        data_type.to_string()
    }
}

impl schemars::JsonSchema for DataType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DataType".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "boolean, int16, int32, int64, float32, float64, decimal(p,s), string, string(n), binary, date, time, timestamp, timestamptz, uuid, json, list<T> or struct<name:T,…>",
            "examples": ["decimal(10,2)"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DataType, Verdict};

    #[track_caller]
    fn check(from: &str, to: &str, wanted: Verdict) {
        let (from, to): (DataType, DataType) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(from.cast_to(&to), wanted, "{from} → {to}");
    }

    #[test]
    fn casts_are_judged_by_what_every_value_does() {
        check("int32", "int32", Verdict::Exact);
        check("int32", "int64", Verdict::Lossless);
        check("int64", "int32", Verdict::Lossy);
        check("int64", "decimal(19,0)", Verdict::Lossless);
        check("int64", "decimal(20,2)", Verdict::Lossy);
        check("int64", "float64", Verdict::Lossy);
        check("int32", "float64", Verdict::Lossless);
        check("decimal(9,0)", "int32", Verdict::Lossless);
        check("decimal(10,2)", "decimal(12,2)", Verdict::Lossless);
        check("decimal(10,2)", "decimal(10,3)", Verdict::Lossy);
        check("string", "decimal(10,2)", Verdict::Lossy);
        check("string(3)", "string(5)", Verdict::Lossless);
        check("string", "string(5)", Verdict::Lossy);
        check("date", "string(10)", Verdict::Lossless);
        check("timestamp", "string(10)", Verdict::Lossy);
        check("date", "timestamp", Verdict::Lossless);
        check("timestamp", "date", Verdict::Lossy);
        check("boolean", "date", Verdict::Impossible);
        check("binary", "string", Verdict::Impossible);
        check("uuid", "string", Verdict::Lossless);
        check("list<int32>", "list<int64>", Verdict::Lossless);
        check("list<int32>", "json", Verdict::Lossless);
        check("struct<a:int32,b:string>", "struct<a:int64>", Verdict::Lossy);
        check("struct<a:int32>", "struct<b:int32>", Verdict::Impossible);
    }

    #[test]
    fn types_print_as_they_parse() {
        for text in ["decimal(38,10)", "string(7)", "list<struct<a:int32,\"b c\":list<string>>>", "json"] {
            assert_eq!(text.parse::<DataType>().unwrap().to_string(), text);
        }
        for bad in ["", "decimal", "decimal(39,1)", "decimal(2,3)", "string(0)", "list<int32", "int32 ", "int32x"] {
            let parsed = bad.trim_end().parse::<DataType>();
            assert!(parsed.is_err() || bad == "int32 ", "{bad:?}");
        }
        assert!("list<".repeat(50_000).parse::<DataType>().is_err());
    }

    #[test]
    fn a_common_type_holds_both() {
        let common = |a: &str, b: &str| {
            a.parse::<DataType>().unwrap().common_with(&b.parse().unwrap()).map(|found| found.to_string())
        };
        assert_eq!(common("int32", "decimal(10,2)").as_deref(), Some("decimal(12,2)"));
        assert_eq!(common("int32", "int64").as_deref(), Some("int64"));
        assert_eq!(common("date", "boolean"), None);
    }
}
