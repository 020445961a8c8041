//! The orchestrator: the shell around [`Session`]. It persists what was said and decided, then sends.
//!
//! What stands in the ledger at the end is the transcript, the facts by the hash of their question, and the outcome.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture, fut::ActorFutureExt};
use dagwright_bus::Bus;
use dagwright_model::{
    canonical,
    code::Code,
    id::RequestId,
    message::{self, Bounds, Conflict, Envelope, Facts, Party, Question, Transcript},
    plan::Plan,
    record::{Ended, FactRecorded, PlanSealed, Record, RecordBody},
    spec::Spec,
    task::Problem,
};
use dagwright_negotiation::{
    cost::Rates,
    session::{Effect, Ending, Event, Session},
};
use dagwright_store::Store;
use tokio::sync::oneshot;

use crate::{keeper::Deliver, participant::send, ports::Clock};

/// How often sessions hear that time passed; their own deadlines are seconds.
const TICK: Duration = Duration::from_millis(500);

/// The orchestrating agent.
pub(crate) struct OrchestratorAgent {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: BTreeMap<RequestId, Open>,
}

/// An open session.
pub(crate) struct Open {
    session: Session,
    /// How many messages of the transcript are in the ledger.
    recorded: usize,
    /// What each party was asked last, to name the facts it answers with.
    asked: BTreeMap<Party, Vec<Question>>,
    next_sequence: u64,
    reply: Option<oneshot::Sender<Result<Negotiated, dagwright_store::Error>>>,
}

/// Opens a session for a request that the ledger has accepted.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Negotiate {
    pub(crate) request: RequestId,
    pub(crate) spec: Spec,
    pub(crate) bounds: Bounds,
    pub(crate) next_sequence: u64,
    pub(crate) reply: oneshot::Sender<Result<Negotiated, dagwright_store::Error>>,
}

/// An agent was started anew.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Restarted(pub(crate) Party);

/// How a negotiation ended, and all that was known and said.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// How it ended.
    pub ending: Ending,
    /// Everything that was observed.
    pub facts: Facts,
    /// Every message.
    pub transcript: Transcript,
    /// The sequence of the request's next record.
    pub next_sequence: u64,
}

/// What a step of a session leads to: records first, then messages, then perhaps the end.
struct Step {
    request: RequestId,
    records: Vec<Record>,
    messages: Vec<Envelope>,
    end: Option<(oneshot::Sender<Result<Negotiated, dagwright_store::Error>>, Negotiated)>,
}

// === impl OrchestratorAgent ===

impl OrchestratorAgent {
    /// Applies an event to a session and says what follows.
    fn step(&mut self, request: &RequestId, event: Event) -> Option<Step> {
        let open = self.sessions.get_mut(request)?;
        let effects = open.session.apply(event);
        let (mut messages, mut ending) = (Vec::new(), None);
        for effect in effects {
            match effect {
                Effect::Send(envelope) => messages.push(envelope),
                Effect::End(end) => ending = Some(*end),
            }
        }
        let mut bodies = open.news();
        bodies.extend(ending.as_ref().map(outcome));
        let at = self.clock.now_ms();
        let first = open.next_sequence;
        let records: Vec<_> = bodies
            .into_iter()
            .zip(first..)
            .map(|(body, sequence)| Record { request: request.clone(), sequence, at, body })
            .collect();
        open.next_sequence += records.len() as u64;
        let end = ending.and_then(|ending| {
            let negotiated = Negotiated {
                ending,
                facts: open.session.facts().clone(),
                transcript: open.session.transcript(),
                next_sequence: open.next_sequence,
            };
            Some((open.reply.take()?, negotiated))
        });
        if open.session.is_over() {
            self.sessions.remove(request);
        }
        Some(Step { request: request.clone(), records, messages, end })
    }

    /// Persists, then performs, in the order of the steps.
    fn perform(&self, steps: Vec<Step>) -> AtomicResponse<Self, ()> {
        let (store, bus) = (self.store.clone(), self.bus.clone());
        let work = async move {
            let mut failed = Vec::new();
            for step in steps {
                match (persist(store.clone(), step.records).await, step.end) {
                    (Ok(()), end) => {
                        send(bus.clone(), step.messages).await;
                        if let Some((reply, negotiated)) = end {
                            // Whoever asked may have gone; the ledger knows.
                            let _ = reply.send(Ok(negotiated));
                        }
                    }
                    (Err(error), Some((reply, _))) => {
                        let _ = reply.send(Err(error));
                    }
                    (Err(error), None) => failed.push((step.request, error)),
                }
            }
            failed
        };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|failed, agent, _| {
            for (request, error) in failed {
                // Memory is ahead of the ledger: the session ends, and whoever asked hears why at once.
                if let Some(reply) = agent.sessions.remove(&request).and_then(|open| open.reply) {
                    let _ = reply.send(Err(error));
                }
            }
        })))
    }

    fn step_all(&mut self, event: impl Fn(u64) -> Event) -> AtomicResponse<Self, ()> {
        let at_ms = self.clock.now_ms();
        let requests: Vec<_> = self.sessions.keys().cloned().collect();
        let steps = requests.iter().filter_map(|request| self.step(request, event(at_ms))).collect();
        self.perform(steps)
    }
}

