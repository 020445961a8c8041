//! Sessions with several parties of a role: whose word counts, and what an agent of somebody else's can and cannot do.

use dagwright_model::{
    code::Code,
    facts::ProbeRequest,
    id::RequestId,
    message::{Alternative, Bounds, Cost, Envelope, Fact, Message, Observation, Party, Question, Role, Strategy},
    plan::Plan,
    spec::{FileFormat, Locator},
    task::Problem,
    units::Span,
};

use crate::{
    cost::Rates,
    participants::{self, Participant},
    replay::{abandon, converse, replay, resume},
    rules::fixture::{Fixture, name},
    session::{Effect, Ending, Event, Session},
};

/// What a stranger says to what it is told.
type Stranger<'a> = &'a dyn Fn(&Envelope) -> Option<Message>;

fn party(role: Role, instance: &str) -> Party {
    Party { role, instance: name(instance) }
}

fn mains() -> Vec<Party> {
    Role::PARTICIPANTS.map(Party::sole).into()
}

fn fact(fixture: &Fixture, question: &Question) -> Fact {
    match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(fixture.facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(fixture.facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(fixture.facts.typing.clone()),
    }
}

/// Lets the agents of this crate answer, but for one party, which is somebody else's.
fn negotiate(fixture: &Fixture, parties: Vec<Party>, stranger: (&Party, Stranger<'_>)) -> (Ending, Session) {
    let session = Session::new(RequestId("r".into()), fixture.spec.clone(), Bounds::default(), Rates::default());
    let mut session = session.among(parties);
    let mut agents: Vec<_> = session
        .parties()
        .iter()
        .map(|party| (party.clone(), Participant::new(party.clone(), Rates::default())))
        .collect();
    let mut open = session.apply(Event::Opened { at_ms: 0 });
    while !open.is_empty() {
        let envelope = match open.remove(0) {
            Effect::Send(envelope) => envelope,
            Effect::End(ending) => {
                let replayed = replay(fixture.spec.clone(), Bounds::default(), &session.transcript());
                let replayed = replayed.expect("N6").map(|plan| plan.hash());
                let sealed = if let Ending::Sealed(plan) = &*ending { Some(plan.hash()) } else { None };
                assert_eq!(replayed, sealed, "N6");
                return (*ending, session);
            }
        };
        let answer = if envelope.to == *stranger.0 {
            stranger.1(&envelope).map(|body| Envelope {
                session: envelope.session.clone(),
                sequence: envelope.sequence,
                from: envelope.to.clone(),
                to: envelope.from.clone(),
                body,
            })
        } else {
            let (_, agent) = agents.iter_mut().find(|(party, _)| *party == envelope.to).expect("an agent");
            answer(fixture, agent, envelope)
        };
        if let Some(envelope) = answer {
            open.extend(session.apply(Event::Received { envelope, at_ms: 0 }));
        }
    }
    panic!("the session waits: {:#?}", session.transcript().0.last());
}

fn answer(fixture: &Fixture, agent: &mut Participant, envelope: Envelope) -> Option<Envelope> {
    let mut effects = agent.apply(participants::Event::Received(envelope));
    loop {
        let observed = |questions: &[Question]| -> Vec<Observation> {
            let seen = |question| Observation { fact: fact(fixture, question), origin: Default::default() };
            questions.iter().map(seen).collect()
        };
        effects = match effects.pop()? {
            participants::Effect::Send(envelope) => return Some(envelope),
            participants::Effect::Observe(questions) => {
                agent.apply(participants::Event::Observed(observed(&questions)))
            }
            participants::Effect::Check { questions, known } => {
                agent.apply(participants::Event::Checked(participants::changed(&known, &observed(&questions))))
            }
        };
    }
}

/// What a stranger says that goes along with everything and adds nothing.
fn passive(envelope: &Envelope) -> Option<Message> {
    let refuse = |round| Message::Refuse { round, reason: "not my affair".into() };
    match &envelope.body {
        Message::Observe { .. } => Some(refuse(0)),
        Message::CallForProposals(_) => Some(refuse(1)),
        Message::Conflicts { round, .. } => Some(refuse(*round)),
        Message::Award { .. } => Some(Message::Committed),
        _ => None,
    }
}

#[track_caller]
fn sealed(ending: Ending) -> Plan {
    let Ending::Sealed(plan) = ending else { panic!("no plan: {ending:#?}") };
    *plan
}

fn alone(fixture: &Fixture) -> Plan {
    sealed(converse(RequestId("r".into()), fixture.spec.clone(), |question| fact(fixture, question)).ending)
}

/// A case in which a read in parts pays.
fn in_parts() -> Fixture {
    let mut fixture = Fixture::files(64);
    fixture.profile_mut().bytes.value = 40 << 30;
    fixture.profile_mut().rows.value = 400_000_000;
    let identity = fixture.profile_mut().identity.clone();
    fixture.inspection_mut().identity = identity;
    fixture.sink_mut().locator = Locator::Uri("out/".into());
    fixture.sink_mut().format = Some(FileFormat::Parquet);
    fixture.spec.goals.deadline = Some(Span(300_000));
    fixture
}

#[test]
fn a_party_that_adds_nothing_changes_nothing_but_the_transcript() {
    let fixture = Fixture::table();
    for role in Role::PARTICIPANTS {
        let guest = party(role, "guest");
        let (ending, session) = negotiate(&fixture, [mains(), vec![guest.clone()]].concat(), (&guest, &passive));
        assert_eq!(sealed(ending).hash(), alone(&fixture).hash());
        let said = session.transcript().0.into_iter().filter(|envelope| envelope.from == guest);
        let kinds: Vec<_> = said.map(|envelope| envelope.body.kind()).collect();
        assert_eq!(kinds, ["refuse", "refuse", "committed"]);
    }
}

#[test]
fn any_party_can_veto_the_plan() {
    let fixture = Fixture::table();
    let guard = party(Role::Loading, "guard");
    let veto = |envelope: &Envelope| match &envelope.body {
        Message::Award { alternatives } => {
            assert!(alternatives.is_empty(), "it won nothing");
            let message = "frozen".to_owned();
            let problem = Problem { code: Code::Vetoed, subject: "warehouse".into(), message, hint: "wait".into() };
            Some(Message::CommitFailed { problems: vec![problem] })
        }
        _ => passive(envelope),
    };
    let (ending, _) = negotiate(&fixture, [mains(), vec![guard.clone()]].concat(), (&guard, &veto));
    let Ending::Failed(problems) = ending else { panic!("{ending:#?}") };
    assert_eq!((problems[0].code, problems[0].message.as_str()), (Code::Vetoed, "frozen"));
}

/// Lets a second extraction agent offer what it makes of the first one's reads in parts.
fn offering(fixture: &Fixture, change: impl Fn(&mut Alternative)) -> (Plan, Vec<&'static str>) {
    let guest = party(Role::Extraction, "guest");
    let offers = |envelope: &Envelope| match &envelope.body {
        Message::CallForProposals(call) => {
            let case = crate::case::Case { spec: &call.spec, facts: &call.facts };
            let mut offers = participants::propose(Role::Extraction, case, &Rates::default());
            offers.retain(|offer| offer.id.ends_with("/parts"));
            for offer in &mut offers {
                offer.id = "extraction/items/guest/mine".into();
                offer.cost.wall_ms /= 2;
                change(offer);
            }
            Some(Message::Proposals { round: 1, alternatives: offers })
        }
        _ => passive(envelope),
    };
    let (ending, mut session) = negotiate(fixture, [mains(), vec![guest.clone()]].concat(), (&guest, &offers));
    (sealed(ending), session.take_declined().into_iter().map(|(_, _, why)| why).collect())
}

#[test]
fn an_offer_of_a_second_party_competes() {
    let parts = |plan: &Plan| match &plan.tasks[0].spec.work {
        dagwright_model::task::Work::Split(split) => split.partitions_max,
        other => panic!("{other:?}"),
    };
    let fixture = in_parts();
    let (plan, declined) = offering(&fixture, |offer| {
        let Strategy::Read(read) = &mut offer.strategy else { panic!("a read") };
        read.parts.as_mut().expect("parts").count_max = 5;
    });
    assert_eq!((parts(&plan), declined), (5, Vec::new()));
    let read = plan.choices.iter().find(|choice| choice.role == Role::Extraction).expect("a choice");
    assert_eq!(read.chosen, "extraction/items/guest/mine");
    assert!(read.rejected.iter().any(|lost| lost.alternative == "extraction/items/parts"));
}

#[test]
fn an_offer_that_the_rules_cannot_vouch_for_does_not_count() {
    let fixture = in_parts();
    let read = |offer: &mut Alternative, change: &dyn Fn(&mut dagwright_model::message::Read)| match &mut offer.strategy
    {
        Strategy::Read(read) => change(read),
        other => panic!("{other:?}"),
    };
    type Change<'a> = &'a dyn Fn(&mut Alternative);
    let cases: [(Change<'_>, &str); 9] = [
        (&|offer| offer.id = "extraction/items/parts".into(), "its id"),
        (&|offer| offer.id = "extraction/items/other/mine".into(), "its id"),
        (&|offer| offer.id = "extraction/items/guest/".into(), "its id"),
        (&|offer| offer.role = Role::Loading, "another role's"),
        (&|offer| offer.cost = Cost { confidence: 101, ..offer.cost }, "confidence"),
        (&|offer| read(offer, &|read| read.filters.push("1 = 0".into())), "no way"),
        (&|offer| read(offer, &|read| drop(read.columns.pop())), "no way"),
        (&|offer| read(offer, &|read| read.parts.as_mut().expect("parts").count_max = 0), "no way"),
        (&|offer| offer.provides.clear(), "no way"),
    ];
    for (change, why) in cases {
        let (plan, declined) = offering(&fixture, change);
        assert_eq!(plan.hash(), alone(&fixture).hash());
        assert!(matches!(&declined[..], [only] if only.contains(why)), "{declined:?} instead of {why}");
    }
}

#[test]
fn what_stands_in_the_way_cannot_be_left_out() {
    let mut fixture = Fixture::table();
    fixture.incremental("gone", None);
    let case = fixture.case();
    let known = crate::offer::known(case, &Rates::default(), Role::Extraction, &[]);
    let mut offer = known[0].clone();
    assert!(!offer.objections.is_empty());
    assert_eq!(crate::offer::fault(&Party::sole(Role::Extraction), &known, &offer), None);
    offer.objections.clear();
    let fault = crate::offer::fault(&Party::sole(Role::Extraction), &known, &offer);
    assert_eq!(fault, Some("it leaves out what stands in the way of it"));
}

#[test]
fn what_one_party_cannot_see_another_may() {
    let fixture = Fixture::table();
    // Its name comes before that of the others.
    let blind = party(Role::Extraction, "blind");
    let dark =
        Problem { code: Code::SourceUnreachable, subject: "items".into(), message: "dark".into(), hint: "".into() };
    let sees_nothing = |envelope: &Envelope| match &envelope.body {
        Message::Observe { questions } => {
            let fact = || Fact::Unavailable(vec![dark.clone()]);
            let unseen = questions.iter().map(|_| Observation { fact: fact(), origin: Default::default() });
            Some(Message::Observed { observations: unseen.collect() })
        }
        _ => passive(envelope),
    };
    let (ending, _) = negotiate(&fixture, [mains(), vec![blind.clone()]].concat(), (&blind, &sees_nothing));
    assert_eq!(sealed(ending).hash(), alone(&fixture).hash());
    let without = mains().into_iter().filter(|party| party.role != Role::Extraction).chain([blind.clone()]).collect();
    let (ending, _) = negotiate(&fixture, without, (&blind, &sees_nothing));
    assert_eq!(ending, Ending::Failed(vec![dark.clone()]));
}

#[test]
fn facts_about_what_was_not_asked_are_passed_over() {
    let fixture = Fixture::table();
    // Its name comes before that of the others.
    let liar = party(Role::Loading, "a_liar");
    let lies = |envelope: &Envelope| match &envelope.body {
        Message::Observe { .. } => {
            let mut profile = fixture.facts.sources.values().next().expect("a source").clone();
            profile.rows.value = 1;
            let mut elsewhere = fixture.facts.sinks.values().next().expect("a sink").clone();
            elsewhere.sink = name("elsewhere");
            let mut forbidden = fixture.facts.sinks.values().next().expect("a sink").clone();
            forbidden.privileges.create = false;
            let facts =
                [Fact::Source(profile), Fact::Sink(elsewhere), Fact::Sink(forbidden), Fact::Typing(Default::default())];
            let observed = facts.map(|fact| Observation { fact, origin: Default::default() });
            Some(Message::Observed { observations: observed.into() })
        }
        _ => passive(envelope),
    };
    let (ending, session) = negotiate(&fixture, [mains(), vec![liar.clone()]].concat(), (&liar, &lies));
    assert_eq!(sealed(ending).hash(), alone(&fixture).hash());
    assert_eq!(session.facts().sinks.len(), 1);
}

#[test]
fn a_party_that_nobody_can_reach_ends_only_what_waits_for_it() {
    let fixture = Fixture::table();
    let open = || {
        let session = Session::new(RequestId("r".into()), fixture.spec.clone(), Bounds::default(), Rates::default());
        let mut session = session.among(mains());
        session.apply(Event::Opened { at_ms: 0 });
        session
    };
    let absent = |role| Event::Absent { party: Party::sole(role), at_ms: 20_000 };
    assert_eq!(open().apply(absent(Role::Transformation)), [], "its turn has not come");
    let effects = open().apply(absent(Role::Loading));
    let Some(Effect::End(ending)) = effects.last() else { panic!("{effects:#?}") };
    let Ending::Failed(problems) = &**ending else { panic!("{ending:#?}") };
    assert_eq!((problems[0].code, problems[0].subject.as_str()), (Code::AgentAway, "loading@main"));
    assert!(problems[0].hint.contains("--roles loading"), "{problems:?}");
}

#[test]
fn a_session_that_is_taken_up_keeps_its_parties() {
    let fixture = Fixture::table();
    let guest = party(Role::Loading, "guest");
    let mut lineup = [mains(), vec![guest.clone()]].concat();
    lineup.sort();
    let (_, session) = negotiate(&fixture, lineup.clone(), (&guest, &passive));
    let recorded: Vec<_> = session.transcript().0.into_iter().map(|envelope| (0, envelope)).collect();
    let mut resumed = 0;
    for taken in 0..recorded.len() {
        // A step is recorded as a whole: answers, and what is asked next.
        let asks = |index: usize| recorded[index].1.from.role == Role::Orchestrator;
        if taken > 0 && (!asks(taken - 1) || asks(taken)) {
            continue;
        }
        // Whoever is configured by now: those who were asked go on.
        let who = if taken == 0 { &lineup } else { &mains() };
        let (id, spec) = (RequestId("r".into()), fixture.spec.clone());
        let resume = resume(id, spec, Bounds::default(), (Vec::new(), 0), who, &recorded[..taken], 1);
        assert_eq!(resume.expect("the same rules").0.parties(), lineup, "after {taken} messages");
        resumed += 1;
    }
    assert_eq!(resumed, 5, "before each phase");
    let transcript = session.transcript();
    let told = abandon(&RequestId("r".into()), &mains(), &transcript, &[]);
    assert_eq!(told.into_iter().map(|envelope| envelope.to).collect::<Vec<_>>(), session.parties());
}

#[test]
fn a_named_agent_of_this_kind_signs_its_offers() {
    let fixture = Fixture::table();
    let second = party(Role::Loading, "second");
    let lineup = [mains(), vec![second]].concat();
    let nobody = party(Role::Loading, "nobody");
    let (ending, mut session) = negotiate(&fixture, lineup, (&nobody, &passive));
    assert_eq!(session.take_declined(), []);
    let plan = sealed(ending);
    let load = plan.choices.iter().find(|choice| choice.role == Role::Loading).expect("a choice");
    let ids: Vec<_> =
        load.rejected.iter().map(|lost| lost.alternative.as_str()).chain([load.chosen.as_str()]).collect();
    assert!(ids.iter().any(|id| id.contains("/second/")) && ids.iter().any(|id| !id.contains("/second/")), "{ids:?}");
}
