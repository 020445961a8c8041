//! The shell around one request's [`Lifecycle`]: hands it what happens, appends what it records, performs the rest.

use std::{collections::VecDeque, future::pending, sync::Arc, time::Instant};

use actix::Addr;
use dagwright_engine::{Cancel, Error as EngineError, Job, Replanning, airflow::run_id, event};
use dagwright_model::{
    ask::AskBody,
    code::Code,
    id::{PlanHash, RequestId},
    record::{Accepted, PipelineStatus, Record, RecordBody, RunStarted},
    setback::Setback,
    spec::{Schedule, Spec},
    task::{Problem, Status},
};
use dagwright_negotiation::session::Ending;
use dagwright_store::{Error as StoreError, Register};
use dagwright_telemetry::chain::ErrorChain;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::{
    Refused, Shared, blocking,
    dispatcher::{Dispatcher, Runs},
    plans::Recent,
    spans,
};
use crate::{
    agreed::Agreed,
    interval,
    lifecycle::{Deployment, Effect, Event, Lifecycle, Pipeline},
    matter::Matter,
    metrics::{self, Place, Waiting},
};

/// How many of a pipeline's requests are looked through for the one that a plan was agreed on for.
const REQUESTS_MAX: usize = 1000;

/// What somebody asks of a request.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// Stop.
    Cancel { by: Option<String> },
    /// Go on with the plan, or do not.
    Decide { approved: bool, by: Option<String> },
}

/// Why somebody is sent after a request.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// Its turn has come.
    GoOn,
    /// Its turn has not come, but somebody asks something of it.
    Listen,
    /// Those who followed it were lost.
    GiveUp(Problem),
}

/// How following a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing further happens to it.
    Done,
    /// Somebody else goes on with it, here or in another process.
    HandedOver,
    /// The ledger took no record: another process acts for the pipeline, or did for a while, or somebody else has written
    /// for the request meanwhile.
    Overtaken,
    /// What is to be written of it is longer than the ledger takes, and will be the next time.
    TooLarge,
}

/// What the ledger knows of a request that has not ended.
struct Known {
    accepted: Accepted,
    life: Lifecycle,
    next_sequence: u64,
    pipeline: Pipeline,
    /// What is asked of it and not settled.
    asked: Vec<Asked>,
}

struct Follower {
    shared: Arc<Shared>,
    dispatcher: Addr<Dispatcher>,
    request: RequestId,
    accepted: Accepted,
    next_sequence: u64,
    cancel: Cancel,
}

/// What a pending future ends with.
enum Told {
    Event(Event, u64),
    Failed(Refused),
}

/// Follows a request to its end, or to the end of this process.
pub(super) async fn follow(
    shared: Arc<Shared>,
    dispatcher: Addr<Dispatcher>,
    request: RequestId,
    errand: Errand,
    asked: mpsc::Receiver<Asked>,
) -> Ended {
    let (register, id) = (shared.resources.register.clone(), request.clone());
    let (deploys, replans_max) = (shared.resources.engine.keeps_pipelines(), shared.settings.replans_max);
    let known = match blocking(move || read(&*register, &id, deploys, replans_max))
        .await
        .map_err(|error| shared.refused(error))
    {
        Ok(Some(known)) => known,
        Ok(None) => return Ended::Done,
        Err(_) => return Ended::HandedOver, // The ledger failed, which is told elsewhere.
    };
    let Known { accepted, life, next_sequence, pipeline, asked: waiting } = known;
    let span = spans::log(&request, accepted.traceparent.as_deref());
    let follower = Follower { shared, dispatcher, request, accepted, next_sequence, cancel: Cancel::default() };
    match follower.follow(life, pipeline, errand, (waiting, asked)).instrument(span).await {
        Ok(ended) => ended,
        Err(Refused::Store(StoreError::Elsewhere { .. } | StoreError::Conflict { .. })) => Ended::Overtaken,
        Err(Refused::Store(StoreError::TooLong { .. })) => Ended::TooLarge,
        // The ledger failed, which is told elsewhere.
        Err(_) => Ended::HandedOver,
    }
}

