//! Keeps an agent alive: delivers its messages, and builds it anew as soon as it panicked.
//!
//! An actor that panics takes its mailbox with it, and `actix::Supervisor` would restart the same broken struct. So a
//! keeper owns the subscription and a factory instead, and gives each agent a [`Life`] to hold: it is dropped with the
//! agent, wherever that panicked, and tells on whose behalf it was at work. Each agent has a thread of its own, which
//! ends with it.
//!
//! The subscription is always drained, so agents that write to each other never wait for each other. What waits here is
//! bounded by the sessions that a team holds at a time, and by the messages that each may have.
//!
//! Nothing is delivered twice. Whoever leads the sessions hears that an agent was built anew, and tells it what it
//! needs. An agent does nothing unasked, so what it ends of is a session's, and sessions bound what they forgive.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, pending, poll_fn},
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use actix::{Actor, Addr, Arbiter, Context, Handler, Message};
use dagwright_bus::{Bus, Record, Subscription, Topic, letter};
use dagwright_model::{
    id::RequestId,
    letter::Letter,
    message::{Party, Role},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{metrics, team::Error};

/// Held by an agent as long as it lives.
pub(crate) struct Life {
    work: Work,
    _alive: oneshot::Sender<Infallible>,
}

/// Remembers on whose behalf an agent is at work; still says so when that made it panic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work(Arc<Mutex<Option<RequestId>>>);

/// How often agents were built anew because they panicked, by role.
#[derive(Clone, Debug, Default)]
pub struct Restarts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    orchestrator: AtomicU64,
    extraction: AtomicU64,
    transformation: AtomicU64,
    loading: AtomicU64,
}

/// What keeping an agent takes.
pub(crate) struct Post<B, R> {
    pub(crate) party: Party,
    /// Makes an agent that knows nothing.
    pub(crate) build: B,
    /// Hears that the agent was lost, and over which session; returns what its successor is told first.
    pub(crate) lost: R,
    pub(crate) restarts: Restarts,
}

/// An agent on its thread.
struct Incarnation<A: Actor> {
    address: Addr<A>,
    arbiter: Arbiter,
    work: Work,
    death: oneshot::Receiver<Infallible>,
}

// === impl Life ===

impl Life {
    /// Returns the note of who the agent works for.
    pub(crate) fn work(&self) -> Work {
        self.work.clone()
    }
}

// === impl Work ===

impl Work {
    /// Does something on behalf of a session.
    pub(crate) fn on_behalf_of<T>(&self, session: &RequestId, work: impl FnOnce() -> T) -> T {
        self.note(Some(session.clone()));
        let done = work();
        self.note(None);
        done
    }

    /// Does something on behalf of a session that takes a while; others may be at work in between.
    pub(crate) fn slowly_on_behalf_of<F: Future>(
        &self,
        session: RequestId,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let (note, mut work) = (self.clone(), Box::pin(work));
        poll_fn(move |context| note.on_behalf_of(&session, || work.as_mut().poll(context)))
    }

    fn note(&self, session: Option<RequestId>) -> Option<RequestId> {
        mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), session)
    }
}

// === impl Restarts ===

impl Restarts {
    /// Returns how often agents of this role were built anew since the team started.
    #[must_use]
    pub fn of(&self, role: Role) -> u64 {
        self.count(role).load(Relaxed)
    }

    fn count(&self, role: Role) -> &AtomicU64 {
        match role {
            Role::Orchestrator => &self.0.orchestrator,
            Role::Extraction => &self.0.extraction,
            Role::Transformation => &self.0.transformation,
            Role::Loading => &self.0.loading,
        }
    }
}

// === impl Post ===

impl<B, R> Post<B, R> {
    /// Notes that an agent was lost; returns what its successor is told first.
    async fn bury<M>(&self, work: &Work) -> Vec<M>
    where
        R: AsyncFn(Option<RequestId>) -> Vec<M>,
    {
        let session = work.note(None);
        let at_fault = session.as_ref().map(tracing::field::display);
        tracing::error!(party = %self.party, session = at_fault, "agent panicked, building it anew");
        self.restarts.count(self.party.role).fetch_add(1, Relaxed);
        metrics::agent_restarted(self.party.role);
        (self.lost)(session).await
    }
}

