//! An upsert's key against the rows that come: whether two of them share it.
//!
//! Which of them wins is the request's to say, never the agents': without `dedupe` they only offer what it could be,
//! and the conflict stands. Where nothing is known (after a join, say) the load itself checks, and ends the run before
//! anything is visible.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, Role},
    spec::SinkMode,
};

use super::{conflict, percent, remedy};
use crate::case::Case;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No two rows share it.
    Unique,
    /// Some do.
    Repeats,
    /// Only the load will tell.
    Unknown,
}

/// Tells what is known of the key of an upsert.
#[must_use]
pub fn known(case: Case<'_>, sink: &Name) -> Known {
    let Some((check, filtered)) = seen(case, sink) else { return Known::Unknown };
    match check.duplicates.value {
        0 if check.duplicates.exact && check.nulls == 0 => Known::Unique,
        0 => Known::Unknown,
        // A filter may drop just the rows that repeat.
        _ if filtered => Known::Unknown,
        _ => Known::Repeats,
    }
}

/// Returns what speaks against upserting by the sink's key.
#[must_use]
pub fn objections(case: Case<'_>, name: &Name) -> Vec<Conflict> {
    let sink = &case.spec.sinks[name];
    if sink.mode != SinkMode::Upsert {
        return Vec::new();
    }
    let object = |message| conflict(ConflictKind::Key, Role::Loading, name.as_str(), message);
    let columns = case.columns(&sink.from);
    let absent: Vec<_> = sink.key.iter().filter(|key| !columns.iter().any(|column| column.name == **key)).collect();
    if !absent.is_empty() {
        let names = absent.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        let mut found = object(format!("key column {names}: {} has none of that name", sink.from));
        found.remedies.push(remedy(format!("sinks.{name}.key"), "name columns of what the sink gets"));
        return vec![found];
    }
    let mut found = Vec::new();
    for term in sink.dedupe.iter().filter(|term| !columns.iter().any(|column| column.name == term.column)) {
        let mut unknown = object(format!("dedupe column {}: {} has none of that name", term.column, sink.from));
        unknown.remedies.push(remedy(format!("sinks.{name}.dedupe"), "order by columns of what the sink gets"));
        found.push(unknown);
    }
    if let Some((check, false)) = seen(case, name)
        && check.nulls > 0
    {
        let rows =
            case.origins(&sink.from).iter().filter_map(|source| case.profile(source)).map(|p| p.rows.value).max();
        let share = percent(check.nulls, rows.unwrap_or(check.nulls));
        let mut gaps = object(format!("key {}: {share} of the rows have a NULL in it", sink.key.join(", ")));
        gaps.remedies.push(remedy(format!("sinks.{name}.key"), "use columns that always hold a value"));
        gaps.remedies.push(remedy("transform", "filter such rows out, or fill the column in"));
        found.push(gaps);
    }
    if known(case, name) == Known::Repeats && sink.dedupe.is_empty() {
        let count = seen(case, name).map_or(0, |(check, _)| check.duplicates.value);
        let message = format!("key {}: {count} rows repeat the key of another one", sink.key.join(", "));
        let mut repeats = object(message);
        if let Some(watermark) = watermark(case, name) {
            let change = format!("keep the latest: {{ order_by: [{watermark} desc] }}");
            repeats.remedies.push(remedy(format!("sinks.{name}.dedupe"), change));
        } else {
            repeats.remedies.push(remedy(format!("sinks.{name}.dedupe"), "say by which order one of them wins"));
        }
        repeats.remedies.push(remedy(format!("sinks.{name}.key"), "use columns that identify a row"));
        found.push(repeats);
    }
    found
}

