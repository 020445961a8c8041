//! Sessions over random cases and a bad network, from seeds: the named invariants N1 to N7 hold in all of them.
//!
//! Messages are delivered in any order, dropped and repeated; agents are started anew; time passes. A failing seed is
//! printed and gives the same session again.

use std::collections::BTreeMap;

use dagwright_model::{
    facts::{Count, KeyCheck, ProbeRequest},
    id::RequestId,
    message::{Bounds, Envelope, Fact, Message, Observation, Origin, Party, Placement, Question, Role, Transcript},
    schema::DataType,
    spec::{FileFormat, Locator, LossyCast, Objective, SchemaChange, SinkMode},
    units::{ByteSize, Span},
};

use crate::{
    cost::Rates,
    participants,
    participants::Participant,
    replay::{converse_after, replay, resume},
    rules::{fixture::Fixture, setback::tests::setback},
    seal, search,
    session::{Effect, Ending, Event, Session},
};

/// How many seeds one test run tries; each is a few milliseconds.
const SEEDS: u64 = 150;

/// SplitMix64: small, and good enough to shuffle with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("small")
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// How bad the network is, as one message in so many; 0 is never.
#[derive(Clone, Copy)]
struct Weather {
    lost_one_in: usize,
    repeated_one_in: usize,
    restarted_one_in: usize,
    resumed_one_in: usize,
}

const FAIR: Weather = Weather { lost_one_in: 0, repeated_one_in: 0, restarted_one_in: 0, resumed_one_in: 0 };
const FOUL: Weather = Weather { lost_one_in: 8, repeated_one_in: 6, restarted_one_in: 40, resumed_one_in: 40 };
/// Every message arrives, but no agent lives long.
const DEADLY: Weather = Weather { restarted_one_in: 20, resumed_one_in: 30, ..FAIR };

fn random_case(random: &mut Random) -> Fixture {
    let mut fixture = if random.one_in(2) { Fixture::table() } else { Fixture::files(random.pick(&[1, 3, 40])) };
    let bytes = random.pick(&[1 << 10, 1 << 20, 1 << 30, 1 << 36]);
    fixture.profile_mut().bytes.value = bytes;
    fixture.profile_mut().rows.value = bytes / 100;
    if random.one_in(3) {
        fixture.existing_sink(&["id", "seen_at", "amount", "label"]);
        if random.one_in(2) {
            fixture.sink_column_mut("label").column.data_type = DataType::Decimal { precision: 10, scale: 2 };
            fixture.column_mut("label").misfits.insert("float64".into(), random.pick(&[0, 31]));
        }
        if random.one_in(3) {
            fixture.inspection_mut().columns.pop();
        }
        if random.one_in(3) {
            fixture.sink_column_mut("id").column.data_type = DataType::Int32;
            fixture.column_mut("id").max = Some("5000000000".into());
        }
        if random.one_in(3) {
            fixture.inspection_mut().unique_keys = vec![vec!["id".into()]];
        }
    }
    if random.one_in(3) {
        fixture.sink_mut().locator = Locator::Uri("out/".into());
        fixture.sink_mut().format = Some(FileFormat::Parquet);
        fixture.inspection_mut().identity.scheme = "file".into();
        fixture.sink_mut().mode = random.pick(&[SinkMode::Append, SinkMode::Replace]);
    } else if random.one_in(2) {
        fixture.upsert(&["id"]);
        let duplicates = Count { value: random.pick(&[0, 3]), exact: true };
        fixture.profile_mut().key_checks = vec![KeyCheck { columns: vec!["id".into()], duplicates, nulls: 0 }];
        if random.one_in(2) {
            fixture.dedupe("seen_at");
        }
    }
    if random.one_in(4) {
        let lag = random.pick(&[None, Some("1d")]);
        fixture.incremental(random.pick(&["seen_at", "amount", "gone"]), lag);
        fixture.profile_mut().watermarks[0].regressions = random.pick(&[0, 7]);
    }
    if random.one_in(3) {
        fixture.step("picked", &["id", "amount"], random.one_in(2));
    }
    for sink in 0..random.below(3) {
        fixture.second_sink(&format!("more{sink}"));
    }
    if random.one_in(8) {
        fixture.inspection_mut().privileges.create = false;
    }
    fixture.spec.policy.schema_change =
        random.pick(&[SchemaChange::None, SchemaChange::Additive, SchemaChange::Widening]);
    fixture.spec.policy.lossy_cast = random.pick(&[LossyCast::Reject, LossyCast::Null, LossyCast::Quarantine]);
    fixture.spec.goals.optimize = random.pick(&[Objective::Cost, Objective::Time, Objective::Memory]);
    fixture.spec.goals.memory_max = ByteSize(random.pick(&[1 << 20, 64 << 20, 512 << 20]));
    fixture.spec.goals.deadline = random.pick(&[None, Some(Span(50)), Some(Span(600_000))]);
    let setbacks = if random.one_in(3) { 1 + random.below(2) } else { 0 };
    for version in 1..=u32::try_from(setbacks).expect("small") {
        let placement = random.pick(&[Placement::Fused, Placement::Staged, Placement::Mapped]);
        let parts = (placement == Placement::Mapped).then(|| random.pick(&[2, 8, 64]));
        fixture.facts.setbacks.push(setback(version, placement, parts));
    }
    fixture
}