/// Reads a request's life from the ledger, and what its pipeline is; `None` when there is nothing to follow.
fn read(
    register: &dyn Register,
    request: &RequestId,
    deploys: bool,
    replans_max: u32,
) -> Result<Option<Known>, StoreError> {
    // First: what is settled meanwhile is asked once more, to no effect.
    let asks = register.asks(request)?;
    let records = register.read(request, 0)?;
    let Some(RecordBody::Accepted(accepted)) = records.first().map(|record| &record.body) else { return Ok(None) };
    let mut life = Lifecycle::new(accepted, deploys, replans_max);
    for record in &records {
        let plan = |hash: &PlanHash| register.plan(hash).ok().flatten();
        if life.replay(&record.body, plan).is_err() {
            tracing::error!(request_id = %request, sequence = record.sequence, "a record does not fit the ones before it");
            return Ok(None);
        }
    }
    if life.has_ended() {
        return Ok(None);
    }
    let pipeline = match register.pipeline(&accepted.pipeline)? {
        Some(known) => Pipeline { status: known.status, revision: known.revision },
        None => Pipeline { status: PipelineStatus::Active, revision: 0 },
    };
    let asked = asks.into_iter().filter_map(|ask| Asked::of(ask.body)).collect();
    Ok(Some(Known { accepted: (**accepted).clone(), life, next_sequence: records.len() as u64, pipeline, asked }))
}

// === impl Asked ===

impl Asked {
    /// Returns what is asked of a request that was taken on.
    pub(super) fn of(body: AskBody) -> Option<Self> {
        match body {
            AskBody::TakeOn(_) => None,
            AskBody::Cancel(cancelled) => Some(Self::Cancel { by: cancelled.by }),
            AskBody::Approve(decision) => Some(Self::Decide { approved: true, by: decision.by }),
            AskBody::Decline(decision) => Some(Self::Decide { approved: false, by: decision.by }),
        }
    }
}

// === impl Follower ===

