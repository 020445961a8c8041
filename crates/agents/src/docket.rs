//! What the orchestrator was asked and has not answered: it outlives each orchestrator.
//!
//! Whoever asks waits here, so that a successor can give the answer. A request that kills one orchestrator after the
//! other is counted, and in the end let go.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dagwright_model::{id::RequestId, message::Bounds, spec::Spec};
use dagwright_negotiation::session::RESTARTS_MAX;
use tokio::sync::oneshot;

use crate::{matter::Matter, orchestrator::Negotiated};

/// Where an answer is waited for.
pub(crate) type Reply = oneshot::Sender<Result<Negotiated, dagwright_store::Error>>;

/// A request to negotiate.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) spec: Spec,
    pub(crate) bounds: Bounds,
    /// Where the negotiation begins in the ledger, and what came before it.
    pub(crate) matter: Matter,
    /// How many orchestrators ended over it.
    pub(crate) deaths: u32,
}

/// The open requests.
#[derive(Default)]
pub(crate) struct Docket(Mutex<BTreeMap<RequestId, (Asked, Reply)>>);

// === impl Asked ===

impl Asked {
    /// Tells whether an orchestrator may try again, or is to say that it cannot be done.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.deaths > RESTARTS_MAX
    }
}

// === impl Docket ===

impl Docket {
    /// Enters a request. Whoever asked for the same before gets no answer.
    pub(crate) fn enter(&self, request: RequestId, asked: Asked, reply: Reply) {
        self.lock().insert(request, (asked, reply));
    }

    /// Returns an open request.
    pub(crate) fn asked(&self, request: &RequestId) -> Option<Asked> {
        self.lock().get(request).map(|(asked, _)| asked.clone())
    }

    /// Notes that an orchestrator ended, and returns the requests that are still open.
    ///
    /// Where it ended over none in particular, each may be the one. A request that even kills who says that it is
    /// hopeless is let go: its reply is dropped.
    pub(crate) fn blame(&self, culprit: Option<&RequestId>) -> Vec<RequestId> {
        let mut open = self.lock();
        for (request, (asked, _)) in open.iter_mut() {
            if culprit.is_none_or(|culprit| culprit == request) {
                asked.deaths += 1;
            }
        }
        open.retain(|_, (asked, _)| asked.deaths <= RESTARTS_MAX + 1);
        open.keys().cloned().collect()
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: &RequestId, answer: Result<Negotiated, dagwright_store::Error>) {
        if let Some((_, reply)) = self.lock().remove(request) {
            // Whoever asked may have gone; the ledger knows.
            let _ = reply.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RequestId, (Asked, Reply)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