// === impl Incarnation ===

impl<A: Actor<Context = Context<A>> + Send> Incarnation<A> {
    fn start(build: impl Fn(Life) -> A) -> io::Result<Self> {
        let arbiter = Arbiter::try_new()?;
        let (alive, death) = oneshot::channel();
        let work = Work::default();
        let agent = build(Life { work: work.clone(), _alive: alive });
        let address = A::start_in_arbiter(&arbiter.handle(), move |_| agent);
        Ok(Self { address, arbiter, work, death })
    }
}

impl<A: Actor> Drop for Incarnation<A> {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

/// Subscribes a party and keeps its agent until the returned task is aborted or the bus is shut down.
///
/// The agent gets what the bus has for it, and what comes by `local`.
///
/// # Errors
/// When the bus was shut down, or a thread cannot be had.
pub(crate) async fn keep<A, M, B, R>(
    bus: &dyn Bus,
    local: mpsc::Receiver<M>,
    post: Post<B, R>,
) -> Result<JoinHandle<()>, Error>
where
    A: Actor<Context = Context<A>> + Handler<M> + Send,
    M: Message<Result = ()> + From<Letter> + Send + 'static,
    B: Fn(Life) -> A + 'static,
    R: AsyncFn(Option<RequestId>) -> Vec<M> + 'static,
{
    let subscription = bus.subscribe(Topic::Agents, &post.party.to_string()).await?;
    let agent = Incarnation::start(&post.build).map_err(Error::Thread)?;
    Ok(actix::spawn(deliver_all(subscription, local, post, agent)))
}

async fn deliver_all<A, M, B, R>(
    mut subscription: Subscription,
    mut local: mpsc::Receiver<M>,
    post: Post<B, R>,
    mut agent: Incarnation<A>,
) where
    A: Actor<Context = Context<A>> + Handler<M> + Send,
    M: Message<Result = ()> + From<Letter> + Send + 'static,
    B: Fn(Life) -> A,
    R: AsyncFn(Option<RequestId>) -> Vec<M>,
{
    let mut waiting = VecDeque::new();
    let mut delivery = None;
    loop {
        if delivery.is_none() {
            delivery = waiting.pop_front().map(|message| Box::pin(agent.address.send(message)));
        }
        let is_alive = tokio::select! {
            _ = &mut agent.death => false,
            delivered = done(&mut delivery) => delivered.is_ok(),
            record = subscription.next() => {
                let Some(record) = record else { return };
                waiting.extend(addressed(&post.party, &record).map(M::from));
                metrics::mailbox(&post.party, waiting.len());
                true
            }
            Some(message) = local.recv() => {
                waiting.push_back(message);
                true
            }
        };
        if is_alive {
            continue;
        }
        delivery = None;
        for message in post.bury(&agent.work).await.into_iter().rev() {
            waiting.push_front(message);
        }
        agent = match Incarnation::start(&post.build) {
            Ok(agent) => agent,
            Err(error) => {
                tracing::error!(party = %post.party, %error, "could not start a thread for an agent, it stays away");
                return;
            }
        };
    }
}

/// Waits for a delivery to be done with, and takes it; forever where there is none.
///
/// # Cancel safety
/// Cancel safe: the delivery stays.
async fn done<F: Future + Unpin>(delivery: &mut Option<F>) -> F::Output {
    match delivery {
        Some(open) => {
            let output = open.await;
            *delivery = None;
            output
        }
        None => pending().await,
    }
}

fn addressed(party: &Party, record: &Record) -> Option<Letter> {
    match letter::letter_in(record) {
        Ok(letter) => letter.filter(|letter| letter.envelope.to == *party),
        Err(error) => {
            tracing::warn!(%party, %error, "dropped a message that cannot be read");
            None
        }
    }
}
