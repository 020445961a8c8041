//! What the HTTP API says, version 1: the bodies of its answers, as the service writes and the commands read them.
//!
//! These types are a promise of their own: the ledger's may change, these only grow. Times are RFC 3339 instants in UTC.
//! Deliberately absent: rows, values of the data, credentials.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use dagwright_model::{
    event::Rows,
    id::{PlanHash, RequestId, TaskId},
    message::{Message, Party},
    plan::{Plan, PlanChange},
    record::{EventIdentity, FailureClass, Ingress, PipelineStatus, Purpose, Replanned},
    setback::SchemaDrift,
    spec::{Diagnostic, Interval},
    task::{Counts, Problem},
};
use dagwright_store::{PipelineSummary, RequestState, RequestSummary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the API is.
pub(crate) const ROOT: &str = "/api/v1";

/// Why something was not done: RFC 9457 problem details, with the code and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Details {
    /// Names the kind of problem: `urn:dagwright:error:` and the code.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// What the code means.
    #[serde(default)]
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What went wrong this time.
    #[serde(default)]
    pub(crate) detail: String,
    /// The stable code, as `DW0803`; each has a page.
    pub(crate) code: String,
    /// What it is about; empty where that is the request itself.
    #[serde(default)]
    pub(crate) subject: String,
    /// What to do about it.
    #[serde(default)]
    pub(crate) hint: String,
    /// Everything that is wrong with a spec, where that is what is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Page<T> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Where the list goes on, for the parameter `cursor`; absent at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A request was taken on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Receipt {
    /// The request.
    #[schemars(with = "String")]
    pub(crate) request_id: RequestId,
    /// Its pipeline.
    pub(crate) pipeline: String,
    /// Whether it had been taken on before, under the same id.
    pub(crate) repeated: bool,
    /// Where to go on.
    pub(crate) links: BTreeMap<String, String>,
}

/// A request was told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Stopping {
    /// The request.
    #[schemars(with = "String")]
    pub(crate) request_id: RequestId,
    /// Where to see how it ends.
    pub(crate) links: BTreeMap<String, String>,
}

/// A plan was decided about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Decided {
    /// The plan.
    #[schemars(with = "String")]
    pub(crate) plan_hash: PlanHash,
    /// Whether it may go on.
    pub(crate) approved: bool,
    /// Whether the requests go on, or have ended, by now; else whoever acts for their pipeline will see to it.
    pub(crate) settled: bool,
    /// The requests that waited for it.
    #[schemars(with = "Vec<String>")]
    pub(crate) requests: Vec<RequestId>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Request {
    /// Its id.
    #[schemars(with = "String")]
    pub(crate) request_id: RequestId,
    /// Its pipeline.
    pub(crate) pipeline: String,
    /// What it is for: `run`, `apply`, `pause` or `delete`.
    #[schemars(with = "String")]
    pub(crate) purpose: Purpose,
    /// How far it is: `negotiating`, `sealed`, `awaiting_approval`, `running`, `cancelling`, or in the end `deadlocked`,
    /// `failed`, `cancelled` or `succeeded`.
    #[schemars(with = "String")]
    pub(crate) state: RequestState,
    /// Whether nothing further happens to it.
    pub(crate) is_final: bool,
    /// Where it came in: `http`, `kafka` or `command_line`.
    #[schemars(with = "String")]
    pub(crate) ingress: Ingress,
    /// Who asked: the name of a token or topic; absent where nobody had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requester: Option<String>,
    /// The hash of its spec's normal form.
    pub(crate) spec_hash: String,
    /// When it came in.
    pub(crate) accepted_at: String,
    /// When something was last recorded of it.
    pub(crate) changed_at: String,
    /// The plan, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) plan_hash: Option<PlanHash>,
    /// The run, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_id: Option<String>,
    /// The rows of the run, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Rows>,
    /// Why it came to nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<Problem>,
    /// What the requester calls it; only where one request is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    /// The further versions of its plan, each made after a run that failed; only where one request is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replans: Vec<Replan>,
    /// The schemas that changed, where that waits for a person; likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) drift: Vec<SchemaDrift>,
    /// Where there is more.
    pub(crate) links: BTreeMap<String, String>,
}

/// A further version of a request's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Replan {
    /// Which version it is, from 2.
    pub(crate) version: u32,
    /// The plan.
    #[schemars(with = "String")]
    pub(crate) plan_hash: PlanHash,
    /// The plan that it took the place of.
    #[schemars(with = "String")]
    pub(crate) replaces: PlanHash,
    /// What kind of failure it is for: `resources` or `schema_drift`.
    #[schemars(with = "String")]
    pub(crate) class: FailureClass,
    /// What happened to the run of that one.
    pub(crate) reason: Problem,
    /// What is done otherwise.
    pub(crate) changes: Vec<PlanChange>,
    /// How often the plan may be made anew again.
    pub(crate) left: u32,
}

