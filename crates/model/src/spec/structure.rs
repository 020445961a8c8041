//! Checks a tree against the spec's own JSON Schema, with every fault at once.
//!
//! The schema is generated from [`super::document`], so keys, types, words and bounds stand in one place. This walks
//! the tree and the schema together, because a general validator's messages know neither lines nor what was meant;
//! a test holds it to the verdicts of one. Only what that schema uses is understood here. Where it names one of the
//! model's own textual types, that type's parser decides, which is stricter than its pattern.

use std::sync::OnceLock;

use regex_lite::Regex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{
    document::Document,
    report::{Report, Site, alternatives, did_you_mean, quoted},
    tree::{Entry, Kind, Node},
};
use crate::{
    code::Code,
    id::Name,
    schema::DataType,
    units::{ByteSize, Ratio, Span},
};

/// The top-level keys that define what others refer to: a tree without them cannot be checked further.
const DEFINING: [&str; 6] = ["params", "source", "sources", "transform", "sink", "sinks"];

type Schema = Map<String, Value>;

/// Returns the JSON Schema of the format.
pub(super) fn json_schema() -> Value {
    schema().clone()
}

fn schema() -> &'static Value {
    // Pure and always the same, so computed once.
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Document>().to_value())
}

/// Checks `root`, and returns it without the parts objected to when what is left can be checked further.
pub(super) fn check(root: &Node, report: &mut Report) -> Option<Node> {
    let schema = schema().as_object()?;
    let mut checker = Checker { definitions: schema.get("$defs")?.as_object()?, report };
    let mut pruned = root.clone();
    checker.node(schema, &mut pruned, &Site::root(Some(root))).then_some(pruned)
}

struct Checker<'r> {
    definitions: &'static Schema,
    report: &'r mut Report,
}

// === impl Checker ===

