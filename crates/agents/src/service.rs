//! The service: takes requests on, lets each go on when its turn has come, and picks up after a crash what was open.
//!
//! | module | what it is |
//! |---|---|
//! | `adopt` | takes on runs that Airflow started |
//! | `dispatcher` | the actor that knows which requests are open, and keeps the one who follows each |
//! | `plans` | plans that were agreed on lately |
//! | `follow` | the shell around one request's [`Lifecycle`](crate::lifecycle) |
//! | `limits` | how much it takes on at a time |
//! | `spans` | what the trace of a request shows of it |
//!
//! A request counts as taken on when its acceptance is in the ledger; whatever ends this process after that, it goes on
//! with the next one. Nothing here decides what happens to a request: that is the machine's.

mod adopt;
mod approvals;
mod dispatcher;
mod follow;
mod limits;
mod plans;
mod spans;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{Actor, Addr, Arbiter};
use dagwright_engine::{Engine, RunEvent};
use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    code::Code,
    id::{Name, PlanHash, RequestId},
    message::Bounds,
    record::{Accepted, Cancelled, Decision, Ingress, Purpose, Record, RecordBody},
    task::Problem,
};
use dagwright_store::{Error as StoreError, Register, RequestState, RequestSummary};
use dagwright_telemetry::chain::ErrorChain;
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::{approvals::Waiting, limits::Limits};
use self::{
    dispatcher::{Arrive, Count, Dispatcher, Drain, Release, Tell},
    follow::Asked,
    limits::InForce,
    plans::RecentPlans,
};
use crate::{
    metrics::{self, Answer},
    ports::Clock,
    team::{Ports, Team},
};

/// How far those who watch progress may be behind before they miss some.
const PROGRESS_BACKLOG: usize = 1024;

/// How long a part of the service may take to show that it works.
const ANSWER: Duration = Duration::from_secs(1);

/// How the service works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder (path or URI) for staged data.
    pub staging: String,
    /// The folder (path or URI) for rejected rows.
    pub quarantine: String,
    /// The bounds of each negotiation.
    pub bounds: Bounds,
    /// How often the plan of a request is made anew at most, after runs that failed in a way that another plan may not.
    pub replans_max: u32,
    /// How long what was found counts as known: a request with the same spec uses the plan again; zero looks anew.
    pub facts_age_max: Duration,
    /// How many requests may be negotiated at a time.
    pub negotiations_max: usize,
    /// How many plans may run at a time.
    pub runs_max: usize,
    /// How many requests may be open at a time; further ones are refused until some end.
    pub open_max: usize,
}

/// What the service works with, beside what its agents do.
#[derive(Clone)]
pub struct Resources {
    /// What the agents work with.
    pub agents: Ports,
    /// The ledger, as [`Ports::store`], with what stands in it at a glance.
    pub register: Arc<dyn Register>,
    /// What runs plans.
    pub engine: Arc<dyn Engine>,
    /// The URLs of connections, credentials included; whoever accepts a request checks that it may use those it names.
    pub connections: BTreeMap<Name, String>,
}

/// Takes requests on and sees them through.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    dispatcher: Addr<Dispatcher>,
}

/// A request whose acceptance is in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its pipeline's `dag_id`.
    pub pipeline: String,
    /// The request.
    pub request: RequestId,
    /// What it is for.
    pub purpose: Purpose,
    /// How it came.
    pub ingress: Ingress,
}

/// What came of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is taken on.
    Accepted,
    /// It was taken on before, under the same id; nothing further happens.
    Repeated,
}

/// How many requests there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// That have not ended.
    pub open: usize,
    /// Of those, the ones whose turn has come.
    pub followed: usize,
}

/// Says why the service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// For a reason that the one who asked can do something about.
    #[error(transparent)]
    Problem(Problem),
    /// The ledger cannot be read or written.
    #[error("could not use the ledger")]
    Store(#[from] StoreError),
}

/// What everybody who follows a request needs.
struct Shared {
    resources: Resources,
    settings: Settings,
    team: Team,
    plans: RecentPlans,
    limits: InForce,
    progress: broadcast::Sender<(RequestId, RunEvent)>,
    /// Cancelled when the service is to take on and begin nothing further.
    draining: CancellationToken,
    /// Cancelled when the ledger failed: only a new process knows what is in it.
    broken: CancellationToken,
}

// === impl Service ===

