//! The run of a plan as a pure machine: no clock, no I/O; time arrives as events.
//!
//! ```text
//!              Begun            turn, deps succeeded          TaskEnded
//!   (records) ──────► Waiting ──────────────────────► Running ─────────► Settled
//!                        ▲                                                  │ retryable, tries left
//!                        │ RetryDue                                         ▼
//!                        └──────────────────────────────────────────── Retrying
//! ```
//!
//! Every step's records come before its other effects, and are what the state is folded from: [`Run::replay`] over the
//! ledger gives the state that [`Run::apply`] had when it recorded. So whoever appends a step's records in one batch
//! before performing the rest can crash at any moment.
//!
//! A task that misses what was staged for it has it staged again. A failed task holds up only what depends on it, as in Airflow; a cancelled or overdue run starts nothing further;
//! teardown runs when everything else has settled, whatever became of it, and decides nothing.

mod report;
mod restage;
mod settle;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, time::Duration};

use dagwright_model::{
    code::Code,
    id::TaskId,
    plan::{Plan, PlannedTask},
    record::{Cancelled, RecordBody, RetryScheduled, RunEnded, RunStarted, TaskEnded, TaskInstance, TaskStarted},
    task::{Outcome, Partition, Status, Work},
};

use crate::{Error, Replanning};

/// The longest pause before a retry, as the spec's `retries.backoff` promises.
const BACKOFF_MAX: Duration = Duration::from_hours(1);

/// What happens to a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// An engine takes the run on, after [`Run::replay`] of what earlier ones recorded.
    Begun(Box<RunStarted>),
    /// A try ended.
    TaskEnded {
        instance: TaskInstance,
        attempt: u32,
        outcome: Box<Outcome>,
        /// Whether it was stopped because it had run as long as it may.
        timed_out: bool,
    },
    /// The pause before a retry is over.
    RetryDue { instance: TaskInstance, attempt: u32 },
    /// The whole run took as long as it may.
    DeadlineReached,
    /// Somebody wants the run to stop.
    CancelRequested { by: Option<String> },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Append this; all records of a step together, before anything else is done.
    Record(Box<RecordBody>),
    /// Send [`Event::DeadlineReached`] after this time.
    ArmDeadline(Duration),
    /// Start a try; stop it after the timeout; send [`Event::TaskEnded`] once it ended.
    Launch { instance: TaskInstance, attempt: u32, partition: Option<Partition>, timeout: Duration },
    /// Tell a running try to stop.
    Stop { instance: TaskInstance },
    /// Send [`Event::RetryDue`] after this time.
    Delay { instance: TaskInstance, attempt: u32, pause: Duration },
}

/// Says that a record does not fit the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit;

/// A run of a plan.
#[derive(Debug)]
pub(crate) struct Run {
    plan: Arc<Plan>,
    parallelism: NonZeroUsize,
    replanning: Replanning,
    /// As `plan.tasks`.
    tasks: Vec<Task>,
    positions: HashMap<TaskId, usize>,
    started: Option<RunStarted>,
    cancelled: bool,
    overdue: bool,
    ended: Option<RunEnded>,
}

#[derive(Debug)]
struct Task {
    /// What must have succeeded first, the split task of a mapped one included; for teardown, what must have settled.
    after: Vec<usize>,
    /// `None` until the split task told the partitions.
    instances: Option<Vec<Instance>>,
}

#[derive(Debug)]
struct Instance {
    partition: Option<Partition>,
    phase: Phase,
    /// How often it was started, tries that an engine's end cut short included.
    attempts: u32,
    /// How often it failed; only these count against `retries.max`.
    failures: u32,
    /// What came of the last try that ended.
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its turn has not come, or has come again.
    Waiting,
    /// A try runs; with the reason why it was told to stop.
    Running(Option<Reason>),
    /// It failed, and a pause goes on.
    Retrying,
    /// Its outcome is final.
    Settled,
}

/// All tasks at a glance; the lists are as `plan.tasks`.
struct View {
    /// Which tasks succeeded, with all their instances.
    succeeded: Vec<bool>,
    /// Which tasks may start what waits of them.
    startable: Vec<bool>,
    /// How many tries run.
    running: usize,
    /// Whether nothing is left to do.
    is_over: bool,
}

/// Why a try was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Cancelled,
    Overdue,
}

// === impl Run ===

