//! Reads relations, computes steps, judges gates, writes relations.
//!
//! Everything is written first; then the verdicts of all gates and bounds fall; only then becomes anything visible.
//! What computes fast needs memory; when the budget does not hold it, the work begins anew, frugally.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dagwright_model::{
    code::Code,
    id::Name,
    task::{Counts, Move, Output, SinkCounts},
};
use futures::{StreamExt, future::try_join_all};

use super::{
    Done, Failure, Task, cancelled,
    graph::{Uses, relation_of},
    input::OpenInput,
    output::{Begun, OpenSink, OpenStaged, pump},
};
use crate::{
    connectors::BatchStream,
    error::{Error, Result},
    events::Gauges,
    gates::{Gates, Verdicts},
    quarantine::Quarantine,
    spool::{Spool, SpoolWriter},
    staging::{self, Extract, SeenCursor},
    storage::Folder,
    transform::{
        Limits, Session,
        lineage::{lineage, shape},
        relation::{Feed, Relation},
        sql,
    },
};

/// The share of the budget that joins, sorts, groups and kept relations may take; the rest is for readers, writers
/// and the process itself.
const POOL_SHARE: u64 = 2;

/// The smallest pool: below, nothing at all could be computed.
const POOL_BYTES_MIN: u64 = 4 << 20;

/// The most that is read of an input before its consumer is planned.
const LOOK_AHEAD_BYTES_MAX: usize = 4 << 20;

/// Everything an attempt holds, so that it can be given up at any moment.
struct Attempt<'a> {
    task: &'a Task,
    work: &'a Move,
    session: Session,
    temp: Folder,
    quarantine: Quarantine,
    sinks: Vec<OpenSink>,
    repeated: BTreeMap<Name, SinkCounts>,
    staged: Vec<OpenStaged>,
    inputs: BTreeMap<Name, OpenInput>,
    relations: BTreeMap<Name, Arc<Relation>>,
    steps: Vec<Name>,
    gates: BTreeMap<Name, Arc<Gates>>,
    uses: Uses,
    kept: BTreeMap<Name, Spool>,
    gauges: Gauges,
    has_joins: bool,
    /// What the gates said, once they have.
    broken: BTreeMap<Name, u64>,
}

pub(super) async fn run(task: &Task, work: &Move) -> Result<Done, Failure> {
    match attempt(task, work, false).await {
        Err(failure) if failure.error.code() == Code::MemoryExhausted => {
            tracing::info!(task = %task.spec.id, "the rows did not fit in memory; beginning anew with what spills");
            attempt(task, work, true).await
        }
        done => done,
    }
}

async fn attempt(task: &Task, work: &Move, frugal: bool) -> Result<Done, Failure> {
    let cancel = &task.host.cancel;
    let mut attempt = Attempt::prepare(task, work, frugal).await?;
    let filled = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(cancelled(task.spec.id.0.as_str())),
        filled = attempt.fill() => filled,
    };
    match filled {
        Ok(None) => attempt.repeat().await,
        Ok(Some(cursors)) => attempt.commit(cursors).await,
        Err(error) => Err(attempt.give_up(error).await),
    }
}

// === impl Attempt ===

impl<'a> Attempt<'a> {
    async fn prepare(task: &'a Task, work: &'a Move, frugal: bool) -> Result<Self> {
        let temp = staging::temp(&task.spec.pipeline, &task.spec.id, &task.run).await?;
        let pool = (task.spec.memory_max.0 / POOL_SHARE).max(POOL_BYTES_MIN);
        let session = Session::new(&Limits {
            pool_bytes: usize::try_from(pool).unwrap_or(usize::MAX),
            temp: temp.local().map(ToOwned::to_owned),
            cores: task.host.cores,
            frugal,
        })?;
        let quarantine = Quarantine::start(&task.spec.pipeline, &task.spec.id, &task.run)?;
        Ok(Self {
            task,
            work,
            session,
            temp,
            quarantine,
            sinks: Vec::new(),
            repeated: BTreeMap::new(),
            staged: Vec::new(),
            inputs: BTreeMap::new(),
            relations: BTreeMap::new(),
            steps: Vec::new(),
            gates: BTreeMap::new(),
            uses: Uses::default(),
            kept: BTreeMap::new(),
            gauges: Gauges::default(),
            has_joins: false,
            broken: BTreeMap::new(),
        })
    }

