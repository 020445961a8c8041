//! The run of a plan in Airflow as a pure machine: no clock, no I/O.
//!
//! ```text
//!            Begun               RunEnded (failed, budget left)
//!   (records) ─────► Followed ──────────────────────────────────► Helped
//!                       ▲  │ RunEnded                                │ RemedyDue
//!                       │  ▼                                         │
//!                       │ ended                                      │
//!                       └────────────────────────────────────────────┘
//! ```
//!
//! Airflow decides what runs and when; this machine takes in what became of it. What it is told may be told twice, late, out
//! of order, or never: a try is known by its number, which only grows, so what is older than what is known changes nothing.
//! Every step's records come before its other effects, and are what the state is folded from. What was to be done then is
//! done again at [`Event::Begun`]: each of it finds what it did before.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use dagwright_model::{
    code::Code,
    id::TaskId,
    plan::Plan,
    record::{
        Cancelled, RecordBody, RemedyApplied, RetryScheduled, RunEnded, RunRemedy, RunStarted, TaskEnded, TaskInstance,
        TaskStarted,
    },
    setback::Setback,
    task::{Counts, Outcome, Problem, Status},
};

use super::class;
use crate::{
    Replanning,
    outcome::{RunOutcome, TaskReport},
    setback, tally,
};

/// The longest pause before a retry, as compiled DAGs say.
const BACKOFF_MAX_MS: u64 = 3_600_000;

/// What happens to a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// Somebody follows the run from here on, after [`Following::replay`] of what was recorded before.
    Begun(Box<RunStarted>),
    /// A try of a task was told of, or seen.
    Tried(Tried),
    /// Airflow's run came to its end, and its tries were told before.
    RunEnded {
        /// Whether Airflow takes it for a success.
        succeeded: bool,
    },
    /// Airflow has no such run any more.
    Lost,
    /// Airflow does not take the run.
    Refused(Problem),
    /// The pause before a remedy is over.
    RemedyDue,
    /// What was to be done is done: the run was triggered, or its failed tasks were cleared.
    Helped,
    /// Somebody wants the run to stop.
    CancelRequested {
        /// Who.
        by: Option<String>,
    },
}

/// A try of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tried {
    /// Which task.
    pub(crate) instance: TaskInstance,
    /// Which try, from 1.
    pub(crate) attempt: u32,
    /// How far it is.
    pub(crate) progress: Progress,
    /// Whether Airflow itself was asked, whose word counts more than that of an event.
    pub(crate) seen: bool,
}

/// How far a try is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// What came of it.
        outcome: Box<Outcome>,
        /// Whether Airflow tries again by itself.
        again: bool,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Append this; all records of a step together, before anything else is done.
    Record(Box<RecordBody>),
    /// See to it that Airflow has the run; send [`Event::Refused`] or [`Event::Lost`] where it does not take it.
    Trigger,
    /// Look how far it is.
    Look,
    /// Clear the tasks that failed, if the run is still a failed one.
    Clear,
    /// Mark the run as failed, which ends its tasks.
    Stop,
    /// Send [`Event::RemedyDue`] after this time.
    Delay(Duration),
}

/// Says that a record does not fit the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit;

/// A run in Airflow.
#[derive(Debug)]
pub(crate) struct Following {
    plan: Arc<Plan>,
    /// Whether we start it; else it was there.
    is_ours: bool,
    replanning: Replanning,
    started: Option<RunStarted>,
    tries: BTreeMap<TaskInstance, Tries>,
    /// How often each remedy was applied.
    remedies: BTreeMap<RunRemedy, u32>,
    /// The remedy that was decided on and may not have been applied, with its pause.
    due: Option<(RunRemedy, Duration)>,
    cancelled: bool,
    ended: Option<RunEnded>,
}

/// The newest try of each task instance that ended, and whether it succeeded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(BTreeMap<TaskInstance, (u32, bool)>);

/// What is known of a task instance.
#[derive(Debug, Default)]
struct Tries {
    /// The newest try that began.
    began: u32,
    /// The newest try that ended.
    ended: u32,
    /// What came of that.
    outcome: Option<Outcome>,
}

// === impl Following ===

impl Following {
    /// Makes a run with nothing known of it.
    pub(crate) fn new(plan: Arc<Plan>, is_ours: bool, replanning: Replanning) -> Self {
        Self {
            plan,
            is_ours,
            replanning,
            started: None,
            tries: BTreeMap::new(),
            remedies: BTreeMap::new(),
            due: None,
            cancelled: false,
            ended: None,
        }
    }

