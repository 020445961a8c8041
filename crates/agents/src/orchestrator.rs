//! The orchestrator: the shell around [`Session`]. It persists what was said and decided, then sends.
//!
//! What stands in the ledger at the end is the transcript, the facts by the hash of their question, and the outcome.
//! Every session is opened from the ledger, which has nothing of a new one: so an orchestrator that takes over from one
//! that was lost goes on where that one was, asks again what is open, and gives the answer that is waited for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{
    Actor, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture,
    fut::{ActorFutureExt, LocalBoxActorFuture, ready},
};
use dagwright_model::{
    canonical,
    code::Code,
    facts::TransformTyping,
    id::RequestId,
    letter::Letter,
    message::{self, Conflict, Envelope, Fact, Facts, Party, Question, Role, Transcript},
    plan::Plan,
    record::{Ended, FactRecorded, PlanSealed, Record, RecordBody},
    setback::Setback,
    task::Problem,
};
use dagwright_negotiation::{
    replay,
    session::{self, Effect, Ending, Event, Session},
};
use dagwright_store::Store;

use crate::{
    docket::{Asked, Docket},
    keeper::Life,
    mail::Mail,
    ports::Clock,
};

/// How often sessions hear that time passed; their own deadlines are seconds.
const TICK: Duration = Duration::from_millis(500);

/// The orchestrating agent.
pub(crate) struct OrchestratorAgent {
    pub(crate) life: Life,
    pub(crate) mail: Mail,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) docket: Arc<Docket>,
    /// Who takes part in new sessions.
    pub(crate) lineup: Arc<[Party]>,
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
}

/// What the orchestrator hears.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum Notice {
    /// A message came.
    Received(Envelope),
    /// A request on the docket is to be opened, or taken up.
    Asked(RequestId),
    /// An agent was built anew.
    Restarted {
        party: Party,
        /// The session that it ended over; `None` where that is not known.
        over: Option<RequestId>,
    },
    /// Another process speaks for an agent, or another life of the same, and knows nothing of these sessions.
    Moved {
        party: Party,
        sessions: Vec<RequestId>,
        /// Whether the last one may have ended over one of them.
        blamed: bool,
    },
    /// No process ran an agent for longer than these sessions wait.
    Away { party: Party, sessions: Vec<RequestId> },
    /// Time passed.
    Tick,
}

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
    end: Option<Negotiated>,
}

/// What an agent does before it hears the next notice.
type Performance = LocalBoxActorFuture<OrchestratorAgent, ()>;

// === impl OrchestratorAgent ===

impl OrchestratorAgent {
    /// Opens a request's session where the ledger says it was left.
    fn open(&self, request: RequestId) -> Performance {
        let Some(asked) = self.docket.asked(&request) else { return Box::pin(ready(())) };
        let read = read(self.store.clone(), request.clone(), asked.matter.first_sequence);
        let read = self.life.work().slowly_on_behalf_of(request.clone(), read);
        Box::pin(read.into_actor(self).then(move |read, agent, _| match read {
            Ok(records) => {
                let work = agent.life.work();
                let steps = work.on_behalf_of(&request, || agent.take_up(&request, asked, &records));
                agent.perform(steps.into_iter().collect())
            }
            Err(error) => {
                agent.docket.answer(&request, Err(error));
                Box::pin(ready(()))
            }
        }))
    }

    /// Takes a session up from its records; there are none of a new one.
    fn take_up(&mut self, request: &RequestId, asked: Asked, records: &[Record]) -> Option<Step> {
        let next_sequence = records.last().map_or(asked.matter.first_sequence, |record| record.sequence + 1);
        // When they were said is of another process, or of a clock that was set since: what counts against the bounds is the
        // time from here on.
        let at_ms = self.clock.elapsed_ms();
        let recorded: Vec<_> = records.iter().filter_map(said).map(|envelope| (at_ms, envelope)).collect();
        if asked.is_hopeless() {
            let problem = session::lost(&Party::sole(Role::Orchestrator));
            return Some(abandon(request, &self.lineup, records, next_sequence, self.clock.now_ms(), problem));
        }
        let before = (asked.matter.setbacks, asked.matter.said);
        match replay::resume(request.clone(), asked.spec, asked.bounds, before, &self.lineup, &recorded, at_ms) {
            Ok((session, effects)) => {
                let open = Open::new(session, recorded.len(), next_sequence);
                self.sessions.insert(request.clone(), open);
                self.follow(request, effects)
            }
            Err(divergence) => {
                tracing::error!(%request, %divergence, "could not take a session up");
                let problem = Problem {
                    code: Code::Internal,
                    subject: "negotiation".into(),
                    message: "the negotiation was begun by another version and cannot be taken up".into(),
                    hint: "submit the request again".into(),
                };
                Some(abandon(request, &self.lineup, records, next_sequence, self.clock.now_ms(), problem))
            }
        }
    }

