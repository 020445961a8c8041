//! Fused or staged.
//!
//! One streaming task moves every byte once and keeps none. Staging pays where something would be done again: a
//! source that several sinks need is read once for each of them; a failing sink makes an unreliable or dear source be
//! read again. It also splits the memory: no task holds all readers, steps and writers at a time.

use std::collections::BTreeSet;

use dagwright_model::{
    id::Name,
    message::{Cost, Placement},
};

use super::{partition, pushdown};
use crate::{case::Case, cost::Rates};

/// How many runs in a thousand a remote source fails in, for each GiB read: broken connections and throttling.
const REMOTE_FAILURES_PER_GIB: u64 = 20;

/// The same for a plain web server, which cannot continue where it broke off.
const HTTP_FAILURES_PER_GIB: u64 = 100;

/// How many runs in a thousand a sink fails in, whatever its size: locks, restarts, full disks.
const SINK_FAILURES: u64 = 10;

/// A placement with what it costs beyond reading and writing once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where.
    pub placement: Placement,
    /// The cost.
    pub cost: Cost,
    /// One sentence.
    pub rationale: String,
}

/// Returns the placements that are possible, with their costs.
#[must_use]
pub fn placements(case: Case<'_>, rates: &Rates) -> Vec<Placed> {
    let reads: Vec<(Name, Cost)> = case
        .spec
        .sources
        .keys()
        .map(|name| {
            let share = pushdown::pushed(case, name).share;
            let cost = case.profile(name).map(|profile| rates.read(profile, share)).unwrap_or_default();
            (name.clone(), cost)
        })
        .collect();
    let rows = reads.iter().map(|(_, cost)| cost.rows).max().unwrap_or(0);
    let bytes: u64 = reads.iter().map(|(_, cost)| cost.bytes).sum();
    let compute = rates.compute(&case.facts.typing, rows, bytes);
    let mut found = vec![fused(case, rates, &reads, compute)];
    if let Ok(source) = partition::mappable(case)
        && let Ok(parts) = partition::parts(case, &source)
    {
        let count = u64::from(parts.count_max);
        let at_once = count.min(rates.parallel_tasks);
        let mut cost = rates.start(count + 1 + case.spec.sinks.len() as u64, 2 + count.div_ceil(at_once)).then(compute);
        cost.wall_ms = rates.start(1, 2 + count.div_ceil(at_once)).wall_ms + compute.wall_ms / at_once;
        let rationale = format!("every step looks at one row at a time, so each of {count} parts runs by itself");
        found.push(Placed { placement: Placement::Mapped, cost, rationale });
    }
    // Each sink continues after its own cursor; what is staged once has one beginning for all of them.
    if !shares_cursor(case) {
        found.push(staged(case, rates, &reads, compute));
    }
    found
}

/// Tells whether an incremental source feeds several sinks.
fn shares_cursor(case: Case<'_>) -> bool {
    let mut sources = case.spec.sources.iter();
    sources.any(|(name, source)| source.incremental.is_some() && case.sinks_of(name).len() > 1)
}

fn fused(case: Case<'_>, rates: &Rates, reads: &[(Name, Cost)], compute: Cost) -> Placed {
    let mut again = Cost { confidence: 100, ..Cost::default() };
    let mut repeated = 0;
    for (name, read) in reads {
        let readers = case.sinks_of(name).len().max(1) as u64;
        repeated += u64::from(readers > 1);
        // Once for each further sink, and once more in the share of runs that fail after it was read.
        let permille = (readers - 1) * 1000 + failures(case, name, read);
        again = again.then(scaled(*read, permille));
    }
    let cost = rates.start(1, 1).then(compute).then(Cost { rows: 0, memory_bytes: 0, ..again });
    let rationale = match repeated {
        0 => "one streaming task, nothing staged".to_string(),
        1 => "one streaming task; one source is read once for each of its sinks".to_string(),
        count => format!("one streaming task; {count} sources are read once for each of their sinks"),
    };
    Placed { placement: Placement::Fused, cost, rationale }
}

