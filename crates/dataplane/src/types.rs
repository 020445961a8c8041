//! The model's types in Arrow, and back.
//!
//! Timestamps are microseconds; instants carry the zone `UTC`. UUIDs travel as 16 fixed bytes, JSON as text; both
//! carry their meaning in the field's metadata, so that a round trip through staging keeps them.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType as Arrow, Field, Schema, SchemaRef, TimeUnit};
use dagwright_model::schema::{Column, DataType};

/// The metadata key under which a field says which model type it has where Arrow has none of its own.
pub const LOGICAL_TYPE: &str = "dagwright.type";

/// Returns the Arrow schema of columns.
#[must_use]
pub fn arrow_schema(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(arrow_field).collect::<Vec<_>>()))
}

/// Returns the Arrow field of a column.
#[must_use]
pub fn arrow_field(column: &Column) -> Field {
    let field = Field::new(&column.name, arrow_type(&column.data_type), column.nullable);
    match &column.data_type {
        logical @ (DataType::Uuid | DataType::Json | DataType::String { length: Some(_) }) => {
            field.with_metadata(HashMap::from([(LOGICAL_TYPE.into(), logical.to_string())]))
        }
        _ => field,
    }
}

/// Returns the Arrow type of a model type.
#[must_use]
pub fn arrow_type(data_type: &DataType) -> Arrow {
    match data_type {
        DataType::Boolean => Arrow::Boolean,
        DataType::Int16 => Arrow::Int16,
        DataType::Int32 => Arrow::Int32,
        DataType::Int64 => Arrow::Int64,
        DataType::Float32 => Arrow::Float32,
        DataType::Float64 => Arrow::Float64,
        DataType::Decimal { precision, scale } => Arrow::Decimal128(*precision, scale.cast_signed()),
        DataType::String { .. } | DataType::Json => Arrow::Utf8,
        DataType::Binary => Arrow::Binary,
        DataType::Date => Arrow::Date32,
        DataType::Time => Arrow::Time64(TimeUnit::Microsecond),
        DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, None),
        DataType::TimestampTz => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Uuid => Arrow::FixedSizeBinary(16),
        DataType::List(item) => Arrow::List(Arc::new(Field::new_list_field(arrow_type(item), true))),
        DataType::Struct(fields) => {
            Arrow::Struct(fields.iter().map(|(name, item)| Field::new(name, arrow_type(item), true)).collect())
        }
    }
}

/// Returns the columns of an Arrow schema; `None` names the first field whose type the model does not know.
///
/// # Errors
/// The name of that field.
pub fn model_columns(schema: &Schema) -> Result<Vec<Column>, String> {
    schema.fields().iter().map(|field| model_column(field).ok_or_else(|| field.name().clone())).collect()
}

/// Returns the column of an Arrow field, if the model knows its type.
#[must_use]
pub fn model_column(field: &Field) -> Option<Column> {
    // An expression may have carried the metadata onto a field of another type: then it says nothing.
    let logical = field.metadata().get(LOGICAL_TYPE).and_then(|text| text.parse().ok());
    let logical = logical.filter(|logical| arrow_type(logical) == *field.data_type());
    let data_type = match logical {
        Some(logical) => logical,
        None => model_type(field.data_type())?,
    };
    Some(Column { name: field.name().clone(), data_type, nullable: field.is_nullable() })
}

/// Returns the narrowest model type that holds every value of an Arrow type, if there is one.
#[must_use]
pub fn model_type(arrow: &Arrow) -> Option<DataType> {
    Some(match arrow {
        Arrow::Boolean => DataType::Boolean,
        Arrow::Int8 | Arrow::UInt8 | Arrow::Int16 => DataType::Int16,
        Arrow::UInt16 | Arrow::Int32 => DataType::Int32,
        Arrow::UInt32 | Arrow::Int64 => DataType::Int64,
        Arrow::UInt64 => DataType::Decimal { precision: 20, scale: 0 },
        Arrow::Float16 | Arrow::Float32 => DataType::Float32,
        Arrow::Float64 => DataType::Float64,
        Arrow::Decimal32(precision, scale)
        | Arrow::Decimal64(precision, scale)
        | Arrow::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).ok()?;
            (scale <= *precision).then_some(DataType::Decimal { precision: *precision, scale })?
        }
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => DataType::TEXT,
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Binary,
        Arrow::Date32 | Arrow::Date64 => DataType::Date,
        Arrow::Time32(_) | Arrow::Time64(_) => DataType::Time,
        Arrow::Timestamp(_, None) => DataType::Timestamp,
        Arrow::Timestamp(_, Some(_)) => DataType::TimestampTz,
        Arrow::Dictionary(_, value) => model_type(value)?,
        Arrow::List(item) | Arrow::LargeList(item) | Arrow::FixedSizeList(item, _) => {
            DataType::List(Box::new(model_type(item.data_type())?))
        }
        Arrow::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|field| Some((field.name().clone(), model_type(field.data_type())?)))
                .collect::<Option<_>>()?,
        ),
        Arrow::Null => DataType::TEXT,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use dagwright_model::schema::Column;

    use super::{arrow_field, model_column};

    #[test]
    fn every_model_type_survives_arrow() {
        for text in [
            "boolean",
            "int16",
            "int32",
            "int64",
            "float32",
            "float64",
            "decimal(12,2)",
            "string",
            "string(3)",
            "binary",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "uuid",
            "json",
            "list<int64>",
            "struct<a:date,b:list<string>>",
        ] {
            let column = Column { name: "c".into(), data_type: text.parse().unwrap(), nullable: true };
            assert_eq!(model_column(&arrow_field(&column)), Some(column), "{text}");
        }
    }
}
