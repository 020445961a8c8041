//! What a connector can do with a sink's mode.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, Role},
    spec::{Locator, SinkMode},
};

use super::{conflict, remedy};
use crate::case::Case;

/// Returns what the sink's system cannot do.
#[must_use]
pub fn objections(case: Case<'_>, name: &Name) -> Vec<Conflict> {
    let sink = &case.spec.sinks[name];
    let Some(seen) = case.inspection(name) else { return Vec::new() };
    let object = |message| conflict(ConflictKind::Unsupported, Role::Loading, name.as_str(), message);
    let Some(abilities) = Case::connector(&seen.identity).and_then(|connector| connector.sink) else {
        let mut found = object(format!("{} systems cannot be written to", seen.identity.scheme));
        found.remedies.push(remedy(format!("sinks.{name}"), "write to a file, an object store or a database"));
        return vec![found];
    };
    if !abilities.modes.contains(&sink.mode) {
        let mut found = object(format!("{} cannot {} rows", seen.identity.scheme, verb(sink.mode)));
        let known: Vec<_> = abilities.modes.iter().map(|mode| verb(*mode)).collect();
        found.remedies.push(remedy(format!("sinks.{name}.mode"), format!("use {}", known.join(" or "))));
        return vec![found];
    }
    if sink.mode == SinkMode::Replace && !seen.referenced_by.is_empty() {
        let tables = seen.referenced_by.join(", ");
        let mut found = object(format!("its rows cannot be replaced: foreign keys of {tables} point at them"));
        found.remedies.push(remedy(format!("sinks.{name}.mode"), "use upsert with a key"));
        found.remedies.push(remedy("", format!("drop the foreign keys of {tables}")));
        return vec![found];
    }
    if sink.mode == SinkMode::Append && matches!(&sink.locator, Locator::Uri(uri) if !uri.ends_with('/')) {
        let mut found = object("one file cannot be appended to".into());
        found.remedies.push(remedy(format!("sinks.{name}.uri"), "end it in / to append parts to a folder"));
        found.remedies.push(remedy(format!("sinks.{name}.mode"), "use replace"));
        return vec![found];
    }
    Vec::new()
}

fn verb(mode: SinkMode) -> &'static str {
    match mode {
        SinkMode::Append => "append",
        SinkMode::Replace => "replace",
        SinkMode::Upsert => "upsert",
        SinkMode::OverwritePartitions => "overwrite_partitions",
        SinkMode::Scd2 => "scd2",
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::{Locator, SinkMode};

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fixture), wanted: &[&str]) {
        let mut fixture = Fixture::table();
        change(&mut fixture);
        let found = super::objections(fixture.case(), &fixture.sink);
        assert_eq!(found.iter().map(|conflict| conflict.message.as_str()).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_connector_says_what_it_cannot_do() {
        check(|_| {}, &[]);
        check(|f| f.inspection_mut().identity.scheme = "https".into(), &["https systems cannot be written to"]);
        check(
            |f| {
                f.inspection_mut().identity.scheme = "s3".into();
                f.upsert(&["id"]);
            },
            &["s3 cannot upsert rows"],
        );
        check(
            |f| {
                f.sink_mut().mode = SinkMode::Replace;
                f.inspection_mut().referenced_by = vec!["orders".into()];
            },
            &["its rows cannot be replaced: foreign keys of orders point at them"],
        );
        check(|f| f.sink_mut().locator = Locator::Uri("out.parquet".into()), &["one file cannot be appended to"]);
    }
}
