//! Turns questions into facts: asks the observer, notes source and time, and spares asking twice what cannot change.
//!
//! Typing a transform depends on nothing but the question, so its answer is taken from the ledger when that has one.
//! A source or sink is looked at anew each time: only looking tells whether it changed.

use std::sync::Arc;

use dagwright_model::{
    canonical,
    facts::{ProbeReply, TypingReply},
    message::{Fact, Observation, Origin, Question},
};
use dagwright_store::Store;

use crate::ports::{Clock, Observer};

/// Answers questions.
pub(crate) struct Facts {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
}

// === impl Facts ===

impl Facts {
    pub(crate) async fn answer(&self, question: &Question) -> Observation {
        match question {
            Question::Probe(request) => {
                let fact = match self.observer.probe(request).await {
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
                let fact = match self.observer.type_steps(request).await {
                    TypingReply::Typed(typing) => Fact::Typing(typing),
                    TypingReply::Failed(problems) => Fact::Unavailable(problems),
                };
                self.observed(fact, "dagwright-task plan")
            }
        }
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