impl Checker<'_> {
    /// Checks a value and prunes what may be left out of it; false when it cannot stand.
    fn node(&mut self, schema: &'static Schema, node: &mut Node, site: &Site<'_>) -> bool {
        if self.report.is_full() {
            return false;
        }
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|uri| uri.strip_prefix("#/$defs/")) {
            return match own_type(name) {
                Some(own) => self.own_type(&own, node, site),
                None => match self.definitions.get(name).and_then(Value::as_object) {
                    Some(definition) => self.node(definition, node, site),
                    None => true,
                },
            };
        }
        if let Some(branches) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
            return self.branches(branches, node, site);
        }
        let wanted = types(schema);
        if !wanted.is_empty() && !wanted.iter().any(|wanted| is_type(node, wanted)) {
            return self.wrong_type(&wanted, node, site);
        }
        match &mut node.kind {
            Kind::Null | Kind::Bool(_) => true,
            Kind::Integer(_) | Kind::Unsigned(_) | Kind::Float(_) => self.number(schema, node, site),
            Kind::Text(text) => self.text(schema, text, site),
            Kind::List(items) => self.list(schema, items, site),
            Kind::Map(_) => self.map(schema, node, site),
        }
    }

    fn own_type(&mut self, own: &OwnType, node: &Node, site: &Site<'_>) -> bool {
        let number = match node.kind {
            Kind::Integer(number) => number.to_string(),
            Kind::Unsigned(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            _ => String::new(),
        };
        let text = match &node.kind {
            Kind::Text(text) => text,
            Kind::Integer(_) | Kind::Unsigned(_) | Kind::Float(_) if own.code == Code::SpecWrongType => &number,
            _ => {
                let message = format!("expected {}, found {}", own.what, node.type_name());
                self.report.push(Code::SpecWrongType, site, message, own.hint);
                return false;
            }
        };
        let valid = (own.parses)(text);
        if !valid {
            self.report.push(own.code, site, format!("{} is not {}", quoted(text), own.what), own.hint);
        }
        valid
    }

    fn branches(&mut self, branches: &'static [Value], node: &mut Node, site: &Site<'_>) -> bool {
        let words: Vec<_> = self.words(branches);
        if words.contains(&"null") && node.kind == Kind::Null && site.node().is_some() {
            // `mask: null` would silently mean «no mask».
            let hint = "write \"null\" with its quotes for the word, or remove the key";
            self.report.push(Code::SpecWrongType, site, "null without quotes means «nothing here»", hint);
            return false;
        }
        let branches: Vec<_> = branches.iter().filter_map(Value::as_object).collect();
        if let Some(fitting) = branches.iter().find(|branch| self.fits(branch, node)) {
            if !words.is_empty() && fitting.contains_key("const") {
                return self.word(&words, node, site);
            }
            return self.node(fitting, node, site);
        }
        if let Some(own) = branches.iter().find(|branch| self.own_of(branch)).filter(|_| node.kind != Kind::Null) {
            return self.node(own, node, site);
        }
        let mut wanted: Vec<_> = branches.iter().flat_map(|branch| self.types_of(branch)).collect();
        wanted.dedup();
        self.wrong_type(&wanted, node, site)
    }

    /// The words a union of constants consists of, looking through one reference.
    fn words(&self, branches: &'static [Value]) -> Vec<&'static str> {
        let constant = |branch: &'static Value| branch.get("const").and_then(Value::as_str);
        let direct: Vec<_> = branches.iter().filter_map(constant).collect();
        if !direct.is_empty() {
            return direct;
        }
        let referred = branches.iter().filter_map(Value::as_object).filter_map(|branch| self.definition(branch));
        referred
            .filter_map(|definition| definition.get("oneOf").and_then(Value::as_array))
            .flat_map(|words| words.iter().filter_map(constant))
            .collect()
    }

    fn word(&mut self, words: &[&'static str], node: &Node, site: &Site<'_>) -> bool {
        let Kind::Text(text) = &node.kind else { return false };
        if words.contains(&text.as_str()) {
            return true;
        }
        let message = format!("{} is not one of {}", quoted(text), alternatives(words.iter().copied()));
        self.report.push(Code::SpecWrongType, site, message, did_you_mean(text, words.iter().copied()));
        false
    }

    fn definition(&self, schema: &'static Schema) -> Option<&'static Schema> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        self.definitions.get(name)?.as_object()
    }

    /// Tells whether a schema is a reference to one of the model's own textual types.
    fn own_of(&self, schema: &'static Schema) -> bool {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|uri| uri.strip_prefix("#/$defs/"));
        name.is_some_and(|name| own_type(name).is_some())
    }

    fn types_of(&self, schema: &'static Schema) -> Vec<&'static str> {
        let schema = self.definition(schema).unwrap_or(schema);
        match schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
            Some(inner) => inner.iter().filter_map(Value::as_object).flat_map(|inner| self.types_of(inner)).collect(),
            None => types(schema),
        }
    }

    fn fits(&self, schema: &'static Schema, node: &Node) -> bool {
        let wanted = self.types_of(schema);
        wanted.is_empty() || wanted.iter().any(|wanted| is_type(node, wanted))
    }

    fn wrong_type(&mut self, wanted: &[&str], node: &Node, site: &Site<'_>) -> bool {
        let mut names: Vec<_> =
            wanted.iter().filter(|wanted| **wanted != "null").map(|wanted| type_name(wanted)).collect();
        names.dedup();
        let hint = match node.kind {
            Kind::Null => "give it a value, or remove the key",
            Kind::Bool(_) | Kind::Integer(_) | Kind::Unsigned(_) | Kind::Float(_) if names.contains(&"text") => {
                "put it in quotes if it is meant as text"
            }
            _ if names.contains(&"a list") => "write a list as [a, b], or one item a line after `- `",
            _ if names.contains(&"a map") => "write its keys below it, indented",
            _ => "see docs/spec.md for this key",
        };
        let message = format!("expected {}, found {}", names.join(" or "), node.type_name());
        self.report.push(Code::SpecWrongType, site, message, hint);
        false
    }

    fn number(&mut self, schema: &Schema, node: &Node, site: &Site<'_>) -> bool {
        // Exact for every bound of the format: each is far below 2^53, or the whole range of a 64-bit integer.
        #[expect(clippy::cast_precision_loss, reason = "compared with small bounds only")]
        let value = match node.kind {
            Kind::Integer(value) => value as f64,
            Kind::Unsigned(value) => value as f64,
            Kind::Float(value) => value,
            _ => return true,
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let word_max = match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => Some(f64::from(u32::MAX)),
            Some("int32") => Some(f64::from(i32::MAX)),
            _ => None,
        };
        let (low, high) = (bound("minimum"), bound("maximum").or(word_max));
        if low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high) {
            return true;
        }
        let message = match (low, high) {
            (Some(low), Some(high)) if low == high => format!("{value} is not {low}"),
            (Some(low), Some(high)) => format!("{value} is not between {low} and {high}"),
            (Some(low), None) => format!("{value} is less than {low}"),
            (None, high) => format!("{value} is more than {}", high.unwrap_or_default()),
        };
        let about = schema.get("description").and_then(Value::as_str);
        self.report.push(Code::SpecWrongType, site, message, about.unwrap_or_default());
        false
    }

    fn text(&mut self, schema: &Schema, text: &str, site: &Site<'_>) -> bool {
        let length = text.chars().count();
        let (low, high) = bounds(schema, "minLength", "maxLength");
        let keyword = |key| schema.get(key).and_then(Value::as_str);
        if let Some(pattern) =
            keyword("pattern").filter(|pattern| !Regex::new(pattern).is_ok_and(|it| it.is_match(text)))
        {
            let message = format!("{} does not match {pattern}", quoted(text));
            self.report.push(Code::SpecWrongType, site, message, keyword("description").unwrap_or_default());
            return false;
        }
        let message = match (low, high) {
            (1, 1) if length != 1 => format!("{} is not one character", quoted(text)),
            (low, _) if length < low => "it is empty".into(),
            (_, high) if length > high => format!("it has {length} characters; at most {high} are allowed"),
            _ => return true,
        };
        self.report.push(Code::SpecWrongType, site, message, "");
        false
    }

    fn list(&mut self, schema: &'static Schema, items: &mut [Node], site: &Site<'_>) -> bool {
        let mut sound = self.size(schema, ("minItems", "maxItems"), items.len(), site);
        if let Some(schema) = schema.get("items").and_then(Value::as_object) {
            for (index, item) in items.iter_mut().enumerate() {
                sound &= self.node(schema, item, &site.index(index));
            }
        }
        sound
    }

    fn size(&mut self, schema: &Schema, keys: (&str, &str), size: usize, site: &Site<'_>) -> bool {
        let (low, high) = bounds(schema, keys.0, keys.1);
        let message = match size {
            size if size < low => format!("it needs at least {low} of these, and has {size}"),
            size if size > high => format!("it has {size} of these; at most {high} are allowed"),
            _ => return true,
        };
        self.report.push(Code::SpecWrongType, site, message, "");
        false
    }

    fn map(&mut self, schema: &'static Schema, node: &mut Node, site: &Site<'_>) -> bool {
        let is_root = schema.contains_key("$defs");
        let empty = EMPTY.get_or_init(Map::new);
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(empty);
        let required = required_of(schema);
        let of_names = schema.get("patternProperties").and_then(Value::as_object).and_then(|map| map.values().next());
        let of_any = schema.get("additionalProperties").and_then(Value::as_object);
        let Kind::Map(entries) = &mut node.kind else { return true };

        let mut sound = self.size(schema, ("minProperties", "maxProperties"), entries.len(), site);
        for key in required.iter().filter(|key| !entries.iter().any(|entry| entry.key == **key)) {
            let about = properties.get(*key).and_then(|schema| schema.get("description")).and_then(Value::as_str);
            let message = format!("`{key}` is missing");
            self.report.push(Code::SpecMissingKey, &site.key(key), message, about.unwrap_or_default());
        }
        // The site's map is the one that `entries` was copied from.
        let Some(Node { kind: Kind::Map(originals), .. }) = site.node() else { return sound };
        let mut originals = originals.iter();
        entries.retain_mut(|entry| {
            let Some(site) = originals.next().map(|original| site.entry(original)) else { return true };
            let key = entry.key.as_str();
            if self.report.is_full() {
                return true;
            }
            if let Some(schema) = properties.get(key).and_then(Value::as_object) {
                let kept = self.node(schema, &mut entry.node, &site);
                sound &= kept || !(is_root && DEFINING.contains(&key));
                return kept;
            }
            if let Some(Value::Object(schema)) = of_names {
                if Name::new(key).is_err() {
                    let message = format!("{} is not a name", quoted(key));
                    self.report.push(Code::SpecBadName, &site, message, NAME_HINT);
                    sound = false;
                }
                sound &= self.node(schema, &mut entry.node, &site);
            } else if let Some(schema) = of_any {
                sound &= self.node(schema, &mut entry.node, &site);
            } else if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
                let message = format!("unknown key {}", quoted(key));
                let hint = did_you_mean(key, properties.keys().map(String::as_str));
                self.report.push(Code::SpecUnknownKey, &site, message, hint);
                return false;
            }
            true
        });
        for key in &required {
            if !entries.iter().any(|entry| entry.key == **key) {
                match stand_in(key, &required) {
                    Some(kind) => entries.push(Entry { key: (*key).into(), line: 0, node: Node { line: 0, kind } }),
                    None => sound = false,
                }
            }
        }
        sound
    }
}

