//! YAML as JSON values: as much as the documents need, with plain scalars as YAML 1.2's JSON schema types them.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Reads one document.
pub(crate) fn read(text: &str) -> Value {
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    let mut root = Value::Null;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.expect("YAML");
        let done = match event {
            Event::MappingStart(..) => {
                open.push((Value::Object(Map::new()), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push((Value::Array(Vec::new()), None));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().expect("what ends has begun").0,
            Event::Scalar(text, style, ..) => match open.last_mut() {
                Some((Value::Object(_), key @ None)) => {
                    *key = Some(text.into());
                    continue;
                }
                _ if style == ScalarStyle::Plain => plain(&text),
                _ => Value::String(text.into()),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = done,
            Some((Value::Array(items), _)) => items.push(done),
            Some((Value::Object(map), key)) => {
                let key = key.take().expect("a key");
                let first = map.insert(key.clone(), done);
                assert_eq!(first, None, "line {}: {key} stands there twice", span.start.line());
            }
            Some((other, _)) => unreachable!("{other} holds nothing"),
        }
    }
    root
}

fn plain(text: &str) -> Value {
    match text {
        "" | "null" | "~" => Value::Null,
        // What JSON reads is what YAML reads, and the rest is text.
        _ => serde_json::from_str(text).ok().filter(|value: &Value| !value.is_string()).unwrap_or_else(|| text.into()),
    }
}
