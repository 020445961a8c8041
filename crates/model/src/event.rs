//! What the outside is told: one event at most for each of the ledger's records, and one for each try that ingress
//! refused, of which there are no records.
//!
//! Events are derived, never stored beside the records as a second truth: [`of`] makes the event of a record from what
//! is known of its request, and its id is the record's place; [`refused`] makes that of a refusal, and its id is the
//! try. So whoever publishes an event twice publishes the same event, and a consumer can drop the repeat. Crate `wire`
//! renders them as CloudEvents.
//!
//! Deliberately absent: rows, values of the data, credentials, SQL and logs.

mod schema;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
    plan::PlanChange,
    record::{Ended, EventIdentity, FailureClass, PipelineStatus, Record, RecordBody, TaskInstance},
    setback::SchemaDrift,
    spec::SchemaChange,
    task::{Counts, Problem, Status},
};

/// Something that happened, told to the outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The request's record that says so; together with the request this identifies the event.
    pub sequence: u64,
    /// Which try ingress refused, from 1: then no record says so, and this identifies the event instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_try: Option<u32>,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The particulars.
    pub data: EventData,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventKind {
            /// Every kind, in the order in which a request meets them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name, for example `run.started`; the CloudEvents type is `dev.dagwright.<name>.v1`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

kinds! {
    /// A request came in.
    RequestAccepted = "request.accepted",
    /// A request came to nothing before anything ran.
    RequestRejected = "request.rejected",
    /// The agents agreed.
    PlanSealed = "plan.sealed",
    /// The agents could not agree.
    PlanDeadlocked = "plan.deadlocked",
    /// A person must approve the plan.
    ApprovalNeeded = "approval.needed",
    /// A DAG was compiled from the plan.
    DagCompiled = "dag.compiled",
    /// The pipeline is what an applied revision says.
    DagDeployed = "dag.deployed",
    /// The pipeline runs no more.
    DagRemoved = "dag.removed",
    /// The plan began to run.
    RunStarted = "run.started",
    /// A try of a task began.
    TaskStarted = "task.started",
    /// A try of a task did its work.
    TaskSucceeded = "task.succeeded",
    /// A try of a task did not.
    TaskFailed = "task.failed",
    /// A failed task, or a failed run, is helped; or its plan was made anew.
    RemedyApplied = "remedy.applied",
    /// The run did its work.
    RunSucceeded = "run.succeeded",
    /// The run did not.
    RunFailed = "run.failed",
    /// The run was told to stop.
    RunCancelled = "run.cancelled",
}

/// The particulars of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventData {
    /// The pipeline's `dag_id`.
    pub pipeline: String,
    /// The request.
    pub request_id: RequestId,
    /// What its requester calls it, where the event says whether it was taken on. One that came without a name is called
    /// after the record that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<EventIdentity>,
    /// The plan, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<PlanHash>,
    /// The run, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The pipeline's revision, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The change of a sink's schema that must be approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_change: Option<SchemaChange>,
    /// The schemas that changed, where a person must approve that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<SchemaDrift>,
    /// What the plan is made anew for and how it differs, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replan: Option<ReplanData>,
    /// The rows of a task or run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    /// Why, for what came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// Which task, for events of tasks.
    #[serde(flatten)]
    pub task: Option<TaskData>,
}

/// A further version of a request's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplanData {
    /// Which version it is, from 2.
    pub version: u32,
    /// The plan that it takes the place of.
    pub replaces: PlanHash,
    /// What kind of failure it is for.
    pub class: FailureClass,
    /// What is done otherwise.
    pub changes: Vec<PlanChange>,
    /// How often the plan may be made anew again.
    pub left: u32,
}

/// Which try of which task, in the words of Airflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskData {
    /// The run.
    pub dag_run_id: String,
    /// The task.
    pub task_id: TaskId,
    /// The index of its partition; −1 when it is not mapped, as in Airflow.
    pub map_index: i64,
    /// Which try, from 1.
    pub try_number: u32,
}

