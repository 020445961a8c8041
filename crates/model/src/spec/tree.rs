//! YAML or JSON text as a tree that knows its lines.
//!
//! The tree is built from parser events with explicit bounds, so that hostile text costs no more than honest text:
//! no anchors, aliases or merge keys (nothing expands), one document, a bounded depth and a bounded number of nodes.
//! Plain scalars get the types of YAML 1.2's core schema; dates are text. JSON is read as the YAML it is.
//!
//! Deliberately absent: what the keys mean ([`super::structure`], [`super::normalize`]).

use std::{borrow::Cow, collections::BTreeMap};

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::{
    SPEC_BYTES_MAX,
    report::{Report, Site, quoted},
};
use crate::code::Code;

/// How deep maps and lists may nest; the format itself needs 6.
const DEPTH_MAX: usize = 32;

/// How many values a spec may hold; the largest honest ones have a few thousand.
const NODES_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// The line, from 1.
    pub(super) line: u32,
    /// The value.
    pub(super) kind: Kind,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// The key's line, from 1.
    pub(super) line: u32,
    /// The value.
    pub(super) node: Node,
}

// === impl Node ===

impl Node {
    /// Returns the entry of a map.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Returns the item of a list.
    pub(super) fn item(&self, index: usize) -> Option<&Node> {
        match &self.kind {
            Kind::List(items) => items.get(index),
            _ => None,
        }
    }

    /// Names the value's type as a person would.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) | Kind::Unsigned(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

// === building ===

/// Reads `text` as one tree; `None` after a fault that leaves nothing to check further.
pub(super) fn read(text: &str, report: &mut Report) -> Option<Node> {
    if text.len() > SPEC_BYTES_MAX {
        let message = format!("the spec has {} bytes; at most {SPEC_BYTES_MAX} are read", text.len());
        report.push(Code::SpecTooLarge, &Site::root(None), message, "split it into several pipelines");
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A parser may take NUL for the end of the text, and what a person does not see must not count.
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let line = line_at(text, at);
        report.push(Code::SpecUnreadable, &Site::line(line), "a control character stands in the text", "remove it");
        return None;
    }
    let text = surrogates_decoded(text);
    let mut parser = Parser::new_from_str(&text);
    let mut builder = Builder { report, open: Vec::new(), nodes: 0, root: None, documents: 0 };
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.event(event, line_number(span.start.line())).ok()?,
            Err(error) => {
                builder.fail(
                    Code::SpecUnreadable,
                    line_number(error.marker().line()),
                    format!("not YAML: {}", error.info()),
                    "check indentation, brackets and quotes at this line; texts with `{`, `: ` or ` #` need quotes",
                );
                return None;
            }
        }
    }
    let root = builder.root;
    if root.is_none() {
        report.push(Code::SpecUnreadable, &Site::line(1), "the spec is empty", "start with `version: 1`");
    }
    root
}

/// Says that a fault was reported which ends the reading.
struct Stop;

struct Builder<'r> {
    report: &'r mut Report,
    open: Vec<Open>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

/// A map or list that has not ended; a map's key waits for its value.
struct Open {
    node: Node,
    key: Option<(String, u32)>,
    /// The keys so far, and their lines.
    keys: BTreeMap<String, u32>,
}

