//! Small plans and outcomes for tests, built by name.

use std::collections::BTreeMap;

use dagwright_model::{
    canonical,
    code::Code,
    facts::Identity,
    id::{Name, RequestId, TaskId},
    message::{Cost, Role},
    plan::{PLAN_VERSION, Plan, PlannedTask},
    record::{Accepted, Ingress, Purpose, Record, RecordBody, RunStarted, TaskInstance},
    spec::{
        Airflow, Alerts, Locator, LossyCast, OnMissing, Policy, Ragged, Retries, SchemaChange, SinkMode, WriteOptions,
    },
    task::{
        Counts, Input, Move, Outcome, Output, Partition, PartitionRange, Problem, Publish, SinkCounts, SinkWrite,
        SourceRead, Split, SplitBy, Status, TASK_VERSION, TaskSpec, Work, WriteStrategy,
    },
    units::{ByteSize, Ratio, Span},
};
use dagwright_store::Store;

/// A plan of these tasks, with three retries after 30 s, and no deadline.
pub(crate) fn plan(tasks: Vec<PlannedTask>) -> Plan {
    Plan {
        version: PLAN_VERSION,
        pipeline: name("p"),
        dag_id: "p".into(),
        spec_hash: canonical::hash(&"spec"),
        owner: None,
        description: None,
        tags: Vec::new(),
        params: BTreeMap::new(),
        schedule: None,
        deadline: None,
        policy: Policy::default(),
        retries: Retries::default(),
        airflow: Airflow::default(),
        alerts: Alerts::default(),
        connections: BTreeMap::new(),
        tasks,
        choices: Vec::new(),
        schema_change: SchemaChange::None,
        cost: Cost::default(),
    }
}

/// A task after others; what it does is its program's to know.
pub(crate) fn task(id: &str, after: &[&str]) -> PlannedTask {
    PlannedTask {
        role: Role::Loading,
        spec: TaskSpec {
            version: TASK_VERSION,
            pipeline: "p".into(),
            id: TaskId(id.into()),
            work: Work::Cleanup,
            connections: BTreeMap::new(),
            memory_max: ByteSize(64 << 20),
        },
        after: after.iter().map(|id| TaskId((*id).into())).collect(),
        mapped_over: None,
        teardown: false,
        timeout: Span(60_000),
        provides: BTreeMap::new(),
        cost: Cost::default(),
    }
}

pub(crate) fn teardown(id: &str, after: &[&str]) -> PlannedTask {
    PlannedTask { teardown: true, ..task(id, after) }
}

pub(crate) fn split(id: &str, partitions_max: u32) -> PlannedTask {
    let read = SourceRead {
        locator: Locator::Uri("data/*.csv".into()),
        format: None,
        text: None,
        null_values: Vec::new(),
        ragged: Ragged::Fail,
        columns: Vec::new(),
        positions: Vec::new(),
        masks: BTreeMap::new(),
        classified: Vec::new(),
        filters: Vec::new(),
        incremental: None,
        on_missing: OnMissing::Fail,
        lossy: LossyCast::Reject,
        partitioned: true,
    };
    let mut task = task(id, &[]);
    task.spec.work = Work::Split(Split { source: name("source"), read, by: SplitBy::Files, partitions_max });
    task
}

pub(crate) fn mapped(id: &str, over: &str) -> PlannedTask {
    PlannedTask { mapped_over: Some(TaskId(over.into())), ..task(id, &[over]) }
}

/// A task that reads relations from the staging area and leaves others there.
pub(crate) fn staging(id: &str, after: &[&str], reads: &[&str], leaves: &[&str]) -> PlannedTask {
    let input = |relation: &&str| (name(relation), Input::Staged { columns: Vec::new() });
    let mut task = task(id, after);
    task.spec.work = Work::Move(Move {
        inputs: reads.iter().map(input).collect(),
        steps: Vec::new(),
        binds: BTreeMap::new(),
        gates: Vec::new(),
        max_rejected: Ratio(0),
        outputs: leaves.iter().map(|relation| Output::Staged { relation: name(relation) }).collect(),
    });
    task
}