/// Rows, summed over sources and sinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rows {
    /// Read from sources.
    pub read: u64,
    /// Visible in sinks because of this.
    pub loaded: u64,
    /// In quarantine.
    pub quarantined: u64,
    /// Lost to another row with the same key.
    pub superseded: u64,
}

/// What is known of a request when one of its records is told.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The pipeline's `dag_id`.
    pub pipeline: &'a str,
    /// The plan, once there is one.
    pub plan: Option<&'a PlanHash>,
    /// Whether its run has begun.
    pub runs: bool,
    /// The id of its DAG run, where Airflow runs it.
    pub dag_run: Option<&'a str>,
    /// The trace context that the request came with.
    pub traceparent: Option<&'a str>,
}

/// A request that ingress did not take on.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// The pipeline's `dag_id`.
    pub pipeline: &'a str,
    /// What its requester calls it.
    pub identity: &'a EventIdentity,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The trace context that the request came with.
    pub traceparent: Option<&'a str>,
    /// Why.
    pub problem: Problem,
}

/// Returns the event of a record, if it has one.
#[must_use]
pub fn of(subject: Subject<'_>, record: &Record) -> Option<Event> {
    let mut data = EventData {
        pipeline: subject.pipeline.into(),
        request_id: record.request.clone(),
        identity: None,
        plan_hash: subject.plan.cloned(),
        run_id: subject.runs.then(|| record.request.to_string()),
        revision: None,
        schema_change: None,
        drift: Vec::new(),
        replan: None,
        rows: None,
        error: None,
        task: None,
    };
    let task = |instance: &TaskInstance, attempt| TaskData {
        dag_run_id: subject.dag_run.unwrap_or(&record.request.0).to_owned(),
        task_id: instance.task.clone(),
        map_index: instance.map_index.map_or(-1, i64::from),
        try_number: attempt,
    };
    let kind = match &record.body {
        // Steps on the way, of which nobody outside needs to hear.
        RecordBody::FactRecorded(_) | RecordBody::MessageSent(_) | RecordBody::Approved(_) => return None,
        RecordBody::Accepted(accepted) => {
            data.revision = accepted.revision;
            data.identity.clone_from(&accepted.identity);
            EventKind::RequestAccepted
        }
        RecordBody::PlanSealed(_) | RecordBody::PlanReused(_) => EventKind::PlanSealed,
        RecordBody::Deadlocked(ended) => {
            data.error = first(ended);
            EventKind::PlanDeadlocked
        }
        RecordBody::Failed(ended) => {
            data.error = first(ended);
            EventKind::RequestRejected
        }
        RecordBody::ApprovalNeeded(needed) => {
            data.schema_change = Some(needed.schema_change);
            data.drift.clone_from(&needed.drift);
            EventKind::ApprovalNeeded
        }
        RecordBody::Declined(decision) => {
            data.error = Some(declined(&decision.plan_hash));
            EventKind::RequestRejected
        }
        RecordBody::DagCompiled(_) => EventKind::DagCompiled,
        RecordBody::PipelineChanged(changed) => {
            data.revision = Some(changed.revision);
            match changed.status {
                PipelineStatus::Active => EventKind::DagDeployed,
                PipelineStatus::Paused | PipelineStatus::Deleted => EventKind::DagRemoved,
            }
        }
        RecordBody::RunStarted(_) => EventKind::RunStarted,
        RecordBody::TaskStarted(started) => {
            data.task = Some(task(&started.instance, started.attempt));
            EventKind::TaskStarted
        }
        RecordBody::TaskEnded(ended) => {
            data.task = Some(task(&ended.instance, ended.attempt));
            data.rows = Some(Rows::of(&ended.outcome.counts));
            data.error = ended.outcome.problem.clone();
            match ended.outcome.status {
                Status::Succeeded => EventKind::TaskSucceeded,
                Status::Failed | Status::Cancelled => EventKind::TaskFailed,
            }
        }
        RecordBody::RetryScheduled(retry) => {
            data.task = Some(task(&retry.instance, retry.attempt));
            EventKind::RemedyApplied
        }
        RecordBody::RemedyApplied(applied) => {
            data.error = Some(applied.problem.clone());
            EventKind::RemedyApplied
        }
        // In a run, its end tells.
        RecordBody::Cancelled(_) if subject.runs => return None,
        RecordBody::Cancelled(_) => {
            data.error = Some(cancelled(subject.pipeline));
            EventKind::RequestRejected
        }
        RecordBody::Replanned(replanned) => {
            // The run goes on by another plan, under its own id.
            data.run_id = Some(record.request.to_string());
            data.error = Some(replanned.reason.clone());
            data.replan = Some(ReplanData {
                version: replanned.version,
                replaces: replanned.replaces.clone(),
                class: replanned.class,
                changes: replanned.changes.clone(),
                left: replanned.left,
            });
            EventKind::RemedyApplied
        }
        // It is no end: what comes of the next negotiation is told.
        RecordBody::RunEnded(ended) if ended.is_setback() => return None,
        RecordBody::RunEnded(ended) => {
            data.rows = Some(Rows::of(&ended.counts));
            data.error = ended.problem.clone();
            match ended.status {
                Status::Succeeded => EventKind::RunSucceeded,
                Status::Failed => EventKind::RunFailed,
                Status::Cancelled => EventKind::RunCancelled,
            }
        }
    };
    let traceparent = subject.traceparent.map(Into::into);
    Some(Event { kind, sequence: record.sequence, refused_try: None, at: record.at, traceparent, data })
}