impl Run {
    /// Makes the run of a plan, with nothing done.
    pub(crate) fn new(plan: Arc<Plan>, parallelism: NonZeroUsize, replanning: Replanning) -> Result<Self, Error> {
        let mut positions = HashMap::new();
        let mut tasks = Vec::with_capacity(plan.tasks.len());
        for (position, planned) in plan.tasks.iter().enumerate() {
            let invalid = |reason| Error::InvalidPlan { task: planned.spec.id.clone(), reason };
            let mut after = Vec::with_capacity(planned.after.len() + 1);
            for id in planned.after.iter().chain(&planned.mapped_over) {
                let other =
                    *positions.get(id).ok_or_else(|| invalid("it follows a task that does not stand before it"))?;
                let before: &PlannedTask = &plan.tasks[other];
                if before.teardown && !planned.teardown {
                    return Err(invalid("it follows a teardown task"));
                }
                if planned.mapped_over.as_ref() == Some(id) && !matches!(before.spec.work, Work::Split(_)) {
                    return Err(invalid("it is mapped over a task that splits nothing"));
                }
                after.push(other);
            }
            if planned.teardown && planned.mapped_over.is_some() {
                return Err(invalid("a teardown task cannot be mapped"));
            }
            if positions.insert(planned.spec.id.clone(), position).is_some() {
                return Err(invalid("its id is not unique"));
            }
            let instances = if planned.mapped_over.is_some() { None } else { Some(vec![Instance::new(None)]) };
            tasks.push(Task { after, instances });
        }
        Ok(Self {
            plan,
            parallelism,
            replanning,
            tasks,
            positions,
            started: None,
            cancelled: false,
            overdue: false,
            ended: None,
        })
    }

    /// Takes in what was recorded before, by this engine or an earlier one.
    pub(crate) fn replay(&mut self, body: &RecordBody) -> Result<(), Misfit> {
        if self.ended.is_some() {
            return Err(Misfit);
        }
        match body {
            RecordBody::RunStarted(started) if self.started.is_none() => self.started = Some((**started).clone()),
            RecordBody::RunStarted(_) => return Err(Misfit),
            RecordBody::TaskStarted(started) => {
                let instance = self.instance(&started.instance).ok_or(Misfit)?;
                match instance.phase {
                    // A running one was cut short by its engine's end.
                    Phase::Waiting | Phase::Running(_) | Phase::Retrying if started.attempt > instance.attempts => {
                        instance.phase = Phase::Running(None);
                        instance.attempts = started.attempt;
                    }
                    Phase::Waiting | Phase::Running(_) | Phase::Retrying | Phase::Settled => return Err(Misfit),
                }
            }
            RecordBody::TaskEnded(ended) => self.settle(ended)?,
            RecordBody::RetryScheduled(retry) => {
                let instance = self.instance(&retry.instance).ok_or(Misfit)?;
                match instance.phase {
                    Phase::Settled => instance.phase = Phase::Retrying,
                    Phase::Waiting | Phase::Running(_) | Phase::Retrying => return Err(Misfit),
                }
                self.restage(&retry.instance);
            }
            RecordBody::Cancelled(_) => {
                self.cancelled = true;
                self.give_up_retries();
            }
            // Only a run in Airflow is helped.
            RecordBody::RemedyApplied(_) => return Err(Misfit),
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
            Event::TaskEnded { instance, attempt, outcome, timed_out } => {
                self.end_task(instance, attempt, *outcome, timed_out, &mut effects);
            }
            Event::RetryDue { instance, attempt } => {
                if let Some(state) = self.instance(&instance) {
                    match state.phase {
                        Phase::Retrying if attempt == state.attempts + 1 => state.phase = Phase::Waiting,
                        // The run was stopped meanwhile.
                        Phase::Retrying | Phase::Waiting | Phase::Running(_) | Phase::Settled => {}
                    }
                }
            }
            Event::DeadlineReached => {
                self.overdue = true;
                self.give_up_retries();
                self.halt(Reason::Overdue, &mut effects);
            }
            Event::CancelRequested { by } => {
                if !self.cancelled {
                    self.record(RecordBody::Cancelled(Cancelled { by }), &mut effects);
                    self.halt(Reason::Cancelled, &mut effects);
                }
            }
        }
        self.advance(&mut effects);
        effects
    }

    /// Returns what every task of the run is told, once the run began.
    pub(crate) fn started(&self) -> Option<&RunStarted> {
        self.started.as_ref()
    }

    /// Returns the plan's task.
    pub(crate) fn planned(&self, task: &TaskId) -> Option<&PlannedTask> {
        self.positions.get(task).map(|position| &self.plan.tasks[*position])
    }

    /// Returns one of the partitions that a publish task is to make visible; its `count` says how many there are.
    pub(crate) fn published(&self, task: &PlannedTask) -> Option<&Partition> {
        let Work::Publish(publish) = &task.spec.work else { return None };
        let position = self.positions.get(&publish.staged_by)?;
        self.tasks[*position].instances.as_ref()?.first()?.partition.as_ref()
    }

