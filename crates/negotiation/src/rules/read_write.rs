//! A sink that writes what a source reads: the run would eat its own input, or the next run its own output.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, Role},
    spec::{Locator, TableName},
};

use super::{conflict, remedy};
use crate::case::Case;

/// A part's name as a sink's folder might hold it, to try globs on.
const ANY_PART: &str = "part-0.parquet";

/// Returns the sources that a sink would overwrite.
#[must_use]
pub fn objections(case: Case<'_>, name: &Name) -> Vec<Conflict> {
    let sink = &case.spec.sinks[name];
    let mut found = Vec::new();
    for (source_name, source) in &case.spec.sources {
        let same_system = match (case.profile(source_name), case.inspection(name)) {
            (Some(profile), Some(seen)) => profile.identity == seen.identity,
            _ => false,
        };
        if same_system && collides(&source.locator, &sink.locator) {
            let message = format!("it would write to what source {source_name} reads");
            let mut conflict = conflict(ConflictKind::ReadWrite, Role::Loading, name.as_str(), message);
            conflict.remedies.push(remedy(format!("sinks.{name}"), "write somewhere else"));
            found.push(conflict);
        }
    }
    found
}

fn collides(source: &Locator, sink: &Locator) -> bool {
    match (source, sink) {
        (Locator::Table { table: read, .. }, Locator::Table { table: written, .. }) => same_table(read, written),
        (Locator::Uri(read), Locator::Uri(written)) => {
            let (read, written) = (plain(read), plain(written));
            match written.ends_with('/') {
                true => matches(&read, &format!("{written}{ANY_PART}")) || read.starts_with(&written),
                false => matches(&read, &written),
            }
        }
        // What a query reads is the database's to know.
        (Locator::Query { .. } | Locator::Table { .. } | Locator::Uri(_), _) => false,
    }
}

fn same_table(a: &TableName, b: &TableName) -> bool {
    let schema = |name: &TableName| name.schema.clone().unwrap_or_else(|| "public".into());
    a.table == b.table && schema(a) == schema(b)
}

/// Drops what makes equal paths look different.
fn plain(uri: &str) -> String {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    let folder = path.ends_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|last| !last.is_empty() && *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    if folder { joined + "/" } else { joined }
}

/// Tells whether a path matches a glob, folder by folder; `**` is any number of folders.
fn matches(glob: &str, path: &str) -> bool {
    fn folders(glob: &[&str], path: &[&str]) -> bool {
        match (glob.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => (0..=path.len()).any(|skipped| folders(rest, &path[skipped..])),
            (Some((pattern, glob)), Some((name, path))) => {
                text(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>()) && folders(glob, path)
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    fn text(glob: &[char], name: &[char]) -> bool {
        match (glob.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=name.len()).any(|skipped| text(rest, &name[skipped..])),
            (Some(('?', glob)), Some((_, name))) => text(glob, name),
            // A class is taken as any one character: better one conflict too many than an eaten source.
            (Some(('[', glob)), Some((_, name))) => {
                let end = glob.iter().position(|c| *c == ']').map_or(glob.len(), |end| end + 1);
                text(&glob[end..], name)
            }
            (Some((a, glob)), Some((b, name))) => a == b && text(glob, name),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    // More stars than anyone needs would take time exponential in their number.
    if glob.matches('*').count() > 16 {
        return false;
    }
    folders(&glob.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::Locator;

    #[track_caller]
    fn check(source: &str, sink: &str, wanted: bool) {
        let found = super::collides(&Locator::Uri(source.into()), &Locator::Uri(sink.into()));
        assert_eq!(found, wanted, "{source} and {sink}");
    }

    #[test]
    fn what_is_read_is_not_written() {
        check("data/a.csv", "data/a.csv", true);
        check("data/a.csv", "./data/x/../a.csv", true);
        check("data/*.csv", "data/out.csv", true);
        check("data/*.csv", "data/out.parquet", false);
        check("data/*.csv", "data/out/x.csv", false);
        check("data/**/*.csv", "data/out/x.csv", true);
        check("data/*", "data/", true);
        check("data/flights-*.csv", "data/out/", false);
        check("data/out/part.csv", "data/out/", true);
        check("s3://a/x[0-9].csv", "s3://a/x1.csv", true);
        check("s3://a/x.csv", "s3://b/x.csv", false);
    }
}