    /// Writes everything and judges it; returns the cursors to commit by sink, or nothing when every effect is there.
    async fn fill(&mut self) -> Result<Option<BTreeMap<Name, BTreeMap<Name, String>>>> {
        let mut open = Vec::new();
        for output in &self.work.outputs {
            match output {
                Output::Staged { .. } => open.push(output),
                Output::Sink(write) => match OpenSink::begin(self.task, write).await? {
                    Begun::Repeated(name, counts) => drop(self.repeated.insert(name, counts)),
                    Begun::Open(sink) => {
                        self.sinks.push(*sink);
                        open.push(output);
                    }
                },
            }
        }
        if open.is_empty() && !self.repeated.is_empty() {
            return Ok(None);
        }
        self.plan(&open).await?;
        self.open_inputs().await?;
        let progress = self.task.host.events.watch(self.gauges.clone());
        self.keep().await?;
        self.write(&open).await?;
        for (name, input) in &self.inputs {
            if self.uses.gated.contains(name) || !input.cursors().is_empty() {
                input.drain().await?;
            }
        }
        drop(progress);
        self.judge().await?;
        self.cursors().await.map(Some)
    }

    /// Plans the steps and finds what must be computed.
    async fn plan(&mut self, open: &[&Output]) -> Result<()> {
        for (name, input) in &self.work.inputs {
            let input = OpenInput::prepare(self.task, name, input).await?;
            self.session.register(&input.relation)?;
            self.relations.insert(name.clone(), input.relation.clone());
            self.inputs.insert(name.clone(), input);
        }
        let mut planned = BTreeMap::new();
        for step in &self.work.steps {
            let plan = self.session.plan_step(step, &self.work.binds).await?;
            let values = sql::values(&plan.binds, &self.work.binds, &self.task.run)?;
            let bound = Session::bind(&step.name, plan.plan.clone(), &values)?;
            let mut classified = BTreeSet::new();
            for (column, origin) in plan.columns.iter().zip(lineage(&plan.plan)) {
                let secret = origin.from.iter().any(|(relation, column)| {
                    self.relations.get(relation.as_str()).is_some_and(|from| from.classified.contains(column))
                });
                if secret {
                    classified.insert(column.name.clone());
                }
            }
            let relation = Arc::new(Relation::new(step.name.clone(), plan.columns.clone(), classified));
            relation.feed_from(Feed::Plan(Box::new(bound)));
            self.session.register(&relation)?;
            self.relations.insert(step.name.clone(), relation);
            self.steps.push(step.name.clone());
            planned.insert(step.name.clone(), plan);
        }
        self.uses = Uses::find(self.work, &planned, open.iter().copied())?;
        self.has_joins = planned.values().any(|step| shape(&step.plan).scans.len() > 1);
        for name in self.uses.gated.clone() {
            let relation = self.relation(&name)?;
            let gates: Vec<_> = self.work.gates.iter().filter(|gate| gate.on == name).cloned().collect();
            let all: BTreeSet<String> = self.work.binds.keys().cloned().collect();
            // A check may use any bind; one without a value in this run matters only to who uses it.
            let values = all
                .iter()
                .filter_map(|bind| sql::values(&BTreeSet::from([bind.clone()]), &self.work.binds, &self.task.run).ok())
                .flatten()
                .collect();
            let binds = (&self.work.binds, &values);
            let gates =
                Gates::new(&self.session, &relation, &gates, binds, self.quarantine.rejects(), &self.temp).await?;
            self.gates.insert(name, Arc::new(gates));
        }
        Ok(())
    }

    /// Opens the inputs that are needed, all at once.
    async fn open_inputs(&mut self) -> Result<()> {
        let (task, work, uses, gates) = (self.task, self.work, &self.uses, &self.gates);
        self.inputs.retain(|name, _| uses.needed.contains(name));
        let rejects = self.quarantine.rejects();
        try_join_all(self.inputs.iter_mut().filter_map(|(name, input)| {
            let spec = work.inputs.get(name)?;
            let (gates, rejects) = (gates.get(name).cloned(), rejects.clone());
            Some(async move { input.open(task, spec, gates, rejects).await })
        }))
        .await?;
        self.gauges.sources = self.inputs.values().filter_map(|input| input.tally.clone()).collect();
        let staged = self.inputs.values().filter(|input| input.tally.is_none());
        self.gauges.staged = staged.map(|input| input.relation.clone()).collect();
        self.gauges.sinks = self.sinks.iter().map(|sink| sink.tally.clone()).collect();
        if self.has_joins {
            // What is kept below is known to its last row anyway.
            let looked_at = self.inputs.iter().filter(|(name, input)| {
                let by_steps = self.uses.by_steps.contains_key(*name);
                input.tally.is_some() && by_steps && !self.uses.is_kept(name, false)
            });
            let bytes = LOOK_AHEAD_BYTES_MAX.min(self.pool_bytes() / 16);
            try_join_all(looked_at.map(|(_, input)| input.look_ahead(bytes))).await?;
        }
        Ok(())
    }

