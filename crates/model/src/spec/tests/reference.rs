//! The tables of `docs/spec.md` are generated from the JSON Schema; this keeps them so.
//!
//! `DAGWRIGHT_BLESS=1 cargo test -p dagwright-model reference` writes them anew.

use std::{env, fmt::Write, fs, path::Path};

use serde_json::Value;

use crate::spec::Spec;

const START: &str = "<!-- generated from the JSON Schema by a test of crates/model; do not edit below -->\n";

/// The sections in reading order: definition, heading.
const SECTIONS: [(&str, &str); 18] = [
    ("", "The document"),
    ("Param", "`params.<name>`"),
    ("Source", "`source`, `sources.<name>`"),
    ("CsvOptions", "`csv` of a source"),
    ("Incremental", "`incremental` of a source"),
    ("Classified", "`columns.<name>` of a source"),
    ("Step", "`transform[]`"),
    ("Sink", "`sink`, `sinks.<name>`"),
    ("Dedupe", "`dedupe` of a sink"),
    ("WriteOptions", "`write` of a sink"),
    ("Gate", "`quality[]`"),
    ("Schedule", "`schedule`"),
    ("ScheduleParts", "`schedule`, in parts"),
    ("Goals", "`goals`"),
    ("Policy", "`policy`"),
    ("Retries", "`retries`"),
    ("Airflow", "`airflow`"),
    ("Alerts", "`alerts`"),
];

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec.md");
    let text = fs::read_to_string(&path).expect("docs/spec.md is there");
    let (prose, _) = text.split_once(START).expect("the marker is there");
    let wanted = format!("{prose}{START}{}", tables());
    if env::var_os("DAGWRIGHT_BLESS").is_some() {
        fs::write(&path, &wanted).expect("docs/spec.md is writable");
    }
    let current = fs::read_to_string(&path).expect("docs/spec.md is there") == wanted;
    assert!(current, "docs/spec.md is stale: DAGWRIGHT_BLESS=1 cargo test -p dagwright-model reference");
}

fn tables() -> String {
    let schema = Spec::json_schema();
    let definitions = schema["$defs"].as_object().expect("definitions");
    for (name, definition) in definitions {
        let has_section = SECTIONS.iter().any(|(section, _)| section == name);
        assert!(!definition["properties"].is_object() || has_section, "{name} has no section");
    }
    let mut out = String::new();
    for (name, heading) in SECTIONS {
        let definition = if name.is_empty() { &schema } else { &definitions[name] };
        let about = definition["description"].as_str().unwrap_or_default();
        write!(out, "\n## {heading}\n\n{about}\n").unwrap();
        let Some(properties) = definition["properties"].as_object() else { continue };
        let required: Vec<_> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        out.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
        let (first, rest): (Vec<_>, Vec<_>) = properties.iter().partition(|(key, _)| required.contains(&key.as_str()));
        for (key, property) in first.into_iter().chain(rest) {
            let default = match &property["default"] {
                _ if required.contains(&key.as_str()) => "**required**".into(),
                Value::String(_) | Value::Number(_) | Value::Bool(_) => format!("`{}`", plain(&property["default"])),
                _ => "–".into(),
            };
            let about = property["description"].as_str().unwrap_or_default();
            writeln!(out, "| `{key}` | {} | {default} | {} |", value(property, definitions), cell(about)).unwrap();
        }
    }
    out.push_str("\n## Words\n\n| where | word | meaning |\n|---|---|---|\n");
    for (name, definition) in definitions {
        for word in definition["oneOf"].as_array().into_iter().flatten() {
            let about = word["description"].as_str().unwrap_or_default();
            writeln!(out, "| {} | `{}` | {} |", words(name), plain(&word["const"]), cell(about)).unwrap();
        }
    }
    out
}

/// Says what a value looks like.
fn value(schema: &Value, definitions: &serde_json::Map<String, Value>) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|uri| uri.strip_prefix("#/$defs/")) {
        return match name {
            "Name" => "name".into(),
            "ByteSize" => "size, such as `512MiB`".into(),
            "Span" => "time span, such as `30m`".into(),
            "Ratio" => "share, such as `1%`".into(),
            "DataType" => "[type](#values)".into(),
            "LagText" => "time span or whole number".into(),
            _ if definitions[name]["oneOf"].is_array() => {
                let words = definitions[name]["oneOf"].as_array().into_iter().flatten();
                words.map(|word| format!("`{}`", plain(&word["const"]))).collect::<Vec<_>>().join(", ")
            }
            _ => match SECTIONS.iter().find(|(section, _)| *section == name) {
                Some((_, heading)) => format!("[map](#{})", anchor(heading)),
                None => name.into(),
            },
        };
    }
    if let Some(branches) = schema["anyOf"].as_array() {
        let given = branches.iter().filter(|branch| branch["type"] != "null");
        return given.map(|branch| value(branch, definitions)).collect::<Vec<_>>().join(" or ");
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect(),
        one => one.as_str().into_iter().collect(),
    };
    match types.first() {
        Some(&"string") if schema["maxLength"] == 1 => "one character".into(),
        Some(&"string") => "text".into(),
        Some(&"integer") => "whole number".into(),
        Some(&"boolean") => "`true`, `false`".into(),
        Some(&"array") => match value(&schema["items"], definitions) {
            items if items == "any value" => "list of values".into(),
            items => format!("list of {}", items.replace("[map]", "[maps]")),
        },
        Some(&"object") => {
            let inner = schema["patternProperties"].as_object().and_then(|map| map.values().next());
            match inner.unwrap_or(&schema["additionalProperties"]) {
                Value::Object(inner) => {
                    format!("{} by name", value(&Value::Object(inner.clone()), definitions).replace("[map]", "[maps]"))
                }
                _ => "map".into(),
            }
        }
        _ => "any value".into(),
    }
}

/// Says where the words of a definition are used.
fn words(name: &str) -> &'static str {
    match name {
        "Approval" => "`policy.approval`",
        "Compression" => "`write.compression`",
        "Encoding" => "`csv.encoding`",
        "FileFormat" => "`format`",
        "LossyCast" => "`policy.lossy_cast`",
        "Mask" => "`mask`",
        "Objective" => "`goals.optimize`",
        "OnFail" => "`on_fail`",
        "OnMissing" => "`on_missing`",
        "ParamType" => "`params.<name>.type`",
        "Ragged" => "`csv.ragged`",
        "SchemaChange" => "`policy.schema_change`",
        "SinkMode" => "`mode`",
        other => panic!("{other} has no place in the table of words"),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The anchor that a heading gets where Markdown is rendered.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}