    /// Takes in what was recorded before.
    pub(crate) fn replay(&mut self, body: &RecordBody) -> Result<(), Misfit> {
        if self.ended.is_some() {
            return Err(Misfit);
        }
        match body {
            RecordBody::RunStarted(started) if self.started.is_none() => self.started = Some((**started).clone()),
            RecordBody::RunStarted(_) => return Err(Misfit),
            RecordBody::TaskStarted(started) => {
                self.due = None;
                self.tries_of(&started.instance).began = started.attempt;
            }
            RecordBody::TaskEnded(ended) => {
                let tries = self.tries_of(&ended.instance);
                (tries.ended, tries.outcome) = (ended.attempt, Some(ended.outcome.clone()));
            }
            // Airflow tries again, whether it is recorded or not.
            RecordBody::RetryScheduled(_) => {}
            RecordBody::RemedyApplied(applied) => self.apply_remedy(applied),
            RecordBody::Cancelled(_) => (self.cancelled, self.due) = (true, None),
            RecordBody::RunEnded(ended) => self.ended = Some(ended.clone()),
            // What came before the run.
            RecordBody::Accepted(_)
            | RecordBody::FactRecorded(_)
            | RecordBody::MessageSent(_)
            | RecordBody::PlanSealed(_)
            | RecordBody::PlanReused(_)
            | RecordBody::Deadlocked(_)
            | RecordBody::Failed(_)
            | RecordBody::ApprovalNeeded(_)
            | RecordBody::Approved(_)
            | RecordBody::Declined(_)
            | RecordBody::DagCompiled(_)
            | RecordBody::Replanned(_)
            | RecordBody::PipelineChanged(_) => {}
        }
        Ok(())
    }

