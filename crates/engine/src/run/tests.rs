//! Tables for the machine: each row is an event and what is to be done about it.

use std::{num::NonZeroUsize, sync::Arc};

use dagwright_model::{
    code::Code,
    plan::Plan,
    record::RecordBody,
    task::{Outcome, Status},
    units::Span,
};

use super::{Effect, Event, Misfit, Run};
use crate::{
    Error, Replanning,
    tests::fixture::{
        failed, instance, mapped, plan, publish, split, split_in, staging, started, succeeded, task, teardown,
    },
};

/// A run, and everything it recorded.
struct Bench {
    plan: Arc<Plan>,
    run: Run,
    records: Vec<RecordBody>,
    parallelism: usize,
}

impl Bench {
    fn new(plan: Plan) -> Self {
        Self::with_parallelism(plan, 8)
    }

    fn with_parallelism(plan: Plan, parallelism: usize) -> Self {
        let plan = Arc::new(plan);
        let run = Run::new(plan.clone(), NonZeroUsize::new(parallelism).expect("positive"), Replanning::Left(2))
            .expect("a valid plan");
        Self { plan, run, records: Vec::new(), parallelism }
    }

    fn apply(&mut self, event: Event) -> String {
        let effects = self.run.apply(event);
        let is_record = |effect: &Effect| matches!(effect, Effect::Record(_));
        let mut words = Vec::new();
        for effect in &effects {
            if let Effect::Record(body) = effect {
                self.records.push((**body).clone());
            }
        }
        // A step's records are all made before its other effects are done, so their mutual order is free; launches
        // must be recorded.
        for effect in effects {
            if is_record(&effect) {
                continue;
            }
            words.push(match effect {
                Effect::Record(_) => String::new(),
                Effect::ArmDeadline(after) => format!("deadline {}s", after.as_secs()),
                Effect::Launch { instance, attempt, .. } => {
                    let recorded = self.records.iter().any(|body| {
                        matches!(body, RecordBody::TaskStarted(started)
                            if started.instance == instance && started.attempt == attempt)
                    });
                    assert!(recorded, "{instance} was launched but not recorded");
                    format!("launch {instance} #{attempt}")
                }
                Effect::Stop { instance } => format!("stop {instance}"),
                Effect::Delay { instance, attempt, pause } => {
                    format!("delay {instance} #{attempt} {}s", pause.as_secs())
                }
            });
        }
        if let Some(RecordBody::RunEnded(ended)) = self.records.last() {
            let code = ended.problem.as_ref().map(|problem| format!(" {}", problem.code)).unwrap_or_default();
            words.push(format!("{:?}{code}", ended.status));
        }
        words.join(", ")
    }

    #[track_caller]
    fn begin(&mut self, wanted: &str) {
        let event = Event::Begun(Box::new(started(&self.plan)));
        assert_eq!(self.apply(event), wanted, "begin");
    }

    #[track_caller]
    fn end(&mut self, name: &str, attempt: u32, outcome: Outcome, wanted: &str) {
        let event =
            Event::TaskEnded { instance: instance(name), attempt, outcome: Box::new(outcome), timed_out: false };
        assert_eq!(self.apply(event), wanted, "end of {name}");
    }

    #[track_caller]
    fn time_out(&mut self, name: &str, attempt: u32, outcome: Outcome, wanted: &str) {
        let event = Event::TaskEnded { instance: instance(name), attempt, outcome: Box::new(outcome), timed_out: true };
        assert_eq!(self.apply(event), wanted, "timeout of {name}");
    }

    #[track_caller]
    fn retry(&mut self, name: &str, attempt: u32, wanted: &str) {
        let event = Event::RetryDue { instance: instance(name), attempt };
        assert_eq!(self.apply(event), wanted, "retry of {name}");
    }

    #[track_caller]
    fn cancel(&mut self, wanted: &str) {
        assert_eq!(self.apply(Event::CancelRequested { by: None }), wanted, "cancel");
    }

    /// What another engine finds in the ledger.
    fn crash(self) -> Self {
        let mut next = Self::with_parallelism((*self.plan).clone(), self.parallelism);
        for body in &self.records {
            next.run.replay(body).expect("the records fit");
        }
        next.records = self.records;
        next
    }

    #[track_caller]
    fn code_of(&self, name: &str) -> Option<Code> {
        let report = self.run.outcome(|_| Default::default()).expect("ended");
        let task = report.tasks.into_iter().find(|task| task.instance == instance(name)).expect("a task");
        task.outcome.and_then(|outcome| outcome.problem).map(|problem| problem.code)
    }
}