    /// Applies an event to a session and says what follows.
    fn step(&mut self, request: &RequestId, event: Event) -> Option<Step> {
        self.life.work().on_behalf_of(request, || {
            let effects = self.sessions.get_mut(request)?.session.apply(event);
            self.follow(request, effects)
        })
    }

    /// Says what follows from a session's effects.
    fn follow(&mut self, request: &RequestId, effects: Vec<Effect>) -> Option<Step> {
        let at_ms = self.clock.now_ms();
        let open = self.sessions.get_mut(request)?;
        let (mut messages, mut ending) = (Vec::new(), None);
        for effect in effects {
            match effect {
                Effect::Send(envelope) => messages.push(envelope),
                Effect::End(end) => ending = Some(*end),
            }
        }
        for (party, offer, why) in open.session.take_declined() {
            tracing::warn!(%request, %party, offer, why, "an offer does not count");
        }
        let mut bodies = open.news();
        if !bodies.is_empty() {
            // An end has messages of its own: without news, it stands in the ledger already.
            let setback = open.session.facts().setbacks.last();
            bodies.extend(ending.as_ref().map(|ending| outcome(ending, setback)));
        }
        let records = numbered(request, bodies, open.next_sequence, at_ms);
        open.next_sequence += records.len() as u64;
        let end = ending.map(|ending| Negotiated {
            ending,
            facts: open.session.facts().clone(),
            transcript: open.session.transcript(),
            next_sequence: open.next_sequence,
        });
        if end.is_some() {
            self.sessions.remove(request);
        }
        Some(Step { request: request.clone(), records, messages, end })
    }

    /// Persists, then performs, in the order of the steps.
    fn perform(&self, steps: Vec<Step>) -> Performance {
        let (store, mail, docket, work) =
            (self.store.clone(), self.mail.clone(), self.docket.clone(), self.life.work());
        let performance = async move {
            let mut failed = Vec::new();
            for Step { request, records, messages, end } in steps {
                let (store, post) = (store.clone(), mail.clone());
                let step = async move {
                    persist(store, records).await?;
                    post.ask(messages).await;
                    Ok(end)
                };
                let done = work.slowly_on_behalf_of(request.clone(), step).await;
                if !matches!(done, Ok(None)) {
                    mail.forget(&request);
                }
                match done {
                    Ok(None) => {}
                    Ok(Some(negotiated)) => docket.answer(&request, Ok(negotiated)),
                    Err(error) => {
                        // Memory is ahead of the ledger: the session ends, and whoever asked hears why at once.
                        docket.answer(&request, Err(error));
                        failed.push(request);
                    }
                }
            }
            failed
        };
        Box::pin(performance.into_actor(self).map(|failed, agent, _| {
            for request in failed {
                agent.sessions.remove(&request);
            }
        }))
    }

    fn step_all(&mut self, event: impl Fn(&RequestId) -> Event) -> Vec<Step> {
        let requests: Vec<_> = self.sessions.keys().cloned().collect();
        self.step_each(&requests, event)
    }

    fn step_each(&mut self, requests: &[RequestId], event: impl Fn(&RequestId) -> Event) -> Vec<Step> {
        requests.iter().filter_map(|request| self.step(request, event(request))).collect()
    }
}

impl Actor for OrchestratorAgent {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TICK, |_, context| context.notify(Notice::Tick));
    }
}

impl Handler<Notice> for OrchestratorAgent {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, notice: Notice, _: &mut Context<Self>) -> Self::Result {
        let at_ms = self.clock.elapsed_ms();
        let steps = match notice {
            Notice::Asked(request) => return AtomicResponse::new(self.open(request)),
            Notice::Received(envelope) => {
                let request = envelope.session.clone();
                self.step(&request, Event::Received { envelope, at_ms }).into_iter().collect()
            }
            Notice::Restarted { party, over } => {
                let blamed = |request: &RequestId| over.as_ref().is_none_or(|over| over == request);
                let event = |request: &_| Event::Restarted { party: party.clone(), blamed: blamed(request), at_ms };
                self.step_all(event)
            }
            Notice::Moved { party, sessions, blamed } => {
                self.step_each(&sessions, |_| Event::Restarted { party: party.clone(), blamed, at_ms })
            }
            Notice::Away { party, sessions } => {
                self.step_each(&sessions, |_| Event::Absent { party: party.clone(), at_ms })
            }
            Notice::Tick => self.step_all(|_| Event::TimePassed { at_ms }),
        };
        AtomicResponse::new(self.perform(steps))
    }
}

// === impl Notice ===

impl From<Letter> for Notice {
    fn from(letter: Letter) -> Self {
        Self::Received(letter.envelope)
    }
}

// === impl Open ===

impl Open {
    /// Holds a session whose first `recorded` messages stand in the ledger.
    fn new(session: Session, recorded: usize, next_sequence: u64) -> Self {
        let mut open = Self { session, recorded: 0, asked: BTreeMap::new(), next_sequence };
        for envelope in open.session.transcript().0.into_iter().take(recorded) {
            open.note(envelope);
        }
        open
    }

