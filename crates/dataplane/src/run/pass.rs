//! What is read and computed together: the outputs whose sources continue at the same places.
//!
//! A pass writes its outputs and judges its gates; nothing of it is visible before the move commits every pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dagwright_model::{
    code::Code,
    id::Name,
    task::{Counts, Move, Output},
};
use futures::{StreamExt, future::try_join_all};

use super::{
    Task,
    graph::{Uses, relation_of},
    input::OpenInput,
    output::{OpenSink, OpenStaged, pump},
    views::View,
};
use crate::{
    connectors::BatchStream,
    cursor,
    error::{Error, Result},
    events::Gauges,
    gates::{Gates, Verdicts},
    spool::{Spool, SpoolWriter},
    staging::{Extract, SeenCursor},
    storage::Folder,
    tally::Rejects,
    transform::{
        PlannedStep, Session,
        lineage::{lineage, shape},
        relation::{Feed, Relation},
        sql,
    },
};

/// The most that is read of an input before its consumer is planned.
const LOOK_AHEAD_BYTES_MAX: usize = 4 << 20;

/// Some outputs of a move, and everything that is held to fill them.
pub(super) struct Pass<'a> {
    task: &'a Task,
    work: &'a Move,
    outputs: Vec<&'a Output>,
    view: View,
    session: Session,
    pool_bytes: usize,
    temp: Folder,
    rejects: Rejects,
    pub(super) sinks: Vec<OpenSink>,
    staged: Vec<OpenStaged>,
    inputs: BTreeMap<Name, OpenInput>,
    relations: BTreeMap<Name, Arc<Relation>>,
    steps: Vec<Name>,
    planned: BTreeMap<Name, PlannedStep>,
    gates: BTreeMap<Name, Arc<Gates>>,
    uses: Uses,
    kept: BTreeMap<Name, Spool>,
    has_joins: bool,
    /// What the gates said, once they have.
    broken: BTreeMap<Name, u64>,
}

/// What a pass needs of the move it belongs to.
pub(super) struct Means {
    pub(super) session: Session,
    /// How large the session's pool is.
    pub(super) pool_bytes: usize,
    /// A folder of its own.
    pub(super) temp: Folder,
    pub(super) rejects: Rejects,
}

/// What a pass wrote, ready to become visible.
#[derive(Default)]
pub(super) struct Filled {
    pub(super) sinks: Vec<FilledSink>,
    pub(super) staged: Vec<(OpenStaged, Extract)>,
    pub(super) counts: Counts,
    /// The largest cursors read.
    pub(super) cursors: BTreeMap<Name, SeenCursor>,
}

/// A sink that has all its rows.
pub(super) struct FilledSink {
    pub(super) sink: OpenSink,
    /// Rows that gates kept from it.
    pub(super) gated: u64,
    /// The cursors to commit with it.
    pub(super) cursors: BTreeMap<Name, String>,
}

// === impl Pass ===

impl<'a> Pass<'a> {
    /// Makes a pass over `outputs`, whose sinks are open.
    pub(super) fn new(
        task: &'a Task,
        work: &'a Move,
        (view, outputs): (View, Vec<&'a Output>),
        sinks: Vec<OpenSink>,
        means: Means,
    ) -> Self {
        let Means { session, pool_bytes, temp, rejects } = means;
        Self {
            task,
            work,
            outputs,
            view,
            session,
            pool_bytes,
            temp,
            rejects,
            sinks,
            staged: Vec::new(),
            inputs: BTreeMap::new(),
            relations: BTreeMap::new(),
            steps: Vec::new(),
            planned: BTreeMap::new(),
            gates: BTreeMap::new(),
            uses: Uses::default(),
            kept: BTreeMap::new(),
            has_joins: false,
            broken: BTreeMap::new(),
        }
    }

    /// Plans the steps and finds what the outputs need.
    ///
    /// # Errors
    /// Whatever planning meets.
    pub(super) async fn plan(&mut self) -> Result<()> {
        for (name, input) in &self.work.inputs {
            let input = OpenInput::prepare(self.task, name, input).await?;
            self.session.register(&input.relation)?;
            self.relations.insert(name.clone(), input.relation.clone());
            self.inputs.insert(name.clone(), input);
        }
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
            self.planned.insert(step.name.clone(), plan);
        }
        self.uses = Uses::find(self.work, &self.planned, &self.outputs, BTreeSet::new())?;
        self.has_joins = self.planned.values().any(|step| shape(&step.plan).scans.len() > 1);
        Ok(())
    }

    /// Tells whether the outputs need a relation.
    pub(super) fn needs(&self, relation: &Name) -> bool {
        self.uses.needed.contains(relation)
    }

    /// Prepares the gates of these relations.
    ///
    /// # Errors
    /// DW0501 when a gate does not plan.
    pub(super) async fn take_gates(&mut self, gated: BTreeSet<Name>) -> Result<()> {
        self.uses = Uses::find(self.work, &self.planned, &self.outputs, gated.clone())?;
        // A check may use any bind; one without a value in this run matters only to who uses it.
        let binds = self
            .work
            .binds
            .keys()
            .filter_map(|bind| sql::values(&BTreeSet::from([bind.clone()]), &self.work.binds, &self.task.run).ok());
        let values = binds.flatten().collect();
        for name in gated {
            let relation = self.relation(&name)?;
            let gates: Vec<_> = self.work.gates.iter().filter(|gate| gate.on == name).cloned().collect();
            let binds = (&self.work.binds, &values);
            let gates = Gates::new(&self.session, &relation, &gates, binds, self.rejects.clone(), &self.temp).await?;
            self.gates.insert(name, Arc::new(gates));
        }
        Ok(())
    }

