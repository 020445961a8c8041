//! Checks URIs of sources and sinks: scheme, form, placeholders, globs, and that no sink overlaps what is read.
//!
//! URIs stay as written; nothing here resolves them. Overlaps are judged on their letters, so two names of one file
//! (a symbolic link, a mount) are not seen.

use indexmap::IndexMap;

use super::{params::INTERVAL_BINDS, site_of};
use crate::{
    catalogue::{self, Connector},
    code::Code,
    id::Name,
    spec::{
        Locator, SINGLE_SINK, Sink, SinkMode, Source,
        report::{Report, Site, did_you_mean, quoted},
    },
};

/// The longest URI.
const URI_LENGTH_MAX: usize = 4096;

/// How many characters are compared in search of overlaps, all in all; honest specs need a thousandth. What lies
/// beyond is only compared for equality: who writes such a spec harms nobody but themselves.
const PATTERN_WORK_MAX: usize = 20_000_000;

/// What `%` may be followed by in a placeholder's format.
const FORMAT_LETTERS: [char; 9] = ['Y', 'm', 'd', 'H', 'M', 'S', 'j', 'y', '%'];

/// Schemes other tools use, and ours for the same.
const OTHER_SCHEMES: [(&str, &str); 10] = [
    ("s3a", "s3"),
    ("s3n", "s3"),
    ("gcs", "gs"),
    ("abfs", "az"),
    ("abfss", "az"),
    ("adl", "az"),
    ("wasb", "az"),
    ("wasbs", "az"),
    ("azure", "az"),
    ("ftp", "https"),
];

/// Whether a URI is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Source,
    Sink,
}

/// A URI in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address<'u> {
    scheme: &'u str,
    /// Host or bucket; empty for local files.
    authority: &'u str,
    path: &'u str,
}

/// Checks a URI, and says whether it ends in `/`, when it is usable.
pub(super) fn check(uri: &str, role: Role, site: &Site<'_>, report: &mut Report) {
    let mut refuse = |message: String, hint: &str| report.push(Code::SpecBadUri, site, message, hint);
    if uri.is_empty() || uri.trim() != uri || uri.len() > URI_LENGTH_MAX {
        return refuse("the URI is empty, too long, or has blanks around it".into(), "");
    }
    let address = match address(uri) {
        Ok(address) => address,
        Err((message, hint)) => return refuse(message, hint),
    };
    let Some(connector) = catalogue::by_scheme(address.scheme) else {
        let known = || catalogue::CONNECTORS.iter().filter(|known| is_files(known)).flat_map(|known| known.schemes);
        let other = OTHER_SCHEMES.iter().find(|(other, _)| *other == address.scheme.to_ascii_lowercase());
        let hint = match other {
            Some((_, ours)) => format!("write `{ours}://`"),
            None => did_you_mean(address.scheme, known().copied()),
        };
        return refuse(format!("the scheme {} is not known", quoted(address.scheme)), &hint);
    };
    if !is_files(connector) {
        let hint = "name a connection: `connection` with `table`, and for sources also `query`";
        return refuse(format!("{}:// is reached through a connection", address.scheme), hint);
    }
    if role == Role::Sink && connector.sink.is_none() {
        return refuse(
            format!("{}:// cannot be written", address.scheme),
            "HTTP is read-only; write to a store or a path",
        );
    }
    let remote = address.scheme != "file";
    if remote && address.authority.is_empty() {
        return refuse("the URI has no host or bucket".into(), "write it like s3://bucket/path");
    }
    if remote && address.path.split('/').any(|part| part == "..") {
        refuse("`..` has no meaning in this store".into(), "write the whole path");
    }
    if let Err((message, hint)) = check_placeholders(address.path) {
        refuse(message, hint);
    }
    if address.authority.contains(['{', '}', '*']) {
        refuse("placeholders and patterns may stand only in the path".into(), "");
    }
    match role {
        Role::Source => {
            if connector.name == "http" && path_of_http(address.path).contains(['*', '[']) {
                refuse("HTTP has no listing, so nothing can match a pattern".into(), "name each file as a source");
            }
        }
        Role::Sink => {
            if address.path.contains(['*', '?', '[', ']']) {
                refuse("a sink's URI holds pattern characters".into(), "`*`, `?`, `[` and `]` serve only for sources");
            }
            if matches!(normal(&address).as_str(), "" | "/") || address.path.ends_with("/..") {
                refuse("the URI names no file or folder".into(), "a folder of its own keeps other data safe");
            }
        }
    }
}

fn is_files(connector: &Connector) -> bool {
    connector.source.is_some_and(|source| source.files)
}

