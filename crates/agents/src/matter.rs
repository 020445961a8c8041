//! What a negotiation is about beside its spec: where its records begin, and what came before it in the life of the request.

use dagwright_model::{
    message::Role,
    record::{Record, RecordBody},
    setback::Setback,
};

/// What comes before a negotiation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matter {
    /// The sequence of its first record.
    pub first_sequence: u64,
    /// What runs have taught, one for each version of the plan so far.
    pub setbacks: Vec<Setback>,
    /// How many messages the orchestrator sent in earlier negotiations of the request.
    pub said: u32,
}

// === impl Matter ===

impl Matter {
    /// Returns what comes before the first negotiation of a request whose acceptance is its only record.
    #[must_use]
    pub fn first() -> Self {
        Self { first_sequence: 1, ..Self::default() }
    }

    /// Returns what comes before the negotiation that a request's records end with, or that follows them.
    #[must_use]
    pub fn after(records: &[Record]) -> Self {
        let mut matter = Self::first();
        let mut said = 0;
        for record in records {
            match &record.body {
                RecordBody::MessageSent(envelope) if envelope.from.role == Role::Orchestrator => {
                    said = said.max(envelope.sequence);
                }
                RecordBody::RunEnded(ended) => {
                    if let Some(setback) = &ended.setback {
                        matter.setbacks.push((**setback).clone());
                        (matter.first_sequence, matter.said) = (record.sequence + 1, said);
                    }
                }
                _ => {}
            }
        }
        matter
    }
}
