//! Incremental reading: whether the cursor holds, and what to suggest when it does not.
//!
//! A run reads what lies beyond the committed cursor, less the late window. So a row whose cursor is NULL is never
//! read; a row that arrives late with a smaller cursor is read only if the window reaches back to it; and a row read
//! twice because of the window is loaded twice, unless the sink replaces rows by key.

use dagwright_model::{
    facts::{SourceProfile, WatermarkProfile},
    id::Name,
    message::{Conflict, ConflictKind, Role},
    schema::DataType,
    spec::{Lag, SinkMode},
};

use super::{conflict, percent, remedy};
use crate::case::Case;

/// From how many bytes on a full scan is dear enough to suggest a cursor: some seconds of reading.
const SUGGEST_BYTES_MIN: u64 = 1 << 30;

/// Returns everything that speaks against a source's cursor; nothing for a source that is read in full.
#[must_use]
pub fn objections(case: Case<'_>, source: &Name) -> Vec<Conflict> {
    let (Some(incremental), Some(profile)) = (&case.source(source).incremental, case.profile(source)) else {
        return Vec::new();
    };
    if !profile.exists {
        return Vec::new();
    }
    let cursor = &incremental.cursor;
    let path = format!("sources.{source}.incremental");
    let object = |message: String| {
        let mut found = conflict(ConflictKind::Cursor, Role::Extraction, source.as_str(), message);
        found.column = Some(cursor.clone());
        found
    };
    let mut found = Vec::new();
    let alternative = best(profile, cursor);
    let use_other = |conflict: &mut Conflict| {
        if let Some(other) = alternative {
            let how = match (other.indexed, other.regressions) {
                (_, 1..) => ", with a lag for rows that come late",
                (true, 0) => " and an index",
                (false, 0) => "",
            };
            let change = format!("use {}, which has no NULL{how}", other.column);
            conflict.remedies.push(remedy(format!("{path}.cursor"), change));
        }
    };
    let Some(seen) = profile.columns.iter().find(|seen| seen.column.name == *cursor) else {
        let mut missing = object(format!("cursor {cursor}: source {source} has no such column"));
        use_other(&mut missing);
        missing.remedies.push(remedy(path, "name a column of the source"));
        return vec![missing];
    };
    let nulls = seen.nulls.max(profile.watermarks.iter().find(|w| w.column == *cursor).map_or(0, |w| w.nulls));
    if nulls > 0 {
        let share = percent(nulls, profile.rows_sampled);
        let mut gaps = object(format!("cursor {cursor}: {share} of the rows have none, and would never be read"));
        use_other(&mut gaps);
        gaps.remedies.push(remedy(path.clone(), "remove it to read everything each time"));
        found.push(gaps);
    }
    let data_type = &seen.column.data_type;
    if !data_type.is_ordered() {
        let mut unordered = object(format!("cursor {cursor}: {data_type} values have no order to continue in"));
        use_other(&mut unordered);
        found.push(unordered);
    }
    found.extend(check_lag(case, source, data_type).map(|(message, remedies)| {
        let mut wrong = object(message);
        wrong.remedies = remedies;
        wrong
    }));
    let regressions = profile.watermarks.iter().find(|w| w.column == *cursor).map_or(0, |w| w.regressions);
    if regressions > 0 && incremental.lag.is_none() {
        let share = percent(regressions, profile.rows_sampled);
        let mut backwards =
            object(format!("cursor {cursor}: {share} of the rows run backwards, so late ones are lost"));
        backwards.remedies.push(remedy(format!("{path}.lag"), "set how late a row may come, such as 1d"));
        use_other(&mut backwards);
        found.push(backwards);
    }
    found
}

/// Returns a sentence that suggests a cursor, where a full scan is dear and a column would serve.
#[must_use]
pub fn suggestion(case: Case<'_>, source: &Name) -> Option<String> {
    let profile = case.profile(source)?;
    if case.source(source).incremental.is_some() || profile.bytes.value < SUGGEST_BYTES_MIN {
        return None;
    }
    let best = best(profile, "").filter(|found| found.regressions == 0)?;
    Some(format!("`incremental: {{ cursor: {} }}` would read only what is new", best.column))
}

