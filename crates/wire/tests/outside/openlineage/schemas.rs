//! Holds events to OpenLineage's published schemas, by a validator that shares nothing with Dagwright.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jsonschema::Registry;
use serde_json::{Value, json};

/// Where the schemas are, from the root of the repository.
const SCHEMAS: &str = "tests/data/openlineage";

/// Panics unless an event and each of its facets are what their schemas demand.
#[track_caller]
pub(crate) fn conforms(event: &Value) {
    let schemas = schemas();
    let registry = schemas
        .iter()
        .fold(Registry::new(), |registry, (id, schema)| registry.add(id.as_str(), schema.clone()).expect("a schema"));
    let registry = registry.prepare().expect("schemas that know each other");
    let fit = |reference: &str, value: &Value| {
        let options = jsonschema::options().should_validate_formats(true).with_registry(&registry);
        let validator = options.build(&json!({ "$ref": reference })).unwrap_or_else(|error| panic!("{error}"));
        let faults: Vec<_> = validator.iter_errors(value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{reference}: {faults:?}: {value}");
    };
    fit(event["schemaURL"].as_str().expect("a schema"), event);
    let mut facets = Vec::new();
    collect(event, &mut facets);
    assert!(facets.len() > 1, "{event}");
    for (key, facet) in facets {
        let reference = facet["_schemaURL"].as_str().expect("a schema");
        fit(reference, facet);
        // The document says under which key its facet stands.
        let (document, _) = reference.split_once('#').expect("a part of a document");
        let keys = schemas[document]["properties"].as_object().expect("keys");
        assert_eq!(keys.keys().collect::<Vec<_>>(), [key]);
    }
}

fn collect<'a>(value: &'a Value, into: &mut Vec<(&'a String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if value.get("_schemaURL").is_some() {
                    into.push((key, value));
                }
                collect(value, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}

/// Returns the published schemas by their ids.
fn schemas() -> BTreeMap<String, Value> {
    let mut roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let data = roots.find_map(|root| Some(root.join(SCHEMAS)).filter(|folder| folder.exists())).expect(SCHEMAS);
    let facets = fs::read_dir(data.join("facets")).expect("facets").map(|entry| entry.expect("a file").path());
    let read =
        |path: PathBuf| -> Value { serde_json::from_str(&fs::read_to_string(&path).expect("a schema")).expect("JSON") };
    let schemas = facets.chain([data.join("OpenLineage.json")]).map(read);
    schemas.map(|schema| (schema["$id"].as_str().expect("an id").to_owned(), schema)).collect()
}
