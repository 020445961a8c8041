//! The shell around [`Following`]: one who follows a run in Airflow.
//!
//! It decides nothing. It hands the machine what it hears and sees, appends what the machine records, and then does what is
//! to be done, one call of Airflow at a time. What Airflow does not answer is asked again, for as long as it takes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dagwright_airflow::{Airflow, Clear, Error as CallError, RunMark, RunState, Trigger};
use dagwright_model::{
    code::Code,
    plan::Plan,
    record::{RecordBody, RunStarted},
    task::Problem,
};
use dagwright_telemetry::chain::ErrorChain;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    pin,
    time::{sleep, timeout},
};

use super::{
    deployer::Deployer,
    following::{Effect, Event, Following},
    look::{self, Look},
    run_id,
    watch::{Heard, Place, Watch},
};
use crate::{Error, Job, event::RunEvent, journal::Journal, metrics, outcome::RunOutcome};

/// The pause before a call that was not answered is made again, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a call is waited for that starts a run which is to be stopped: as long as a call may take.
const SENT_WAIT: Duration = Duration::from_secs(30);

/// What one who follows a run works with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) airflow: Arc<dyn Airflow>,
    pub(crate) deployer: Deployer,
    pub(crate) watch: Arc<Watch>,
}

/// One who follows a run.
struct Follower {
    tools: Tools,
    job: Job,
    following: Following,
    journal: Journal,
    run_id: String,
    /// What is to be done, in this order.
    errands: VecDeque<Errand>,
    /// The remedy's pause.
    pause: Option<BoxFuture<'static, ()>>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
enum Errand {
    Trigger,
    Look,
    Clear,
    Stop,
}

/// What came of an errand.
enum Done {
    /// It is done.
    Nothing,
    /// The run was triggered, or cleared.
    Helped,
    /// Something was seen.
    Seen(Look),
    /// Airflow does not take it.
    Refused(Problem),
    /// There is nothing that it could be done to.
    Lost,
}

/// Follows a run to its end, from wherever the ledger says that it stands.
pub(crate) async fn follow(tools: Tools, job: Job, started: Option<RunStarted>) -> Result<RunOutcome, Error> {
    let (journal, records) = Journal::open(&job).await?;
    let is_ours = !records.iter().any(|record| match &record.body {
        RecordBody::Accepted(accepted) => accepted.follows.is_some(),
        _ => false,
    });
    let mut following = Following::new(job.plan.clone(), is_ours, job.replanning);
    for record in &records {
        let misfit = |_| Error::Misfit { request: job.request.clone(), sequence: record.sequence };
        following.replay(&record.body).map_err(misfit)?;
    }
    if let Some(outcome) = following.outcome() {
        return Ok(outcome);
    }
    let resumed = following.started().is_some();
    let Some(mut started) = following.started().cloned().or(started) else {
        return Err(Error::NotStarted { request: job.request });
    };
    let given = job.plan.hash();
    if started.plan_hash != given {
        return Err(Error::OtherPlan { request: job.request, begun: started.plan_hash, given });
    }
    let version = started.version;
    let run_id = started.dag_run.get_or_insert_with(|| run_id::of(&job.request, version)).clone();
    let _open = metrics::run_open();
    // Before it is triggered, so that nothing that is told of it is missed.
    let place = tools.watch.follow(&job.plan.dag_id, &run_id);
    if resumed {
        journal.tell(RunEvent::RunStarted { plan_hash: started.plan_hash.clone(), resumed: true }).await;
    }
    let follower = Follower { tools, job, following, journal, run_id, errands: VecDeque::new(), pause: None };
    follower.go_on(place, started).await
}

// === impl Follower ===

impl Follower {
    async fn go_on(mut self, mut place: Place, started: RunStarted) -> Result<RunOutcome, Error> {
        let cancel = self.job.cancel.clone();
        let requested = cancel.requested();
        pin!(requested);
        let mut cancelling = false;
        let mut errand: Option<BoxFuture<'static, Done>> = None;
        let mut starts = false;
        self.step(Event::Begun(Box::new(started))).await?;
        loop {
            if let Some(outcome) = self.following.outcome() {
                return Ok(outcome);
            }
            if errand.is_none()
                && let Some(next) = self.errands.pop_front()
            {
                starts = matches!(next, Errand::Trigger | Errand::Clear);
                errand = Some(self.begin(next));
            }
            let event = tokio::select! {
                biased;
                by = &mut requested, if !cancelling => {
                    cancelling = true;
                    // What is under way may wait for an Airflow that is away; it is to be stopped instead. But what
                    // starts a run may have been sent, and be heard after it was found that there is none to stop.
                    errand = errand.filter(|_| starts).map(|sent| sent_before(sent).boxed());
                    self.errands.clear();
                    Some(Event::CancelRequested { by })
                }
                done = next(&mut errand) => {
                    errand = None;
                    self.take(done).await?
                }
                () = next(&mut self.pause) => {
                    self.pause = None;
                    Some(Event::RemedyDue)
                }
                Some(heard) = place.heard.recv() => self.hear(heard),
            };
            if let Some(event) = event {
                self.step(event).await?;
            }
        }
    }

