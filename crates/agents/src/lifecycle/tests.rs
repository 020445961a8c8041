//! The life of a request, event by event.

mod anew;

use std::sync::Arc;

use dagwright_model::{
    code::Code,
    id::RequestId,
    message::Cost,
    plan::{PLAN_VERSION, Plan},
    record::{Accepted, Followed, Ingress, PipelineStatus, Purpose, RecordBody},
    spec::{Airflow, Alerts, Approval, Policy, Retries, SchemaChange},
    task::Problem,
};
use dagwright_negotiation::session::Ending;

use crate::agreed::Agreed;

use super::{Deployment, Effect, Event, Lifecycle, Pipeline, Stage};

fn accepted(purpose: Purpose, revision: Option<u64>) -> Accepted {
    Accepted {
        pipeline: "p".into(),
        spec_text: String::new(),
        spec_hash: "0".repeat(64),
        ingress: Ingress::Http,
        purpose,
        base: None,
        params: Default::default(),
        interval: None,
        backfill: false,
        revision,
        identity: None,
        requester: None,
        traceparent: None,
        follows: None,
    }
}

fn plan(approval: Approval, schema_change: SchemaChange) -> Plan {
    Plan {
        version: PLAN_VERSION,
        pipeline: "p".parse().expect("a valid name"),
        dag_id: "p".into(),
        spec_hash: "0".repeat(64),
        owner: None,
        description: None,
        tags: Vec::new(),
        params: Default::default(),
        schedule: None,
        deadline: None,
        policy: Policy { approval, ..Policy::default() },
        retries: Retries::default(),
        airflow: Airflow::default(),
        alerts: Alerts::default(),
        connections: Default::default(),
        tasks: Vec::new(),
        choices: Vec::new(),
        schema_change,
        cost: Cost::default(),
    }
}

const REPLANS_MAX: u32 = 2;

/// Drives a life and writes down what it does.
struct Bench {
    life: Lifecycle,
    accepted: Accepted,
    /// Whether the engine keeps pipelines.
    deploys: bool,
    records: Vec<RecordBody>,
}

impl Bench {
    fn new(purpose: Purpose, revision: Option<u64>) -> Self {
        Self::of(accepted(purpose, revision), false)
    }

    fn of(accepted: Accepted, deploys: bool) -> Self {
        Self { life: Lifecycle::new(&accepted, deploys, REPLANS_MAX), accepted, deploys, records: Vec::new() }
    }

    #[track_caller]
    fn apply(&mut self, event: Event, wanted: &str) -> &mut Self {
        let effects = self.life.apply(event);
        let mut done = Vec::new();
        for effect in effects {
            done.push(match effect {
                Effect::Record(body) => {
                    let told = told(&body);
                    self.records.push(body);
                    told
                }
                Effect::Negotiate(setbacks) if setbacks.is_empty() => "negotiate".into(),
                Effect::Negotiate(setbacks) => format!("negotiate after {}", setbacks.len()),
                Effect::LookUp(_) => "look up".into(),
                Effect::Deploy(Deployment::Plan { resume: false, .. }) => "deploy".into(),
                Effect::Deploy(Deployment::Plan { resume: true, .. }) => "deploy and resume".into(),
                Effect::Deploy(Deployment::Pause) => "pause".into(),
                Effect::Deploy(Deployment::Remove) => "remove".into(),
                Effect::Run { version: 1, .. } => "run".into(),
                Effect::Run { version, replanning, .. } => format!("run v{version} ({replanning:?})"),
                Effect::StopRun { .. } => "stop".into(),
                Effect::End => "end".into(),
            });
        }
        assert_eq!(done.join(", "), wanted);
        self
    }

    #[track_caller]
    fn turn(&mut self, status: PipelineStatus, revision: u64, wanted: &str) -> &mut Self {
        self.apply(Event::Turn { pipeline: Pipeline { status, revision } }, wanted)
    }

