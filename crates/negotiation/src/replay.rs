//! A session again: driven in memory from given facts, checked against its transcript (N6), or taken up where it was
//! left.
//!
//! [`converse`] holds a whole negotiation in one call, with this crate's participants; [`replay`] feeds a machine the
//! answers that a transcript recorded, whoever gave them, and compares everything it says. [`resume`] does the same with
//! what the ledger has of a session whose orchestrator was lost, and [`abandon`] ends one without its machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dagwright_model::{
    canonical,
    id::RequestId,
    message::{Bounds, Envelope, Fact, Message, Observation, Origin, Party, Question, Role, Transcript},
    plan::Plan,
    setback::Setback,
    spec::Spec,
    task::Problem,
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
pub fn converse(id: RequestId, spec: Spec, observe: impl FnMut(&Question) -> Fact) -> Conversation {
    converse_after(id, spec, Vec::new(), observe)
}

/// The same after runs that failed.
///
/// # Panics
/// As [`converse`].
pub fn converse_after(
    id: RequestId,
    spec: Spec,
    setbacks: Vec<Setback>,
    mut observe: impl FnMut(&Question) -> Fact,
) -> Conversation {
    let rates = Rates::default();
    let mut session = Session::new(id, spec, Bounds::default(), rates).after(setbacks, 0);
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
    let session = Session::new(first.session.clone(), spec, bounds, Rates::default());
    let parties = parties(&recorded.0, session.parties());
    // What it knew from the beginning it told with its call; before that it plays no part.
    let setbacks = recorded.0.iter().find_map(|envelope| match &envelope.body {
        Message::CallForProposals(call) => Some(call.facts.setbacks.clone()),
        _ => None,
    });
    let mut session = session.among(parties).after(setbacks.unwrap_or_default(), first.sequence.saturating_sub(1));
    let mut ending = ending_of(session.apply(Event::Opened { at_ms: 0 }));
    for envelope in recorded.0.iter().filter(|envelope| envelope.from.role != Role::Orchestrator) {
        let effects = session.apply(Event::Received { envelope: envelope.clone(), at_ms: 0 });
        ending = ending.or(ending_of(effects));
    }
    let said = session.transcript().0;
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

/// Takes a session up at `now_ms` from what was recorded of it, each message with its time; from nothing, opens it. What runs
/// have taught, and how much was said in earlier sessions of the request, is as [`Session::after`] was told.
///
/// The effects are what may not have reached anyone: the questions that are open, or the end. Whoever was asked takes
/// part; of a role of which nobody was asked yet, `lineup` does.
///
/// # Errors
/// [`Divergence`] when these rules would not have said what was recorded.
pub fn resume(
    id: RequestId,
    spec: Spec,
    bounds: Bounds,
    (setbacks, said): (Vec<Setback>, u32),
    lineup: &[Party],
    recorded: &[(u64, Envelope)],
    now_ms: u64,
) -> Result<(Session, Vec<Effect>), Divergence> {
    let parties = parties(recorded.iter().map(|(_, envelope)| envelope), lineup);
    let mut session = Session::new(id, spec, bounds, Rates::default()).among(parties).after(setbacks, said);
    let opened_ms = recorded.first().map_or(now_ms, |(at_ms, _)| *at_ms);
    let ending = recorded.last().and_then(|(_, last)| outside_ending(&last.body));
    let mut effects = session.apply(Event::Opened { at_ms: opened_ms });
    for (at_ms, envelope) in recorded.iter().filter(|(_, envelope)| envelope.from.role != Role::Orchestrator) {
        // Answers of a phase that was cut off were recorded with its end, which may have been out of time.
        let at_ms = if ending.is_some() { opened_ms } else { *at_ms };
        effects = session.apply(Event::Received { envelope: envelope.clone(), at_ms });
    }
    if let (false, Some(ending)) = (session.is_over(), ending) {
        effects = session.end(ending);
    }
    let said = session.transcript().0;
    let differs = said.iter().zip(recorded).position(|(said, (_, recorded))| !same(said, recorded));
    if !recorded.is_empty() && (differs.is_some() || said.len() != recorded.len()) {
        return Err(Divergence { index: differs.unwrap_or(said.len().min(recorded.len())) });
    }
    if !recorded.is_empty() && !session.is_over() {
        effects = session.apply(Event::Resumed { at_ms: now_ms });
    }
    Ok((session, effects))
}

/// Ends a session that its machine does not survive: returns the messages that tell everyone why.
#[must_use]
pub fn abandon(id: &RequestId, lineup: &[Party], recorded: &Transcript, problems: &[Problem]) -> Vec<Envelope> {
    let me = Party::sole(Role::Orchestrator);
    let sent = recorded.0.iter().filter(|envelope| envelope.from == me).map(|envelope| envelope.sequence).max();
    let envelope = |(to, sequence)| Envelope {
        session: id.clone(),
        sequence,
        from: me.clone(),
        to,
        body: Message::Failed { problems: problems.to_vec() },
    };
    parties(&recorded.0, lineup).into_iter().zip(sent.unwrap_or_default() + 1..).map(envelope).collect()
}

/// Returns who takes part, by whom the orchestrator wrote to; of a role to which it did not write yet, the lineup's.
fn parties<'a>(recorded: impl IntoIterator<Item = &'a Envelope>, lineup: &[Party]) -> Vec<Party> {
    let addressed = recorded.into_iter().map(|envelope| &envelope.to).filter(|to| to.role != Role::Orchestrator);
    let mut parties: BTreeSet<Party> = addressed.cloned().collect();
    for role in Role::PARTICIPANTS {
        if !parties.iter().any(|party| party.role == role) {
            parties.extend(lineup.iter().filter(|party| party.role == role).cloned());
        }
    }
    parties.into_iter().collect()
}

/// Returns the ending that a last message tells of, where it can come from outside of the machine.
fn outside_ending(last: &Message) -> Option<Ending> {
    match last {
        Message::Expired { bound, conflicts } => Some(Ending::Expired { bound: *bound, conflicts: conflicts.clone() }),
        Message::Failed { problems } => Some(Ending::Failed(problems.clone())),
        Message::Observe { .. }
        | Message::Observed { .. }
        | Message::CallForProposals(_)
        | Message::Proposals { .. }
        | Message::Conflicts { .. }
        | Message::Counter { .. }
        | Message::Refuse { .. }
        | Message::Award { .. }
        | Message::Committed
        | Message::CommitFailed { .. }
        | Message::Sealed { .. }
        | Message::Deadlocked { .. } => None,
    }
}

fn same(a: &Envelope, b: &Envelope) -> bool {
    canonical::to_bytes(&a.timeless()) == canonical::to_bytes(&b.timeless())
}

fn ending_of(effects: Vec<Effect>) -> Option<Ending> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::End(ending) => Some(*ending),
        Effect::Send(_) => None,
    })
}
