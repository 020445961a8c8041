//! What the failure of a run teaches, and whether its plan is made anew for it: for both engines the same.

use dagwright_model::{
    code::Code,
    plan::Plan,
    record::{FailureClass, RunStarted, TaskInstance},
    setback::{FailedTask, Setback},
    task::{Outcome, Problem},
};

use crate::{Replanning, airflow::class};

/// The exit code by which shells tell of a process that was killed: 128 and the signal.
const EXIT_KILLED: u8 = 137;

/// A task that failed, with what came of it.
pub(crate) type Failed<'a> = (&'a TaskInstance, &'a Outcome);

/// Returns what a failed run teaches where its plan is made anew for it, and else why it is not, as far as that is worth
/// saying: then the problem says so.
pub(crate) fn of(
    plan: &Plan,
    started: Option<&RunStarted>,
    replanning: Replanning,
    problem: Problem,
    failed: Option<Failed<'_>>,
) -> (Problem, Option<Box<Setback>>) {
    let (class, Some(started)) = (class::of(problem.code), started) else { return (problem, None) };
    if !may_help(class, problem.code) {
        return (problem, None);
    }
    let left = match replanning {
        Replanning::Left(left) if left > 0 => left,
        Replanning::Left(_) => {
            let done = started.version.saturating_sub(1);
            let said = match done {
                0 => "its plan may not be made anew".to_owned(),
                1 => "its plan was made anew once, as often as it may be".to_owned(),
                times => format!("its plan was made anew {times} times, as often as it may be"),
            };
            return (with_hint(problem, &said), None);
        }
        Replanning::Never { why } => return (with_hint(problem, why), None),
    };
    let task = failed.and_then(|(instance, outcome)| {
        let planned = plan.task(&instance.task)?;
        let code = outcome.problem.as_ref().map_or(problem.code, |problem| problem.code);
        Some(FailedTask {
            instance: instance.clone(),
            role: planned.role,
            exit: if code == Code::TaskKilled { EXIT_KILLED } else { code.exit().number() },
            memory_max: planned.spec.memory_max,
            memory_peak_bytes: outcome.memory_peak_bytes,
        })
    });
    let setback = Setback {
        version: started.version,
        plan_hash: started.plan_hash.clone(),
        class,
        task,
        placement: plan.placement(),
        parts: plan.parts(),
        problem: problem.clone(),
        left,
    };
    (problem, Some(Box::new(setback)))
}

/// Tells whether another plan may end better: one that holds less at a time, or one for the schemas as they are now. What
/// took too long is left to people: another plan would take its time once more.
fn may_help(class: FailureClass, code: Code) -> bool {
    match class {
        FailureClass::Resources => code != Code::TaskTimedOut,
        FailureClass::SchemaDrift => true,
        FailureClass::Transient
        | FailureClass::Away
        | FailureClass::Quality
        | FailureClass::Permission
        | FailureClass::Stopped
        | FailureClass::Bug => false,
    }
}

fn with_hint(problem: Problem, said: &str) -> Problem {
    let hint = match (problem.hint.is_empty(), said.is_empty()) {
        (_, true) => problem.hint,
        (true, false) => said.to_owned(),
        (false, false) => format!("{}; {said}", problem.hint),
    };
    Problem { hint, ..problem }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{code::Code, message::Placement, record::FailureClass};

    use super::of;
    use crate::{
        Replanning,
        tests::fixture::{failed, instance, plan, started, task},
    };

    #[track_caller]
    fn check(code: Code, replanning: Replanning, wanted: Result<u32, &str>) {
        let plan = plan(vec![task("load", &[])]);
        let outcome = failed(code);
        let problem = outcome.problem.clone().expect("a problem");
        let (instance, started) = (instance("load"), started(&plan));
        let (told, setback) = of(&plan, Some(&started), replanning, problem, Some((&instance, &outcome)));
        match wanted {
            Ok(left) => {
                let setback = setback.expect("a setback");
                assert_eq!((setback.version, setback.left, setback.placement), (1, left, Placement::Fused));
                let task = setback.task.expect("a task");
                let exit = if code == Code::TaskKilled { 137 } else { code.exit().number() };
                assert_eq!((task.instance, task.exit), (instance, exit));
                assert_eq!(told.hint, "mend it");
            }
            Err(hint) => {
                assert_eq!(setback, None);
                assert_eq!(told.hint, hint);
            }
        }
    }

    #[test]
    fn another_plan_is_made_for_what_it_may_help() {
        for code in [Code::MemoryExhausted, Code::TaskKilled, Code::SourceDrifted, Code::SinkDrifted] {
            check(code, Replanning::Left(2), Ok(2));
            check(code, Replanning::Left(0), Err("mend it; its plan may not be made anew"));
            check(code, Replanning::Never { why: "send a request" }, Err("mend it; send a request"));
            check(code, Replanning::Never { why: "" }, Err("mend it"));
        }
        for code in [Code::TaskTimedOut, Code::GateFailed, Code::SinkDenied, Code::SourceUnreachable, Code::Internal] {
            check(code, Replanning::Left(2), Err("mend it"));
        }
    }

    #[test]
    fn a_budget_that_is_spent_is_told() {
        let plan = plan(vec![task("load", &[])]);
        let outcome = failed(Code::MemoryExhausted);
        let mut started = started(&plan);
        for (version, wanted) in [(2, "anew once, as often as it may be"), (3, "anew 2 times, as often as it may be")] {
            started.version = version;
            let problem = outcome.problem.clone().expect("a problem");
            let (told, setback) = of(&plan, Some(&started), Replanning::Left(0), problem, None);
            assert!(setback.is_none() && told.hint.ends_with(wanted), "{}", told.hint);
        }
        assert_eq!(crate::airflow::class::of(Code::MemoryExhausted), FailureClass::Resources);
    }
}