    #[track_caller]
    fn seal(&mut self, approval: Approval, change: SchemaChange, wanted: &str) -> &mut Self {
        let plan = plan(approval, change);
        // The orchestrator records it.
        let sealed = dagwright_model::record::PlanSealed { hash: plan.hash(), plan: plan.clone() };
        self.records.push(RecordBody::PlanSealed(Box::new(sealed)));
        self.apply(Event::Negotiated(Ending::Sealed(Box::new(plan))), wanted)
    }

    /// Loses the machine and builds it anew from what it recorded.
    fn lose(&mut self) -> &mut Self {
        self.life = Lifecycle::new(&self.accepted, self.deploys, REPLANS_MAX);
        for body in &self.records {
            assert_eq!(self.life.replay(body, |_| None), Ok(()), "{}", body.kind());
        }
        self
    }
}

fn told(body: &RecordBody) -> String {
    match body {
        RecordBody::Failed(ended) => format!("failed {}", ended.problems[0].code),
        RecordBody::PipelineChanged(changed) => format!("{:?} {}", changed.status, changed.revision),
        RecordBody::DagCompiled(compiled) => compiled.target.clone(),
        other => other.kind().into(),
    }
}

const ACTIVE: PipelineStatus = PipelineStatus::Active;

#[test]
fn a_run_is_negotiated_compiled_and_run() {
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate");
    bench.seal(Approval::OnSchemaChange, SchemaChange::None, "airflow2, airflow3, run");
    bench.apply(Event::RunEnded(None), "end");
    assert!(bench.life.has_ended());
}

#[test]
fn a_plan_that_needs_approval_waits_for_it() {
    let cases = [
        (Approval::Never, SchemaChange::Widening, false),
        (Approval::OnSchemaChange, SchemaChange::None, false),
        (Approval::OnSchemaChange, SchemaChange::Additive, true),
        (Approval::Always, SchemaChange::None, true),
    ];
    for (approval, change, waits) in cases {
        let mut bench = Bench::new(Purpose::Run, None);
        bench.turn(ACTIVE, 0, "negotiate");
        bench.seal(approval, change, if waits { "approval_needed" } else { "airflow2, airflow3, run" });
        assert_eq!(bench.life.stage == Stage::AwaitingApproval, waits);
    }
    let decided = |approved| Event::Decided { approved, by: Some("eve".into()) };
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Always, SchemaChange::None, "approval_needed");
    bench.lose().turn(ACTIVE, 0, "").apply(decided(true), "approved, airflow2, airflow3, run");
    bench.apply(decided(false), "");
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Always, SchemaChange::None, "approval_needed");
    bench.apply(decided(false), "declined, end").apply(decided(true), "end");
}

#[test]
fn a_revision_must_be_above_the_applied_one() {
    for (given, applied, wanted) in [
        (None, 0, "airflow2, airflow3, Active 1, end"),
        (None, 4, "airflow2, airflow3, Active 5, end"),
        (Some(9), 4, "airflow2, airflow3, Active 9, end"),
    ] {
        let mut bench = Bench::new(Purpose::Apply, given);
        bench.turn(ACTIVE, applied, "negotiate").seal(Approval::Never, SchemaChange::None, wanted);
    }
    for given in [0, 3, 4] {
        Bench::new(Purpose::Apply, Some(given)).turn(ACTIVE, 4, "failed DW0804, end");
    }
}

#[test]
fn a_pipeline_that_rests_runs_nothing_until_it_is_applied() {
    for status in [PipelineStatus::Paused, PipelineStatus::Deleted] {
        Bench::new(Purpose::Run, None).turn(status, 2, "failed DW0805, end");
        Bench::new(Purpose::Apply, None).turn(status, 2, "negotiate");
        Bench::new(Purpose::Pause, None).turn(status, 2, "Paused 2, end");
        Bench::new(Purpose::Delete, None).turn(status, 2, "Deleted 2, end");
    }
}