impl Builder<'_> {
    fn fail(&mut self, code: Code, line: u32, message: impl Into<Cow<'static, str>>, hint: &str) -> Stop {
        self.report.push(code, &Site::line(line), message, hint);
        Stop
    }

    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 1 {
                    return Ok(());
                }
                let hint = "put each pipeline into a file of its own";
                Err(self.fail(Code::SpecUnreadable, line, "the text holds several YAML documents", hint))
            }
            Event::Alias(_) => Err(self.anchors(line)),
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                Err(self.anchors(line))
            }
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err(self.fail(
                    Code::SpecUnreadable,
                    line,
                    "YAML tags are not read",
                    "remove the tag; quote what is text",
                ))
            }
            Event::Scalar(text, style, _, None) => self.scalar(&text, style, line),
            Event::SequenceStart(_, None) => self.start(Node { line, kind: Kind::List(Vec::new()) }),
            Event::MappingStart(_, None) => self.start(Node { line, kind: Kind::Map(Vec::new()) }),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.place(open.node),
                None => Ok(()),
            },
        }
    }

    fn anchors(&mut self, line: u32) -> Stop {
        let hint = "write the value out where it is used";
        self.fail(Code::SpecUnreadable, line, "YAML anchors, aliases and merge keys are not read", hint)
    }

    fn start(&mut self, node: Node) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            let message = format!("the spec nests deeper than {DEPTH_MAX} levels");
            return Err(self.fail(Code::SpecTooLarge, node.line, message, "no key of a spec needs that depth"));
        }
        if self.expects_key() {
            let hint = "a key is one word; in texts, put quotes around `{` and `[`";
            return Err(self.fail(Code::SpecUnreadable, node.line, "a map or list stands where a key must", hint));
        }
        self.open.push(Open { node, key: None, keys: BTreeMap::new() });
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, line: u32) -> Result<(), Stop> {
        if self.expects_key() {
            if text == "<<" && style == ScalarStyle::Plain {
                return Err(self.anchors(line));
            }
            if let Some(open) = self.open.last_mut() {
                open.key = Some((text.into(), line));
            }
            return Ok(());
        }
        let kind = if style == ScalarStyle::Plain { plain(text) } else { Kind::Text(text.into()) };
        self.place(Node { line, kind })
    }

    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.node.kind, Kind::Map(_)) && open.key.is_none())
    }

    fn place(&mut self, node: Node) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!("the spec holds more than {NODES_MAX} values");
            return Err(self.fail(Code::SpecTooLarge, node.line, message, "split it into several pipelines"));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(entries) => {
                let Some((key, line)) = open.key.take() else { return Ok(()) };
                if let Some(first) = open.keys.get(&key) {
                    let message = format!("the key {} stands here again; first in line {first}", quoted(&key));
                    self.report.push(Code::SpecConflict, &Site::line(line), message, "keep one of them");
                } else {
                    open.keys.insert(key.clone(), line);
                    entries.push(Entry { key, line, node });
                }
            }
            Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Text(_) => {}
        }
        Ok(())
    }
}

/// Types a plain scalar by YAML 1.2's core schema. Numbers that 64 bits do not hold stay text.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let radix =
        |prefix: &str, radix| text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).filter(|number| *number >= 0) {
        return Kind::Integer(number);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return match (text.parse(), text.parse()) {
            (Ok(number), _) => Kind::Integer(number),
            (_, Ok(number)) => Kind::Unsigned(number),
            _ => Kind::Text(text.into()),
        };
    }
    let number = text.parse().ok().filter(|number: &f64| is_float(digits) && number.is_finite());
    number.map_or_else(|| Kind::Text(text.into()), Kind::Float)
}

/// Tells whether `digits` is `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn is_float(digits: &str) -> bool {
    let all = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let mantissa_valid = all(whole) && all(fraction) && !(whole.is_empty() && fraction.is_empty());
    mantissa_valid && exponent.is_none_or(|digits| !digits.is_empty() && all(digits)) && digits != "."
}

/// Writes JSON's surrogate pairs (`\ud83d\ude00`) out, which YAML's escapes do not know; lines stay where they are.
fn surrogates_decoded(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('{') || !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut rest, mut at) = (String::with_capacity(text.len()), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        let pair = (unit(at), unit(at + 6));
        if let (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) = pair {
            let point = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            out.push_str(&text[rest..at]);
            out.extend(char::from_u32(point));
            at += 12;
            rest = at;
        } else {
            // Skips the escaped character too, so that `\\ud83d` stays what it is.
            at += 1;
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
    }
    out.push_str(&text[rest..]);
    Cow::Owned(out)
}

