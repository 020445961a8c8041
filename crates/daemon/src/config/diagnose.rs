//! Reads the layers into the configuration, and says everything that is wrong with them at once.
//!
//! serde stops at the first fault. So a fault is noted, its value is replaced by the default (or taken out), and the rest
//! is read again. Messages hold no value of a key that may hold a secret.

use std::fmt;

use config::{ConfigError, Map, Value, ValueKind};
use serde::de::DeserializeOwned;

/// The most faults that are looked for; nobody mends more at a time.
const FAULTS_MAX: usize = 100;

/// Something that is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The setting, as `http.listen`.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What kind of value it has: `a string`, `an integer`.
    pub(crate) found: Option<&'static str>,
    /// Where it was set.
    pub(crate) origin: Origin,
    /// What to do.
    pub(crate) hint: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `config/default.toml`, which is in the program.
    Default,
    /// A file.
    File(String),
    /// A variable.
    Variable(String),
}

/// A step into the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

enum Fault {
    Unknown { field: String, expected: Vec<String> },
    Missing,
    Type { expected: &'static str },
    Other(String),
}

/// Reads `tree`; what `defaults` holds stands in for what is wrong.
pub(super) fn read<T: DeserializeOwned>(mut tree: Value, defaults: &Value) -> Result<T, Vec<Diagnostic>> {
    let (mut found, mut removed) = (Vec::new(), Vec::<Vec<Step>>::new());
    for _ in 0..FAULTS_MAX {
        let error = match tree.clone().try_deserialize::<T>() {
            Ok(read) if found.is_empty() => return Ok(read),
            Ok(_) => break,
            Err(error) => error,
        };
        let (path, fault) = parts(&error);
        let mut path = steps(&path);
        match fault {
            Fault::Unknown { field, expected } => {
                path.push(Step::Key(field.clone()));
                let value = get(&tree, &path);
                let hint = match nearest(&field, &expected) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("the keys here are {}", expected.join(", ")),
                };
                found.push(diagnostic(&path, "there is no such setting".into(), value, &hint));
                take(&mut tree, &path);
            }
            Fault::Missing => {
                // What was taken out above is missing for that reason alone.
                if !removed.contains(&path) {
                    found.push(diagnostic(&path, "it has no value".into(), None, "config/default.toml shows one"));
                }
                path.pop();
                mend(&mut tree, defaults, &path, &mut removed);
            }
            Fault::Type { expected } => {
                let value = get(&tree, &path);
                let message = format!("it takes {expected}");
                found.push(diagnostic(&path, message, value, "config/default.toml shows one"));
                mend(&mut tree, defaults, &path, &mut removed);
            }
            Fault::Other(message) => {
                let value = get(&tree, &path);
                let message = if is_secret(&path) { "its value is not valid".into() } else { message };
                found.push(diagnostic(&path, message, value, "config/default.toml says what it takes"));
                mend(&mut tree, defaults, &path, &mut removed);
            }
        }
        if path.is_empty() {
            break; // Nothing could be taken out.
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Err(found)
}

/// Returns every value that is no table, with its key and where it is from, in the order of keys.
pub(super) fn leaves(tree: &Value) -> Vec<(String, Value, Origin)> {
    fn visit(path: &mut Vec<Step>, value: &Value, leaves: &mut Vec<(String, Value, Origin)>) {
        match &value.kind {
            ValueKind::Table(table) => {
                let mut keys: Vec<_> = table.keys().collect();
                keys.sort();
                for key in keys {
                    path.push(Step::Key(key.clone()));
                    visit(path, &table[key], leaves);
                    path.pop();
                }
            }
            _ => leaves.push((print(path), value.clone(), origin(path, Some(value)))),
        }
    }
    let mut leaves = Vec::new();
    visit(&mut Vec::new(), tree, &mut leaves);
    leaves
}

/// Says what is wrong with the value of a key.
pub(super) fn fault(tree: &Value, key: &str, message: String, hint: &str) -> Diagnostic {
    let path = steps(key);
    // A part of a list that was given as a text is where the text is.
    let value = (1..=path.len()).rev().find_map(|length| get(tree, &path[..length]));
    diagnostic(&path, message, value, hint)
}

fn diagnostic(path: &[Step], message: String, value: Option<&Value>, hint: &str) -> Diagnostic {
    let found = value.map(|value| kind(&value.kind));
    Diagnostic { key: print(path), message, found, origin: origin(path, value), hint: hint.into() }
}

fn parts(error: &ConfigError) -> (String, Fault) {
    match error {
        ConfigError::At { error, key, .. } => {
            let (inner, fault) = parts(error);
            let outer = key.clone().unwrap_or_default();
            let path = if outer.is_empty() || inner.is_empty() { outer + &inner } else { format!("{outer}.{inner}") };
            (path, fault)
        }
        ConfigError::Type { expected, key, .. } => (key.clone().unwrap_or_default(), Fault::Type { expected }),
        ConfigError::NotFound(path) => (path.clone(), Fault::Missing),
        ConfigError::Message(text) => (String::new(), message(text)),
        other => (String::new(), Fault::Other(other.to_string())),
    }
}

/// Reads the sentences of serde and crate config about unknown fields and words; anything else is for people.
fn message(text: &str) -> Fault {
    if let Some((_, word)) = text.split_once(" does not have variant constructor ") {
        return Fault::Other(format!("{word:?} is none of the words that it takes"));
    }
    let Some(rest) = text.strip_prefix("unknown field ") else { return Fault::Other(text.into()) };
    let mut names = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    match names.next() {
        Some(field) => Fault::Unknown { field, expected: names.collect() },
        None => Fault::Other(text.into()),
    }
}

/// Puts the default where something is wrong, or takes it out where there is none.
fn mend(tree: &mut Value, defaults: &Value, path: &[Step], removed: &mut Vec<Vec<Step>>) {
    let target = path.split_last().and_then(|(last, parent)| Some((table(tree, parent)?, last)));
    match (target, get(defaults, path)) {
        (Some((table, Step::Key(key))), Some(default)) => {
            table.insert(key.clone(), default.clone());
        }
        _ => {
            removed.push(path.to_vec());
            take(tree, path);
        }
    }
}

fn take(tree: &mut Value, path: &[Step]) {
    let Some((last, parent)) = path.split_last() else { return };
    match last {
        Step::Key(key) => {
            if let Some(table) = table(tree, parent) {
                table.remove(key);
            }
        }
        Step::Index(index) => {
            if let Some(Value { kind: ValueKind::Array(values), .. }) = get_mut(tree, parent)
                && *index < values.len()
            {
                values.remove(*index);
            }
        }
    }
}

fn table<'a>(tree: &'a mut Value, path: &[Step]) -> Option<&'a mut Map<String, Value>> {
    match &mut get_mut(tree, path)?.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

fn get<'a>(tree: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |value, step| match (&value.kind, step) {
        (ValueKind::Table(table), Step::Key(key)) => table.get(key),
        (ValueKind::Array(values), Step::Index(index)) => values.get(*index),
        _ => None,
    })
}

