//! The ledger's records: what happened to a request, in order.
//!
//! A request's records are the truth about it: every machine's state is folded from them, and what is not recorded
//! did not happen. They are numbered from 0 without a gap, and never changed. The time of a record is for people and
//! for metrics; nothing is decided by it, and [`Record::hash`] leaves it out, so a replay gives equal hashes.
//!
//! Deliberately absent: rows, values of the data, credentials and task logs.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    canonical,
    id::{Name, PlanHash, RequestId, TaskId},
    message::{Envelope, Observation},
    plan::{Plan, PlanChange},
    setback::{SchemaDrift, Setback},
    spec::{Interval, SchemaChange},
    task::{Counts, Outcome, Partition, Problem, RunContext, Status},
};

/// One thing that happened to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The request.
    pub request: RequestId,
    /// Its place among the request's records, from 0.
    pub sequence: u64,
    /// When it was recorded, in milliseconds since the Unix epoch; no part of the content.
    pub at: u64,
    /// What happened.
    pub body: RecordBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum RecordBody {
    /// The request came in; always the first record.
    Accepted(Box<Accepted>),
    /// Something was observed, and may be reasoned about from here on.
    FactRecorded(Box<FactRecorded>),
    /// An agent said something.
    MessageSent(Box<Envelope>),
    /// The agents agreed.
    PlanSealed(Box<PlanSealed>),
    /// A plan that was agreed on for another request is used again, since what was found then still counts as known.
    PlanReused(PlanReused),
    /// The agents could not agree, or a bound was reached; nothing follows.
    Deadlocked(Ended),
    /// The request could not be fulfilled for another reason than a disagreement; nothing follows.
    Failed(Ended),
    /// A DAG was compiled from the sealed plan.
    DagCompiled(DagCompiled),
    /// The sealed plan began to run.
    RunStarted(Box<RunStarted>),
    /// A try of a task began; recorded before its process starts.
    TaskStarted(TaskStarted),
    /// A try of a task ended.
    TaskEnded(Box<TaskEnded>),
    /// A failed task will be tried again.
    RetryScheduled(RetryScheduled),
    /// A run that failed is helped, instead of left at that.
    RemedyApplied(RemedyApplied),
    /// A person must approve the plan before it goes on.
    ApprovalNeeded(ApprovalNeeded),
    /// A person approved the plan.
    Approved(Decision),
    /// A person declined the plan; nothing follows.
    Declined(Decision),
    /// What the pipeline is from now on; nothing follows.
    PipelineChanged(PipelineChanged),
    /// The request was asked to stop: before its run nothing follows, in a run running tasks end and teardown still runs.
    Cancelled(Cancelled),
    /// The run ended; nothing follows, unless it was a setback: then the agents negotiate anew.
    RunEnded(RunEnded),
    /// The agents agreed anew after a setback; follows the plan.
    Replanned(Box<Replanned>),
}

/// The content of [`RecordBody::Accepted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The pipeline's `dag_id`.
    pub pipeline: String,
    /// The spec as it was written.
    pub spec_text: String,
    /// The hash of its normal form.
    pub spec_hash: String,
    /// Where it came in.
    pub ingress: Ingress,
    /// What for.
    pub purpose: Purpose,
    /// The folder that relative URIs start from; `None` refuses them.
    pub base: Option<String>,
    /// The values given to parameters.
    #[serde(default)]
    pub params: BTreeMap<Name, Value>,
    /// The data interval, if one was given.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Whether committed cursors neither bound the reading nor move.
    #[serde(default)]
    pub backfill: bool,
    /// The revision that [`Purpose::Apply`] applies; `None` is the one after the applied one.
    #[serde(default)]
    pub revision: Option<u64>,
    /// What the requester calls it; `None` where it came without a name.
    #[serde(default)]
    pub identity: Option<EventIdentity>,
    /// Who asked, as ingress knows them: the name of a token or of a topic; `None` where nobody had to say.
    #[serde(default)]
    pub requester: Option<String>,
    /// The W3C trace context that it came with.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// The run that is there already, which somebody or its schedule started in Airflow: it is followed, not started.
    #[serde(default)]
    pub follows: Option<Followed>,
}