#[test]
fn where_pipelines_are_kept_a_plan_is_deployed_before_it_runs() {
    let deployed = || Event::Deployed(Ok(()));
    let mut bench = Bench::of(accepted(Purpose::Run, None), true);
    bench.turn(ACTIVE, 0, "negotiate");
    bench.seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, deploy");
    // Lost while it was deployed: that is done again, to no further effect.
    bench.lose().turn(ACTIVE, 0, "deploy").apply(deployed(), "run").apply(deployed(), "");
    bench.apply(Event::RunEnded(None), "end");

    for (status, wanted) in [
        (ACTIVE, "airflow2, airflow3, deploy"),
        (PipelineStatus::Paused, "airflow2, airflow3, deploy and resume"),
        (PipelineStatus::Deleted, "airflow2, airflow3, deploy and resume"),
    ] {
        let mut bench = Bench::of(accepted(Purpose::Apply, None), true);
        bench.turn(status, 2, "negotiate").seal(Approval::Never, SchemaChange::None, wanted);
        bench.apply(deployed(), "Active 3, end");
    }
    for (purpose, wanted, then) in
        [(Purpose::Pause, "pause", "Paused 2, end"), (Purpose::Delete, "remove", "Deleted 2, end")]
    {
        Bench::of(accepted(purpose, None), true).turn(ACTIVE, 2, wanted).apply(deployed(), then);
    }
}

#[test]
fn what_cannot_be_deployed_is_refused_and_may_be_cancelled_meanwhile() {
    let problem = Problem { code: Code::DagRefused, subject: "p".into(), message: "m".into(), hint: "h".into() };
    let mut bench = Bench::of(accepted(Purpose::Run, None), true);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, deploy");
    bench.apply(Event::Deployed(Err(problem)), "failed DW0913, end");
    let mut bench = Bench::of(accepted(Purpose::Run, None), true);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, deploy");
    bench.apply(Event::CancelRequested { by: None }, "cancelled, end").apply(Event::Deployed(Ok(())), "end");
}

#[test]
fn a_run_that_is_there_is_followed_whatever_its_pipeline_is() {
    for status in [ACTIVE, PipelineStatus::Paused, PipelineStatus::Deleted] {
        let plan = plan(Approval::Always, SchemaChange::Widening);
        let follows = Some(Followed { dag_run: "scheduled__1".into(), plan: plan.hash() });
        let mut bench = Bench::of(Accepted { follows, ..accepted(Purpose::Run, None) }, true);
        bench.turn(status, 0, "look up");
        let reused = Event::Reused { plan: Arc::new(Agreed::new(plan)), from: RequestId("first".into()) };
        bench.apply(reused, "plan_reused, run").apply(Event::RunEnded(None), "end");
    }
}

#[test]
fn what_was_to_be_done_is_done_again_after_a_loss() {
    let mut bench = Bench::new(Purpose::Run, None);
    bench.lose().turn(ACTIVE, 0, "negotiate");
    bench.lose().turn(ACTIVE, 0, "negotiate");
    bench.seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, run");
    // Lost before the engine recorded that the run began: it is not compiled again.
    bench.lose().turn(ACTIVE, 0, "run").apply(Event::RunEnded(None), "end");
    // Lost between the sealing and everything after it.
    let mut bench = Bench::new(Purpose::Apply, Some(3));
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, Active 3, end");
    bench.records.truncate(1);
    bench.lose().turn(ACTIVE, 0, "airflow2, airflow3, Active 3, end");
}

#[test]
fn a_cancelled_request_stops_where_it_is() {
    let cancel = || Event::CancelRequested { by: Some("eve".into()) };
    Bench::new(Purpose::Run, None).apply(cancel(), "cancelled, end");
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").apply(cancel(), "");
    bench.seal(Approval::Never, SchemaChange::None, "cancelled, end");
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, run");
    bench.apply(cancel(), "stop").apply(Event::RunEnded(None), "end").apply(cancel(), "end");
}

#[test]
fn a_request_that_is_given_up_fails_alone() {
    let problem =
        || Problem { code: Code::AgentLost, subject: String::new(), message: String::new(), hint: String::new() };
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").apply(Event::GivenUp(problem()), "failed DW0203, end");
    let mut bench = Bench::new(Purpose::Run, None);
    bench.turn(ACTIVE, 0, "negotiate").seal(Approval::Never, SchemaChange::None, "airflow2, airflow3, run");
    bench.apply(Event::GivenUp(problem()), "end");
    assert!(!bench.life.has_ended(), "its run is continued later");
}
