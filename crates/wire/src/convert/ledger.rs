//! `ledger.proto`.

use dagwright_model::{
    id::{PlanHash, RequestId, TaskId},
    plan::{ChangeKind, PlanChange, Risk},
    record::{
        Accepted, ApprovalNeeded, Cancelled, DagCompiled, Decision, Ended, EventIdentity, FactRecorded, FailureClass,
        Followed, Ingress, PipelineChanged, PipelineStatus, PlanReused, PlanSealed, Purpose, Record, RecordBody,
        RemedyApplied, Replanned, RetryScheduled, RunEnded, RunRemedy, RunStarted, TaskEnded, TaskInstance,
        TaskStarted,
    },
    spec::SchemaChange,
    task::{RunContext, Status},
};

use super::{
    FromWire, all, by_name, each, enum_pairs, from_json, optional, required, sha256, text, to_json, values_to_wire,
};
use crate::{Error, proto, proto::record::Body};

enum_pairs!(Ingress, proto::Ingress { CommandLine, Http, Kafka, Airflow });
enum_pairs!(Purpose, proto::Purpose { Plan, Run, Apply, Pause, Delete });
enum_pairs!(PipelineStatus, proto::PipelineStatus { Active, Paused, Deleted });
enum_pairs!(
    FailureClass,
    proto::FailureClass { Transient, Away, SchemaDrift, Quality, Resources, Permission, Stopped, Bug }
);
enum_pairs!(ChangeKind, proto::ChangeKind { Added, Removed, Changed });
enum_pairs!(Risk, proto::Risk { Low, Medium, High });
enum_pairs!(RunRemedy, proto::RunRemedy { Clear, Trigger });

// === Record ===

impl From<&Record> for proto::Record {
    fn from(record: &Record) -> Self {
        Self {
            request: record.request.0.clone(),
            sequence: record.sequence,
            at: record.at,
            body: Some((&record.body).into()),
        }
    }
}

impl TryFrom<proto::Record> for Record {
    type Error = Error;

    fn try_from(record: proto::Record) -> Result<Self, Error> {
        Ok(Self {
            request: RequestId(text(record.request, "record.request")?),
            sequence: record.sequence,
            at: record.at,
            body: required(record.body, "record.body")?.try_into()?,
        })
    }
}

impl From<&RecordBody> for Body {
    fn from(body: &RecordBody) -> Self {
        match body {
            RecordBody::Accepted(accepted) => Self::Accepted((&**accepted).into()),
            RecordBody::FactRecorded(fact) => Self::FactRecorded(proto::FactRecorded {
                key: fact.key.clone(),
                observation: Some((&fact.observation).into()),
            }),
            RecordBody::MessageSent(envelope) => Self::MessageSent((&**envelope).into()),
            RecordBody::PlanSealed(sealed) => {
                Self::PlanSealed(proto::PlanSealed { hash: sealed.hash.0.clone(), plan_json: to_json(&sealed.plan) })
            }
            RecordBody::PlanReused(reused) => {
                Self::PlanReused(proto::PlanReused { hash: reused.hash.0.clone(), from: reused.from.0.clone() })
            }
            RecordBody::Deadlocked(ended) => Self::Deadlocked(ended.into()),
            RecordBody::Failed(ended) => Self::Failed(ended.into()),
            RecordBody::DagCompiled(compiled) => Self::DagCompiled(compiled.into()),
            RecordBody::RunStarted(started) => Self::RunStarted(proto::RunStarted {
                run: Some((&started.context(0, None)).into()),
                dag_run: started.dag_run.clone(),
                version: started.version,
            }),
            RecordBody::TaskStarted(started) => Self::TaskStarted(started.into()),
            RecordBody::TaskEnded(ended) => Self::TaskEnded((&**ended).into()),
            RecordBody::RetryScheduled(retry) => Self::RetryScheduled(proto::RetryScheduled {
                instance: Some((&retry.instance).into()),
                attempt: retry.attempt,
                delay_ms: retry.delay_ms,
            }),
            RecordBody::RemedyApplied(applied) => Self::RemedyApplied(applied.into()),
            RecordBody::ApprovalNeeded(needed) => Self::ApprovalNeeded(proto::ApprovalNeeded {
                plan_hash: needed.plan_hash.0.clone(),
                schema_change: proto::SchemaChange::from(needed.schema_change).into(),
                drift_json: if needed.drift.is_empty() { Vec::new() } else { to_json(&needed.drift) },
            }),
            RecordBody::Approved(decision) => Self::Approved(decision.into()),
            RecordBody::Declined(decision) => Self::Declined(decision.into()),
            RecordBody::PipelineChanged(changed) => Self::PipelineChanged(proto::PipelineChanged {
                status: proto::PipelineStatus::from(changed.status).into(),
                revision: changed.revision,
            }),
            RecordBody::Cancelled(cancelled) => Self::Cancelled(proto::Cancelled { by: cancelled.by.clone() }),
            RecordBody::RunEnded(ended) => Self::RunEnded(proto::RunEnded {
                status: proto::Status::from(ended.status).into(),
                problem: ended.problem.as_ref().map(Into::into),
                counts: Some((&ended.counts).into()),
                setback_json: ended.setback.as_deref().map(to_json).unwrap_or_default(),
            }),
            RecordBody::Replanned(replanned) => Self::Replanned((&**replanned).into()),
        }
    }
}

