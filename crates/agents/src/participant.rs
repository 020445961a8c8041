//! The extraction, transformation and loading agents: shells around [`Participant`].
//!
//! An agent keeps one machine a session, all of it rebuilt from the orchestrator's messages: one that was lost and built
//! anew is told them again. Facts are the orchestrator's to record.

use std::sync::Arc;

use actix::{Actor, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture, fut::ActorFutureExt};
use dagwright_model::{
    id::RequestId,
    letter::Letter,
    message::{self, Envelope, Fact, Observation, Party, Question},
};
use dagwright_negotiation::{
    cost::Rates,
    participants::{Effect, Event, Participant, changed},
};
use futures::future::join_all;
use indexmap::IndexMap;

use crate::{keeper::Life, mail::Mail, observe::Facts};

/// How many sessions an agent remembers; the oldest is forgotten first, and asks for nothing until it is
/// told all of it again.
const SESSIONS_MAX: usize = 1024;

/// One agent.
pub(crate) struct ParticipantAgent {
    life: Life,
    party: Party,
    mail: Mail,
    facts: Arc<Facts>,
    /// Each with the process whose orchestrator leads it; empty for this one.
    sessions: IndexMap<RequestId, (Participant, String)>,
}

/// A message for an agent.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Deliver(Letter);

/// Something that an agent found out; comes back to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct Found {
    session: RequestId,
    event: Event,
}

// === impl ParticipantAgent ===

impl ParticipantAgent {
    pub(crate) fn new(life: Life, party: Party, mail: Mail, facts: Arc<Facts>) -> Self {
        Self { life, party, mail, facts, sessions: IndexMap::new() }
    }

    fn remember(&mut self, session: &RequestId, leader: String) {
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(session) {
            self.sessions.shift_remove_index(0);
        }
        let party = &self.party;
        let begin = || (Participant::new(party.clone(), Rates::default()), String::new());
        // Another process may have taken the session up.
        self.sessions.entry(session.clone()).or_insert_with(begin).1 = leader;
    }

    /// Applies an event to a session, if it is known, and does what follows.
    fn step(&mut self, session: &RequestId, event: Event, context: &mut Context<Self>) -> AtomicResponse<Self, ()> {
        let work = self.life.work();
        let leader = self.sessions.get(session).map(|(_, leader)| leader.clone()).unwrap_or_default();
        let messages = work.on_behalf_of(session, || {
            let effects = self.sessions.get_mut(session).map(|(known, _)| known.apply(event)).unwrap_or_default();
            self.perform(session, effects, context)
        });
        let send = work.slowly_on_behalf_of(session.clone(), self.mail.clone().answer(leader, messages));
        AtomicResponse::new(Box::pin(send.into_actor(self)))
    }

    /// Starts what takes long, and returns the messages to send.
    fn perform(&self, session: &RequestId, effects: Vec<Effect>, context: &mut Context<Self>) -> Vec<Envelope> {
        let mut messages = Vec::new();
        for effect in effects {
            let facts = self.facts.clone();
            let (questions, known) = match effect {
                Effect::Send(envelope) => {
                    messages.push(envelope);
                    continue;
                }
                Effect::Observe(questions) => (questions, None),
                Effect::Check { questions, known } => (questions, Some(known)),
            };
            let session = session.clone();
            let asks = session.clone();
            let work = async move { find_out(&facts, &asks, &questions, known.as_deref()).await };
            let work = self.life.work().slowly_on_behalf_of(session.clone(), work);
            context.spawn(work.into_actor(self).map(move |event, _, context| context.notify(Found { session, event })));
        }
        messages
    }
}

impl Actor for ParticipantAgent {
    type Context = Context<Self>;
}

impl Handler<Deliver> for ParticipantAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Deliver(letter): Deliver, context: &mut Context<Self>) -> Self::Result {
        let Letter { from_host, envelope, .. } = letter;
        let session = envelope.session.clone();
        if ends_session(&envelope.body) {
            self.sessions.shift_remove(&session);
        } else {
            self.remember(&session, from_host);
        }
        self.step(&session, Event::Received(envelope), context)
    }
}

impl Handler<Found> for ParticipantAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Found { session, event }: Found, context: &mut Context<Self>) -> Self::Result {
        // The session may have ended while the answer was on its way.
        self.step(&session, event, context)
    }
}

// === impl Deliver ===

impl From<Letter> for Deliver {
    fn from(letter: Letter) -> Self {
        Self(letter)
    }
}

/// Answers every question at once; a check goes past the cache and compares.
async fn find_out(facts: &Facts, session: &RequestId, questions: &[Question], known: Option<&[Fact]>) -> Event {
    let answers = questions.iter().map(|question| facts.answer(session, question));
    let answers: Vec<Observation> = join_all(answers).await;
    match known {
        None => Event::Observed(answers),
        Some(known) => Event::Checked(changed(known, &answers)),
    }
}

fn ends_session(body: &message::Message) -> bool {
    match body {
        message::Message::Sealed { .. }
        | message::Message::Deadlocked { .. }
        | message::Message::Expired { .. }
        | message::Message::Failed { .. } => true,
        message::Message::Observe { .. }
        | message::Message::Observed { .. }
        | message::Message::CallForProposals(_)
        | message::Message::Proposals { .. }
        | message::Message::Conflicts { .. }
        | message::Message::Counter { .. }
        | message::Message::Refuse { .. }
        | message::Message::Award { .. }
        | message::Message::Committed
        | message::Message::CommitFailed { .. } => false,
    }
}