/// What a requester calls a request: a CloudEvent's source and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Identity {
    /// The context.
    pub(crate) source: String,
    /// The id there.
    pub(crate) id: String,
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Pipeline {
    /// Its id: `<namespace>.<pipeline>`, or the pipeline alone.
    pub(crate) pipeline: String,
    /// `active`, `paused` or `deleted`.
    #[schemars(with = "String")]
    pub(crate) status: PipelineStatus,
    /// The applied revision; 0 when none was.
    pub(crate) revision: u64,
    /// The plan that it ran last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) plan_hash: Option<PlanHash>,
    /// Where there is more.
    pub(crate) links: BTreeMap<String, String>,
}

/// A plan that was sealed for a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SealedPlan {
    /// Its content hash.
    #[schemars(with = "String")]
    pub(crate) plan_hash: PlanHash,
    /// The newest request that it was sealed for.
    #[schemars(with = "String")]
    pub(crate) request_id: RequestId,
    /// How far that request is.
    #[schemars(with = "String")]
    pub(crate) state: RequestState,
    /// Where there is more.
    pub(crate) links: BTreeMap<String, String>,
}

/// A plan with everything in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WholePlan {
    /// Its content hash.
    #[schemars(with = "String")]
    pub(crate) plan_hash: PlanHash,
    /// The plan, as in the plan file of a compiled DAG.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) plan: Plan,
}

/// A message of a negotiation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Said {
    /// The ledger's record that holds it.
    pub(crate) sequence: u64,
    /// When.
    pub(crate) at: String,
    /// Who said it.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) from: Party,
    /// To whom.
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) to: Party,
    /// What: an object with its `type`, as `proposals`, and what belongs to that.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(crate) message: Message,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Run {
    /// Its id: that of its request.
    pub(crate) run_id: String,
    /// Its pipeline.
    pub(crate) pipeline: String,
    /// The plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) plan_hash: Option<PlanHash>,
    /// `running`, `cancelling`, `succeeded`, `failed` or `cancelled`.
    #[schemars(with = "String")]
    pub(crate) state: RequestState,
    /// When it began.
    pub(crate) started_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// The rows, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Rows>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<Problem>,
    /// More; only where one run is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) particulars: Option<RunParticulars>,
    /// Where there is more.
    pub(crate) links: BTreeMap<String, String>,
}

/// What is told of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct RunParticulars {
    /// The data interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<Interval>,
    /// The values of the parameters.
    pub(crate) params: BTreeMap<String, Value>,
    /// Whether committed cursors neither bounded the reading nor move.
    pub(crate) backfill: bool,
    /// Where rejected rows are.
    pub(crate) quarantine: String,
    /// The tasks that have begun, in the order of their first try.
    pub(crate) tasks: Vec<Task>,
    /// What was counted, source by source and sink by sink, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counts: Option<Counts>,
}

/// A task of a run, or one of the instances of a mapped task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Task {
    /// The task.
    #[schemars(with = "String")]
    pub(crate) task_id: TaskId,
    /// The index of its partition; −1 when it is not mapped, as in Airflow.
    pub(crate) map_index: i64,
    /// How far it is: `running`, `retrying`, `succeeded`, `failed` or `cancelled`.
    pub(crate) state: String,
    /// The newest try, from 1.
    pub(crate) try_number: u32,
    /// When its first try began.
    pub(crate) started_at: String,
    /// When its last try ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// The rows of that try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<Rows>,
    /// Why that try did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<Problem>,
}

/// What happened to a request, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Story {
    /// The request.
    #[schemars(with = "String")]
    pub(crate) request_id: RequestId,
    /// Its pipeline.
    pub(crate) pipeline: String,
    /// How far it is.
    #[schemars(with = "String")]
    pub(crate) state: RequestState,
    /// All of it in one sentence.
    pub(crate) summary: String,
    /// What happened, in order.
    pub(crate) chapters: Vec<Chapter>,
    /// How long each part took, in milliseconds; only the parts that there were.
    pub(crate) took_ms: BTreeMap<String, u64>,
}

