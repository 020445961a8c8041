//! The course that a run takes by itself: its tasks are tried one after the other, and told of, perhaps.

use std::{sync::Arc, time::Duration};

use dagwright_airflow::{RunState, TaskState};
use dagwright_model::{code::Code, id::TaskId, task::Counts};
use fastrand::Rng;
use tokio::time::sleep;

use super::{Fake, FakeRun, State, now};
use crate::airflow::told::{Failure, Told, ToldRun, ToldTask, What};

/// A run on its way.
pub(super) struct Course {
    pub(super) fake: Arc<Fake>,
    pub(super) key: (String, String),
    pub(super) epoch: u32,
    pub(super) generation: u32,
}

/// How a try is going to end.
enum Fate {
    Success,
    Failure(Code),
    /// Its process is killed, and says nothing.
    Killed,
}

// === impl Course ===

impl Course {
    /// Goes on until the run ends, or is no longer the same; `None` then.
    pub(super) async fn run(&self) -> Option<()> {
        let count = self.with(|run, _| run.tasks.len())?;
        for index in 0..count {
            while self.with(|run, _| run.tasks[index].state != Some(TaskState::Success))? {
                self.attempt(index).await?;
                let failed = self.with(|run, _| run.tasks[index].state == Some(TaskState::Failed))?;
                if failed {
                    self.with(|run, _| {
                        for later in &mut run.tasks[index + 1..] {
                            later.state = Some(TaskState::UpstreamFailed);
                        }
                        run.state = RunState::Failed;
                    })?;
                    return self.tell_run();
                }
            }
        }
        self.with(|run, _| run.state = RunState::Success)?;
        self.tell_run()
    }

    /// Lets a task be tried once.
    async fn attempt(&self, index: usize) -> Option<()> {
        let (pause, lasts, fate) = self.with(|_, rng| {
            let millis = |longest: Duration| u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
            let pause = Duration::from_millis(rng.u64(100..3000));
            let lasts = Duration::from_millis(rng.u64(1..=millis(self.fake.habits.longest)));
            let fate = match rng.u8(0..100) {
                roll if roll >= self.fake.habits.fails => Fate::Success,
                roll if roll % 3 == 0 => Fate::Killed,
                _ => Fate::Failure(*rng.choice(&[Code::SourceUnreachable, Code::SinkUnreachable]).expect("one")),
            };
            (pause, lasts, fate)
        })?;
        sleep(pause).await;
        self.with(|run, _| {
            let task = &mut run.tasks[index];
            task.attempt += 1;
            (task.state, task.started, task.ended, task.code) = (Some(TaskState::Running), Some(now()), None, None);
        })?;
        self.tell_task(index)?;
        sleep(lasts).await;
        let is_killed = matches!(fate, Fate::Killed);
        self.with(|run, _| {
            let task = &mut run.tasks[index];
            task.ended = Some(now());
            task.state = Some(match fate {
                Fate::Success => TaskState::Success,
                Fate::Failure(_) | Fate::Killed if task.attempt < task.last => TaskState::UpForRetry,
                Fate::Failure(_) | Fate::Killed => TaskState::Failed,
            });
            task.code = if let Fate::Failure(code) = fate { Some(code) } else { None };
        })?;
        if !is_killed {
            self.tell_task(index)?;
        }
        Some(())
    }

    /// Changes the run, if it is still the same one.
    fn with<T>(&self, change: impl FnOnce(&mut FakeRun, &mut Rng) -> T) -> Option<T> {
        let mut state = self.fake.state();
        let State { epoch, runs, rng, .. } = &mut *state;
        let run = runs.get_mut(&self.key).filter(|run| *epoch == self.epoch && run.generation == self.generation)?;
        run.updated = now();
        Some(change(run, rng))
    }

    fn tell_run(&self) -> Option<()> {
        let told = self.with(|run, _| ToldRun {
            state: run.state.clone(),
            run_type: Some("manual".into()),
            interval: None,
            request: None,
            plan: None,
            clear_number: None,
            started_at: Some(run.started),
            ended_at: Some(now()),
        })?;
        self.tell(What::Run(Box::new(told)))
    }

    fn tell_task(&self, index: usize) -> Option<()> {
        let told = self.with(|run, _| {
            let task = &run.tasks[index];
            ToldTask {
                task: TaskId(task.id.clone()),
                map_index: None,
                attempt: task.attempt,
                max_tries: Some(task.last - 1),
                state: task.state.clone().expect("it was tried"),
                is_last: Some(task.attempt >= task.last),
                started_at: task.started,
                ended_at: task.ended,
                failure: task.code.map(|code| Failure { code: Some(code), message: None }),
                counts: (task.state == Some(TaskState::Success)).then(Counts::default),
            }
        })?;
        self.tell(What::Task(Box::new(told)))
    }

    /// Tells something, perhaps: twice, late, or never.
    fn tell(&self, what: What) -> Option<()> {
        let (dag_id, run_id) = self.key.clone();
        let told = Told { dag_id, run_id, at: now(), what };
        let silent = self.fake.habits.silent;
        let (roll, delay) = self.with(|_, rng| (rng.u8(0..100), Duration::from_millis(rng.u64(1..120_000))))?;
        let sender = self.fake.told.clone();
        // Nobody hears it: the test is over.
        match roll {
            roll if roll < silent => {}
            roll if roll < silent.saturating_mul(2) => {
                let _ = sender.try_send(told.clone());
                let _ = sender.try_send(told);
            }
            roll if roll < silent.saturating_mul(3) => {
                tokio::spawn(async move {
                    sleep(delay).await;
                    let _ = sender.try_send(told);
                });
            }
            _ => {
                let _ = sender.try_send(told);
            }
        }
        Some(())
    }
}
