//! Reads relations, computes steps, judges gates, writes relations.
//!
//! Everything is written first; then the verdicts of all gates and bounds fall; only then becomes anything visible.
//! What computes fast needs memory; when the budget does not hold it, the work begins anew, frugally.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dagwright_model::{
    code::Code,
    id::Name,
    task::{Counts, Move, Output, SinkCounts},
};
use tracing::Instrument;

use super::{
    Done, Failure, Task, cancelled,
    output::{Begun, OpenSink},
    pass::{Filled, FilledSink, Means, Pass},
    reuse,
    views::divide,
};
use crate::{
    error::{Error, Result},
    events::Gauges,
    quarantine::Quarantine,
    staging::{self, Made},
    storage::Folder,
    transform::{Limits, Session},
};

/// The share of the budget that joins, sorts, groups and kept relations may take; the rest is for readers, writers
/// and the process itself.
const POOL_SHARE: u64 = 2;

/// The smallest pool: below, nothing at all could be computed.
const POOL_BYTES_MIN: u64 = 4 << 20;

/// Everything an attempt holds, so that it can be given up at any moment.
struct Attempt<'a> {
    task: &'a Task,
    work: &'a Move,
    frugal: bool,
    temp: Folder,
    quarantine: Quarantine,
    /// Sinks that no pass has yet.
    sinks: Vec<OpenSink>,
    repeated: BTreeMap<Name, SinkCounts>,
    passes: VecDeque<Pass<'a>>,
    filled: Filled,
    gauges: Gauges,
}

pub(super) async fn run(task: &Task, work: &Move) -> Result<Done, Failure> {
    if let Some(done) = reuse::completed(task, work).await {
        tracing::info!(task = %task.spec.id, "an earlier run of the request left what this task leaves");
        return Ok(done);
    }
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
        filled = attempt.fill().instrument(tracing::info_span!("transfer")) => filled,
    };
    match filled {
        Ok(Written::Before) => attempt.repeat().await,
        Ok(Written::Now) => attempt.commit().instrument(tracing::info_span!("publish")).await,
        Err(error) => Err(attempt.give_up(error).await),
    }
}

/// Whether there is anything to commit.
enum Written {
    /// Every effect was there already.
    Before,
    Now,
}

// === impl Attempt ===

impl<'a> Attempt<'a> {
    async fn prepare(task: &'a Task, work: &'a Move, frugal: bool) -> Result<Self> {
        let temp = staging::temp(&task.spec.pipeline, &task.spec.id, &task.run).await?;
        let quarantine = Quarantine::start(&task.spec.pipeline, &task.spec.id, &task.run)?;
        Ok(Self {
            task,
            work,
            frugal,
            temp,
            quarantine,
            sinks: Vec::new(),
            repeated: BTreeMap::new(),
            passes: VecDeque::new(),
            filled: Filled::default(),
            gauges: Gauges::default(),
        })
    }

    /// Writes everything and judges it.
    async fn fill(&mut self) -> Result<Written> {
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
            return Ok(Written::Before);
        }
        for (index, part) in divide(self.task, &self.work.inputs, &open).await?.into_iter().enumerate() {
            let means = self.means(index)?;
            let here = |sink: &OpenSink| {
                part.1.iter().any(|output| matches!(output, Output::Sink(write) if write.name == sink.write.name))
            };
            let (sinks, others) = std::mem::take(&mut self.sinks).into_iter().partition(here);
            self.sinks = others;
            self.passes.push_back(Pass::new(self.task, self.work, part, sinks, means));
        }
        self.plan().await?;
        // One after the other, so that each has all the memory.
        while let Some(pass) = self.passes.front_mut() {
            pass.fill(&mut self.gauges).await?;
            if let Some(pass) = self.passes.pop_front() {
                pass.finish(&mut self.filled).await?;
            }
        }
        Ok(Written::Now)
    }

    fn means(&self, pass: usize) -> Result<Means> {
        let pool = (self.task.spec.memory_max.0 / POOL_SHARE).max(POOL_BYTES_MIN);
        let pool_bytes = usize::try_from(pool).unwrap_or(usize::MAX);
        let session = Session::new(&Limits {
            pool_bytes,
            temp: self.temp.local().map(ToOwned::to_owned),
            cores: self.task.host.cores,
            frugal: self.frugal,
        })?;
        let temp = self.temp.child(&pass.to_string());
        Ok(Means { session, pool_bytes, temp, rejects: self.quarantine.rejects() })
    }

    /// Plans the passes; a gate is judged wherever its relation is needed, and once where it is not.
    async fn plan(&mut self) -> Result<()> {
        for pass in &mut self.passes {
            pass.plan().await?;
        }
        let gated: BTreeSet<&Name> = self.work.gates.iter().map(|gate| &gate.on).collect();
        let unneeded: Vec<&Name> =
            gated.iter().copied().filter(|name| !self.passes.iter().any(|pass| pass.needs(name))).collect();
        for (index, pass) in self.passes.iter_mut().enumerate() {
            let needed = gated.iter().copied().filter(|name| pass.needs(name));
            let judged = needed.chain(unneeded.iter().copied().filter(|_| index == 0)).cloned().collect();
            pass.take_gates(judged).await?;
        }
        Ok(())
    }

    /// Makes everything visible, the quarantine first: counts that speak of it must find it.
    async fn commit(self) -> Result<Done, Failure> {
        let Self { task, work, temp, quarantine, repeated, filled, .. } = self;
        let mut done = Done { counts: filled.counts, ..Done::default() };
        done.cursors = filled.cursors.into_iter().map(|(source, seen)| (source, seen.value)).collect();
        done.counts.sinks.extend(repeated);
        let mut failure = quarantine.finish().await.err();
        let made = reuse::contract(task, work).await.map(|contract| Made { contract, counts: done.counts.clone() });
        for (staged, mut extract) in filled.staged {
            extract.made.clone_from(&made);
            if failure.is_some() {
                staged.abort().await;
                continue;
            }
            failure = staged.publish(&extract).await.err();
        }
        for FilledSink { sink, gated, cursors } in filled.sinks {
            // Once one effect is there, the others must follow; a cancelled task stops before the first.
            if failure.is_none() && task.host.cancel.is_cancelled() && done.counts.sinks.is_empty() {
                failure = Some(cancelled(task.spec.id.0.as_str()));
            }
            if failure.is_some() {
                sink.abort().await;
                continue;
            }
            let name = sink.write.name.clone();
            match sink.commit(gated, cursors).await {
                Ok(counts) => drop(done.counts.sinks.insert(name, counts)),
                Err(error) => failure = Some(error),
            }
        }
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
        let Self { temp, quarantine, sinks, passes, filled, .. } = self;
        let mut counts = filled.counts;
        for FilledSink { sink, gated, .. } in filled.sinks {
            counts.sinks.insert(sink.write.name.clone(), sink.counts(gated));
            sink.abort().await;
        }
        for pass in passes {
            let aborted = pass.abort().await;
            counts.add(&aborted);
        }
        for sink in sinks {
            counts.sinks.insert(sink.write.name.clone(), sink.counts(0));
            sink.abort().await;
        }
        for (staged, _) in filled.staged {
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
}

/// Removes the temporary files; what stays is removed by the next try, or by the run's clean-up.
async fn remove(temp: &Folder) {
    if let Err(error) = temp.remove_all().await {
        tracing::warn!(code = %error.code(), "temporary files could not be removed");
    }
}
