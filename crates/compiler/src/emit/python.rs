//! Python source text, written from a tree: the one place where a text from a plan meets Python's syntax.
//!
//! A plan's text can enter the tree only as a value ([`Expr::Str`], [`Expr::Json`]), and is written as a literal that
//! reads back as itself, whatever it holds. Names in the tree are ours, or were checked to be plain identifiers.
//!
//! The layout is that of the common formatters: one line where it fits, else one item a line and a trailing comma.

use std::borrow::Cow;

use serde_json::Value;

/// The longest line that is not broken up further.
const LINE_WIDTH_MAX: usize = 100;

const INDENT: usize = 4;

/// Python's keywords in lower case; those in upper case cannot be mistaken for a plan's names.
const KEYWORDS: [&str; 32] = [
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except",
    "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

/// A Python identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identifier(Cow<'static, str>);

/// A Python expression.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Name(Identifier),
    Str(String),
    Int(u64),
    Bool(bool),
    /// A JSON value as Python's equal: `None`, `True`, numbers, text, lists, dictionaries.
    Json(Value),
    List(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, &'static str),
    Call(Box<Expr>, Vec<Argument>),
    /// `**mapping`, in the place of an argument.
    Unpacked(Box<Expr>),
    /// `left >> right`
    Before(Box<Expr>, Box<Expr>),
}

/// An argument of a call, by keyword or by position.
pub(crate) type Argument = (Option<&'static str>, Expr);

// === impl Identifier ===

impl Identifier {
    /// Makes an identifier of a text from a plan, if it is a plain lower-case one and no keyword.
    pub(crate) fn checked(text: &str) -> Option<Self> {
        let plain = text.len() <= 128
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        (plain && !KEYWORDS.contains(&text)).then(|| Self(text.to_owned().into()))
    }

    /// Makes the identifier `task_<index>`.
    pub(crate) fn numbered(index: usize) -> Self {
        Self(format!("task_{index}").into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Identifier {
    /// Takes a name that stands in our own source.
    fn from(name: &'static str) -> Self {
        Self(name.into())
    }
}

// === impl Expr ===

impl Expr {
    pub(crate) fn name(name: impl Into<Identifier>) -> Self {
        Self::Name(name.into())
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// Returns `self.name`.
    pub(crate) fn attribute(self, name: &'static str) -> Self {
        Self::Attribute(Box::new(self), name)
    }

    /// Returns `self(arguments)`.
    pub(crate) fn call(self, arguments: Vec<Argument>) -> Self {
        Self::Call(Box::new(self), arguments)
    }

    /// Returns `**self`.
    pub(crate) fn unpacked(self) -> Self {
        Self::Unpacked(Box::new(self))
    }

    /// Returns `self >> next`.
    pub(crate) fn before(self, next: Self) -> Self {
        Self::Before(Box::new(self), Box::new(next))
    }

    /// Writes the expression so that its first line starts at column `column` of a line indented by `indent`, leaving
    /// room for `after` more characters behind its last.
    pub(crate) fn render(&self, indent: usize, column: usize, after: usize) -> String {
        let flat = self.flat();
        if column + flat.chars().count() + after <= LINE_WIDTH_MAX {
            return flat;
        }
        match self {
            Self::Name(_) | Self::Str(_) | Self::Int(_) | Self::Bool(_) | Self::Attribute(..) => flat,
            Self::Json(value) => match as_tree(value) {
                Some(tree) => tree.render(indent, column, after),
                None => flat,
            },
            Self::List(items) if items.is_empty() => flat,
            Self::List(items) => broken("[", items.iter().map(|item| (String::new(), item)), "]", indent),
            Self::Dict(entries) if entries.is_empty() => flat,
            Self::Dict(entries) => {
                broken("{", entries.iter().map(|(key, value)| (format!("{}: ", key.flat()), value)), "}", indent)
            }
            Self::Call(callee, arguments) => {
                let callee = match &**callee {
                    // A chain breaks in its first call: `Operator.partial(⏎…⏎).expand(…)`.
                    Self::Attribute(object, name) if matches!(**object, Self::Call(..)) => {
                        format!("{}.{name}", object.render(indent, LINE_WIDTH_MAX, 0))
                    }
                    other => other.flat(),
                };
                if callee.contains('\n') || arguments.is_empty() {
                    return format!("{callee}({})", flat_arguments(arguments));
                }
                let items = arguments.iter().map(|(keyword, value)| (keyword_prefix(*keyword), value));
                broken(&format!("{callee}("), items, ")", indent)
            }
            Self::Unpacked(mapping) => format!("**{}", mapping.render(indent, column + 2, after)),
            Self::Before(left, right) => {
                let right = right.flat();
                format!("{} >> {right}", left.render(indent, column, after + right.chars().count() + 4))
            }
        }
    }

    /// Writes the expression on one line.
    fn flat(&self) -> String {
        match self {
            Self::Name(name) => name.0.to_string(),
            Self::Str(text) => string(text),
            Self::Int(number) => number.to_string(),
            Self::Bool(value) => if *value { "True" } else { "False" }.into(),
            Self::Json(value) => match value {
                Value::Null => "None".into(),
                Value::Bool(value) => Self::Bool(*value).flat(),
                // JSON's numbers are Python's.
                Value::Number(number) => number.to_string(),
                Value::String(text) => string(text),
                Value::Array(_) | Value::Object(_) => as_tree(value).map(|tree| tree.flat()).unwrap_or_default(),
            },
            Self::List(items) => format!("[{}]", join(items.iter().map(Self::flat))),
            Self::Dict(entries) => {
                format!("{{{}}}", join(entries.iter().map(|(key, value)| format!("{}: {}", key.flat(), value.flat()))))
            }
            Self::Attribute(object, name) => format!("{}.{name}", object.flat()),
            Self::Call(callee, arguments) => format!("{}({})", callee.flat(), flat_arguments(arguments)),
            Self::Unpacked(mapping) => format!("**{}", mapping.flat()),
            Self::Before(left, right) => format!("{} >> {}", left.flat(), right.flat()),
        }
    }
}

/// Returns arrays and objects as expressions of their items; `None` for scalars.
fn as_tree(value: &Value) -> Option<Expr> {
    match value {
        Value::Array(items) => Some(Expr::List(items.iter().cloned().map(Expr::Json).collect())),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            // As in canonical JSON, whether or not `serde_json` keeps the order of insertion in this build.
            entries.sort_by_key(|(key, _)| key.as_str());
            let entry = |(key, value): (&String, &Value)| (Expr::text(key), Expr::Json(value.clone()));
            Some(Expr::Dict(entries.into_iter().map(entry).collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn flat_arguments(arguments: &[Argument]) -> String {
    join(arguments.iter().map(|(keyword, value)| format!("{}{}", keyword_prefix(*keyword), value.flat())))
}

fn keyword_prefix(keyword: Option<&str>) -> String {
    keyword.map(|keyword| format!("{keyword}=")).unwrap_or_default()
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Writes one item a line, each behind its prefix, between brackets.
fn broken<'a>(open: &str, items: impl Iterator<Item = (String, &'a Expr)>, close: &str, indent: usize) -> String {
    let inner = indent + INDENT;
    let mut text = format!("{open}\n");
    for (prefix, item) in items {
        let value = item.render(inner, inner + prefix.chars().count(), 1);
        text.push_str(&format!("{:inner$}{prefix}{value},\n", ""));
    }
    text.push_str(&format!("{:indent$}{close}", ""));
    text
}

// === literals ===

/// Writes a text as a one-line string literal that Python reads back as the same text.
pub(crate) fn string(text: &str) -> String {
    let quote = if text.matches('"').count() > text.matches('\'').count() { '\'' } else { '"' };
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push(quote);
    for c in text.chars() {
        if c == quote {
            literal.push('\\');
        }
        push_char(&mut literal, c);
    }
    literal.push(quote);
    literal
}

/// Writes a text as a string literal in triple quotes, a line each, starting with an escaped line end.
pub(crate) fn text_block(text: &str) -> String {
    let mut literal = String::from("\"\"\"\\\n");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => literal.push('\n'),
            // Two in a row could end the literal, and so could one at its end.
            '"' if matches!(chars.peek(), None | Some('"')) => literal.push_str("\\\""),
            _ => push_char(&mut literal, c),
        }
    }
    literal.push_str("\"\"\"");
    literal
}

/// Writes one character, escaped unless every reader sees it as it is.
///
/// Besides control characters that covers invisible and direction-changing ones, so that what a reviewer sees in a
/// DAG file is what Python reads. Lone surrogates cannot occur: a `char` is never one.
fn push_char(literal: &mut String, c: char) {
    match c {
        '\\' => literal.push_str("\\\\"),
        '\n' => literal.push_str("\\n"),
        '\r' => literal.push_str("\\r"),
        '\t' => literal.push_str("\\t"),
        '"' | '\'' => literal.push(c),
        _ if is_printable(c) => literal.push(c),
        _ => {
            let code = u32::from(c);
            literal.push_str(&match code {
                0..0x100 => format!("\\x{code:02x}"),
                0x100..0x1_0000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            });
        }
    }
}

/// Tells whether a character shows as itself: no control, format, private, unassigned or combining character and no
/// space but the common one.
pub(crate) fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Expr, Identifier, string, text_block};

    #[test]
    fn strings_escape_what_could_end_or_bend_them() {
        assert_eq!(string("plain é 中 🛫"), "\"plain é 中 🛫\"");
        assert_eq!(string("it's"), "\"it's\"");
        assert_eq!(string("say \"hi\""), "'say \"hi\"'");
        assert_eq!(string("\"'\"'"), "\"\\\"'\\\"'\"");
        assert_eq!(string("a\\\n\r\t\0\u{1b}"), "\"a\\\\\\n\\r\\t\\x00\\x1b\"");
        assert_eq!(string("\u{202e}\u{2028}\u{85}\u{e000}\u{10ffff}"), "\"\\u202e\\u2028\\x85\\ue000\\U0010ffff\"");
    }

    #[test]
    fn text_blocks_cannot_be_ended_from_within() {
        assert_eq!(text_block("a \"b\" c\n"), "\"\"\"\\\na \"b\" c\n\"\"\"");
        assert_eq!(text_block("\"\"\""), "\"\"\"\\\n\\\"\\\"\\\"\"\"\"");
        assert_eq!(text_block("x\\"), "\"\"\"\\\nx\\\\\"\"\"");
    }

    #[test]
    fn only_plain_words_become_identifiers() {
        for good in ["load", "extract_flights_2"] {
            assert_eq!(Identifier::checked(good).map(|name| name.as_str().to_owned()).as_deref(), Some(good));
        }
        for bad in ["", "Load", "1st", "_x", "a-b", "a.b", "a b", "import", "None", "ä", "x\n"] {
            assert_eq!(Identifier::checked(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn layout_breaks_where_a_line_is_too_long() {
        let list = Expr::List((0..40).map(Expr::Int).collect());
        let call = Expr::name("f").call(vec![(None, Expr::Int(1)), (Some("numbers"), list)]);
        let text = call.render(4, 8, 0);
        assert!(text.starts_with("f(\n        1,\n        numbers=[\n            0,\n"), "{text}");
        assert!(text.ends_with("            39,\n        ],\n    )"), "{text}");
        let json = Expr::Json(json!({"b": [null, true, 1.5e300], "a": "x"}));
        assert_eq!(json.render(0, 0, 0), "{\"a\": \"x\", \"b\": [None, True, 1.5e+300]}");
    }
}
