//! Canonical JSON and the content hash over it.
//!
//! Two values that mean the same give the same bytes: keys sorted, no white space, numbers as `serde_json` prints
//! them. Hashes identify plans, specs, facts and contracts, so times must not stand in what is hashed.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Renders `value` as canonical JSON.
///
/// # Panics
/// Never for this crate's types: they hold no non-string map keys and no failing serializers.
#[must_use]
pub fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    sorted(value).to_string().into_bytes()
}

/// Renders `value` as JSON with sorted keys and two-space indentation, for files people read.
///
/// # Panics
/// As [`to_bytes`].
#[must_use]
pub fn to_pretty(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(&sorted(value)).expect("a JSON value serializes");
    text.push('\n');
    text
}

/// Returns the SHA-256 of the canonical JSON of `value`, in lower-case hexadecimal.
#[must_use]
pub fn hash(value: &impl Serialize) -> String {
    hash_bytes(&to_bytes(value))
}

/// Returns the SHA-256 of `bytes`, in lower-case hexadecimal.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Sorts every object's keys, whether or not `serde_json` keeps insertion order in this build.
fn sorted(value: &impl Serialize) -> Value {
    fn sort(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sort(value))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(entries.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(sort).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
        }
    }
    sort(serde_json::to_value(value).expect("the model's types serialize"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn key_order_does_not_matter() {
        assert_eq!(super::to_bytes(&json!({"b": 1, "a": {"d": 2, "c": 3}})), br#"{"a":{"c":3,"d":2},"b":1}"#);
        assert_eq!(super::hash(&json!({"b": 1, "a": 2})), super::hash(&json!({"a": 2, "b": 1})));
    }
}
