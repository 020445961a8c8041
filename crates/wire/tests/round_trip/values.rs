//! Arbitrary values of the model, for property tests.

mod negotiation;

use dagwright_model::{
    ask::{Ask, AskBody},
    code::Code,
    facts::Identity,
    id::{Name, PlanHash, RequestId, TaskId},
    message::{Cost, Fact, Observation, Origin, Placement, Role},
    plan::{ChangeKind, PlanChange, Risk},
    record::{
        Accepted, ApprovalNeeded, Cancelled, DagCompiled, Decision, Ended, EventIdentity, FactRecorded, FailureClass,
        Followed, Ingress, PipelineChanged, PipelineStatus, PlanReused, Purpose, Record, RecordBody, RemedyApplied,
        Replanned, RetryScheduled, RunEnded, RunRemedy, RunStarted, TaskEnded, TaskInstance, TaskStarted,
    },
    schema::{Column, DataType},
    setback::{DriftKind, FailedTask, SchemaDrift, Setback, Side},
    spec::{Interval, SchemaChange},
    task::{
        Counts, Outcome, Partition, PartitionRange, Problem, RunContext, SinkCounts, SourceCounts, Status, TaskEvent,
        TaskRun, TaskSpec, Work,
    },
    units::ByteSize,
};
pub(crate) use negotiation::envelope;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof},
    sample::select,
};
use serde_json::Value;

pub(crate) fn name() -> BoxedStrategy<Name> {
    (any::<u8>(), any::<u16>())
        .prop_map(|(letter, number)| {
            Name::new(format!("{}_{number}", char::from(b'a' + letter % 26))).expect("a valid name")
        })
        .boxed()
}

/// Any text, the empty one too.
pub(crate) fn text() -> BoxedStrategy<String> {
    vec(any::<char>(), 0..8).prop_map(String::from_iter).boxed()
}

/// Any text but the empty one.
pub(crate) fn some_text() -> BoxedStrategy<String> {
    vec(any::<char>(), 1..8).prop_map(String::from_iter).boxed()
}

pub(crate) fn sha256() -> BoxedStrategy<String> {
    any::<u64>().prop_map(|seed| format!("{seed:064x}")).boxed()
}

pub(crate) fn problem() -> BoxedStrategy<Problem> {
    (select(Code::ALL), text(), text(), text())
        .prop_map(|(code, subject, message, hint)| Problem { code, subject, message, hint })
        .boxed()
}

pub(crate) fn cost() -> BoxedStrategy<Cost> {
    (any::<[u64; 5]>(), 0..=100_u8)
        .prop_map(|([rows, bytes, cpu_ms, wall_ms, memory_bytes], confidence)| Cost {
            rows,
            bytes,
            cpu_ms,
            wall_ms,
            memory_bytes,
            confidence,
        })
        .boxed()
}

fn value() -> BoxedStrategy<Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        text().prop_map(Value::from),
        Just(Value::Null),
    ]
    .boxed()
}

fn interval() -> BoxedStrategy<Interval> {
    (some_text(), some_text()).prop_map(|(start, end)| Interval { start, end }).boxed()
}

fn partition() -> BoxedStrategy<Partition> {
    let range =
        prop_oneof![
            vec(text(), 0..3).prop_map(PartitionRange::Files),
            (some_text(), option::of(text()), option::of(text()))
                .prop_map(|(column, from, to)| PartitionRange::KeyRange { column, from, to }),
        ];
    (0..9_u32, 9..20_u32, range).prop_map(|(index, count, range)| Partition { index, count, range }).boxed()
}

fn status() -> BoxedStrategy<Status> {
    select(vec![Status::Succeeded, Status::Failed, Status::Cancelled]).boxed()
}

fn counts() -> BoxedStrategy<Counts> {
    let source = any::<[u64; 6]>().prop_map(|[read, passed, quarantined, skipped, nulled, bytes]| SourceCounts {
        read,
        passed,
        quarantined,
        skipped,
        nulled,
        bytes,
    });
    let sink = any::<[u64; 6]>().prop_map(|[produced, loaded, quarantined, superseded, nulled, bytes]| SinkCounts {
        produced,
        loaded,
        quarantined,
        superseded,
        nulled,
        bytes,
    });
    (
        btree_map(name(), source, 0..3),
        btree_map(name(), any::<u64>(), 0..3),
        btree_map(name(), any::<u64>(), 0..3),
        btree_map(name(), sink, 0..3),
    )
        .prop_map(|(sources, steps, gates, sinks)| Counts { sources, steps, gates, sinks })
        .boxed()
}

