//! `task.proto`.

use dagwright_model::{
    id::{PlanHash, TaskId},
    task::{Counts, Outcome, RunContext, SinkCounts, SourceCounts, Status, TASK_VERSION, TaskEvent, TaskRun, TaskSpec},
    units::ByteSize,
};

use super::{
    FromWire, all, by_name, each, from_json, optional, required, sha256, text, to_json, values_from_wire,
    values_to_wire,
};
use crate::{Error, proto};

// === TaskRun, TaskSpec ===

impl From<&TaskRun> for proto::TaskRun {
    fn from(run: &TaskRun) -> Self {
        Self { task: Some((&run.task).into()), run: Some((&run.run).into()) }
    }
}

impl TryFrom<proto::TaskRun> for TaskRun {
    type Error = Error;

    fn try_from(run: proto::TaskRun) -> Result<Self, Error> {
        Ok(Self {
            task: required(run.task, "task_run.task")?.try_into()?,
            run: required(run.run, "task_run.run")?.try_into()?,
        })
    }
}

impl From<&TaskSpec> for proto::TaskSpec {
    fn from(task: &TaskSpec) -> Self {
        Self {
            version: task.version,
            pipeline: task.pipeline.clone(),
            id: task.id.0.clone(),
            work_json: to_json(&task.work),
            connections: task.connections.iter().map(|(name, identity)| (name.to_string(), identity.into())).collect(),
            memory_bytes_max: task.memory_max.0,
        }
    }
}

impl TryFrom<proto::TaskSpec> for TaskSpec {
    type Error = Error;

    fn try_from(task: proto::TaskSpec) -> Result<Self, Error> {
        if task.version != TASK_VERSION {
            return Err(Error::Invalid { field: "task_spec.version", wanted: "the version of the task contract, 1" });
        }
        Ok(Self {
            version: task.version,
            pipeline: text(task.pipeline, "task_spec.pipeline")?,
            id: TaskId(text(task.id, "task_spec.id")?),
            work: from_json(&task.work_json, "task_spec.work_json")?,
            connections: by_name(task.connections, "task_spec.connections", TryInto::try_into)?,
            memory_max: ByteSize(task.memory_bytes_max),
        })
    }
}

// === RunContext ===

impl From<&RunContext> for proto::RunContext {
    fn from(run: &RunContext) -> Self {
        Self {
            effect: run.effect.clone(),
            generation: run.generation,
            plan_hash: run.plan_hash.0.clone(),
            attempt: run.attempt,
            base: run.base.clone(),
            staging: run.staging.clone(),
            quarantine: run.quarantine.clone(),
            interval: run.interval.as_ref().map(Into::into),
            params_json: values_to_wire(&run.params),
            partition: run.partition.as_ref().map(Into::into),
            backfill: run.backfill,
            keep_staged: run.keep_staged,
        }
    }
}

impl TryFrom<proto::RunContext> for RunContext {
    type Error = Error;

    fn try_from(run: proto::RunContext) -> Result<Self, Error> {
        Ok(Self {
            effect: text(run.effect, "run_context.effect")?,
            generation: run.generation,
            plan_hash: PlanHash(sha256(run.plan_hash, "run_context.plan_hash")?),
            attempt: run.attempt,
            base: run.base,
            staging: run.staging,
            quarantine: run.quarantine,
            interval: optional(run.interval)?,
            params: values_from_wire(run.params_json, "run_context.params_json")?,
            partition: optional(run.partition)?,
            backfill: run.backfill,
            keep_staged: run.keep_staged,
        })
    }
}

// === TaskEvent ===