/// Returns the event of a request that ingress refused.
#[must_use]
pub fn refused(refusal: Refusal<'_>) -> Event {
    let Refusal { pipeline, identity, attempt, at, traceparent, problem } = refusal;
    let data = EventData {
        pipeline: pipeline.into(),
        request_id: RequestId::derive(pipeline, &identity.source, &identity.id),
        identity: Some(identity.clone()),
        plan_hash: None,
        run_id: None,
        revision: None,
        schema_change: None,
        drift: Vec::new(),
        replan: None,
        rows: None,
        error: Some(problem),
        task: None,
    };
    let traceparent = traceparent.map(Into::into);
    Event { kind: EventKind::RequestRejected, sequence: 0, refused_try: Some(attempt), at, traceparent, data }
}

// === impl Event ===

impl Event {
    /// Returns the id: the same for every time that this event is told.
    #[must_use]
    pub fn id(&self) -> String {
        match self.refused_try {
            None => format!("{}/{}", self.data.request_id, self.sequence),
            Some(attempt) => format!("{}/refused/{attempt}", self.data.request_id),
        }
    }
}

// === impl EventKind ===

impl EventKind {
    /// Tells whether nothing further is told of the request.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::RequestRejected
            | Self::PlanDeadlocked
            | Self::DagDeployed
            | Self::DagRemoved
            | Self::RunSucceeded
            | Self::RunFailed
            | Self::RunCancelled => true,
            Self::RequestAccepted
            | Self::PlanSealed
            | Self::ApprovalNeeded
            | Self::DagCompiled
            | Self::RunStarted
            | Self::TaskStarted
            | Self::TaskSucceeded
            | Self::TaskFailed
            | Self::RemedyApplied => false,
        }
    }

    /// Returns the CloudEvents type.
    #[must_use]
    pub fn type_name(self) -> String {
        format!("dev.dagwright.{}.v1", self.as_str())
    }

    /// Returns the URI that identifies the data's schema, the schema's own `$id`. It is a name; nothing needs to be
    /// fetched from it.
    #[must_use]
    pub fn schema_uri(self) -> String {
        format!("https://dagwright.dev/schemas/{}.v1.json", self.as_str())
    }
}