impl Follower {
    async fn follow(
        mut self,
        mut life: Lifecycle,
        pipeline: Pipeline,
        errand: Errand,
        (waiting, mut asked): (Vec<Asked>, mpsc::Receiver<Asked>),
    ) -> Result<Ended, Refused> {
        let mut work: Option<BoxFuture<'static, Told>> = None;
        let is_listening = matches!(errand, Errand::Listen);
        // What is to stop need not begin; what is decided goes on from where it is.
        let (stop, decide): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|asked| matches!(asked, Asked::Cancel { .. }));
        let mut events: VecDeque<Event> = match errand {
            Errand::GoOn => {
                let turn = Event::Turn { pipeline };
                let before = stop.into_iter().filter_map(|asked| self.event(asked));
                let after = decide.into_iter().filter_map(|asked| self.event(asked));
                before.chain([turn]).chain(after).collect()
            }
            Errand::GiveUp(problem) => [Event::GivenUp(problem)].into(),
            // A decision waits for the turn, which tells what the pipeline is.
            Errand::Listen => stop.into_iter().filter_map(|asked| self.event(asked)).collect(),
        };
        let mut next = None;
        loop {
            if let Some(event) = next.take().or_else(|| events.pop_front()) {
                let was_last = self.step(&mut life, event, &mut work).await?;
                if life.has_ended() {
                    return Ok(Ended::Done);
                }
                if was_last || is_listening {
                    return Ok(Ended::HandedOver);
                }
                if !events.is_empty() {
                    continue;
                }
            }
            let draining = self.shared.draining.clone();
            let is_idle = work.is_none();
            next = tokio::select! {
                biased;
                told = async { match &mut work { Some(work) => work.await, None => pending().await } } => {
                    work = None;
                    match told {
                        Told::Event(event, next_sequence) => {
                            self.next_sequence = next_sequence;
                            Some(event)
                        }
                        Told::Failed(refused) => return Err(refused),
                    }
                }
                Some(heard) = asked.recv() => match heard {
                    Asked::Decide { .. } if is_listening => return Ok(Ended::HandedOver),
                    heard => self.event(heard),
                },
                () = draining.cancelled(), if is_idle => return Ok(Ended::HandedOver),
                else => return Ok(Ended::HandedOver),
            };
        }
    }

    /// Returns what is asked as what happens to the request; nobody decides about what they asked for.
    fn event(&self, asked: Asked) -> Option<Event> {
        match asked {
            Asked::Cancel { by } => Some(Event::CancelRequested { by }),
            Asked::Decide { by, .. } if by.is_some() && by == self.accepted.requester => {
                tracing::warn!(request_id = %self.request, "who asked for a plan cannot decide about it");
                None
            }
            Asked::Decide { approved, by } => Some(Event::Decided { approved, by }),
        }
    }

    /// Takes one step: the records first, all together; then the rest. Returns whether that was the last one.
    async fn step(
        &mut self,
        life: &mut Lifecycle,
        event: Event,
        work: &mut Option<BoxFuture<'static, Told>>,
    ) -> Result<bool, Refused> {
        let (mut records, mut others) = (Vec::new(), Vec::new());
        let (began, began_ms) = (Instant::now(), self.shared.clock().now_ms());
        let effects = life.apply(event);
        for effect in &effects {
            if let Effect::Record(RecordBody::Replanned(replanned)) = effect {
                metrics::replanned(replanned.class);
            }
        }
        if effects.iter().any(|effect| matches!(effect, Effect::Record(RecordBody::DagCompiled(_)))) {
            let elapsed = began.elapsed();
            metrics::compiled(elapsed);
            let ended_ms = began_ms.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            spans::compiled(self.accepted.traceparent.as_deref(), began_ms, ended_ms);
        }
        for effect in effects {
            match effect {
                Effect::Record(body) => records.push(body),
                Effect::Negotiate(_)
                | Effect::LookUp(_)
                | Effect::Deploy(_)
                | Effect::Run { .. }
                | Effect::StopRun { .. }
                | Effect::End => others.push(effect),
            }
        }
        self.append(records, life.has_ended()).await?;
        for effect in others {
            match effect {
                // Appended before.
                Effect::Record(_) => {}
                Effect::End => return Ok(true),
                Effect::StopRun { by } => self.cancel.request(by),
                // What would begin now is begun by the next process.
                Effect::Negotiate(_) | Effect::Deploy(_) | Effect::Run { .. }
                    if self.shared.draining.is_cancelled() =>
                {
                    return Ok(true);
                }
                Effect::Negotiate(setbacks) => *work = Some(Box::pin(negotiate(self.errand(), setbacks))),
                Effect::LookUp(plan) => *work = Some(Box::pin(look_up(self.errand(), plan))),
                Effect::Deploy(deployment) => *work = Some(Box::pin(deploy(self.errand(), deployment))),
                Effect::Run { plan, version, replanning } => {
                    let running_max = usize::try_from(plan.plan().airflow.max_active_runs).unwrap_or(usize::MAX);
                    let (pipeline, request) = (plan.plan().dag_id.clone(), self.request.clone());
                    self.dispatcher.do_send(Runs { pipeline, request, running_max });
                    *work = Some(Box::pin(run(self.errand(), plan, (version, replanning), self.cancel.clone())));
                }
            }
        }
        Ok(false)
    }

    fn errand(&self) -> Commission {
        Commission {
            shared: self.shared.clone(),
            request: self.request.clone(),
            accepted: self.accepted.clone(),
            next_sequence: self.next_sequence,
        }
    }

    /// Appends records; after the last ones, counts how the request ended, whoever recorded that.
    async fn append(&mut self, bodies: Vec<RecordBody>, has_ended: bool) -> Result<(), Refused> {
        if bodies.is_empty() && !has_ended {
            return Ok(());
        }
        let at = self.shared.clock().now_ms();
        let numbered = (self.next_sequence..).zip(bodies);
        let records: Vec<_> =
            numbered.map(|(sequence, body)| Record { request: self.request.clone(), sequence, at, body }).collect();
        for record in &records {
            tracing::info!(request_id = %record.request, sequence = record.sequence, what = record.body.kind(), "recorded");
        }
        self.next_sequence += records.len() as u64;
        let (register, request) = (self.shared.resources.register.clone(), self.request.clone());
        let appended = blocking(move || {
            register.append(&records)?;
            Ok(has_ended.then(|| register.request(&request)))
        });
        match appended.await.map_err(|error| self.shared.refused(error))? {
            Some(Ok(Some(summary))) => metrics::ended(summary.purpose, summary.state),
            Some(Err(error)) => {
                tracing::warn!(%error, "could not look up how a request ended, it is not counted");
            }
            Some(Ok(None)) | None => {}
        }
        Ok(())
    }
}

/// What somebody needs who negotiates or runs for a request.
struct Commission {
    shared: Arc<Shared>,
    request: RequestId,
    accepted: Accepted,
    next_sequence: u64,
}

