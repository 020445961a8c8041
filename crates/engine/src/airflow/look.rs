//! What became of the tries of a run, as Airflow shows it, or as it was told.

use dagwright_airflow::{Airflow, Error, Run, Span, TaskInstance as Seen, TaskKey, TaskState};
use dagwright_model::{
    code::Code,
    id::TaskId,
    plan::Plan,
    record::TaskInstance,
    task::{Counts, Outcome, Problem, Status, Work},
};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    following::{Following, Progress, Tried},
    told::ToldTask,
};
use crate::verdict;

/// How much of a failed try's log is looked through for our own words.
const LOG_BYTES_MAX: usize = 32 << 10;

/// The longest message that is taken over, in characters.
const MESSAGE_CHARS_MAX: usize = 2000;

/// How many values or logs of one run are asked for at a time.
const QUESTIONS_MAX: usize = 4;

/// What was seen of a run.
#[derive(Debug)]
pub(crate) struct Look {
    /// The run; `None` when Airflow has no such run.
    pub(crate) run: Option<Run>,
    /// The tries of its tasks that were news.
    pub(crate) tried: Vec<Tried>,
}

/// A try whose end was seen, and whose particulars are to be asked for.
#[derive(Debug)]
struct News {
    instance: TaskInstance,
    key: TaskKey,
    attempt: u32,
    state: TaskState,
    elapsed_ms: u64,
}

/// Looks at a run and the tries of its tasks; `is_known` tells whose ends need not be looked at any more.
pub(crate) async fn look(
    airflow: &dyn Airflow,
    plan: &Plan,
    run_id: &str,
    is_known: impl Fn(&TaskInstance, u32, bool) -> bool,
) -> Result<Look, Error> {
    let run = match airflow.run(&plan.dag_id, run_id).await {
        Ok(run) => run,
        Err(error) if error.is_not_found() => return Ok(Look { run: None, tried: Vec::new() }),
        Err(error) => return Err(error),
    };
    let mut span = Some(Span::first());
    let (mut tried, mut news) = (Vec::new(), Vec::new());
    while let Some(at) = span {
        let page = airflow.task_instances(&plan.dag_id, run_id, at).await?;
        span = at.after(&page);
        for seen in page.items {
            let Some((instance, key)) = known_task(plan, &seen) else { continue };
            match end_of(&seen) {
                None if seen.state == Some(TaskState::Running) => {
                    tried.push(Tried { instance, attempt: seen.try_number, progress: Progress::Running, seen: true });
                }
                None => {}
                Some(state) if is_known(&instance, seen.try_number, state == TaskState::Success) => {}
                Some(state) => {
                    let elapsed_ms = elapsed_ms(seen.start_date, seen.end_date);
                    news.push(News { instance, key, attempt: seen.try_number, state, elapsed_ms });
                }
            }
        }
    }
    let ends: Vec<_> =
        stream::iter(news).map(|news| ask(airflow, plan, news)).buffered(QUESTIONS_MAX).try_collect().await?;
    tried.extend(ends);
    Ok(Look { run: Some(run), tried })
}

/// Returns what an event says of a try; `None` where Airflow has to be asked for the particulars.
pub(crate) fn told(told: &ToldTask, following: &Following) -> Option<Tried> {
    if told.attempt == 0 {
        // Somebody marked what was never tried.
        return None;
    }
    let instance = TaskInstance { task: told.task.clone(), map_index: told.map_index };
    let tried = |progress| Some(Tried { instance: instance.clone(), attempt: told.attempt, progress, seen: false });
    let elapsed_ms = elapsed_ms(told.started_at, told.ended_at);
    match &told.state {
        TaskState::Running => tried(Progress::Running),
        TaskState::Success => match &told.counts {
            Some(counts) => {
                tried(Progress::Ended { outcome: Box::new(done(counts.clone(), elapsed_ms)), again: false })
            }
            // The clean-up counts nothing.
            None if following.is_cleanup(&told.task) => {
                tried(Progress::Ended { outcome: Box::new(done(Counts::default(), elapsed_ms)), again: false })
            }
            None => None,
        },
        TaskState::Failed | TaskState::UpForRetry => {
            // Not every way says whether another try follows, and to take one for the last would end the run.
            let again = !told.is_last?;
            let failure = told.failure.as_ref()?;
            let problem = problem(&told.task, failure.code?, failure.message.as_deref().unwrap_or_default());
            let outcome = Box::new(verdict::ended(Status::Failed, problem, elapsed_ms));
            tried(Progress::Ended { outcome, again })
        }
        _ => None,
    }
}