fn line_at(text: &str, byte: usize) -> u32 {
    line_number(1 + text.as_bytes()[..byte].iter().filter(|byte| **byte == b'\n').count())
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Node, plain, read};
    use crate::spec::report::Report;

    #[track_caller]
    fn check_fails(text: &str, wanted: (&str, u32)) {
        let mut report = Report::default();
        read(text, &mut report);
        let found = report.finish();
        let first = found.first().expect("a diagnostic");
        assert_eq!((first.code.to_string().as_str(), first.line.unwrap_or(0)), wanted, "{first}");
    }

    fn tree(text: &str) -> Node {
        let mut report = Report::default();
        let node = read(text, &mut report);
        assert_eq!(report.finish(), Vec::new());
        node.expect("a tree")
    }

    #[test]
    fn plain_scalars_have_the_core_schemas_types() {
        for (text, wanted) in [
            ("~", Kind::Null),
            ("true", Kind::Bool(true)),
            ("yes", Kind::Text("yes".into())),
            ("on", Kind::Text("on".into())),
            ("12", Kind::Integer(12)),
            ("-12", Kind::Integer(-12)),
            ("0x1F", Kind::Integer(31)),
            ("0o17", Kind::Integer(15)),
            ("18446744073709551615", Kind::Unsigned(u64::MAX)),
            ("18446744073709551616", Kind::Text("18446744073709551616".into())),
            ("1.5", Kind::Float(1.5)),
            ("1e3", Kind::Float(1000.0)),
            (".5", Kind::Float(0.5)),
            (".", Kind::Text(".".into())),
            ("1e", Kind::Text("1e".into())),
            (".inf", Kind::Text(".inf".into())),
            ("1e999", Kind::Text("1e999".into())),
            ("1%", Kind::Text("1%".into())),
            ("2013-01-01", Kind::Text("2013-01-01".into())),
            ("2013-01-01T10:00:00Z", Kind::Text("2013-01-01T10:00:00Z".into())),
        ] {
            assert_eq!(plain(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_could_expand_or_hide_is_refused() {
        check_fails("", ("DW0101", 1));
        check_fails("# only a comment\n", ("DW0101", 1));
        check_fails("a: &x 1\nb: *x\n", ("DW0101", 1));
        check_fails("a: 1\nb: *x\n", ("DW0101", 2));
        check_fails("a: 1\n<<: {b: 2}\n", ("DW0101", 2));
        check_fails("a: !!str 1\n", ("DW0101", 1));
        check_fails("a: 1\n---\na: 2\n", ("DW0101", 2));
        check_fails("a: 1\nb: [\n", ("DW0101", 3));
        check_fails("a: 1\n\0b: 2\n", ("DW0101", 2));
        check_fails("? [a]\n: 1\n", ("DW0101", 1));
        check_fails("a: 1\nb: 1\na: 2\n", ("DW0106", 3));
        check_fails(&"- ".repeat(1 << 19), ("DW0112", 1));
        check_fails(&format!("a: {}", "[".repeat(200)), ("DW0112", 1));
        check_fails(&"[".repeat(1 << 20), ("DW0101", 1));
        check_fails(&format!("[{}]", "a,".repeat(150_000)), ("DW0112", 1));
        check_fails(&" ".repeat((1 << 20) + 1), ("DW0112", 0));
    }

    #[test]
    fn json_is_read_as_it_is() {
        let node = tree("{\n\t\"a\": \"\\ud83d\\ude00 \\\\ud83d \\/\",\n\t\"b\": [1, null]\n}");
        let a = node.entry("a").expect("a");
        assert_eq!((&a.node.kind, a.line), (&Kind::Text("😀 \\ud83d /".into()), 2));
        assert_eq!(node.entry("b").and_then(|b| b.node.item(1)).map(|node| node.line), Some(3));
    }
}