fn outcome() -> BoxedStrategy<Outcome> {
    (
        status(),
        any::<bool>(),
        counts(),
        vec(partition(), 0..3),
        btree_map(name(), text(), 0..3),
        option::of(problem()),
        any::<[u64; 2]>(),
    )
        .prop_map(|(status, repeated, counts, partitions, cursors, problem, [elapsed_ms, memory_peak_bytes])| Outcome {
            status,
            repeated,
            counts,
            partitions,
            cursors,
            problem,
            elapsed_ms,
            memory_peak_bytes,
        })
        .boxed()
}

pub(crate) fn task_event() -> BoxedStrategy<TaskEvent> {
    prop_oneof![
        (some_text(), any::<[Option<u64>; 2]>()).prop_map(|(task, [rows_expected, bytes_expected])| {
            TaskEvent::Started { task: TaskId(task), rows_expected, bytes_expected }
        }),
        any::<[u64; 3]>().prop_map(|[rows_read, bytes_read, rows_written]| TaskEvent::Progress {
            rows_read,
            bytes_read,
            rows_written
        }),
        problem().prop_map(TaskEvent::Warning),
        outcome().prop_map(|outcome| TaskEvent::Outcome(Box::new(outcome))),
    ]
    .boxed()
}

fn run_context() -> BoxedStrategy<RunContext> {
    (
        (some_text(), any::<u32>(), sha256(), any::<u32>(), option::of(text()), text(), text()),
        (option::of(interval()), btree_map(text(), value(), 0..3), option::of(partition()), any::<bool>()),
    )
        .prop_map(
            |(
                (effect, generation, hash, attempt, base, staging, quarantine),
                (interval, params, partition, backfill),
            )| RunContext {
                effect,
                generation,
                plan_hash: PlanHash(hash),
                attempt,
                base,
                staging,
                quarantine,
                interval,
                params,
                partition,
                backfill,
                keep_staged: !backfill,
            },
        )
        .boxed()
}

fn identity() -> BoxedStrategy<Identity> {
    (text(), option::of(text()), any::<Option<u16>>(), option::of(text()))
        .prop_map(|(scheme, host, port, database)| Identity { scheme, host, port, database })
        .boxed()
}

pub(crate) fn task_run() -> BoxedStrategy<TaskRun> {
    // What a task does travels as JSON; that it does is one case, serde's own tests are the others.
    let task = (some_text(), some_text(), btree_map(name(), identity(), 0..3), any::<u64>()).prop_map(
        |(pipeline, id, connections, memory)| TaskSpec {
            version: dagwright_model::task::TASK_VERSION,
            pipeline,
            id: TaskId(id),
            work: Work::Cleanup,
            connections,
            memory_max: ByteSize(memory),
        },
    );
    (task, run_context()).prop_map(|(task, run)| TaskRun { task, run }).boxed()
}

fn observation() -> BoxedStrategy<Observation> {
    (vec(problem(), 0..3), text(), text())
        .prop_map(|(problems, source, at)| Observation {
            fact: Fact::Unavailable(problems),
            origin: Origin { source, at },
        })
        .boxed()
}

fn accepted() -> BoxedStrategy<Accepted> {
    (
        (
            some_text(),
            text(),
            sha256(),
            select(vec![Ingress::CommandLine, Ingress::Http, Ingress::Kafka, Ingress::Airflow]),
        ),
        select(vec![Purpose::Plan, Purpose::Run, Purpose::Apply, Purpose::Pause, Purpose::Delete]),
        (option::of(text()), btree_map(name(), value(), 0..3), option::of(interval()), any::<bool>()),
        (any::<Option<u64>>(), option::of((some_text(), some_text())), option::of(text()), option::of(text())),
        option::of((some_text(), sha256())),
    )
        .prop_map(|((pipeline, spec_text, spec_hash, ingress), purpose, asked, sent, follows)| {
            let (base, params, interval, backfill) = asked;
            let (revision, identity, requester, traceparent) = sent;
            Accepted {
                pipeline,
                spec_text,
                spec_hash,
                ingress,
                purpose,
                base,
                params,
                interval,
                backfill,
                revision,
                identity: identity.map(|(source, id)| EventIdentity { source, id }),
                requester,
                traceparent,
                follows: follows.map(|(dag_run, plan)| Followed { dag_run, plan: PlanHash(plan) }),
            }
        })
        .boxed()
}

