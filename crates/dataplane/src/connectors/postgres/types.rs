//! PostgreSQL's types: what they mean, and how their values travel in a binary `COPY`.
//!
//! | PostgreSQL | model | created as |
//! |---|---|---|
//! | `boolean`, `smallint`, `integer`, `bigint`, `real`, `double precision` | the same | the same |
//! | `numeric(p,s)` to 38 digits | `decimal(p,s)` | the same |
//! | `numeric` | by its values when read, `decimal(38,10)` when written | – |
//! | `text`, `varchar(n)`, `char(n)`, `name`, enums | `string`, `string(n)` | `text`, `varchar(n)` |
//! | `bytea`, `date`, `time`, `timestamp`, `timestamptz`, `uuid` | the same | the same |
//! | `json`, `jsonb` | `json` | `jsonb` |
//! | `oid` | `int64` | – |
//! | arrays of these | `list<T>` | `T[]` |
//! | – | `struct<…>`, lists of lists or structs | `jsonb` |
//! | everything else | `string`, by the server's own cast | – |

use arrow::datatypes::{DataType as Arrow, TimeUnit};
use dagwright_model::schema::{DECIMAL_PRECISION_MAX, DataType};
use postgres_types::{Kind, Oid, Type};

use crate::types::arrow_type;

/// The scale of a `numeric` without one, where its values do not tell.
pub(crate) const LOOSE_SCALE: u8 = 10;

/// The longest `varchar(n)` that PostgreSQL takes.
const VARCHAR_LENGTH_MAX: u32 = 10_485_760;

/// How a value travels in a binary `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With this precision and scale in Arrow; `strip` drops zeros at the end when written.
    Numeric {
        precision: u8,
        scale: u8,
        strip: bool,
    },
    Text,
    Bytea,
    Date,
    Time,
    /// With or without a zone: microseconds either way.
    Timestamp {
        zone: bool,
    },
    Uuid,
    Jsonb,
    List {
        item: Box<Wire>,
        oid: Oid,
    },
}

/// A type of PostgreSQL, as far as this connector knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Native {
    /// How its values travel.
    pub wire: Wire,
    /// What they mean.
    pub data_type: DataType,
    /// What the server must cast them to first when they are read, if they cannot travel as they are.
    pub cast: Option<&'static str>,
    /// Whether it is a `numeric` without precision, whose values decide.
    pub loose: bool,
}

// === impl Native ===

impl Native {
    /// Interprets a type and its modifier; domains are resolved by the server already.
    pub(crate) fn of(pg: &Type, modifier: i32) -> Self {
        let plain = |wire, data_type| Self { wire, data_type, cast: None, loose: false };
        let text = |length| plain(Wire::Text, DataType::String { length });
        let as_text = Self { wire: Wire::Text, data_type: DataType::TEXT, cast: Some("text"), loose: false };
        match *pg {
            Type::BOOL => plain(Wire::Bool, DataType::Boolean),
            Type::INT2 => plain(Wire::Int2, DataType::Int16),
            Type::INT4 => plain(Wire::Int4, DataType::Int32),
            Type::INT8 => plain(Wire::Int8, DataType::Int64),
            Type::OID => Self { cast: Some("int8"), ..plain(Wire::Int8, DataType::Int64) },
            Type::FLOAT4 => plain(Wire::Float4, DataType::Float32),
            Type::FLOAT8 => plain(Wire::Float8, DataType::Float64),
            Type::NUMERIC => match numeric_digits(modifier) {
                Some((precision, scale)) => {
                    plain(Wire::Numeric { precision, scale, strip: false }, DataType::Decimal { precision, scale })
                }
                None if modifier >= 0 => as_text,
                None => Self { loose: true, ..numeric(DECIMAL_PRECISION_MAX, LOOSE_SCALE) },
            },
            Type::TEXT | Type::NAME => text(None),
            Type::VARCHAR | Type::BPCHAR => text(u32::try_from(modifier - 4).ok().filter(|length| *length > 0)),
            Type::BYTEA => plain(Wire::Bytea, DataType::Binary),
            Type::DATE => plain(Wire::Date, DataType::Date),
            Type::TIME => plain(Wire::Time, DataType::Time),
            Type::TIMESTAMP => plain(Wire::Timestamp { zone: false }, DataType::Timestamp),
            Type::TIMESTAMPTZ => plain(Wire::Timestamp { zone: true }, DataType::TimestampTz),
            Type::UUID => plain(Wire::Uuid, DataType::Uuid),
            Type::JSON => plain(Wire::Text, DataType::Json),
            Type::JSONB => plain(Wire::Jsonb, DataType::Json),
            _ => match pg.kind() {
                Kind::Enum(_) => text(None),
                Kind::Array(item) => match Self::of(item, modifier) {
                    Self { wire, data_type, cast: None, loose } => Self {
                        wire: Wire::List { item: Box::new(wire), oid: item.oid() },
                        data_type: DataType::List(Box::new(data_type)),
                        cast: None,
                        loose,
                    },
                    Self { cast: Some("int8"), .. } => as_text,
                    Self { .. } => Self {
                        wire: Wire::List { item: Box::new(Wire::Text), oid: Type::TEXT.oid() },
                        data_type: DataType::List(Box::new(DataType::TEXT)),
                        cast: Some("text[]"),
                        loose: false,
                    },
                },
                _ => as_text,
            },
        }
    }

