//! The extraction, transformation and loading agents: shells around [`Participant`].
//!
//! An agent keeps one machine a session, all of it rebuilt from the orchestrator's messages: an agent that was lost and
//! built anew says so, or answers from the next call for proposals. Facts are the orchestrator's to record.

use std::sync::Arc;

use actix::{Actor, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture, fut::ActorFutureExt};
use dagwright_bus::{Bus, Topic, envelope};
use dagwright_model::{
    id::RequestId,
    message::{self, Envelope, Fact, Observation, Party, Question},
};
use dagwright_negotiation::{
    cost::Rates,
    participants::{Effect, Event, Participant, changed},
};
use futures::future::join_all;
use indexmap::IndexMap;

use crate::{keeper::Deliver, observe::Facts};

/// How many sessions an agent remembers; the oldest is forgotten first, and its award then fails with a clear word.
const SESSIONS_MAX: usize = 1024;

/// One agent.
pub(crate) struct ParticipantAgent {
    party: Party,
    bus: Arc<dyn Bus>,
    facts: Arc<Facts>,
    sessions: IndexMap<RequestId, Participant>,
}

/// Something that an agent found out; comes back to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct Found {
    session: RequestId,
    event: Event,
}

// === impl ParticipantAgent ===

impl ParticipantAgent {
    pub(crate) fn new(party: Party, bus: Arc<dyn Bus>, facts: Arc<Facts>) -> Self {
        Self { party, bus, facts, sessions: IndexMap::new() }
    }

    fn session(&mut self, session: &RequestId) -> &mut Participant {
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(session) {
            self.sessions.shift_remove_index(0);
        }
        let party = &self.party;
        self.sessions.entry(session.clone()).or_insert_with(|| Participant::new(party.clone(), Rates::default()))
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
            let work = async move { find_out(&facts, &questions, known.as_deref()).await };
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

    fn handle(&mut self, Deliver(envelope): Deliver, context: &mut Context<Self>) -> Self::Result {
        let session = envelope.session.clone();
        let is_over = ends_session(&envelope.body);
        let effects = self.session(&session).apply(Event::Received(envelope));
        if is_over {
            self.sessions.shift_remove(&session);
        }
        let messages = self.perform(&session, effects, context);
        AtomicResponse::new(Box::pin(send(self.bus.clone(), messages).into_actor(self)))
    }
}

impl Handler<Found> for ParticipantAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Found { session, event }: Found, context: &mut Context<Self>) -> Self::Result {
        let effects = match self.sessions.get_mut(&session) {
            Some(participant) => participant.apply(event),
            // The session ended while the answer was on its way.
            None => Vec::new(),
        };
        let messages = self.perform(&session, effects, context);
        AtomicResponse::new(Box::pin(send(self.bus.clone(), messages).into_actor(self)))
    }
}

/// Publishes messages in order.
pub(crate) async fn send(bus: Arc<dyn Bus>, messages: Vec<Envelope>) {
    for message in messages {
        tracing::trace!(session = %message.session, to = %message.to, kind = message.body.kind(), "sending message");
        if let Err(error) = bus.publish(Topic::Agents, envelope::to_record(&message)).await {
            tracing::error!(session = %message.session, %error, "could not send message");
        }
    }
}

/// Answers every question at once; a check goes past the cache and compares.
async fn find_out(facts: &Facts, questions: &[Question], known: Option<&[Fact]>) -> Event {
    let answers: Vec<Observation> = join_all(questions.iter().map(|question| facts.answer(question))).await;
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
