//! The documents that other programs are written from say what the code does: `docs/asyncapi.yaml` and
//! `docs/protocol.md`.
//!
//! `DAGWRIGHT_BLESS=1 cargo test -p dagwright-wire --test outside documents` writes the generated parts anew.

use std::{collections::BTreeSet, env, fmt::Write, fs, path::PathBuf};

use dagwright_model::{
    event::EventKind,
    letter::Post,
    request::{Action, Request},
};
use dagwright_wire::{
    cloudevent::{self, Binding, CloudEvent},
    letter,
    request::{self, REQUESTED, Received},
};
use serde_json::{Value, json};

use crate::{samples, with, yaml};

const START: &str = "    # Generated from the code by a test of crates/wire; do not edit below.\n";

fn document(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../docs", name].iter().collect()
}

fn text(name: &str) -> String {
    fs::read_to_string(document(name)).unwrap_or_else(|error| panic!("docs/{name}: {error}"))
}

fn asyncapi() -> Value {
    yaml::read(&text("asyncapi.yaml"))
}

/// Reads a message as it would come from Kafka.
fn receive(headers: &[(&str, &str)], body: &[u8]) -> Result<Received, String> {
    with(Binding::Kafka, headers, body, request::decode).map_err(|error| format!("{} {error}", error.code()))
}

/// Reads an event in structured mode.
fn event(payload: &Value) -> CloudEvent {
    let headers = [("content-type", cloudevent::STRUCTURED_JSON)];
    let read = with(Binding::Kafka, &headers, payload.to_string().as_bytes(), cloudevent::decode);
    read.unwrap_or_else(|error| panic!("{error}: {payload}")).expect("a CloudEvent")
}

// === asyncapi.yaml ===

/// The schemas of whole events: the envelope, the type, and the data.
fn schemas() -> Vec<(String, Value)> {
    let whole = |kind: &str, mut data: Value, examples: Vec<Value>| {
        data.as_object_mut().expect("an object").remove("$schema");
        let mut schema = json!({
            "allOf": [{"$ref": "#/components/schemas/CloudEvent"}],
            "required": ["data"],
            "properties": {"type": {"const": kind}, "data": data},
        });
        if !examples.is_empty() {
            schema["examples"] = examples.into();
        }
        schema
    };
    let request = ("pipeline.requested".to_owned(), whole(REQUESTED, Request::json_schema(), Vec::new()));
    let events = EventKind::ALL.iter().map(|kind| {
        let of_kind = samples::every_form().into_iter().filter(|event| event.kind == *kind);
        let example = |event| serde_json::from_slice(&cloudevent::of_event(&event).to_structured()).expect("JSON");
        (kind.as_str().into(), whole(&kind.type_name(), kind.json_schema(), of_kind.map(example).collect()))
    });
    [request].into_iter().chain(events).chain(letters()).collect()
}

/// The schema of records of the agents topic; its parts are schemas of their own beside it.
fn letters() -> Vec<(String, Value)> {
    let mut post = Post::json_schema();
    let members = post.as_object_mut().expect("an object");
    members.remove("$schema");
    let Some(Value::Object(parts)) = members.remove("$defs") else { panic!("it has parts") };
    let parts = parts.into_iter().map(|(name, part)| (format!("agents.{name}"), part));
    let mut schemas: Vec<_> = [("agents.post".to_owned(), post)].into_iter().chain(parts).collect();
    schemas.iter_mut().for_each(|(_, schema)| move_references(schema));
    schemas
}