impl From<&TaskEvent> for proto::TaskEvent {
    fn from(event: &TaskEvent) -> Self {
        use proto::task_event::{Event, Progress, Started};
        let event = match event {
            TaskEvent::Started { task, rows_expected, bytes_expected } => Event::Started(Started {
                task: task.0.clone(),
                rows_expected: *rows_expected,
                bytes_expected: *bytes_expected,
            }),
            TaskEvent::Progress { rows_read, bytes_read, rows_written } => Event::Progress(Progress {
                rows_read: *rows_read,
                bytes_read: *bytes_read,
                rows_written: *rows_written,
            }),
            TaskEvent::Warning(problem) => Event::Warning(problem.into()),
            TaskEvent::Outcome(outcome) => Event::Outcome((&**outcome).into()),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<proto::TaskEvent> for TaskEvent {
    type Error = Error;

    fn try_from(event: proto::TaskEvent) -> Result<Self, Error> {
        use proto::task_event::Event;
        Ok(match required(event.event, "task_event.event")? {
            Event::Started(started) => Self::Started {
                task: TaskId(text(started.task, "task_event.started.task")?),
                rows_expected: started.rows_expected,
                bytes_expected: started.bytes_expected,
            },
            Event::Progress(progress) => Self::Progress {
                rows_read: progress.rows_read,
                bytes_read: progress.bytes_read,
                rows_written: progress.rows_written,
            },
            Event::Warning(problem) => Self::Warning(problem.try_into()?),
            Event::Outcome(outcome) => Self::Outcome(Box::new(outcome.try_into()?)),
        })
    }
}

// === Outcome, Counts ===

impl From<&Outcome> for proto::Outcome {
    fn from(outcome: &Outcome) -> Self {
        Self {
            status: proto::Status::from(outcome.status).into(),
            repeated: outcome.repeated,
            counts: Some((&outcome.counts).into()),
            partitions: each(&outcome.partitions),
            cursors: outcome.cursors.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            problem: outcome.problem.as_ref().map(Into::into),
            elapsed_ms: outcome.elapsed_ms,
            memory_peak_bytes: outcome.memory_peak_bytes,
        }
    }
}

impl TryFrom<proto::Outcome> for Outcome {
    type Error = Error;

    fn try_from(outcome: proto::Outcome) -> Result<Self, Error> {
        Ok(Self {
            status: Status::from_wire(outcome.status, "outcome.status")?,
            repeated: outcome.repeated,
            counts: required(outcome.counts, "outcome.counts")?.try_into()?,
            partitions: all(outcome.partitions)?,
            cursors: by_name(outcome.cursors, "outcome.cursors", Ok)?,
            problem: optional(outcome.problem)?,
            elapsed_ms: outcome.elapsed_ms,
            memory_peak_bytes: outcome.memory_peak_bytes,
        })
    }
}

impl From<&Counts> for proto::Counts {
    fn from(counts: &Counts) -> Self {
        Self {
            sources: counts.sources.iter().map(|(name, count)| (name.to_string(), count.into())).collect(),
            steps: counts.steps.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            gates: counts.gates.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            sinks: counts.sinks.iter().map(|(name, count)| (name.to_string(), count.into())).collect(),
        }
    }
}

impl TryFrom<proto::Counts> for Counts {
    type Error = Error;

    fn try_from(counts: proto::Counts) -> Result<Self, Error> {
        Ok(Self {
            sources: by_name(counts.sources, "counts.sources", |count| Ok(count.into()))?,
            steps: by_name(counts.steps, "counts.steps", Ok)?,
            gates: by_name(counts.gates, "counts.gates", Ok)?,
            sinks: by_name(counts.sinks, "counts.sinks", |count| Ok(count.into()))?,
        })
    }
}

impl From<&SourceCounts> for proto::SourceCounts {
    fn from(count: &SourceCounts) -> Self {
        let SourceCounts { read, passed, quarantined, skipped, nulled, bytes } = *count;
        Self { read, passed, quarantined, skipped, nulled, bytes }
    }
}

impl From<proto::SourceCounts> for SourceCounts {
    fn from(count: proto::SourceCounts) -> Self {
        let proto::SourceCounts { read, passed, quarantined, skipped, nulled, bytes } = count;
        Self { read, passed, quarantined, skipped, nulled, bytes }
    }
}

impl From<&SinkCounts> for proto::SinkCounts {
    fn from(count: &SinkCounts) -> Self {
        let SinkCounts { produced, loaded, quarantined, superseded, nulled, bytes } = *count;
        Self { produced, loaded, quarantined, superseded, nulled, bytes }
    }
}

impl From<proto::SinkCounts> for SinkCounts {
    fn from(count: proto::SinkCounts) -> Self {
        let proto::SinkCounts { produced, loaded, quarantined, superseded, nulled, bytes } = count;
        Self { produced, loaded, quarantined, superseded, nulled, bytes }
    }
}