    /// Returns what the transcript has beyond the ledger, facts by the hash of their question first.
    fn news(&mut self) -> Vec<RecordBody> {
        let transcript = self.session.transcript();
        transcript.0.into_iter().skip(self.recorded).flat_map(|envelope| self.note(envelope)).collect()
    }

    fn note(&mut self, envelope: Envelope) -> Vec<RecordBody> {
        self.recorded += 1;
        let mut bodies = Vec::new();
        match &envelope.body {
            message::Message::Observe { questions } => {
                self.asked.insert(envelope.to.clone(), questions.clone());
            }
            message::Message::Observed { observations } => {
                let questions = self.asked.remove(&envelope.from).unwrap_or_default();
                let facts = self.session.facts();
                let told = questions.iter().zip(observations).filter(|(_, told)| counts(facts, &told.fact));
                bodies.extend(told.map(|(question, observation)| {
                    let key = canonical::hash(question);
                    RecordBody::FactRecorded(Box::new(FactRecorded { key, observation: observation.clone() }))
                }));
            }
            _ => {}
        }
        bodies.push(RecordBody::MessageSent(Box::new(envelope)));
        bodies
    }
}

/// Tells whether a fact is what the session goes by, and not what another party of the same role saw otherwise.
fn counts(facts: &Facts, fact: &Fact) -> bool {
    match fact {
        Fact::Source(profile) => facts.sources.get(&profile.source).is_none_or(|known| known == profile),
        Fact::Sink(inspection) => facts.sinks.get(&inspection.sink).is_none_or(|known| known == inspection),
        Fact::Typing(typing) => facts.typing == *typing || facts.typing == TransformTyping::default(),
        Fact::Unavailable(_) => true,
    }
}

/// Ends a session without its machine: as far as the ledger does not say already that it ended.
fn abandon(
    request: &RequestId,
    lineup: &[Party],
    records: &[Record],
    next_sequence: u64,
    at_ms: u64,
    problem: Problem,
) -> Step {
    let problems = vec![problem];
    let mut transcript = Transcript(records.iter().filter_map(said).collect());
    let messages = replay::abandon(request, lineup, &transcript, &problems);
    let is_ended = records.iter().any(|record| {
        matches!(record.body, RecordBody::PlanSealed(_) | RecordBody::Deadlocked(_) | RecordBody::Failed(_))
    });
    let mut bodies = Vec::new();
    if !is_ended {
        transcript.0.extend(messages.iter().cloned());
        bodies.extend(messages.iter().map(|envelope| RecordBody::MessageSent(Box::new(envelope.clone()))));
        bodies.push(RecordBody::Failed(Ended { problems: problems.clone() }));
    }
    let records = numbered(request, bodies, next_sequence, at_ms);
    let next_sequence = next_sequence + records.len() as u64;
    let ending = Ending::Failed(problems);
    let end = Negotiated { ending, facts: Facts::default(), transcript, next_sequence };
    Step { request: request.clone(), records, messages, end: Some(end) }
}

/// Returns the message that a record holds.
fn said(record: &Record) -> Option<Envelope> {
    match &record.body {
        RecordBody::MessageSent(envelope) => Some((**envelope).clone()),
        _ => None,
    }
}

fn numbered(request: &RequestId, bodies: Vec<RecordBody>, first: u64, at: u64) -> Vec<Record> {
    let record = |(body, sequence)| Record { request: request.clone(), sequence, at, body };
    bodies.into_iter().zip(first..).map(record).collect()
}

/// Returns the record of an ending. Where there is no other plan after a setback, what happened to the last one comes first.
fn outcome(ending: &Ending, setback: Option<&Setback>) -> RecordBody {
    let after = |problems: Vec<Problem>| {
        let first = setback.map(|setback| setback.problem.clone());
        Ended { problems: first.into_iter().chain(problems).collect() }
    };
    match ending {
        Ending::Sealed(plan) => {
            let plan: Plan = (**plan).clone();
            RecordBody::PlanSealed(Box::new(PlanSealed { hash: plan.hash(), plan }))
        }
        Ending::Deadlocked(conflicts) => RecordBody::Deadlocked(after(problems(Code::Deadlocked, conflicts))),
        Ending::Expired { bound, conflicts } => {
            let reached = Problem {
                code: Code::NegotiationExpired,
                subject: "negotiation".into(),
                message: format!("the bound on {} was reached", bound.as_str()),
                hint: "see [negotiation] in the configuration".into(),
            };
            let mut all = vec![reached];
            all.extend(problems(Code::NegotiationExpired, conflicts));
            RecordBody::Deadlocked(after(all))
        }
        Ending::Failed(problems) => RecordBody::Failed(after(problems.clone())),
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
    blocking(move || store.append(&records)).await
}

async fn read(store: Arc<dyn Store>, request: RequestId, from: u64) -> Result<Vec<Record>, dagwright_store::Error> {
    blocking(move || store.read(&request, from)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