#[test]
fn tasks_start_once_what_they_follow_succeeded() {
    let mut run = Bench::new(plan(vec![task("a", &[]), task("b", &[]), task("c", &["a", "b"]), teardown("z", &["c"])]));
    run.begin("launch a #1, launch b #1");
    run.end("a", 1, succeeded(), "");
    run.end("b", 1, succeeded(), "launch c #1");
    run.end("c", 1, succeeded(), "launch z #1");
    run.end("z", 1, succeeded(), "Succeeded");
    let outcome = run.run.outcome(|_| Default::default()).expect("ended");
    assert_eq!(outcome.counts.sinks.values().map(|sink| sink.loaded).sum::<u64>(), 4);
    assert_eq!(outcome.tasks.len(), 4);
}

#[test]
fn no_more_tasks_run_than_may() {
    let mut run = Bench::with_parallelism(
        plan(vec![task("a", &[]), task("b", &[]), task("c", &[]), teardown("y", &[]), teardown("z", &[])]),
        2,
    );
    run.begin("launch a #1, launch b #1");
    run.end("b", 1, succeeded(), "launch c #1");
    run.end("a", 1, succeeded(), "");
    run.end("c", 1, succeeded(), "launch y #1, launch z #1");
    run.end("z", 1, succeeded(), "");
    run.end("y", 1, succeeded(), "Succeeded");
}

#[test]
fn a_mapped_task_runs_once_for_each_partition() {
    let tasks = || vec![split("s", 3), mapped("m", "s"), task("publish", &["m"]), teardown("z", &[])];
    let mut run = Bench::with_parallelism(plan(tasks()), 2);
    run.begin("launch s #1");
    run.end("s", 1, split_in(3), "launch m[0] #1, launch m[1] #1");
    run.end("m[1]", 1, succeeded(), "launch m[2] #1");
    run.end("m[2]", 1, succeeded(), "");
    run.end("m[0]", 1, succeeded(), "launch publish #1");
    run.end("publish", 1, succeeded(), "launch z #1");
    run.end("z", 1, succeeded(), "Succeeded");

    let mut none = Bench::new(plan(tasks()));
    none.begin("launch s #1");
    none.end("s", 1, split_in(0), "launch publish #1");

    let mut failing = Bench::new(plan(tasks()));
    failing.begin("launch s #1");
    failing.end("s", 1, failed(Code::SourceDrifted), "launch z #1");
    failing.end("z", 1, succeeded(), "Failed DW0305");
    let outcome = failing.run.outcome(|_| Default::default()).expect("ended");
    let attempts: Vec<_> = outcome.tasks.iter().map(|task| (task.instance.to_string(), task.attempts)).collect();
    assert_eq!(attempts, [("s", 1), ("m", 0), ("publish", 0), ("z", 1)].map(|(id, tries)| (id.to_string(), tries)));
}

#[test]
fn staged_rows_count_once_and_only_when_they_are_published() {
    for (published, wanted) in [(succeeded(), (1, 1)), (failed(Code::SinkDrifted), (2, 0))] {
        let mut run = Bench::new(plan(vec![split("s", 2), mapped("m", "s"), publish("p", "m")]));
        run.begin("launch s #1");
        run.end("s", 1, split_in(2), "launch m[0] #1, launch m[1] #1");
        run.end("m[0]", 1, succeeded(), "");
        run.end("m[1]", 1, succeeded(), "launch p #1");
        run.end("p", 1, published.clone(), if wanted.1 > 0 { "Succeeded" } else { "Failed DW0403" });
        let counts = run.run.outcome(|_| Default::default()).expect("ended").counts;
        assert_eq!(counts.sinks.values().map(|sink| (sink.produced, sink.loaded)).collect::<Vec<_>>(), [wanted]);
    }
}

#[test]
fn partitions_that_were_not_asked_for_fail_the_split() {
    let mut gap = split_in(2);
    gap.partitions[1].index = 7;
    for outcome in [split_in(4), gap] {
        let mut run = Bench::new(plan(vec![split("s", 3), mapped("m", "s")]));
        run.begin("launch s #1");
        run.end("s", 1, outcome, "Failed DW0799");
    }
}

