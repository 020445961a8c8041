//! What a run in Airflow becomes, whatever it is told and in whatever order.

use std::{sync::Arc, time::Duration};

use dagwright_model::{
    code::Code,
    record::{FailureClass, RecordBody, RunRemedy, TaskInstance},
    task::{Outcome, Problem},
};
use proptest::prelude::*;

use super::{Effect, Event, Following, Progress, Tried};
use crate::{
    Replanning,
    tests::fixture::{failed, instance, plan, started, succeeded, task, teardown},
};

/// A run of three tasks that began, and what it wanted first.
fn begun() -> (Following, Vec<Effect>) {
    let plan = Arc::new(plan(vec![task("read", &[]), task("load", &["read"]), teardown("cleanup", &["load"])]));
    let mut following = Following::new(plan.clone(), true, Replanning::Left(2));
    let effects = following.apply(Event::Begun(Box::new(started(&plan))));
    (following, effects)
}

fn tried(task: &str, attempt: u32, progress: Progress) -> Event {
    Event::Tried(Tried { instance: instance(task), attempt, progress, seen: false })
}

fn seen(task: &str, attempt: u32, progress: Progress) -> Event {
    Event::Tried(Tried { instance: instance(task), attempt, progress, seen: true })
}

fn ended(outcome: Outcome) -> Progress {
    Progress::Ended { outcome: Box::new(outcome), again: false }
}

/// What stands in the effects, in few words.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Record(body) => match &**body {
            RecordBody::TaskStarted(started) => format!("{} {} began", started.instance, started.attempt),
            RecordBody::TaskEnded(ended) => {
                format!("{} {} {:?}", ended.instance, ended.attempt, ended.outcome.status)
            }
            RecordBody::RetryScheduled(retry) => {
                format!("{} {} in {} ms", retry.instance, retry.attempt, retry.delay_ms)
            }
            RecordBody::RemedyApplied(applied) => {
                format!("{} {} for {}", applied.remedy.as_str(), applied.number, applied.class.as_str())
            }
            RecordBody::RunEnded(ended) => match &ended.problem {
                Some(problem) if ended.is_setback() => format!("set back by {}", problem.code),
                Some(problem) => format!("{:?} with {}", ended.status, problem.code),
                None => format!("{:?}", ended.status),
            },
            other => other.kind().to_owned(),
        },
        other => format!("{other:?}"),
    };
    effects.iter().map(word).collect()
}

#[track_caller]
fn check(following: &mut Following, event: Event, wanted: &[&str]) {
    assert_eq!(words(&following.apply(event)), wanted);
}

#[test]
fn a_run_is_triggered_and_followed_to_its_end() {
    let (mut run, effects) = begun();
    assert_eq!(words(&effects), ["run_started", "Trigger"]);
    check(&mut run, Event::Helped, &["Look"]);
    check(&mut run, tried("read", 1, Progress::Running), &["read 1 began"]);
    check(&mut run, tried("read", 1, ended(succeeded())), &["read 1 Succeeded"]);
    // Its beginning was never told.
    check(&mut run, tried("load", 1, ended(succeeded())), &["load 1 began", "load 1 Succeeded"]);
    check(&mut run, Event::RunEnded { succeeded: true }, &["Succeeded"]);
    assert_eq!(run.outcome().expect("an outcome").tasks.len(), 3);
    check(&mut run, tried("cleanup", 1, Progress::Running), &[]);
}

#[test]
fn airflows_own_tries_are_told_as_retries() {
    let (mut run, _) = begun();
    let again =
        |attempt| tried("load", attempt, Progress::Ended { outcome: Box::new(failed(Code::TaskCrashed)), again: true });
    check(&mut run, again(1), &["load 1 began", "load 1 Failed", "load 2 in 30000 ms"]);
    check(&mut run, again(2), &["load 2 began", "load 2 Failed", "load 3 in 60000 ms"]);
    check(&mut run, again(1), &[]);
}

#[test]
fn a_try_that_was_lost_without_a_word_is_told_by_the_next() {
    let (mut run, _) = begun();
    check(&mut run, tried("load", 1, Progress::Running), &["load 1 began"]);
    check(&mut run, tried("load", 2, Progress::Running), &["load 1 Failed", "load 2 began"]);
    check(&mut run, Event::RunEnded { succeeded: true }, &["load 2 Failed", "Succeeded"]);
}

#[test]
fn what_somebody_marked_is_believed_when_it_was_seen() {
    let (mut run, _) = begun();
    check(&mut run, tried("load", 1, ended(failed(Code::TaskCrashed))), &["load 1 began", "load 1 Failed"]);
    check(&mut run, tried("load", 1, ended(succeeded())), &[]);
    check(&mut run, seen("load", 1, ended(succeeded())), &["load 1 Succeeded"]);
    check(&mut run, seen("load", 1, ended(succeeded())), &[]);
}