    fn begin(&mut self, started: Box<RunStarted>, effects: &mut Vec<Effect>) {
        if self.started.is_none() {
            self.record(RecordBody::RunStarted(started), effects);
        }
        if self.overdue {
            self.give_up_retries();
        }
        for instance in self.tasks.iter_mut().flat_map(|task| task.instances.iter_mut().flatten()) {
            match instance.phase {
                // A process ends with its engine; and whoever started the engine again has waited already.
                Phase::Running(_) | Phase::Retrying => instance.phase = Phase::Waiting,
                Phase::Waiting | Phase::Settled => {}
            }
        }
        // A continued run has its whole deadline again: else one that was interrupted for long could never end well.
        effects.extend(self.plan.deadline.map(|deadline| Effect::ArmDeadline(deadline.duration())));
    }

    fn end_task(
        &mut self,
        name: TaskInstance,
        attempt: u32,
        outcome: Outcome,
        timed_out: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(position) = self.positions.get(&name.task).copied() else { return };
        let Some(instance) = self.instance(&name) else { return };
        let stopped = match instance.phase {
            Phase::Running(stopped) if instance.attempts == attempt => stopped,
            // Told twice.
            Phase::Running(_) | Phase::Waiting | Phase::Retrying | Phase::Settled => return,
        };
        let outcome = settle::settle(&self.plan, position, outcome, stopped, timed_out);
        let (ended, instance) = (name.clone(), name);
        self.record(RecordBody::TaskEnded(Box::new(TaskEnded { instance: ended, attempt, outcome })), effects);
        if let Some(pause) = self.pause_before_retry(&instance) {
            let attempt = attempt + 1;
            let delay_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            let retry = RetryScheduled { instance: instance.clone(), attempt, delay_ms };
            self.record(RecordBody::RetryScheduled(retry), effects);
            effects.push(Effect::Delay { instance, attempt, pause });
        }
    }

    /// Returns how long to wait before trying a failed task again, or `None` when that is pointless.
    fn pause_before_retry(&mut self, name: &TaskInstance) -> Option<Duration> {
        let (halted, retries) = (self.halted(), self.plan.retries);
        let instance = self.instance(name)?;
        let outcome = instance.outcome.as_ref()?;
        let retryable = match outcome.status {
            Status::Failed => outcome.problem.as_ref().is_some_and(|problem| problem.code.exit().is_retryable()),
            Status::Succeeded | Status::Cancelled => false,
        };
        // In a halted run only teardown still runs, and somebody waits for its end.
        if !retryable || halted || instance.failures > retries.max {
            return None;
        }
        let doublings = instance.failures.saturating_sub(1);
        let pause = retries.backoff.duration().saturating_mul(2_u32.saturating_pow(doublings));
        Some(pause.min(BACKOFF_MAX))
    }

    /// Stops every try but those of teardown.
    fn halt(&mut self, reason: Reason, effects: &mut Vec<Effect>) {
        for (planned, task) in self.plan.tasks.iter().zip(&mut self.tasks) {
            if planned.teardown {
                continue;
            }
            for instance in task.instances.iter_mut().flatten() {
                match instance.phase {
                    Phase::Running(None) => {
                        instance.phase = Phase::Running(Some(reason));
                        effects.push(Effect::Stop { instance: instance.name(planned) });
                    }
                    Phase::Running(Some(_)) | Phase::Waiting | Phase::Retrying | Phase::Settled => {}
                }
            }
        }
    }

    /// Makes the failures final that were to be tried again, but for those of teardown.
    fn give_up_retries(&mut self) {
        for (planned, task) in self.plan.tasks.iter().zip(&mut self.tasks) {
            let retrying = task.instances.iter_mut().flatten().filter(|it| it.phase == Phase::Retrying);
            retrying.filter(|_| !planned.teardown).for_each(|instance| instance.phase = Phase::Settled);
        }
    }