    /// Writes every output and lets every verdict fall.
    ///
    /// # Errors
    /// Whatever reading, computing, writing and judging meet; [`Self::abort`] then removes what was written.
    pub(super) async fn fill(&mut self, gauges: &mut Gauges) -> Result<()> {
        self.open_inputs().await?;
        gauges.sources.extend(self.inputs.values().filter_map(|input| input.tally.clone()));
        let staged = self.inputs.values().filter(|input| input.tally.is_none());
        gauges.staged.extend(staged.map(|input| input.relation.clone()));
        gauges.sinks.extend(self.sinks.iter().map(|sink| sink.tally.clone()));
        let progress = self.task.host.events.watch(gauges.clone());
        self.keep().await?;
        self.write(gauges).await?;
        for (name, input) in &self.inputs {
            if self.uses.gated.contains(name) || !input.cursors().is_empty() {
                input.drain().await?;
            }
        }
        drop(progress);
        self.judge().await
    }

    /// Lets go of everything but what is written.
    ///
    /// # Errors
    /// Whatever asking sinks for their cursors meets; the sinks stay in `filled`, to be aborted.
    pub(super) async fn finish(mut self, filled: &mut Filled) -> Result<()> {
        let seen = self.seen_cursors();
        filled.counts.add(&self.counts());
        for staged in std::mem::take(&mut self.staged) {
            let classified = self.relations.get(&staged.relation).map(|relation| relation.classified.clone());
            let extract = Extract { cursors: seen.clone(), classified: classified.unwrap_or_default(), made: None };
            filled.staged.push((staged, extract));
        }
        let task = self.task;
        let sinks = std::mem::take(&mut self.sinks);
        let gated: Vec<u64> = sinks.iter().map(|sink| self.gated(&sink.write.relation)).collect();
        let first = filled.sinks.len();
        filled.sinks.extend(sinks.into_iter().zip(gated).map(|(sink, gated)| FilledSink {
            sink,
            gated,
            cursors: BTreeMap::new(),
        }));
        for (source, seen) in &seen {
            let known = filled.cursors.get(source).map(|known| known.value.clone());
            let largest = cursor::largest(source, &seen.data_type, Some(seen.value.clone()), known)?;
            if let Some(value) = largest {
                filled.cursors.insert(source.clone(), SeenCursor { value, data_type: seen.data_type.clone() });
            }
        }
        for filled in &mut filled.sinks[first..] {
            filled.cursors = filled.sink.cursors(task, &seen).await?;
        }
        Ok(())
    }

    /// Opens the inputs that are needed, all at once.
    async fn open_inputs(&mut self) -> Result<()> {
        let (task, work, uses, gates) = (self.task, self.work, &self.uses, &self.gates);
        self.inputs.retain(|name, _| uses.needed.contains(name));
        let (view, rejects) = (&self.view, &self.rejects);
        try_join_all(self.inputs.iter_mut().filter_map(|(name, input)| {
            let spec = work.inputs.get(name)?;
            let after = view.get(name).cloned().flatten();
            let (gates, rejects) = (gates.get(name).cloned(), rejects.clone());
            Some(async move { input.open(task, spec, after, gates, rejects).await })
        }))
        .await?;
        if self.has_joins {
            // What is kept below is known to its last row anyway.
            let looked_at = self.inputs.iter().filter(|(name, input)| {
                let by_steps = self.uses.by_steps.contains_key(*name);
                input.tally.is_some() && by_steps && !self.uses.is_kept(name, false)
            });
            let bytes = LOOK_AHEAD_BYTES_MAX.min(self.pool_bytes / 16);
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
                let bytes_max = self.pool_bytes / 8;
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
    async fn write(&mut self, gauges: &Gauges) -> Result<()> {
        for output in self.outputs.clone() {
            let relation = self.relation(relation_of(output))?;
            let is_step = self.steps.contains(&relation.name) && !self.kept.contains_key(&relation.name);
            let streams = self.judged_streams(&relation, is_step).await?;
            match output {
                Output::Staged { .. } => {
                    let mut staged = OpenStaged::begin(self.task, &relation)?;
                    let filled = staged.fill(streams, &gauges.rows_staged).await;
                    self.staged.push(staged);
                    filled?;
                }
                Output::Sink(write) => {
                    let sink = self.sinks.iter_mut().find(|sink| sink.write.name == write.name);
                    if let Some(sink) = sink {
                        sink.fill(&self.session, &relation, streams, &self.rejects).await?;
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

    /// Removes what was written; the counts say how far it came.
    pub(super) async fn abort(mut self) -> Counts {
        let mut counts = self.counts();
        for sink in &self.sinks {
            counts.sinks.insert(sink.write.name.clone(), sink.counts(self.gated(&sink.write.relation)));
        }
        let (sinks, staged) = (std::mem::take(&mut self.sinks), std::mem::take(&mut self.staged));
        // What still reads must not go on while what it wrote is removed.
        drop(self);
        for sink in sinks {
            sink.abort().await;
        }
        for staged in staged {
            staged.abort().await;
        }
        counts
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
