//! What came of a run: every row accounted for.

use std::fmt::Write as _;

use dagwright_model::{
    plan::Plan,
    spec::OnFail,
    task::{Counts, Output, Work},
};

use super::{DIM, HEADING, WARN, indented, number, styled, table};

/// Renders the counts of a whole run: sources, gates, sinks.
pub(crate) fn counts(plan: &Plan, counts: &Counts, quarantine: &str) -> String {
    let mut text = String::new();
    let mut sources = table();
    sources.set_header(["source", "read", "passed", "quarantined", "bytes"]);
    for (name, seen) in &counts.sources {
        sources.add_row([
            name.to_string(),
            number::count(seen.read),
            number::count(seen.passed),
            number::count(seen.quarantined),
            number::bytes(seen.bytes),
        ]);
    }
    let mut sinks = table();
    sinks.set_header(["sink", "produced", "loaded", "quarantined", "superseded", "bytes", ""]);
    for (name, seen) in &counts.sinks {
        sinks.add_row([
            name.to_string(),
            number::count(seen.produced),
            number::count(seen.loaded),
            number::count(seen.quarantined),
            number::count(seen.superseded),
            number::bytes(seen.bytes),
            format!("→ {}", where_to(plan, name.as_str())),
        ]);
    }
    for numbers in [&mut sources, &mut sinks] {
        for column in 1..numbers.column_count() {
            if let Some(column) = numbers.column_mut(column) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
    }
    if let Some(target) = sinks.column_mut(6) {
        target.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let _ = write!(text, "{}\n{}", indented(&sources), indented(&sinks));
    text.push_str(&gates(plan, counts));
    let rejected: u64 = counts.sources.values().map(|seen| seen.quarantined).sum::<u64>()
        + counts.sinks.values().map(|seen| seen.quarantined).sum::<u64>();
    if rejected > 0 {
        let what = format!("{} in quarantine, each with its reason: {quarantine}", number::counted(rejected, "row"));
        let _ = writeln!(text, "\n  {}", styled(WARN, what));
    }
    text
}

fn gates(plan: &Plan, counts: &Counts) -> String {
    let judged = plan.tasks.iter().filter_map(|task| match &task.spec.work {
        Work::Move(work) => Some(&work.gates),
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => None,
    });
    let mut text = String::new();
    for gate in judged.flatten() {
        let broken = counts.gates.get(&gate.name).copied().unwrap_or_default();
        let verdict = match broken {
            0 => styled(DIM, "holds"),
            broken => {
                let done = match gate.on_fail {
                    OnFail::Fail => "failed the run",
                    OnFail::Warn => "loaded all the same",
                    OnFail::Quarantine => "quarantined",
                };
                styled(WARN, format_args!("{} {done}", number::counted(broken, "row")))
            }
        };
        let _ = writeln!(text, "  {} {} {verdict}", styled(HEADING, "gate"), gate.name);
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn where_to(plan: &Plan, sink: &str) -> String {
    let writes = plan.tasks.iter().filter_map(|task| match &task.spec.work {
        Work::Move(work) => Some(&work.outputs),
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => None,
    });
    let mut locators = writes.flatten().filter_map(|output| match output {
        Output::Sink(write) if write.name.as_str() == sink => Some(super::safe(&write.locator.to_string())),
        Output::Sink(_) | Output::Staged { .. } => None,
    });
    locators.next().unwrap_or_default()
}
