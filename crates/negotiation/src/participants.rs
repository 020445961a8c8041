//! What the three participants do in a session: observe, offer, counter, stand by it.
//!
//! One machine serves all roles; what a role offers is a pure function in its own file. A question that comes twice
//! gets the same answer twice, so a lost message costs a repeat and nothing else. A question that it cannot answer for
//! want of an earlier one is passed over: an agent that was started anew is told everything again, in order.

pub mod extraction;
pub mod loading;
pub mod transformation;

use dagwright_model::{
    facts::ProbeRequest,
    id::RequestId,
    message::{
        Alternative, CallForProposals, Conflict, Envelope, Fact, Facts, Message, Observation, Party, Question, Role,
        SOLE_INSTANCE,
    },
    spec::{Locator, Spec},
    task::Problem,
};

use crate::{case::Case, cost::Rates};

/// What happens to a participant.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message came from the orchestrator.
    Received(Envelope),
    /// The questions of the last [`Effect::Observe`] were answered, in their order.
    Observed(Vec<Observation>),
    /// The last [`Effect::Check`] was made; nothing in the list means that all is as it was.
    Checked(Vec<Problem>),
}

/// What a participant wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the orchestrator.
    Send(Envelope),
    /// Find this out; a known answer may be used.
    Observe(Vec<Question>),
    /// Find this out anew, and compare with what was known; see [`changed`].
    Check {
        /// What to find out.
        questions: Vec<Question>,
        /// What was known.
        known: Vec<Fact>,
    },
}

/// A participant in one session.
#[derive(Clone, Debug)]
pub struct Participant {
    party: Party,
    rates: Rates,
    known: Option<(Spec, Facts)>,
    /// The last round it answered; 0 before the call for proposals.
    round: u32,
    offered: Vec<Alternative>,
    /// What is being worked on: the question's sequence, sender and session.
    open: Option<(u32, Party, RequestId)>,
    /// The last question answered, and the answer.
    last: Option<(u32, Envelope)>,
    sent: u32,
}

// === impl Participant ===

impl Participant {
    /// Makes a participant that knows nothing of the session yet.
    #[must_use]
    pub fn new(party: Party, rates: Rates) -> Self {
        Self { party, rates, known: None, round: 0, offered: Vec::new(), open: None, last: None, sent: 0 }
    }

    /// Reacts to what happened.
    pub fn apply(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Received(envelope) => self.received(envelope),
            Event::Observed(observations) => self.answer(Message::Observed { observations }),
            Event::Checked(problems) if problems.is_empty() => self.answer(Message::Committed),
            Event::Checked(problems) => self.answer(Message::CommitFailed { problems }),
        }
    }

    fn received(&mut self, envelope: Envelope) -> Vec<Effect> {
        if let Some((sequence, answer)) = &self.last
            && envelope.sequence <= *sequence
        {
            // Asked again: the answer was lost. An older question was answered by all that came since.
            return if envelope.sequence == *sequence { vec![Effect::Send(answer.clone())] } else { Vec::new() };
        }
        if self.open.is_some() {
            // Asked again while at work on it.
            return Vec::new();
        }
        self.open = Some((envelope.sequence, envelope.from, envelope.session));
        match envelope.body {
            Message::Observe { questions } => vec![Effect::Observe(questions)],
            Message::CallForProposals(call) => self.propose(*call),
            Message::Conflicts { round, conflicts } => self.counter(round, &conflicts),
            Message::Award { alternatives } => self.commit(&alternatives),
            Message::Sealed { .. } | Message::Deadlocked { .. } | Message::Expired { .. } | Message::Failed { .. } => {
                self.pass_over()
            }
            // Not a participant's to receive.
            Message::Observed { .. }
            | Message::Proposals { .. }
            | Message::Counter { .. }
            | Message::Refuse { .. }
            | Message::Committed
            | Message::CommitFailed { .. } => self.pass_over(),
        }
    }

    fn pass_over(&mut self) -> Vec<Effect> {
        self.open = None;
        Vec::new()
    }

    fn propose(&mut self, call: CallForProposals) -> Vec<Effect> {
        let CallForProposals { round, spec, facts } = call;
        let mut alternatives = propose(self.party.role, Case { spec: &spec, facts: &facts }, &self.rates);
        self.sign(&mut alternatives);
        self.known = Some((spec, facts));
        self.round = round;
        self.offered.clone_from(&alternatives);
        self.answer(Message::Proposals { round, alternatives })
    }

    fn counter(&mut self, round: u32, conflicts: &[Conflict]) -> Vec<Effect> {
        let (Some((spec, facts)), true) = (&self.known, round == self.round + 1) else { return self.pass_over() };
        self.round = round;
        let case = Case { spec, facts };
        let mut alternatives = counter(self.party.role, case, &self.rates, conflicts, &self.offered);
        self.sign(&mut alternatives);
        alternatives.retain(|alternative| !self.offered.iter().any(|known| known.id == alternative.id));
        if alternatives.is_empty() {
            let reason = "nothing further can be offered within what the request allows".into();
            return self.answer(Message::Refuse { round, reason });
        }
        self.offered.extend(alternatives.iter().cloned());
        self.answer(Message::Counter { round, alternatives })
    }

    /// Puts the agent's name into the ids of what it offers, where it is not the role's first one: ids are unique.
    fn sign(&self, alternatives: &mut [Alternative]) {
        let instance = self.party.instance.as_str();
        if instance == SOLE_INSTANCE {
            return;
        }
        for alternative in alternatives {
            if let Some((subject, variant)) = alternative.id.rsplit_once('/') {
                alternative.id = format!("{subject}/{instance}/{variant}");
            }
        }
    }

    fn commit(&mut self, awarded: &[String]) -> Vec<Effect> {
        if awarded.iter().any(|id| !self.offered.iter().any(|offered| offered.id == *id)) {
            return self.pass_over();
        }
        let Some((spec, facts)) = &self.known else { return self.answer(Message::Committed) };
        let (questions, known) = match self.party.role {
            Role::Loading => to_check(spec, facts),
            // A source that changes is noticed by the task that reads it, whenever that is.
            Role::Extraction | Role::Transformation | Role::Orchestrator => (Vec::new(), Vec::new()),
        };
        if questions.is_empty() { self.answer(Message::Committed) } else { vec![Effect::Check { questions, known }] }
    }

    fn answer(&mut self, body: Message) -> Vec<Effect> {
        let Some((asked, to, session)) = self.open.take() else { return Vec::new() };
        self.sent += 1;
        let envelope = Envelope { session, sequence: self.sent, from: self.party.clone(), to, body };
        self.last = Some((asked, envelope.clone()));
        vec![Effect::Send(envelope)]
    }
}

