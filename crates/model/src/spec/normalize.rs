//! Document to spec: fills in every default and checks what a schema cannot say.
//!
//! Each part of the document is checked on its own as far as possible, so that one fault hides no other. A part that
//! was objected to still yields a value, for the checks that follow; the spec as a whole is then never returned.

mod columns;
mod params;
mod quality;
mod schedule;
mod sinks;
mod sources;
pub(super) mod sql;
mod steps;
mod uri;

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::{
    Alerts, DAG_ID_LENGTH_MAX, Goals, Source, Spec, Step, dag_id,
    document::Document,
    report::{Report, Site, did_you_mean, quoted},
    tree::Node,
};
use crate::{
    code::Code,
    id::Name,
    units::{ByteSize, Span},
};

/// The memory a task gets when the spec does not say.
const MEMORY_DEFAULT: ByteSize = ByteSize(512 << 20);

/// Less than this leaves no room for one batch of each operator.
const MEMORY_MIN: ByteSize = ByteSize(64 << 20);

/// The longest pause before a first retry.
const BACKOFF_MAX: Span = Span(24 * 3_600_000);

/// What steps, gates and sinks can read.
#[derive(Debug, Default)]
struct Relations {
    sources: IndexMap<Name, Source>,
    steps: Vec<Step>,
    /// For each step, the relations it reads.
    inputs: IndexMap<Name, BTreeSet<Name>>,
}

/// Checks `document` and puts it in normal form; what it returns counts only when nothing was reported.
pub(super) fn normalize(document: Document, tree: &Node, report: &mut Report) -> Option<Spec> {
    let root = Site::root(Some(tree));
    identity(&document, &root, report);
    params::check(&document.params, &root.key("params"), report);

    let declared = steps::declare(document.transform, &root.key("transform"), report);
    let sources = sources::normalize(document.source, document.sources, &document.params, &root, report);
    let relations = steps::connect(sources, declared, &document.params, &root, report);
    let sinks = sinks::normalize(document.sink, document.sinks, &relations, &root, report);
    uri::check_overlaps(&relations.sources, &sinks, &root, report);
    let first = sinks.values().next().map(|sink| &sink.from);
    let quality = quality::normalize(document.quality, &relations, first, &document.params, &root, report);

    let goals = Goals {
        optimize: document.goals.optimize.unwrap_or_default(),
        memory_max: document.goals.memory_max.unwrap_or(MEMORY_DEFAULT),
        deadline: document.goals.deadline,
    };
    bounds(&goals, document.retries.backoff, &root, report);
    alerts(&document.alerts, goals.deadline, &root.key("alerts"), report);
    let dag_id = dag_id(document.namespace.as_ref(), &document.pipeline);
    let schedule = schedule::normalize(document.schedule, &dag_id, &root.key("schedule"), report);

    Some(Spec {
        pipeline: document.pipeline,
        namespace: document.namespace,
        owner: document.owner,
        description: document.description,
        tags: document.tags.into_iter().map(|tag| tag.0).collect(),
        params: document.params,
        transform: steps::ordered(&relations, &root.key("transform"), report),
        sources: relations.sources,
        sinks,
        quality,
        schedule,
        goals,
        policy: document.policy,
        retries: document.retries,
        airflow: document.airflow,
        alerts: document.alerts,
    })
}

fn identity(document: &Document, root: &Site<'_>, report: &mut Report) {
    let namespace = document.namespace.as_ref().map_or(0, |name| name.as_str().len() + 1);
    let length = namespace + document.pipeline.as_str().len();
    if length > DAG_ID_LENGTH_MAX {
        let message = format!("`<namespace>.<pipeline>` has {length} characters; Airflow allows {DAG_ID_LENGTH_MAX}");
        report.push(Code::SpecBadName, &root.key("pipeline"), message, "shorten one of them");
    }
}

