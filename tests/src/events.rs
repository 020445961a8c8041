//! Holds events to what `dagwright schema --events` says of them, by a validator that shares nothing with Dagwright.

use std::{collections::BTreeMap, process::Command, sync::OnceLock};

use jsonschema::Validator;
use serde_json::Value;

use crate::{Ended, bin_dir};

/// Panics unless an event's data is what the schema demands that its `dataschema` names, and nothing beside.
///
/// # Panics
/// As said, and when `dagwright` prints no schemas.
#[track_caller]
pub fn check(event: &Value) {
    static SCHEMAS: OnceLock<BTreeMap<String, (Value, Validator)>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(schemas);
    let name = event["dataschema"].as_str().unwrap_or_else(|| panic!("no dataschema: {event}"));
    let (schema, validator) = schemas.get(name).unwrap_or_else(|| panic!("no schema is named {name}: {event}"));
    let faults: Vec<_> = validator.iter_errors(&event["data"]).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}: {event}");
    for said in event["data"].as_object().expect("an object").keys() {
        assert!(schema["properties"].get(said).is_some(), "the schema does not know {said}: {event}");
    }
}

/// Returns the schema of each kind by its name.
fn schemas() -> BTreeMap<String, (Value, Validator)> {
    let printed = Command::new(bin_dir().join("dagwright")).args(["schema", "--events"]).output();
    let printed = Ended::from(printed.expect("dagwright starts"));
    let whole: Value = serde_json::from_str(&printed.expect(0).stdout).expect("JSON");
    jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"));
    let kinds = whole["$defs"].as_object().expect("schemas").values();
    let named = kinds.map(|schema| {
        let validator = jsonschema::draft202012::new(schema).unwrap_or_else(|error| panic!("{error}: {schema}"));
        (schema["$id"].as_str().expect("a name").to_owned(), (schema.clone(), validator))
    });
    named.collect()
}