#[test]
fn strangers_tasks_and_tries_that_never_were_are_passed_over() {
    let (mut run, _) = begun();
    check(&mut run, tried("else", 1, Progress::Running), &[]);
    check(&mut run, tried("load", 0, Progress::Running), &[]);
}

#[test]
fn what_may_pass_is_waited_for_and_cleared_a_few_times() {
    let (mut run, _) = begun();
    for attempt in 1..=3 {
        let remedy = format!("clear {attempt} for away");
        check(
            &mut run,
            seen("load", attempt, ended(failed(Code::SinkUnreachable))),
            &[&format!("load {attempt} began"), &format!("load {attempt} Failed")],
        );
        let effects = run.apply(Event::RunEnded { succeeded: false });
        assert_eq!(words(&effects)[0], remedy);
        let Some(Effect::Delay(pause)) = effects.last() else { panic!("{effects:?}") };
        assert!(*pause >= Duration::from_secs(60));
        // Seen once more meanwhile: the same end.
        check(&mut run, Event::RunEnded { succeeded: false }, &[]);
        check(&mut run, Event::RemedyDue, &["Clear"]);
        check(&mut run, Event::RunEnded { succeeded: false }, &[]);
        check(&mut run, Event::Helped, &["Look"]);
    }
    check(&mut run, seen("load", 4, ended(failed(Code::SinkUnreachable))), &["load 4 began", "load 4 Failed"]);
    check(&mut run, Event::RunEnded { succeeded: false }, &["Failed with DW0401"]);
}

#[test]
fn what_stays_wrong_ends_the_run_at_once() {
    for code in [Code::GateFailed, Code::SinkDenied, Code::TaskTimedOut, Code::Internal] {
        let (mut run, _) = begun();
        run.apply(seen("load", 1, ended(failed(code))));
        check(&mut run, Event::RunEnded { succeeded: false }, &[&format!("Failed with {code}")]);
    }
}

#[test]
fn what_another_plan_may_help_sets_the_request_back() {
    for code in [Code::SourceDrifted, Code::SinkDrifted, Code::MemoryExhausted] {
        let (mut run, _) = begun();
        run.apply(seen("load", 1, ended(failed(code))));
        check(&mut run, Event::RunEnded { succeeded: false }, &[&format!("set back by {code}")]);
        let setback = run.outcome().expect("ended").setback.expect("a setback");
        let task = setback.task.expect("a task");
        assert_eq!((task.instance, task.exit), (instance("load"), code.exit().number()));
    }
    // Somebody wanted it to stop: it stays stopped.
    let (mut run, _) = begun();
    run.apply(Event::CancelRequested { by: None });
    run.apply(seen("load", 1, ended(failed(Code::MemoryExhausted))));
    check(&mut run, Event::RunEnded { succeeded: false }, &["Cancelled with DW0605"]);
}

#[test]
fn a_failed_clean_up_is_no_reason() {
    let (mut run, _) = begun();
    run.apply(seen("cleanup", 1, ended(failed(Code::TaskCrashed))));
    check(&mut run, Event::RunEnded { succeeded: false }, &["Failed with DW0916"]);
}

#[test]
fn a_run_that_airflow_lost_is_triggered_again_and_its_tries_begin_anew() {
    let (mut run, _) = begun();
    run.apply(tried("load", 3, Progress::Running));
    for number in 1..=3 {
        assert_eq!(words(&run.apply(Event::Lost))[0], format!("trigger {number} for transient"));
        check(&mut run, Event::Lost, &[]);
        check(&mut run, Event::RemedyDue, &["Trigger"]);
        check(&mut run, Event::Helped, &["Look"]);
        check(&mut run, tried("load", 1, Progress::Running), &["load 1 began"]);
    }
    check(&mut run, Event::Lost, &["load 1 Failed", "Failed with DW0915"]);
}

#[test]
fn what_is_told_late_of_a_lost_run_does_not_hold_the_next_one_up() {
    let (mut run, _) = begun();
    check(&mut run, Event::Lost, &["trigger 1 for transient", "Delay(1s)"]);
    check(&mut run, tried("load", 4, Progress::Running), &[]);
    check(&mut run, Event::Lost, &[]);
    check(&mut run, Event::RemedyDue, &["Trigger"]);
    // Seen in Airflow: somebody else triggered it.
    check(&mut run, seen("load", 1, Progress::Running), &["load 1 began"]);
}

#[test]
fn a_run_that_is_not_ours_is_only_looked_at() {
    let plan = Arc::new(plan(vec![task("load", &[])]));
    let mut run = Following::new(plan.clone(), false, Replanning::Never { why: "" });
    check(&mut run, Event::Begun(Box::new(started(&plan))), &["run_started", "Look"]);
    check(&mut run, Event::Lost, &["Failed with DW0915"]);
}

