//! What is measured of runs and tasks.
//!
//! Rows and bytes are counted when a run ends, from the sums that the ledger has too: what an earlier try did already
//! counts once.

use std::sync::LazyLock;

use dagwright_model::{
    catalogue,
    facts::Identity,
    id::Name,
    message::Role,
    plan::{Plan, PlannedTask},
    record::{RecordBody, RunEnded},
    spec::Locator,
    task::{Input, Output, Status, Work},
};
use dagwright_telemetry::metric::{Appears, Label, Metric, SLOW_SECONDS};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, UpDownCounter},
};

const ROLE: Label = Label::of("role", &["orchestrator", "extraction", "transformation", "loading"]);
const STATUS: Label = Label::of("status", &["succeeded", "failed", "cancelled"]);
const CONNECTOR: Label = Label::few("connector", "the catalogue of connectors, and `unknown`");

const RUNS_OPEN: Metric = Metric::gauge("dagwright_runs_open", "{run}", "Runs that this engine is at work on.");
const RUNS: Metric = Metric::counter("dagwright_runs_total", "{run}", "Runs that ended.").labels(&[STATUS]);
const TASKS_RUNNING: Metric =
    Metric::gauge("dagwright_tasks_running", "{task}", "Tries of tasks that are under way.").labels(&[ROLE]);
const TASK_SECONDS: Metric = Metric::histogram(
    "dagwright_task_seconds",
    "s",
    SLOW_SECONDS,
    "the first try of a task ended",
    "How long tries of tasks took.",
)
.labels(&[ROLE, STATUS]);
const TASK_RETRIES: Metric =
    Metric::counter("dagwright_task_retries_total", "{retry}", "Tries of tasks that failed and are made again.")
        .labels(&[ROLE]);
const ROWS_READ: Metric = moved("dagwright_rows_read_total", "{row}", "Records that runs read from sources.");
const ROWS_LOADED: Metric = moved("dagwright_rows_loaded_total", "{row}", "Rows that runs made visible in sinks.");
const ROWS_QUARANTINED: Metric =
    moved("dagwright_rows_quarantined_total", "{row}", "Records and rows that runs put into quarantine.");
const BYTES_READ: Metric = moved("dagwright_read_bytes_total", "By", "Bytes that runs read from sources, as stored.");
const BYTES_WRITTEN: Metric = moved("dagwright_written_bytes_total", "By", "Bytes that runs wrote to sinks.");

/// Every metric of this crate.
pub const TABLE: &[Metric] = &[
    RUNS_OPEN,
    RUNS,
    TASKS_RUNNING,
    TASK_SECONDS,
    TASK_RETRIES,
    ROWS_READ,
    ROWS_LOADED,
    ROWS_QUARANTINED,
    BYTES_READ,
    BYTES_WRITTEN,
    crate::airflow::metrics::TABLE[0],
    crate::airflow::metrics::TABLE[1],
    crate::airflow::metrics::TABLE[2],
];

struct Instruments {
    runs_open: UpDownCounter<i64>,
    runs: Counter<u64>,
    tasks_running: UpDownCounter<i64>,
    task_seconds: Histogram<f64>,
    task_retries: Counter<u64>,
    rows_read: Counter<u64>,
    rows_loaded: Counter<u64>,
    rows_quarantined: Counter<u64>,
    bytes_read: Counter<u64>,
    bytes_written: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright-engine");
    Instruments {
        runs_open: RUNS_OPEN.to_balance(&meter),
        runs: RUNS.to_counter(&meter),
        tasks_running: TASKS_RUNNING.to_balance(&meter),
        task_seconds: TASK_SECONDS.to_histogram(&meter),
        task_retries: TASK_RETRIES.to_counter(&meter),
        rows_read: ROWS_READ.to_counter(&meter),
        rows_loaded: ROWS_LOADED.to_counter(&meter),
        rows_quarantined: ROWS_QUARANTINED.to_counter(&meter),
        bytes_read: BYTES_READ.to_counter(&meter),
        bytes_written: BYTES_WRITTEN.to_counter(&meter),
    }
});

/// Counts something as under way for as long as it lives.
pub(crate) struct UnderWay {
    balance: &'static UpDownCounter<i64>,
    labels: Vec<KeyValue>,
}

/// Makes every series that can be there from the start.
pub fn prepare() {
    LazyLock::force(&INSTRUMENTS);
    crate::airflow::metrics::prepare();
}

pub(crate) fn run_open() -> UnderWay {
    UnderWay::begin(&INSTRUMENTS.runs_open, Vec::new())
}

pub(crate) fn task_running(role: Role) -> UnderWay {
    UnderWay::begin(&INSTRUMENTS.tasks_running, vec![role_label(role)])
}