fn move_references(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/$defs/", "#/components/schemas/agents.");
            }
            map.values_mut().for_each(move_references);
        }
        Value::Array(items) => items.iter_mut().for_each(move_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_schemas_of_asyncapi_are_current() {
    let current = text("asyncapi.yaml");
    let (prose, _) = current.split_once(START).expect("the marker is there");
    let mut wanted = format!("{prose}{START}");
    for (name, schema) in schemas() {
        let schema = String::from_utf8(dagwright_model::canonical::to_pretty(&schema).into()).expect("UTF-8");
        writeln!(wanted, "    {name}:").expect("a text takes all");
        schema.lines().for_each(|line| writeln!(wanted, "      {line}").expect("a text takes all"));
    }
    if env::var_os("DAGWRIGHT_BLESS").is_some() {
        fs::write(document("asyncapi.yaml"), &wanted).expect("docs/asyncapi.yaml is writable");
    }
    assert!(
        text("asyncapi.yaml") == wanted,
        "docs/asyncapi.yaml is stale: DAGWRIGHT_BLESS=1 cargo test -p dagwright-wire --test outside documents"
    );
}

#[test]
fn asyncapi_knows_every_channel_event_and_action() {
    let document = asyncapi();
    assert_eq!(document["asyncapi"], "3.0.0");
    let channels = document["channels"].as_object().expect("channels");
    let addresses: Vec<_> =
        channels.iter().map(|(name, channel)| (name.as_str(), channel["address"].as_str())).collect();
    let wanted = [
        ("agents", "dagwright.agents.v1"),
        ("dlq", "dagwright.requests.dlq.v1"),
        ("events", "dagwright.events.v1"),
        ("ledger", "dagwright.ledger.v1"),
        ("requests", "dagwright.requests.v1"),
    ];
    assert_eq!(addresses, wanted.map(|(name, address)| (name, Some(address))));

    let messages = channels["events"]["messages"].as_object().expect("messages");
    let known: BTreeSet<_> = messages.keys().map(String::as_str).collect();
    assert_eq!(known, EventKind::ALL.iter().map(|kind| kind.as_str()).collect());
    for kind in EventKind::ALL {
        let message = &messages[kind.as_str()];
        assert_eq!(message["name"], kind.type_name());
        assert_eq!(message["payload"]["$ref"], format!("#/components/schemas/{}", kind.as_str()));
    }

    let examples = channels["requests"]["messages"]["request"]["examples"].as_array().expect("examples");
    let actions: BTreeSet<_> =
        examples.iter().filter_map(|example| example["payload"]["data"]["action"].as_str()).collect();
    assert_eq!(actions, Action::ALL.iter().map(|action| action.as_str()).collect());

    let mut targets = Vec::new();
    references(&document, &mut targets);
    assert!(targets.len() > 2 * EventKind::ALL.len(), "{} references", targets.len());
    for target in targets {
        let found = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(found.is_some(), "nothing is at {target}");
    }
}

fn references<'d>(value: &'d Value, targets: &mut Vec<&'d str>) {
    match value {
        Value::Object(map) => {
            targets.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, targets));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, targets)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns a validator of one of the document's schemas.
fn validator(document: &Value, name: &str) -> jsonschema::Validator {
    let mut schema = document["components"]["schemas"][name].clone();
    assert!(schema.is_object(), "no schema {name}");
    schema["components"] = document["components"].clone();
    jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_examples_of_events_are_events() {
    let document = asyncapi();
    for sample in samples::every_form() {
        let name = sample.kind.as_str();
        let schema = &document["components"]["schemas"][name];
        let mut examples = schema["examples"].as_array().expect("examples").iter();
        let example = examples.find(|example| example["id"] == sample.id());
        let example = example.unwrap_or_else(|| panic!("no {} among the examples of {name}", sample.id()));
        assert_eq!(event(example), cloudevent::of_event(&sample), "{name}");
        let validator = validator(&document, name);
        let faults: Vec<_> = validator.iter_errors(example).map(|fault| fault.to_string()).collect();
        assert_eq!(faults, Vec::<String>::new(), "{name}");
        for attribute in ["specversion", "id", "source", "type", "data"] {
            let mut less = example.clone();
            less.as_object_mut().expect("an object").remove(attribute);
            assert!(!validator.is_valid(&less), "{name} without {attribute}");
        }
    }
}

#[test]
fn the_examples_of_requests_are_requests() {
    let document = asyncapi();
    let validator = validator(&document, "pipeline.requested");
    let examples = &document["channels"]["requests"]["messages"]["request"]["examples"];
    for example in examples.as_array().expect("examples") {
        let headers = example["headers"].as_object().into_iter().flatten();
        let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str().expect("text"))).collect();
        let payload = match &example["payload"] {
            Value::String(text) => text.clone(),
            payload => payload.to_string(),
        };
        let received = receive(&headers, payload.as_bytes());
        let received = received.unwrap_or_else(|error| panic!("{error}: {example}"));
        assert!(received.spec_text().is_some() || received.request.pipeline.is_some(), "{example}");
        let structured = example["payload"]["specversion"].is_string();
        let faults: Vec<_> = validator.iter_errors(&example["payload"]).map(|fault| fault.to_string()).collect();
        assert_eq!(structured, faults.is_empty(), "{example}: {faults:?}");
    }
}

