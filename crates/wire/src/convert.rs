//! Conversions between [`proto`](crate::proto) and the model, in both directions.
//!
//! To protobuf is `From<&model>` and cannot fail; to the model is `TryFrom<proto>` and checks everything. Each file
//! follows one file of `/proto`, but for `ask`, which is a part of `ledger.proto`.

mod ask;
mod common;
mod ledger;
mod negotiation;
mod request;
mod task;

use std::collections::BTreeMap;

use dagwright_model::{canonical, id::Name};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Error;

/// Reads an enum field, whose type in generated code is `i32`.
trait FromWire: Sized {
    /// Refuses 0 ("not said") and every number this version does not know.
    fn from_wire(value: i32, field: &'static str) -> Result<Self, Error>;
}

/// Pairs each variant of a model enum with its protobuf value.
macro_rules! enum_pairs {
    ($model:ty, $proto:ty { $($variant:ident),* $(,)? }) => {
        impl From<$model> for $proto {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$variant => Self::$variant),* }
            }
        }

        impl crate::convert::FromWire for $model {
            fn from_wire(value: i32, field: &'static str) -> Result<Self, crate::Error> {
                match <$proto>::try_from(value) {
                    $(Ok(<$proto>::$variant) => Ok(Self::$variant),)*
                    Ok(<$proto>::Unspecified) => Err(crate::Error::Missing { field }),
                    Err(_) => Err(crate::Error::UnknownValue { field, value }),
                }
            }
        }
    };
}
use enum_pairs;

fn required<T>(value: Option<T>, field: &'static str) -> Result<T, Error> {
    value.ok_or(Error::Missing { field })
}

fn name(text: String, field: &'static str) -> Result<Name, Error> {
    Name::new(text).map_err(|_| Error::Invalid { field, wanted: "a name matching ^[a-z][a-z0-9_]{0,127}$" })
}

/// Refuses the empty text that an absent protobuf field reads as.
fn text(value: String, field: &'static str) -> Result<String, Error> {
    if value.is_empty() { Err(Error::Missing { field }) } else { Ok(value) }
}

fn sha256(value: String, field: &'static str) -> Result<String, Error> {
    let hexadecimal = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if value.len() == 64 && hexadecimal {
        Ok(value)
    } else {
        Err(Error::Invalid { field, wanted: "a SHA-256 in lower-case hexadecimal" })
    }
}

fn all<T, U: TryFrom<T, Error = Error>>(values: Vec<T>) -> Result<Vec<U>, Error> {
    values.into_iter().map(U::try_from).collect()
}

fn each<'a, T, U: From<&'a T>>(values: &'a [T]) -> Vec<U> {
    values.iter().map(U::from).collect()
}

fn optional<T, U: TryFrom<T, Error = Error>>(value: Option<T>) -> Result<Option<U>, Error> {
    value.map(U::try_from).transpose()
}

fn from_json<T: DeserializeOwned>(bytes: &[u8], field: &'static str) -> Result<T, Error> {
    if bytes.is_empty() {
        return Err(Error::Missing { field });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::Json { field, line: error.line(), column: error.column() })
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    canonical::to_bytes(value)
}

/// Renders a map of values, each as JSON text.
fn values_to_wire<K: ToString>(values: &BTreeMap<K, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| String::from_utf8(canonical::to_bytes(value)).unwrap_or_default();
    values.iter().map(|(key, value)| (key.to_string(), text(value))).collect()
}

fn values_from_wire(values: BTreeMap<String, String>, field: &'static str) -> Result<BTreeMap<String, Value>, Error> {
    values.into_iter().map(|(key, text)| Ok((key, from_json(text.as_bytes(), field)?))).collect()
}

fn by_name<T, U>(
    values: BTreeMap<String, T>,
    field: &'static str,
    mut convert: impl FnMut(T) -> Result<U, Error>,
) -> Result<BTreeMap<Name, U>, Error> {
    values.into_iter().map(|(key, value)| Ok((name(key, field)?, convert(value)?))).collect()
}
