//! A session again: driven in memory from given facts, or checked against its transcript (N6).
//!
//! [`converse`] holds a whole negotiation in one call, with this crate's participants; [`replay`] feeds a machine the
//! answers that a transcript recorded, whoever gave them, and compares everything it says.

use std::collections::{BTreeMap, VecDeque};

use dagwright_model::{
    canonical,
    id::RequestId,
    message::{Bounds, Envelope, Fact, Message, Observation, Origin, Party, Question, Role, Transcript},
    plan::Plan,
    spec::Spec,
};

use crate::{
    cost::Rates,
    participants,
    participants::Participant,
    session::{Effect, Ending, Event, Session},
};

/// What a conversation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// How it ended.
    pub ending: Ending,
    /// Everything that was said.
    pub transcript: Transcript,
}

/// Says where a replay differs from its transcript.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replay differs from the transcript at message {index}")]
pub struct Divergence {
    /// The first message that differs, from 0.
    pub index: usize,
}

/// Holds a negotiation in memory; `observe` answers each question.
///
/// # Panics
/// Never: every message is delivered, so the session ends (N1).
pub fn converse(id: RequestId, spec: Spec, mut observe: impl FnMut(&Question) -> Fact) -> Conversation {
    let rates = Rates::default();
    let mut session = Session::new(id, spec, Bounds::default(), rates);
    let mut agents: BTreeMap<Party, Participant> =
        Role::PARTICIPANTS.map(Party::sole).map(|party| (party.clone(), Participant::new(party, rates))).into();
    let mut inbox: VecDeque<Effect> = session.apply(Event::Opened { at_ms: 0 }).into();
    loop {
        let effect = inbox.pop_front().expect("a session ends");
        let envelope = match effect {
            Effect::End(ending) => return Conversation { ending: *ending, transcript: session.transcript() },
            Effect::Send(envelope) => envelope,
        };
        let Some(agent) = agents.get_mut(&envelope.to) else { continue };
        let mut pending: VecDeque<_> = agent.apply(participants::Event::Received(envelope)).into();
        while let Some(wanted) = pending.pop_front() {
            let mut answer = |questions: &[Question]| -> Vec<Observation> {
                questions.iter().map(|q| Observation { fact: observe(q), origin: Origin::default() }).collect()
            };
            match wanted {
                participants::Effect::Send(envelope) => {
                    inbox.extend(session.apply(Event::Received { envelope, at_ms: 0 }));
                }
                participants::Effect::Observe(questions) => {
                    pending.extend(agent.apply(participants::Event::Observed(answer(&questions))));
                }
                participants::Effect::Check { questions, known } => {
                    let problems = participants::changed(&known, &answer(&questions));
                    pending.extend(agent.apply(participants::Event::Checked(problems)));
                }
            }
        }
    }
}

/// Feeds a new session the answers of a transcript, and returns the plan it seals, if any.
///
/// # Errors
/// [`Divergence`] where the session says something else than what was recorded.
pub fn replay(spec: Spec, bounds: Bounds, recorded: &Transcript) -> Result<Option<Plan>, Divergence> {
    let Some(first) = recorded.0.first() else { return Ok(None) };
    let mut session = Session::new(first.session.clone(), spec, bounds, Rates::default());
    let mut ending = ending_of(session.apply(Event::Opened { at_ms: 0 }));
    for envelope in recorded.0.iter().filter(|envelope| envelope.from.role != Role::Orchestrator) {
        let effects = session.apply(Event::Received { envelope: envelope.clone(), at_ms: 0 });
        ending = ending.or(ending_of(effects));
    }
    let said = session.transcript().0;
    let same = |a: &Envelope, b: &Envelope| canonical::to_bytes(&a.timeless()) == canonical::to_bytes(&b.timeless());
    let differs = said.iter().zip(&recorded.0).position(|(said, recorded)| !same(said, recorded));
    if let Some(index) = differs {
        return Err(Divergence { index });
    }
    // Time and lost agents end a session from outside: what was said before is all there is to repeat, and answers of
    // the phase that was cut off stand between it and the end.
    let rest = recorded.0.get(said.len()..).unwrap_or_default();
    let from_outside = |envelope: &Envelope| {
        envelope.from.role != Role::Orchestrator
            || matches!(envelope.body, Message::Expired { .. } | Message::Failed { .. })
    };
    if said.len() > recorded.0.len() || !rest.iter().all(from_outside) {
        return Err(Divergence { index: said.len().min(recorded.0.len()) });
    }
    Ok(match ending {
        Some(Ending::Sealed(plan)) => Some(*plan),
        Some(Ending::Deadlocked(_) | Ending::Expired { .. } | Ending::Failed(_)) | None => None,
    })
}

fn ending_of(effects: Vec<Effect>) -> Option<Ending> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::End(ending) => Some(*ending),
        Effect::Send(_) => None,
    })
}
