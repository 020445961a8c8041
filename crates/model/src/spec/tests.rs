//! Tests of the whole way from text to spec.

mod diagnostics;
mod examples;
mod normal_form;
mod properties;
mod reference;

use std::sync::OnceLock;

use super::{de::from_node, report::Report, tree};

/// Reads YAML as JSON.
fn json(text: &str) -> serde_json::Value {
    let mut report = Report::default();
    let node = tree::read(text, &mut report).expect("readable YAML");
    assert_eq!(report.finish(), Vec::new());
    from_node(&node).expect("any tree is a JSON value")
}

/// Returns an independent validator of the spec's JSON Schema.
fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| jsonschema::draft202012::new(&super::Spec::json_schema()).expect("the schema is valid"))
}
