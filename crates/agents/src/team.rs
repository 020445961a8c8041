//! The four agents of one host, and how to ask them.

use std::sync::Arc;

use dagwright_bus::Bus;
use dagwright_model::{
    id::RequestId,
    message::{Bounds, Party, Role},
    spec::Spec,
};
use dagwright_store::Store;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    docket::{Asked, Docket},
    keeper::{Post, Restarts, keep},
    observe::Facts,
    orchestrator::{Negotiated, Notice, OrchestratorAgent},
    participant::{Deliver, ParticipantAgent},
    ports::{Clock, Observer},
};

/// How many sessions are open at a time; further ones wait their turn, and their time does not run yet. Each holds its
/// facts and its transcript in memory, and all of them wait for the same few processes that observe.
const SESSIONS_OPEN_MAX: usize = 64;

/// How many notices may wait for the orchestrator's keeper, which takes them at once.
const NOTICES_MAX: usize = 16;

/// What a team works with.
#[derive(Clone)]
pub struct Ports {
    /// How agents talk.
    pub bus: Arc<dyn Bus>,
    /// How they see the world.
    pub observer: Arc<dyn Observer>,
    /// Where what they say is kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// An orchestrator and one agent of each other role, each on a thread of its own, and built anew when it panics.
pub struct Team {
    docket: Arc<Docket>,
    orchestrator: mpsc::Sender<Notice>,
    turns: Semaphore,
    restarts: Restarts,
    keepers: Vec<JoinHandle<()>>,
}

/// Says why a negotiation has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus was shut down.
    #[error("could not join the bus")]
    Bus(#[from] dagwright_bus::Error),
    /// The ledger could not be written.
    #[error("could not record the negotiation")]
    Store(#[from] dagwright_store::Error),
    /// An agent could not get its thread.
    #[error("could not start a thread for an agent: {0}")]
    Thread(std::io::Error),
    /// The orchestrator is gone, or the same request was asked for again; the log says why.
    #[error("the orchestrator ended during the negotiation")]
    Lost,
}

// === impl Team ===

impl Team {
    /// Starts the agents. Needs a running actix system.
    ///
    /// # Errors
    /// [`Error::Bus`] when they cannot talk, [`Error::Thread`] when there are no threads for them.
    pub async fn start(ports: Ports) -> Result<Self, Error> {
        let (orchestrator, notices) = mpsc::channel(NOTICES_MAX);
        let (docket, restarts) = (Arc::new(Docket::default()), Restarts::default());
        let turns = Semaphore::new(SESSIONS_OPEN_MAX);
        // Dropped with what has started by then when a later one cannot start.
        let mut team = Self { docket, orchestrator, turns, restarts, keepers: Vec::new() };
        team.keep_orchestrator(&ports, notices).await?;
        for role in Role::PARTICIPANTS {
            team.keep_participant(&ports, Party::sole(role)).await?;
        }
        Ok(team)
    }

    async fn keep_orchestrator(&mut self, ports: &Ports, notices: mpsc::Receiver<Notice>) -> Result<(), Error> {
        let (docket, ports, open) = (self.docket.clone(), ports.clone(), self.docket.clone());
        let bus = ports.bus.clone();
        let post = Post {
            party: Party::sole(Role::Orchestrator),
            restarts: self.restarts.clone(),
            build: move |life| OrchestratorAgent {
                life,
                bus: ports.bus.clone(),
                store: ports.store.clone(),
                clock: ports.clock.clone(),
                docket: docket.clone(),
                sessions: std::collections::BTreeMap::new(),
            },
            lost: async move |over: Option<RequestId>| {
                open.blame(over.as_ref()).into_iter().map(Notice::Asked).collect()
            },
        };
        self.keepers.push(keep(&*bus, notices, post).await?);
        Ok(())
    }

    async fn keep_participant(&mut self, ports: &Ports, party: Party) -> Result<(), Error> {
        let Ports { bus, observer, store, clock } = ports.clone();
        let facts = Arc::new(Facts { observer, clock, store });
        let (of, agent_bus, orchestrator) = (party.clone(), bus.clone(), self.orchestrator.clone());
        let post = Post {
            party: party.clone(),
            restarts: self.restarts.clone(),
            build: move |life| ParticipantAgent::new(life, of.clone(), agent_bus.clone(), facts.clone()),
            lost: async move |over| {
                // Where there is no orchestrator any more, there are no sessions to go on with.
                let _ = orchestrator.send(Notice::Restarted { party: party.clone(), over }).await;
                Vec::new()
            },
        };
        // Nobody but the bus has anything for a participant.
        let (_, nothing) = mpsc::channel::<Deliver>(1);
        self.keepers.push(keep(&*bus, nothing, post).await?);
        Ok(())
    }

    /// Tells whether somebody would take a negotiation on.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.orchestrator.is_closed()
    }

    /// Negotiates over a spec for a request whose acceptance is in the ledger, up to `next_sequence`.
    ///
    /// What the ledger has from there on is taken up: a negotiation that another team began goes on, and one that has
    /// ended ends the same.
    ///
    /// # Errors
    /// When the ledger could not be read or written, or the orchestrator was lost for good.
    pub async fn negotiate(
        &self,
        request: RequestId,
        spec: Spec,
        bounds: Bounds,
        next_sequence: u64,
    ) -> Result<Negotiated, Error> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let (reply, mut answer) = oneshot::channel();
        self.docket.enter(request.clone(), Asked { spec, bounds, first_sequence: next_sequence, deaths: 0 }, reply);
        self.orchestrator.send(Notice::Asked(request)).await.map_err(|_| Error::Lost)?;
        tokio::select! {
            biased;
            answered = &mut answer => Ok(answered.map_err(|_| Error::Lost)??),
            () = self.orchestrator.closed() => Err(Error::Lost),
        }
    }

    /// Returns how often agents were built anew; the same counts whenever it is read.
    #[must_use]
    pub fn restarts(&self) -> Restarts {
        self.restarts.clone()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}