/// A run that nobody asked us for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// The DAG run's id.
    pub dag_run: String,
    /// The plan that its DAG was compiled from.
    pub plan: PlanHash,
}

/// How CloudEvents tells events apart: no two of one source share an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct EventIdentity {
    /// The context in which it happened.
    pub source: String,
    /// Its id there.
    pub id: String,
}

// === impl EventIdentity ===

impl EventIdentity {
    /// The source of requests that follow what Airflow started.
    pub const AIRFLOW: &str = "airflow";

    /// What the sources of requests begin with that came over HTTP without one; the caller's name follows.
    pub const HTTP: &str = "/dagwright/http/";

    /// What the sources of requests begin with that came over Kafka without one; the topic's name follows.
    pub const KAFKA: &str = "/kafka/";

    /// Tells whether a source is one by which Dagwright itself names requests. Whoever else named one so could take the id of a
    /// request that is yet to come, which would then be a repeat.
    #[must_use]
    pub fn is_reserved(source: &str) -> bool {
        source == Self::AIRFLOW || source.starts_with("/dagwright/") || source.starts_with(Self::KAFKA)
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ingress {
    /// The command line.
    CommandLine,
    /// The HTTP API.
    Http,
    /// A Kafka topic.
    Kafka,
    /// Airflow, where a run was started or cleared.
    Airflow,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A plan, to be looked at or compiled; it never becomes the pipeline's baseline.
    Plan,
    /// A run.
    Run,
    /// A new revision of the pipeline: planned, compiled and, where an engine keeps pipelines, deployed; it runs nothing.
    Apply,
    /// No runs from now on, until a revision is applied.
    Pause,
    /// The pipeline is no more; its records and its data stay.
    Delete,
}

/// The content of [`RecordBody::FactRecorded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactRecorded {
    /// The hash of what was asked: [`canonical::hash`] of the question.
    pub key: String,
    /// The answer, and where it is from.
    pub observation: Observation,
}

/// The content of [`RecordBody::PlanSealed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanSealed {
    /// [`Plan::hash`] of the plan.
    pub hash: PlanHash,
    /// The plan.
    pub plan: Plan,
}

/// The content of [`RecordBody::PlanReused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReused {
    /// [`Plan::hash`] of the plan.
    pub hash: PlanHash,
    /// The request that it was agreed on for, whose records hold the plan and the transcript.
    pub from: RequestId,
}

/// Why a request ended without a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Every reason.
    pub problems: Vec<Problem>,
}

/// The content of [`RecordBody::DagCompiled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DagCompiled {
    /// The plan.
    pub plan_hash: PlanHash,
    /// The target: `airflow2` or `airflow3`.
    pub target: String,
    /// The DAG file's name.
    pub file: String,
    /// The SHA-256 of the DAG file, in lower-case hexadecimal.
    pub file_hash: String,
}

/// The content of [`RecordBody::RunStarted`]: what every task of the run is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The plan.
    pub plan_hash: PlanHash,
    /// Identifies the run, see [`RunContext::effect`].
    pub effect: String,
    /// See [`RunContext::generation`].
    pub generation: u32,
    /// The folder that relative URIs start from; `None` refuses them.
    pub base: Option<String>,
    /// The folder (path or URI) for staged data of all runs.
    pub staging: String,
    /// The folder (path or URI) for rejected rows of all runs.
    pub quarantine: String,
    /// The data interval, if the run has one.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// The values of all parameters, defaults filled in.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// See [`RunContext::backfill`].
    #[serde(default)]
    pub backfill: bool,
    /// The id of the DAG run in Airflow; `None` where the embedded engine runs it.
    #[serde(default)]
    pub dag_run: Option<String>,
    /// Which version of the request's plan it is, from 1.
    #[serde(default = "first_version")]
    pub version: u32,
    /// See [`RunContext::keep_staged`].
    #[serde(default)]
    pub keep_staged: bool,
}

/// A task, or one of the instances of a mapped task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskInstance {
    /// The task.
    pub task: TaskId,
    /// The index of its partition, when it is mapped.
    pub map_index: Option<u32>,
}

