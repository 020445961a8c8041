//! Tasks, tries, rows, and how it ended.

use std::collections::BTreeMap;

use dagwright_model::{
    event::Rows,
    record::{FailureClass, RemedyApplied, RunEnded, RunRemedy, RunStarted, TaskEnded, TaskInstance, TaskStarted},
    task::Status,
};

use super::problem;
use crate::render::number;

/// The tries that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Tries(BTreeMap<TaskInstance, u32>);

// === impl Tries ===

impl Tries {
    /// Tells of a try only what its end does not: that the one before was cut off.
    pub(super) fn began(&mut self, started: &TaskStarted) -> Option<String> {
        let before = self.0.insert(started.instance.clone(), started.attempt)?;
        Some(format!("Try {before} of {} was cut off when its service ended, and was begun again.", started.instance))
    }

    /// Tells how a try ended.
    pub(super) fn ended(&mut self, ended: &TaskEnded) -> Vec<String> {
        self.0.remove(&ended.instance);
        let outcome = &ended.outcome;
        let took = number::elapsed_ms(outcome.elapsed_ms);
        let again = if ended.attempt > 1 { format!(", try {},", ended.attempt) } else { String::new() };
        let how = match outcome.status {
            Status::Succeeded if outcome.repeated => "found its effect there already, after".into(),
            Status::Succeeded => "took".to_owned(),
            Status::Failed => "failed after".into(),
            Status::Cancelled => "was stopped after".into(),
        };
        let counted = Rows::of(&outcome.counts);
        let counted = if counted == Rows::default() { String::new() } else { format!(": {}", rows(&counted)) };
        let mut told = vec![format!("{}{again} {how} {took}{counted}.", ended.instance)];
        told.extend(outcome.problem.iter().map(problem));
        told
    }
}

/// Tells what the run was told.
pub(super) fn began(started: &RunStarted) -> Vec<String> {
    let mut told = vec![format!("Plan {} began to run.", started.plan_hash.short())];
    if let Some(dag_run) = &started.dag_run {
        told.push(format!("In Airflow it is DAG run {dag_run}."));
    }
    if let Some(interval) = &started.interval {
        told.push(format!("Its interval is {} to {}.", interval.start, interval.end));
    }
    told
}

/// Tells what was done about a failed run, and why.
pub(super) fn helped(applied: &RemedyApplied) -> Vec<String> {
    let why = match applied.class {
        FailureClass::Transient => "It may well succeed when it is tried again",
        FailureClass::Away => "A source or sink was away",
        FailureClass::SchemaDrift => "A schema is no longer the sealed one",
        FailureClass::Quality => "The data is not as it has to be",
        FailureClass::Resources => "Memory or time was too short",
        FailureClass::Permission => "Something is not allowed",
        FailureClass::Stopped => "It was stopped",
        FailureClass::Bug => "It failed",
    };
    let what = match applied.remedy {
        RunRemedy::Clear => "the tasks that failed were to run again in the same run",
        RunRemedy::Trigger => "the run was to be triggered again",
    };
    let pause = number::elapsed_ms(applied.delay_ms);
    vec![format!("{why}: {what} after {pause} (time {} of its kind).", applied.number), problem(&applied.problem)]
}

/// Tells how the run ended, and where every row went.
pub(super) fn ended(ended: &RunEnded) -> Vec<String> {
    let first = match ended.status {
        Status::Succeeded => "The run succeeded.",
        Status::Failed => "The run failed; nothing half-written is visible.",
        Status::Cancelled => "The run was cancelled; nothing half-written is visible.",
    };
    let mut told = vec![first.to_owned()];
    told.extend(ended.problem.iter().map(problem));
    let parts = |parts: &[(u64, &str)]| {
        let told = parts.iter().filter(|(rows, _)| *rows > 0);
        told.map(|(rows, what)| format!(", {} {what}", number::count(*rows))).collect::<String>()
    };
    for (name, seen) in &ended.counts.sources {
        let rest =
            parts(&[(seen.quarantined, "quarantined"), (seen.skipped, "passed over"), (seen.nulled, "values nulled")]);
        told.push(format!(
            "{name}: {} read, {} passed on{rest}.",
            number::count(seen.read),
            number::count(seen.passed)
        ));
    }
    for (name, seen) in &ended.counts.sinks {
        let rest = parts(&[
            (seen.quarantined, "quarantined"),
            (seen.superseded, "superseded"),
            (seen.nulled, "values nulled"),
        ]);
        let (produced, loaded) = (number::count(seen.produced), number::count(seen.loaded));
        told.push(format!("{name}: {produced} produced, {loaded} loaded{rest}."));
    }
    for (name, broken) in ended.counts.gates.iter().filter(|(_, broken)| **broken > 0) {
        told.push(format!("Gate {name}: {} broke it.", number::counted(*broken, "row")));
    }
    told
}

/// Renders rows: `34,026 rows read, 27,017 loaded`.
pub(super) fn rows(rows: &Rows) -> String {
    let mut told = vec![format!("{} read, {} loaded", number::counted(rows.read, "row"), number::count(rows.loaded))];
    if rows.quarantined > 0 {
        told.push(format!("{} quarantined", number::count(rows.quarantined)));
    }
    if rows.superseded > 0 {
        told.push(format!("{} superseded", number::count(rows.superseded)));
    }
    told.join(", ")
}
