//! What an ended try means to the run: the outcome that is recorded.
//!
//! A success is a success, also of a try that was told to stop: its effect is there. What was told to stop and did
//! not succeed ended for that reason.

use dagwright_model::{
    code::Code,
    plan::{Plan, PlannedTask},
    task::{Outcome, Problem, Status, Work},
};

use super::Reason;

pub(super) fn settle(
    plan: &Plan,
    position: usize,
    outcome: Outcome,
    stopped: Option<Reason>,
    timed_out: bool,
) -> Outcome {
    let task = &plan.tasks[position];
    match (outcome.status, stopped, timed_out) {
        (Status::Succeeded, _, _) => partitioned(plan, task, outcome),
        // It failed for a reason of its own before it heard that it should stop.
        (Status::Failed, Some(_), _) | (Status::Failed, None, true) if has_own_reason(&outcome) => outcome,
        (Status::Failed | Status::Cancelled, Some(Reason::Cancelled), _) => {
            let problem = problem(task, Code::Cancelled, "it was told to stop", "run the pipeline again");
            Outcome { status: Status::Cancelled, problem: Some(problem), ..outcome }
        }
        (Status::Failed | Status::Cancelled, Some(Reason::Overdue), _) => {
            let message = "it was told to stop at the run's deadline";
            let problem = problem(task, Code::TaskTimedOut, message, "raise goals.deadline, or read less at once");
            Outcome { status: Status::Cancelled, problem: Some(problem), ..outcome }
        }
        (Status::Failed | Status::Cancelled, None, true) => {
            let message = format!("it ran longer than the {} that one try may take", task.timeout);
            let problem = problem(task, Code::TaskTimedOut, &message, "raise goals.deadline, or read less at once");
            Outcome { status: Status::Failed, problem: Some(problem), ..outcome }
        }
        // Nobody here asked it to stop.
        (Status::Cancelled, None, false) => Outcome { status: Status::Failed, ..outcome },
        (Status::Failed, None, false) => outcome,
    }
}

fn has_own_reason(outcome: &Outcome) -> bool {
    outcome
        .problem
        .as_ref()
        .is_some_and(|problem| !matches!(problem.code, Code::Cancelled | Code::TaskCrashed | Code::TaskKilled))
}

/// Fails a split whose partitions cannot be told apart by their index, or are more than agreed.
fn partitioned(plan: &Plan, task: &PlannedTask, outcome: Outcome) -> Outcome {
    let Work::Split(split) = &task.spec.work else { return outcome };
    let numbered = (0..).zip(&outcome.partitions).all(|(index, partition): (u32, _)| partition.index == index);
    let within = outcome.partitions.len() <= usize::try_from(split.partitions_max).unwrap_or(usize::MAX);
    let is_used = plan.tasks.iter().any(|other| other.mapped_over.as_ref() == Some(&task.spec.id));
    if !is_used || (numbered && within) {
        return outcome;
    }
    let problem = problem(task, Code::Internal, "it returned partitions that were not asked for", "please report this");
    Outcome { status: Status::Failed, problem: Some(problem), partitions: Vec::new(), ..outcome }
}

fn problem(task: &PlannedTask, code: Code, message: &str, hint: &str) -> Problem {
    let id = &task.spec.id;
    Problem { code, subject: id.0.clone(), message: format!("task {id}: {message}"), hint: hint.into() }
}