    /// Takes in what happens, and returns what to do about it.
    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended.is_some() {
            return effects;
        }
        match event {
            Event::Begun(started) => self.begin(started, &mut effects),
            Event::Tried(tried) => self.take(tried, &mut effects),
            // The end that the remedy is for.
            Event::RunEnded { .. } if self.due.is_some() => {}
            Event::RunEnded { succeeded } => self.conclude(succeeded, &mut effects),
            Event::Lost if matches!(self.due, Some((RunRemedy::Trigger, _))) => {}
            Event::Lost => self.lose(&mut effects),
            Event::Refused(problem) => self.end(Status::Failed, Some(problem), &mut effects),
            Event::RemedyDue => match self.due {
                Some((RunRemedy::Clear, _)) => effects.push(Effect::Clear),
                Some((RunRemedy::Trigger, _)) => effects.push(Effect::Trigger),
                None => {}
            },
            Event::Helped => {
                self.due = None;
                effects.push(Effect::Look);
            }
            Event::CancelRequested { by } => self.cancel(by, &mut effects),
        }
        effects
    }

    /// Returns what every task of the run is told, once it began.
    pub(crate) fn started(&self) -> Option<&RunStarted> {
        self.started.as_ref()
    }

    /// Returns what is known of how tries ended, so that nobody needs to look for that.
    pub(crate) fn known(&self) -> Known {
        let ended = self.tries.iter().filter(|(_, tries)| tries.ended > 0);
        Known(ended.map(|(instance, tries)| (instance.clone(), (tries.ended, tries.has_succeeded()))).collect())
    }

    /// Returns the plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns how the run ended, once it did.
    pub(crate) fn outcome(&self) -> Option<RunOutcome> {
        let ended = self.ended.clone()?;
        let mut tasks = Vec::new();
        for planned in &self.plan.tasks {
            let of_task: Vec<_> = self.tries.iter().filter(|(instance, _)| instance.task == planned.spec.id).collect();
            let report = |instance: TaskInstance, tries: Option<&Tries>| TaskReport {
                instance,
                role: planned.role,
                teardown: planned.teardown,
                attempts: tries.map_or(0, |tries| tries.began),
                outcome: tries.and_then(|tries| tries.outcome.clone()),
                warnings: Vec::new(),
                log_tail: String::new(),
            };
            if of_task.is_empty() {
                tasks.push(report(TaskInstance { task: planned.spec.id.clone(), map_index: None }, None));
            }
            tasks.extend(of_task.into_iter().map(|(instance, tries)| report(instance.clone(), Some(tries))));
        }
        let RunEnded { status, problem, counts, setback } = ended;
        Some(RunOutcome { status, problem, counts, setback, tasks })
    }

    fn begin(&mut self, started: Box<RunStarted>, effects: &mut Vec<Effect>) {
        if self.started.is_none() {
            self.started = Some((*started).clone());
            effects.push(Effect::Record(Box::new(RecordBody::RunStarted(started))));
        }
        if self.cancelled {
            effects.push(Effect::Stop);
        } else if let Some((_, pause)) = self.due {
            effects.push(Effect::Delay(pause));
        } else if self.is_ours {
            return effects.push(Effect::Trigger);
        }
        effects.push(Effect::Look);
    }

    fn take(&mut self, tried: Tried, effects: &mut Vec<Effect>) {
        let Tried { instance, attempt, progress, seen } = tried;
        if attempt == 0 || self.plan.task(&instance.task).is_none() {
            return;
        }
        let tries = self.tries.entry(instance.clone()).or_default();
        let is_news = match &progress {
            Progress::Running => attempt > tries.began.max(tries.ended),
            // The end of a try before the newest is late.
            Progress::Ended { .. } if attempt < tries.began => false,
            // Somebody may have marked it meanwhile; an event of before that is late too.
            Progress::Ended { outcome, .. } => {
                let differs = tries.has_succeeded() != (outcome.status == Status::Succeeded);
                attempt > tries.ended || (seen && attempt == tries.ended && differs)
            }
        };
        // Told late of a run that Airflow no longer has; the next one counts its tries anew.
        let is_of_lost_run = !seen && matches!(self.due, Some((RunRemedy::Trigger, _)));
        if !is_news || is_of_lost_run {
            return;
        }
        self.due = None;
        if attempt > tries.began {
            if tries.began > tries.ended {
                // The try before was lost without a word.
                let ended =
                    TaskEnded { instance: instance.clone(), attempt: tries.began, outcome: vanished(&instance) };
                effects.push(Effect::Record(Box::new(RecordBody::TaskEnded(Box::new(ended)))));
            }
            tries.began = attempt;
            let started = TaskStarted { instance: instance.clone(), attempt, partition: None };
            effects.push(Effect::Record(Box::new(RecordBody::TaskStarted(started))));
        }
        let Progress::Ended { outcome, again } = progress else { return };
        (tries.ended, tries.outcome) = (attempt, Some((*outcome).clone()));
        let ended = TaskEnded { instance: instance.clone(), attempt, outcome: *outcome };
        effects.push(Effect::Record(Box::new(RecordBody::TaskEnded(Box::new(ended)))));
        if again {
            let retry = RetryScheduled { instance, attempt: attempt + 1, delay_ms: self.backoff_ms(attempt) };
            effects.push(Effect::Record(Box::new(RecordBody::RetryScheduled(retry))));
        }
    }

    fn conclude(&mut self, succeeded: bool, effects: &mut Vec<Effect>) {
        if succeeded {
            return self.end(Status::Succeeded, None, effects);
        }
        let (problem, failed) = self.reason();
        if self.cancelled {
            return self.end_cancelled(effects);
        }
        let kind = class::of(problem.code);
        let used = self.remedies.get(&RunRemedy::Clear).copied().unwrap_or_default();
        match class::remedy(kind, used) {
            Some((remedy, pause)) => self.help(
                RemedyApplied { class: kind, remedy, number: used + 1, delay_ms: millis(pause), problem },
                effects,
            ),
            None => {
                let failed = failed.as_ref().map(|(instance, outcome)| (instance, outcome));
                let (problem, setback) =
                    setback::of(&self.plan, self.started.as_ref(), self.replanning, problem, failed);
                self.end_with(Status::Failed, Some(problem), setback, effects);
            }
        }
    }

    fn lose(&mut self, effects: &mut Vec<Effect>) {
        let problem = Problem {
            code: Code::RunLost,
            subject: self.plan.dag_id.clone(),
            message: "Airflow no longer has the run".into(),
            hint: "somebody deleted the DAG or the run, or Airflow's database was reset".into(),
        };
        if self.cancelled {
            // It may never have been triggered.
            return self.end_cancelled(effects);
        }
        let used = self.remedies.get(&RunRemedy::Trigger).copied().unwrap_or_default();
        match class::trigger_again(used).filter(|_| self.is_ours) {
            // Whatever tries there were, their numbers begin anew; what they wrote is found by its effect key.
            Some(pause) => self.help(
                RemedyApplied {
                    class: class::of(Code::TaskCrashed),
                    remedy: RunRemedy::Trigger,
                    number: used + 1,
                    delay_ms: millis(pause),
                    problem,
                },
                effects,
            ),
            None => self.end(Status::Failed, Some(problem), effects),
        }
    }

    fn help(&mut self, applied: RemedyApplied, effects: &mut Vec<Effect>) {
        self.apply_remedy(&applied);
        let pause = Duration::from_millis(applied.delay_ms);
        effects.push(Effect::Record(Box::new(RecordBody::RemedyApplied(applied))));
        effects.push(Effect::Delay(pause));
    }

    fn apply_remedy(&mut self, applied: &RemedyApplied) {
        *self.remedies.entry(applied.remedy).or_default() += 1;
        self.due = Some((applied.remedy, Duration::from_millis(applied.delay_ms)));
        if applied.remedy == RunRemedy::Trigger {
            self.tries.clear();
        }
    }

    fn cancel(&mut self, by: Option<String>, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        let cancelled = Cancelled { by };
        effects.push(Effect::Record(Box::new(RecordBody::Cancelled(cancelled))));
        self.due = None;
        effects.extend([Effect::Stop, Effect::Look]);
    }

    fn end_cancelled(&mut self, effects: &mut Vec<Effect>) {
        let cancelled = Problem {
            code: Code::Cancelled,
            subject: self.plan.dag_id.clone(),
            message: "the run was cancelled".into(),
            hint: "run it again when you want its data".into(),
        };
        self.end(Status::Cancelled, Some(cancelled), effects);
    }

    fn end(&mut self, status: Status, problem: Option<Problem>, effects: &mut Vec<Effect>) {
        self.end_with(status, problem, None, effects);
    }

    fn end_with(
        &mut self,
        status: Status,
        problem: Option<Problem>,
        setback: Option<Box<Setback>>,
        effects: &mut Vec<Effect>,
    ) {
        let mut unfinished: Vec<_> = Vec::new();
        for (instance, tries) in self.tries.iter_mut().filter(|(_, tries)| tries.began > tries.ended) {
            let outcome = vanished(instance);
            (tries.ended, tries.outcome) = (tries.began, Some(outcome.clone()));
            unfinished.push(TaskEnded { instance: instance.clone(), attempt: tries.began, outcome });
        }
        let ended = unfinished.into_iter().map(|ended| RecordBody::TaskEnded(Box::new(ended)));
        effects.extend(ended.map(Box::new).map(Effect::Record));
        let ended = RunEnded { status, problem, counts: self.counts(), setback };
        effects.push(Effect::Record(Box::new(RecordBody::RunEnded(ended.clone()))));
        self.ended = Some(ended);
    }

    /// Returns why the run failed: the first reason in the plan's order, and what came of which task.
    fn reason(&self) -> (Problem, Option<(TaskInstance, Outcome)>) {
        let work = self.plan.tasks.iter().filter(|task| !task.teardown);
        let mut failed = work.flat_map(|task| {
            let tries = self.tries.iter().filter(|(instance, _)| instance.task == task.spec.id);
            tries.filter(|(_, tries)| !tries.has_succeeded()).map(|(instance, tries)| {
                let outcome = tries.outcome.clone().unwrap_or_else(|| vanished(instance));
                let problem = outcome.problem.clone().unwrap_or_else(|| vanished_problem(instance));
                (problem, Some((instance.clone(), outcome)))
            })
        });
        let stopped = || Problem {
            code: Code::RunStopped,
            subject: self.plan.dag_id.clone(),
            message: "Airflow ended the run, and none of its tasks failed".into(),
            hint: "somebody marked it as failed, or it took longer than goals.deadline".into(),
        };
        failed.next().unwrap_or_else(|| (stopped(), None))
    }

    fn counts(&self) -> Counts {
        let tries = || {
            self.tries.iter().filter_map(|(instance, tries)| Some((self.plan.task(&instance.task)?, instance, tries)))
        };
        let failed: BTreeSet<&TaskId> =
            tries().filter(|(.., tries)| !tries.has_succeeded()).map(|(_, instance, _)| &instance.task).collect();
        let succeeded = tries().map(|(_, instance, _)| &instance.task).filter(|task| !failed.contains(task)).collect();
        let outcomes = tries().filter_map(|(planned, _, tries)| Some((planned, tries.outcome.as_ref()?)));
        tally::sum(&self.plan, &succeeded, outcomes)
    }

    /// Returns the pause that a compiled DAG has after a try.
    fn backoff_ms(&self, attempt: u32) -> u64 {
        let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        self.plan.retries.backoff.0.saturating_mul(doubled).min(BACKOFF_MAX_MS)
    }

    fn tries_of(&mut self, instance: &TaskInstance) -> &mut Tries {
        self.tries.entry(instance.clone()).or_default()
    }
}

// === impl Known ===

impl Known {
    /// Tells whether it is known that this try ended so.
    pub(crate) fn has(&self, instance: &TaskInstance, attempt: u32, succeeded: bool) -> bool {
        let known = self.0.get(instance);
        known.is_some_and(|(ended, success)| *ended > attempt || (*ended == attempt && *success == succeeded))
    }
}

// === impl Tries ===

impl Tries {
    fn has_succeeded(&self) -> bool {
        self.began <= self.ended && self.outcome.as_ref().is_some_and(|outcome| outcome.status == Status::Succeeded)
    }
}

/// Returns what came of a try that ended without a word.
pub(crate) fn vanished(instance: &TaskInstance) -> Outcome {
    crate::verdict::ended(Status::Failed, vanished_problem(instance), 0)
}

fn vanished_problem(instance: &TaskInstance) -> Problem {
    Problem {
        code: Code::TaskCrashed,
        subject: instance.task.0.clone(),
        message: format!("task {instance} ended without an outcome"),
        hint: "its worker was lost or its process killed; Airflow's log of the task may tell more".into(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