fn get_mut<'a>(tree: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |value, step| match (&mut value.kind, step) {
        (ValueKind::Table(table), Step::Key(key)) => table.get_mut(key),
        (ValueKind::Array(values), Step::Index(index)) => values.get_mut(*index),
        _ => None,
    })
}

/// Reads `a.b[0]`.
fn steps(path: &str) -> Vec<Step> {
    let parts = path.split(['.', '[', ']']).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)).collect()
}

fn print(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn origin(path: &[Step], value: Option<&Value>) -> Origin {
    // The words of crate config.
    match value.and_then(first_origin) {
        None => Origin::Default,
        Some("the environment") => {
            let keys = path.iter().filter_map(|step| match step {
                Step::Key(key) => Some(key.to_ascii_uppercase()),
                Step::Index(_) => None,
            });
            Origin::Variable(std::iter::once("DAGWRIGHT".to_owned()).chain(keys).collect::<Vec<_>>().join("__"))
        }
        Some(file) => Origin::File(file.to_owned()),
    }
}

/// Returns the origin of a value; a table has none but those of its values.
fn first_origin(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::Table(table) => table.values().find_map(first_origin),
        _ => value.origin(),
    }
}

fn is_secret(path: &[Step]) -> bool {
    matches!(path, [Step::Key(first), ..] if first == "connections" || first == "webhooks")
        && matches!(path.last(), Some(Step::Key(last)) if last == "url")
}

fn kind(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "an integer",
        ValueKind::Float(_) => "a number",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

fn nearest<'a>(given: &str, known: &'a [String]) -> Option<&'a String> {
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(given, name), name)).min()?;
    (near.0 <= 2).then_some(near.1)
}

// === impl Diagnostic, Origin ===

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.found {
            Some(found) => write!(f, " (it is {found} from {})", self.origin),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => f.write_str(path),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::config::{Config, Error};

    /// Returns what is wrong with a file, as `key: what it says`.
    #[track_caller]
    fn faults(toml: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        match Config::load(Some(file.path())) {
            Err(Error::Invalid(diagnostics)) => {
                let told = |diagnostic: &super::Diagnostic| {
                    let text = format!("{}: {diagnostic}", diagnostic.key);
                    text.replace(&diagnostic.origin.to_string(), "FILE")
                };
                diagnostics.iter().map(told).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let found = faults(
            r#"
            [store]
            paht = "x"
            [engine]
            kind = "airflw"
            parallelism = "many"
            [negotiation]
            deadline = "soon"
            [http]
            listen = "everywhere"
            requests_per_second = -3
            [http.tokens.a]
            scopes = ["read", "wriet"]
            [connections.v]
            url = ["postgresql://u:hunter2@h/db"]
            [connections.z]
            access = "all"
            [lgo]
            level = 1
            "#,
        );
        assert_eq!(
            found,
            [
                "connections.v.url: it takes a string (it is a list from FILE)",
                r#"connections.z.access: "all" is none of the words that it takes (it is a string from FILE)"#,
                "connections.z.url: it has no value",
                r#"engine.kind: "airflw" is none of the words that it takes (it is a string from FILE)"#,
                "engine.parallelism: it takes an integer (it is a string from FILE)",
                "http.listen: invalid socket address syntax (it is a string from FILE)",
                "http.requests_per_second: it takes an unsigned 64 bit or less integer (it is an integer from FILE)",
                r#"http.tokens.a.scopes[1]: "wriet" is none of the words that it takes (it is a string from FILE)"#,
                "lgo: there is no such setting (it is a table from FILE)",
                r#"negotiation.deadline: "soon" is not a time span such as 30s, 15m, 12h or 1d (it is a string from FILE)"#,
                "store.paht: there is no such setting (it is a string from FILE)",
            ]
        );
    }

    #[test]
    fn a_name_that_is_none_is_told_and_ends_nothing_else() {
        let found = faults("[connections.W]\nurl = \"postgresql://h\"\n[store]\npaht = \"x\"");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_fault_that_cannot_be_taken_out_ends_the_search() {
        assert_eq!(faults("store = 5").len(), 1);
    }
}
