//! Plans that are made anew, and lives that are lost anywhere on the way.

use std::{collections::BTreeSet, sync::Arc};

use dagwright_model::{
    code::Code,
    id::{Name, PlanHash, TaskId},
    message::{Cost, Placement, Role},
    plan::{Plan, PlannedTask},
    record::{FailureClass, PlanSealed, RecordBody, RunEnded, RunStarted, TaskInstance},
    schema::Column,
    setback::{DriftKind, FailedTask, Setback},
    spec::{Approval, Locator, LossyCast, OnMissing, Ragged, SchemaChange},
    task::{Counts, Input, Move, Problem, SourceRead, Status, TASK_VERSION, TaskSpec, Work},
    units::{ByteSize, Ratio, Span},
};
use dagwright_negotiation::session::Ending;
use proptest::prelude::*;

use super::{ACTIVE, Bench, accepted, plan};
use crate::lifecycle::{Effect, Event, Lifecycle, Pipeline, Purpose, Stage};

/// A plan that reads these columns in one task of that name.
fn reading(task: &str, columns: &str, approval: Approval, policy: SchemaChange) -> Plan {
    let column = |text: &str| {
        let (name, data_type) = text.split_once(' ').expect("a name and a type");
        Column { name: name.into(), data_type: data_type.parse().expect("a type"), nullable: true }
    };
    let read = SourceRead {
        locator: Locator::Uri("data/*.csv".into()),
        format: None,
        text: None,
        null_values: Vec::new(),
        ragged: Ragged::Fail,
        columns: columns.split(", ").map(column).collect(),
        positions: Vec::new(),
        masks: Default::default(),
        classified: Vec::new(),
        filters: Vec::new(),
        incremental: None,
        on_missing: OnMissing::Fail,
        lossy: LossyCast::Reject,
        partitioned: false,
    };
    let work = Move {
        inputs: [(Name::new("items").expect("a name"), Input::Source(read))].into(),
        steps: Vec::new(),
        binds: Default::default(),
        gates: Vec::new(),
        max_rejected: Ratio(0),
        outputs: Vec::new(),
    };
    let mut plan = plan(approval, SchemaChange::None);
    plan.policy.schema_change = policy;
    plan.tasks = vec![PlannedTask {
        role: Role::Loading,
        spec: TaskSpec {
            version: TASK_VERSION,
            pipeline: "p".into(),
            id: TaskId(task.into()),
            work: Work::Move(work),
            connections: Default::default(),
            memory_max: ByteSize(64 << 20),
        },
        after: Vec::new(),
        mapped_over: None,
        teardown: false,
        timeout: Span(60_000),
        provides: Default::default(),
        cost: Cost::default(),
    }];
    plan
}

fn setback(version: u32, class: FailureClass) -> Setback {
    let code = if class == FailureClass::Resources { Code::MemoryExhausted } else { Code::SourceDrifted };
    Setback {
        version,
        plan_hash: PlanHash("ab".repeat(32)),
        class,
        task: Some(FailedTask {
            instance: TaskInstance { task: TaskId("load".into()), map_index: None },
            role: Role::Loading,
            exit: code.exit().number(),
            memory_max: ByteSize(64 << 20),
            memory_peak_bytes: 0,
        }),
        placement: Placement::Fused,
        parts: None,
        problem: Problem { code, subject: "load".into(), message: "m".into(), hint: "h".into() },
        left: 3 - version,
    }
}

fn run_ended(setback: Option<Setback>) -> RecordBody {
    let status = if setback.is_some() { Status::Failed } else { Status::Succeeded };
    let problem = setback.as_ref().map(|setback| setback.problem.clone());
    RecordBody::RunEnded(RunEnded { status, problem, counts: Counts::default(), setback: setback.map(Box::new) })
}

impl Bench {
    /// The agents agree on this plan.
    #[track_caller]
    fn agree(&mut self, plan: Plan, wanted: &str) -> &mut Self {
        let sealed = PlanSealed { hash: plan.hash(), plan: plan.clone() };
        self.records.push(RecordBody::PlanSealed(Box::new(sealed)));
        self.apply(Event::Negotiated(Ending::Sealed(Box::new(plan))), wanted)
    }