    /// Starts what may start, and ends the run when nothing is left.
    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let view = self.view();
        let mut room = self.parallelism.get().saturating_sub(view.running);
        let mut starts = Vec::new();
        for (position, (planned, task)) in self.plan.tasks.iter().zip(&self.tasks).enumerate() {
            if !view.startable[position] {
                continue;
            }
            let waiting = task.instances.iter().flatten().filter(|instance| instance.phase == Phase::Waiting);
            for instance in waiting.take(room) {
                let attempt = instance.attempts.saturating_add(1);
                let (name, partition) = (instance.name(planned), instance.partition.clone());
                starts.push((TaskStarted { instance: name, attempt, partition }, planned.timeout.duration()));
                room -= 1;
            }
        }
        if view.is_over {
            self.record(RecordBody::RunEnded(self.conclude(&view.succeeded)), effects);
        }
        for (started, timeout) in starts {
            let TaskStarted { instance, attempt, partition } = started.clone();
            self.record(RecordBody::TaskStarted(started), effects);
            effects.push(Effect::Launch { instance, attempt, partition, timeout });
        }
    }

    /// Looks at all tasks once.
    fn view(&self) -> View {
        let succeeded: Vec<bool> = self.tasks.iter().map(Task::has_succeeded).collect();
        let settled: Vec<bool> = self.tasks.iter().map(Task::has_settled).collect();
        let halted = self.halted();
        let tasks = || self.plan.tasks.iter().zip(&self.tasks);
        let may_work = |task: &Task| !halted && task.after.iter().all(|other| succeeded[*other]);
        let instances = |task: &'_ Task, phase: fn(Phase) -> bool| {
            task.instances.iter().flatten().filter(|instance| phase(instance.phase)).count()
        };
        let runs = |phase| matches!(phase, Phase::Running(_));
        let goes_on = |phase| matches!(phase, Phase::Running(_) | Phase::Retrying);
        let waits = |phase| phase == Phase::Waiting;
        let work_left = tasks()
            .filter(|(planned, _)| !planned.teardown)
            .any(|(_, task)| instances(task, goes_on) > 0 || (may_work(task) && instances(task, waits) > 0));
        let may_tear_down = |task: &Task| {
            let blocks = |other: &usize| self.plan.tasks[*other].teardown && !settled[*other];
            !work_left && !task.after.iter().any(blocks)
        };
        let startable = tasks()
            .map(|(planned, task)| if planned.teardown { may_tear_down(task) } else { may_work(task) })
            .collect();
        let torn_down = self.plan.tasks.iter().zip(&settled).all(|(planned, settled)| !planned.teardown || *settled);
        let running = tasks().map(|(_, task)| instances(task, runs)).sum();
        View { is_over: !work_left && torn_down, succeeded, startable, running }
    }

    /// Takes in an outcome; that of a split makes the instances of what is mapped over it.
    fn settle(&mut self, ended: &TaskEnded) -> Result<(), Misfit> {
        let instance = self.instance(&ended.instance).ok_or(Misfit)?;
        match instance.phase {
            Phase::Running(_) if instance.attempts == ended.attempt => instance.phase = Phase::Settled,
            Phase::Running(_) | Phase::Waiting | Phase::Retrying | Phase::Settled => return Err(Misfit),
        }
        instance.outcome = Some(ended.outcome.clone());
        match ended.outcome.status {
            Status::Succeeded => {
                for (planned, task) in self.plan.tasks.iter().zip(&mut self.tasks) {
                    if planned.mapped_over.as_ref() == Some(&ended.instance.task) {
                        let partitions = ended.outcome.partitions.iter().cloned();
                        task.instances = Some(partitions.map(|partition| Instance::new(Some(partition))).collect());
                    }
                }
            }
            Status::Failed => instance.failures += 1,
            // Only a deadline ends a try so.
            Status::Cancelled => {
                let code = ended.outcome.problem.as_ref().map(|problem| problem.code);
                self.overdue |= code == Some(Code::TaskTimedOut);
            }
        }
        Ok(())
    }

    fn record(&mut self, body: RecordBody, effects: &mut Vec<Effect>) {
        let fits = self.replay(&body);
        debug_assert_eq!(fits, Ok(()), "the machine recorded what does not fit: {}", body.kind());
        effects.push(Effect::Record(Box::new(body)));
    }

    fn halted(&self) -> bool {
        self.cancelled || self.overdue
    }

    fn instance(&mut self, name: &TaskInstance) -> Option<&mut Instance> {
        let position = self.positions.get(&name.task)?;
        let instances = self.tasks[*position].instances.as_mut()?;
        let index = name.map_index.map_or(Some(0), |index| usize::try_from(index).ok())?;
        // Partitions are numbered from 0 without a gap, see `settle::settle`.
        instances.get_mut(index).filter(|instance| instance.partition.is_some() == name.map_index.is_some())
    }
}

// === impl Task, Instance ===

impl Task {
    fn has_succeeded(&self) -> bool {
        self.instances.as_ref().is_some_and(|instances| instances.iter().all(Instance::has_succeeded))
    }

    fn has_settled(&self) -> bool {
        self.instances.iter().flatten().all(|instance| instance.phase == Phase::Settled)
    }
}

impl Instance {
    fn new(partition: Option<Partition>) -> Self {
        Self { partition, phase: Phase::Waiting, attempts: 0, failures: 0, outcome: None }
    }

    fn name(&self, planned: &PlannedTask) -> TaskInstance {
        let map_index = self.partition.as_ref().map(|partition| partition.index);
        TaskInstance { task: planned.spec.id.clone(), map_index }
    }

    fn has_succeeded(&self) -> bool {
        self.phase == Phase::Settled && self.outcome.as_ref().is_some_and(|outcome| outcome.status == Status::Succeeded)
    }
}
