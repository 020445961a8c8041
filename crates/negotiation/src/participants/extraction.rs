//! What the extraction agent offers: ways to read each source.

use dagwright_model::{
    id::Name,
    message::{Alternative, Conflict, ConflictKind, Cost, Guarantee, Parts, Read, Role, Strategy},
    schema::Verdict,
    spec::{LossyCast, SchemaChange},
};

use crate::{
    case::Case,
    cost::Rates,
    rules::{cursor, on_missing, partition, pushdown, pushdown::Projection, setback, source_type},
};

/// How many times more parts are offered when the deadline is in the way.
const MORE_PARTS: u32 = 4;

/// Offers one stream, with and without pushdown, and parts where they can be.
#[must_use]
pub fn propose(case: Case<'_>, rates: &Rates) -> Vec<Alternative> {
    let mapped = partition::mappable(case).ok();
    let mut offers = Vec::new();
    for name in case.spec.sources.keys() {
        let mut objections = cursor::objections(case, name);
        objections.extend(source_type::objections(case, name));
        let way = Way { case, rates, name, objections: &objections, lossy: false };
        offers.push(way.offer("stream", pushdown::pushed(case, name), None));
        if let Some(whole) = pushdown::whole(case, name) {
            offers.push(way.offer("whole", whole, None));
        }
        if mapped.as_ref() == Some(name)
            && let Ok(parts) = partition::parts(case, name)
        {
            let mut tried = objections.clone();
            tried.extend(setback::parts(case, name, &parts));
            let way = Way { objections: &tried, ..way };
            offers.push(way.offer("parts", pushdown::pushed(case, name), Some(parts)));
            if let Some(more) = setback::more_parts(case, name) {
                let way = Way { objections: &objections, ..way };
                offers.push(way.offer("finer_parts", pushdown::pushed(case, name), Some(more)));
            }
        }
    }
    offers
}

/// Counters types that do not hold with the request's policy, and a deadline with more parts.
#[must_use]
pub fn counter(case: Case<'_>, rates: &Rates, conflicts: &[Conflict]) -> Vec<Alternative> {
    let mapped = partition::mappable(case).ok();
    let mut offers = Vec::new();
    for name in case.spec.sources.keys() {
        let about = |kind| conflicts.iter().any(|found| found.kind == kind && found.subject == name.as_str());
        let pushed = || pushdown::pushed(case, name);
        if about(ConflictKind::Type) && !source_type::by_policy(case, name).is_empty() {
            let mut objections = cursor::objections(case, name);
            let way = Way { case, rates, name, objections: &objections, lossy: true };
            let variant = match case.spec.policy.lossy_cast {
                LossyCast::Quarantine => "quarantine",
                LossyCast::Null => "null",
                LossyCast::Reject => "reject",
            };
            offers.push(way.offer(variant, pushed(), None));
            if mapped.as_ref() == Some(name)
                && let Ok(parts) = partition::parts(case, name)
                && case.spec.policy.lossy_cast != LossyCast::Quarantine
            {
                objections.extend(setback::parts(case, name, &parts));
                let way = Way { case, rates, name, objections: &objections, lossy: true };
                offers.push(way.offer("parts_null", pushed(), Some(parts)));
            }
        }
        let late = conflicts.iter().any(|found| found.kind == ConflictKind::Deadline);
        if late
            && mapped.as_ref() == Some(name)
            && let Ok(Parts { by, count_max }) = partition::parts(case, name)
        {
            let parts = Parts { by, count_max: count_max.saturating_mul(MORE_PARTS) };
            let mut objections = cursor::objections(case, name);
            objections.extend(source_type::objections(case, name));
            objections.extend(setback::parts(case, name, &parts));
            let way = Way { case, rates, name, objections: &objections, lossy: false };
            offers.push(way.offer("more_parts", pushed(), Some(parts)));
        }
    }
    offers
}

