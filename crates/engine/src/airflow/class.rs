//! What kind of failure a code means, and what may be done about it.

use std::time::Duration;

use dagwright_model::{
    code::{Code, TaskExit},
    record::{FailureClass, RunRemedy},
};

/// The pauses before the failed tasks of a run are cleared, which also bound how often: Airflow has tried them as often as
/// `retries` says before that, so what helps now is to wait.
const CLEAR_AFTER: [Duration; 3] = [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(20)];

/// The pauses before a run that Airflow lost is triggered again.
const TRIGGER_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_mins(1)];

/// Returns what kind of failure a code means.
pub(crate) fn of(code: Code) -> FailureClass {
    match code {
        // A worker or a process was lost, or a source changed under the reader's hands.
        Code::TaskCrashed | Code::SourceChanged => FailureClass::Transient,
        // Nobody here kills a task that was not told to stop: the system does, when memory runs out.
        Code::TaskTimedOut | Code::TaskKilled => FailureClass::Resources,
        Code::AirflowUnreachable | Code::AirflowUnavailable => FailureClass::Transient,
        code => match code.exit() {
            TaskExit::SourceUnavailable | TaskExit::SinkUnavailable => FailureClass::Away,
            TaskExit::SchemaDrift => FailureClass::SchemaDrift,
            TaskExit::QualityGateFailed => FailureClass::Quality,
            TaskExit::OutOfMemoryBudget => FailureClass::Resources,
            TaskExit::Permission | TaskExit::OtherConnection => FailureClass::Permission,
            TaskExit::Cancelled => FailureClass::Stopped,
            TaskExit::Done | TaskExit::BadSpec | TaskExit::DataError => FailureClass::Bug,
        },
    }
}

/// Returns what is done about a failed run and after which pause, when `used` remedies of that kind were applied already;
/// `None` when a person has to decide.
pub(crate) fn remedy(class: FailureClass, used: u32) -> Option<(RunRemedy, Duration)> {
    let pause = |pauses: &[Duration]| pauses.get(usize::try_from(used).unwrap_or(usize::MAX)).copied();
    match class {
        FailureClass::Transient | FailureClass::Away => Some((RunRemedy::Clear, pause(&CLEAR_AFTER)?)),
        // The same tasks would end the same way.
        FailureClass::SchemaDrift
        | FailureClass::Quality
        | FailureClass::Resources
        | FailureClass::Permission
        | FailureClass::Stopped
        | FailureClass::Bug => None,
    }
}

/// Returns after which pause a run that was lost `used` times before is triggered again; `None` when it stays lost.
pub(crate) fn trigger_again(used: u32) -> Option<Duration> {
    TRIGGER_AFTER.get(usize::try_from(used).unwrap_or(usize::MAX)).copied()
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        code::Code,
        record::{FailureClass, RunRemedy},
    };

    use super::{of, remedy, trigger_again};

    #[test]
    fn every_code_has_a_class_and_few_are_tried_again() {
        for (code, class, again) in [
            (Code::SourceUnreachable, FailureClass::Away, true),
            (Code::SinkUnreachable, FailureClass::Away, true),
            (Code::SinkFull, FailureClass::Away, true),
            (Code::TaskCrashed, FailureClass::Transient, true),
            (Code::SourceChanged, FailureClass::Transient, true),
            (Code::SourceDrifted, FailureClass::SchemaDrift, false),
            (Code::SinkDrifted, FailureClass::SchemaDrift, false),
            (Code::GateFailed, FailureClass::Quality, false),
            (Code::MemoryExhausted, FailureClass::Resources, false),
            (Code::TaskTimedOut, FailureClass::Resources, false),
            (Code::TaskKilled, FailureClass::Resources, false),
            (Code::SinkDenied, FailureClass::Permission, false),
            (Code::ConnectionOther, FailureClass::Permission, false),
            (Code::Cancelled, FailureClass::Stopped, false),
            (Code::SqlFailed, FailureClass::Bug, false),
            (Code::Internal, FailureClass::Bug, false),
        ] {
            assert_eq!(of(code), class, "{code}");
            assert_eq!(remedy(class, 0).is_some(), again, "{code}");
        }
    }

    #[test]
    fn budgets_end() {
        for class in [FailureClass::Transient, FailureClass::Away] {
            let remedies: Vec<_> = (0..10).map_while(|used| remedy(class, used)).collect();
            assert_eq!(remedies.len(), 3);
            assert!(remedies.iter().all(|(remedy, _)| *remedy == RunRemedy::Clear));
            assert!(remedies.windows(2).all(|pair| pair[0].1 < pair[1].1), "pauses grow");
        }
        assert_eq!((0..10).map_while(trigger_again).count(), 3);
    }
}
