//! Conflicts: who could not do what, why, and what the requester could change.

use std::fmt::Write as _;

use dagwright_model::message::Conflict;

use super::{BAD, HEADING, safe, styled};

/// Renders every conflict with its owner and its ways out.
pub(crate) fn conflicts(conflicts: &[Conflict]) -> String {
    let mut text = String::new();
    for conflict in conflicts {
        let column = conflict.column.as_deref().map(|column| format!(", column {}", safe(column))).unwrap_or_default();
        let about = format!("{} · {}{column}", conflict.owner, safe(&conflict.subject));
        let _ = writeln!(text, "  {} {}", styled(BAD, "✗"), styled(HEADING, about));
        let _ = writeln!(text, "    {}", safe(&conflict.message));
        for remedy in &conflict.remedies {
            let path = if remedy.path.is_empty() { String::new() } else { format!("{}: ", safe(&remedy.path)) };
            let _ = writeln!(text, "    → {path}{}", safe(&remedy.change));
        }
    }
    text
}