#[test]
fn a_retryable_failure_is_tried_again_with_growing_pauses() {
    let mut planned = plan(vec![task("a", &[])]);
    planned.retries.max = 9;
    let mut run = Bench::new(planned);
    run.begin("launch a #1");
    let pauses = [30, 60, 120, 240, 480, 960, 1920, 3600, 3600];
    for (attempt, pause) in (1..).zip(pauses) {
        run.end("a", attempt, failed(Code::SourceUnreachable), &format!("delay a #{} {pause}s", attempt + 1));
        run.retry("a", attempt + 1, &format!("launch a #{}", attempt + 1));
    }
    run.end("a", 10, failed(Code::SourceUnreachable), "Failed DW0302");
}

#[test]
fn only_some_failures_are_tried_again() {
    for code in Code::ALL.iter().copied().filter(|code| *code != Code::Cancelled) {
        let mut run = Bench::new(plan(vec![task("a", &[]), task("b", &[])]));
        run.begin("launch a #1, launch b #1");
        let wanted = if code.exit().is_retryable() { "delay a #2 30s" } else { "" };
        run.end("a", 1, failed(code), wanted);
    }
    // Nobody here cancelled it.
    let mut run = Bench::new(plan(vec![task("a", &[])]));
    run.begin("launch a #1");
    run.end("a", 1, failed(Code::Cancelled), "Failed DW0605");
}

#[test]
fn a_failure_holds_up_only_what_follows_it() {
    let tasks = vec![task("a", &[]), task("b", &["a"]), task("c", &[]), task("d", &["c"]), teardown("z", &["b"])];
    let mut run = Bench::new(plan(tasks));
    run.begin("launch a #1, launch c #1");
    run.end("a", 1, failed(Code::GateFailed), "");
    run.end("c", 1, succeeded(), "launch d #1");
    run.end("d", 1, succeeded(), "launch z #1");
    run.end("z", 1, failed(Code::StagingUnavailable), "delay z #2 30s");
    run.retry("z", 2, "launch z #2");
    run.end("z", 2, failed(Code::SinkDenied), "Failed DW0504");
}

/// An extract that stages, a transform that stages, and two loads.
fn staged() -> Plan {
    plan(vec![
        staging("extract", &[], &[], &["source"]),
        staging("transform", &["extract"], &["source"], &["step"]),
        staging("a", &["transform"], &["step"], &[]),
        staging("b", &["transform"], &["step"], &[]),
        teardown("z", &[]),
    ])
}

#[test]
fn what_was_staged_and_is_gone_is_staged_again() {
    let mut run = Bench::new(staged());
    run.begin("launch extract #1");
    run.end("extract", 1, succeeded(), "launch transform #1");
    run.end("transform", 1, succeeded(), "launch a #1, launch b #1");
    run.end("a", 1, succeeded(), "");
    // The disk is lost with all that was staged; what was loaded stays.
    let mut run = run.crash();
    run.begin("launch b #2");
    run.end("b", 2, failed(Code::StagingUnavailable), "delay b #3 30s, launch transform #2");
    run.retry("b", 3, "");
    run.end("transform", 2, failed(Code::StagingUnavailable), "delay transform #3 30s, launch extract #2");
    // A further end of the engine changes nothing.
    let mut run = run.crash();
    run.begin("launch extract #3");
    run.end("extract", 3, succeeded(), "launch transform #3");
    run.end("transform", 3, succeeded(), "launch b #3");
    run.end("b", 3, succeeded(), "launch z #1");
    run.end("z", 1, succeeded(), "Succeeded");
}

#[test]
fn only_what_the_failed_task_reads_is_staged_again_and_not_without_end() {
    let mut run = Bench::new(plan(vec![
        staging("x", &[], &[], &["one"]),
        staging("y", &[], &[], &["two"]),
        staging("load", &["x", "y"], &["one"], &[]),
    ]));
    run.begin("launch x #1, launch y #1");
    run.end("x", 1, succeeded(), "");
    run.end("y", 1, succeeded(), "launch load #1");
    for attempt in 1..=3 {
        let next = attempt + 1;
        let delay = format!("delay load #{next} {}s", 30 << (attempt - 1));
        run.end("load", attempt, failed(Code::StagingUnavailable), &format!("{delay}, launch x #{next}"));
        run.end("x", next, succeeded(), "");
        run.retry("load", next, &format!("launch load #{next}"));
    }
    run.end("load", 4, failed(Code::StagingUnavailable), "Failed DW0606");
}

#[test]
fn a_failed_teardown_fails_nothing() {
    let mut run = Bench::new(plan(vec![task("a", &[]), teardown("y", &[]), teardown("z", &["y"])]));
    run.begin("launch a #1");
    run.end("a", 1, succeeded(), "launch y #1");
    run.end("y", 1, failed(Code::SinkDenied), "launch z #1");
    run.end("z", 1, succeeded(), "Succeeded");
}

