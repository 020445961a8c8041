//! The agents of one process, and how to ask them.

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
    lineup::Lineup,
    mail::Mail,
    matter::Matter,
    observe::Facts,
    office::{Office, Opened},
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
    /// Who takes part, and who of them is here.
    pub lineup: Lineup,
}

/// The agents of the roles that run here, each on a thread of its own, and built anew when it panics.
pub struct Team {
    docket: Arc<Docket>,
    orchestrator: mpsc::Sender<Notice>,
    turns: Semaphore,
    restarts: Restarts,
    keepers: Vec<JoinHandle<()>>,
    leads: bool,
    office: Option<Opened>,
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
        let lineup = ports.lineup.clone();
        let office = match &lineup.far {
            Some(far) => Some(Office::open(&lineup, far, ports.bus.clone(), orchestrator.clone()).await?),
            None => None,
        };
        // Dropped with what has started by then when a later one cannot start.
        let leads = lineup.leads();
        let mut team = Self { docket, orchestrator, turns, restarts, keepers: Vec::new(), leads, office };
        if lineup.leads() {
            team.keep_orchestrator(&ports, notices).await?;
        }
        for party in lineup.here() {
            team.keep_participant(&ports, party).await?;
        }
        Ok(team)
    }

    fn mail(&self, ports: &Ports) -> Mail {
        Mail {
            near: ports.bus.clone(),
            here: Arc::new(ports.lineup.here()),
            office: self.office.as_ref().map(|opened| opened.office.clone()),
        }
    }

    async fn keep_orchestrator(&mut self, ports: &Ports, notices: mpsc::Receiver<Notice>) -> Result<(), Error> {
        let (mail, lineup): (_, Arc<[Party]>) = (self.mail(ports), ports.lineup.parties.iter().cloned().collect());
        let (docket, ports, open) = (self.docket.clone(), ports.clone(), self.docket.clone());
        let bus = ports.bus.clone();
        let post = Post {
            party: Party::sole(Role::Orchestrator),
            restarts: self.restarts.clone(),
            build: move |life| OrchestratorAgent {
                life,
                mail: mail.clone(),
                store: ports.store.clone(),
                clock: ports.clock.clone(),
                docket: docket.clone(),
                lineup: lineup.clone(),
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
        let mail = self.mail(ports);
        let Ports { bus, observer, store, clock, .. } = ports.clone();
        let facts = Arc::new(Facts { observer, clock, store });
        let (of, office, orchestrator) = (party.clone(), mail.office.clone(), self.orchestrator.clone());
        let post = Post {
            party: party.clone(),
            restarts: self.restarts.clone(),
            build: move |life| ParticipantAgent::new(life, of.clone(), mail.clone(), facts.clone()),
            lost: async move |over| {
                if let Some(office) = &office {
                    office.built_anew(&party);
                }
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

    /// Says what keeps the agents here from their work, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.leads && self.orchestrator.is_closed() {
            return Some("the orchestrator was lost".into());
        }
        if self.keepers.iter().any(JoinHandle::is_finished) {
            return Some("an agent was lost; the log says why".into());
        }
        let missing: Vec<_> = self.missing().iter().map(ToString::to_string).collect();
        (!missing.is_empty()).then(|| format!("no process runs what takes part: {}", missing.join(", ")))
    }

    /// Returns who takes part in the negotiations that are led here, and is not run by any process that is known.
    #[must_use]
    pub fn missing(&self) -> Vec<Party> {
        self.office.as_ref().map(|opened| opened.office.missing()).unwrap_or_default()
    }

    /// Says to other processes that nobody is here any longer, so that others take over at once.
    pub async fn leave(&self) {
        if let Some(opened) = &self.office {
            opened.office.close().await;
        }
    }

    /// Negotiates over a spec for a request whose acceptance is in the ledger; `matter` says what came before.
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
        matter: Matter,
    ) -> Result<Negotiated, Error> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let (reply, mut answer) = oneshot::channel();
        self.docket.enter(request.clone(), Asked { spec, bounds, matter, deaths: 0 }, reply);
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