impl Service {
    /// Starts the agents; [`Service::go_on`] then takes up what was open. Needs a running actix system.
    ///
    /// # Errors
    /// When the agents cannot talk.
    pub async fn start(resources: Resources, settings: Settings) -> Result<Self, crate::Error> {
        let team = Team::start(resources.agents.clone()).await?;
        let shared = Arc::new(Shared {
            plans: RecentPlans::new(u64::try_from(settings.facts_age_max.as_millis()).unwrap_or(u64::MAX)),
            limits: InForce::new(&settings),
            progress: broadcast::channel(PROGRESS_BACKLOG).0,
            draining: CancellationToken::new(),
            broken: CancellationToken::new(),
            team,
            resources,
            settings,
        });
        let keeper = shared.clone();
        let dispatcher = Dispatcher::start_in_arbiter(&Arbiter::new().handle(), |_| Dispatcher::new(keeper));
        Ok(Self { shared, dispatcher })
    }

    /// Goes on with what is open of the pipelines that this process acts for.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn go_on(&self, is_ours: impl Fn(&str) -> bool) -> Result<(), Refused> {
        let mut open = Vec::new();
        for summary in self.open().await?.into_iter().filter(|summary| is_ours(&summary.pipeline)) {
            let RequestSummary { pipeline, request, purpose, ingress, .. } = summary;
            open.push(Arrival { pipeline, request, purpose, ingress });
        }
        self.take_on(open).await;
        // Who follows a request knows what is asked of it; but nobody follows those that wait in their line.
        let register = self.shared.resources.register.clone();
        let asked = blocking(move || register.asked()).await.map_err(|error| self.shared.refused(error))?;
        for (request, _) in asked.into_iter().filter(|(_, kind)| *kind != AskKind::TakeOn) {
            self.hear(&request).await?;
        }
        self.shared.resources.engine.took_over();
        Ok(())
    }

    /// Stops acting for pipelines that another process acts for now.
    pub async fn release(&self, is_lost: impl Fn(&str) -> bool + Send + 'static) {
        self.tell(Release { is_lost: Box::new(is_lost) }).await;
    }

    /// Goes on with requests whose acceptances are in the ledger, in this order.
    pub async fn take_on(&self, requests: Vec<Arrival>) {
        if !requests.is_empty() {
            self.tell(Arrive(requests)).await;
        }
    }

    /// Takes in what is asked of a request, if this process acts for its pipeline; the ledger keeps it until it is settled.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn hear(&self, request: &RequestId) -> Result<(), Refused> {
        let (register, id) = (self.shared.resources.register.clone(), request.clone());
        let asks = blocking(move || register.asks(&id)).await.map_err(|error| self.shared.refused(error))?;
        for ask in asks.into_iter().filter(|ask| self.shared.resources.register.acts_for(&ask.pipeline)) {
            let Ask { request, pipeline, body, .. } = ask;
            if let Some(asked) = Asked::of(body) {
                self.tell(Tell { request, pipeline, asked }).await;
            }
        }
        Ok(())
    }

    /// Asks something of whoever acts for a pipeline; returns whether it counts.
    async fn ask(&self, summary: &RequestSummary, body: AskBody) -> Result<bool, Refused> {
        let (request, pipeline) = (summary.request.clone(), summary.pipeline.clone());
        let ask = Ask { request: request.clone(), pipeline, at: self.shared.clock().now_ms(), body };
        let register = self.shared.resources.register.clone();
        let counts = blocking(move || register.ask(&ask)).await.map_err(|error| self.shared.refused(error))?;
        self.hear(&request).await?;
        Ok(counts)
    }

    /// Takes in what others wrote, see [`Register::catch_up`].
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn catch_up(&self, pipeline: Option<String>) -> Result<(), Refused> {
        let register = self.shared.resources.register.clone();
        let caught_up = blocking(move || register.catch_up(pipeline.as_deref())).await;
        caught_up.map_err(|error| self.shared.refused(error))
    }

    async fn summary(&self, request: &RequestId) -> Result<Option<RequestSummary>, Refused> {
        let (register, id) = (self.shared.resources.register.clone(), request.clone());
        blocking(move || register.request(&id)).await.map_err(|error| self.shared.refused(error))
    }

    async fn open(&self) -> Result<Vec<RequestSummary>, Refused> {
        let register = self.shared.resources.register.clone();
        let open = blocking(move || {
            let open = register.open_requests()?;
            let summaries = open.iter().filter_map(|request| register.request(request).transpose());
            summaries.collect::<Result<Vec<_>, StoreError>>()
        });
        open.await.map_err(|error| self.shared.refused(error))
    }

    /// Takes a request on: when this returns, its acceptance is on disk.
    ///
    /// # Errors
    /// [`Refused::Problem`] with [`Code::Overloaded`] when too many are open or the service drains.
    pub async fn submit(&self, request: RequestId, accepted: Accepted) -> Result<Submitted, Refused> {
        if self.shared.draining.is_cancelled() {
            metrics::received(accepted.ingress, Answer::Refused);
            return Err(overloaded("the service is about to stop"));
        }
        if self.load().await.open >= self.shared.limits.open_max() {
            metrics::received(accepted.ingress, Answer::Refused);
            return Err(overloaded("as many requests are open as the service takes on"));
        }
        let (pipeline, purpose, ingress) = (accepted.pipeline.clone(), accepted.purpose, accepted.ingress);
        let at = self.shared.clock().now_ms();
        let body = RecordBody::Accepted(Box::new(accepted));
        let record = Record { request: request.clone(), sequence: 0, at, body };
        let register = self.shared.resources.register.clone();
        match blocking(move || register.append(&[record])).await {
            Ok(()) => {
                metrics::received(ingress, Answer::Accepted);
                self.take_on(vec![Arrival { pipeline, request, purpose, ingress }]).await;
                Ok(Submitted::Accepted)
            }
            Err(StoreError::Conflict { .. }) => {
                metrics::received(ingress, Answer::Repeated);
                Ok(Submitted::Repeated)
            }
            Err(error) => {
                metrics::received(ingress, Answer::Refused);
                Err(self.shared.refused(error))
            }
        }
    }

    /// Hands a request on to whoever acts for its pipeline: when this returns, that is in the ledger, and it will be taken on
    /// by this process or another.
    ///
    /// # Errors
    /// [`Refused::Problem`] with [`Code::Overloaded`] when the service drains.
    pub async fn hand_on(&self, request: RequestId, accepted: Accepted) -> Result<Submitted, Refused> {
        if self.shared.draining.is_cancelled() {
            metrics::received(accepted.ingress, Answer::Refused);
            return Err(overloaded("the service is about to stop"));
        }
        let ingress = accepted.ingress;
        if self.summary(&request).await?.is_some() {
            metrics::received(ingress, Answer::Repeated);
            return Ok(Submitted::Repeated);
        }
        let (pipeline, at) = (accepted.pipeline.clone(), self.shared.clock().now_ms());
        let ask = Ask { request, pipeline, at, body: AskBody::TakeOn(Box::new(accepted)) };
        let register = self.shared.resources.register.clone();
        match blocking(move || register.ask(&ask)).await {
            Ok(true) => {
                metrics::received(ingress, Answer::Accepted);
                Ok(Submitted::Accepted)
            }
            Ok(false) => {
                metrics::received(ingress, Answer::Repeated);
                Ok(Submitted::Repeated)
            }
            Err(error) => {
                metrics::received(ingress, Answer::Refused);
                Err(self.shared.refused(error))
            }
        }
    }

    /// Asks a request to stop, wherever it is: when this returns, that is in the ledger, and whoever acts for its
    /// pipeline, this process or another, tells the request.
    ///
    /// # Errors
    /// [`Code::RequestUnknown`], or [`Code::NothingToDecide`] when it has ended.
    pub async fn cancel(&self, request: &RequestId, by: Option<String>) -> Result<(), Refused> {
        let mut known = self.summary(request).await?;
        if let Some(summary) = &known {
            self.catch_up(Some(summary.pipeline.clone())).await?;
            known = self.summary(request).await?;
        }
        let summary = known.ok_or_else(|| unknown("request", &request.0))?;
        if summary.state == RequestState::Cancelling {
            return Ok(());
        }
        let is_told = !summary.state.is_final() && self.ask(&summary, AskBody::Cancel(Cancelled { by })).await?;
        if is_told { Ok(()) } else { Err(ended(request)) }
    }

    /// Asks to approve or decline a plan, for every request that waits with it; returns those. When this returns, that is in
    /// the ledger, and whoever acts for the pipeline goes on with it.
    ///
    /// # Errors
    /// [`Code::NothingToDecide`] when no request waits with this plan, [`Code::ApprovalOwn`] when `by` asked for it.
    pub async fn decide(&self, plan: &PlanHash, approved: bool, by: Option<String>) -> Result<Vec<RequestId>, Refused> {
        let (register, hash) = (self.shared.resources.register.clone(), plan.clone());
        let known = blocking(move || register.plan(&hash)).await.map_err(|error| self.shared.refused(error))?;
        let pipeline = known.ok_or_else(|| nothing_waits(plan))?.dag_id;
        self.catch_up(Some(pipeline)).await?;
        let open = self.open().await?;
        let waiting: Vec<_> = open
            .into_iter()
            .filter(|summary| summary.state == RequestState::AwaitingApproval && summary.plan.as_ref() == Some(plan))
            .collect();
        if waiting.is_empty() {
            return Err(nothing_waits(plan));
        }
        if by.is_some() && waiting.iter().any(|summary| summary.requester == by) {
            return Err(own(plan));
        }
        let mut asked = Vec::with_capacity(waiting.len());
        for summary in waiting {
            let decision = Decision { plan_hash: plan.clone(), by: by.clone() };
            let body = if approved { AskBody::Approve(decision) } else { AskBody::Decline(decision) };
            if self.ask(&summary, body).await? {
                asked.push(summary.request);
            }
        }
        if asked.is_empty() { Err(nothing_waits(plan)) } else { Ok(asked) }
    }

    /// Returns how many requests there are.
    pub async fn load(&self) -> Load {
        self.tell(Count).await.unwrap_or_default()
    }

    /// Takes on as much as `limits` says from now on; what is under way goes on.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.set(limits);
    }

    /// Hears how far runs are, from now on; who is too slow misses some.
    #[must_use]
    pub fn progress(&self) -> broadcast::Receiver<(RequestId, RunEvent)> {
        self.shared.progress.subscribe()
    }

    /// Waits until the ledger has failed; then this process should end, since only a new one knows what is in it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn broken(&self) {
        self.shared.broken.cancelled().await;
    }

    /// Tells what requests need to be taken on, and what is wrong with it, if anything.
    pub async fn readiness(&self) -> Vec<(&'static str, Option<String>)> {
        let register = self.shared.resources.register.clone();
        let ledger = async {
            if self.shared.broken.is_cancelled() {
                return Some("the ledger failed, or a part of the service was lost; the log says why");
            }
            match timeout(ANSWER, blocking(move || register.recent(None, None, 1))).await {
                Ok(Ok(_)) => None,
                Ok(Err(_)) => Some("the ledger cannot be read"),
                Err(_) => Some("the ledger does not answer"),
            }
        };
        let dispatcher = async {
            match timeout(ANSWER, self.dispatcher.send(Count)).await {
                Ok(Ok(_)) => None,
                Ok(Err(_)) => Some("the dispatcher was lost"),
                Err(_) => Some("the dispatcher does not answer"),
            }
        };
        let (ledger, dispatcher) = tokio::join!(ledger, dispatcher);
        let agents = self.shared.team.fault();
        let draining = self.shared.draining.is_cancelled().then_some("the service is about to stop");
        let of_service = [("ledger", ledger), ("dispatcher", dispatcher), ("draining", draining)];
        let mut checks: Vec<_> = of_service.map(|(what, fault)| (what, fault.map(str::to_owned))).into();
        checks.insert(2, ("agents", agents));
        checks
    }

    /// Takes on and begins nothing further; waits for what runs, at most `grace`, then stops it. What did not end is
    /// continued by the next process.
    pub async fn drain(&self, grace: Duration) {
        self.shared.draining.cancel();
        self.tell(Drain { grace }).await;
    }

    /// Tells other processes that the agents here answer no longer, so that others take over at once.
    pub async fn leave(&self) {
        if timeout(ANSWER, self.shared.team.leave()).await.is_err() {
            tracing::warn!("the agents left without a word");
        }
    }

    /// Tells the dispatcher something; without one this process is of no more use, and the next one picks up what is open.
    async fn tell<M>(&self, message: M) -> Option<M::Result>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
        Dispatcher: actix::Handler<M>,
    {
        let answer = self.dispatcher.send(message).await;
        if answer.is_err() {
            tracing::error!("the dispatcher was lost");
            self.shared.broken.cancel();
        }
        answer.ok()
    }
}

