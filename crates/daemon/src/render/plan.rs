//! A sealed plan: what was agreed, at which cost, what lost and why, and the tasks that follow from it.

use std::fmt::Write as _;

use dagwright_model::{
    message::{Cost, Facts, Transcript},
    plan::{Plan, PlannedTask},
    task::{Input, Output, Work},
};

use super::{DIM, GOOD, HEADING, facts, indented, number, safe, styled, table, transcript};

/// Renders the plan with everything that led to it.
pub(crate) fn whole(plan: &Plan, known: &Facts, said: &Transcript) -> String {
    let mut text = format!("{}\n", headline(plan));
    let _ = write!(text, "\n{}\n{}", styled(HEADING, "What was found"), facts::facts(known));
    let _ = write!(text, "\n{}\n{}", styled(HEADING, "What was agreed"), choices(plan));
    let _ = write!(text, "\n{}\n{}", styled(HEADING, "What will run"), tasks(plan));
    let _ = write!(text, "\n{}\n{}", styled(HEADING, "How they got there"), transcript::transcript(said));
    text
}

/// Renders the pipeline and the plan's short hash.
pub(crate) fn headline(plan: &Plan) -> String {
    let cost = cost(&plan.cost);
    format!(
        "{} {}",
        styled(HEADING, &plan.dag_id),
        styled(DIM, format_args!("· plan {} · {cost}", plan.hash().short()))
    )
}

/// Renders what won, subject by subject, and why each other alternative lost.
pub(crate) fn choices(plan: &Plan) -> String {
    let mut text = String::new();
    for choice in &plan.choices {
        let _ = writeln!(
            text,
            "  {} {} {}",
            styled(GOOD, "✓"),
            styled(HEADING, format_args!("{} · {}", choice.role, safe(&choice.subject))),
            styled(DIM, format_args!("{} · {}", variant(&choice.chosen), cost(&choice.cost)))
        );
        let _ = writeln!(text, "    {}", safe(&choice.rationale));
        for lost in &choice.rejected {
            let line = format!("not {} ({}): {}", variant(&lost.alternative), cost(&lost.cost), safe(&lost.why));
            let _ = writeln!(text, "    {}", styled(DIM, line));
        }
    }
    text
}

/// Renders what won, a line each.
pub(crate) fn chosen(plan: &Plan) -> String {
    let mut rows = table();
    for choice in &plan.choices {
        rows.add_row([
            choice.role.to_string(),
            safe(&choice.subject),
            variant(&choice.chosen),
            safe(&choice.rationale),
        ]);
    }
    indented(&rows)
}

/// Renders the tasks with what each reads and writes.
pub(crate) fn tasks(plan: &Plan) -> String {
    let mut rows = table();
    for task in &plan.tasks {
        let after = match task.after.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => String::new(),
            names => format!("after {names}"),
        };
        rows.add_row([task.spec.id.to_string(), does(task), after]);
    }
    indented(&rows)
}

fn does(task: &PlannedTask) -> String {
    let mapped = if task.mapped_over.is_some() { ", once for each partition" } else { "" };
    match &task.spec.work {
        Work::Split(split) => format!("lists the partitions of {}", split.source),
        Work::Move(work) => {
            let names = |names: Vec<String>| names.join(", ");
            let reads = |staged: bool| {
                let wanted = work.inputs.iter().filter(|(_, input)| matches!(input, Input::Staged { .. }) == staged);
                wanted.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
            };
            let mut parts = Vec::new();
            let (sources, staged) = (reads(false), reads(true));
            if !sources.is_empty() {
                parts.push(format!("reads {}", names(sources)));
            }
            if !staged.is_empty() {
                parts.push(format!("takes {}", names(staged)));
            }
            if !work.steps.is_empty() {
                parts
                    .push(format!("computes {}", names(work.steps.iter().map(|step| step.name.to_string()).collect())));
            }
            let writes = work.outputs.iter().map(|output| match output {
                Output::Staged { relation } => format!("stages {relation}"),
                Output::Sink(sink) => format!("writes {}", sink.name),
            });
            parts.extend(writes);
            format!("{}{mapped}", parts.join(", "))
        }
        Work::Publish(publish) => format!("makes {} visible", publish.sink.name),
        Work::Cleanup => "removes what was staged".into(),
    }
}

/// Renders the variant of an alternative's id: its last part.
pub(crate) fn variant(id: &str) -> String {
    safe(id.rsplit('/').next().unwrap_or(id))
}

/// Renders a cost: time and memory.
pub(crate) fn cost(cost: &Cost) -> String {
    format!("~{}, ~{}", number::elapsed_ms(cost.wall_ms), number::bytes(cost.memory_bytes))
}