    /// The run fails in a way that another plan may not.
    #[track_caller]
    fn set_back(&mut self, setback: Setback, wanted: &str) -> &mut Self {
        self.records.push(run_ended(Some(setback.clone())));
        self.apply(Event::RunEnded(Some(Box::new(setback))), wanted)
    }
}

#[test]
fn a_run_that_was_set_back_is_followed_by_one_of_another_plan() {
    let of = |task: &str| reading(task, "a int64", Approval::Never, SchemaChange::None);
    let mut bench = Bench::of(accepted(Purpose::Run, None), true);
    bench.turn(ACTIVE, 0, "negotiate").agree(of("one"), "airflow2, airflow3, deploy");
    bench.apply(Event::Deployed(Ok(())), "run");
    bench.set_back(setback(1, FailureClass::Resources), "negotiate after 1");
    bench.agree(of("two"), "replanned, airflow2, airflow3, deploy");
    bench.apply(Event::Deployed(Ok(())), "run v2 (Left(1))");
    bench.set_back(setback(2, FailureClass::Resources), "negotiate after 2");
    bench.agree(of("three"), "replanned, airflow2, airflow3, deploy");
    bench.apply(Event::Deployed(Ok(())), "run v3 (Left(0))").apply(Event::RunEnded(None), "end");
    let replanned: Vec<_> = bench
        .records
        .iter()
        .filter_map(|body| match body {
            RecordBody::Replanned(replanned) => Some(&**replanned),
            _ => None,
        })
        .collect();
    assert_eq!(replanned.iter().map(|it| (it.version, it.left)).collect::<Vec<_>>(), [(2, 1), (3, 0)]);
    assert_eq!(replanned[0].replaces, of("one").hash());
    assert_eq!(replanned[0].reason.code, Code::MemoryExhausted);
    let changes: Vec<_> = replanned[1].changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["+ three: runs from now on", "- two: no longer runs"]);
}

#[test]
fn the_very_same_plan_is_no_other_one() {
    let of = || reading("one", "a int64", Approval::Never, SchemaChange::None);
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").agree(of(), "airflow2, airflow3, run");
    bench.set_back(setback(1, FailureClass::SchemaDrift), "negotiate after 1");
    let other_reasons = Plan { cost: Cost { rows: 7, ..Cost::default() }, ..of() };
    bench.agree(other_reasons, "failed DW0206, end");
}

#[test]
fn a_drifted_schema_goes_through_waits_or_is_refused_by_the_policy() {
    use SchemaChange::{Additive, None, Widening};
    let through = "replanned, airflow2, airflow3, run v2 (Left(1))";
    let (waits, refused) = ("replanned, approval_needed", "failed DW0207, end");
    for (after, policy, wanted) in [
        ("a int32, b date", Additive, through),
        ("a int32, b date", Widening, through),
        ("a int32, b date", None, refused),
        ("a int64", Widening, through),
        ("a int64", Additive, waits),
        ("a string", Widening, waits),
        ("b int32", Additive, waits),
        ("b int32", None, refused),
    ] {
        let of = |columns: &str| reading("one", columns, Approval::Never, policy);
        let mut bench = Bench::new(Purpose::Run, Option::None);
        bench.turn(ACTIVE, 0, "negotiate").agree(of("a int32"), "airflow2, airflow3, run");
        bench.set_back(setback(1, FailureClass::SchemaDrift), "negotiate after 1");
        bench.agree(of(after), wanted);
        assert_eq!(bench.life.stage == Stage::AwaitingApproval, wanted == waits, "{after} {policy:?}");
    }
}

#[test]
fn who_approves_a_breaking_schema_sees_both() {
    let of = |columns: &str| reading("one", columns, Approval::Never, SchemaChange::Additive);
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").agree(of("a int32, b date"), "airflow2, airflow3, run");
    bench.set_back(setback(1, FailureClass::SchemaDrift), "negotiate after 1");
    bench.agree(of("a int32"), "replanned, approval_needed");
    let Some(RecordBody::ApprovalNeeded(needed)) = bench.records.last() else { panic!("{:?}", bench.records) };
    let [drift] = needed.drift.as_slice() else { panic!("{needed:?}") };
    assert_eq!((drift.change, drift.before.len(), drift.after.len()), (DriftKind::Breaking, 2, 1));
    assert_eq!(drift.to_string(), "source items: column b is gone (it was date)");
    let approved = Event::Decided { approved: true, by: Some("eve".into()) };
    bench.lose().turn(ACTIVE, 0, "").apply(approved, "approved, airflow2, airflow3, run v2 (Left(1))");
    // The next version needs an approval of its own.
    bench.set_back(setback(2, FailureClass::SchemaDrift), "negotiate after 2");
    bench.agree(of("c int32"), "replanned, approval_needed");
    bench.apply(Event::Decided { approved: false, by: None }, "declined, end");
}