    /// Reads what is used more than once, in the order in which one builds on another; and what is only judged.
    async fn keep(&mut self) -> Result<()> {
        let order: Vec<(Name, bool)> = (self.inputs.keys().map(|name| (name.clone(), false)))
            .chain(self.steps.iter().map(|name| (name.clone(), true)))
            .filter(|(name, _)| self.uses.needed.contains(name))
            .collect();
        for (name, is_step) in order {
            let relation = self.relation(&name)?;
            if self.uses.is_kept(&name, is_step) {
                let streams = self.judged_streams(&relation, is_step).await?;
                let bytes_max = self.pool_bytes() / 8;
                let (temp, pool) = (self.temp.clone(), self.session.pool());
                let mut writer = SpoolWriter::new(name.as_str(), temp, relation.schema.clone(), pool, bytes_max);
                let mut batches = pump(streams);
                while let Some(batch) = batches.next().await {
                    writer.write(batch?).await?;
                }
                let spool = writer.finish().await?;
                relation.feed_from(spool.feed(self.session.cores()));
                self.kept.insert(name, spool);
            } else if self.uses.is_only_judged(&name) {
                let mut batches = pump(self.judged_streams(&relation, is_step).await?);
                while let Some(batch) = batches.next().await {
                    batch?;
                }
            }
        }
        Ok(())
    }

