//! What a plan's DAG is made of, for every target and layout: decided here once, written as Python by [`emit`](crate::emit)
//! and as JSON into the plan file, from which `dagwright_airflow.loader` builds the same DAG.
//!
//! Whatever Airflow does not take as it stands in a plan (long spans, odd tags, control characters) is mended here.

use std::collections::BTreeMap;

use dagwright_model::{
    id::{Name, PlanHash},
    message::Role,
    plan::{Plan, PlannedTask},
    spec::{Alerts, Param, ParamType, Schedule},
    task::{Output, Work, WriteStrategy},
    units::Span,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::doc;

/// The tag by which people, and who deploys them, find our DAGs.
pub const TAG: &str = "dagwright";

/// The tag of a DAG that stands in for one whose plan cannot be read; package `dagwright-airflow` has the same.
pub const UNREADABLE_TAG: &str = "dagwright-unreadable";

/// The most characters Airflow lets a tag have.
const TAG_CHARS_MAX: usize = 100;

/// The longest pause between two tries.
const RETRY_DELAY_MAX: Span = Span(3_600_000);

/// The longest span written, ten years: Python's timers do not take much more, and nobody means it.
const SPAN_MAX: Span = Span(3650 * 86_400_000);

/// The day from which a pipeline without one may run; with `catchup` off it changes nothing.
const START_DATE: &str = "1970-01-01";

/// A DAG.
#[derive(Debug, Serialize)]
pub(crate) struct Dag<'a> {
    pub(crate) dag_id: &'a str,
    pub(crate) description: Option<String>,
    pub(crate) doc_md: String,
    pub(crate) schedule: Option<Trigger<'a>>,
    pub(crate) start_date: Day<'a>,
    pub(crate) catchup: bool,
    pub(crate) dagrun_timeout_ms: Option<u64>,
    /// As long, but from when a run was queued, and only told: for Airflows that have deadlines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_ms: Option<u64>,
    /// Who is told what by Airflow.
    #[serde(skip_serializing_if = "Alerts::is_empty")]
    pub(crate) alerts: Alerts,
    pub(crate) max_active_runs: u32,
    /// Whoever deploys it wants it to run; whoever pauses it later is heard.
    pub(crate) is_paused_upon_creation: bool,
    pub(crate) tags: Vec<String>,
    pub(crate) params: BTreeMap<&'a Name, DagParam<'a>>,
    pub(crate) default_args: DefaultArgs<'a>,
    /// In an order where each follows what it is after.
    pub(crate) tasks: Vec<DagTask<'a>>,
}

/// What starts runs.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Trigger<'a> {
    Cron { cron: &'a str, timezone: &'a str },
    Assets { assets: &'a [String] },
}

/// The start of a day.
#[derive(Debug, Serialize)]
pub(crate) struct Day<'a> {
    pub(crate) day: &'a str,
    pub(crate) timezone: &'a str,
}

/// A parameter: its default, if it has one, and what JSON Schema says of it.
#[derive(Debug, Serialize)]
pub(crate) struct DagParam<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<&'a Value>,
    pub(crate) schema: BTreeMap<&'static str, Value>,
}

/// What every task has.
#[derive(Debug, Serialize)]
pub(crate) struct DefaultArgs<'a> {
    pub(crate) owner: Option<String>,
    pub(crate) retries: u32,
    pub(crate) retry_delay_ms: u64,
    pub(crate) max_retry_delay_ms: u64,
    pub(crate) pool: &'a str,
    pub(crate) priority_weight: i32,
}