impl TryFrom<Body> for RecordBody {
    type Error = Error;

    fn try_from(body: Body) -> Result<Self, Error> {
        Ok(match body {
            Body::Accepted(accepted) => Self::Accepted(Box::new(accepted.try_into()?)),
            Body::FactRecorded(fact) => Self::FactRecorded(Box::new(FactRecorded {
                key: text(fact.key, "fact_recorded.key")?,
                observation: required(fact.observation, "fact_recorded.observation")?.try_into()?,
            })),
            Body::MessageSent(envelope) => Self::MessageSent(Box::new(envelope.try_into()?)),
            Body::PlanSealed(sealed) => Self::PlanSealed(Box::new(PlanSealed {
                hash: PlanHash(sha256(sealed.hash, "plan_sealed.hash")?),
                plan: from_json(&sealed.plan_json, "plan_sealed.plan_json")?,
            })),
            Body::PlanReused(reused) => Self::PlanReused(PlanReused {
                hash: PlanHash(sha256(reused.hash, "plan_reused.hash")?),
                from: RequestId(text(reused.from, "plan_reused.from")?),
            }),
            Body::Deadlocked(ended) => Self::Deadlocked(ended.try_into()?),
            Body::Failed(ended) => Self::Failed(ended.try_into()?),
            Body::DagCompiled(compiled) => Self::DagCompiled(compiled.try_into()?),
            Body::RunStarted(started) => {
                let run = required(started.run, "run_started.run")?.try_into()?;
                Self::RunStarted(Box::new(run_started(run, started.dag_run, started.version)))
            }
            Body::TaskStarted(started) => Self::TaskStarted(started.try_into()?),
            Body::TaskEnded(ended) => Self::TaskEnded(Box::new(ended.try_into()?)),
            Body::RetryScheduled(retry) => Self::RetryScheduled(RetryScheduled {
                instance: required(retry.instance, "retry_scheduled.instance")?.try_into()?,
                attempt: retry.attempt,
                delay_ms: retry.delay_ms,
            }),
            Body::RemedyApplied(applied) => Self::RemedyApplied(applied.try_into()?),
            Body::ApprovalNeeded(needed) => Self::ApprovalNeeded(ApprovalNeeded {
                plan_hash: PlanHash(sha256(needed.plan_hash, "approval_needed.plan_hash")?),
                schema_change: SchemaChange::from_wire(needed.schema_change, "approval_needed.schema_change")?,
                drift: given_json(&needed.drift_json, "approval_needed.drift_json")?.unwrap_or_default(),
            }),
            Body::Approved(decision) => Self::Approved(decision.try_into()?),
            Body::Declined(decision) => Self::Declined(decision.try_into()?),
            Body::PipelineChanged(changed) => Self::PipelineChanged(PipelineChanged {
                status: PipelineStatus::from_wire(changed.status, "pipeline_changed.status")?,
                revision: changed.revision,
            }),
            Body::Cancelled(cancelled) => Self::Cancelled(Cancelled { by: cancelled.by }),
            Body::RunEnded(ended) => Self::RunEnded(RunEnded {
                status: Status::from_wire(ended.status, "run_ended.status")?,
                problem: optional(ended.problem)?,
                counts: optional(ended.counts)?.unwrap_or_default(),
                setback: given_json(&ended.setback_json, "run_ended.setback_json")?.map(Box::new),
            }),
            Body::Replanned(replanned) => Self::Replanned(Box::new(replanned.try_into()?)),
        })
    }
}

/// Reads JSON that may be absent.
fn given_json<T: serde::de::DeserializeOwned>(json: &[u8], what: &'static str) -> Result<Option<T>, Error> {
    if json.is_empty() { Ok(None) } else { from_json(json, what).map(Some) }
}

fn run_started(run: RunContext, dag_run: Option<String>, version: u32) -> RunStarted {
    RunStarted {
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
        version: version.max(1),
    }
}