#[test]
fn the_examples_of_letters_are_letters() {
    let document = asyncapi();
    let validator = validator(&document, "agents.post");
    let examples = document["channels"]["agents"]["messages"]["json"]["examples"].as_array().expect("examples");
    for example in examples {
        let payload = &example["payload"];
        let (read, encoding) = letter::decode(payload.to_string().as_bytes()).expect("a record");
        assert_eq!(encoding, letter::Encoding::Json);
        let written: Value = serde_json::from_slice(&letter::encode(&read, encoding)).expect("JSON");
        for document in [payload, &written] {
            let faults: Vec<_> = validator.iter_errors(document).map(|fault| fault.to_string()).collect();
            assert_eq!(faults, Vec::<String>::new(), "{document}");
        }
    }
    assert!(!validator.is_valid(&json!({ "presence": { "host": "a", "incarnation": "1" } })), "without a party");
}

// === protocol.md ===

/// Returns the fenced blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    let starts = text.match_indices(&fence).map(|(at, fence)| at + fence.len());
    starts.map(|at| text[at..].split("```").next().expect("a block ends")).collect()
}

#[test]
fn the_examples_of_the_protocol_are_what_they_say() {
    let text = text("protocol.md");
    let (mut requests, mut events, mut letters) = (0, 0, 0);
    for block in blocks(&text, "json") {
        let value: Value = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        if value["letter"].is_object() || value["presence"].is_object() {
            letter::decode(block.as_bytes()).unwrap_or_else(|error| panic!("{error}: {block}"));
            letters += 1;
            continue;
        }
        let headers = match value["specversion"].is_string() {
            true => vec![("content-type", cloudevent::STRUCTURED_JSON)],
            false => vec![("content-type", "application/json")],
        };
        if value["type"].as_str().is_some_and(|kind| kind != REQUESTED) {
            let sample = samples::every_form().into_iter().find(|sample| value["id"] == sample.id());
            assert_eq!(event(&value), cloudevent::of_event(&sample.expect("a known event")));
            events += 1;
        } else {
            receive(&headers, block.as_bytes()).unwrap_or_else(|error| panic!("{error}: {block}"));
            requests += 1;
        }
    }
    for block in blocks(&text, "yaml") {
        receive(&[("content-type", "application/yaml")], block.as_bytes()).expect("a spec");
        requests += 1;
    }
    for block in blocks(&text, "http") {
        let (head, body) = block.split_once("\n\n").expect("a head and a body");
        let headers: Vec<_> = head.lines().skip(1).map(|line| line.split_once(": ").expect("a header")).collect();
        let received = with(Binding::Http, &headers, body.as_bytes(), request::decode);
        received.unwrap_or_else(|error| panic!("{error}: {block}"));
        requests += 1;
    }
    assert!(requests >= 4 && events >= 1 && letters >= 3, "{requests} requests, {events} events, {letters} letters");
}

#[test]
fn the_protocol_lists_every_event_and_action() {
    let text = text("protocol.md");
    for kind in EventKind::ALL {
        assert!(text.contains(&format!("| `{}` |", kind.as_str())), "{} has no row", kind.as_str());
    }
    for action in Action::ALL {
        assert!(text.contains(&format!("| `{}` |", action.as_str())), "{} has no row", action.as_str());
    }
}