/// A task.
#[derive(Debug, Serialize)]
pub(crate) struct DagTask<'a> {
    pub(crate) task_id: &'a str,
    /// The class of `dagwright_airflow` that runs it.
    pub(crate) operator: &'static str,
    pub(crate) execution_timeout_ms: u64,
    /// The task over whose partitions it is mapped; then it is after that one too.
    pub(crate) mapped_over: Option<&'a str>,
    /// The assets it updates: the sinks that it makes visible.
    pub(crate) outlets: Vec<String>,
    /// The tasks before it, but for the one it is mapped over and its set-ups.
    pub(crate) after: Vec<&'a str>,
    /// For a teardown: the tasks whose set-up it undoes.
    pub(crate) teardown_of: Option<Vec<&'a str>>,
}

// === impl Dag ===

impl<'a> Dag<'a> {
    /// Returns the DAG of a plan with this hash.
    pub(crate) fn new(plan: &'a Plan, hash: &PlanHash) -> Self {
        let cron = plan.schedule.as_ref().and_then(Schedule::cron);
        Self {
            dag_id: &plan.dag_id,
            description: plan.description.as_deref().filter(|text| !text.is_empty()).map(without_controls),
            doc_md: doc::markdown(plan, hash),
            schedule: plan.schedule.as_ref().map(|schedule| match schedule {
                Schedule::Cron(it) => Trigger::Cron { cron: &it.cron, timezone: &it.timezone },
                Schedule::Assets(it) => Trigger::Assets { assets: &it.assets },
            }),
            start_date: Day {
                day: cron.and_then(|it| it.start_date.as_deref()).unwrap_or(START_DATE),
                timezone: cron.map_or("UTC", |it| &it.timezone),
            },
            catchup: cron.is_some_and(|it| it.catchup),
            dagrun_timeout_ms: plan.deadline.map(bounded),
            deadline_ms: plan.deadline.map(bounded),
            alerts: alerts(&plan.alerts),
            max_active_runs: plan.airflow.max_active_runs,
            is_paused_upon_creation: false,
            tags: tags(plan, hash),
            params: plan.params.iter().map(|(name, param)| (name, DagParam::new(param))).collect(),
            default_args: DefaultArgs {
                // Airflow puts it into the environment of each task, where NUL makes every try fail.
                owner: plan
                    .owner
                    .as_ref()
                    .filter(|owner| !owner.is_empty())
                    .map(|owner| owner.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()),
                retries: plan.retries.max,
                retry_delay_ms: bounded(plan.retries.backoff),
                max_retry_delay_ms: bounded(RETRY_DELAY_MAX),
                pool: &plan.airflow.pool,
                priority_weight: plan.airflow.priority_weight,
            },
            tasks: plan.tasks.iter().map(|task| DagTask::new(plan, task)).collect(),
        }
    }
}

fn bounded(span: Span) -> u64 {
    span.min(SPAN_MAX).0
}

/// Returns the connections as Airflow's database takes them, which holds those that deadlines tell.
fn alerts(alerts: &Alerts) -> Alerts {
    let names = |connections: &[String]| connections.iter().map(|name| without_controls(name)).collect();
    Alerts { on_failure: names(&alerts.on_failure), on_deadline: names(&alerts.on_deadline) }
}

