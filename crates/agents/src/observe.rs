//! Turns questions into facts: asks the observer, notes source and time, and spares asking twice what cannot change.
//!
//! Whoever is asked goes on with the request's trace: each question to the observer is a span of it.
//!
//! Typing a transform depends on nothing but the question, so its answer is taken from the ledger when that has one.
//! A source or sink is looked at anew each time: only looking tells whether it changed.

use std::sync::Arc;

use dagwright_model::{
    canonical,
    facts::{ProbeReply, ProbeRequest, TypingReply},
    id::RequestId,
    message::{Fact, Observation, Origin, Question},
};
use dagwright_store::Store;
use dagwright_telemetry::trace;
use tracing::{Instrument, Span};

use crate::ports::{Clock, Observer};

/// Answers questions.
pub(crate) struct Facts {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
}

// === impl Facts ===

impl Facts {
    pub(crate) async fn answer(&self, session: &RequestId, question: &Question) -> Observation {
        match question {
            Question::Probe(request) => {
                let (ProbeRequest::Source { name, .. } | ProbeRequest::Sink { name, .. }) = request;
                let span = tracing::info_span!("probe", subject = name.as_str());
                let fact = match self.traced(session, span, self.observer.probe(request)).await {
                    ProbeReply::Source(profile) => Fact::Source(profile),
                    ProbeReply::Sink(inspection) => Fact::Sink(inspection),
                    ProbeReply::Failed(problem) => Fact::Unavailable(vec![problem]),
                };
                self.observed(fact, "dagwright-task probe")
            }
            Question::Type(request) => {
                if let Some(known) = self.known(question).await {
                    return Observation { fact: known, origin: self.origin("ledger") };
                }
                let span = tracing::info_span!("type");
                let fact = match self.traced(session, span, self.observer.type_steps(request)).await {
                    TypingReply::Typed(typing) => Fact::Typing(typing),
                    TypingReply::Failed(problems) => Fact::Unavailable(problems),
                };
                self.observed(fact, "dagwright-task plan")
            }
        }
    }

    /// Asks the observer within a span of the request's trace.
    async fn traced<T>(&self, session: &RequestId, span: Span, work: impl Future<Output = T>) -> T {
        let (store, request) = (self.store.clone(), session.clone());
        // Where the ledger does not have the request, or cannot be read, the span is in no trace, and nothing else is amiss.
        let known = tokio::task::spawn_blocking(move || store.request(&request)).await;
        if let Ok(Ok(Some(summary))) = known {
            trace::continue_from(&span, summary.traceparent.as_deref());
        }
        work.instrument(span).await
    }

    async fn known(&self, question: &Question) -> Option<Fact> {
        let (store, key) = (self.store.clone(), canonical::hash(question));
        let found = tokio::task::spawn_blocking(move || store.fact(&key)).await.ok()?;
        match found {
            Ok(observation) => observation.map(|observation| observation.fact),
            Err(error) => {
                // The ledger is only a short cut here; whoever must write to it will say so.
                tracing::warn!(%error, "could not look a fact up");
                None
            }
        }
    }

    fn observed(&self, fact: Fact, source: &str) -> Observation {
        Observation { fact, origin: self.origin(source) }
    }

    fn origin(&self, source: &str) -> Origin {
        Origin { source: source.into(), at: self.clock.now_rfc3339() }
    }
}
