//! The orchestrator's machine: asks, collects, searches, awards, seals.
//!
//! Each phase is a question to some parties; it ends when all have answered. What is not an awaited answer (a repeat,
//! a message of an earlier phase, a stranger's) changes nothing. Answers enter the transcript sorted by sender when
//! the phase ends, so the transcript does not depend on who was faster.
//!
//! N1: each phase waits only for awaited answers and for time, rounds are counted, and time that has passed ends it.
//! N2: the only way out of `Committing` with a plan leads to `Ended`, which nothing leaves.

mod event;

use std::collections::BTreeMap;

use dagwright_model::{
    code::Code,
    id::RequestId,
    message::{
        Alternative, Bound, Bounds, CallForProposals, Conflict, Envelope, Fact, Facts, Message, Observation, Party,
        Role, Transcript,
    },
    plan::Plan,
    spec::Spec,
    task::Problem,
};

pub use event::{Effect, Ending, Event};

use crate::{
    case::{self, Case},
    cost::Rates,
    participants::transformation,
    seal, search,
    search::Found,
};

/// A question that was not answered for this long is asked again: messages may get lost between hosts.
const ASK_AGAIN_MS: u64 = 5_000;

/// How often a session may end the agent that works on it before that agent counts as lost: often enough to get over
/// what passes, and few enough that a request that no agent survives is soon done with.
pub const RESTARTS_MAX: u32 = 3;

/// A negotiation.
#[derive(Clone, Debug)]
pub struct Session {
    id: RequestId,
    spec: Spec,
    bounds: Bounds,
    rates: Rates,
    me: Party,
    parties: Vec<Party>,
    facts: Facts,
    alternatives: Vec<Alternative>,
    state: State,
    /// Whose answers are missing, with what they were asked.
    awaited: BTreeMap<Party, Envelope>,
    /// The answers of this phase.
    answers: BTreeMap<Party, Envelope>,
    /// What each party was told from the call for proposals on, for those who are started anew.
    told: BTreeMap<Party, Vec<Envelope>>,
    restarts: BTreeMap<Party, u32>,
    transcript: Vec<Envelope>,
    sent: u32,
    messages: u32,
    opened_ms: u64,
    called_ms: Option<u64>,
    asked_ms: u64,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Not opened.
    New,
    /// Sources are profiled, sinks inspected.
    Observing,
    /// Steps are typed over the profiles.
    Typing,
    /// Participants propose.
    Proposing,
    /// Participants counter; `conflicts` is what they were told.
    Countering { round: u32, conflicts: Vec<Conflict> },
    /// Winners check again and commit.
    Committing { plan: Box<Plan> },
    /// Over.
    Ended,
}

// === impl Session ===

impl Session {
    /// Makes a session between one agent of each role on this host.
    #[must_use]
    pub fn new(id: RequestId, spec: Spec, bounds: Bounds, rates: Rates) -> Self {
        Self {
            id,
            spec,
            bounds,
            rates,
            me: Party::sole(Role::Orchestrator),
            parties: Role::PARTICIPANTS.into_iter().map(Party::sole).collect(),
            facts: Facts::default(),
            alternatives: Vec::new(),
            state: State::New,
            awaited: BTreeMap::new(),
            answers: BTreeMap::new(),
            told: BTreeMap::new(),
            restarts: BTreeMap::new(),
            transcript: Vec::new(),
            sent: 0,
            messages: 0,
            opened_ms: 0,
            called_ms: None,
            asked_ms: 0,
        }
    }