/// Returns a value for a required key that is missing or was objected to, so that the rest can be checked further.
///
/// What follows from it is not reported, as it stands beside the fault ([`Report::add_independent`]).
fn stand_in(key: &str, required: &[&str]) -> Option<Kind> {
    let text = |text: &str| Some(Kind::Text(text.into()));
    match key {
        "version" => Some(Kind::Integer(1)),
        "pipeline" => text("pipeline"),
        "mode" => text("append"),
        "type" => text("string"),
        "sql" => text("SELECT 1"),
        "cursor" => text("cursor"),
        "cron" => text("0 0 * * *"),
        "on_fail" => text("warn"),
        // A gate's; a step's is referred to.
        "name" if required.contains(&"on_fail") => text("gate"),
        _ => None,
    }
}

fn required_of(schema: &'static Schema) -> Vec<&'static str> {
    strings(schema.get("required"))
}

static EMPTY: OnceLock<Schema> = OnceLock::new();

// === the model's own textual types ===

const NAME_HINT: &str = "a name starts with a lower-case letter and goes on with at most 127 of a-z, 0-9 and _";

struct OwnType {
    what: &'static str,
    hint: &'static str,
    code: Code,
    parses: fn(&str) -> bool,
}

fn own_type(name: &str) -> Option<OwnType> {
    let quantity = |what, hint, parses| OwnType { what, hint, code: Code::SpecWrongType, parses };
    Some(match name {
        "Name" => {
            OwnType { what: "a name", hint: NAME_HINT, code: Code::SpecBadName, parses: |text| Name::new(text).is_ok() }
        }
        "ByteSize" => quantity("a size", "write it like 512MiB or 2GB", |text| text.parse::<ByteSize>().is_ok()),
        "Span" => quantity("a time span", "write it like 30s, 15m, 12h or 1d", |text| text.parse::<Span>().is_ok()),
        "Ratio" => quantity("a share", "write it like 1% or 0.01", |text| text.parse::<Ratio>().is_ok()),
        "DataType" => quantity(
            "a type",
            "known are boolean, int16, int32, int64, float32, float64, decimal(p,s), string, string(n), binary, date, \
             time, timestamp, timestamptz, uuid, json, list<T>, struct<name:T,…>",
            |text| text.parse::<DataType>().is_ok(),
        ),
        _ => return None,
    })
}

// === reading a schema ===

fn types(schema: &'static Schema) -> Vec<&'static str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        several => strings(several),
    }
}

fn strings(value: Option<&'static Value>) -> Vec<&'static str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn bounds(schema: &Schema, low: &str, high: &str) -> (usize, usize) {
    let bound = |key| schema.get(key).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    (bound(low).unwrap_or(0), bound(high).unwrap_or(usize::MAX))
}

fn is_type(node: &Node, wanted: &str) -> bool {
    match &node.kind {
        Kind::Null => wanted == "null",
        Kind::Bool(_) => wanted == "boolean",
        Kind::Integer(_) | Kind::Unsigned(_) => matches!(wanted, "integer" | "number"),
        Kind::Float(_) => wanted == "number",
        Kind::Text(_) => wanted == "string",
        Kind::List(_) => wanted == "array",
        Kind::Map(_) => wanted == "object",
    }
}

fn type_name(wanted: &str) -> &'static str {
    match wanted {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        _ => "nothing",
    }
}