/// Returns what a role offers when it is called.
#[must_use]
pub fn propose(role: Role, case: Case<'_>, rates: &Rates) -> Vec<Alternative> {
    match role {
        Role::Extraction => extraction::propose(case, rates),
        Role::Transformation => transformation::propose(case, rates),
        Role::Loading => loading::propose(case, rates),
        Role::Orchestrator => Vec::new(),
    }
}

/// Returns what a role offers against conflicts, beyond what it has offered.
#[must_use]
pub fn counter(
    role: Role,
    case: Case<'_>,
    rates: &Rates,
    conflicts: &[Conflict],
    offered: &[Alternative],
) -> Vec<Alternative> {
    let mut found = match role {
        Role::Extraction => extraction::counter(case, rates, conflicts),
        Role::Loading => loading::counter(case, rates, conflicts),
        // Every placement there is was proposed.
        Role::Transformation | Role::Orchestrator => Vec::new(),
    };
    found.retain(|alternative| !offered.iter().any(|known| known.id == alternative.id));
    found
}

/// Returns what must be looked at again before a commitment: tables, which others may alter at any time.
fn to_check(spec: &Spec, facts: &Facts) -> (Vec<Question>, Vec<Fact>) {
    let tables = spec.sinks.iter().filter(|(_, sink)| matches!(sink.locator, Locator::Table { .. }));
    let pairs = tables.filter_map(|(name, sink)| {
        let question = Question::Probe(ProbeRequest::Sink {
            name: name.clone(),
            locator: sink.locator.clone(),
            format: sink.format,
            mode: sink.mode,
        });
        Some((question, Fact::Sink(facts.sinks.get(name)?.clone())))
    });
    pairs.unzip()
}

/// Compares what was found out anew with what was known, and says what no longer holds.
#[must_use]
pub fn changed(known: &[Fact], now: &[Observation]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (known, now) in known.iter().zip(now) {
        match (known, &now.fact) {
            (_, Fact::Unavailable(found)) => problems.extend(found.iter().cloned()),
            (Fact::Sink(known), Fact::Sink(now)) => {
                let same = known.identity == now.identity
                    && known.exists == now.exists
                    && known.columns == now.columns
                    && known.unique_keys == now.unique_keys
                    && known.privileges == now.privileges;
                if !same {
                    problems.push(Problem {
                        code: dagwright_model::code::Code::SinkDrifted,
                        subject: known.sink.to_string(),
                        message: "the sink was altered while the agents negotiated".into(),
                        hint: "submit the request again".into(),
                    });
                }
            }
            // Rows and contents change all the time; only sinks' schemas bind.
            (Fact::Source(_) | Fact::Typing(_) | Fact::Unavailable(_) | Fact::Sink(_), _) => {}
        }
    }
    problems
}
