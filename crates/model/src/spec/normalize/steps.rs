//! Checks SQL steps: their names, what they read, and the order that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{Relations, params, sql};
use crate::{
    code::Code,
    id::Name,
    spec::{
        Param, Source, Step,
        report::{Report, Site, did_you_mean, quoted},
    },
};

/// Checks that step names are unique; the first of several counts.
pub(super) fn declare(steps: Vec<Step>, site: &Site<'_>, report: &mut Report) -> Vec<(usize, Step)> {
    let mut names = BTreeSet::new();
    let mut declared = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        if names.insert(step.name.clone()) {
            declared.push((index, step));
        } else {
            let message = format!("another step is named {} too", quoted(step.name.as_str()));
            report.push(
                Code::SpecConflict,
                &site.index(index).key("name"),
                message,
                "give each step a name of its own",
            );
        }
    }
    declared
}

/// Finds out what each step reads.
pub(super) fn connect(
    sources: IndexMap<Name, Source>,
    declared: Vec<(usize, Step)>,
    params: &BTreeMap<Name, Param>,
    root: &Site<'_>,
    report: &mut Report,
) -> Relations {
    let site = root.key("transform");
    let known: Vec<_> = sources.keys().cloned().chain(declared.iter().map(|(_, step)| step.name.clone())).collect();
    let mut relations = Relations { sources, ..Relations::default() };
    for (index, step) in declared {
        let site = site.index(index);
        if relations.sources.contains_key(&step.name) {
            let message = format!("a source is named {} too", quoted(step.name.as_str()));
            report.push(Code::SpecConflict, &site.key("name"), message, "give the step another name");
        }
        let site = site.key("sql");
        let seen = sql::glance(&step.sql);
        check_statement(&seen, &site, report);
        params::check_binds(&seen.binds, params, &site, report);
        let mut inputs = BTreeSet::new();
        for relation in &seen.relations {
            match known.iter().find(|known| known.as_str() == relation) {
                Some(name) => drop(inputs.insert(name.clone())),
                None if report.is_full() => {}
                None => {
                    let message = format!("the SQL reads {}, which is neither a source nor a step", quoted(relation));
                    let others = known.iter().filter(|known| **known != step.name).map(Name::as_str);
                    let hint = did_you_mean(relation, others);
                    report.push(Code::SpecUnknownReference, &site, message, hint);
                }
            }
        }
        relations.inputs.insert(step.name.clone(), inputs);
        relations.steps.push(step);
    }
    relations
}

/// Checks that a statement is one query.
pub(super) fn check_statement(seen: &sql::Glance, site: &Site<'_>, report: &mut Report) {
    let hint = "write one SELECT";
    if seen.open {
        report.push(Code::SqlInvalid, site, "the SQL has an open quote, comment or parenthesis", "close it");
    } else if !matches!(seen.verb.as_str(), "select" | "with" | "values" | "table") {
        report.push(Code::SqlInvalid, site, "the SQL is not a query", hint);
    } else if seen.several {
        report.push(Code::SqlInvalid, site, "the SQL holds several statements", hint);
    }
}

/// Orders the steps so that each reads only sources and earlier steps, else as written; reports circles.
pub(super) fn ordered(relations: &Relations, site: &Site<'_>, report: &mut Report) -> Vec<Step> {
    let mut rest: Vec<&Step> = relations.steps.iter().collect();
    let mut order = Vec::new();
    while !rest.is_empty() {
        let waits = |name: &Name| rest.iter().any(|step| step.name == *name);
        let next = rest.iter().position(|step| !relations.inputs[&step.name].iter().any(waits));
        let next = next.unwrap_or_else(|| {
            let circle = circle(relations, &rest);
            let names: Vec<_> = circle.iter().chain(circle.first()).map(|name| name.as_str()).collect();
            // The first step of the circle as written.
            let first = relations.steps.iter().position(|step| circle.contains(&&step.name)).unwrap_or(0);
            let message = format!("these steps read each other in a circle: {}", names.join(" → "));
            report.push(Code::SpecCycle, &site.index(first), message, "let one of them read something else");
            // Breaks it here, so that other circles are found as well.
            rest.iter().position(|step| circle.contains(&&step.name)).unwrap_or(0)
        });
        order.push(rest.remove(next).clone());
    }
    order
}

/// Returns a circle among steps of which each waits for another; it starts with the step written first.
fn circle<'r>(relations: &'r Relations, rest: &[&'r Step]) -> Vec<&'r Name> {
    let Some(mut at) = rest.first().map(|step| &step.name) else { return Vec::new() };
    let mut path: Vec<&Name> = Vec::new();
    let mut circle = loop {
        if let Some(start) = path.iter().position(|name| *name == at) {
            break path.split_off(start);
        }
        path.push(at);
        let waits_for = |step: &&&Step| relations.inputs[at].contains(&step.name);
        let Some(next) = rest.iter().find(waits_for) else { break path };
        at = &next.name;
    };
    let position = |name: &Name| relations.inputs.get_index_of(name);
    let first = circle.iter().enumerate().min_by_key(|(_, name)| position(name)).map_or(0, |(index, _)| index);
    circle.rotate_left(first);
    circle
}
