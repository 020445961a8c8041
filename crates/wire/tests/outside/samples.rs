//! One event of each kind, told of the records of a run as it happens.

use dagwright_model::{
    code::Code,
    event::{self, Event, EventKind, Refusal, Subject},
    id::{Name, PlanHash, RequestId, TaskId},
    message::Cost,
    plan::{ChangeKind, PLAN_VERSION, Plan, PlanChange, Risk},
    record::{
        Accepted, ApprovalNeeded, DagCompiled, Ended, EventIdentity, FailureClass, Ingress, PipelineChanged,
        PipelineStatus, PlanSealed, Purpose, Record, RecordBody, Replanned, RetryScheduled, RunEnded, RunStarted,
        TaskEnded, TaskInstance, TaskStarted,
    },
    schema::Column,
    setback::{DriftKind, SchemaDrift, Side},
    spec::{Airflow, Alerts, Policy, Retries, SchemaChange},
    task::{Counts, Outcome, Problem, SinkCounts, SourceCounts, Status},
};

/// 2025-01-01T03:00:00Z.
const AT: u64 = 1_735_700_400_000;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Returns one event of each kind, in the order of [`EventKind::ALL`].
pub(crate) fn events() -> Vec<Event> {
    let request = RequestId::derive("aviation.flights_daily", "/acme/planner", "2025-01-01");
    let events = bodies().into_iter().zip(0..).map(|((planned, runs, body), sequence)| {
        let plan = PlanHash("5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592".into());
        let subject = Subject {
            pipeline: "aviation.flights_daily",
            plan: planned.then_some(&plan),
            runs,
            dag_run: None,
            traceparent: Some(TRACEPARENT),
        };
        let record = Record { request: request.clone(), sequence, at: AT + sequence * 1_250, body };
        event::of(subject, &record).expect("each of these is told")
    });
    let mut events: Vec<_> = events.collect();
    events.sort_by_key(|event| event.kind);
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, EventKind::ALL);
    events
}

/// Returns the event of a request that ingress refused.
pub(crate) fn refusal() -> Event {
    event::refused(Refusal {
        pipeline: "aviation.flights_daily",
        identity: &EventIdentity { source: "/acme/planner".into(), id: "2025-01-01".into() },
        attempt: 1,
        at: AT,
        traceparent: Some(TRACEPARENT),
        problem: Problem {
            code: Code::NotAllowed,
            subject: "sources.flights".into(),
            message: "\"s3://lake/flights-*.csv\" is not among the URIs that this service may touch".into(),
            hint: "see uris.allow of the service".into(),
        },
    })
}

/// Returns one event of each kind, and of a kind that has several forms one of each.
pub(crate) fn every_form() -> Vec<Event> {
    let mut events = events();
    events.push(replanned());
    events.push(refusal());
    events
}

/// A plan that takes the place of one that ran out of memory.
fn replanned() -> Event {
    let request = RequestId::derive("aviation.flights_daily", "/acme/planner", "2025-01-01");
    let plan = PlanHash("7d793037a0760186574b0282f2f435e77d793037a0760186574b0282f2f435e7".into());
    let subject = Subject {
        pipeline: "aviation.flights_daily",
        plan: Some(&plan),
        runs: false,
        dag_run: None,
        traceparent: Some(TRACEPARENT),
    };
    let change =
        |kind, subject: &str, what: &str, risk| PlanChange { kind, subject: subject.into(), what: what.into(), risk };
    let body = Replanned {
        version: 2,
        plan_hash: plan.clone(),
        replaces: PlanHash("0".repeat(64)),
        class: FailureClass::Resources,
        reason: Problem {
            code: Code::MemoryExhausted,
            subject: "load_warehouse".into(),
            message: "the task needs more than its 64MiB".into(),
            hint: "raise goals.memory_max".into(),
        },
        changes: vec![
            change(ChangeKind::Added, "extract_flights", "runs from now on", Risk::Medium),
            change(ChangeKind::Changed, "load_warehouse", "reads otherwise", Risk::Low),
        ],
        left: 1,
    };
    let record = Record { request, sequence: 60, at: AT + 60_000, body: RecordBody::Replanned(Box::new(body)) };
    event::of(subject, &record).expect("an event")
}

fn drift() -> SchemaDrift {
    let column = |name: &str, data_type: &str| Column {
        name: name.into(),
        data_type: data_type.parse().expect("a type"),
        nullable: true,
    };
    SchemaDrift {
        subject: name("flights"),
        side: Side::Source,
        change: DriftKind::Breaking,
        what: vec!["column delay is string, it was int64".into()],
        before: vec![column("flight", "int64"), column("delay", "int64")],
        after: vec![column("flight", "int64"), column("delay", "string")],
    }
}