/// The content of [`RecordBody::TaskStarted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStarted {
    /// Which.
    #[serde(flatten)]
    pub instance: TaskInstance,
    /// Which try, from 1.
    pub attempt: u32,
    /// The partition of a mapped task.
    pub partition: Option<Partition>,
}

/// The content of [`RecordBody::TaskEnded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEnded {
    /// Which.
    #[serde(flatten)]
    pub instance: TaskInstance,
    /// Which try.
    pub attempt: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// The content of [`RecordBody::RetryScheduled`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryScheduled {
    /// Which.
    #[serde(flatten)]
    pub instance: TaskInstance,
    /// The try to come.
    pub attempt: u32,
    /// The pause before it, in milliseconds.
    pub delay_ms: u64,
}

/// The content of [`RecordBody::RemedyApplied`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemedyApplied {
    /// What kind of failure it is for.
    pub class: FailureClass,
    /// What is done.
    pub remedy: RunRemedy,
    /// Which of its kind it is in this run, from 1; the budget bounds it.
    pub number: u32,
    /// The pause before it, in milliseconds.
    pub delay_ms: u64,
    /// What failed.
    pub problem: Problem,
}

/// What kind of failure made a run fail, by what there is to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It may well succeed when it is tried again: a process was lost, or Airflow was.
    Transient,
    /// A source or sink was away.
    Away,
    /// A schema is no longer the sealed one.
    SchemaDrift,
    /// The data is not as it has to be.
    Quality,
    /// Memory or time was too short.
    Resources,
    /// Something is not allowed.
    Permission,
    /// Somebody wanted it to stop.
    Stopped,
    /// Anything else: a person has to look.
    Bug,
}

/// What is done about a failed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunRemedy {
    /// The tasks that failed are cleared, so that they run again in the same run.
    Clear,
    /// The run is triggered again, as Airflow lost it.
    Trigger,
}

/// The content of [`RecordBody::ApprovalNeeded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalNeeded {
    /// The plan.
    pub plan_hash: PlanHash,
    /// The change of a sink's schema that it brings.
    pub schema_change: SchemaChange,
    /// The schemas that are no longer what the earlier version of the plan was sealed for, as far as the policy does not
    /// let them go through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<SchemaDrift>,
}

/// The content of [`RecordBody::Approved`] and [`RecordBody::Declined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The plan.
    pub plan_hash: PlanHash,
    /// Who decided; never who asked for the plan.
    pub by: Option<String>,
}

/// The content of [`RecordBody::PipelineChanged`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineChanged {
    /// What it is from now on.
    pub status: PipelineStatus,
    /// Its revision from now on.
    pub revision: u64,
}

/// What a pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineStatus {
    /// It runs when it is asked to.
    Active,
    /// It runs nothing.
    Paused,
    /// It is no more.
    Deleted,
}

/// The content of [`RecordBody::Cancelled`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Who asked for it; `None` where nobody had to say.
    pub by: Option<String>,
}

/// The content of [`RecordBody::RunEnded`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnded {
    /// How.
    pub status: Status,
    /// Why, when it did not succeed.
    pub problem: Option<Problem>,
    /// The sum of what its tasks counted.
    #[serde(default)]
    pub counts: Counts,
    /// What it taught, where the plan is made anew for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setback: Option<Box<Setback>>,
}

/// The content of [`RecordBody::Replanned`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replanned {
    /// Which version of the request's plan it is, from 2.
    pub version: u32,
    /// The plan.
    pub plan_hash: PlanHash,
    /// The plan that it takes the place of.
    pub replaces: PlanHash,
    /// What kind of failure it is for.
    pub class: FailureClass,
    /// What happened to the run of that one.
    pub reason: Problem,
    /// What is done otherwise.
    pub changes: Vec<PlanChange>,
    /// How often the plan may be made anew again.
    pub left: u32,
}

// === impl RunEnded ===

impl RunEnded {
    /// Tells whether the request goes on after it, with another version of the plan.
    #[must_use]
    pub fn is_setback(&self) -> bool {
        self.setback.is_some()
    }
}

// === impl Record ===

impl Record {
    /// Returns the content hash: everything but the time.
    #[must_use]
    pub fn hash(&self) -> String {
        canonical::hash(&(&self.request, self.sequence, &self.body))
    }
}