impl Following {
    fn is_cleanup(&self, task: &TaskId) -> bool {
        self.plan().task(task).is_some_and(|task| matches!(task.spec.work, Work::Cleanup))
    }
}

/// Returns a task instance as we name it, if its task is one of the plan's and it was tried.
fn known_task(plan: &Plan, seen: &Seen) -> Option<(TaskInstance, TaskKey)> {
    let task = TaskId(seen.task_id.clone());
    let is_ours = seen.try_number > 0 && plan.task(&task).is_some();
    is_ours.then(|| (TaskInstance { task, map_index: u32::try_from(seen.map_index).ok() }, seen.key()))
}

/// Returns the state in which the newest try ended, if it did.
fn end_of(seen: &Seen) -> Option<TaskState> {
    match seen.state.as_ref()? {
        state @ (TaskState::Success | TaskState::Failed | TaskState::UpForRetry) => Some(state.clone()),
        // Never tried, whatever its number says; or it goes on.
        TaskState::UpstreamFailed
        | TaskState::Skipped
        | TaskState::Removed
        | TaskState::Scheduled
        | TaskState::Queued
        | TaskState::Running
        | TaskState::Restarting
        | TaskState::UpForReschedule
        | TaskState::Deferred
        | TaskState::AwaitingInput
        | TaskState::Other(_) => None,
    }
}

/// Asks for what was counted, or for why it failed.
async fn ask(airflow: &dyn Airflow, plan: &Plan, news: News) -> Result<Tried, Error> {
    let News { instance, key, attempt, state, elapsed_ms } = news;
    let outcome = if state == TaskState::Success {
        let work = plan.task(&instance.task).map(|task| &task.spec.work);
        // What a split returns are its partitions.
        let name = if matches!(work, Some(Work::Split(_))) { "counts" } else { "return_value" };
        let counts = match airflow.xcom(&key, name).await {
            Ok(value) => serde_json::from_value(value).unwrap_or_else(|error| {
                tracing::warn!(task = %instance, %error, "what a task counted cannot be read, it counts as nothing");
                Counts::default()
            }),
            // Somebody marked it as done, or cleared it again.
            Err(error) if error.is_not_found() => Counts::default(),
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                tracing::warn!(task = %instance, %error, "what a task counted cannot be read, it counts as nothing");
                Counts::default()
            }
        };
        done(counts, elapsed_ms)
    } else {
        let text = match airflow.log(&key, attempt, LOG_BYTES_MAX).await {
            Ok(log) => log.text,
            // Its worker took the log with it; the state is known all the same.
            Err(error) if !error.is_retryable() => String::new(),
            Err(error) => return Err(error),
        };
        let problem = match last_words(&text) {
            Some((code, message)) => problem(&instance.task, code, message),
            None => return Ok(ended(instance.clone(), attempt, super::following::vanished(&instance), &state)),
        };
        verdict::ended(Status::Failed, problem, elapsed_ms)
    };
    Ok(ended(instance, attempt, outcome, &state))
}

fn ended(instance: TaskInstance, attempt: u32, outcome: Outcome, state: &TaskState) -> Tried {
    let again = *state == TaskState::UpForRetry;
    Tried { instance, attempt, progress: Progress::Ended { outcome: Box::new(outcome), again }, seen: true }
}

/// Finds the last line in a log that says one of our codes, as the operators end a failed try.
fn last_words(log: &str) -> Option<(Code, &str)> {
    let line = |line| {
        let at = str::find(line, "DW")?;
        let (code, message) = line.get(at..)?.split_once(": ")?;
        Some((Code::try_from(code.to_owned()).ok()?, message))
    };
    log.lines().rev().find_map(line)
}

fn problem(task: &TaskId, code: Code, message: &str) -> Problem {
    let prefix = format!("{code}: ");
    let message = message.strip_prefix(&prefix).unwrap_or(message);
    let message = if message.is_empty() { code.title() } else { message };
    Problem {
        code,
        subject: task.0.clone(),
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        hint: "Airflow's log of the task tells more".into(),
    }
}