/// Returns the column that would serve best as a cursor.
fn best<'a>(profile: &'a SourceProfile, except: &str) -> Option<&'a WatermarkProfile> {
    let serves = |found: &&WatermarkProfile| found.column != except && found.nulls == 0;
    // A day of the month never runs backwards within one month's file, and yet starts anew: of numbers, only those
    // that tell rows apart are believed.
    let tells_apart = |found: &&WatermarkProfile| {
        profile.columns.iter().find(|seen| seen.column.name == found.column).is_some_and(|seen| {
            is_temporal(&seen.column.data_type)
                || seen.distinct.is_none_or(|distinct| distinct.saturating_mul(2) >= profile.rows_sampled)
        })
    };
    profile.watermarks.iter().filter(serves).find(tells_apart)
}

fn is_temporal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date | DataType::Time | DataType::Timestamp | DataType::TimestampTz)
}

fn check_lag(
    case: Case<'_>,
    source: &Name,
    data_type: &DataType,
) -> Option<(String, Vec<dagwright_model::message::Remedy>)> {
    let incremental = case.source(source).incremental.as_ref()?;
    let cursor = &incremental.cursor;
    let lag = incremental.lag?;
    let path = format!("sources.{source}.incremental.lag");
    match lag {
        Lag::Time(_) if !is_temporal(data_type) => {
            let change = remedy(path, "write a whole number, or remove it");
            return Some((format!("cursor {cursor}: a lag in time does not fit {data_type}"), vec![change]));
        }
        Lag::Number(_) if !data_type.is_number() => {
            let change = remedy(path, "write a time span such as 1d, or remove it");
            return Some((format!("cursor {cursor}: a lag in numbers does not fit {data_type}"), vec![change]));
        }
        Lag::Time(_) | Lag::Number(_) => {}
    }
    let appended =
        case.sinks_of(source).into_iter().find(|sink| case.spec.sinks[&sink.name].mode == SinkMode::Append)?;
    let changes = vec![
        remedy(format!("sinks.{}.mode", appended.name), "use upsert with a key"),
        remedy(path, "remove it, if no row comes late"),
    ];
    Some((format!("cursor {cursor}: sink {} would append the rows of the late window again", appended.name), changes))
}

#[cfg(test)]
mod tests {
    use dagwright_model::message::ConflictKind;

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fixture), wanted: &[&str]) {
        let mut fixture = Fixture::table();
        fixture.incremental("seen_at", None);
        change(&mut fixture);
        let found = super::objections(fixture.case(), &fixture.source);
        assert!(found.iter().all(|conflict| conflict.kind == ConflictKind::Cursor));
        let messages: Vec<_> = found.iter().map(|conflict| conflict.message.as_str()).collect();
        assert_eq!(messages, wanted);
    }

    #[test]
    fn a_cursor_must_hold() {
        check(|_| {}, &[]);
        check(
            |f| f.column_mut("seen_at").nulls = 31,
            &["cursor seen_at: 3.1 % of the rows have none, and would never be read"],
        );
        check(
            |f| f.profile_mut().watermarks[0].regressions = 2,
            &["cursor seen_at: 0.2 % of the rows run backwards, so late ones are lost"],
        );
        check(
            |f| {
                f.profile_mut().watermarks[0].regressions = 2;
                f.incremental("seen_at", Some("1d"));
                f.upsert(&["id"]);
            },
            &[],
        );
        check(
            |f| f.incremental("seen_at", Some("1d")),
            &["cursor seen_at: sink warehouse would append the rows of the late window again"],
        );
        check(|f| f.incremental("gone", None), &["cursor gone: source items has no such column"]);
        check(|f| f.incremental("id", Some("1d")), &["cursor id: a lag in time does not fit int64"]);
    }

    #[test]
    fn another_cursor_is_suggested() {
        let mut fixture = Fixture::table();
        fixture.incremental("amount", None);
        fixture.column_mut("amount").nulls = 1;
        let found = super::objections(fixture.case(), &fixture.source);
        assert_eq!(found[0].remedies[0].change, "use seen_at, which has no NULL and an index");
        let mut fixture = Fixture::table();
        assert_eq!(super::suggestion(fixture.case(), &fixture.source), None);
        fixture.profile_mut().bytes.value = 2 << 30;
        let suggested = super::suggestion(fixture.case(), &fixture.source);
        assert_eq!(suggested.as_deref(), Some("`incremental: { cursor: seen_at }` would read only what is new"));
    }
}