// === impl RecordBody ===

impl RecordBody {
    /// Returns the name of what happened, for logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::FactRecorded(_) => "fact_recorded",
            Self::MessageSent(_) => "message_sent",
            Self::PlanSealed(_) => "plan_sealed",
            Self::PlanReused(_) => "plan_reused",
            Self::Deadlocked(_) => "deadlocked",
            Self::Failed(_) => "failed",
            Self::DagCompiled(_) => "dag_compiled",
            Self::RunStarted(_) => "run_started",
            Self::TaskStarted(_) => "task_started",
            Self::TaskEnded(_) => "task_ended",
            Self::RetryScheduled(_) => "retry_scheduled",
            Self::RemedyApplied(_) => "remedy_applied",
            Self::ApprovalNeeded(_) => "approval_needed",
            Self::Approved(_) => "approved",
            Self::Declined(_) => "declined",
            Self::PipelineChanged(_) => "pipeline_changed",
            Self::Cancelled(_) => "cancelled",
            Self::RunEnded(_) => "run_ended",
            Self::Replanned(_) => "replanned",
        }
    }
}

// === impl FailureClass, RunRemedy ===

impl FailureClass {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Away => "away",
            Self::SchemaDrift => "schema_drift",
            Self::Quality => "quality",
            Self::Resources => "resources",
            Self::Permission => "permission",
            Self::Stopped => "stopped",
            Self::Bug => "bug",
        }
    }
}

impl RunRemedy {
    /// Returns the word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Trigger => "trigger",
        }
    }
}

// === impl Accepted ===

impl Accepted {
    /// Identifies what is asked for: two requests with the same key would do the same, so an unfinished one can be
    /// continued instead of starting the other.
    #[must_use]
    pub fn run_key(&self) -> String {
        canonical::hash(&(
            &self.pipeline,
            &self.spec_hash,
            &self.base,
            &self.params,
            &self.interval,
            self.backfill,
            self.purpose,
        ))
    }
}

// === impl RunStarted ===

impl RunStarted {
    /// Returns what one try of a task is told of the run.
    #[must_use]
    pub fn context(&self, attempt: u32, partition: Option<Partition>) -> RunContext {
        RunContext {
            effect: self.effect.clone(),
            generation: self.generation,
            plan_hash: self.plan_hash.clone(),
            attempt,
            base: self.base.clone(),
            staging: self.staging.clone(),
            quarantine: self.quarantine.clone(),
            interval: self.interval.clone(),
            params: self.params.clone(),
            partition,
            backfill: self.backfill,
            keep_staged: self.keep_staged,
        }
    }
}

// === impl TaskInstance ===

impl fmt::Display for TaskInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.map_index {
            Some(index) => write!(f, "{}[{index}]", self.task),
            None => self.task.fmt(f),
        }
    }
}

/// What records of before plans had versions are of.
fn first_version() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::{Record, RecordBody, RunEnded};
    use crate::{
        id::RequestId,
        task::{Counts, Status},
    };

    #[test]
    fn the_time_is_no_part_of_the_content() {
        let body = RecordBody::RunEnded(RunEnded {
            status: Status::Succeeded,
            problem: None,
            counts: Counts::default(),
            setback: None,
        });
        let record = |sequence, at| Record { request: RequestId("r".into()), sequence, at, body: body.clone() };
        assert_eq!(record(7, 1).hash(), record(7, 2).hash());
        assert_ne!(record(7, 1).hash(), record(8, 1).hash());
    }

    #[test]
    fn records_read_back_from_json() {
        let text = r#"{"request":"r","sequence":3,"at":5,"body":{"record":"task_started","task":"load","map_index":2,"attempt":1,"partition":null}}"#;
        let record: Record = serde_json::from_str(text).expect("reads");
        let RecordBody::TaskStarted(started) = &record.body else { panic!("{record:?}") };
        assert_eq!(started.instance.to_string(), "load[2]");
        assert_eq!(
            serde_json::to_value(&record).expect("writes"),
            serde_json::from_str::<serde_json::Value>(text).expect("JSON")
        );
    }
}
