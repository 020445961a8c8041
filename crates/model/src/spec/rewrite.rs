//! Other URIs in a spec's text; every other byte of it stays, so lines and comments do too.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Replaces the URI of each source and sink that `replace` has another one for.
///
/// The text must be a valid spec. A URI in a block scalar, which nobody writes, is left as it is.
pub(super) fn uris(text: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    offsets.push(text.len());
    let (mut rewritten, mut end) = (String::with_capacity(text.len()), 0);
    for (uri, first) in found(text) {
        let Some(from) = offsets.get(first) else { continue };
        let (Some(length), Some(other)) = (length(&text[*from..], &uri), replace(&uri)) else { continue };
        rewritten.push_str(&text[end..*from]);
        // A JSON string is one of YAML's, in both of its styles.
        rewritten.push_str(&serde_json::Value::from(other).to_string());
        end = from + length;
    }
    rewritten.push_str(&text[end..]);
    rewritten
}

/// Returns how long a scalar is as it is written. (The parser's own end takes in what stands behind it, comments too.)
fn length(text: &str, scalar: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut rest = text.char_indices().skip(1).peekable();
    match quote {
        '"' => {
            while let Some((at, character)) = rest.next() {
                match character {
                    '\\' => rest.next().map(drop)?,
                    '"' => return Some(at + 1),
                    _ => {}
                }
            }
            None
        }
        '\'' => {
            while let Some((at, character)) = rest.next() {
                let is_doubled = rest.peek().is_some_and(|(_, next)| *next == '\'');
                match character {
                    '\'' if is_doubled => rest.next().map(drop)?,
                    '\'' => return Some(at + 1),
                    _ => {}
                }
            }
            None
        }
        _ => text.starts_with(scalar).then_some(scalar.len()),
    }
}

/// Returns the URIs with where they start, in characters.
fn found(text: &str) -> Vec<(String, usize)> {
    let (mut uris, mut path) = (Vec::new(), Vec::<Place>::new());
    let mut parser = Parser::new_from_str(text);
    while let Some(Ok((event, span))) = parser.next_event() {
        match event {
            Event::MappingStart(..) => path.push(Place::Map(None)),
            Event::SequenceStart(..) => path.push(Place::List),
            Event::MappingEnd | Event::SequenceEnd => {
                path.pop();
                value_ended(&mut path);
            }
            Event::Scalar(scalar, style, ..) => match path.last_mut() {
                Some(Place::Map(key @ None)) => *key = Some(scalar.into_owned()),
                _ => {
                    let is_inline = !matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                    if is_inline && is_uri(&path) {
                        uris.push((scalar.into_owned(), span.start.index()));
                    }
                    value_ended(&mut path);
                }
            },
            _ => {}
        }
    }
    uris
}

enum Place {
    /// A map, with the key whose value comes next.
    Map(Option<String>),
    List,
}

fn value_ended(path: &mut [Place]) {
    if let Some(Place::Map(key)) = path.last_mut() {
        *key = None;
    }
}

fn is_uri(path: &[Place]) -> bool {
    let keys: Vec<_> = path
        .iter()
        .map(|place| match place {
            Place::Map(key) => key.as_deref().unwrap_or_default(),
            Place::List => "",
        })
        .collect();
    matches!(keys[..], ["source" | "sink", "uri"] | ["sources" | "sinks", _, "uri"])
}

#[cfg(test)]
mod tests {
    use super::uris;
    use crate::spec::{Locator, Spec};

    #[track_caller]
    fn check(text: &str, wanted: &str) {
        let absolute = |uri: &str| (!uri.contains("://")).then(|| format!("/ä b/{uri}"));
        let rewritten = uris(text, absolute);
        assert_eq!(rewritten, wanted);
        let (before, after) = (Spec::parse(text).expect("a spec"), Spec::parse(&rewritten).expect("a spec"));
        let mut changed = before;
        let locators = changed.sources.values_mut().map(|source| &mut source.locator);
        for locator in locators.chain(changed.sinks.values_mut().map(|sink| &mut sink.locator)) {
            if let Locator::Uri(uri) = locator {
                *uri = absolute(uri).unwrap_or_else(|| uri.clone());
            }
        }
        assert_eq!(changed, after);
    }

    #[test]
    fn only_uris_change() {
        check(
            "# ö\nversion: 1\npipeline: p\ndescription: 'uri: x.csv'\nsources:\n  a: { uri: ü/a.csv }   # mine\n  \
             b:\n    uri: \"b.csv\"  # mine\n  c: {uri: 'c''s.csv', format: csv}\ntransform:\n  \
             - {name: s, sql: SELECT * FROM a}\nsink: {uri: out/{data_interval_start:%Y}.csv , from: s, mode: replace}\n"
                .replace("out/{data_interval_start:%Y}.csv", "\"out/{data_interval_start:%Y}.csv\"")
                .as_str(),
            "# ö\nversion: 1\npipeline: p\ndescription: 'uri: x.csv'\nsources:\n  a: { uri: \"/ä b/ü/a.csv\" }   # mine\n  \
             b:\n    uri: \"/ä b/b.csv\"  # mine\n  c: {uri: \"/ä b/c's.csv\", format: csv}\ntransform:\n  \
             - {name: s, sql: SELECT * FROM a}\nsink: {uri: \"/ä b/out/{data_interval_start:%Y}.csv\" , from: s, mode: replace}\n",
        );
        check(
            r#"{"version": 1, "pipeline": "p", "source": {"uri": "a.csv"}, "sink": {"uri": "s3://b/out/", "format": "csv", "mode": "replace"}}"#,
            r#"{"version": 1, "pipeline": "p", "source": {"uri": "/ä b/a.csv"}, "sink": {"uri": "s3://b/out/", "format": "csv", "mode": "replace"}}"#,
        );
    }
}
