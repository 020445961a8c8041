//! How a run ends, and what it tells of its tasks.

use dagwright_model::{
    code::Code,
    record::{RunEnded, TaskEnded, TaskInstance},
    task::{Counts, Outcome, Problem, Status},
};

use super::{Instance, Phase, Run};
use crate::{
    outcome::{RunOutcome, TaskReport},
    setback, tally,
};

impl Run {
    /// Returns how the run ended, once it did; `extras` gives warnings and log tail of an instance.
    pub(crate) fn outcome(
        &self,
        mut extras: impl FnMut(&TaskInstance) -> (Vec<Problem>, String),
    ) -> Option<RunOutcome> {
        let ended = self.ended.clone()?;
        let mut tasks = Vec::new();
        for (planned, task) in self.plan.tasks.iter().zip(&self.tasks) {
            let mut report = |map_index, instance: Option<&Instance>| {
                let name = TaskInstance { task: planned.spec.id.clone(), map_index };
                let (warnings, log_tail) = extras(&name);
                tasks.push(TaskReport {
                    instance: name,
                    role: planned.role,
                    teardown: planned.teardown,
                    attempts: instance.map_or(0, |instance| instance.attempts),
                    outcome: instance.and_then(|instance| instance.outcome.clone()),
                    warnings,
                    log_tail,
                });
            };
            let Some(instances) = &task.instances else {
                report(None, None);
                continue;
            };
            for instance in instances {
                report(instance.partition.as_ref().map(|partition| partition.index), Some(instance));
            }
        }
        let RunEnded { status, problem, counts, setback } = ended;
        Some(RunOutcome { status, problem, counts, setback, tasks })
    }

    /// Returns the sum of what the succeeded tasks counted.
    fn counts(&self) -> Counts {
        let tasks = || self.plan.tasks.iter().zip(&self.tasks);
        let succeeded = tasks().filter(|(_, task)| task.has_succeeded()).map(|(planned, _)| &planned.spec.id).collect();
        let outcomes = tasks().flat_map(|(planned, task)| {
            let ended = task.instances.iter().flatten().filter(|instance| instance.has_succeeded());
            ended.filter_map(move |instance| Some((planned, instance.outcome.as_ref()?)))
        });
        tally::sum(&self.plan, &succeeded, outcomes)
    }

    /// Returns the tries that ended in earlier engines, for whoever watches a continued run.
    pub(crate) fn settled(&self) -> Vec<TaskEnded> {
        let mut ended = Vec::new();
        for (planned, task) in self.plan.tasks.iter().zip(&self.tasks) {
            for instance in task.instances.iter().flatten() {
                if let (Phase::Settled, Some(outcome)) = (instance.phase, &instance.outcome) {
                    ended.push(TaskEnded {
                        instance: instance.name(planned),
                        attempt: instance.attempts,
                        outcome: outcome.clone(),
                    });
                }
            }
        }
        ended
    }

    /// Returns how the run ends, once everything has settled.
    pub(super) fn conclude(&self, succeeded: &[bool]) -> RunEnded {
        let (status, problem) = self.verdict(succeeded);
        let (problem, setback) = match (status, problem) {
            (Status::Failed, Some(problem)) => {
                let failed = self.first_failed();
                let failed = failed.as_ref().map(|(instance, outcome)| (instance, *outcome));
                let (problem, setback) =
                    setback::of(&self.plan, self.started.as_ref(), self.replanning, problem, failed);
                (Some(problem), setback)
            }
            (_, problem) => (problem, None),
        };
        RunEnded { status, problem, counts: self.counts(), setback }
    }

    /// Returns the first task in the plan's order, teardown aside, that failed for a reason.
    fn first_failed(&self) -> Option<(TaskInstance, &Outcome)> {
        let work = self.plan.tasks.iter().zip(&self.tasks).filter(|(planned, _)| !planned.teardown);
        let mut failed = work.flat_map(|(planned, task)| {
            let instances = task.instances.iter().flatten().filter(|instance| !instance.has_succeeded());
            instances.filter_map(move |instance| Some((instance.name(planned), instance.outcome.as_ref()?)))
        });
        failed.find(|(_, outcome)| outcome.problem.is_some())
    }

    fn verdict(&self, succeeded: &[bool]) -> (Status, Option<Problem>) {
        let work = || self.plan.tasks.iter().zip(&self.tasks).zip(succeeded).filter(|((task, _), _)| !task.teardown);
        let problem = |code, message: String, hint: &str| {
            Some(Problem { code, subject: self.plan.dag_id.clone(), message, hint: hint.into() })
        };
        if work().all(|(_, succeeded)| *succeeded) {
            return (Status::Succeeded, None);
        }
        if self.cancelled {
            let problem =
                problem(Code::Cancelled, "the run was cancelled".into(), "run it again when you want its data");
            return (Status::Cancelled, problem);
        }
        if self.overdue {
            let deadline = self.plan.deadline.map(|deadline| format!(" of {deadline}")).unwrap_or_default();
            let message = format!("the run did not end within its deadline{deadline}");
            return (
                Status::Failed,
                problem(Code::TaskTimedOut, message, "raise goals.deadline, or read less at once"),
            );
        }
        let first = self.first_failed().and_then(|(_, outcome)| outcome.problem.clone());
        let unknown = || problem(Code::Internal, "a task failed without a reason".into(), "please report this");
        (Status::Failed, first.or_else(unknown))
    }
}