    /// Returns what is heard as what happens to the run; what an event does not carry is looked for.
    fn hear(&mut self, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Task(task) => match look::told(&task, &self.following) {
                Some(tried) => return Some(Event::Tried(tried)),
                None if task.state.is_final() || task.state == dagwright_airflow::TaskState::UpForRetry => {
                    self.plan_to(Errand::Look);
                }
                None => {}
            },
            Heard::LookNow => self.plan_to(Errand::Look),
        }
        None
    }

    fn plan_to(&mut self, errand: Errand) {
        if !self.errands.contains(&errand) {
            self.errands.push_back(errand);
        }
    }

    /// Takes in what came of an errand; returns what is left to be taken in.
    async fn take(&mut self, done: Done) -> Result<Option<Event>, Error> {
        let Look { run, tried } = match done {
            Done::Nothing => return Ok(None),
            Done::Helped => return Ok(Some(Event::Helped)),
            Done::Refused(problem) => return Ok(Some(Event::Refused(problem))),
            Done::Lost => return Ok(Some(Event::Lost)),
            Done::Seen(look) => look,
        };
        let Some(run) = run else { return Ok(Some(Event::Lost)) };
        let mut effects = Vec::new();
        for tried in tried {
            effects.extend(self.following.apply(Event::Tried(tried)));
        }
        self.perform(effects).await?;
        if !run.state.is_final() {
            return Ok(None);
        }
        let succeeded = run.state == RunState::Success;
        self.step(Event::RunEnded { succeeded }).await?;
        if self.following.outcome().is_some() {
            self.tools.watch.remember(&run);
        }
        Ok(None)
    }

    /// Takes one step: the records first, all together; then the rest.
    async fn step(&mut self, event: Event) -> Result<(), Error> {
        let effects = self.following.apply(event);
        self.perform(effects).await
    }

    async fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Error> {
        let (mut records, mut others) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Record(body) => records.push(*body),
                other => others.push(other),
            }
        }
        self.journal.write(records).await?;
        for effect in others {
            match effect {
                // Appended before.
                Effect::Record(_) => {}
                Effect::Trigger => self.plan_to(Errand::Trigger),
                Effect::Look => self.plan_to(Errand::Look),
                Effect::Clear => self.plan_to(Errand::Clear),
                Effect::Stop => self.plan_to(Errand::Stop),
                Effect::Delay(pause) => self.pause = Some(sleep(pause).boxed()),
            }
        }
        Ok(())
    }

    fn begin(&self, errand: Errand) -> BoxFuture<'static, Done> {
        let (tools, plan, run_id) = (self.tools.clone(), self.job.plan.clone(), self.run_id.clone());
        match errand {
            Errand::Trigger => {
                let Some(started) = self.following.started() else {
                    unreachable!("nothing is done before the run began");
                };
                let trigger = run_id::trigger(&plan, &self.job.request, started, &run_id);
                async move { trigger_run(&tools, &plan, &trigger).await }.boxed()
            }
            Errand::Look => {
                let known = self.following.known();
                let work = async move {
                    let is_known = |instance: &_, attempt, succeeded| known.has(instance, attempt, succeeded);
                    let look = patiently(|| look::look(&*tools.airflow, &plan, &run_id, &is_known)).await;
                    look.map_or_else(
                        |error| {
                            // The run goes on whatever one answer was; it is looked at again in its turn.
                            tracing::warn!(dag_id = %plan.dag_id, run_id, %error, "could not look at a run");
                            Done::Nothing
                        },
                        Done::Seen,
                    )
                };
                work.boxed()
            }
            Errand::Clear => async move { clear(&*tools.airflow, &plan, &run_id).await }.boxed(),
            Errand::Stop => async move { stop(&*tools.airflow, &plan, &run_id).await }.boxed(),
        }
    }
}

