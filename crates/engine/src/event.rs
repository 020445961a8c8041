//! What a run says while it runs, for whoever shows or forwards it.
//!
//! The channel is bounded. [`RunEvent::TaskProgress`] is dropped when it is full, since the next one says more;
//! everything else waits for room, so a reader that stops reading holds the run up.

use dagwright_model::{
    id::PlanHash,
    message::Role,
    plan::Plan,
    record::{RecordBody, TaskInstance},
    task::{Outcome, Problem, Status, TaskEvent},
};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// The events that a slow reader may be behind; a progress display reads far faster.
const BACKLOG_MAX: usize = 1024;

/// The warnings of one try that are passed on; a task that warns of every row is heard, but not that often.
pub const WARNINGS_MAX: usize = 100;

/// What a run says while it runs. What is said of tasks is in the ledger already, but for progress and warnings.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    /// The run began, or goes on.
    RunStarted {
        /// The plan.
        plan_hash: PlanHash,
        /// Whether an earlier engine began it; then a [`RunEvent::TaskEnded`] follows for each task that ended there.
        resumed: bool,
    },
    /// A try of a task began.
    TaskStarted {
        /// Which.
        instance: TaskInstance,
        /// Whose work it is.
        role: Role,
        /// Which try, from 1.
        attempt: u32,
    },
    /// How far a task is; may be dropped.
    TaskProgress {
        /// Which.
        instance: TaskInstance,
        /// Rows read so far.
        rows_read: u64,
        /// Rows it expects to read, where known.
        rows_expected: Option<u64>,
        /// Bytes read so far.
        bytes_read: u64,
        /// Bytes it expects to read, where known.
        bytes_expected: Option<u64>,
        /// Rows written so far, not yet visible.
        rows_written: u64,
    },
    /// A task has something to say to a person.
    TaskWarned {
        /// Which.
        instance: TaskInstance,
        /// What.
        problem: Problem,
    },
    /// A failed task will be tried again; its [`RunEvent::TaskEnded`] came just before.
    TaskRetrying {
        /// Which.
        instance: TaskInstance,
        /// The try to come.
        attempt: u32,
        /// The pause before it, in milliseconds.
        delay_ms: u64,
    },
    /// A try of a task ended.
    TaskEnded {
        /// Which.
        instance: TaskInstance,
        /// Whose work it is.
        role: Role,
        /// Which try.
        attempt: u32,
        /// What came of it.
        outcome: Box<Outcome>,
    },
    /// Somebody asked the run to stop.
    RunCancelling,
    /// The run ended; nothing follows.
    RunEnded {
        /// How.
        status: Status,
        /// Why, when it did not succeed.
        problem: Option<Problem>,
    },
}

/// Speaks for one try of a task, and keeps what it warned of.
#[derive(Debug)]
pub(crate) struct Voice {
    instance: TaskInstance,
    events: Sender<RunEvent>,
    rows_expected: Option<u64>,
    bytes_expected: Option<u64>,
    warnings: Vec<Problem>,
}

/// Makes a channel of the usual size.
#[must_use]
pub fn channel() -> (Sender<RunEvent>, Receiver<RunEvent>) {
    mpsc::channel(BACKLOG_MAX)
}

// === impl RunEvent ===

impl RunEvent {
    /// Returns what a record of the run is to those who watch it.
    pub(crate) fn of(body: &RecordBody, plan: &Plan) -> Option<Self> {
        let role = |instance: &TaskInstance| plan.task(&instance.task).map(|task| task.role);
        match body {
            RecordBody::RunStarted(started) => {
                Some(Self::RunStarted { plan_hash: started.plan_hash.clone(), resumed: false })
            }
            RecordBody::TaskStarted(started) => Some(Self::TaskStarted {
                instance: started.instance.clone(),
                role: role(&started.instance)?,
                attempt: started.attempt,
            }),
            RecordBody::TaskEnded(ended) => Some(Self::TaskEnded {
                instance: ended.instance.clone(),
                role: role(&ended.instance)?,
                attempt: ended.attempt,
                outcome: Box::new(ended.outcome.clone()),
            }),
            RecordBody::RetryScheduled(retry) => Some(Self::TaskRetrying {
                instance: retry.instance.clone(),
                attempt: retry.attempt,
                delay_ms: retry.delay_ms,
            }),
            RecordBody::Cancelled(_) => Some(Self::RunCancelling),
            RecordBody::RunEnded(ended) => {
                Some(Self::RunEnded { status: ended.status, problem: ended.problem.clone() })
            }
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
            | RecordBody::RemedyApplied(_)
            | RecordBody::PipelineChanged(_)
            | RecordBody::Replanned(_) => None,
        }
    }
}

// === impl Voice ===

impl Voice {
    pub(crate) fn new(instance: TaskInstance, events: Sender<RunEvent>) -> Self {
        Self { instance, events, rows_expected: None, bytes_expected: None, warnings: Vec::new() }
    }

    /// Passes on what the task said; returns its outcome, when it was that.
    pub(crate) async fn hear(&mut self, event: TaskEvent) -> Option<Outcome> {
        match event {
            TaskEvent::Started { task: _, rows_expected, bytes_expected } => {
                (self.rows_expected, self.bytes_expected) = (rows_expected, bytes_expected);
                self.progress(0, 0, 0);
                None
            }
            TaskEvent::Progress { rows_read, bytes_read, rows_written } => {
                self.progress(rows_read, bytes_read, rows_written);
                None
            }
            TaskEvent::Warning(problem) => {
                if self.warnings.len() < WARNINGS_MAX {
                    self.warnings.push(problem.clone());
                    // A closed channel means that nobody listens, which is no reason to stop.
                    let _ = self.events.send(RunEvent::TaskWarned { instance: self.instance.clone(), problem }).await;
                }
                None
            }
            TaskEvent::Outcome(outcome) => Some(*outcome),
        }
    }

    pub(crate) fn into_warnings(self) -> Vec<Problem> {
        self.warnings
    }

    fn progress(&self, rows_read: u64, bytes_read: u64, rows_written: u64) {
        // Full: the reader is slow, and the next progress says more. Closed: nobody listens.
        let _ = self.events.try_send(RunEvent::TaskProgress {
            instance: self.instance.clone(),
            rows_read,
            rows_expected: self.rows_expected,
            bytes_read,
            bytes_expected: self.bytes_expected,
            rows_written,
        });
    }
}
