//! What the end of a task's process means.
//!
//! A task's last word counts when its exit agrees with it. What ended without a word, or said "done" and then
//! crashed, has crashed: it is tried again, and the effect key sees to it that nothing happens twice.

use std::{io, path::Path, process::ExitStatus};

use dagwright_model::{
    code::{Code, TaskExit},
    id::TaskId,
    task::{Counts, Outcome, Problem, Status},
};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The system does not tell.
    Unknown,
}

const SIGKILL: i32 = 9;

// === impl Exit ===

impl From<io::Result<ExitStatus>> for Exit {
    fn from(status: io::Result<ExitStatus>) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let Ok(status) = status else { return Self::Unknown };
        status.code().map(Self::Code).or_else(|| status.signal().map(Self::Signal)).unwrap_or(Self::Unknown)
    }
}

/// Returns what came of a try, from what it said last and how its process ended.
pub(crate) fn judge(task: &TaskId, said: Option<Outcome>, exit: Exit, elapsed_ms: u64) -> Outcome {
    match (said, exit) {
        (Some(outcome), Exit::Code(0)) if outcome.status == Status::Succeeded => outcome,
        (Some(outcome), Exit::Code(_) | Exit::Signal(_) | Exit::Unknown) if outcome.status != Status::Succeeded => {
            // A failure is believed however the process ended after it; what it lacks is a problem at most.
            let problem = outcome.problem.or_else(|| Some(speechless(task, exit)));
            Outcome { problem, ..outcome }
        }
        (Some(_) | None, exit) => {
            let problem = speechless(task, exit);
            let status = if problem.code == Code::Cancelled { Status::Cancelled } else { Status::Failed };
            ended(status, problem, elapsed_ms)
        }
    }
}

/// Returns what came of a try whose process could not be started.
pub(crate) fn unstarted(task: &TaskId, program: &Path, error: &io::Error) -> Outcome {
    let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
    let (code, hint) = if missing {
        (Code::TaskCommandMissing, "set task.command, or put dagwright-task beside dagwright or into PATH")
    } else {
        (Code::TaskCrashed, "check the machine's limits on processes, open files and memory")
    };
    let message = format!("could not start {}: {error}", program.display());
    failed(Problem { code, subject: task.0.clone(), message, hint: hint.into() })
}

/// Returns what came of a try that cannot start for want of a connection.
pub(crate) fn unconnected(connection: &str, variable: &str) -> Outcome {
    failed(Problem {
        code: Code::ConnectionMissing,
        subject: connection.into(),
        message: format!("connection \"{connection}\" is not defined"),
        hint: format!("set {variable}, or connections.{connection}.url in the configuration"),
    })
}

/// Returns what came of a try that was told to stop before it started.
pub(crate) fn unwanted(task: &TaskId) -> Outcome {
    let message = format!("task {task}: it was told to stop before it started");
    let problem =
        Problem { code: Code::Cancelled, subject: task.0.clone(), message, hint: "run the pipeline again".into() };
    ended(Status::Cancelled, problem, 0)
}

/// Returns an outcome that counted nothing.
pub(crate) fn ended(status: Status, problem: Problem, elapsed_ms: u64) -> Outcome {
    Outcome {
        status,
        repeated: false,
        counts: Counts::default(),
        partitions: Vec::new(),
        cursors: std::collections::BTreeMap::new(),
        problem: Some(problem),
        elapsed_ms,
        memory_peak_bytes: 0,
    }
}

fn failed(problem: Problem) -> Outcome {
    ended(Status::Failed, problem, 0)
}