#[test]
fn a_try_that_takes_too_long_fails_for_that_reason() {
    let rows = [
        (failed(Code::Cancelled), "Failed DW0604"),
        (failed(Code::TaskCrashed), "Failed DW0604"),
        (failed(Code::GateFailed), "Failed DW0504"),
        (succeeded(), "Succeeded"),
    ];
    for (outcome, wanted) in rows {
        let mut run = Bench::new(plan(vec![task("a", &[])]));
        run.begin("launch a #1");
        run.time_out("a", 1, outcome, wanted);
    }
}

#[test]
fn a_cancelled_run_stops_its_tasks_and_tears_down() {
    let tasks = vec![task("a", &[]), task("b", &[]), task("c", &["a"]), teardown("z", &[])];
    let mut run = Bench::new(plan(tasks));
    run.begin("launch a #1, launch b #1");
    run.end("b", 1, failed(Code::SourceUnreachable), "delay b #2 30s");
    run.cancel("stop a");
    run.cancel("");
    run.retry("b", 2, "");
    run.end("a", 1, failed(Code::Cancelled), "launch z #1");
    run.end("z", 1, succeeded(), "Cancelled DW0605");
    run.cancel("Cancelled DW0605");
    assert_eq!(run.records.iter().filter(|body| matches!(**body, RecordBody::Cancelled(_))).count(), 1);
    assert_eq!((run.code_of("a"), run.code_of("b")), (Some(Code::Cancelled), Some(Code::SourceUnreachable)));
}

#[test]
fn what_a_stopped_try_ends_with_is_told_as_it_is() {
    for (outcome, wanted) in [
        (succeeded(), None),
        (failed(Code::GateFailed), Some(Code::GateFailed)),
        (failed(Code::TaskCrashed), Some(Code::Cancelled)),
    ] {
        let mut run = Bench::new(plan(vec![task("a", &[]), task("b", &["a"])]));
        run.begin("launch a #1");
        run.cancel("stop a");
        run.end("a", 1, outcome, "Cancelled DW0605");
        assert_eq!(run.code_of("a"), wanted);
    }
}

#[test]
fn a_run_that_did_all_its_work_before_it_was_cancelled_succeeded() {
    let mut run = Bench::new(plan(vec![task("a", &[]), teardown("z", &[])]));
    run.begin("launch a #1");
    run.end("a", 1, succeeded(), "launch z #1");
    run.cancel("");
    run.end("z", 1, succeeded(), "Succeeded");
}

#[test]
fn an_overdue_run_stops_and_fails() {
    let mut planned = plan(vec![task("a", &[]), task("b", &["a"]), teardown("z", &[])]);
    planned.deadline = Some(Span(1_800_000));
    let mut run = Bench::new(planned);
    run.begin("deadline 1800s, launch a #1");
    assert_eq!(run.apply(Event::DeadlineReached), "stop a");
    run.end("a", 1, failed(Code::Cancelled), "launch z #1");
    // The next engine knows that it was overdue.
    let mut run = run.crash();
    run.begin("deadline 1800s, launch z #2");
    run.end("z", 2, succeeded(), "Failed DW0604");
    assert_eq!(run.code_of("a"), Some(Code::TaskTimedOut));
}

#[test]
fn a_crash_repeats_what_ran_and_nothing_that_ended() {
    let tasks = vec![split("s", 3), mapped("m", "s"), task("publish", &["m"]), task("b", &[]), teardown("z", &[])];
    let mut run = Bench::new(plan(tasks));
    run.begin("launch s #1, launch b #1");
    run.end("s", 1, split_in(3), "launch m[0] #1, launch m[1] #1, launch m[2] #1");
    run.end("m[1]", 1, succeeded(), "");
    run.end("b", 1, failed(Code::SourceUnreachable), "delay b #2 30s");

    let mut run = run.crash();
    assert_eq!(run.run.settled().iter().map(|ended| ended.instance.to_string()).collect::<Vec<_>>(), ["s", "m[1]"]);
    run.begin("launch m[0] #2, launch m[2] #2, launch b #2");
    run.end("m[0]", 1, succeeded(), ""); // Of an earlier engine; nobody can tell this one so.
    run.end("m[0]", 2, succeeded(), "");
    run.end("m[2]", 2, succeeded(), "launch publish #1");
    run.end("b", 2, succeeded(), "");

    let mut run = run.crash();
    run.begin("launch publish #2");
    run.end("publish", 2, succeeded(), "launch z #1");

    let mut run = run.crash();
    run.begin("launch z #2");
    run.end("z", 2, succeeded(), "Succeeded");

    let mut run = run.crash();
    run.begin("Succeeded");
    assert_eq!(run.records.iter().filter(|body| matches!(body, RecordBody::RunStarted(_))).count(), 1);
}

