//! Checks quality gates.

use std::collections::{BTreeMap, BTreeSet};

use super::{Relations, columns, params, sql};
use crate::{
    code::Code,
    id::Name,
    spec::{
        GateRule, OnFail, Param, QualityGate,
        document::Gate,
        report::{Report, Site, quoted},
    },
    units::Ratio,
};

/// The largest share of rows that a gate may reject when the spec does not say: 1%.
const MAX_REJECTED_DEFAULT: Ratio = Ratio(10_000);

/// Checks all gates and puts them in normal form; `first` is what the first sink writes.
pub(super) fn normalize(
    gates: Vec<Gate>,
    relations: &Relations,
    first: Option<&Name>,
    params: &BTreeMap<Name, Param>,
    root: &Site<'_>,
    report: &mut Report,
) -> Vec<QualityGate> {
    let mut names = BTreeSet::new();
    let mut normal = Vec::new();
    for (index, gate) in gates.into_iter().enumerate() {
        let site = root.key("quality").index(index);
        if !names.insert(gate.name.clone()) {
            let message = format!("another gate is named {} too", quoted(gate.name.as_str()));
            report.push(Code::SpecConflict, &site.key("name"), message, "give each gate a name of its own");
        }
        if let Some(on) = &gate.on {
            relations.require(on, &site.key("on"), report);
        }
        let Some(rule) = rule(&gate, params, &site, report) else { continue };
        if matches!(rule, GateRule::Unique(_)) && gate.on_fail == OnFail::Quarantine {
            let message = "`unique` cannot quarantine: which of the rows that repeat would go is arbitrary";
            let hint =
                "use `fail` or `warn`; or let the sink's `dedupe` or a step with ROW_NUMBER() choose the row to keep";
            report.push(Code::SpecConflict, &site.key("on_fail"), message, hint);
        }
        if gate.max_rejected.is_some() && gate.on_fail != OnFail::Quarantine {
            let message = "`max_rejected` counts only with `on_fail: quarantine`";
            report.push(Code::SpecConflict, &site.key("max_rejected"), message, "remove it, or quarantine");
        }
        let Some(on) = gate.on.or_else(|| first.cloned()) else { continue };
        let max_rejected = gate.max_rejected.unwrap_or(MAX_REJECTED_DEFAULT);
        normal.push(QualityGate { name: gate.name, on, rule, on_fail: gate.on_fail, max_rejected });
    }
    normal
}

fn rule(gate: &Gate, params: &BTreeMap<Name, Param>, site: &Site<'_>, report: &mut Report) -> Option<GateRule> {
    let mut rules = Vec::new();
    if let Some(list) = &gate.not_null {
        columns::check(list, &site.key("not_null"), report);
        rules.push(GateRule::NotNull(list.clone()));
    }
    if let Some(check) = &gate.check {
        let site = site.key("check");
        let seen = sql::glance(check);
        params::check_binds(&seen.binds, params, &site, report);
        if seen.open || seen.several {
            let hint = "write one expression, such as dep_delay > -120";
            report.push(Code::SqlInvalid, &site, "the expression has an open quote or parenthesis, or a `;`", hint);
        }
        rules.push(GateRule::Check(check.clone()));
    }
    if let Some(list) = &gate.unique {
        columns::check(list, &site.key("unique"), report);
        rules.push(GateRule::Unique(list.clone()));
    }
    let hint = "write exactly one of `not_null`, `check` and `unique`";
    match rules.len() {
        0 => report.push(Code::SpecMissingKey, site, "the gate has no rule", hint),
        1 => {}
        count => report.push(Code::SpecConflict, site, format!("the gate has {count} rules"), hint),
    }
    rules.into_iter().next()
}
