//! Events, a line each.

use std::fmt::Write as _;

use dagwright_model::event::{EventKind, Rows};

use super::{BAD, DIM, GOOD, WARN, number, problem, safe, styled};
use crate::client::Seen;

/// Renders an event; with the pipeline where more than one is watched.
pub(crate) fn event(seen: &Seen, with_pipeline: bool) -> String {
    let time = seen.time.map(|time| time.format("%H:%M:%S").to_string()).unwrap_or_default();
    let style = match seen.kind {
        Some(EventKind::RunSucceeded | EventKind::TaskSucceeded | EventKind::DagDeployed) => GOOD,
        Some(EventKind::RequestRejected | EventKind::PlanDeadlocked | EventKind::RunFailed | EventKind::TaskFailed) => {
            BAD
        }
        Some(EventKind::ApprovalNeeded | EventKind::RunCancelled | EventKind::RemedyApplied) => WARN,
        _ => DIM,
    };
    let about = about(seen, with_pipeline);
    let name = safe(&seen.name);
    // Columns, but no blanks at the end of a line.
    let name = if about.is_empty() { name } else { format!("{name:<17}") };
    let mut line = format!("{} {}{about}\n", styled(DIM, time), styled(style, name));
    if let Some(why) = &seen.data.error {
        line.push_str(&problem::problem(why));
    }
    line
}

/// Renders what an event is about, as far as its name does not say.
fn about(seen: &Seen, with_pipeline: bool) -> String {
    let (mut text, data) = (String::new(), &seen.data);
    if with_pipeline {
        let _ = write!(text, " {}", safe(&data.pipeline));
    }
    if let Some(task) = &data.task {
        let _ = write!(text, " {}", safe(&task.task_id.0));
        if task.map_index >= 0 {
            let _ = write!(text, "[{}]", task.map_index);
        }
        if task.try_number > 1 {
            let _ = write!(text, " (try {})", task.try_number);
        }
    }
    match (seen.kind, &data.plan_hash) {
        (Some(EventKind::RequestAccepted), _) => {
            let _ = write!(text, " {}", safe(&data.request_id.0));
        }
        (Some(EventKind::PlanSealed | EventKind::ApprovalNeeded), Some(plan)) => {
            let _ = write!(text, " plan {}", safe(&plan.0));
        }
        _ => {}
    }
    if let Some(rows) = data.rows.filter(|rows| *rows != Rows::default()) {
        let _ = write!(text, "  {} read, {} loaded", number::counted(rows.read, "row"), number::count(rows.loaded));
        if rows.quarantined > 0 {
            let _ = write!(text, ", {} quarantined", number::count(rows.quarantined));
        }
    }
    text
}
