//! The orchestrator's machine: asks, collects, searches, awards, seals.
//!
//! Each phase is a question to some parties; it ends when all have answered. What is not an awaited answer (a repeat,
//! a message of an earlier phase, a stranger's) changes nothing. Answers enter the transcript sorted by sender when
//! the phase ends, so the transcript does not depend on who was faster.
//!
//! A role may have several parties. Of what they observe, what `main` saw counts, else the first by name; what they offer
//! competes; and every one of them commits to the plan, whether it won anything or not, so each can veto.
//!
//! N1: each phase waits only for awaited answers and for time, rounds are counted, and time that has passed ends it.
//! N2: the only way out of `Committing` with a plan leads to `Ended`, which nothing leaves.

mod event;
mod problem;

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    id::RequestId,
    message::{
        Alternative, Bound, Bounds, CallForProposals, Conflict, Envelope, Fact, Facts, Message, Observation, Party,
        Role, SOLE_INSTANCE, Transcript,
    },
    plan::Plan,
    setback::Setback,
    spec::Spec,
    task::Problem,
};

pub use event::{Effect, Ending, Event};
pub use problem::lost;

use crate::{
    case::{self, Case},
    cost::Rates,
    offer, seal, search,
    search::Found,
};

/// A question that was not answered for this long is asked again: messages may get lost between hosts.
const ASK_AGAIN_MS: u64 = 5_000;