    /// Writes the outputs, one after the other.
    async fn write(&mut self, open: &[&Output]) -> Result<()> {
        let rejects = self.quarantine.rejects();
        for output in open {
            let relation = self.relation(relation_of(output))?;
            let is_step = self.steps.contains(&relation.name) && !self.kept.contains_key(&relation.name);
            let streams = self.judged_streams(&relation, is_step).await?;
            match output {
                Output::Staged { .. } => {
                    let mut staged = OpenStaged::begin(self.task, &relation)?;
                    let filled = staged.fill(streams, &self.gauges.rows_staged).await;
                    self.staged.push(staged);
                    filled?;
                }
                Output::Sink(write) => {
                    let sink = self.sinks.iter_mut().find(|sink| sink.write.name == write.name);
                    if let Some(sink) = sink {
                        sink.fill(&self.session, &relation, streams, &rejects).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Opens a relation's rows; those of a step are judged here, those of an input as they are read.
    async fn judged_streams(&mut self, relation: &Arc<Relation>, is_step: bool) -> Result<Vec<BatchStream>> {
        let streams = self.session.streams(relation).await?;
        Ok(match self.gates.get(&relation.name).filter(|_| is_step) {
            Some(gates) => streams.into_iter().map(|stream| gates.judge_stream(stream)).collect(),
            None => streams,
        })
    }

    /// Lets every verdict fall.
    async fn judge(&mut self) -> Result<()> {
        let mut failure: Option<Error> = None;
        for (name, gates) in &self.gates {
            let rows = self.relations.get(name).map_or(0, |relation| relation.rows());
            let Verdicts { broken, warnings, failure: failed } = gates.verdicts(&self.session, rows).await?;
            self.broken.extend(broken);
            for warning in warnings {
                self.task.host.events.warn(warning);
            }
            failure = failure.or(failed);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let max_rejected = self.work.max_rejected;
        for (name, input) in &self.inputs {
            let Some(counts) = input.tally.as_ref().map(|tally| tally.counts()) else { continue };
            if counts.quarantined > max_rejected.of(counts.read) {
                return Err(Error::new(
                    Code::QuarantineFull,
                    name.as_str(),
                    format!(
                        "{} of {} records do not read as the sealed columns, more than {max_rejected}",
                        counts.quarantined, counts.read
                    ),
                    "look at the records in the quarantine; mend them, or plan again if the source has changed",
                ));
            }
        }
        for sink in &self.sinks {
            sink.judge(self.gated(&sink.write.relation), max_rejected)?;
        }
        Ok(())
    }

    async fn cursors(&mut self) -> Result<BTreeMap<Name, BTreeMap<Name, String>>> {
        let seen = self.seen_cursors();
        let mut cursors = BTreeMap::new();
        for sink in &mut self.sinks {
            cursors.insert(sink.write.name.clone(), sink.cursors(self.task, &seen).await?);
        }
        Ok(cursors)
    }

    /// Makes everything visible, the quarantine first: counts that speak of it must find it.
    async fn commit(self, mut cursors: BTreeMap<Name, BTreeMap<Name, String>>) -> Result<Done, Failure> {
        let mut done = Done { counts: self.counts(), ..Done::default() };
        let seen = self.seen_cursors();
        done.cursors = seen.iter().map(|(source, seen)| (source.clone(), seen.value.clone())).collect();
        done.counts.sinks.extend(self.repeated.clone());
        let Self { task, temp, quarantine, sinks, staged, relations, gates, inputs, .. } = self;
        let mut failure = quarantine.finish().await.err();
        for staged in staged {
            if failure.is_some() {
                staged.abort().await;
                continue;
            }
            let classified = relations.get(&staged.relation).map(|relation| relation.classified.clone());
            let extract = Extract { cursors: seen.clone(), classified: classified.unwrap_or_default() };
            failure = staged.publish(&extract).await.err();
        }
        for sink in sinks {
            // Once one effect is there, the others must follow; a cancelled task stops before the first.
            if failure.is_none() && task.host.cancel.is_cancelled() && done.counts.sinks.is_empty() {
                failure = Some(cancelled(task.spec.id.0.as_str()));
            }
            if failure.is_some() {
                sink.abort().await;
                continue;
            }
            let (name, relation) = (sink.write.name.clone(), sink.write.relation.clone());
            let gated = match inputs.get(&relation) {
                Some(input) if input.tally.is_some() => 0,
                _ if gates.contains_key(&relation) => relations.get(&relation).map_or(0, |from| from.rejected()),
                _ => 0,
            };
            let cursors = cursors.remove(&name).unwrap_or_default();
            match sink.commit(gated, cursors).await {
                Ok(counts) => drop(done.counts.sinks.insert(name, counts)),
                Err(error) => failure = Some(error),
            }
        }
        drop((gates, inputs, relations));
        remove(&temp).await;
        match failure {
            None => Ok(done),
            Some(error) => Err(Failure { error, counts: Box::new(done.counts) }),
        }
    }

    /// Ends a task whose effects are all there already.
    async fn repeat(self) -> Result<Done, Failure> {
        let Self { temp, quarantine, repeated, .. } = self;
        // The quarantine of the try that had the effect stays as it is.
        quarantine.abort().await?;
        remove(&temp).await;
        Ok(Done { repeated: true, counts: Counts { sinks: repeated, ..Counts::default() }, ..Done::default() })
    }

    /// Removes everything but the quarantine of rows whose rejection is why it failed.
    async fn give_up(self, error: Error) -> Failure {
        let mut counts = self.counts();
        for sink in &self.sinks {
            counts.sinks.insert(sink.write.name.clone(), sink.counts(self.gated(&sink.write.relation)));
        }
        let Self { temp, quarantine, sinks, staged, relations, gates, inputs, session, kept, .. } = self;
        drop((relations, gates, inputs, session, kept));
        for sink in sinks {
            sink.abort().await;
        }
        for staged in staged {
            staged.abort().await;
        }
        // A writer that stopped is why others could not go on.
        let stopped = quarantine.has_stopped();
        let judged = matches!(error.code(), Code::GateFailed | Code::QuarantineFull | Code::SinkTooFewRows);
        let ended = if judged && !stopped { quarantine.finish().await } else { quarantine.abort().await };
        remove(&temp).await;
        let error = match ended {
            Err(failure) if stopped => failure,
            Ok(()) | Err(_) => error,
        };
        Failure { error, counts: Box::new(counts) }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (name, input) in &self.inputs {
            let Some(mut source) = input.tally.as_ref().map(|tally| tally.counts()) else { continue };
            let rejected = input.relation.rejected();
            source.passed = source.passed.saturating_sub(rejected);
            source.quarantined += rejected;
            counts.sources.insert(name.clone(), source);
        }
        for name in self.steps.iter().filter(|name| self.uses.needed.contains(*name)) {
            let rows = self.relations.get(name).map_or(0, |relation| relation.rows());
            counts.steps.insert(name.clone(), rows);
        }
        counts.gates = self.broken.clone();
        counts
    }

    /// Rows that gates kept from a sink; those of a source count there.
    fn gated(&self, relation: &Name) -> u64 {
        let of_source = self.inputs.get(relation).is_some_and(|input| input.tally.is_some());
        if of_source { 0 } else { self.relations.get(relation).map_or(0, |relation| relation.rejected()) }
    }

    fn seen_cursors(&self) -> BTreeMap<Name, SeenCursor> {
        self.inputs.values().flat_map(OpenInput::cursors).collect()
    }

    fn pool_bytes(&self) -> usize {
        let pool = (self.task.spec.memory_max.0 / POOL_SHARE).max(POOL_BYTES_MIN);
        usize::try_from(pool).unwrap_or(usize::MAX)
    }

    fn relation(&self, name: &Name) -> Result<Arc<Relation>> {
        self.relations.get(name).cloned().ok_or_else(|| {
            Error::new(
                Code::TaskSpecInvalid,
                name.as_str(),
                "the task uses a relation that it neither reads nor computes",
                "plan again; the sealed task does not fit",
            )
        })
    }
}

/// Removes the temporary files; what stays is removed by the next try, or by the run's clean-up.
async fn remove(temp: &Folder) {
    if let Err(error) = temp.remove_all().await {
        tracing::warn!(code = %error.code(), "temporary files could not be removed");
    }
}