    /// Returns how to read values as another type, exactly or by a cast on this side.
    pub(crate) fn read_as(&self, wanted: &DataType) -> Self {
        let text = || Self { wire: Wire::Text, data_type: DataType::TEXT, cast: Some("text"), loose: false };
        match wanted {
            _ if *wanted == self.data_type && !self.loose => self.clone(),
            DataType::Decimal { precision, scale } if self.loose => numeric(*precision, *scale),
            DataType::List(item) if self.loose => match (&self.wire, &**item) {
                (Wire::List { oid, .. }, DataType::Decimal { precision, scale }) => Self {
                    wire: Wire::List { item: Box::new(numeric(*precision, *scale).wire), oid: *oid },
                    data_type: wanted.clone(),
                    cast: None,
                    loose: false,
                },
                _ => self.clone(),
            },
            // The server's own text, so that nothing is rounded on the way; text stays as it is.
            DataType::String { .. } if self.wire != Wire::Text => text(),
            _ => self.clone(),
        }
    }
}

// === impl Wire ===

impl Wire {
    /// Returns the Arrow type that is read into and written from.
    pub(crate) fn arrow(&self) -> Arrow {
        match self {
            Self::Bool => Arrow::Boolean,
            Self::Int2 => Arrow::Int16,
            Self::Int4 => Arrow::Int32,
            Self::Int8 => Arrow::Int64,
            Self::Float4 => Arrow::Float32,
            Self::Float8 => Arrow::Float64,
            Self::Numeric { precision, scale, .. } => Arrow::Decimal128(*precision, scale.cast_signed()),
            Self::Text | Self::Jsonb => Arrow::Utf8,
            Self::Bytea => Arrow::Binary,
            Self::Date => Arrow::Date32,
            Self::Time => Arrow::Time64(TimeUnit::Microsecond),
            Self::Timestamp { zone: false } => arrow_type(&DataType::Timestamp),
            Self::Timestamp { zone: true } => arrow_type(&DataType::TimestampTz),
            Self::Uuid => Arrow::FixedSizeBinary(16),
            Self::List { item, .. } => {
                Arrow::List(std::sync::Arc::new(arrow::datatypes::Field::new_list_field(item.arrow(), true)))
            }
        }
    }
}

/// Returns the type to create a column with.
pub(crate) fn type_sql(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int16 => "smallint".into(),
        DataType::Int32 => "integer".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        DataType::String { length: Some(length) } if *length <= VARCHAR_LENGTH_MAX => format!("varchar({length})"),
        DataType::String { .. } => "text".into(),
        DataType::Binary => "bytea".into(),
        DataType::Date => "date".into(),
        DataType::Time => "time".into(),
        DataType::Timestamp => "timestamp".into(),
        DataType::TimestampTz => "timestamptz".into(),
        DataType::Uuid => "uuid".into(),
        DataType::Json | DataType::Struct(_) => "jsonb".into(),
        DataType::List(item) => match &**item {
            DataType::List(_) | DataType::Struct(_) => "jsonb".into(),
            item => format!("{}[]", type_sql(item)),
        },
    }
}