/// The records, each with whether there is a plan by then and whether its run has begun.
fn bodies() -> Vec<(bool, bool, RecordBody)> {
    let ended = |status, problem| RunEnded { status, problem, counts: counts(), setback: None };
    let task = |status, problem| {
        RecordBody::TaskEnded(Box::new(TaskEnded {
            instance: instance(),
            attempt: 1,
            outcome: outcome(status, problem),
        }))
    };
    let changed = |status, revision| RecordBody::PipelineChanged(PipelineChanged { status, revision });
    let plan = || PlanHash("0".repeat(64));
    vec![
        (false, false, RecordBody::Accepted(Box::new(accepted()))),
        (true, false, RecordBody::PlanSealed(Box::new(PlanSealed { hash: plan(), plan: empty_plan() }))),
        (false, false, RecordBody::Deadlocked(Ended { problems: vec![conflict()] })),
        (false, false, RecordBody::Failed(Ended { problems: vec![missing()] })),
        (
            true,
            false,
            RecordBody::ApprovalNeeded(ApprovalNeeded {
                plan_hash: plan(),
                schema_change: SchemaChange::Additive,
                drift: vec![drift()],
            }),
        ),
        (
            true,
            false,
            RecordBody::DagCompiled(DagCompiled {
                plan_hash: plan(),
                target: "airflow3".into(),
                file: "aviation.flights_daily.py".into(),
                file_hash: "0".repeat(64),
            }),
        ),
        (true, false, changed(PipelineStatus::Active, 7)),
        (false, false, changed(PipelineStatus::Deleted, 8)),
        (true, true, RecordBody::RunStarted(Box::new(run_started()))),
        (true, true, RecordBody::TaskStarted(TaskStarted { instance: instance(), attempt: 1, partition: None })),
        (true, true, task(Status::Succeeded, None)),
        (true, true, task(Status::Failed, Some(missing()))),
        (true, true, RecordBody::RetryScheduled(RetryScheduled { instance: instance(), attempt: 2, delay_ms: 30_000 })),
        (true, true, RecordBody::RunEnded(ended(Status::Succeeded, None))),
        (true, true, RecordBody::RunEnded(ended(Status::Failed, Some(missing())))),
        (true, true, RecordBody::RunEnded(ended(Status::Cancelled, Some(cancelled())))),
    ]
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

fn instance() -> TaskInstance {
    TaskInstance { task: TaskId("load_warehouse".into()), map_index: None }
}

fn conflict() -> Problem {
    Problem {
        code: Code::Deadlocked,
        subject: "warehouse".into(),
        message: "column amount: source string, sink decimal(10,2) not null".into(),
        hint: "allow policy.lossy_cast: quarantine, or widen the column".into(),
    }
}

fn missing() -> Problem {
    Problem {
        code: Code::SourceMissing,
        subject: "flights".into(),
        message: "nothing matches data/flights-*.csv".into(),
        hint: "check the path, or set on_missing: skip".into(),
    }
}

fn cancelled() -> Problem {
    Problem {
        code: Code::Cancelled,
        subject: "aviation.flights_daily".into(),
        message: "the run was told to stop".into(),
        hint: "send the request again when you want its data".into(),
    }
}

fn counts() -> Counts {
    let source = SourceCounts { read: 1000, passed: 998, quarantined: 2, bytes: 80_000, ..Default::default() };
    let sink = SinkCounts { produced: 998, loaded: 997, superseded: 1, bytes: 40_000, ..Default::default() };
    Counts {
        sources: [(name("flights"), source)].into(),
        sinks: [(name("warehouse"), sink)].into(),
        ..Default::default()
    }
}

fn outcome(status: Status, problem: Option<Problem>) -> Outcome {
    Outcome {
        status,
        repeated: false,
        counts: if status == Status::Succeeded { counts() } else { Counts::default() },
        partitions: Vec::new(),
        cursors: Default::default(),
        problem,
        elapsed_ms: 1_234,
        memory_peak_bytes: 0,
    }
}

fn accepted() -> Accepted {
    Accepted {
        pipeline: "aviation.flights_daily".into(),
        spec_text: "version: 1\n".into(),
        spec_hash: "0".repeat(64),
        ingress: Ingress::Kafka,
        purpose: Purpose::Run,
        base: None,
        params: Default::default(),
        interval: None,
        backfill: false,
        revision: None,
        identity: Some(EventIdentity { source: "/acme/planner".into(), id: "2025-01-01".into() }),
        requester: None,
        traceparent: Some(TRACEPARENT.into()),
        follows: None,
    }
}

fn run_started() -> RunStarted {
    RunStarted {
        plan_hash: PlanHash("0".repeat(64)),
        effect: "e".into(),
        generation: 0,
        base: None,
        staging: "staging".into(),
        quarantine: "quarantine".into(),
        interval: None,
        params: Default::default(),
        backfill: false,
        keep_staged: false,
        dag_run: None,
        version: 1,
    }
}

fn empty_plan() -> Plan {
    Plan {
        version: PLAN_VERSION,
        pipeline: name("flights_daily"),
        dag_id: "aviation.flights_daily".into(),
        spec_hash: "0".repeat(64),
        owner: None,
        description: None,
        tags: Vec::new(),
        params: Default::default(),
        schedule: None,
        deadline: None,
        policy: Policy::default(),
        retries: Retries::default(),
        airflow: Airflow::default(),
        alerts: Alerts::default(),
        connections: Default::default(),
        tasks: Vec::new(),
        choices: Vec::new(),
        schema_change: SchemaChange::None,
        cost: Cost::default(),
    }
}