fn staged(case: Case<'_>, rates: &Rates, reads: &[(Name, Cost)], compute: Cost) -> Placed {
    let steps = u64::from(!case.spec.transform.is_empty());
    let tasks = reads.len() as u64 + steps + case.spec.sinks.len() as u64 + 1;
    let mut cost = rates.start(tasks, 2 + steps).then(compute);
    for (_, read) in reads {
        cost = cost.then(Cost { memory_bytes: 0, ..rates.stage(read.rows, read.bytes) });
    }
    if steps > 0 {
        // What the steps hand on is staged as well, once for each relation that a sink gets.
        let rows = reads.iter().map(|(_, read)| read.rows).max().unwrap_or(0);
        let bytes = reads.iter().map(|(_, read)| read.bytes).max().unwrap_or(0);
        let handed_on: BTreeSet<&Name> = case.spec.sinks.values().map(|sink| &sink.from).collect();
        for _ in handed_on {
            cost = cost.then(Cost { memory_bytes: 0, ..rates.stage(rows, bytes) });
        }
    }
    let risk: u64 = reads.iter().map(|(name, read)| failures(case, name, read)).max().unwrap_or(0);
    let rationale = if reads.iter().any(|(name, _)| case.sinks_of(name).len() > 1) {
        "each source is read once and kept for all its sinks; a failed load reads nothing again".to_string()
    } else if risk > SINK_FAILURES {
        "a source that may break off is read once; a failed load reads nothing again".to_string()
    } else {
        "each part can be tried again alone, and needs the memory of one".to_string()
    };
    Placed { placement: Placement::Staged, cost, rationale }
}

/// Returns in how many of a thousand runs a fused task reads a source for nothing.
fn failures(case: Case<'_>, source: &Name, read: &Cost) -> u64 {
    let scheme = case.profile(source).map_or("file", |profile| profile.identity.scheme.as_str());
    let rate = match scheme {
        "file" => 0,
        "http" | "https" => HTTP_FAILURES_PER_GIB,
        _ => REMOTE_FAILURES_PER_GIB,
    };
    (SINK_FAILURES + read.bytes.saturating_mul(rate) / (1 << 30)).min(1000)
}

fn scaled(cost: Cost, permille: u64) -> Cost {
    let scale = |value: u64| value.saturating_mul(permille) / 1000;
    Cost {
        rows: scale(cost.rows),
        bytes: scale(cost.bytes),
        cpu_ms: scale(cost.cpu_ms),
        wall_ms: scale(cost.wall_ms),
        ..cost
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{message::Placement, spec::Objective};

    use crate::{
        cost::{Rates, objective},
        rules::fixture::Fixture,
    };

    #[track_caller]
    fn check(fixture: &Fixture, goal: Objective, offered: &[Placement], cheapest: Placement) {
        let found = super::placements(fixture.case(), &Rates::default());
        assert_eq!(found.iter().map(|placed| placed.placement).collect::<Vec<_>>(), offered);
        let best = found.iter().min_by_key(|placed| objective(&placed.cost, goal)).expect("one at least");
        assert_eq!(best.placement, cheapest);
    }

    #[test]
    fn fused_unless_something_is_done_again() {
        use Placement::{Fused, Mapped, Staged};
        check(&Fixture::files(1), Objective::Cost, &[Fused, Staged], Fused);
        check(&Fixture::files(1), Objective::Time, &[Fused, Staged], Fused);
        check(&Fixture::table(), Objective::Cost, &[Fused, Mapped, Staged], Fused);
        let mut incremental = Fixture::table();
        incremental.incremental("seen_at", None);
        check(&incremental, Objective::Cost, &[Fused, Staged], Fused);
        incremental.second_sink("copy");
        check(&incremental, Objective::Cost, &[Fused], Fused);
        // Small sources are cheaper to read again than to keep.
        let mut twice = Fixture::files(1);
        twice.second_sink("copy");
        check(&twice, Objective::Cost, &[Fused, Staged], Fused);
        // A dear query for six sinks is not.
        let mut many = Fixture::table();
        many.profile_mut().bytes.value = 8 << 30;
        for sink in ["b", "c", "d", "e", "f"] {
            many.second_sink(sink);
        }
        many.profile_mut().splits.clear();
        check(&many, Objective::Cost, &[Fused, Staged], Staged);
    }
}