/// A part of a story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Chapter {
    /// What it is about, in a word or two.
    pub(crate) title: String,
    /// When it began.
    pub(crate) at: String,
    /// How long after the request came in, in milliseconds.
    pub(crate) after_ms: u64,
    /// Sentences.
    pub(crate) told: Vec<String>,
}

// === impl Request ===

impl Request {
    pub(crate) fn of(summary: RequestSummary) -> Self {
        let run_id = summary.run_started_at.map(|_| summary.request.to_string());
        Self {
            links: request_links(&summary.request, &summary.pipeline, summary.plan.as_ref(), run_id.is_some()),
            purpose: summary.purpose,
            is_final: summary.state.is_final(),
            state: summary.state,
            ingress: summary.ingress,
            requester: summary.requester,
            spec_hash: summary.spec_hash,
            accepted_at: instant(summary.accepted_at),
            changed_at: instant(summary.changed_at),
            plan_hash: summary.plan,
            rows: summary.rows,
            problems: summary.problem.into_iter().collect(),
            identity: None,
            replans: Vec::new(),
            drift: Vec::new(),
            run_id,
            request_id: summary.request,
            pipeline: summary.pipeline,
        }
    }
}

impl From<Replanned> for Replan {
    fn from(replanned: Replanned) -> Self {
        let Replanned { version, plan_hash, replaces, class, reason, changes, left } = replanned;
        Self { version, plan_hash, replaces, class, reason, changes, left }
    }
}

impl From<&EventIdentity> for Identity {
    fn from(identity: &EventIdentity) -> Self {
        Self { source: identity.source.clone(), id: identity.id.clone() }
    }
}

// === impl Pipeline ===

impl Pipeline {
    pub(crate) fn of(summary: PipelineSummary) -> Self {
        let own = format!("{ROOT}/pipelines/{}", summary.pipeline);
        let mut links = BTreeMap::from([
            ("plans".into(), format!("{own}/plans")),
            ("newest".into(), format!("{ROOT}/requests/{}", summary.newest)),
            ("self".into(), own),
        ]);
        if let Some(applied) = &summary.applied {
            links.insert("applied".into(), format!("{ROOT}/requests/{applied}"));
        }
        Self {
            pipeline: summary.pipeline,
            status: summary.status,
            revision: summary.revision,
            plan_hash: summary.baseline,
            links,
        }
    }
}

// === impl SealedPlan ===

impl SealedPlan {
    /// Returns the plan of a request, if it has one.
    pub(crate) fn of(summary: RequestSummary) -> Option<Self> {
        let plan_hash = summary.plan?;
        let own = format!("{ROOT}/pipelines/{}/plans/{plan_hash}", summary.pipeline);
        let request = format!("{ROOT}/requests/{}", summary.request);
        let links = BTreeMap::from([("self".into(), own), ("request".into(), request)]);
        Some(Self { plan_hash, request_id: summary.request, state: summary.state, links })
    }
}

// === impl Run ===

impl Run {
    /// Returns the run of a request, if it has one.
    pub(crate) fn of(summary: RequestSummary) -> Option<Self> {
        let started_at = instant(summary.run_started_at?);
        let links = BTreeMap::from([
            ("self".into(), format!("{ROOT}/runs/{}", summary.request)),
            ("request".into(), format!("{ROOT}/requests/{}", summary.request)),
        ]);
        Some(Self {
            ended_at: summary.state.is_final().then(|| instant(summary.changed_at)),
            run_id: summary.request.to_string(),
            pipeline: summary.pipeline,
            plan_hash: summary.plan,
            state: summary.state,
            started_at,
            rows: summary.rows,
            problem: summary.problem,
            particulars: None,
            links,
        })
    }
}

/// Returns where there is more of a request.
pub(crate) fn request_links(
    request: &RequestId,
    pipeline: &str,
    plan: Option<&PlanHash>,
    runs: bool,
) -> BTreeMap<String, String> {
    let own = format!("{ROOT}/requests/{request}");
    let mut links = BTreeMap::from([
        ("transcript".into(), format!("{own}/transcript")),
        ("explain".into(), format!("{own}/explain")),
        ("events".into(), format!("{ROOT}/events?request={request}")),
        ("pipeline".into(), format!("{ROOT}/pipelines/{pipeline}")),
        ("self".into(), own),
    ]);
    if let Some(plan) = plan {
        links.insert("plan".into(), format!("{ROOT}/pipelines/{pipeline}/plans/{plan}"));
    }
    if runs {
        links.insert("run".into(), format!("{ROOT}/runs/{request}"));
    }
    links
}

/// Renders milliseconds since the Unix epoch as an RFC 3339 instant in UTC.
pub(crate) fn instant(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