/// Splits a URI; a text without a scheme is a local path.
fn address(uri: &str) -> Result<Address<'_>, (String, &'static str)> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        let drive = uri.as_bytes();
        let is_drive = drive.len() > 2 && drive[0].is_ascii_alphabetic() && drive[1] == b':';
        if is_drive || uri.contains('\\') {
            return Err((
                "Windows paths are not read".into(),
                "write the path with `/`, below the spec's folder or from `/`",
            ));
        }
        if uri.starts_with('~') {
            return Err(("`~` is not expanded".into(), "write the path relative to the spec, or from `/`"));
        }
        if uri.starts_with("file:") {
            return Err(("a file URI has three slashes".into(), "write it like file:///data/x.csv"));
        }
        return Ok(Address { scheme: "file", authority: "", path: uri });
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if scheme == "file" && !(authority.is_empty() && path.len() > 1) {
        return Err(("a file URI has three slashes and then the path".into(), "write it like file:///data/x.csv"));
    }
    Ok(Address { scheme, authority, path })
}

/// Without query and fragment.
fn path_of_http(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

/// Checks `{data_interval_start:%Y-%m-%d}` and the like.
fn check_placeholders(path: &str) -> Result<(), (String, &'static str)> {
    let form = "write it like {data_interval_start:%Y-%m-%d}, in quotes";
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let inside = rest[at..].strip_prefix('{').and_then(|tail| tail.split_once('}'));
        let Some((inside, tail)) = inside.filter(|(inside, _)| !inside.contains('{')) else {
            return Err(("a brace without its partner".into(), form));
        };
        let Some((name, format)) = inside.split_once(':').filter(|(_, format)| !format.is_empty()) else {
            return Err((format!("the placeholder {} has no format", quoted(inside)), form));
        };
        if !INTERVAL_BINDS.contains(&name) {
            let hint = "URIs know data_interval_start and data_interval_end; parameters serve only in SQL";
            return Err((format!("the placeholder {} is not known", quoted(name)), hint));
        }
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter == '%' && !letters.next().is_some_and(|letter| FORMAT_LETTERS.contains(&letter)) {
                return Err((format!("the format {} is not known", quoted(format)), "use %Y %m %d %H %M %S %j %y"));
            }
        }
        rest = tail;
    }
    Ok(())
}

// === overlaps ===

/// Reports sinks that write where a source is read or another sink writes.
pub(super) fn check_overlaps(
    sources: &IndexMap<Name, Source>,
    sinks: &IndexMap<Name, Sink>,
    root: &Site<'_>,
    report: &mut Report,
) {
    let mut work = 0;
    let mut overlap = |sink: &Locator, other: &Locator| overlap(sink, other, &mut work);
    for (index, (name, sink)) in sinks.iter().enumerate() {
        let site = site_of(root, "sinks", SINGLE_SINK, name);
        for (other, source) in sources {
            if overlap(&sink.locator, &source.locator) {
                let message = format!("it writes where the source {} is read", quoted(other.as_str()));
                let hint = "a run would destroy or read again its own input; write somewhere else";
                report.push(Code::SpecConflict, &site.key("uri"), message, hint);
            }
        }
        for (other, earlier) in sinks.iter().take(index) {
            let same_table = matches!(sink.locator, Locator::Table { .. }) && sink.locator == earlier.locator;
            if same_table || overlap(&sink.locator, &earlier.locator) || overlap(&earlier.locator, &sink.locator) {
                let message = format!("it writes where the sink {} writes", quoted(other.as_str()));
                let hint = match sink.mode {
                    SinkMode::Append => "join both with UNION ALL in a step, and write them once",
                    _ => "the later would undo the earlier; write somewhere else",
                };
                let key = if same_table { "table" } else { "uri" };
                report.push(Code::SpecConflict, &site.key(key), message, hint);
            }
        }
    }
}

/// Tells whether what is written at `sink` may be what `other`, possibly a pattern, names.
fn overlap(sink: &Locator, other: &Locator, work: &mut usize) -> bool {
    let (Locator::Uri(sink), Locator::Uri(other)) = (sink, other) else { return false };
    let (Ok(sink), Ok(other)) = (address(sink), address(other)) else { return false };
    if sink.scheme != other.scheme || sink.authority != other.authority {
        return false;
    }
    let (sink, other) = (normal(&sink), normal(&other));
    *work += sink.len() * other.len();
    if *work > PATTERN_WORK_MAX {
        return sink == other;
    }
    let literal = other.find(['*', '?', '[']).map_or(other.as_str(), |at| &other[..at]);
    if other.ends_with('/') && (sink.starts_with(&other) || sink == other.trim_end_matches('/')) {
        return true;
    }
    if sink.ends_with('/') {
        // A folder: anything below it, or a pattern that could reach into it.
        return literal.starts_with(&sink)
            || literal.len() < other.len() && matches_pattern(other.as_bytes(), format!("{sink}part").as_bytes());
    }
    sink == other || literal.len() < other.len() && matches_pattern(other.as_bytes(), sink.as_bytes())
}