/// A source, with what is common to all ways to read it.
struct Way<'a> {
    case: Case<'a>,
    rates: &'a Rates,
    name: &'a Name,
    objections: &'a [Conflict],
    /// Whether values known not to fit are dealt with by policy.
    lossy: bool,
}

// === impl Way ===

impl Way<'_> {
    fn offer(&self, variant: &str, projection: Projection, parts: Option<Parts>) -> Alternative {
        let Self { case, rates, name, .. } = *self;
        let source = case.source(name);
        let lossy = if self.lossy { source_type::by_policy(case, name) } else { Vec::new() };
        let cost = self.cost(&projection, parts.as_ref());
        let rationale = self.rationale(&projection, parts.as_ref(), rates);
        let mut provides = vec![
            Guarantee::Schema { relation: name.clone(), columns: projection.columns.clone(), verdict: Verdict::Exact },
            Guarantee::Partitioning { relation: name.clone(), in_parts: parts.is_some() },
        ];
        let unique = case.profile(name).into_iter().flat_map(|profile| &profile.key_checks);
        let unique = unique.filter(|check| check.duplicates.value == 0 && check.duplicates.exact && check.nulls == 0);
        provides
            .extend(unique.map(|check| Guarantee::Unique { relation: name.clone(), columns: check.columns.clone() }));
        let strict = !self.lossy && !source_type::objections(case, name).is_empty();
        Alternative {
            id: format!("{}/{name}/{variant}", Role::Extraction),
            role: Role::Extraction,
            subject: name.to_string(),
            strategy: Strategy::Read(Read {
                columns: projection.columns,
                filters: projection.filters,
                incremental: source.incremental.is_some(),
                parts,
                on_misfit: if strict { LossyCast::Reject } else { case.spec.policy.lossy_cast },
            }),
            provides,
            requires: Vec::new(),
            cost,
            schema_change: SchemaChange::None,
            lossy,
            delivery: None,
            objections: self.objections.to_vec(),
            rationale,
        }
    }

    fn cost(&self, projection: &Projection, parts: Option<&Parts>) -> Cost {
        let Some(profile) = self.case.profile(self.name) else { return Cost::default() };
        let mut cost = self.rates.read(profile, projection.share);
        if let Some(parts) = parts {
            cost.wall_ms /= u64::from(parts.count_max).clamp(1, self.rates.parallel_tasks);
            // Each part opens the source and looks at its edges.
            cost.cpu_ms += u64::from(parts.count_max);
        }
        cost
    }

    fn rationale(&self, projection: &Projection, parts: Option<&Parts>, rates: &Rates) -> String {
        let Self { case, name, .. } = *self;
        let source = case.source(name);
        if let Some(remark) = on_missing::remark(case, name) {
            return remark;
        }
        let all = case.source_columns(name).len();
        let mut text = match (parts, &source.incremental) {
            (Some(parts), _) => {
                format!("at most {} parts, {} at a time", parts.count_max, rates.parallel_tasks)
            }
            (None, Some(incremental)) if incremental.lag.is_some() => {
                format!("what lies after the committed {}, less the late window", incremental.cursor)
            }
            (None, Some(incremental)) => format!("what lies after the committed {}", incremental.cursor),
            (None, None) => "everything in one stream".into(),
        };
        if projection.columns.len() < all {
            text += &format!(", {} of {all} columns", projection.columns.len());
        }
        match projection.filters.len() {
            0 => {}
            1 => text += ", one filter applied early",
            count => text += &format!(", {count} filters applied early"),
        }
        if self.lossy {
            text += match case.spec.policy.lossy_cast {
                LossyCast::Quarantine => ", rows with values that do not fit are set aside",
                LossyCast::Null => ", values that do not fit become NULL",
                LossyCast::Reject => "",
            };
        }
        if let Some(suggestion) = cursor::suggestion(case, name) {
            text += &format!("; {suggestion}");
        }
        text
    }
}