#[test]
fn every_version_of_a_plan_needs_the_approval_that_the_policy_wants() {
    let of = |task: &str| reading(task, "a int64", Approval::Always, SchemaChange::None);
    let approved = || Event::Decided { approved: true, by: Some("eve".into()) };
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").agree(of("one"), "approval_needed");
    bench.apply(approved(), "approved, airflow2, airflow3, run");
    bench.set_back(setback(1, FailureClass::Resources), "negotiate after 1");
    bench.agree(of("two"), "replanned, approval_needed");
    bench.apply(approved(), "approved, airflow2, airflow3, run v2 (Left(1))");
}

#[test]
fn a_request_can_be_cancelled_while_its_plan_is_made_anew() {
    let of = |task: &str| reading(task, "a int64", Approval::Never, SchemaChange::None);
    let cancel = || Event::CancelRequested { by: Some("eve".into()) };
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").agree(of("one"), "airflow2, airflow3, run");
    bench.set_back(setback(1, FailureClass::Resources), "negotiate after 1");
    bench.apply(cancel(), "").agree(of("two"), "cancelled, end");
}

/// What is known of a life from outside.
fn state(life: &Lifecycle) -> (Stage, Option<PlanHash>, Option<PlanHash>, Vec<Setback>, [bool; 3]) {
    (
        life.stage,
        life.plan.as_ref().map(|plan| plan.hash().clone()),
        life.previous.as_ref().map(|plan| plan.hash().clone()),
        life.setbacks.clone(),
        [life.approved, life.compiled, life.replanned],
    )
}

/// A whole life: which plan of each version waits for a person, and what ends its run.
#[derive(Clone, Debug)]
struct Course {
    deploys: bool,
    /// For each version: whether the policy wants it approved, and what its run is set back by.
    versions: Vec<(bool, Option<FailureClass>)>,
}

fn course() -> impl Strategy<Value = Course> {
    let class = prop_oneof![Just(FailureClass::Resources), Just(FailureClass::SchemaDrift)];
    let version = (any::<bool>(), class);
    (any::<bool>(), proptest::collection::vec(version, 0..=2), any::<bool>()).prop_map(|(deploys, set_back, last)| {
        let mut versions: Vec<_> = set_back.into_iter().map(|(waits, class)| (waits, Some(class))).collect();
        versions.push((last, None));
        Course { deploys, versions }
    })
}