/// Returns a text as every database takes it: PostgreSQL refuses NUL, and with it all DAGs of the file.
fn without_controls(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns the tag by which a DAG says which plan it was compiled from: an API that lists DAGs shows little else of them.
#[must_use]
pub fn plan_tag(hash: &PlanHash) -> String {
    format!("plan {}", hash.short())
}

/// Returns the tags as Airflow accepts them: not empty, not too long, none twice.
fn tags(plan: &Plan, hash: &PlanHash) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    let of_plan = plan_tag(hash);
    for tag in plan.tags.iter().map(String::as_str).chain([TAG, &of_plan]) {
        let tag: String = without_controls(tag).chars().take(TAG_CHARS_MAX).collect();
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

// === impl DagParam ===

impl<'a> DagParam<'a> {
    fn new(param: &'a Param) -> Self {
        let (json_type, format) = match param.param_type {
            ParamType::String => ("string", None),
            ParamType::Integer => ("integer", None),
            ParamType::Number => ("number", None),
            ParamType::Boolean => ("boolean", None),
            ParamType::Date => ("string", Some("date")),
            ParamType::Timestamp => ("string", Some("date-time")),
        };
        let mut schema = BTreeMap::from([("type", json!(json_type))]);
        schema.extend(format.map(|format| ("format", json!(format))));
        schema.extend(param.allowed.as_ref().map(|allowed| ("enum", json!(allowed))));
        Self { default: param.default.as_ref(), schema }
    }
}

// === impl DagTask ===

impl<'a> DagTask<'a> {
    fn new(plan: &'a Plan, task: &'a PlannedTask) -> Self {
        let mapped_over = task.mapped_over.as_ref().and_then(|split| plan.task(split));
        let before = || plan.tasks.iter().filter(|other| task.after.contains(&other.spec.id));
        let id_of = |task: &'a PlannedTask| task.spec.id.0.as_str();
        let (after, teardown_of) = if task.teardown {
            // What stages is the set-up of what removes it: who clears a task that reads the staging area then clears,
            // by Airflow's own rule, what fills it too. A teardown never decides how its run ends.
            let setups = before().filter(|other| stages(other)).map(id_of).collect();
            (before().filter(|other| !stages(other)).map(id_of).collect(), Some(setups))
        } else {
            let of_mapping = |other: &PlannedTask| task.mapped_over.as_ref() == Some(&other.spec.id);
            (before().filter(|other| !of_mapping(other)).map(id_of).collect(), None)
        };
        Self {
            task_id: &task.spec.id.0,
            operator: operator(task),
            execution_timeout_ms: bounded(task.timeout),
            mapped_over: mapped_over.map(id_of),
            outlets: shown(task).map(|sink| asset(&plan.dag_id, sink)).collect(),
            after,
            teardown_of,
        }
    }
}

/// Returns the operator that runs a task.
fn operator(task: &PlannedTask) -> &'static str {
    match (&task.spec.work, task.role) {
        (Work::Split(_), _) => "DagwrightSplit",
        (Work::Publish(_), _) => "DagwrightPublish",
        (Work::Cleanup, _) => "DagwrightCleanup",
        (Work::Move(_), Role::Extraction) => "DagwrightExtract",
        (Work::Move(_), Role::Transformation) => "DagwrightTransform",
        (Work::Move(_), Role::Loading | Role::Orchestrator) => "DagwrightLoad",
    }
}

/// Tells whether a task leaves something in the staging area.
fn stages(task: &PlannedTask) -> bool {
    let Work::Move(work) = &task.spec.work else { return false };
    work.outputs.iter().any(|output| match output {
        Output::Staged { .. } => true,
        Output::Sink(sink) => sink.strategy == WriteStrategy::PartitionStaging,
    })
}

/// Returns the sinks whose rows a task makes visible.
fn shown(task: &PlannedTask) -> impl Iterator<Item = &Name> {
    let outputs = match &task.spec.work {
        Work::Move(work) => work.outputs.as_slice(),
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => &[],
    };
    let published = match &task.spec.work {
        Work::Publish(publish) => Some(&publish.sink.name),
        Work::Split(_) | Work::Move(_) | Work::Cleanup => None,
    };
    let written = outputs.iter().filter_map(|output| match output {
        Output::Sink(sink) if sink.strategy != WriteStrategy::PartitionStaging => Some(&sink.name),
        Output::Sink(_) | Output::Staged { .. } => None,
    });
    published.into_iter().chain(written)
}

/// Returns the URI of the asset that stands for a pipeline's sink: `dagwright://<namespace.pipeline>/<sink>`.
///
/// In 2.11 Airflow renders it as a template and reads it as a URI, so whatever a DAG id of ours never has is escaped.
fn asset(dag_id: &str, sink: &Name) -> String {
    let mut uri = String::from("dagwright://");
    for byte in dag_id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push('/');
    uri.push_str(sink.as_str());
    uri
}