/// Measures what was recorded of a run.
pub(crate) fn recorded(body: &RecordBody, plan: &Plan) {
    let role = |task| plan.task(task).map(|task| role_label(task.role));
    match body {
        RecordBody::TaskEnded(ended) => {
            if let Some(role) = role(&ended.instance.task) {
                let seconds = ended.outcome.elapsed_ms as f64 / 1000.0;
                INSTRUMENTS.task_seconds.record(seconds, &[role, status_label(ended.outcome.status)]);
            }
        }
        RecordBody::RetryScheduled(retry) => {
            if let Some(role) = role(&retry.instance.task) {
                INSTRUMENTS.task_retries.add(1, &[role]);
            }
        }
        RecordBody::RunEnded(ended) => count_run(ended, plan),
        RecordBody::Accepted(_)
        | RecordBody::FactRecorded(_)
        | RecordBody::MessageSent(_)
        | RecordBody::PlanSealed(_)
        | RecordBody::PlanReused(_)
        | RecordBody::Deadlocked(_)
        | RecordBody::Failed(_)
        | RecordBody::DagCompiled(_)
        | RecordBody::RunStarted(_)
        | RecordBody::TaskStarted(_)
        | RecordBody::ApprovalNeeded(_)
        | RecordBody::Approved(_)
        | RecordBody::Declined(_)
        | RecordBody::PipelineChanged(_)
        | RecordBody::Replanned(_)
        | RecordBody::RemedyApplied(_)
        | RecordBody::Cancelled(_) => {}
    }
}

fn count_run(ended: &RunEnded, plan: &Plan) {
    INSTRUMENTS.runs.add(1, &[status_label(ended.status)]);
    for (source, counts) in &ended.counts.sources {
        let labels = [KeyValue::new("connector", source_connector(plan, source))];
        INSTRUMENTS.rows_read.add(counts.read, &labels);
        INSTRUMENTS.bytes_read.add(counts.bytes, &labels);
        INSTRUMENTS.rows_quarantined.add(counts.quarantined, &labels);
    }
    for (sink, counts) in &ended.counts.sinks {
        let labels = [KeyValue::new("connector", sink_connector(plan, sink))];
        INSTRUMENTS.rows_loaded.add(counts.loaded, &labels);
        INSTRUMENTS.bytes_written.add(counts.bytes, &labels);
        INSTRUMENTS.rows_quarantined.add(counts.quarantined, &labels);
    }
}

fn source_connector(plan: &Plan, source: &Name) -> &'static str {
    let of = |task: &PlannedTask| match &task.spec.work {
        Work::Move(work) => match work.inputs.get(source)? {
            Input::Source(read) => Some(connector(&read.locator, task)),
            Input::Staged { .. } => None,
        },
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => None,
    };
    plan.tasks.iter().find_map(of).unwrap_or(UNKNOWN)
}

fn sink_connector(plan: &Plan, sink: &Name) -> &'static str {
    let of = |task: &PlannedTask| match &task.spec.work {
        Work::Move(work) => work.outputs.iter().find_map(|output| match output {
            Output::Sink(write) if write.name == *sink => Some(connector(&write.locator, task)),
            Output::Sink(_) | Output::Staged { .. } => None,
        }),
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => None,
    };
    plan.tasks.iter().find_map(of).unwrap_or(UNKNOWN)
}

/// The connector of what no task names.
const UNKNOWN: &str = "unknown";

fn connector(locator: &Locator, task: &PlannedTask) -> &'static str {
    let scheme = match locator {
        Locator::Uri(uri) => uri.split_once("://").map_or("file", |(scheme, _)| scheme),
        Locator::Table { connection, .. } | Locator::Query { connection, .. } => {
            task.spec.connections.get(connection).map_or("", |Identity { scheme, .. }| scheme)
        }
    };
    catalogue::by_scheme(scheme).map_or(UNKNOWN, |connector| connector.name)
}

const fn moved(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    let first = Appears::After("the first run over a connector ended");
    Metric::counter(name, unit, help).labels(&[CONNECTOR]).appears(first)
}

fn role_label(role: Role) -> KeyValue {
    KeyValue::new(ROLE.name, role.as_str())
}

fn status_label(status: Status) -> KeyValue {
    let status = match status {
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    };
    KeyValue::new(STATUS.name, status)
}

// === impl UnderWay ===

impl UnderWay {
    fn begin(balance: &'static UpDownCounter<i64>, labels: Vec<KeyValue>) -> Self {
        balance.add(1, &labels);
        Self { balance, labels }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.balance.add(-1, &self.labels);
    }
}
