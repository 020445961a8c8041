//! What the transformation agent offers: where to compute the steps.

use dagwright_model::{
    message::{Alternative, Guarantee, Placement, Role, Strategy},
    schema::Verdict,
    spec::SchemaChange,
};

use crate::{
    case::Case,
    cost::Rates,
    rules::{placement, setback, unique_key, unique_key::Known},
};

/// The subject of everything the transformation agent offers: the steps are placed together.
pub const SUBJECT: &str = "transform";

/// Offers every placement that the steps allow.
#[must_use]
pub fn propose(case: Case<'_>, rates: &Rates) -> Vec<Alternative> {
    placement::placements(case, rates)
        .into_iter()
        .map(|placed| {
            let in_parts = placed.placement == Placement::Mapped;
            let variant = match placed.placement {
                Placement::Fused => "fused",
                Placement::Mapped => "mapped",
                Placement::Staged => "staged",
            };
            Alternative {
                id: format!("{}/{SUBJECT}/{variant}", Role::Transformation),
                role: Role::Transformation,
                subject: SUBJECT.into(),
                strategy: Strategy::Compute { placement: placed.placement },
                provides: provides(case, placed.placement, in_parts),
                requires: requires(case, in_parts),
                cost: placed.cost,
                schema_change: SchemaChange::None,
                lossy: Vec::new(),
                delivery: None,
                objections: setback::placement(case, placed.placement).into_iter().collect(),
                rationale: placed.rationale,
            }
        })
        .collect()
}

fn requires(case: Case<'_>, in_parts: bool) -> Vec<Guarantee> {
    let mut needs = Vec::new();
    for name in case.spec.sources.keys() {
        needs.push(Guarantee::Partitioning { relation: name.clone(), in_parts });
        let columns = case.needed_columns(name);
        needs.push(Guarantee::Schema { relation: name.clone(), columns, verdict: Verdict::Exact });
    }
    needs
}

fn provides(case: Case<'_>, placement: Placement, in_parts: bool) -> Vec<Guarantee> {
    let mut gifts = Vec::new();
    for step in &case.facts.typing.steps {
        let columns = step.columns.clone();
        gifts.push(Guarantee::Schema { relation: step.name.clone(), columns, verdict: Verdict::Exact });
        gifts.push(Guarantee::Partitioning { relation: step.name.clone(), in_parts });
    }
    for (name, sink) in &case.spec.sinks {
        if placement == Placement::Staged {
            gifts.push(Guarantee::Staged { relation: sink.from.clone() });
        }
        if !sink.key.is_empty() && unique_key::known(case, name) == Known::Unique {
            gifts.push(Guarantee::Unique { relation: sink.from.clone(), columns: sink.key.clone() });
        }
    }
    gifts
}