#[test]
fn tries_cut_short_do_not_count_as_failures() {
    let mut planned = plan(vec![task("a", &[])]);
    planned.retries.max = 1;
    let mut run = Bench::new(planned);
    for attempt in 1..5 {
        run.begin(&format!("launch a #{attempt}"));
        run = run.crash();
    }
    run.begin("launch a #5");
    run.end("a", 5, failed(Code::TaskCrashed), "delay a #6 30s");
    run.retry("a", 6, "launch a #6");
    run.end("a", 6, failed(Code::TaskCrashed), "Failed DW0603");
}

#[test]
fn a_cancelled_run_stays_cancelled_after_a_crash() {
    let mut run = Bench::new(plan(vec![task("a", &[]), task("b", &[]), teardown("z", &[])]));
    run.begin("launch a #1, launch b #1");
    run.end("b", 1, failed(Code::SourceUnreachable), "delay b #2 30s");
    run.cancel("stop a");
    let mut run = run.crash();
    run.begin("launch z #1");
    run.end("z", 1, succeeded(), "Cancelled DW0605");
}

#[test]
fn replay_gives_the_state_that_recorded() {
    let tasks = || vec![split("s", 3), mapped("m", "s"), task("publish", &["m"]), teardown("z", &[])];
    let events = |plan: &Plan| {
        let end = |name: &str, attempt, outcome: Outcome| Event::TaskEnded {
            instance: instance(name),
            attempt,
            outcome: Box::new(outcome),
            timed_out: false,
        };
        vec![
            Event::Begun(Box::new(started(plan))),
            end("s", 1, failed(Code::SourceUnreachable)),
            Event::RetryDue { instance: instance("s"), attempt: 2 },
            end("s", 2, split_in(2)),
            end("m[0]", 1, failed(Code::TaskCrashed)),
            end("m[1]", 1, succeeded()),
            Event::CancelRequested { by: None },
            end("z", 1, succeeded()),
        ]
    };
    let plan = plan(tasks());
    for length in 0..=events(&plan).len() {
        let mut lived = Bench::new(plan.clone());
        for event in events(&plan).into_iter().take(length) {
            lived.apply(event);
        }
        let (ended, settled) = (lived.run.outcome(|_| Default::default()), lived.run.settled());
        let replayed = lived.crash();
        assert_eq!(replayed.run.outcome(|_| Default::default()), ended, "after {length} events");
        assert_eq!(replayed.run.settled(), settled, "after {length} events");
    }
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let mut run = Bench::new(plan(vec![task("a", &[])]));
    run.begin("launch a #1");
    let started = run.records.clone();
    run.end("a", 1, succeeded(), "Succeeded");
    for body in &run.records {
        assert_eq!(run.run.replay(body), Err(Misfit), "nothing follows the end");
    }
    let mut other = Bench::new(plan(vec![task("other", &[])]));
    assert_eq!(other.run.replay(&started[1]), Err(Misfit));
    let mut early = Bench::new(plan(vec![task("a", &[])]));
    assert_eq!(early.run.replay(&run.records[2]), Err(Misfit), "it ended but never started");
}

#[test]
fn plans_that_cannot_run_are_refused() {
    let rows = [
        vec![task("a", &["b"]), task("b", &[])],
        vec![task("a", &["a"])],
        vec![task("a", &[]), task("a", &[])],
        vec![task("a", &[]), mapped("m", "a")],
        vec![teardown("z", &[]), task("a", &["z"])],
    ];
    for tasks in rows {
        let refused = Run::new(Arc::new(plan(tasks)), NonZeroUsize::MIN, Replanning::Left(2)).expect_err("refused");
        assert!(matches!(refused, Error::InvalidPlan { .. }), "{refused}");
    }
}

#[test]
fn a_plan_without_tasks_has_nothing_to_do() {
    Bench::new(plan(Vec::new())).begin("Succeeded");
    let mut run = Bench::new(plan(vec![teardown("z", &[])]));
    run.begin("launch z #1");
    run.end("z", 1, failed(Code::Internal), "Succeeded");
    assert_eq!(run.run.outcome(|_| Default::default()).map(|outcome| outcome.status), Some(Status::Succeeded));
}