/// Tells whether rows of a type can be written to a column of another without a loss that nobody agreed to.
pub(crate) fn fits(written: &DataType, column: &Native) -> bool {
    use dagwright_model::schema::Verdict;
    let nested = |data_type: &DataType| matches!(data_type, DataType::List(_) | DataType::Struct(_));
    written.cast_to(&column.data_type) <= Verdict::Lossless
        || (column.data_type == DataType::Json && nested(written))
        // Without precision every decimal fits; of arrays of them likewise.
        || (column.loose && (is_exact(written) || nested(written)))
}

fn is_exact(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal { .. })
}

fn numeric(precision: u8, scale: u8) -> Native {
    Native {
        wire: Wire::Numeric { precision, scale, strip: true },
        data_type: DataType::Decimal { precision, scale },
        cast: None,
        loose: false,
    }
}

/// Precision and scale of `numeric(p,s)`, if 38 digits hold every value; a scale may be negative or above p.
fn numeric_digits(modifier: i32) -> Option<(u8, u8)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    let precision = (packed >> 16) & 0xffff;
    // Eleven bits with a sign.
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    let (precision, scale) = match scale {
        ..0 => (precision - scale, 0),
        _ => (precision.max(scale), scale),
    };
    let precision = u8::try_from(precision).ok().filter(|precision| (1..=DECIMAL_PRECISION_MAX).contains(precision))?;
    Some((precision, u8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use dagwright_model::schema::DataType;
    use postgres_types::Type;

    use super::{Native, fits, numeric_digits, type_sql};

    #[test]
    fn numerics_keep_their_digits() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(numeric_digits(modifier(15, 2)), Some((15, 2)));
        assert_eq!(numeric_digits(modifier(3, 5)), Some((5, 5)));
        assert_eq!(numeric_digits(modifier(3, -2)), Some((5, 0)));
        assert_eq!(numeric_digits(modifier(39, 0)), None);
        assert_eq!(numeric_digits(-1), None);
        assert!(Native::of(&Type::NUMERIC, -1).loose);
        assert_eq!(Native::of(&Type::NUMERIC, modifier(1000, 2)).cast, Some("text"));
    }

    #[test]
    fn lengths_are_kept() {
        assert_eq!(Native::of(&Type::VARCHAR, 7).data_type, DataType::String { length: Some(3) });
        assert_eq!(Native::of(&Type::VARCHAR, -1).data_type, DataType::TEXT);
        assert_eq!(Native::of(&Type::INT4_ARRAY, -1).data_type.to_string(), "list<int32>");
        assert_eq!(Native::of(&Type::INET_ARRAY, -1).cast, Some("text[]"));
        assert_eq!(Native::of(&Type::INTERVAL, -1).cast, Some("text"));
    }

    #[test]
    fn types_are_created_as_written() {
        for (model, sql) in [
            ("decimal(15,2)", "numeric(15,2)"),
            ("string(3)", "varchar(3)"),
            ("list<timestamptz>", "timestamptz[]"),
            ("list<list<int32>>", "jsonb"),
            ("struct<a:int32>", "jsonb"),
        ] {
            assert_eq!(type_sql(&model.parse().unwrap()), sql);
        }
    }

    #[test]
    fn narrower_columns_are_drift() {
        let fits = |written: &str, pg| fits(&written.parse().unwrap(), &Native::of(&pg, -1));
        assert!(
            fits("int32", Type::INT8) && fits("decimal(38,20)", Type::NUMERIC) && fits("struct<a:int32>", Type::JSONB)
        );
        assert!(!fits("int64", Type::INT4) && !fits("string", Type::INT4));
    }
}
