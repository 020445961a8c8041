//! Every example of the project parses, and is valid by an independent validator of the JSON Schema.

use std::{fs, path::Path};

use super::{json, validator};
use crate::spec::Spec;

#[test]
fn every_example_parses_and_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let validator = validator();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the examples are there") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a readable example");
        if let Err(diagnostics) = Spec::parse(&text) {
            panic!("{}:\n{diagnostics}", path.display());
        }
        let faults: Vec<_> = validator.iter_errors(&json(&text)).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 4, "only {count} examples in {}", folder.display());
}

#[test]
fn the_schema_is_closed_and_described() {
    let schema = Spec::json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "Dagwright pipeline");
    let definitions = schema["$defs"].as_object().expect("definitions");
    for (name, definition) in definitions.iter().chain([(&"the document".to_owned(), &schema)]) {
        let Some(properties) = definition["properties"].as_object() else { continue };
        assert_eq!(definition["additionalProperties"], false, "{name} is open");
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
        }
    }
}

/// The structural check reads patterns with `regex-lite`, which knows less than other engines.
#[test]
fn every_pattern_is_one() {
    fn patterns(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                found.extend(map.get("pattern").and_then(|pattern| pattern.as_str()).map(String::from));
                found.extend(map.get("patternProperties").and_then(|map| map.as_object()?.keys().next().cloned()));
                map.values().for_each(|inner| patterns(inner, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|inner| patterns(inner, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    patterns(&Spec::json_schema(), &mut found);
    assert!(found.len() > 4);
    for pattern in found {
        assert!(regex_lite::Regex::new(&pattern).is_ok(), "{pattern}");
    }
}