/// Lives a course, losing the machine after each of the records that `lost` names by number, and returns all records.
fn live(course: &Course, lost: &[usize]) -> Vec<RecordBody> {
    let accepted = accepted(Purpose::Run, None);
    let new = || Lifecycle::new(&accepted, course.deploys, super::REPLANS_MAX);
    let turn = || Event::Turn { pipeline: Pipeline { status: ACTIVE, revision: 0 } };
    let (mut life, mut records) = (new(), Vec::<RecordBody>::new());
    // Each loss once, or nothing would ever be done.
    let mut lost: BTreeSet<usize> = lost.iter().copied().collect();
    let mut next = Some(turn());
    // Bounded, so that a life that goes round in circles fails.
    for _ in 0..200 {
        let Some(event) = next.take() else { break };
        let effects = life.apply(event);
        let mut wanted = None;
        for effect in effects {
            match effect {
                Effect::Record(body) => records.push(body),
                other => wanted = Some(other),
            }
        }
        // The records of a step are written together, so a machine is lost between steps: what was wanted is not done.
        if lost.remove(&records.len()) {
            life = new();
            for body in &records {
                assert_eq!(life.replay(body, |_| None), Ok(()), "{}", body.kind());
            }
            if life.has_ended() {
                break;
            }
            wanted = None;
            let effects = life.apply(turn());
            for effect in effects {
                match effect {
                    Effect::Record(body) => records.push(body),
                    other => wanted = Some(other),
                }
            }
        }
        next = match wanted {
            Some(Effect::Negotiate(setbacks)) => {
                let (waits, _) = course.versions[setbacks.len()];
                let approval = if waits { Approval::Always } else { Approval::Never };
                let plan = reading(&format!("v{}", setbacks.len()), "a int64", approval, SchemaChange::None);
                records.push(RecordBody::PlanSealed(Box::new(PlanSealed { hash: plan.hash(), plan: plan.clone() })));
                Some(Event::Negotiated(Ending::Sealed(Box::new(plan))))
            }
            Some(Effect::Deploy(_)) => Some(Event::Deployed(Ok(()))),
            Some(Effect::Run { plan, version, .. }) => {
                records.push(RecordBody::RunStarted(Box::new(started(plan.hash(), version))));
                let class = course.versions[version as usize - 1].1;
                let setback = class.map(|class| setback(version, class));
                records.push(run_ended(setback.clone()));
                Some(Event::RunEnded(setback.map(Box::new)))
            }
            None if life.stage == Stage::AwaitingApproval => Some(Event::Decided { approved: true, by: None }),
            Some(Effect::LookUp(_) | Effect::StopRun { .. } | Effect::End | Effect::Record(_)) | None => None,
        };
    }
    assert!(life.has_ended(), "{course:?}");
    records
}

fn started(plan_hash: &PlanHash, version: u32) -> RunStarted {
    RunStarted {
        plan_hash: plan_hash.clone(),
        effect: "r".into(),
        generation: 0,
        base: None,
        staging: "s".into(),
        quarantine: "q".into(),
        interval: None,
        params: Default::default(),
        backfill: false,
        keep_staged: false,
        dag_run: None,
        version,
    }
}

proptest! {
    /// However often the machine is lost, the same is recorded, and every plan runs once.
    #[test]
    fn a_life_that_is_lost_anywhere_is_lived_the_same(course in course(), lost in proptest::collection::vec(0_usize..40, 0..6)) {
        let whole = live(&course, &[]);
        prop_assert_eq!(&live(&course, &lost), &whole);
        let runs = whole.iter().filter(|body| matches!(body, RecordBody::RunStarted(_))).count();
        prop_assert_eq!(runs, course.versions.len());
    }

    /// Replaying a prefix gives what applying gave there, and the rest follows from it.
    #[test]
    fn a_life_replayed_at_every_record_goes_on_to_the_same_end(course in course()) {
        let whole = live(&course, &[]);
        let accepted = accepted(Purpose::Run, None);
        let mut folded = Lifecycle::new(&accepted, course.deploys, super::REPLANS_MAX);
        for (index, body) in whole.iter().enumerate() {
            prop_assert_eq!(folded.replay(body, |_| None), Ok(()));
            let mut anew = Lifecycle::new(&accepted, course.deploys, super::REPLANS_MAX);
            for body in &whole[..=index] {
                prop_assert_eq!(anew.replay(body, |_| None), Ok(()));
            }
            prop_assert_eq!(state(&anew), state(&folded));
        }
        prop_assert!(folded.has_ended());
    }
}

#[test]
fn a_followed_run_is_never_made_anew() {
    let plan = reading("one", "a int64", Approval::Never, SchemaChange::Additive);
    let follows = Some(dagwright_model::record::Followed { dag_run: "scheduled__1".into(), plan: plan.hash() });
    let accepted = dagwright_model::record::Accepted { follows, ..accepted(Purpose::Run, None) };
    let mut life = Lifecycle::new(&accepted, true, super::REPLANS_MAX);
    life.apply(Event::Turn { pipeline: Pipeline { status: ACTIVE, revision: 0 } });
    let from = dagwright_model::id::RequestId("first".into());
    let effects = life.apply(Event::Reused { plan: Arc::new(crate::agreed::Agreed::new(plan)), from });
    let Some(Effect::Run { version: 1, replanning, .. }) = effects.last() else { panic!("{effects:?}") };
    assert!(matches!(replanning, dagwright_engine::Replanning::Never { why } if !why.is_empty()));
}