// === Accepted ===

impl From<&Accepted> for proto::Accepted {
    fn from(accepted: &Accepted) -> Self {
        Self {
            pipeline: accepted.pipeline.clone(),
            spec_text: accepted.spec_text.clone(),
            spec_hash: accepted.spec_hash.clone(),
            ingress: proto::Ingress::from(accepted.ingress).into(),
            purpose: proto::Purpose::from(accepted.purpose).into(),
            base: accepted.base.clone(),
            params_json: values_to_wire(&accepted.params),
            interval: accepted.interval.as_ref().map(Into::into),
            backfill: accepted.backfill,
            revision: accepted.revision,
            identity: accepted.identity.as_ref().map(Into::into),
            requester: accepted.requester.clone(),
            traceparent: accepted.traceparent.clone(),
            follows: accepted.follows.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Accepted> for Accepted {
    type Error = Error;

    fn try_from(accepted: proto::Accepted) -> Result<Self, Error> {
        Ok(Self {
            pipeline: text(accepted.pipeline, "accepted.pipeline")?,
            spec_text: accepted.spec_text,
            spec_hash: sha256(accepted.spec_hash, "accepted.spec_hash")?,
            ingress: Ingress::from_wire(accepted.ingress, "accepted.ingress")?,
            purpose: Purpose::from_wire(accepted.purpose, "accepted.purpose")?,
            base: accepted.base,
            params: by_name(accepted.params_json, "accepted.params_json", |text| {
                from_json(text.as_bytes(), "accepted.params_json")
            })?,
            interval: optional(accepted.interval)?,
            backfill: accepted.backfill,
            revision: accepted.revision,
            identity: optional(accepted.identity)?,
            requester: accepted.requester,
            traceparent: accepted.traceparent,
            follows: optional(accepted.follows)?,
        })
    }
}

impl From<&EventIdentity> for proto::EventIdentity {
    fn from(identity: &EventIdentity) -> Self {
        Self { source: identity.source.clone(), id: identity.id.clone() }
    }
}

impl TryFrom<proto::EventIdentity> for EventIdentity {
    type Error = Error;

    fn try_from(identity: proto::EventIdentity) -> Result<Self, Error> {
        Ok(Self {
            source: text(identity.source, "event_identity.source")?,
            id: text(identity.id, "event_identity.id")?,
        })
    }
}

impl From<&Followed> for proto::Followed {
    fn from(followed: &Followed) -> Self {
        Self { dag_run: followed.dag_run.clone(), plan: followed.plan.0.clone() }
    }
}

impl TryFrom<proto::Followed> for Followed {
    type Error = Error;

    fn try_from(followed: proto::Followed) -> Result<Self, Error> {
        Ok(Self {
            dag_run: text(followed.dag_run, "followed.dag_run")?,
            plan: PlanHash(sha256(followed.plan, "followed.plan")?),
        })
    }
}

// === RemedyApplied ===

impl From<&RemedyApplied> for proto::RemedyApplied {
    fn from(applied: &RemedyApplied) -> Self {
        Self {
            class: proto::FailureClass::from(applied.class).into(),
            remedy: proto::RunRemedy::from(applied.remedy).into(),
            number: applied.number,
            delay_ms: applied.delay_ms,
            problem: Some((&applied.problem).into()),
        }
    }
}

impl TryFrom<proto::RemedyApplied> for RemedyApplied {
    type Error = Error;

    fn try_from(applied: proto::RemedyApplied) -> Result<Self, Error> {
        Ok(Self {
            class: FailureClass::from_wire(applied.class, "remedy_applied.class")?,
            remedy: RunRemedy::from_wire(applied.remedy, "remedy_applied.remedy")?,
            number: applied.number,
            delay_ms: applied.delay_ms,
            problem: required(applied.problem, "remedy_applied.problem")?.try_into()?,
        })
    }
}

// === Replanned, PlanChange ===

impl From<&Replanned> for proto::Replanned {
    fn from(replanned: &Replanned) -> Self {
        Self {
            version: replanned.version,
            plan_hash: replanned.plan_hash.0.clone(),
            replaces: replanned.replaces.0.clone(),
            class: proto::FailureClass::from(replanned.class).into(),
            reason: Some((&replanned.reason).into()),
            changes: each(&replanned.changes),
            left: replanned.left,
        }
    }
}

impl TryFrom<proto::Replanned> for Replanned {
    type Error = Error;

    fn try_from(replanned: proto::Replanned) -> Result<Self, Error> {
        Ok(Self {
            version: replanned.version,
            plan_hash: PlanHash(sha256(replanned.plan_hash, "replanned.plan_hash")?),
            replaces: PlanHash(sha256(replanned.replaces, "replanned.replaces")?),
            class: FailureClass::from_wire(replanned.class, "replanned.class")?,
            reason: required(replanned.reason, "replanned.reason")?.try_into()?,
            changes: all(replanned.changes)?,
            left: replanned.left,
        })
    }
}

impl From<&PlanChange> for proto::PlanChange {
    fn from(change: &PlanChange) -> Self {
        Self {
            kind: proto::ChangeKind::from(change.kind).into(),
            subject: change.subject.clone(),
            what: change.what.clone(),
            risk: proto::Risk::from(change.risk).into(),
        }
    }
}

impl TryFrom<proto::PlanChange> for PlanChange {
    type Error = Error;

    fn try_from(change: proto::PlanChange) -> Result<Self, Error> {
        Ok(Self {
            kind: ChangeKind::from_wire(change.kind, "plan_change.kind")?,
            subject: change.subject,
            what: change.what,
            risk: Risk::from_wire(change.risk, "plan_change.risk")?,
        })
    }
}

// === Decision ===

impl From<&Decision> for proto::Decision {
    fn from(decision: &Decision) -> Self {
        Self { plan_hash: decision.plan_hash.0.clone(), by: decision.by.clone() }
    }
}

impl TryFrom<proto::Decision> for Decision {
    type Error = Error;

    fn try_from(decision: proto::Decision) -> Result<Self, Error> {
        Ok(Self { plan_hash: PlanHash(sha256(decision.plan_hash, "decision.plan_hash")?), by: decision.by })
    }
}

// === Ended, DagCompiled ===

impl From<&Ended> for proto::RequestEnded {
    fn from(ended: &Ended) -> Self {
        Self { problems: each(&ended.problems) }
    }
}

impl TryFrom<proto::RequestEnded> for Ended {
    type Error = Error;

    fn try_from(ended: proto::RequestEnded) -> Result<Self, Error> {
        Ok(Self { problems: all(ended.problems)? })
    }
}

impl From<&DagCompiled> for proto::DagCompiled {
    fn from(compiled: &DagCompiled) -> Self {
        Self {
            plan_hash: compiled.plan_hash.0.clone(),
            target: compiled.target.clone(),
            file: compiled.file.clone(),
            file_hash: compiled.file_hash.clone(),
        }
    }
}

impl TryFrom<proto::DagCompiled> for DagCompiled {
    type Error = Error;

    fn try_from(compiled: proto::DagCompiled) -> Result<Self, Error> {
        Ok(Self {
            plan_hash: PlanHash(sha256(compiled.plan_hash, "dag_compiled.plan_hash")?),
            target: text(compiled.target, "dag_compiled.target")?,
            file: text(compiled.file, "dag_compiled.file")?,
            file_hash: sha256(compiled.file_hash, "dag_compiled.file_hash")?,
        })
    }
}

// === TaskInstance, TaskStarted, TaskEnded ===

impl From<&TaskInstance> for proto::TaskInstance {
    fn from(instance: &TaskInstance) -> Self {
        Self { task: instance.task.0.clone(), map_index: instance.map_index }
    }
}

impl TryFrom<proto::TaskInstance> for TaskInstance {
    type Error = Error;

    fn try_from(instance: proto::TaskInstance) -> Result<Self, Error> {
        Ok(Self { task: TaskId(text(instance.task, "task_instance.task")?), map_index: instance.map_index })
    }
}

impl From<&TaskStarted> for proto::TaskStarted {
    fn from(started: &TaskStarted) -> Self {
        Self {
            instance: Some((&started.instance).into()),
            attempt: started.attempt,
            partition: started.partition.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::TaskStarted> for TaskStarted {
    type Error = Error;

    fn try_from(started: proto::TaskStarted) -> Result<Self, Error> {
        Ok(Self {
            instance: required(started.instance, "task_started.instance")?.try_into()?,
            attempt: started.attempt,
            partition: optional(started.partition)?,
        })
    }
}

impl From<&TaskEnded> for proto::TaskEnded {
    fn from(ended: &TaskEnded) -> Self {
        Self {
            instance: Some((&ended.instance).into()),
            attempt: ended.attempt,
            outcome: Some((&ended.outcome).into()),
        }
    }
}

impl TryFrom<proto::TaskEnded> for TaskEnded {
    type Error = Error;

    fn try_from(ended: proto::TaskEnded) -> Result<Self, Error> {
        Ok(Self {
            instance: required(ended.instance, "task_ended.instance")?.try_into()?,
            attempt: ended.attempt,
            outcome: required(ended.outcome, "task_ended.outcome")?.try_into()?,
        })
    }
}