impl Actor for OrchestratorAgent {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TICK, |_, context| context.notify(Tick));
    }
}

/// Time passed.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl Handler<Negotiate> for OrchestratorAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, ask: Negotiate, _: &mut Context<Self>) -> Self::Result {
        let session = Session::new(ask.request.clone(), ask.spec, ask.bounds, Rates::default());
        let open = Open {
            session,
            recorded: 0,
            asked: BTreeMap::new(),
            next_sequence: ask.next_sequence,
            reply: Some(ask.reply),
        };
        self.sessions.insert(ask.request.clone(), open);
        let at_ms = self.clock.now_ms();
        let steps = self.step(&ask.request, Event::Opened { at_ms }).into_iter().collect();
        self.perform(steps)
    }
}

impl Handler<Deliver> for OrchestratorAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Deliver(envelope): Deliver, _: &mut Context<Self>) -> Self::Result {
        let at_ms = self.clock.now_ms();
        let request = envelope.session.clone();
        let steps = self.step(&request, Event::Received { envelope, at_ms }).into_iter().collect();
        self.perform(steps)
    }
}

impl Handler<Tick> for OrchestratorAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, _: Tick, _: &mut Context<Self>) -> Self::Result {
        self.step_all(|at_ms| Event::TimePassed { at_ms })
    }
}

impl Handler<Restarted> for OrchestratorAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Restarted(party): Restarted, _: &mut Context<Self>) -> Self::Result {
        self.step_all(|at_ms| Event::Restarted { party: party.clone(), at_ms })
    }
}

// === impl Open ===

impl Open {
    /// Returns what the transcript has beyond the ledger, facts by the hash of their question first.
    fn news(&mut self) -> Vec<RecordBody> {
        let transcript = self.session.transcript();
        let mut bodies = Vec::new();
        for envelope in transcript.0.into_iter().skip(self.recorded) {
            self.recorded += 1;
            match &envelope.body {
                message::Message::Observe { questions } => {
                    self.asked.insert(envelope.to.clone(), questions.clone());
                }
                message::Message::Observed { observations } => {
                    let questions = self.asked.remove(&envelope.from).unwrap_or_default();
                    bodies.extend(questions.iter().zip(observations).map(|(question, observation)| {
                        let key = canonical::hash(question);
                        RecordBody::FactRecorded(Box::new(FactRecorded { key, observation: observation.clone() }))
                    }));
                }
                _ => {}
            }
            bodies.push(RecordBody::MessageSent(Box::new(envelope)));
        }
        bodies
    }
}

/// Returns the record of an ending.
fn outcome(ending: &Ending) -> RecordBody {
    match ending {
        Ending::Sealed(plan) => {
            let plan: Plan = (**plan).clone();
            RecordBody::PlanSealed(Box::new(PlanSealed { hash: plan.hash(), plan }))
        }
        Ending::Deadlocked(conflicts) => {
            RecordBody::Deadlocked(Ended { problems: problems(Code::Deadlocked, conflicts) })
        }
        Ending::Expired { bound, conflicts } => {
            let reached = Problem {
                code: Code::NegotiationExpired,
                subject: "negotiation".into(),
                message: format!("the bound on {} was reached", bound.as_str()),
                hint: "see [negotiation] in the configuration".into(),
            };
            let mut all = vec![reached];
            all.extend(problems(Code::NegotiationExpired, conflicts));
            RecordBody::Deadlocked(Ended { problems: all })
        }
        Ending::Failed(problems) => RecordBody::Failed(Ended { problems: problems.clone() }),
    }
}

fn problems(code: Code, conflicts: &[Conflict]) -> Vec<Problem> {
    let problem = |conflict: &Conflict| Problem {
        code,
        subject: conflict.subject.clone(),
        message: conflict.message.clone(),
        hint: conflict.remedies.first().map(|remedy| remedy.change.clone()).unwrap_or_default(),
    };
    conflicts.iter().map(problem).collect()
}

async fn persist(store: Arc<dyn Store>, records: Vec<Record>) -> Result<(), dagwright_store::Error> {
    if records.is_empty() {
        return Ok(());
    }
    tokio::task::spawn_blocking(move || store.append(&records))
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