fn answer(fixture: &Fixture, question: &Question) -> Fact {
    match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(fixture.facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(fixture.facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(fixture.facts.typing.clone()),
    }
}

/// A host full of agents with a network between them.
struct World<'a> {
    random: &'a mut Random,
    weather: Weather,
    fixture: &'a Fixture,
    session: Session,
    agents: BTreeMap<Party, Participant>,
    in_flight: Vec<Envelope>,
    now_ms: u64,
    endings: Vec<Ending>,
    /// How much was said in earlier sessions of the request.
    said: u32,
    /// When each message entered the transcript, as a ledger has it.
    at_ms: Vec<u64>,
}

impl World<'_> {
    fn run(&mut self) {
        let effects = self.session.apply(Event::Opened { at_ms: 0 });
        self.perform(effects);
        // Observing ends after ten minutes, the rest after half a one; each step below is up to half a second.
        for _ in 0..20_000 {
            if !self.endings.is_empty() && self.in_flight.is_empty() {
                break;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        self.now_ms += self.random.next() % 500;
        if self.weather.restarted_one_in > 0 && self.random.one_in(self.weather.restarted_one_in) {
            let party = Party::sole(self.random.pick(&Role::PARTICIPANTS));
            self.agents.insert(party.clone(), Participant::new(party.clone(), Rates::default()));
            let blamed = self.random.one_in(8);
            let effects = self.session.apply(Event::Restarted { party, blamed, at_ms: self.now_ms });
            self.perform(effects);
        }
        if self.weather.resumed_one_in > 0 && self.random.one_in(self.weather.resumed_one_in) {
            self.resume();
        }
        if self.in_flight.is_empty() || self.random.one_in(10) {
            let effects = self.session.apply(Event::TimePassed { at_ms: self.now_ms });
            self.perform(effects);
        }
        if self.in_flight.is_empty() {
            return;
        }
        let index = self.random.below(self.in_flight.len());
        let envelope = self.in_flight.swap_remove(index);
        if self.weather.lost_one_in > 0 && self.random.one_in(self.weather.lost_one_in) {
            return;
        }
        if self.weather.repeated_one_in > 0 && self.random.one_in(self.weather.repeated_one_in) {
            self.in_flight.push(envelope.clone());
        }
        if envelope.to.role == Role::Orchestrator {
            let effects = self.session.apply(Event::Received { envelope, at_ms: self.now_ms });
            self.perform(effects);
        } else {
            self.deliver(envelope);
        }
    }

    /// Loses the orchestrator and all that is on its way to it, and takes the session up from the ledger.
    fn resume(&mut self) {
        self.in_flight.retain(|envelope| envelope.to.role != Role::Orchestrator);
        let recorded: Vec<_> = self.at_ms.iter().copied().zip(self.session.transcript().0).collect();
        let (id, spec) = (recorded[0].1.session.clone(), self.fixture.spec.clone());
        let lineup = self.session.parties().to_vec();
        let before = (self.fixture.facts.setbacks.clone(), self.said);
        let resumed = resume(id, spec, Bounds::default(), before, &lineup, &recorded, self.now_ms);
        let was_over = self.session.is_over();
        let (session, effects) = resumed.unwrap_or_else(|divergence| panic!("N6: {divergence}"));
        self.session = session;
        assert!(!was_over || self.session.is_over(), "what ended has ended");
        if was_over {
            self.endings.clear();
        }
        self.perform(effects);
    }

    fn deliver(&mut self, envelope: Envelope) {
        let agent = self.agents.get_mut(&envelope.to).expect("an agent of each role");
        let mut open = agent.apply(participants::Event::Received(envelope));
        while let Some(effect) = open.pop() {
            let answers = |questions: &[Question]| -> Vec<Observation> {
                let known = |question| Observation { fact: answer(self.fixture, question), origin: Origin::default() };
                questions.iter().map(known).collect()
            };
            match effect {
                participants::Effect::Send(envelope) => self.in_flight.push(envelope),
                participants::Effect::Observe(questions) => {
                    open.extend(agent.apply(participants::Event::Observed(answers(&questions))));
                }
                participants::Effect::Check { questions, known } => {
                    let problems = participants::changed(&known, &answers(&questions));
                    open.extend(agent.apply(participants::Event::Checked(problems)));
                }
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        self.at_ms.resize(self.session.transcript().0.len(), self.now_ms);
        for effect in effects {
            match effect {
                Effect::Send(envelope) => self.in_flight.push(envelope),
                Effect::End(ending) => self.endings.push(*ending),
            }
        }
    }
}

fn simulate(seed: u64, weather: Weather) -> &'static str {
    let mut random = Random(seed);
    let fixture = random_case(&mut random);
    let id = RequestId(format!("seed-{seed}"));
    let bounds = Bounds::default();
    let said = if fixture.facts.setbacks.is_empty() { 0 } else { 40 };
    let mut world = World {
        random: &mut random,
        weather,
        fixture: &fixture,
        session: Session::new(id.clone(), fixture.spec.clone(), bounds, Rates::default())
            .after(fixture.facts.setbacks.clone(), said),
        said,
        agents: Role::PARTICIPANTS
            .map(Party::sole)
            .map(|party| (party.clone(), Participant::new(party, Rates::default())))
            .into(),
        in_flight: Vec::new(),
        now_ms: 0,
        endings: Vec::new(),
        at_ms: Vec::new(),
    };
    world.run();
    assert_eq!(world.endings.len(), 1, "N1, N2: seed {seed} ends once");
    let ending = world.endings.remove(0);
    let transcript = world.session.transcript();
    let rounds = transcript.0.iter().filter_map(|envelope| match envelope.body {
        Message::Conflicts { round, .. } => Some(round),
        _ => None,
    });
    assert!(rounds.max().unwrap_or(1) <= bounds.rounds_max, "N5: rounds of seed {seed}");
    assert!(transcript.0.len() <= bounds.messages_max as usize, "N5: messages of seed {seed}");
    let replayed = replay(fixture.spec.clone(), bounds, &transcript);
    let replayed = replayed.unwrap_or_else(|divergence| panic!("N6: seed {seed}: {divergence}"));
    if let Ending::Sealed(plan) = &ending {
        check_plan(seed, &fixture, plan, &transcript.0);
        assert_eq!(replayed.map(|plan| plan.hash()), Some(plan.hash()), "N6: seed {seed}");
    }
    if matches!(ending, Ending::Sealed(_) | Ending::Deadlocked(_)) {
        let setbacks = fixture.facts.setbacks.clone();
        let direct = converse_after(id, fixture.spec.clone(), setbacks, |question| answer(&fixture, question));
        assert_eq!(told(&transcript), told(&direct.transcript), "N6: the network of seed {seed} changed what was said");
    }
    match ending {
        Ending::Sealed(_) => "sealed",
        Ending::Deadlocked(conflicts) => {
            assert!(!conflicts.is_empty(), "seed {seed} says why");
            "deadlocked"
        }
        Ending::Expired { .. } => "expired",
        Ending::Failed(_) => "failed",
    }
}

/// What was said to whom, without the counters that an agent begins again when it is started anew.
fn told(transcript: &Transcript) -> Vec<(&Party, &Party, &Message)> {
    transcript.0.iter().map(|envelope| (&envelope.from, &envelope.to, &envelope.body)).collect()
}

fn check_plan(seed: u64, fixture: &Fixture, plan: &dagwright_model::plan::Plan, said: &[Envelope]) {
    let spec = &fixture.spec;
    assert!(plan.cost.memory_bytes <= spec.goals.memory_max.0, "N3: memory of seed {seed}");
    assert!(spec.goals.deadline.is_none_or(|deadline| plan.cost.wall_ms <= deadline.0), "N3: deadline of seed {seed}");
    assert!(plan.schema_change <= spec.policy.schema_change, "N3: schema change of seed {seed}");
    assert_eq!(seal::unprovided(plan), Vec::<String>::new(), "N4: seed {seed}");
    let offered = said.iter().flat_map(|envelope| match &envelope.body {
        Message::Proposals { alternatives, .. } | Message::Counter { alternatives, .. } => &alternatives[..],
        _ => &[],
    });
    let chosen: Vec<_> = offered.filter(|offer| plan.choices.iter().any(|choice| choice.chosen == offer.id)).collect();
    assert!(chosen.len() >= plan.choices.len(), "seed {seed} chose among the offers");
    for setback in &fixture.facts.setbacks {
        let differs = (plan.placement(), plan.parts()) != (setback.placement, setback.parts);
        assert!(differs, "seed {seed} does again what ran out of memory");
    }
    for offer in chosen {
        assert!(offer.objections.is_empty(), "N3: seed {seed}");
        let policies = offer.lossy.iter().all(|used| search::allowed(used.policy, spec.policy.lossy_cast));
        assert!(policies, "N7: seed {seed}");
    }
}

fn tally(weather: Weather) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for seed in 0..SEEDS {
        *counts.entry(simulate(seed, weather)).or_default() += 1;
    }
    counts
}

#[test]
fn invariants_hold_in_any_order_of_messages() {
    let counts = tally(FAIR);
    // The cases must reach both ends, or the invariants would hold for nothing.
    assert!(counts["sealed"] > SEEDS / 10 && counts["deadlocked"] > SEEDS / 10, "{counts:?}");
    assert!(!counts.contains_key("expired") && !counts.contains_key("failed"), "{counts:?}");
}

#[test]
fn invariants_hold_with_losses_repeats_and_restarts() {
    let counts = tally(FOUL);
    assert!(counts["sealed"] > SEEDS / 20, "{counts:?}");
}

#[test]
fn agents_that_end_again_and_again_change_nothing_that_is_agreed() {
    let counts = tally(DEADLY);
    assert!(counts["sealed"] > SEEDS / 20 && counts["deadlocked"] > SEEDS / 20, "{counts:?}");
}
