//! The four agents of one host, and how to ask them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use actix::{Actor, Addr, Arbiter};
use dagwright_bus::Bus;
use dagwright_model::{
    id::RequestId,
    message::{Bounds, Party, Role},
    spec::Spec,
};
use dagwright_store::Store;
use tokio::sync::oneshot;

use crate::{
    keeper::keep,
    observe::Facts,
    orchestrator::{Negotiate, Negotiated, OrchestratorAgent, Restarted},
    participant::ParticipantAgent,
    ports::{Clock, Observer},
};

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

/// An orchestrator and one agent of each other role, each on a thread of its own.
pub struct Team {
    orchestrator: Addr<OrchestratorAgent>,
    arbiters: Vec<Arbiter>,
    /// Cleared when the team is dropped: its agents then end on purpose.
    on_duty: Arc<AtomicBool>,
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
    /// The orchestrator ended; its log says why.
    #[error("the orchestrator ended during the negotiation")]
    Lost,
}

// === impl Team ===

impl Team {
    /// Starts the agents. Needs a running actix system.
    ///
    /// # Errors
    /// [`Error::Bus`] when they cannot talk.
    pub async fn start(ports: Ports) -> Result<Self, Error> {
        let on_duty = Arc::new(AtomicBool::new(true));
        let mut arbiters = vec![Arbiter::new()];
        let orchestrator = {
            let ports = ports.clone();
            OrchestratorAgent::start_in_arbiter(&arbiters[0].handle(), move |_| OrchestratorAgent {
                bus: ports.bus,
                store: ports.store,
                clock: ports.clock,
                sessions: BTreeMap::new(),
            })
        };
        let inbox = orchestrator.clone();
        // The orchestrator is not built anew here: its sessions are in memory, and whoever asked hears that it is lost.
        keep(ports.bus.clone(), Party::sole(Role::Orchestrator), move || inbox.clone(), |_| {}, on_duty.clone())
            .await?;
        let Ports { bus, observer, store, clock } = ports;
        let facts = Arc::new(Facts { observer, clock, store });
        for role in Role::PARTICIPANTS {
            let arbiter = Arbiter::new();
            let (handle, party) = (arbiter.handle(), Party::sole(role));
            arbiters.push(arbiter);
            let (facts, of, agent_bus) = (facts.clone(), party.clone(), bus.clone());
            let build = move || {
                let agent = ParticipantAgent::new(of.clone(), agent_bus.clone(), facts.clone());
                ParticipantAgent::start_in_arbiter(&handle, move |_| agent)
            };
            let orchestrator = orchestrator.clone();
            keep(bus.clone(), party, build, move |party| orchestrator.do_send(Restarted(party)), on_duty.clone())
                .await?;
        }
        Ok(Self { orchestrator, arbiters, on_duty })
    }

    /// Negotiates over a spec for a request whose acceptance is in the ledger, up to `next_sequence`.
    ///
    /// # Errors
    /// When the ledger could not be written, or the orchestrator was lost.
    pub async fn negotiate(
        &self,
        request: RequestId,
        spec: Spec,
        bounds: Bounds,
        next_sequence: u64,
    ) -> Result<Negotiated, Error> {
        let (reply, answer) = oneshot::channel();
        let ask = Negotiate { request, spec, bounds, next_sequence, reply };
        self.orchestrator.send(ask).await.map_err(|_| Error::Lost)?;
        Ok(answer.await.map_err(|_| Error::Lost)??)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.on_duty.store(false, Relaxed);
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}