    /// Returns every message so far.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        Transcript(self.transcript.clone())
    }

    /// Returns everything that was observed so far.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Tells whether the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Ended
    }

    /// Reacts to what happened.
    pub fn apply(&mut self, event: Event) -> Vec<Effect> {
        let effects = match (&self.state, event) {
            (State::New, Event::Opened { at_ms }) => self.open(at_ms),
            // Nothing was asked yet, and nothing follows an end.
            (
                State::New,
                Event::Received { .. } | Event::TimePassed { .. } | Event::Restarted { .. } | Event::Resumed { .. },
            )
            | (State::Ended, _) => Vec::new(),
            (
                State::Observing
                | State::Typing
                | State::Proposing
                | State::Countering { .. }
                | State::Committing { .. },
                event,
            ) => match event {
                // A session opens once.
                Event::Opened { .. } => Vec::new(),
                Event::Received { envelope, at_ms } => self.received(envelope, at_ms),
                Event::TimePassed { at_ms } => self.time_passed(at_ms),
                Event::Restarted { party, blamed, at_ms } => self.restarted(&party, blamed, at_ms),
                Event::Resumed { at_ms } => self.resumed(at_ms),
            },
        };
        debug_assert!(self.messages <= self.bounds.messages_max.max(self.parties.len() as u32), "N5: messages");
        effects
    }

    fn open(&mut self, at_ms: u64) -> Vec<Effect> {
        (self.opened_ms, self.asked_ms) = (at_ms, at_ms);
        self.state = State::Observing;
        self.ask(vec![
            (Role::Extraction, Message::Observe { questions: case::source_questions(&self.spec) }),
            (Role::Loading, Message::Observe { questions: case::sink_questions(&self.spec) }),
        ])
    }

    fn received(&mut self, envelope: Envelope, at_ms: u64) -> Vec<Effect> {
        if let Some(bound) = self.out_of_time(at_ms) {
            return self.expire(bound);
        }
        if envelope.session != self.id
            || !self.awaited.contains_key(&envelope.from)
            || !self.answers_the_question(&envelope.body)
        {
            return Vec::new();
        }
        self.awaited.remove(&envelope.from);
        self.messages += 1;
        self.answers.insert(envelope.from.clone(), envelope);
        if self.awaited.is_empty() { self.advance(at_ms) } else { Vec::new() }
    }

    fn answers_the_question(&self, body: &Message) -> bool {
        match (&self.state, body) {
            (State::Observing | State::Typing, Message::Observed { .. }) => true,
            (State::Proposing, Message::Proposals { round, .. } | Message::Refuse { round, .. }) => *round == 1,
            (
                State::Countering { round: asked, .. },
                Message::Counter { round, .. } | Message::Refuse { round, .. },
            ) => round == asked,
            (State::Committing { .. }, Message::Committed | Message::CommitFailed { .. }) => true,
            (
                State::New
                | State::Observing
                | State::Typing
                | State::Proposing
                | State::Countering { .. }
                | State::Committing { .. }
                | State::Ended,
                _,
            ) => false,
        }
    }

    fn time_passed(&mut self, at_ms: u64) -> Vec<Effect> {
        if let Some(bound) = self.out_of_time(at_ms) {
            return self.expire(bound);
        }
        let observing = matches!(self.state, State::Observing | State::Typing);
        if observing || at_ms.saturating_sub(self.asked_ms) < ASK_AGAIN_MS {
            return Vec::new();
        }
        self.asked_ms = at_ms;
        let again = self.awaited.keys().flat_map(|party| self.all_told(party)).collect();
        self.resend(again)
    }

    fn restarted(&mut self, party: &Party, blamed: bool, at_ms: u64) -> Vec<Effect> {
        if let Some(bound) = self.out_of_time(at_ms) {
            return self.expire(bound);
        }
        if blamed {
            let restarts = self.restarts.entry(party.clone()).or_default();
            *restarts += 1;
            if *restarts > RESTARTS_MAX {
                return self.end(Ending::Failed(vec![lost(party)]));
            }
        }
        let again = self.all_told(party);
        self.resend(again)
    }

    /// Tells everyone everything again: which messages were lost with the last orchestrator, nobody knows.
    fn resumed(&mut self, at_ms: u64) -> Vec<Effect> {
        if let Some(bound) = self.out_of_time(at_ms) {
            return self.expire(bound);
        }
        self.asked_ms = at_ms;
        let again = self.parties.iter().flat_map(|party| self.all_told(party)).collect();
        self.resend(again)
    }

    /// Returns all that a party needs to know to go on from here. Whoever knows it already passes it over.
    fn all_told(&self, party: &Party) -> Vec<Envelope> {
        match self.told.get(party) {
            Some(told) => told.clone(),
            None => self.awaited.get(party).cloned().into_iter().collect(),
        }
    }

    fn resend(&mut self, envelopes: Vec<Envelope>) -> Vec<Effect> {
        if !self.has_room_for(envelopes.len()) {
            return self.expire(Bound::Messages);
        }
        self.messages += envelopes.len() as u32;
        envelopes.into_iter().map(Effect::Send).collect()
    }

    /// Ends a phase all of whose answers are there.
    fn advance(&mut self, at_ms: u64) -> Vec<Effect> {
        let answers = std::mem::take(&mut self.answers);
        self.transcript.extend(answers.values().cloned());
        self.asked_ms = at_ms;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Observing => self.observed(answers),
            State::Typing => self.typed(answers, at_ms),
            State::Proposing => self.offered(answers, 1, None),
            State::Countering { round, conflicts } => self.offered(answers, round, Some(conflicts)),
            State::Committing { plan } => self.committed(answers, plan),
            State::New | State::Ended => Vec::new(),
        }
    }

    fn observed(&mut self, answers: BTreeMap<Party, Envelope>) -> Vec<Effect> {
        let mut problems = self.learn(answers);
        for name in self.spec.sources.keys().filter(|name| !self.facts.sources.contains_key(*name)) {
            if !problems.iter().any(|problem| problem.subject == name.as_str()) {
                problems.push(unanswered(name.as_str()));
            }
        }
        for name in self.spec.sinks.keys().filter(|name| !self.facts.sinks.contains_key(*name)) {
            if !problems.iter().any(|problem| problem.subject == name.as_str()) {
                problems.push(unanswered(name.as_str()));
            }
        }
        problems.extend(Case { spec: &self.spec, facts: &self.facts }.missing());
        if !problems.is_empty() {
            return self.end(Ending::Failed(problems));
        }
        self.state = State::Typing;
        let questions = vec![case::typing_question(&self.spec, &self.facts)];
        self.ask(vec![(Role::Transformation, Message::Observe { questions })])
    }

    fn typed(&mut self, answers: BTreeMap<Party, Envelope>, at_ms: u64) -> Vec<Effect> {
        let mut problems = self.learn(answers);
        let typing = &self.facts.typing;
        let untyped = self.spec.transform.iter().find(|step| !typing.steps.iter().any(|typed| typed.name == step.name));
        if let (Some(step), true) = (untyped, problems.is_empty()) {
            problems.push(unanswered(step.name.as_str()));
        }
        if !problems.is_empty() {
            return self.end(Ending::Failed(problems));
        }
        self.called_ms = Some(at_ms);
        self.state = State::Proposing;
        let call = CallForProposals { round: 1, spec: self.spec.clone(), facts: self.facts.clone() };
        let calls = Role::PARTICIPANTS.map(|role| (role, Message::CallForProposals(Box::new(call.clone()))));
        self.ask(calls.into())
    }

    /// Takes what was observed into the facts; returns what could not be.
    fn learn(&mut self, answers: BTreeMap<Party, Envelope>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for envelope in answers.into_values() {
            let Message::Observed { observations } = envelope.body else { continue };
            for Observation { fact, .. } in observations {
                match fact {
                    Fact::Source(profile) => {
                        self.facts.sources.insert(profile.source.clone(), profile);
                    }
                    Fact::Sink(inspection) => {
                        self.facts.sinks.insert(inspection.sink.clone(), inspection);
                    }
                    Fact::Typing(typing) => self.facts.typing = typing,
                    Fact::Unavailable(found) => problems.extend(found),
                }
            }
        }
        problems
    }

    /// Takes the offers of a round, and looks for a combination.
    fn offered(&mut self, answers: BTreeMap<Party, Envelope>, round: u32, told: Option<Vec<Conflict>>) -> Vec<Effect> {
        let mut is_new = false;
        for envelope in answers.into_values() {
            let (Message::Proposals { alternatives, .. } | Message::Counter { alternatives, .. }) = envelope.body
            else {
                continue;
            };
            for alternative in alternatives {
                is_new |= self.take(&envelope.from, alternative);
            }
        }
        if let Some(bound) = self.too_many_alternatives() {
            return self.end(Ending::Expired { bound, conflicts: told.unwrap_or_default() });
        }
        if let (false, Some(conflicts)) = (is_new, told) {
            return self.end(Ending::Deadlocked(conflicts));
        }
        let case = Case { spec: &self.spec, facts: &self.facts };
        match search::search(case, &self.rates, &self.alternatives) {
            Found::Best(combination) => {
                let plan = Box::new(seal::seal(case, &combination));
                debug_assert!(self.keeps_policy(&combination.chosen), "N7: no loss without a policy that allows it");
                let award = |role: Role| {
                    let won = combination.chosen.iter().filter(|offer| offer.role == role);
                    (role, Message::Award { alternatives: won.map(|offer| offer.id.clone()).collect() })
                };
                self.state = State::Committing { plan };
                self.ask(Role::PARTICIPANTS.map(award).into())
            }
            Found::Nothing(conflicts) if round >= self.bounds.rounds_max => {
                self.end(Ending::Expired { bound: Bound::Rounds, conflicts })
            }
            Found::Nothing(conflicts) => {
                let round = round + 1;
                debug_assert!(round <= self.bounds.rounds_max, "N5: rounds");
                let message = Message::Conflicts { round, conflicts: conflicts.clone() };
                self.state = State::Countering { round, conflicts };
                self.ask(Role::PARTICIPANTS.map(|role| (role, message.clone())).into())
            }
        }
    }

    /// Takes an offer, if it is its sender's to make; tells whether it is new.
    fn take(&mut self, from: &Party, alternative: Alternative) -> bool {
        let known_subject = match alternative.role {
            Role::Extraction => self.spec.sources.contains_key(alternative.subject.as_str()),
            Role::Transformation => alternative.subject == transformation::SUBJECT,
            Role::Loading => self.spec.sinks.contains_key(alternative.subject.as_str()),
            Role::Orchestrator => false,
        };
        let is_repeat = self.alternatives.iter().any(|known| known.id == alternative.id);
        if !known_subject || alternative.role != from.role || is_repeat {
            return false;
        }
        self.alternatives.push(alternative);
        true
    }

    fn too_many_alternatives(&self) -> Option<Bound> {
        let mut counts: BTreeMap<(Role, &str), u32> = BTreeMap::new();
        for offer in &self.alternatives {
            *counts.entry((offer.role, &offer.subject)).or_default() += 1;
        }
        counts.into_values().any(|count| count > self.bounds.alternatives_max).then_some(Bound::Alternatives)
    }

    fn keeps_policy(&self, chosen: &[Alternative]) -> bool {
        let policy = self.spec.policy;
        chosen.iter().all(|offer| {
            offer.schema_change <= policy.schema_change
                && offer.lossy.iter().all(|used| search::allowed(used.policy, policy.lossy_cast))
        })
    }

    fn committed(&mut self, answers: BTreeMap<Party, Envelope>, plan: Box<Plan>) -> Vec<Effect> {
        let mut problems = Vec::new();
        for envelope in answers.into_values() {
            if let Message::CommitFailed { problems: found } = envelope.body {
                problems.extend(found);
            }
        }
        if problems.is_empty() { self.end(Ending::Sealed(plan)) } else { self.end(Ending::Failed(problems)) }
    }

    /// Sends a question to each role, and waits for the answers.
    fn ask(&mut self, questions: Vec<(Role, Message)>) -> Vec<Effect> {
        if !self.has_room_for(questions.len() * 2) {
            return self.expire(Bound::Messages);
        }
        let mut effects = Vec::new();
        for (role, body) in questions {
            let parties: Vec<_> = self.parties.iter().filter(|party| party.role == role).cloned().collect();
            for to in parties {
                let envelope = self.envelope(to.clone(), body.clone());
                if self.called_ms.is_some() {
                    self.told.entry(to.clone()).or_default().push(envelope.clone());
                }
                self.awaited.insert(to, envelope.clone());
                effects.push(Effect::Send(envelope));
            }
        }
        effects
    }

    fn envelope(&mut self, to: Party, body: Message) -> Envelope {
        self.sent += 1;
        self.messages += 1;
        let envelope = Envelope { session: self.id.clone(), sequence: self.sent, from: self.me.clone(), to, body };
        self.transcript.push(envelope.clone());
        envelope
    }

    fn expire(&mut self, bound: Bound) -> Vec<Effect> {
        let conflicts = match &self.state {
            State::Countering { conflicts, .. } => conflicts.clone(),
            State::New
            | State::Observing
            | State::Typing
            | State::Proposing
            | State::Committing { .. }
            | State::Ended => Vec::new(),
        };
        self.end(Ending::Expired { bound, conflicts })
    }

    /// Ends the session from wherever it stands.
    pub(crate) fn end(&mut self, ending: Ending) -> Vec<Effect> {
        let body = match &ending {
            Ending::Sealed(plan) => Message::Sealed { plan: plan.hash() },
            Ending::Deadlocked(conflicts) => Message::Deadlocked { conflicts: conflicts.clone() },
            Ending::Expired { bound, conflicts } => Message::Expired { bound: *bound, conflicts: conflicts.clone() },
            Ending::Failed(problems) => Message::Failed { problems: problems.clone() },
        };
        // Answers that came before the end are part of what happened.
        self.transcript.extend(std::mem::take(&mut self.answers).into_values());
        self.state = State::Ended;
        self.awaited.clear();
        let mut effects = Vec::new();
        for party in self.parties.clone() {
            effects.push(Effect::Send(self.envelope(party, body.clone())));
        }
        effects.push(Effect::End(Box::new(ending)));
        effects
    }

    /// Tells whether so many more messages, and those that end the session, are within the bound.
    fn has_room_for(&self, messages: usize) -> bool {
        self.messages as usize + messages + self.parties.len() <= self.bounds.messages_max as usize
    }

    fn out_of_time(&self, at_ms: u64) -> Option<Bound> {
        let is_over = match self.called_ms {
            Some(called_ms) => at_ms.saturating_sub(called_ms) > self.bounds.elapsed_ms_max,
            None => at_ms.saturating_sub(self.opened_ms) > self.bounds.observe_ms_max,
        };
        is_over.then_some(Bound::Time)
    }
}

/// Says that an agent does not survive a session.
#[must_use]
pub fn lost(party: &Party) -> Problem {
    Problem {
        code: Code::AgentLost,
        subject: party.to_string(),
        message: format!("the agent ended {RESTARTS_MAX} times over this request, and once more"),
        hint: "the log says why it ended; submit the request again once that is mended".into(),
    }
}

fn unanswered(subject: &str) -> Problem {
    Problem {
        code: Code::AgentLost,
        subject: subject.into(),
        message: "the agent asked about it said nothing of it".into(),
        hint: "check that all agents are of this version".into(),
    }
}