/// The same while observing, which may take minutes by itself: seldom enough for [`Bounds::messages_max`].
const ASK_AGAIN_OBSERVING_MS: u64 = 30_000;

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
    /// Who offered what, by its id.
    authors: BTreeMap<String, Party>,
    /// What was offered and does not count, with why; for the log.
    declined: Vec<(Party, String, &'static str)>,
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
            authors: BTreeMap::new(),
            declined: Vec::new(),
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

    /// Has these parties take part, in the order of roles and names; one that stands there twice takes part once.
    #[must_use]
    pub fn among(mut self, parties: impl IntoIterator<Item = Party>) -> Self {
        debug_assert!(self.state == State::New, "nobody was asked yet");
        let parties: BTreeSet<_> = parties.into_iter().filter(|party| party.role != Role::Orchestrator).collect();
        self.parties = parties.into_iter().collect();
        self
    }

    /// Negotiates anew after runs that failed: they are facts from the beginning. `said` is how many messages the
    /// orchestrator sent in the request's earlier sessions, so that nobody takes a question of this one for one of those.
    #[must_use]
    pub fn after(mut self, setbacks: Vec<Setback>, said: u32) -> Self {
        debug_assert!(self.state == State::New, "nobody was asked yet");
        self.facts.setbacks = setbacks;
        self.sent = said;
        self
    }

    /// Returns who takes part.
    #[must_use]
    pub fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// Takes what was offered and does not count: by whom, its id, and why.
    pub fn take_declined(&mut self) -> Vec<(Party, String, &'static str)> {
        std::mem::take(&mut self.declined)
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
                Event::Received { .. }
                | Event::TimePassed { .. }
                | Event::Restarted { .. }
                | Event::Absent { .. }
                | Event::Resumed { .. },
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
                Event::Absent { party, at_ms } => self.absent(&party, at_ms),
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
            // Round 0: the party observes nothing, and leaves it to the others of its role.
            (State::Observing | State::Typing, Message::Refuse { round, .. }) => *round == 0,
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
        let is_observing = matches!(self.state, State::Observing | State::Typing);
        let patience_ms = if is_observing { ASK_AGAIN_OBSERVING_MS } else { ASK_AGAIN_MS };
        if at_ms.saturating_sub(self.asked_ms) < patience_ms {
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

    /// Ends the session if it waits for a party that nobody can reach.
    fn absent(&mut self, party: &Party, at_ms: u64) -> Vec<Effect> {
        if let Some(bound) = self.out_of_time(at_ms) {
            return self.expire(bound);
        }
        if self.awaited.contains_key(party) {
            return self.end(Ending::Failed(vec![problem::away(party)]));
        }
        Vec::new()
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
        let found = self.learn(answers);
        let sources = self.spec.sources.keys().filter(|name| !self.facts.sources.contains_key(*name));
        let sinks = self.spec.sinks.keys().filter(|name| !self.facts.sinks.contains_key(*name));
        let unknown: Vec<_> = sources.chain(sinks).map(ToString::to_string).collect();
        let mut problems = Vec::new();
        if !unknown.is_empty() {
            // What one party could not see and another did is no problem.
            let is_seen =
                |subject: &str| self.facts.sources.contains_key(subject) || self.facts.sinks.contains_key(subject);
            problems.extend(found.into_iter().filter(|problem| !is_seen(&problem.subject)));
            for name in unknown {
                if !problems.iter().any(|problem| problem.subject == name) {
                    problems.push(problem::unanswered(&name));
                }
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
        let was_typed = answers.values().any(|answer| types_steps(&answer.body));
        let mut problems = self.learn(answers);
        if was_typed {
            problems.clear();
        }
        let typing = &self.facts.typing;
        let untyped = self.spec.transform.iter().find(|step| !typing.steps.iter().any(|typed| typed.name == step.name));
        if let (Some(step), true) = (untyped, problems.is_empty()) {
            problems.push(problem::unanswered(step.name.as_str()));
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

    /// Takes what was observed into the facts, each from the first party that saw it; returns what could not be seen.
    /// What the parties called [`SOLE_INSTANCE`] saw comes first, whatever others are called.
    fn learn(&mut self, answers: BTreeMap<Party, Envelope>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut typed = false;
        let mut answers: Vec<_> = answers.into_values().collect();
        answers.sort_by_key(|answer| answer.from.instance.as_str() != SOLE_INSTANCE);
        for Envelope { from, body, .. } in answers {
            let Message::Observed { observations } = body else { continue };
            for Observation { fact, .. } in observations {
                match (from.role, fact) {
                    (Role::Extraction, Fact::Source(profile)) if self.spec.sources.contains_key(&profile.source) => {
                        self.facts.sources.entry(profile.source.clone()).or_insert(profile);
                    }
                    (Role::Loading, Fact::Sink(inspection)) if self.spec.sinks.contains_key(&inspection.sink) => {
                        self.facts.sinks.entry(inspection.sink.clone()).or_insert(inspection);
                    }
                    (Role::Transformation, Fact::Typing(typing)) if !typed => {
                        self.facts.typing = typing;
                        typed = true;
                    }
                    (_, Fact::Unavailable(found)) => problems.extend(found),
                    // Nothing that the party was asked about, or what another one saw already.
                    (_, Fact::Source(_) | Fact::Sink(_) | Fact::Typing(_)) => {}
                }
            }
        }
        problems
    }

    /// Takes the offers of a round, and looks for a combination.
    fn offered(&mut self, answers: BTreeMap<Party, Envelope>, round: u32, told: Option<Vec<Conflict>>) -> Vec<Effect> {
        let mut is_new = false;
        for Envelope { from, body, .. } in answers.into_values() {
            let (Message::Proposals { alternatives, .. } | Message::Counter { alternatives, .. }) = body else {
                continue;
            };
            let case = Case { spec: &self.spec, facts: &self.facts };
            let known = offer::known(case, &self.rates, from.role, told.as_deref().unwrap_or_default());
            for alternative in alternatives {
                is_new |= self.take(&from, &known, alternative);
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
                let award = |party: &Party| {
                    let won = combination.chosen.iter().map(|offer| &offer.id);
                    let won = won.filter(|id| self.authors.get(*id) == Some(party)).cloned();
                    (party.clone(), Message::Award { alternatives: won.collect() })
                };
                let awards = self.parties.iter().map(award).collect();
                self.state = State::Committing { plan };
                self.ask_parties(awards)
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

    /// Takes an offer, if it is its sender's to make and a way that is known; tells whether it is new.
    fn take(&mut self, from: &Party, known: &[Alternative], alternative: Alternative) -> bool {
        if self.authors.contains_key(&alternative.id) {
            return false;
        }
        if let Some(fault) = offer::fault(from, known, &alternative) {
            self.declined.push((from.clone(), alternative.id, fault));
            return false;
        }
        self.authors.insert(alternative.id.clone(), from.clone());
        self.alternatives.push(alternative);
        true
    }

    fn too_many_alternatives(&self) -> Option<Bound> {
        let mut counts: BTreeMap<(Option<&Party>, &str), u32> = BTreeMap::new();
        for offer in &self.alternatives {
            *counts.entry((self.authors.get(&offer.id), &offer.subject)).or_default() += 1;
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

    /// Sends a question to everyone of each role, and waits for the answers.
    fn ask(&mut self, questions: Vec<(Role, Message)>) -> Vec<Effect> {
        let of = |role| self.parties.iter().filter(move |party| party.role == role).cloned();
        let each = |(role, body): (Role, Message)| of(role).map(move |party| (party, body.clone())).collect::<Vec<_>>();
        let questions = questions.into_iter().flat_map(each).collect();
        self.ask_parties(questions)
    }

    /// Sends a question to each party, and waits for the answers.
    fn ask_parties(&mut self, questions: Vec<(Party, Message)>) -> Vec<Effect> {
        if !self.has_room_for(questions.len() * 2) {
            return self.expire(Bound::Messages);
        }
        let mut effects = Vec::new();
        for (to, body) in questions {
            let envelope = self.envelope(to.clone(), body);
            if self.called_ms.is_some() {
                self.told.entry(to.clone()).or_default().push(envelope.clone());
            }
            self.awaited.insert(to, envelope.clone());
            effects.push(Effect::Send(envelope));
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

/// Tells whether a message answers the question for the steps.
fn types_steps(body: &Message) -> bool {
    matches!(body, Message::Observed { observations }
        if observations.iter().any(|observation| matches!(observation.fact, Fact::Typing(_))))
}