/// Lets the agents negotiate, anew after setbacks: then everything is looked at again.
async fn negotiate(commission: Commission, setbacks: Vec<Setback>) -> Told {
    let Commission { shared, request, accepted, next_sequence } = commission;
    let found_at_ms = shared.clock().elapsed_ms();
    if setbacks.is_empty()
        && let Some(Recent { plan, from, .. }) = shared.plans.get(&accepted.spec_hash, found_at_ms)
    {
        return Told::Event(Event::Reused { plan, from }, next_sequence);
    }
    let (register, id) = (shared.resources.register.clone(), request.clone());
    let matter = match blocking(move || register.read(&id, 0)).await {
        Ok(records) => Matter { setbacks, ..Matter::after(&records) },
        Err(error) => return Told::Failed(shared.refused(error)),
    };
    let Ok(spec) = Spec::parse(&accepted.spec_text) else {
        // Whoever accepted it has parsed it.
        return Told::Event(Event::GivenUp(internal("the spec of an accepted request is not valid")), next_sequence);
    };
    let waiting = Waiting::begin(Place::Negotiation);
    let _place = shared.limits.negotiations.take().await;
    drop(waiting);
    let (began, span) = (Instant::now(), spans::negotiation(&accepted));
    let first = matter.first_sequence;
    let work = shared.team.negotiate(request.clone(), spec, shared.settings.bounds, matter);
    match work.instrument(span.clone()).await {
        Ok(negotiated) => {
            if let Ending::Sealed(plan) = &negotiated.ending {
                shared.plans.keep(&accepted.spec_hash, &request, plan, found_at_ms);
            }
            metrics::negotiated(&negotiated.ending, &negotiated.transcript, began.elapsed());
            let register = shared.resources.register.clone();
            match blocking(move || register.read(&request, first)).await {
                Ok(records) => spans::negotiated(&span, &negotiated.ending, &records),
                Err(error) => tracing::warn!(%error, "could not read what the agents said, the trace lacks it"),
            }
            Told::Event(Event::Negotiated(negotiated.ending), negotiated.next_sequence)
        }
        Err(crate::Error::Store(error)) => Told::Failed(shared.refused(error)),
        Err(error) => {
            let message = format!("the negotiation has no outcome: {error}");
            Told::Event(Event::GivenUp(Problem { code: Code::AgentLost, ..internal(&message) }), next_sequence)
        }
    }
}

/// Looks up the plan of a run that is there already, and a request that it was agreed on for.
async fn look_up(commission: Commission, hash: PlanHash) -> Told {
    let Commission { shared, accepted, next_sequence, .. } = commission;
    let (register, pipeline, wanted) = (shared.resources.register.clone(), accepted.pipeline, hash.clone());
    let found = blocking(move || {
        let Some(plan) = register.plan(&wanted)? else { return Ok(None) };
        let known = register.requests(&pipeline, REQUESTS_MAX)?;
        let from = known.into_iter().find(|summary| summary.plan.as_ref() == Some(&wanted));
        Ok(from.map(|summary| (plan, summary.request)))
    });
    match found.await.map_err(|error| shared.refused(error)) {
        Ok(Some((plan, from))) => Told::Event(Event::Reused { plan: Arc::new(Agreed::new(plan)), from }, next_sequence),
        Ok(None) => {
            let problem = Problem {
                code: Code::RequestUnknown,
                subject: hash.0.clone(),
                message: format!("there is no plan {}, of which Airflow has a run", hash.short()),
                hint: "its requests were forgotten, or another Dagwright deployed it".into(),
            };
            Told::Event(Event::GivenUp(problem), next_sequence)
        }
        Err(refused) => Told::Failed(refused),
    }
}

/// Changes what is kept of the pipeline elsewhere.
async fn deploy(commission: Commission, deployment: Deployment) -> Told {
    let Commission { shared, accepted, next_sequence, .. } = commission;
    let (engine, pipeline) = (&shared.resources.engine, &accepted.pipeline);
    let result = match deployment {
        Deployment::Plan { plan, resume } => match engine.deploy(plan.plan()).await {
            Ok(()) if resume => engine.resume_pipeline(pipeline).await,
            deployed => deployed,
        },
        Deployment::Pause => engine.pause_pipeline(pipeline).await,
        Deployment::Remove => engine.remove_pipeline(pipeline).await,
    };
    Told::Event(Event::Deployed(result), next_sequence)
}