fn run_started() -> BoxedStrategy<RunStarted> {
    (run_context(), option::of(text()), 1..u32::MAX)
        .prop_map(|(run, dag_run, version)| RunStarted {
            plan_hash: run.plan_hash,
            effect: run.effect,
            generation: run.generation,
            base: run.base,
            staging: run.staging,
            quarantine: run.quarantine,
            interval: run.interval,
            params: run.params,
            backfill: run.backfill,
            keep_staged: run.keep_staged,
            dag_run,
            version,
        })
        .boxed()
}

fn instance() -> BoxedStrategy<TaskInstance> {
    (some_text(), any::<Option<u32>>())
        .prop_map(|(task, map_index)| TaskInstance { task: TaskId(task), map_index })
        .boxed()
}

fn remedy_applied() -> BoxedStrategy<RemedyApplied> {
    let classes = [
        FailureClass::Transient,
        FailureClass::Away,
        FailureClass::SchemaDrift,
        FailureClass::Quality,
        FailureClass::Resources,
        FailureClass::Permission,
        FailureClass::Stopped,
        FailureClass::Bug,
    ];
    (
        select(classes.to_vec()),
        select(vec![RunRemedy::Clear, RunRemedy::Trigger]),
        any::<u32>(),
        any::<u64>(),
        problem(),
    )
        .prop_map(|(class, remedy, number, delay_ms, problem)| RemedyApplied {
            class,
            remedy,
            number,
            delay_ms,
            problem,
        })
        .boxed()
}

fn class() -> impl Strategy<Value = FailureClass> {
    select(vec![FailureClass::SchemaDrift, FailureClass::Resources])
}

fn setback() -> BoxedStrategy<Setback> {
    let placement = select(vec![Placement::Fused, Placement::Mapped, Placement::Staged]);
    let task = (instance(), any::<u8>(), any::<u64>(), any::<u64>()).prop_map(
        |(instance, exit, memory_max, memory_peak_bytes)| FailedTask {
            instance,
            role: Role::Loading,
            exit,
            memory_max: ByteSize(memory_max),
            memory_peak_bytes,
        },
    );
    (any::<u32>(), sha256(), class(), option::of(task), placement, option::of(any::<u32>()), problem(), any::<u32>())
        .prop_map(|(version, hash, class, task, placement, parts, problem, left)| Setback {
            version,
            plan_hash: PlanHash(hash),
            class,
            task,
            placement,
            parts,
            problem,
            left,
        })
        .boxed()
}

fn drift() -> BoxedStrategy<SchemaDrift> {
    let kinds = select(vec![DriftKind::Additive, DriftKind::Widening, DriftKind::Breaking]);
    (select(vec![Side::Source, Side::Sink]), kinds, vec(text(), 0..2))
        .prop_map(|(side, change, what)| SchemaDrift {
            subject: Name::new("items").expect("a name"),
            side,
            change,
            what,
            before: Vec::new(),
            after: vec![Column { name: "a".into(), data_type: DataType::TEXT, nullable: true }],
        })
        .boxed()
}

fn replanned() -> BoxedStrategy<Replanned> {
    let kind = select(vec![ChangeKind::Added, ChangeKind::Removed, ChangeKind::Changed]);
    let risk = select(vec![Risk::Low, Risk::Medium, Risk::High]);
    let change =
        (kind, text(), text(), risk).prop_map(|(kind, subject, what, risk)| PlanChange { kind, subject, what, risk });
    (any::<u32>(), sha256(), sha256(), class(), problem(), vec(change, 0..3), any::<u32>())
        .prop_map(|(version, plan_hash, replaces, class, reason, changes, left)| Replanned {
            version,
            plan_hash: PlanHash(plan_hash),
            replaces: PlanHash(replaces),
            class,
            reason,
            changes,
            left,
        })
        .boxed()
}