#[test]
fn a_cancelled_run_is_stopped_and_ends_as_airflow_says() {
    let (mut run, _) = begun();
    let cancel = || Event::CancelRequested { by: Some("ann".into()) };
    check(&mut run, cancel(), &["cancelled", "Stop", "Look"]);
    check(&mut run, cancel(), &[]);
    check(&mut run, Event::RunEnded { succeeded: false }, &["Cancelled with DW0605"]);

    // It was done before it could be stopped.
    let (mut run, _) = begun();
    run.apply(cancel());
    check(&mut run, Event::RunEnded { succeeded: true }, &["Succeeded"]);

    // It was never triggered.
    let (mut run, _) = begun();
    run.apply(cancel());
    check(&mut run, Event::Lost, &["Cancelled with DW0605"]);

    // While a remedy waits, nothing is left to be stopped.
    let (mut run, _) = begun();
    run.apply(seen("load", 1, ended(failed(Code::TaskCrashed))));
    run.apply(Event::RunEnded { succeeded: false });
    run.apply(cancel());
    check(&mut run, Event::RemedyDue, &[]);
    check(&mut run, Event::RunEnded { succeeded: false }, &["Cancelled with DW0605"]);
}

#[test]
fn airflow_may_refuse_a_run() {
    let (mut run, _) = begun();
    let problem = Problem { code: Code::AirflowRefused, subject: "p".into(), message: "m".into(), hint: "h".into() };
    check(&mut run, Event::Refused(problem), &["Failed with DW0907"]);
}

/// Makes a run anew from what another one recorded.
fn replayed(records: &[RecordBody]) -> Following {
    let plan = Arc::new(plan(vec![task("read", &[]), task("load", &["read"]), teardown("cleanup", &["load"])]));
    let mut following = Following::new(plan, true, Replanning::Never { why: "" });
    for body in records {
        following.replay(body).expect("fits");
    }
    following
}

fn records(effects: Vec<Effect>) -> Vec<RecordBody> {
    let record = |effect| match effect {
        Effect::Record(body) => Some(*body),
        _ => None,
    };
    effects.into_iter().filter_map(record).collect()
}

#[test]
fn a_remedy_that_was_recorded_is_applied_by_the_next_who_follows() {
    let (mut run, effects) = begun();
    let mut ledger = records(effects);
    ledger.extend(records(run.apply(seen("load", 1, ended(failed(Code::TaskCrashed))))));
    ledger.extend(records(run.apply(Event::RunEnded { succeeded: false })));
    let mut next = replayed(&ledger);
    let begun = next.started().cloned().expect("it began");
    let effects = next.apply(Event::Begun(Box::new(begun)));
    assert!(matches!(effects[..], [Effect::Delay(_), Effect::Look]), "{effects:?}");
    check(&mut next, Event::RunEnded { succeeded: false }, &[]);
    check(&mut next, Event::RemedyDue, &["Clear"]);
    assert_eq!(next.remedies[&RunRemedy::Clear], 1);
    assert_eq!(super::class::of(Code::TaskCrashed), FailureClass::Transient);
}

fn event() -> impl Strategy<Value = Event> {
    let progress = prop_oneof![
        Just(Progress::Running),
        Just(ended(succeeded())),
        Just(ended(failed(Code::TaskCrashed))),
        Just(Progress::Ended { outcome: Box::new(failed(Code::TaskCrashed)), again: true }),
    ];
    (prop::sample::select(vec!["read", "load", "cleanup"]), 1_u32..5, progress, any::<bool>()).prop_map(
        |(task, attempt, progress, seen)| {
            Event::Tried(Tried {
                instance: TaskInstance { task: instance(task).task, map_index: None },
                attempt,
                progress,
                seen,
            })
        },
    )
}

proptest! {
    /// Whatever is told, in whatever order: no try ends before it began, none begins twice, and replay knows as much.
    #[test]
    fn the_ledger_makes_sense(events in prop::collection::vec(event(), 0..40)) {
        let (mut run, effects) = begun();
        let mut ledger = records(effects);
        for event in events {
            ledger.extend(records(run.apply(event.clone())));
            prop_assert!(records(run.apply(event)).is_empty(), "a repeat changes nothing");
        }
        let (mut began, mut open) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for body in &ledger {
            match body {
                RecordBody::TaskStarted(started) => {
                    prop_assert!(began.insert((started.instance.clone(), started.attempt)));
                    prop_assert!(open.insert(started.instance.clone()), "one try at a time");
                }
                RecordBody::TaskEnded(ended) => {
                    prop_assert!(began.contains(&(ended.instance.clone(), ended.attempt)));
                    open.remove(&ended.instance);
                }
                _ => {}
            }
        }
        let mut next = replayed(&ledger);
        let (one, other) = (run.apply(Event::RunEnded { succeeded: true }), next.apply(Event::RunEnded { succeeded: true }));
        prop_assert_eq!(one, other);
    }
}
