//! Collects diagnostics, and knows the place each belongs to.
//!
//! Messages may quote the spec, never a credential: [`quoted`] is the one way to do it.

use std::borrow::Cow;

use super::{
    diagnostic::Diagnostic,
    secrets,
    tree::{Entry, Kind, Node},
};
use crate::code::Code;

/// The most diagnostics returned for one spec; more help nobody.
const DIAGNOSTICS_MAX: usize = 200;

/// How many are looked for before that; of these the first by line are returned.
const FOUND_MAX: usize = 1000;

/// The most characters of a spec's text that a message repeats.
const QUOTE_LENGTH_MAX: usize = 60;

/// The maps and lists whose entries have nothing to do with each other.
const COLLECTIONS: [&str; 5] = ["params", "sources", "transform", "sinks", "quality"];

/// Diagnostics found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Diagnostic>,
}

/// A place in a spec.
#[derive(Clone, Debug)]
pub(super) struct Site<'t> {
    node: Option<&'t Node>,
    path: String,
    line: Option<u32>,
}

// === impl Report ===

impl Report {
    /// Adds a diagnostic.
    pub(super) fn push(
        &mut self,
        code: Code,
        site: &Site<'_>,
        message: impl Into<Cow<'static, str>>,
        hint: impl Into<String>,
    ) {
        if self.is_full() {
            return;
        }
        self.found.push(Diagnostic {
            code,
            path: site.path.clone(),
            line: site.line,
            message: message.into().into_owned(),
            hint: hint.into(),
        });
    }

    /// Tells whether so much was found that looking further is a waste.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= FOUND_MAX
    }

    /// Tells whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds what another pass found over a tree pruned of what this one objected to, unless it may only follow from
    /// the pruning: that is, unless this one found something at, below or beside the same place.
    pub(super) fn add_independent(&mut self, other: Self) {
        let independent = |later: &Diagnostic| {
            let parent = later.path.rfind(['.', '[']).map(|end| &later.path[..end]);
            // What stands in a collection of named things has no neighbours there.
            let parent = parent.filter(|parent| !COLLECTIONS.contains(parent));
            let neighbourhood = parent.unwrap_or(&later.path);
            !self.found.iter().any(|known| is_within(&known.path, neighbourhood) || is_within(&later.path, &known.path))
        };
        let kept: Vec<_> = other.found.into_iter().filter(independent).collect();
        self.found.extend(kept);
    }

    /// Returns the diagnostics in the order of lines.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (a.line, &a.path, a.code, &a.message).cmp(&(b.line, &b.path, b.code, &b.message)));
        self.found.dedup();
        self.found.truncate(DIAGNOSTICS_MAX);
        self.found
    }
}

/// Tells whether `path` is `outer` or inside it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || (!outer.is_empty() && rest.starts_with(['.', '['])))
}

// === impl Site ===

impl<'t> Site<'t> {
    /// The whole document.
    pub(super) fn root(node: Option<&'t Node>) -> Self {
        Self { node, path: String::new(), line: node.map(|node| node.line) }
    }

    /// A line of a text that is not yet a tree.
    pub(super) fn line(line: u32) -> Self {
        Self { node: None, path: String::new(), line: Some(line) }
    }

    /// The value of a key; where the key is absent, its path and the line of the map.
    pub(super) fn key(&self, key: &str) -> Self {
        let entry = self.node.and_then(|node| node.entry(key));
        Self {
            node: entry.map(|entry| &entry.node),
            path: joined(&self.path, key),
            line: entry.map(|entry| entry.line).or(self.line),
        }
    }

    /// The value of an entry of the map that stands here.
    pub(super) fn entry(&self, entry: &'t Entry) -> Self {
        Self { node: Some(&entry.node), path: joined(&self.path, &entry.key), line: Some(entry.line) }
    }

    /// An item of a list.
    pub(super) fn index(&self, index: usize) -> Self {
        let item = self.node.and_then(|node| node.item(index));
        Self { node: item, path: format!("{}[{index}]", self.path), line: item.map(|item| item.line).or(self.line) }
    }

    /// The value that stands here.
    pub(super) fn node(&self) -> Option<&'t Node> {
        self.node
    }

    /// Tells whether something other than nothing stands here.
    pub(super) fn is_given(&self) -> bool {
        self.node.is_some_and(|node| node.kind != Kind::Null)
    }
}

fn joined(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if plain { Cow::Borrowed(key) } else { Cow::Owned(quoted(key)) };
    if path.is_empty() { key.into_owned() } else { format!("{path}.{key}") }
}

// === words ===

/// Quotes a text of the spec for a message: escaped, cut, and left out where it may hold a credential.
pub(super) fn quoted(text: &str) -> String {
    if secrets::in_text(text).is_some() || secrets::in_uri(text).is_some() {
        return "(withheld: it may hold a credential)".into();
    }
    let cut: String = text.chars().take(QUOTE_LENGTH_MAX).collect();
    let ellipsis = if cut.len() < text.len() { "…" } else { "" };
    format!("{:?}", cut + ellipsis)
}

/// Writes `words` as `a, b or c`.
pub(super) fn alternatives<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// Returns the candidate that `word` is most probably a misspelling of.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long hostile keys would make the quadratic comparison dear.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    let distances = candidates.into_iter().map(|known| (strsim::damerau_levenshtein(&word, known), known));
    distances.filter(|(distance, known)| *distance <= limit && *distance < known.len()).min().map(|(_, known)| known)
}

/// Says which of `candidates` was probably meant, or what there is to choose from.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => match alternatives(candidates) {
            known if known.is_empty() => String::new(),
            known => format!("known here: {known}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, is_within, quoted};

    #[test]
    fn misspellings_are_recognised() {
        assert_eq!(did_you_mean("sorces", ["sources", "sinks"]), "did you mean `sources`?");
        assert_eq!(did_you_mean("Mode", ["mode", "key"]), "did you mean `mode`?");
        assert_eq!(did_you_mean("colour", ["mode", "key"]), "known here: `mode` or `key`");
        assert_eq!(did_you_mean(&"x".repeat(100_000), ["mode"]), "known here: `mode`");
    }

    #[test]
    fn quotes_are_short_and_hold_no_credential() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
        assert!(!quoted("postgresql://me:hunter2@db/x").contains("hunter2"));
    }

    #[test]
    fn paths_nest_by_whole_segments() {
        assert!(is_within("sinks.lake.mode", "sinks.lake"));
        assert!(is_within("transform[1].sql", "transform"));
        assert!(!is_within("sinks.lakes", "sinks.lake"));
        assert!(!is_within("sinks", ""));
    }
}
