//! The difference between two plans of a pipeline, and how much each change may hurt: what `dagwright diff` shows, and what
//! is recorded of a plan that was made anew.

use std::collections::BTreeMap;

use dagwright_model::{
    canonical,
    id::{Name, TaskId},
    plan::{ChangeKind, Plan, PlanChange, PlannedTask, Risk},
    task::{Output, SchemaEdit, SinkWrite, TaskSpec, Work},
};
use serde_json::{Value, json};

/// Returns the changes from `old` to `new`, tasks in the new plan's order.
///
/// Only what is done counts: other costs and reasons make another plan, but no change. Nor does it count that a sink
/// needs no further schema change because the last run made it.
#[must_use]
pub fn between(old: Option<&Plan>, new: &Plan) -> Vec<PlanChange> {
    let Some(old) = old else {
        return new.tasks.iter().map(|task| added(task, Risk::Medium)).collect();
    };
    let known: BTreeMap<&TaskId, &PlannedTask> = old.tasks.iter().map(|task| (&task.spec.id, task)).collect();
    let mut changes = frame(old, new);
    for task in &new.tasks {
        match known.get(&task.spec.id) {
            None => changes.push(added(task, Risk::Medium)),
            Some(before) => changes.extend(task_changes(before, task)),
        }
    }
    for task in old.tasks.iter().filter(|task| new.task(&task.spec.id).is_none()) {
        let risk = if writes(task).next().is_some() { Risk::High } else { Risk::Low };
        changes.push(change(ChangeKind::Removed, task.spec.id.to_string(), "no longer runs".into(), risk));
    }
    changes
}

/// Compares what surrounds the tasks: schedule, retries, owner and the like.
fn frame(old: &Plan, new: &Plan) -> Vec<PlanChange> {
    let mut changes = Vec::new();
    let mut compare = |subject: &str, before: Value, after: Value, risk| {
        if before != after {
            let what = format!("{} → {}", short(&before), short(&after));
            changes.push(change(ChangeKind::Changed, subject.into(), what, risk));
        }
    };
    compare("schedule", json!(old.schedule), json!(new.schedule), Risk::Medium);
    compare("params", json!(old.params), json!(new.params), Risk::Medium);
    compare("connections", json!(old.connections), json!(new.connections), Risk::High);
    compare("policy", json!(old.policy), json!(new.policy), Risk::Medium);
    compare("retries", json!(old.retries), json!(new.retries), Risk::Low);
    compare("deadline", json!(old.deadline), json!(new.deadline), Risk::Low);
    compare("airflow", json!(old.airflow), json!(new.airflow), Risk::Low);
    compare("alerts", json!(old.alerts), json!(new.alerts), Risk::Low);
    compare("owner", json!(old.owner), json!(new.owner), Risk::Low);
    compare("description", json!(old.description), json!(new.description), Risk::Low);
    compare("tags", json!(old.tags), json!(new.tags), Risk::Low);
    changes
}

fn added(task: &PlannedTask, risk: Risk) -> PlanChange {
    let change_of_schema = writes(task).map(|sink| edits_risk(&sink.changes)).max().unwrap_or(Risk::Low);
    change(ChangeKind::Added, task.spec.id.to_string(), "runs from now on".into(), risk.max(change_of_schema))
}

fn task_changes(before: &PlannedTask, after: &PlannedTask) -> Vec<PlanChange> {
    let subject = || after.spec.id.to_string();
    let mut changes = Vec::new();
    if canonical::hash(&without_edits_made(before, after)) != canonical::hash(&after.spec) {
        let (what, risk) = spec_change(before, after);
        changes.push(change(ChangeKind::Changed, subject(), what, risk));
    }
    if before.after != after.after || before.mapped_over != after.mapped_over {
        changes.push(change(ChangeKind::Changed, subject(), "other dependencies".into(), Risk::Low));
    }
    if before.timeout != after.timeout {
        let what = format!("timeout {} → {}", before.timeout, after.timeout);
        changes.push(change(ChangeKind::Changed, subject(), what, Risk::Low));
    }
    changes
}

/// Returns the old task without the schema changes that the new one no longer needs.
fn without_edits_made(before: &PlannedTask, after: &PlannedTask) -> TaskSpec {
    let needless = |name: &Name| writes(after).any(|sink| sink.name == *name && sink.changes.is_empty());
    let mut spec = before.spec.clone();
    let mut sinks: Vec<&mut SinkWrite> = match &mut spec.work {
        Work::Move(work) => work
            .outputs
            .iter_mut()
            .filter_map(|output| match output {
                Output::Sink(sink) => Some(sink),
                Output::Staged { .. } => None,
            })
            .collect(),
        Work::Publish(publish) => vec![&mut publish.sink],
        Work::Split(_) | Work::Cleanup => Vec::new(),
    };
    for sink in sinks.iter_mut().filter(|sink| needless(&sink.name)) {
        sink.changes.clear();
    }
    spec
}

fn spec_change(before: &PlannedTask, after: &PlannedTask) -> (String, Risk) {
    let old: BTreeMap<_, _> = writes(before).map(|sink| (sink.name.clone(), sink)).collect();
    for sink in writes(after) {
        let Some(known) = old.get(&sink.name) else { continue };
        if known.mode != sink.mode || known.key != sink.key || known.locator != sink.locator {
            return (format!("sink {} is written elsewhere or otherwise", sink.name), Risk::High);
        }
        if known.changes != sink.changes && !sink.changes.is_empty() {
            return (format!("sink {} changes its schema", sink.name), edits_risk(&sink.changes));
        }
        if known.columns != sink.columns {
            return (format!("sink {} gets other columns", sink.name), Risk::Medium);
        }
    }
    let (Work::Move(old), Work::Move(new)) = (&before.spec.work, &after.spec.work) else {
        return ("works otherwise".into(), Risk::Low);
    };
    if old.steps != new.steps {
        return ("other SQL".into(), Risk::Medium);
    }
    if old.gates != new.gates {
        return ("other quality gates".into(), Risk::Medium);
    }
    if old.inputs != new.inputs {
        return ("reads otherwise".into(), Risk::Low);
    }
    ("works otherwise".into(), Risk::Low)
}

fn writes(task: &PlannedTask) -> impl Iterator<Item = &SinkWrite> {
    let (outputs, published) = match &task.spec.work {
        Work::Move(work) => (work.outputs.as_slice(), None),
        Work::Publish(publish) => (&[][..], Some(&publish.sink)),
        Work::Split(_) | Work::Cleanup => (&[][..], None),
    };
    let written = outputs.iter().filter_map(|output| match output {
        Output::Sink(sink) => Some(sink),
        Output::Staged { .. } => None,
    });
    written.chain(published)
}

fn edits_risk(edits: &[SchemaEdit]) -> Risk {
    let risk = |edit: &SchemaEdit| match edit {
        SchemaEdit::CreateTable => Risk::Low,
        SchemaEdit::AddColumn(_) | SchemaEdit::AddUniqueKey(_) => Risk::Medium,
        SchemaEdit::WidenColumn(_) | SchemaEdit::DropNotNull(_) => Risk::High,
    };
    edits.iter().map(risk).max().unwrap_or(Risk::Low)
}

fn change(kind: ChangeKind, subject: String, what: String, risk: Risk) -> PlanChange {
    PlanChange { kind, subject, what, risk }
}

fn short(value: &Value) -> String {
    const LENGTH_MAX: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= LENGTH_MAX { text } else { text.chars().take(LENGTH_MAX).chain(['…']).collect() }
}