fn decision() -> BoxedStrategy<Decision> {
    (sha256(), option::of(text())).prop_map(|(hash, by)| Decision { plan_hash: PlanHash(hash), by }).boxed()
}

fn body() -> BoxedStrategy<RecordBody> {
    let problems = || vec(problem(), 0..3).prop_map(|problems| Ended { problems });
    prop_oneof![
        accepted().prop_map(|accepted| RecordBody::Accepted(Box::new(accepted))),
        (sha256(), observation())
            .prop_map(|(key, observation)| { RecordBody::FactRecorded(Box::new(FactRecorded { key, observation })) }),
        envelope().prop_map(|envelope| RecordBody::MessageSent(Box::new(envelope))),
        (sha256(), some_text()).prop_map(|(hash, from)| {
            RecordBody::PlanReused(PlanReused { hash: PlanHash(hash), from: RequestId(from) })
        }),
        problems().prop_map(RecordBody::Deadlocked),
        problems().prop_map(RecordBody::Failed),
        (sha256(), some_text(), some_text(), sha256()).prop_map(|(hash, target, file, file_hash)| {
            RecordBody::DagCompiled(DagCompiled { plan_hash: PlanHash(hash), target, file, file_hash })
        }),
        run_started().prop_map(|started| RecordBody::RunStarted(Box::new(started))),
        (instance(), any::<u32>(), option::of(partition())).prop_map(|(instance, attempt, partition)| {
            RecordBody::TaskStarted(TaskStarted { instance, attempt, partition })
        }),
        (instance(), any::<u32>(), outcome()).prop_map(|(instance, attempt, outcome)| {
            RecordBody::TaskEnded(Box::new(TaskEnded { instance, attempt, outcome }))
        }),
        (instance(), any::<u32>(), any::<u64>()).prop_map(|(instance, attempt, delay_ms)| {
            RecordBody::RetryScheduled(RetryScheduled { instance, attempt, delay_ms })
        }),
        remedy_applied().prop_map(RecordBody::RemedyApplied),
        (
            sha256(),
            select(vec![SchemaChange::None, SchemaChange::Additive, SchemaChange::Widening]),
            vec(drift(), 0..3)
        )
            .prop_map(|(hash, schema_change, drift)| {
                RecordBody::ApprovalNeeded(ApprovalNeeded { plan_hash: PlanHash(hash), schema_change, drift })
            }),
        decision().prop_map(RecordBody::Approved),
        decision().prop_map(RecordBody::Declined),
        (select(vec![PipelineStatus::Active, PipelineStatus::Paused, PipelineStatus::Deleted]), any::<u64>())
            .prop_map(|(status, revision)| RecordBody::PipelineChanged(PipelineChanged { status, revision })),
        option::of(text()).prop_map(|by| RecordBody::Cancelled(Cancelled { by })),
        (status(), option::of(problem()), outcome(), option::of(setback())).prop_map(
            |(status, problem, outcome, setback)| {
                let setback = setback.map(Box::new);
                RecordBody::RunEnded(RunEnded { status, problem, counts: outcome.counts, setback })
            }
        ),
        replanned().prop_map(|replanned| RecordBody::Replanned(Box::new(replanned))),
    ]
    .boxed()
}

pub(crate) fn ask() -> BoxedStrategy<Ask> {
    let body = prop_oneof![
        accepted().prop_map(|accepted| AskBody::TakeOn(Box::new(accepted))),
        option::of(text()).prop_map(|by| AskBody::Cancel(Cancelled { by })),
        decision().prop_map(AskBody::Approve),
        decision().prop_map(AskBody::Decline),
    ];
    (some_text(), some_text(), any::<u64>(), body)
        .prop_map(|(request, pipeline, at, body)| Ask { request: RequestId(request), pipeline, at, body })
        .boxed()
}

pub(crate) fn record() -> BoxedStrategy<Record> {
    (some_text(), any::<u64>(), any::<u64>(), body())
        .prop_map(|(request, sequence, at, body)| Record { request: RequestId(request), sequence, at, body })
        .boxed()
}