// === impl Shared ===

impl Shared {
    fn clock(&self) -> &dyn Clock {
        &*self.resources.agents.clock
    }

    /// Notes that the ledger failed, unless it is only that somebody was faster.
    fn refused(&self, error: StoreError) -> Refused {
        match &error {
            StoreError::Conflict { .. }
            | StoreError::TooLong { .. }
            | StoreError::Misuse { .. }
            | StoreError::Elsewhere { .. }
            | StoreError::Unreached { .. } => {}
            _ => {
                tracing::error!(error = %ErrorChain(&error), "the ledger failed");
                self.broken.cancel();
            }
        }
        Refused::Store(error)
    }
}

/// Calls the store where blocking is allowed. A panic in there goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn problem(code: Code, subject: &str, message: String, hint: &str) -> Refused {
    Refused::Problem(Problem { code, subject: subject.into(), message, hint: hint.into() })
}

fn overloaded(message: &str) -> Refused {
    problem(Code::Overloaded, "service", message.into(), "send it again later; what was taken on goes on")
}

fn unknown(what: &str, id: &str) -> Refused {
    problem(Code::RequestUnknown, id, format!("there is no {what} {id:?}"), "check the id")
}

fn ended(request: &RequestId) -> Refused {
    let message = format!("request {request} has ended");
    problem(Code::NothingToDecide, &request.0, message, "only what is under way can be stopped")
}

fn nothing_waits(plan: &PlanHash) -> Refused {
    let message = format!("no request waits for a decision about plan {plan}");
    problem(Code::NothingToDecide, &plan.0, message, "see `dagwright status` for what waits")
}

fn own(plan: &PlanHash) -> Refused {
    let message = "who asked for a plan cannot decide about it".into();
    problem(Code::ApprovalOwn, &plan.0, message, "somebody else must, with a token of their own")
}