/// Returns the best column of the relation to call a row the latest by.
#[must_use]
pub fn watermark(case: Case<'_>, name: &Name) -> Option<String> {
    let sink = &case.spec.sinks[name];
    let columns = case.columns(&sink.from);
    let mut best: Option<(usize, String)> = None;
    for column in columns.iter().filter(|column| !sink.key.contains(&column.name)) {
        let Some(traced) = case.trace(&sink.from, &column.name) else { continue };
        let watermarks = &case.profile(traced.source)?.watermarks;
        let rank = watermarks.iter().position(|w| w.column == traced.profile.column.name && w.nulls == 0);
        if let Some(rank) = rank
            && best.as_ref().is_none_or(|(known, _)| rank < *known)
        {
            best = Some((rank, column.name.clone()));
        }
    }
    best.map(|(_, column)| column)
}

/// Returns the check of the key at the source that the sink's rows come from one to one, and whether a filter lies in
/// between.
fn seen<'a>(case: Case<'a>, name: &Name) -> Option<(&'a dagwright_model::facts::KeyCheck, bool)> {
    let sink = &case.spec.sinks[name];
    let source = case.row_local_source(&sink.from)?;
    let traced: Option<Vec<_>> = sink.key.iter().map(|key| case.trace(&sink.from, key)).collect();
    let traced = traced?;
    let names: Vec<_> = traced.iter().map(|traced| &traced.profile.column.name).collect();
    let same = |check: &&dagwright_model::facts::KeyCheck| {
        check.columns.len() == names.len() && names.iter().all(|name| check.columns.contains(name))
    };
    let check = case.profile(&source)?.key_checks.iter().find(same)?;
    Some((check, traced.iter().any(|traced| !traced.every_row)))
}

#[cfg(test)]
mod tests {
    use dagwright_model::facts::{Count, KeyCheck};

    use super::Known;
    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fixture), known: Known, objections: &[&str]) {
        let mut fixture = Fixture::table();
        fixture.upsert(&["id"]);
        let duplicates = Count { value: 0, exact: true };
        fixture.profile_mut().key_checks = vec![KeyCheck { columns: vec!["id".into()], duplicates, nulls: 0 }];
        change(&mut fixture);
        assert_eq!(super::known(fixture.case(), &fixture.sink), known);
        let found = super::objections(fixture.case(), &fixture.sink);
        assert_eq!(found.iter().map(|conflict| conflict.message.as_str()).collect::<Vec<_>>(), objections);
    }

    #[test]
    fn a_key_that_repeats_needs_a_word_of_the_request() {
        let repeat = |f: &mut Fixture| f.profile_mut().key_checks[0].duplicates.value = 3;
        check(|_| {}, Known::Unique, &[]);
        check(repeat, Known::Repeats, &["key id: 3 rows repeat the key of another one"]);
        check(
            |f| {
                repeat(f);
                f.dedupe("seen_at");
            },
            Known::Repeats,
            &[],
        );
        check(
            |f| f.profile_mut().key_checks[0].nulls = 10,
            Known::Unknown,
            &["key id: 1.0 % of the rows have a NULL in it"],
        );
        check(|f| f.profile_mut().key_checks.clear(), Known::Unknown, &[]);
        check(|f| f.dedupe("gone"), Known::Unique, &["dedupe column gone: items has none of that name"]);
        check(|f| f.upsert(&["gone"]), Known::Unknown, &["key column gone: items has none of that name"]);
        check(
            |f| {
                repeat(f);
                f.step("joined", &["id", "amount"], false);
            },
            Known::Unknown,
            &[],
        );
    }

    #[test]
    fn the_latest_by_watermark_is_offered() {
        let mut fixture = Fixture::table();
        fixture.upsert(&["id"]);
        let duplicates = Count { value: 3, exact: true };
        fixture.profile_mut().key_checks = vec![KeyCheck { columns: vec!["id".into()], duplicates, nulls: 0 }];
        let found = super::objections(fixture.case(), &fixture.sink);
        assert_eq!(found[0].remedies[0].path, "sinks.warehouse.dedupe");
        assert_eq!(found[0].remedies[0].change, "keep the latest: { order_by: [seen_at desc] }");
    }
}