/// The path without `.`, and without `..` where it goes back over a named folder.
fn normal(address: &Address<'_>) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in address.path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    let start = if address.path.starts_with('/') { "/" } else { "" };
    let end = if address.path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("{start}{}{end}", parts.join("/"))
}

/// Matches `*` (within a folder), `**` (across folders), `?` and `[…]` (taken for any character); linear in memory,
/// quadratic in time at worst.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    // Which prefixes of the text the pattern read so far can match.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; text.len() + 1];
        let (step, across, any) = match pattern[at] {
            b'*' if pattern.get(at + 1) == Some(&b'*') => {
                // `**/` also stands for no folder at all.
                (if pattern.get(at + 2) == Some(&b'/') { 3 } else { 2 }, true, true)
            }
            b'*' => (1, false, true),
            b'[' => (pattern[at..].iter().position(|byte| *byte == b']').map_or(1, |end| end + 1), false, false),
            _ => (1, false, false),
        };
        if any {
            let mut open = false;
            for index in 0..=text.len() {
                open = reached[index] || (open && (across || text[index - 1] != b'/'));
                next[index] = open;
            }
        } else {
            let wild = matches!(pattern[at], b'?' | b'[');
            for index in 0..text.len() {
                let fits = if wild { text[index] != b'/' } else { text[index] == pattern[at] };
                next[index + 1] = reached[index] && fits;
            }
        }
        reached = next;
        at += step;
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::{Role, check, overlap};
    use crate::spec::{
        Locator,
        report::{Report, Site},
    };

    fn faults(uri: &str, role: Role) -> usize {
        let mut report = Report::default();
        check(uri, role, &Site::root(None), &mut report);
        report.finish().len()
    }

    #[test]
    fn uris_are_checked_by_role() {
        for uri in [
            "data/flights-*.csv",
            "../x/[ab]/**/*.parquet",
            "file:///data/x.csv",
            "s3://bucket/a b/{data_interval_start:%Y/%m/%d}/x.csv",
            "gs://b/k",
            "az://c/k?.csv",
            "https://example.org/x.csv?page=1",
        ] {
            assert_eq!(faults(uri, Role::Source), 0, "{uri}");
        }
        for uri in [
            "",
            " x.csv",
            "C:\\x.csv",
            "C:/x.csv",
            "a\\b.csv",
            "~/x.csv",
            "file://x.csv",
            "file:/x.csv",
            "s3:///x",
            "s3a://b/x",
            "S3://b/x",
            "gopher://x/y",
            "postgresql://db/x",
            "s3://b/../x",
            "https://example.org/*.csv",
            "x{",
            "x}",
            "{x}",
            "{data_interval_start}",
            "{data_interval_start:%Q}",
            "{region:%Y}",
            "s3://{data_interval_start:%Y}/x",
            "{data_interval_start:%}",
            "{{data_interval_start:%Y}}",
        ] {
            assert_eq!(faults(uri, Role::Source), 1, "{uri}");
        }
        for uri in ["out/", "out/x.csv", "s3://b/x/", "file:///x", "../out/{data_interval_end:%Y}.csv"] {
            assert_eq!(faults(uri, Role::Sink), 0, "{uri}");
        }
        for uri in ["https://example.org/x.csv", "out/*.csv", "/", "./", "s3://b/", "s3://b", "a/..", "file:///"] {
            assert_eq!(faults(uri, Role::Sink), 1, "{uri}");
        }
    }

    #[test]
    fn overlaps_are_found() {
        #[track_caller]
        fn check(sink: &str, other: &str, wanted: bool) {
            assert_eq!(
                overlap(&Locator::Uri(sink.into()), &Locator::Uri(other.into()), &mut 0),
                wanted,
                "{sink} {other}"
            );
        }
        check("x.csv", "./x.csv", true);
        check("a/../x.csv", "x.csv", true);
        check("/d/x.csv", "file:///d/x.csv", true);
        check("data/out.csv", "data/*.csv", true);
        check("data/out.csv", "**/*.csv", true);
        check("data/2013/out.csv", "data/*.csv", false);
        check("out.csv", "data/*.csv", false);
        check("data/", "data/x-*.csv", true);
        check("data/", "data/", true);
        check("data/new/", "data/", true);
        check("data/", "database/x.csv", false);
        check("s3://a/x", "s3://b/x", false);
        check("s3://a/x", "x", false);
        check("out/", "**/*", true);
    }
}
