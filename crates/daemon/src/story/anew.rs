//! What a run taught that failed, and the plan that took the place of its own.

use dagwright_model::{
    message::Placement,
    record::{FailureClass, Replanned},
    schema::Column,
    setback::{SchemaDrift, Setback},
    units::ByteSize,
};

use super::problem;

/// Why a person has to look at a plan for schemas that changed.
pub(super) const DRIFTED: &str = "schemas changed in a way that the policy does not let go through by itself";

/// Tells how a run failed, and that there will be another plan.
pub(super) fn set_back(setback: &Setback) -> Vec<String> {
    let how = match (setback.placement, setback.parts) {
        (Placement::Fused, _) => "in one streaming task".to_owned(),
        (Placement::Staged, _) => "staged".to_owned(),
        (Placement::Mapped, Some(parts)) => format!("in at most {parts} parts"),
        (Placement::Mapped, None) => "in parts".to_owned(),
    };
    let mut told = vec![
        format!("The run of version {} of the plan failed; nothing half-written is visible.", setback.version),
        problem(&setback.problem),
    ];
    if let (FailureClass::Resources, Some(task)) = (setback.class, &setback.task) {
        let peak = match task.memory_peak_bytes {
            0 => String::new(),
            bytes => format!(", {} at its peak", ByteSize(bytes.div_ceil(1 << 20) << 20)),
        };
        told.push(format!(
            "It was {}, which works {how} and may hold {}{peak} (exit {}).",
            task.instance, task.memory_max, task.exit
        ));
    }
    let left = match setback.left {
        1 => "the last time that it may be".to_owned(),
        left => format!("which may happen {left} times"),
    };
    let why = match setback.class {
        FailureClass::Resources => "Another plan may hold less at a time",
        FailureClass::SchemaDrift => "Another plan may be for the schemas as they are now",
        FailureClass::Transient
        | FailureClass::Away
        | FailureClass::Quality
        | FailureClass::Permission
        | FailureClass::Stopped
        | FailureClass::Bug => "Another plan may end better",
    };
    told.push(format!("{why}, so the agents negotiated anew, {left}."));
    told
}

/// Tells what is done otherwise.
pub(super) fn replanned(replanned: &Replanned) -> Vec<String> {
    let mut told = vec![format!(
        "Version {}, plan {}, took the place of plan {}.",
        replanned.version,
        replanned.plan_hash.short(),
        replanned.replaces.short()
    )];
    told.extend(replanned.changes.iter().map(ToString::to_string));
    told
}

/// Shows the schemas that changed, each as it was and as it is.
pub(super) fn drifted(drift: &[SchemaDrift]) -> Vec<String> {
    let show = |drift: &SchemaDrift| {
        let (side, subject) = (drift.side.as_str(), &drift.subject);
        vec![
            format!("{drift} ({}).", drift.change.as_str()),
            format!("The {side} {subject} was: {}.", schema(&drift.before)),
            format!("The {side} {subject} is: {}.", schema(&drift.after)),
        ]
    };
    drift.iter().flat_map(show).collect()
}

fn schema(columns: &[Column]) -> String {
    let shown: Vec<_> = columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect();
    shown.join(", ")
}