// === impl Rows ===

impl Rows {
    /// Sums up counts.
    #[must_use]
    pub fn of(counts: &Counts) -> Self {
        let mut rows = Self::default();
        for source in counts.sources.values() {
            rows.read += source.read;
            rows.quarantined += source.quarantined;
        }
        for sink in counts.sinks.values() {
            rows.loaded += sink.loaded;
            rows.quarantined += sink.quarantined;
            rows.superseded += sink.superseded;
        }
        rows
    }
}

fn first(ended: &Ended) -> Option<Problem> {
    ended.problems.first().cloned()
}

fn declined(plan: &PlanHash) -> Problem {
    Problem {
        code: Code::ApprovalDeclined,
        subject: plan.short().into(),
        message: "a person declined the plan".into(),
        hint: "ask who declined it, and send the request again with what they want changed".into(),
    }
}

fn cancelled(pipeline: &str) -> Problem {
    Problem {
        code: Code::Cancelled,
        subject: pipeline.into(),
        message: "the request was cancelled before its run began".into(),
        hint: "send it again when you want its data".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{EventKind, Refusal, Subject, of, refused};
    use crate::{
        code::Code,
        id::{PlanHash, RequestId, TaskId},
        record::{Cancelled, EventIdentity, Record, RecordBody, RunEnded, TaskInstance, TaskStarted},
        task::{Counts, Problem, Status},
    };

    fn tell(runs: bool, body: RecordBody) -> Option<super::Event> {
        let plan = PlanHash("ab".repeat(32));
        let subject = Subject { pipeline: "p", plan: Some(&plan), runs, dag_run: None, traceparent: None };
        of(subject, &Record { request: RequestId("r".into()), sequence: 7, at: 1, body })
    }

    #[test]
    fn an_event_is_named_after_its_record() {
        let ended = RunEnded { status: Status::Succeeded, problem: None, counts: Counts::default(), setback: None };
        let event = tell(true, RecordBody::RunEnded(ended)).expect("an event");
        assert_eq!((event.id().as_str(), event.kind.type_name().as_str()), ("r/7", "dev.dagwright.run.succeeded.v1"));
        assert_eq!(event.data.run_id.as_deref(), Some("r"));
    }

    #[test]
    fn a_task_is_told_in_airflows_words() {
        let instance = TaskInstance { task: TaskId("load".into()), map_index: None };
        let started = RecordBody::TaskStarted(TaskStarted { instance, attempt: 2, partition: None });
        let told = serde_json::to_value(tell(true, started).expect("an event").data).expect("JSON");
        assert_eq!(told["map_index"], -1);
        assert_eq!((&told["task_id"], &told["try_number"]), (&"load".into(), &2.into()));
    }

    #[test]
    fn each_refused_try_is_an_event_of_its_own() {
        let identity = EventIdentity { source: "/s".into(), id: "1".into() };
        let problem = Problem { code: Code::NotAllowed, subject: "".into(), message: "m".into(), hint: "h".into() };
        let tell = |attempt| {
            let (identity, problem) = (&identity, problem.clone());
            refused(Refusal { pipeline: "p", identity, attempt, at: 1, traceparent: None, problem })
        };
        let request = RequestId::derive("p", "/s", "1");
        assert_eq!(tell(1), tell(1));
        assert_eq!((tell(2).id(), tell(2).kind), (format!("{request}/refused/2"), EventKind::RequestRejected));
        assert_eq!(tell(1).data.identity, Some(identity.clone()));
    }

    #[test]
    fn a_cancelled_request_is_told_once() {
        assert_eq!(tell(true, RecordBody::Cancelled(Cancelled::default())), None);
        let before = tell(false, RecordBody::Cancelled(Cancelled::default())).expect("an event");
        assert_eq!(before.kind, EventKind::RequestRejected);
    }
}