/// Publishes what a mapped task staged for the sink that [`succeeded`] counts rows of.
pub(crate) fn publish(id: &str, staged_by: &str) -> PlannedTask {
    let sink = SinkWrite {
        name: name("sink"),
        relation: name("source"),
        locator: Locator::Uri("out/".into()),
        format: None,
        write: WriteOptions::default(),
        mode: SinkMode::Append,
        strategy: WriteStrategy::PartitionStaging,
        columns: Vec::new(),
        lossy: LossyCast::Reject,
        key: Vec::new(),
        dedupe: Vec::new(),
        min_rows: 0,
        meta_columns: false,
        changes: Vec::new(),
        cursors: Vec::new(),
    };
    let mut task = task(id, &[staged_by]);
    task.spec.work = Work::Publish(Publish { sink, staged_by: TaskId(staged_by.into()) });
    task
}

pub(crate) fn connected(id: &str, connection: &str) -> PlannedTask {
    let identity = Identity { scheme: "postgresql".into(), host: Some("db".into()), port: None, database: None };
    let mut task = task(id, &[]);
    task.spec.connections.insert(name(connection), identity);
    task
}

pub(crate) fn started(plan: &Plan) -> RunStarted {
    RunStarted {
        plan_hash: plan.hash(),
        effect: "r".into(),
        generation: 0,
        base: None,
        staging: "staging".into(),
        quarantine: "quarantine".into(),
        interval: None,
        params: BTreeMap::new(),
        backfill: false,
        keep_staged: false,
        dag_run: None,
        version: 1,
    }
}

/// Accepts the request that the runs of tests belong to.
pub(crate) fn accept(store: &dyn Store) {
    accept_at(store, 0);
}

/// The same, at a time in milliseconds since the Unix epoch.
pub(crate) fn accept_at(store: &dyn Store, at: u64) {
    let body = RecordBody::Accepted(Box::new(accepted("p")));
    store.append(&[Record { request: request(), sequence: 0, at, body }]).expect("accepts");
}

/// A request to run a pipeline.
pub(crate) fn accepted(pipeline: &str) -> Accepted {
    Accepted {
        pipeline: pipeline.into(),
        spec_text: String::new(),
        spec_hash: canonical::hash(&"spec"),
        ingress: Ingress::CommandLine,
        purpose: Purpose::Run,
        base: None,
        params: BTreeMap::new(),
        interval: None,
        backfill: false,
        revision: None,
        identity: None,
        requester: None,
        traceparent: None,
        follows: None,
    }
}

pub(crate) fn request() -> RequestId {
    RequestId("r".into())
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// `load` or `load[2]`.
pub(crate) fn instance(text: &str) -> TaskInstance {
    match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((task, index)) => {
            TaskInstance { task: TaskId(task.into()), map_index: Some(index.parse().expect("an index")) }
        }
        None => TaskInstance { task: TaskId(text.into()), map_index: None },
    }
}

/// An outcome that loaded one row.
pub(crate) fn succeeded() -> Outcome {
    let one = SinkCounts { produced: 1, loaded: 1, ..SinkCounts::default() };
    let counts = Counts { sinks: BTreeMap::from([(name("sink"), one)]), ..Counts::default() };
    Outcome {
        status: Status::Succeeded,
        repeated: false,
        counts,
        partitions: Vec::new(),
        cursors: BTreeMap::new(),
        problem: None,
        elapsed_ms: 1,
        memory_peak_bytes: 1,
    }
}

pub(crate) fn split_in(count: u32) -> Outcome {
    let range = |index| PartitionRange::Files(vec![format!("{index}.csv")]);
    let partitions = (0..count).map(|index| Partition { index, count, range: range(index) }).collect();
    Outcome { partitions, counts: Counts::default(), ..succeeded() }
}

pub(crate) fn failed(code: Code) -> Outcome {
    let problem = Problem { code, subject: "s".into(), message: "it failed".into(), hint: "mend it".into() };
    let status = if code == Code::Cancelled { Status::Cancelled } else { Status::Failed };
    Outcome { status, counts: Counts::default(), problem: Some(problem), ..succeeded() }
}
