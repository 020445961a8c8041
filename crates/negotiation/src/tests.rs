//! Whole conversations over small cases.

use dagwright_model::{
    facts::{Count, KeyCheck, ProbeRequest},
    id::RequestId,
    message::{Bound, Bounds, ConflictKind, Cost, Fact, Message, Party, Placement, Question, Role},
    plan::Plan,
    schema::DataType,
    spec::{FileFormat, Locator, LossyCast, SchemaChange, Spec},
    task::{Input, SchemaEdit, Work, WriteStrategy},
    units::{ByteSize, Span},
};

use crate::{
    cost::Rates,
    explain::explain,
    replay::{Conversation, converse, converse_after, replay},
    rules::{fixture::Fixture, setback::tests::setback},
    session::{Effect, Ending, Event, Session},
};

/// Holds the negotiation of a fixture, and checks that its transcript replays (N6).
fn negotiate(fixture: &Fixture) -> (Spec, Conversation) {
    let spec = fixture.spec.clone();
    let observe = |question: &Question| match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(fixture.facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(fixture.facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(fixture.facts.typing.clone()),
    };
    let found = converse(RequestId("r".into()), spec.clone(), observe);
    let again = replay(spec.clone(), Bounds::default(), &found.transcript).expect("the same messages");
    match &found.ending {
        Ending::Sealed(plan) => assert_eq!(again.map(|plan| plan.hash()), Some(plan.hash())),
        _ => assert_eq!(again, None),
    }
    (spec, found)
}

#[track_caller]
fn sealed(fixture: &Fixture) -> (Plan, Conversation) {
    let (_, found) = negotiate(fixture);
    match &found.ending {
        Ending::Sealed(plan) => ((**plan).clone(), found),
        other => panic!("no plan: {other:#?}"),
    }
}

#[track_caller]
fn deadlocked(fixture: &Fixture, wanted: &[(ConflictKind, Role)]) {
    let (_, found) = negotiate(fixture);
    let Ending::Deadlocked(conflicts) = found.ending else { panic!("no deadlock: {:#?}", found.ending) };
    assert_eq!(conflicts.iter().map(|c| (c.kind, c.owner)).collect::<Vec<_>>(), wanted, "{conflicts:#?}");
    assert!(conflicts.iter().all(|conflict| !conflict.remedies.is_empty()), "each says what to change");
}

#[track_caller]
fn ids(plan: &Plan) -> Vec<&str> {
    plan.tasks.iter().map(|task| task.spec.id.0.as_str()).collect()
}

#[test]
fn a_small_case_is_one_fused_task() {
    let (plan, found) = sealed(&Fixture::files(1));
    assert_eq!(ids(&plan), ["load_warehouse"]);
    let Work::Move(work) = &plan.tasks[0].spec.work else { panic!("a move") };
    let Some(Input::Source(read)) = work.inputs.values().next() else { panic!("a source") };
    assert!(!read.partitioned && read.text.is_some());
    assert_eq!(plan.connections.len(), 1);
    let kinds: Vec<_> = found.transcript.0.iter().map(|envelope| envelope.body.kind()).collect();
    assert_eq!(kinds[..6], ["observe", "observe", "observed", "observed", "observe", "observed"]);
    assert_eq!(kinds[6..12], ["call_for_proposals"; 3].into_iter().chain(["proposals"; 3]).collect::<Vec<_>>()[..]);
    assert_eq!(kinds.last(), Some(&"sealed"));
}

#[test]
fn a_deadline_makes_parts_of_many_files() {
    let mut fixture = Fixture::files(64);
    fixture.profile_mut().bytes.value = 40 << 30;
    fixture.profile_mut().rows.value = 400_000_000;
    let identity = fixture.profile_mut().identity.clone();
    fixture.inspection_mut().identity = identity;
    fixture.sink_mut().locator = Locator::Uri("out/".into());
    fixture.sink_mut().format = Some(FileFormat::Parquet);
    fixture.spec.goals.deadline = Some(Span(300_000));
    let (plan, _) = sealed(&fixture);
    assert_eq!(ids(&plan), ["split_items", "load_warehouse", "publish_warehouse", "cleanup"]);
    assert_eq!(plan.tasks[1].mapped_over.as_ref(), Some(&plan.tasks[0].spec.id));
    let Work::Publish(publish) = &plan.tasks[2].spec.work else { panic!("a publish") };
    assert_eq!(publish.sink.strategy, WriteStrategy::PartitionStaging);
    assert!(plan.tasks[3].teardown);
    let transform = &plan.choices[0];
    assert!(transform.rejected.iter().any(|r| r.why.contains("the deadline is 5m")), "{transform:#?}");
}

#[test]
fn many_sinks_of_a_dear_source_are_staged() {
    let mut fixture = Fixture::table();
    fixture.profile_mut().bytes.value = 8 << 30;
    fixture.profile_mut().splits.clear();
    for sink in ["b", "c", "d", "e", "f"] {
        fixture.second_sink(sink);
    }
    let (plan, _) = sealed(&fixture);
    assert_eq!(ids(&plan)[..2], ["extract_items", "load_warehouse"]);
    assert_eq!(ids(&plan).last(), Some(&"cleanup"));
    let mut stepped = fixture;
    stepped.step("summed", &["id", "amount"], false);
    let (plan, _) = sealed(&stepped);
    assert_eq!(ids(&plan)[..3], ["extract_items", "transform", "load_warehouse"]);
}

#[test]
fn a_misfit_is_countered_by_the_policy() {
    let mut fixture = Fixture::table();
    fixture.existing_sink(&["id", "seen_at", "amount", "label"]);
    fixture.column_mut("label").misfits.insert("float64".into(), 31);
    fixture.sink_column_mut("label").column.data_type = DataType::Decimal { precision: 10, scale: 2 };
    deadlocked(&fixture, &[(ConflictKind::Type, Role::Loading)]);

    fixture.spec.policy.lossy_cast = LossyCast::Quarantine;
    let (plan, found) = sealed(&fixture);
    assert_eq!(plan.choices[2].chosen, "loading/warehouse/direct_lossy");
    let told = explain(Some(&plan), &found.transcript);
    assert_eq!(told.rounds.len(), 1);
    assert_eq!(told.rounds[0].refusals, [Role::Extraction, Role::Transformation]);
    assert!(told.rounds[0].conflicts[0].message.starts_with("column label: source string, 3.1 % not numeric"));

    // Keeping every value comes before any cost.
    fixture.spec.policy.schema_change = SchemaChange::Widening;
    let (plan, _) = sealed(&fixture);
    assert_eq!(plan.choices[2].chosen, "loading/warehouse/direct_changed");
    assert_eq!(plan.schema_change, SchemaChange::Widening);
    assert_eq!(plan.choices[2].rejected[1].why, "it would give up values that the chosen way keeps");
}

#[test]
fn a_repeating_key_is_the_requests_to_resolve() {
    let mut fixture = Fixture::table();
    fixture.upsert(&["id"]);
    let duplicates = Count { value: 3, exact: true };
    fixture.profile_mut().key_checks = vec![KeyCheck { columns: vec!["id".into()], duplicates, nulls: 0 }];
    deadlocked(&fixture, &[(ConflictKind::Key, Role::Loading)]);
    fixture.dedupe("seen_at");
    let (plan, _) = sealed(&fixture);
    let Work::Move(work) = &plan.tasks[0].spec.work else { panic!("a move") };
    let dagwright_model::task::Output::Sink(write) = &work.outputs[0] else { panic!("a sink") };
    assert_eq!((write.strategy, write.dedupe.len()), (WriteStrategy::StagingTable, 1));
    assert_eq!(write.changes, [SchemaEdit::CreateTable]);
}

#[test]
fn hard_goals_nobody_can_meet() {
    let mut fixture = Fixture::table();
    fixture.spec.goals.deadline = Some(Span(10));
    fixture.incremental("amount", None);
    fixture.column_mut("amount").nulls = 5;
    deadlocked(&fixture, &[(ConflictKind::Cursor, Role::Extraction), (ConflictKind::Deadline, Role::Transformation)]);
    let mut fixture = Fixture::table();
    fixture.spec.goals.memory_max = ByteSize(1 << 20);
    deadlocked(&fixture, &[(ConflictKind::Memory, Role::Transformation)]);
}

#[test]
fn a_missing_privilege_is_named() {
    let mut fixture = Fixture::table();
    fixture.inspection_mut().privileges.create = false;
    deadlocked(&fixture, &[(ConflictKind::Privilege, Role::Loading)]);
}

#[test]
fn a_missing_source_fails_before_any_offer() {
    let mut fixture = Fixture::files(1);
    fixture.profile_mut().exists = false;
    let (_, found) = negotiate(&fixture);
    let Ending::Failed(problems) = found.ending else { panic!("{:#?}", found.ending) };
    assert_eq!(problems[0].code, dagwright_model::code::Code::SourceMissing);
}

/// Opens a session that nobody answers.
fn unanswered(fixture: &Fixture, bounds: Bounds) -> Session {
    let mut session = Session::new(RequestId("r".into()), fixture.spec.clone(), bounds, Rates::default());
    session.apply(Event::Opened { at_ms: 0 });
    session
}

#[track_caller]
fn expired(effects: Vec<Effect>) -> Bound {
    match effects.into_iter().next_back() {
        Some(Effect::End(ending)) => match *ending {
            Ending::Expired { bound, .. } => bound,
            other => panic!("{other:#?}"),
        },
        other => panic!("{other:#?}"),
    }
}

#[test]
fn a_bound_that_is_hit_is_named() {
    let fixture = Fixture::table();
    let mut session = unanswered(&fixture, Bounds::default());
    let again = session.apply(Event::TimePassed { at_ms: 600_000 });
    assert!(matches!(&again[..], [Effect::Send(_), Effect::Send(_)]), "who did not answer is asked again: {again:#?}");
    assert_eq!(expired(session.apply(Event::TimePassed { at_ms: 600_001 })), Bound::Time);
    assert!(session.is_over() && session.apply(Event::TimePassed { at_ms: 700_000 }).is_empty());

    let bounds = Bounds { messages_max: 6, ..Bounds::default() };
    let mut session = Session::new(RequestId("r".into()), fixture.spec.clone(), bounds, Rates::default());
    assert_eq!(expired(session.apply(Event::Opened { at_ms: 0 })), Bound::Messages);

    // One way to read, three to compute, two to write: more than two of one participant for one subject.
    let bounds = Bounds { alternatives_max: 2, ..Bounds::default() };
    assert_eq!(ending_under(&fixture, bounds), Ending::Expired { bound: Bound::Alternatives, conflicts: Vec::new() });

    let mut stuck = Fixture::table();
    stuck.spec.goals.memory_max = ByteSize(1 << 20);
    let bounds = Bounds { rounds_max: 1, ..Bounds::default() };
    let Ending::Expired { bound, conflicts } = ending_under(&stuck, bounds) else { panic!("expires") };
    assert_eq!((bound, conflicts.len()), (Bound::Rounds, 1));
}

/// Feeds the answers of an unbounded conversation to a bounded session.
fn ending_under(fixture: &Fixture, bounds: Bounds) -> Ending {
    let (spec, found) = negotiate(fixture);
    let mut session = Session::new(RequestId("r".into()), spec, bounds, Rates::default());
    session.apply(Event::Opened { at_ms: 0 });
    for envelope in found.transcript.0.into_iter().filter(|envelope| envelope.from.role != Role::Orchestrator) {
        for effect in session.apply(Event::Received { envelope, at_ms: 0 }) {
            if let Effect::End(ending) = effect {
                return *ending;
            }
        }
    }
    panic!("the session did not end");
}

#[test]
fn an_agent_that_keeps_ending_is_lost() {
    let mut session = unanswered(&Fixture::table(), Bounds::default());
    let party = Party::sole(Role::Extraction);
    for at_ms in 0..3 {
        let again = session.apply(Event::Restarted { party: party.clone(), blamed: true, at_ms });
        assert!(matches!(&again[..], [Effect::Send(envelope)] if envelope.to == party), "it is asked again");
    }
    let again = session.apply(Event::Restarted { party: party.clone(), blamed: false, at_ms: 3 });
    assert!(matches!(&again[..], [Effect::Send(_)]), "what another session did is not held against this one");
    let effects = session.apply(Event::Restarted { party, blamed: true, at_ms: 3 });
    let Some(Effect::End(ending)) = effects.last() else { panic!("{effects:#?}") };
    let Ending::Failed(problems) = &**ending else { panic!("{ending:#?}") };
    assert_eq!(problems[0].code, dagwright_model::code::Code::AgentLost);
}

#[test]
fn a_table_altered_meanwhile_fails_the_commitment() {
    let fixture = Fixture::table();
    let mut looks = 0;
    let found = converse(RequestId("r".into()), fixture.spec.clone(), |question| match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(fixture.facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => {
            looks += 1;
            let mut seen = fixture.facts.sinks[name].clone();
            seen.exists = looks > 1;
            Fact::Sink(seen)
        }
        Question::Type(_) => Fact::Typing(fixture.facts.typing.clone()),
    });
    let Ending::Failed(problems) = found.ending else { panic!("{:#?}", found.ending) };
    assert_eq!(problems[0].code, dagwright_model::code::Code::SinkDrifted);
}

#[test]
fn an_offer_of_another_role_or_for_nothing_is_passed_over() {
    let fixture = Fixture::table();
    let (spec, found) = negotiate(&fixture);
    let mut session = Session::new(RequestId("r".into()), spec, Bounds::default(), Rates::default());
    session.apply(Event::Opened { at_ms: 0 });
    for mut envelope in found.transcript.0.into_iter().filter(|envelope| envelope.from.role != Role::Orchestrator) {
        if let Message::Proposals { alternatives, .. } = &mut envelope.body {
            let mut foreign = alternatives.clone();
            foreign.iter_mut().for_each(|offer| {
                offer.id += "/foreign";
                offer.cost = Cost::default();
                offer.subject += "_gone";
            });
            alternatives.extend(foreign);
        }
        session.apply(Event::Received { envelope, at_ms: 0 });
    }
    let last = session.transcript().0.pop().expect("messages");
    assert_eq!(last.body.kind(), "sealed", "as without the strange offers");
}

/// Holds the negotiation of a fixture after the setbacks in its facts, and checks that its transcript replays.
fn negotiate_anew(fixture: &Fixture) -> Conversation {
    let observe = |question: &Question| match question {
        Question::Probe(ProbeRequest::Source { name, .. }) => Fact::Source(fixture.facts.sources[name].clone()),
        Question::Probe(ProbeRequest::Sink { name, .. }) => Fact::Sink(fixture.facts.sinks[name].clone()),
        Question::Type(_) => Fact::Typing(fixture.facts.typing.clone()),
    };
    let (spec, setbacks) = (fixture.spec.clone(), fixture.facts.setbacks.clone());
    let found = converse_after(RequestId("r".into()), spec.clone(), setbacks, observe);
    replay(spec, Bounds::default(), &found.transcript).expect("the same messages");
    found
}

#[test]
fn a_plan_that_ran_out_of_memory_is_followed_by_another_until_there_is_none() {
    let mut fixture = Fixture::table();
    let mut seen = Vec::new();
    let conflicts = loop {
        let plan = match negotiate_anew(&fixture).ending {
            Ending::Sealed(plan) => plan,
            Ending::Deadlocked(conflicts) => break conflicts,
            other => panic!("{other:#?}"),
        };
        let way = (plan.placement(), plan.parts());
        assert!(!seen.contains(&way), "{way:?} again");
        seen.push(way);
        let version = u32::try_from(seen.len()).expect("few");
        fixture.facts.setbacks.push(setback(version, plan.placement(), plan.parts()));
    };
    use Placement::{Fused, Mapped, Staged};
    assert_eq!(
        seen,
        [(Fused, None), (Staged, None), (Mapped, Some(2)), (Mapped, Some(8)), (Mapped, Some(32)), (Mapped, Some(64))]
    );
    let named = conflicts.iter().filter(|conflict| conflict.kind == ConflictKind::Memory);
    assert!(named.clone().any(|conflict| conflict.message.contains("ran out of its 64MiB")), "{conflicts:#?}");
    assert!(named.clone().all(|conflict| !conflict.remedies.is_empty()));
}

#[test]
fn a_setback_is_why_the_way_that_had_it_lost() {
    let mut fixture = Fixture::files(1);
    fixture.facts.setbacks = vec![setback(1, Placement::Fused, None)];
    let found = negotiate_anew(&fixture);
    let Ending::Sealed(plan) = found.ending else { panic!("{:#?}", found.ending) };
    assert_eq!(plan.placement(), Placement::Staged);
    let why = &plan.choices[0].rejected[0].why;
    assert!(
        why.starts_with("version 1 of the plan did it fused, and task load_warehouse ran out of its 64MiB"),
        "{why}"
    );
}