/// Runs a plan, or goes on with its run.
async fn run(
    commission: Commission,
    agreed: Arc<Agreed>,
    (version, replanning): (u32, Replanning),
    cancel: Cancel,
) -> Told {
    let Commission { shared, request, accepted, next_sequence } = commission;
    let plan = agreed.plan().clone();
    let waiting = Waiting::begin(Place::Run);
    let _place = shared.limits.runs.take().await;
    drop(waiting);
    let (register, id) = (shared.resources.register.clone(), request.clone());
    let earlier = match blocking(move || earlier_run(&*register, &id, version)).await {
        Ok(earlier) => earlier,
        Err(error) => return Told::Failed(shared.refused(error)),
    };
    let interval = match (&accepted.interval, plan.schedule.as_ref().and_then(Schedule::cron)) {
        (Some(given), _) => Ok(Some(given.clone())),
        (None, Some(schedule)) if accepted.follows.is_none() => {
            let now = i64::try_from(shared.clock().now_ms()).unwrap_or(i64::MAX);
            let now = chrono::DateTime::from_timestamp_millis(now).unwrap_or_default();
            interval::last_whole(schedule, now).map(Some)
        }
        (None, Some(_) | None) => Ok(None),
    };
    let interval = match interval {
        Ok(interval) => interval,
        Err(error) => return Told::Event(Event::GivenUp(internal(&error.to_string())), next_sequence),
    };
    let started = RunStarted {
        plan_hash: agreed.hash().clone(),
        effect: match &accepted.follows {
            None => request.to_string(),
            Some(followed) => run_id::effect(&accepted.pipeline, &followed.dag_run),
        },
        generation: 0,
        base: accepted.base.clone(),
        staging: shared.settings.staging.clone(),
        quarantine: shared.settings.quarantine.clone(),
        interval,
        params: accepted.params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        backfill: accepted.backfill,
        keep_staged: matches!(replanning, Replanning::Left(1..)),
        dag_run: accepted.follows.as_ref().map(|followed| followed.dag_run.clone()),
        version,
    };
    // It is the same run to whoever asked for it, by another plan: the interval does not move on meanwhile.
    let started = match earlier {
        Some(earlier) => {
            let RunStarted { plan_hash, dag_run, version, keep_staged, .. } = started;
            RunStarted { plan_hash, dag_run, version, keep_staged, ..earlier }
        }
        None => started,
    };
    let (events, mut heard) = event::channel();
    let job = Job {
        request: request.clone(),
        plan,
        connections: shared.resources.connections.clone(),
        store: shared.resources.register.clone(),
        events,
        cancel,
        replanning,
    };
    let forward = async {
        while let Some(event) = heard.recv().await {
            // Nobody watches: fine.
            let _ = shared.progress.send((request.clone(), event));
        }
    };
    let span = spans::run(&accepted);
    let work = shared.resources.engine.run(job, started).instrument(span.clone());
    let (outcome, ()) = tokio::join!(work, forward);
    match outcome {
        Ok(outcome) => {
            if outcome.status == Status::Failed {
                // Perhaps because something is no longer as it was found.
                shared.plans.forget(&accepted.spec_hash);
            }
            spans::ran(&span, &outcome);
            // The engine has written meanwhile.
            let register = shared.resources.register.clone();
            match blocking(move || register.request(&request)).await {
                Ok(summary) => {
                    let next_sequence = summary.map_or(next_sequence, |summary| summary.next_sequence);
                    Told::Event(Event::RunEnded(outcome.setback), next_sequence)
                }
                Err(error) => Told::Failed(shared.refused(error)),
            }
        }
        Err(EngineError::Append {
            source: error @ (StoreError::Elsewhere { .. } | StoreError::Conflict { .. } | StoreError::TooLong { .. }),
            ..
        }) => Told::Failed(error.into()),
        Err(error) => {
            tracing::error!(request_id = %request, error = %ErrorChain(&error), "a run cannot go on");
            shared.broken.cancel();
            Told::Event(Event::GivenUp(internal(&error.to_string())), next_sequence)
        }
    }
}

/// Returns how the run of the version before began, where there was one.
fn earlier_run(register: &dyn Register, request: &RequestId, version: u32) -> Result<Option<RunStarted>, StoreError> {
    if version <= 1 {
        return Ok(None);
    }
    let records = register.read(request, 0)?;
    let started = records.into_iter().rev().find_map(|record| match record.body {
        RecordBody::RunStarted(started) if started.version < version => Some(*started),
        _ => None,
    });
    Ok(started)
}

fn internal(message: &str) -> Problem {
    Problem { code: Code::Internal, subject: String::new(), message: message.into(), hint: "report this".into() }
}