fn done(counts: Counts, elapsed_ms: u64) -> Outcome {
    Outcome {
        status: Status::Succeeded,
        repeated: false,
        counts,
        partitions: Vec::new(),
        cursors: std::collections::BTreeMap::new(),
        problem: None,
        elapsed_ms,
        memory_peak_bytes: 0,
    }
}

fn elapsed_ms(from: Option<chrono::DateTime<chrono::Utc>>, to: Option<chrono::DateTime<chrono::Utc>>) -> u64 {
    let (Some(from), Some(to)) = (from, to) else { return 0 };
    u64::try_from((to - from).num_milliseconds()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dagwright_airflow::TaskState;
    use dagwright_model::{code::Code, task::Status};

    use super::{last_words, told};
    use crate::{
        airflow::{
            following::{Following, Progress},
            told::{
                ToldTask, What,
                posted::{self, Content},
                produced,
            },
        },
        tests::fixture::{plan, task},
    };

    /// What the listener and the event producer said of the same tries, in words: `asked` is what Airflow is asked for.
    fn heard(task: &ToldTask, following: &Following) -> String {
        let Some(tried) = told(task, following) else { return "asked".into() };
        match tried.progress {
            Progress::Running => "running".into(),
            Progress::Ended { outcome, again: true } => format!("{:?}, again", outcome.status),
            Progress::Ended { outcome, again: false } => format!("{:?}", outcome.status),
        }
    }

    #[test]
    fn what_an_event_does_not_say_is_asked_for() {
        // Of another plan, whose tasks are none of these: so none is its clean-up, which counts nothing.
        let following =
            Following::new(Arc::new(plan(vec![task("read", &[])])), true, crate::Replanning::Never { why: "" });
        let posted: Vec<_> = include_str!("told/samples/posted-3.3.2.jsonl")
            .lines()
            .filter_map(|line| match posted::read(line.as_bytes()).expect("an event").content {
                Content::Told(told) => Some(told.what),
                Content::Dropped(_) => None,
            })
            .collect();
        let produced: Vec<_> = include_str!("told/samples/produced-3.3.2.jsonl")
            .lines()
            .map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let value = record["value"].as_str().expect("a text");
                produced::read(value.as_bytes()).expect("a record").expect("of a run or a task").what
            })
            .collect();
        let tasks = |told: Vec<What>| {
            told.into_iter().filter_map(|what| match what {
                What::Task(task) => Some(*task),
                What::Run(_) => None,
            })
        };
        let (mut failed, mut succeeded) = (0, 0);
        for (posted, produced) in tasks(posted).zip(tasks(produced)) {
            assert_eq!((&posted.task, &posted.state), (&produced.task, &produced.state));
            let says = (heard(&posted, &following), heard(&produced, &following));
            let says = (says.0.as_str(), says.1.as_str());
            match posted.state {
                TaskState::Running => assert_eq!(says, ("running", "running")),
                TaskState::Success => {
                    succeeded += 1;
                    assert_eq!(says, ("Succeeded", "asked"));
                }
                _ => {
                    failed += 1;
                    assert_eq!(says, ("Failed", "asked"));
                    let again = ToldTask { is_last: Some(false), state: TaskState::UpForRetry, ..posted.clone() };
                    assert_eq!(heard(&again, &following), format!("{:?}, again", Status::Failed));
                }
            }
            assert_eq!(heard(&ToldTask { attempt: 0, ..posted }, &following), "asked", "never tried, only marked");
        }
        assert_eq!((failed, succeeded), (1, 6));
    }

    #[test]
    fn the_last_of_our_own_words_counts() {
        let log = "INFO starting\nERROR - Task failed with exception\nAirflowException: DW0401: no route (sink). check the host\nINFO done\n";
        assert_eq!(last_words(log), Some((Code::SinkUnreachable, "no route (sink). check the host")));
        assert_eq!(last_words("DW0301: a\nDW0302: b"), Some((Code::SourceUnreachable, "b")));
        assert_eq!(last_words("nothing of ours, DW9999: neither, DW"), None);
    }
}