fn bounds(goals: &Goals, backoff: Span, root: &Site<'_>, report: &mut Report) {
    if goals.memory_max < MEMORY_MIN {
        let message = format!("{} is less than {MEMORY_MIN}", goals.memory_max);
        let hint = "one batch of each operator must fit";
        report.push(Code::SpecWrongType, &root.key("goals").key("memory_max"), message, hint);
    }
    if goals.deadline == Some(Span(0)) {
        let hint = "remove the key for no deadline";
        report.push(Code::SpecWrongType, &root.key("goals").key("deadline"), "a deadline of nothing", hint);
    }
    if backoff > BACKOFF_MAX {
        let message = format!("{backoff} is more than {BACKOFF_MAX}");
        report.push(Code::SpecWrongType, &root.key("retries").key("backoff"), message, "");
    }
}

fn alerts(alerts: &Alerts, deadline: Option<Span>, site: &Site<'_>, report: &mut Report) {
    for (key, connections) in [("on_failure", &alerts.on_failure), ("on_deadline", &alerts.on_deadline)] {
        for (index, connection) in connections.iter().enumerate().filter(|(i, it)| connections[..*i].contains(it)) {
            let message = format!("{} stands there twice", quoted(connection));
            report.push(Code::SpecConflict, &site.key(key).index(index), message, "keep one of them");
        }
    }
    if !alerts.on_deadline.is_empty() && deadline.is_none() {
        let hint = "add `goals: { deadline: 30m }`, or remove the key";
        report.push(Code::SpecConflict, &site.key("on_deadline"), "there is no deadline to miss", hint);
    }
}

// === impl Relations ===

impl Relations {
    fn contains(&self, name: &str) -> bool {
        self.sources.contains_key(name) || self.inputs.contains_key(name)
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.sources.keys().chain(self.inputs.keys()).map(Name::as_str)
    }

    /// Reports a name that is neither a source nor a step.
    fn require(&self, name: &Name, site: &Site<'_>, report: &mut Report) {
        if !self.contains(name.as_str()) {
            let message = format!("there is no source or step {}", quoted(name.as_str()));
            report.push(Code::SpecUnknownReference, site, message, did_you_mean(name.as_str(), self.names()));
        }
    }

    /// Returns the sources whose rows reach a relation.
    fn origins(&self, name: &Name) -> BTreeSet<&Name> {
        let (mut origins, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![name]);
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            if let Some((source, _)) = self.sources.get_key_value(name) {
                origins.insert(source);
            }
            open.extend(self.inputs.get(name).into_iter().flatten());
        }
        origins
    }
}

/// Returns where the source or sink of this name stands: `sources.<name>`, or `source` for the single one.
fn site_of<'t>(root: &Site<'t>, several: &str, single: &str, name: &Name) -> Site<'t> {
    let map = root.key(several);
    if map.is_given() { map.key(name.as_str()) } else { root.key(single) }
}

/// Reports when not exactly one of a single thing and a map of things is there; returns them by name.
fn one_or_several<T>(
    (single, single_name): (Option<T>, &str),
    (several, several_name): (Option<IndexMap<Name, T>>, &str),
    root: &Site<'_>,
    report: &mut Report,
) -> IndexMap<Name, T> {
    match (single, several) {
        (Some(_), Some(several)) => {
            let message = format!("both `{single_name}` and `{several_name}` are there");
            let hint = format!("keep `{single_name}` for one, or `{several_name}` for several by name");
            report.push(Code::SpecConflict, &root.key(single_name), message, hint);
            several
        }
        (Some(single), None) => Name::new(single_name).map(|name| (name, single)).into_iter().collect(),
        (None, Some(several)) => several,
        (None, None) => {
            let message = format!("neither `{single_name}` nor `{several_name}` is there");
            let hint = format!("add `{single_name}` for one, or `{several_name}` for several by name");
            report.push(Code::SpecMissingKey, &root.key(several_name), message, hint);
            IndexMap::new()
        }
    }
}
