//! The JSON Schema.
pub(super) fn json_schema() -> serde_json::Value {
    unimplemented!()
}