/// Says what is known of a task that did not say it itself.
fn speechless(task: &TaskId, exit: Exit) -> Problem {
    let by_code = |number: i32| TaskExit::ALL.iter().copied().find(|exit| i32::from(exit.number()) == number);
    let (code, how, hint) = match exit {
        Exit::Code(number) => {
            let code = match by_code(number) {
                Some(TaskExit::BadSpec) => Code::TaskSpecInvalid,
                Some(TaskExit::OutOfMemoryBudget) => Code::MemoryExhausted,
                Some(TaskExit::Cancelled) => Code::Cancelled,
                // The other codes say too little without an outcome; trying again costs little.
                Some(
                    TaskExit::Done
                    | TaskExit::SourceUnavailable
                    | TaskExit::SinkUnavailable
                    | TaskExit::SchemaDrift
                    | TaskExit::QualityGateFailed
                    | TaskExit::Permission
                    | TaskExit::DataError
                    | TaskExit::OtherConnection,
                )
                | None => Code::TaskCrashed,
            };
            (code, format!("exited with code {number} and no outcome"), "the end of its log may tell why")
        }
        Exit::Signal(SIGKILL) => (
            Code::TaskKilled,
            "was killed (signal 9)".into(),
            "the system may have run out of memory: lower goals.memory_max, or run fewer tasks at once",
        ),
        Exit::Signal(number) => {
            (Code::TaskCrashed, format!("was ended by signal {number}"), "the end of its log may tell why")
        }
        Exit::Unknown => (Code::TaskCrashed, "ended, nobody knows how".into(), "the end of its log may tell why"),
    };
    Problem { code, subject: task.0.clone(), message: format!("task {task} {how}"), hint: hint.into() }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        code::Code,
        id::TaskId,
        task::{Counts, Outcome, Problem, Status},
    };

    use super::{Exit, judge};

    fn said(status: Status, code: Option<Code>) -> Option<Outcome> {
        let problem = code.map(|code| Problem { code, subject: "s".into(), message: "m".into(), hint: "h".into() });
        Some(Outcome {
            status,
            repeated: false,
            counts: Counts::default(),
            partitions: Vec::new(),
            cursors: std::collections::BTreeMap::new(),
            problem,
            elapsed_ms: 1,
            memory_peak_bytes: 1,
        })
    }

    #[track_caller]
    fn check(said: Option<Outcome>, exit: Exit, status: Status, code: Option<Code>) {
        let outcome = judge(&TaskId("load".into()), said, exit, 1);
        assert_eq!((outcome.status, outcome.problem.map(|problem| problem.code)), (status, code));
    }

    #[test]
    fn the_last_word_counts_when_the_exit_agrees() {
        let done = || said(Status::Succeeded, None);
        check(done(), Exit::Code(0), Status::Succeeded, None);
        check(done(), Exit::Code(1), Status::Failed, Some(Code::TaskCrashed));
        check(done(), Exit::Signal(11), Status::Failed, Some(Code::TaskCrashed));
        let drifted = || said(Status::Failed, Some(Code::SourceDrifted));
        check(drifted(), Exit::Code(13), Status::Failed, Some(Code::SourceDrifted));
        check(drifted(), Exit::Code(0), Status::Failed, Some(Code::SourceDrifted));
        check(drifted(), Exit::Signal(9), Status::Failed, Some(Code::SourceDrifted));
        check(said(Status::Failed, None), Exit::Code(18), Status::Failed, Some(Code::TaskCrashed));
        let cancelled = said(Status::Cancelled, Some(Code::Cancelled));
        check(cancelled, Exit::Code(17), Status::Cancelled, Some(Code::Cancelled));
    }

    #[test]
    fn silence_is_a_crash_unless_the_exit_code_tells() {
        for (exit, status, code) in [
            (Exit::Code(0), Status::Failed, Code::TaskCrashed),
            (Exit::Code(2), Status::Failed, Code::TaskCrashed),
            (Exit::Code(101), Status::Failed, Code::TaskCrashed),
            (Exit::Code(10), Status::Failed, Code::TaskSpecInvalid),
            (Exit::Code(15), Status::Failed, Code::MemoryExhausted),
            (Exit::Code(17), Status::Cancelled, Code::Cancelled),
            (Exit::Signal(9), Status::Failed, Code::TaskKilled),
            (Exit::Signal(11), Status::Failed, Code::TaskCrashed),
            (Exit::Unknown, Status::Failed, Code::TaskCrashed),
        ] {
            check(None, exit, status, Some(code));
        }
    }
}
