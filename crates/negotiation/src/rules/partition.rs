//! One read or N partitions.
//!
//! Parts pay where the wall clock counts: each is a task that an engine may start anywhere. They need a chain of
//! row-local steps from one source to every sink, since a join, a sort or a count over a part is not that over the
//! whole. What a run rejects and where its cursor stands is also known only over the whole, so neither is split.

use dagwright_model::{
    facts::SplitProfile,
    id::Name,
    message::Parts,
    spec::{GateRule, Locator, LossyCast, OnFail, Ragged},
    task::SplitBy,
};

use crate::{case::Case, cost::MIB};

/// The bytes of a part that make starting a task for it worthwhile.
const PART_BYTES: u64 = 64 * MIB;

/// More parts than this only queue up.
pub(crate) const PARTS_MAX: u32 = 64;

/// Returns how a source can be read in parts, or why not.
///
/// # Errors
/// One sentence.
pub fn parts(case: Case<'_>, source: &Name) -> Result<Parts, String> {
    let profile = case.profile(source).filter(|profile| profile.exists).ok_or("nothing is there to split")?;
    if case.source(source).incremental.is_some() {
        return Err("its cursor is known only over the whole".into());
    }
    let by_size = u32::try_from(profile.bytes.value.div_ceil(PART_BYTES)).unwrap_or(PARTS_MAX).clamp(2, PARTS_MAX);
    for split in &profile.splits {
        match split {
            SplitProfile::Files { count } if *count >= 2 => {
                let count_max = u32::try_from(*count).unwrap_or(PARTS_MAX).min(by_size.max(2));
                return Ok(Parts { by: SplitBy::Files, count_max });
            }
            SplitProfile::KeyRange { column, .. } => {
                return Ok(Parts { by: SplitBy::KeyRange(column.clone()), count_max: by_size });
            }
            SplitProfile::Files { .. } => {}
        }
    }
    Err("it is one file, or has no indexed column to split by".into())
}

/// Returns the source whose parts the whole pipeline can be run over, or why there is none.
///
/// # Errors
/// One sentence.
pub fn mappable(case: Case<'_>) -> Result<Name, String> {
    let mut sources = case.spec.sources.keys();
    let (Some(source), None) = (sources.next(), sources.next()) else {
        return Err("several sources meet in it".into());
    };
    for (name, sink) in &case.spec.sinks {
        if case.row_local_source(&sink.from).as_ref() != Some(source) {
            return Err(format!("what sink {name} gets is computed over all rows"));
        }
        if matches!(&sink.locator, Locator::Uri(uri) if !uri.ends_with('/')) {
            return Err(format!("sink {name} is one file"));
        }
        let abilities = case.inspection(name).and_then(|seen| Case::connector(&seen.identity)).and_then(|c| c.sink);
        if !abilities.is_some_and(|sink| sink.atomic_partitions) {
            return Err(format!("sink {name} cannot make partitions visible in one instant"));
        }
    }
    if case.spec.policy.lossy_cast == LossyCast::Quarantine || source_sets_aside(case, source) {
        return Err("what share is set aside is judged over all rows".into());
    }
    for gate in &case.spec.quality {
        let whole = matches!(gate.rule, GateRule::Unique(_)) || gate.on_fail == OnFail::Quarantine;
        if whole || case.row_local_source(&gate.on).is_none() {
            return Err(format!("gate {} is judged over all rows", gate.name));
        }
    }
    parts(case, source).map(|_| source.clone())
}

fn source_sets_aside(case: Case<'_>, source: &Name) -> bool {
    case.source(source).csv.ragged == Some(Ragged::Quarantine)
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        facts::SplitProfile,
        spec::{GateRule, LossyCast, OnFail, QualityGate},
        task::SplitBy,
        units::Ratio,
    };

    use crate::rules::fixture::{Fixture, name};

    #[track_caller]
    fn check(fixture: &Fixture, wanted: Result<(SplitBy, u32), &str>) {
        let parts = super::parts(fixture.case(), &fixture.source).map(|parts| (parts.by, parts.count_max));
        let found = super::mappable(fixture.case()).and(parts);
        assert_eq!(found.as_ref().map_err(String::as_str), wanted.as_ref().map_err(|why| *why));
    }

    #[test]
    fn parts_follow_files_or_key_ranges() {
        check(&Fixture::files(1), Err("it is one file, or has no indexed column to split by"));
        check(&Fixture::files(8), Ok((SplitBy::Files, 2)));
        let mut large = Fixture::files(8);
        large.profile_mut().bytes.value = 1 << 30;
        check(&large, Ok((SplitBy::Files, 8)));
        check(&Fixture::table(), Ok((SplitBy::KeyRange("id".into()), 2)));
        let mut huge = Fixture::table();
        huge.profile_mut().bytes.value = 1 << 40;
        check(&huge, Ok((SplitBy::KeyRange("id".into()), 64)));
    }

    #[test]
    fn what_needs_all_rows_is_not_split() {
        let mut incremental = Fixture::table();
        incremental.incremental("seen_at", None);
        check(&incremental, Err("its cursor is known only over the whole"));
        let mut joined = Fixture::table();
        joined.step("totals", &["id", "amount"], false);
        check(&joined, Err("what sink warehouse gets is computed over all rows"));
        let mut filtered = Fixture::table();
        filtered.step("positive", &["id", "amount"], true);
        check(&filtered, Ok((SplitBy::KeyRange("id".into()), 2)));
        let mut gated = Fixture::table();
        gated.spec.quality.push(QualityGate {
            name: name("once"),
            on: gated.source.clone(),
            rule: GateRule::Unique(vec!["id".into()]),
            on_fail: OnFail::Fail,
            max_rejected: Ratio(0),
        });
        check(&gated, Err("gate once is judged over all rows"));
        let mut lossy = Fixture::table();
        lossy.spec.policy.lossy_cast = LossyCast::Quarantine;
        check(&lossy, Err("what share is set aside is judged over all rows"));
        let mut unsplit = Fixture::table();
        unsplit.profile_mut().splits = vec![SplitProfile::Files { count: 1 }];
        check(&unsplit, Err("it is one file, or has no indexed column to split by"));
    }
}