/// Waits until a call comes to its end that was sent before it was known that nobody wants it, or for as long as Airflow may
/// take for one.
async fn sent_before(call: BoxFuture<'static, Done>) -> Done {
    let _ = timeout(SENT_WAIT, call).await;
    Done::Nothing
}

/// Sees to it that Airflow has the run.
async fn trigger_run(tools: &Tools, plan: &Arc<Plan>, trigger: &Trigger) -> Done {
    loop {
        match patiently(|| tools.airflow.trigger(trigger)).await {
            Ok(_) => return Done::Helped,
            // Somebody deleted the DAG, or Airflow has a new database.
            Err(error) if error.is_not_found() => {
                tracing::warn!(dag_id = %plan.dag_id, "Airflow does not know the DAG, it is deployed again");
                if let Err(problem) = tools.deployer.deploy_anew(plan).await {
                    return Done::Refused(problem);
                }
            }
            Err(error) => return refused(plan, &error),
        }
    }
}

/// Clears the tasks that failed, if the run is still a failed one: somebody else may have cleared them.
async fn clear(airflow: &dyn Airflow, plan: &Plan, run_id: &str) -> Done {
    let clear = Clear {
        dag_id: plan.dag_id.clone(),
        run_id: run_id.to_owned(),
        tasks: None,
        only_failed: true,
        downstream: false,
    };
    let work = async || {
        let run = airflow.run(&plan.dag_id, run_id).await?;
        if run.state == RunState::Failed {
            airflow.clear(&clear).await?;
        }
        Ok(())
    };
    finish(plan, Done::Helped, patiently(work).await)
}

/// Marks the run as failed, unless it has ended.
async fn stop(airflow: &dyn Airflow, plan: &Plan, run_id: &str) -> Done {
    let work = async || {
        let run = airflow.run(&plan.dag_id, run_id).await?;
        if !run.state.is_final() {
            airflow.mark_run(&plan.dag_id, run_id, RunMark::Failed).await?;
        }
        Ok(())
    };
    finish(plan, Done::Nothing, patiently(work).await)
}

fn finish(plan: &Plan, done: Done, result: Result<(), CallError>) -> Done {
    match result {
        Ok(()) => done,
        Err(error) if error.is_not_found() => Done::Lost,
        Err(error) => refused(plan, &error),
    }
}

fn refused(plan: &Plan, error: &CallError) -> Done {
    Done::Refused(problem(&plan.dag_id, error))
}

/// Returns a call that came to nothing as a problem of a DAG.
pub(crate) fn problem(dag_id: &str, error: &CallError) -> Problem {
    Problem {
        code: error.code(),
        subject: dag_id.into(),
        message: ErrorChain(error).to_string(),
        hint: "see what Airflow says, and send the request again".into(),
    }
}

/// Makes a call until it is answered. Credentials that are not accepted are a fault that people mend, so they are waited for too.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, CallError>>>(
    call: impl Fn() -> F,
) -> Result<T, CallError> {
    let (mut pause, longest) = PAUSES;
    loop {
        match call().await {
            Err(error) if can_wait(&error) => {
                tracing::debug!(%error, "Airflow is asked again");
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
            answer => return answer,
        }
    }
}

pub(super) fn can_wait(error: &CallError) -> bool {
    error.is_retryable()
        || matches!(error.code(), Code::AirflowUnauthenticated | Code::AirflowDenied | Code::AirflowUnsupported)
}

/// Waits for what is under way; forever where nothing is.
///
/// # Cancel safety
/// Cancel safe: what is under way stays.
async fn next<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
