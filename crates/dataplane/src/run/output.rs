//! The relations a move writes: cast, made unique by key, handed to a writer that runs beside the reading.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::array::RecordBatch;
use dagwright_model::{
    code::Code,
    id::Name,
    spec::SinkMode,
    task::{SinkCounts, SinkRef, SinkWrite, WriteStrategy},
};
use futures::{StreamExt, TryStreamExt};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Task, dedupe};
use crate::{
    cast::Caster,
    connectors::{BatchStream, Begin, Commit, SinkWriter},
    cursor,
    error::{Error, Result},
    relations::FileWriter,
    staging::{self, Extract, SeenCursor},
    tally::{Rejects, SinkTally},
    transform::{
        Session,
        relation::{Feed, Opener, Relation},
    },
};

/// How many batches may wait for a writer: enough that it never waits for the reader's next wake-up.
const BATCHES_QUEUED: usize = 2;

/// A sink that is being written.
pub(super) struct OpenSink {
    pub(super) write: SinkWrite,
    writer: Box<dyn SinkWriter>,
    pub(super) tally: Arc<SinkTally>,
    counts: Arc<CastCounts>,
    handed: u64,
}

/// A sink, or what an earlier try wrote to it.
pub(super) enum Begun {
    Open(Box<OpenSink>),
    Repeated(Name, SinkCounts),
}

/// What happened between a relation and its sink.
#[derive(Debug, Default)]
struct CastCounts {
    passed: AtomicU64,
    rejected: AtomicU64,
    nulled: AtomicU64,
}

/// A relation that is being staged.
pub(super) struct OpenStaged {
    pub(super) relation: Name,
    file: FileWriter,
}

// === impl OpenSink ===

impl OpenSink {
    /// Begins to write to a sink.
    pub(super) async fn begin(task: &Task, write: &SinkWrite) -> Result<Begun> {
        let tally = SinkTally::shared();
        let connector = task.sink(&write.locator)?;
        Ok(match connector.begin(write, &task.write_context(tally.clone())).await? {
            Begin::Repeated(counts) => Begun::Repeated(write.name.clone(), counts),
            Begin::Write(writer) => {
                let (write, counts) = (write.clone(), Arc::default());
                Begun::Open(Box::new(Self { write, writer, tally, counts, handed: 0 }))
            }
        })
    }

    /// Writes a relation's rows.
    pub(super) async fn fill(
        &mut self,
        session: &Session,
        relation: &Relation,
        streams: Vec<BatchStream>,
        rejects: &Rejects,
    ) -> Result<()> {
        let write = &self.write;
        let caster = Caster::new(
            &write.name,
            &relation.name,
            &relation.columns,
            &write.columns,
            write.lossy,
            &relation.classified,
        )?;
        let caster = Arc::new(caster);
        let casted = streams.into_iter().map(|stream| self.cast(stream, &caster, rejects)).collect();
        let streams = if write.mode == SinkMode::Upsert {
            dedupe::first_of_each_key(session, write, once(casted)).await?
        } else {
            casted
        };
        let mut batches = pump(streams);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                self.handed += batch.num_rows() as u64;
                self.writer.write(batch).await?;
            }
        }
        let superseded = self.superseded();
        if superseded > 0 && self.write.dedupe.is_empty() {
            return Err(Error::new(
                Code::SinkDuplicateKey,
                self.write.name.as_str(),
                format!("{superseded} rows repeat the key ({}) of another row", self.write.key.join(", ")),
                "say which row wins with dedupe.order_by, or make the key unique in a step",
            ));
        }
        Ok(())
    }

    fn cast(&self, stream: BatchStream, caster: &Arc<Caster>, rejects: &Rejects) -> BatchStream {
        let (caster, rejects, counts) = (caster.clone(), rejects.clone(), self.counts.clone());
        stream
            .and_then(move |batch| {
                let (caster, rejects, counts) = (caster.clone(), rejects.clone(), counts.clone());
                async move {
                    let casted = caster.cast(&batch)?;
                    counts.passed.fetch_add(casted.batch.num_rows() as u64, Relaxed);
                    counts.rejected.fetch_add(casted.rejects.len() as u64, Relaxed);
                    counts.nulled.fetch_add(casted.nulled, Relaxed);
                    for reject in casted.rejects {
                        rejects.send(reject).await.map_err(|error| {
                            crate::storage::unusable("rejected rows could not be kept").caused_by(error)
                        })?;
                    }
                    Ok(casted.batch)
                }
            })
            .boxed()
    }

    /// Rows that did not reach the writer because another one with their key did.
    fn superseded(&self) -> u64 {
        self.counts.passed.load(Relaxed).saturating_sub(self.handed)
    }

    /// Returns what will be committed, once everything is written; `gated` are rows that gates kept from this sink.
    ///
    /// # Errors
    /// DW0406 when there are too few rows, DW0505 when too many were rejected.
    pub(super) fn judge(&self, gated: u64, max_rejected: dagwright_model::units::Ratio) -> Result<()> {
        let (passed, rejected) = (self.counts.passed.load(Relaxed), self.counts.rejected.load(Relaxed));
        let name = self.write.name.as_str();
        let produced = passed + rejected + gated;
        if rejected > max_rejected.of(produced) {
            return Err(Error::new(
                Code::QuarantineFull,
                name,
                format!("{rejected} of {produced} rows do not fit the sink's types, more than {max_rejected}"),
                "look at the rows in the quarantine; mend them in a step, or give the sink other types",
            ));
        }
        // A partition may be small, or empty; all of them together are counted when they are published.
        let whole = self.write.strategy != WriteStrategy::PartitionStaging;
        if whole && self.handed < self.write.min_rows {
            return Err(Error::new(
                Code::SinkTooFewRows,
                name,
                format!("{} rows would be loaded, min_rows is {}", self.handed, self.write.min_rows),
                "check the source and the steps' filters, or lower min_rows if so few are right",
            ));
        }
        Ok(())
    }

    /// Returns the cursors to commit: the largest read, or what is committed already where that is larger.
    pub(super) async fn cursors(
        &mut self,
        task: &Task,
        seen: &BTreeMap<Name, SeenCursor>,
    ) -> Result<BTreeMap<Name, String>> {
        let mut cursors = BTreeMap::new();
        if task.run.backfill {
            return Ok(cursors);
        }
        let write = &self.write;
        let sink = SinkRef { name: write.name.clone(), locator: write.locator.clone() };
        for commit in &write.cursors {
            let seen = seen.get(&commit.source).map(|seen| seen.value.clone());
            let connector = task.sink(&write.locator)?;
            let context = task.write_context(SinkTally::shared());
            let committed = connector.committed_cursor(&sink, &task.spec.pipeline, &commit.source, &context).await?;
            let largest = cursor::largest(&commit.source, &commit.data_type, seen, committed)?;
            if let Some(largest) = largest {
                cursors.insert(commit.source.clone(), largest);
            }
        }
        Ok(cursors)
    }

    /// Returns the counts as they stand, as if nothing became visible.
    pub(super) fn counts(&self, gated: u64) -> SinkCounts {
        let (passed, rejected) = (self.counts.passed.load(Relaxed), self.counts.rejected.load(Relaxed));
        SinkCounts {
            produced: passed + rejected + gated,
            loaded: 0,
            quarantined: rejected + gated,
            superseded: self.superseded(),
            nulled: self.counts.nulled.load(Relaxed),
            bytes: self.tally.bytes.load(Relaxed),
        }
    }

    /// Makes everything visible.
    pub(super) async fn commit(self, gated: u64, cursors: BTreeMap<Name, String>) -> Result<SinkCounts> {
        let counts = self.counts(gated);
        let commit =
            Commit { quarantined: counts.quarantined, superseded: counts.superseded, nulled: counts.nulled, cursors };
        self.writer.commit(commit).await
    }

    /// Removes what was written.
    pub(super) async fn abort(self) {
        self.writer.abort().await;
    }
}

// === impl OpenStaged ===

impl OpenStaged {
    /// Begins to stage a relation.
    pub(super) fn begin(task: &Task, relation: &Relation) -> Result<Self> {
        let file = staging::write(&task.spec.pipeline, &task.run, &relation.name, &relation.columns)?;
        Ok(Self { relation: relation.name.clone(), file })
    }

    /// Writes the relation's rows.
    pub(super) async fn fill(&mut self, streams: Vec<BatchStream>, rows: &AtomicU64) -> Result<()> {
        let mut batches = pump(streams);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows.fetch_add(batch.num_rows() as u64, Relaxed);
            self.file.write(&batch).await?;
        }
        Ok(())
    }

    /// Makes the relation appear.
    pub(super) async fn publish(self, extract: &Extract) -> Result<u64> {
        staging::publish(self.file, extract).await
    }

    /// Gives it up.
    pub(super) async fn abort(self) {
        self.file.abort().await;
    }
}

/// Polls streams from tasks of their own, so that reading goes on while batches are written.
///
/// Ends at the first error; dropping the stream ends the tasks.
pub(super) fn pump(streams: Vec<BatchStream>) -> BatchStream {
    let (sender, receiver) = mpsc::channel::<Result<RecordBatch>>(BATCHES_QUEUED);
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        let sender = sender.clone();
        tasks.spawn(async move {
            while let Some(batch) = stream.next().await {
                let ended = batch.is_err();
                if sender.send(batch).await.is_err() || ended {
                    break;
                }
            }
        });
    }
    drop(sender);
    futures::stream::try_unfold((receiver, tasks), |(mut receiver, mut tasks)| async move {
        if let Some(batch) = receiver.recv().await {
            return Ok(Some((batch?, (receiver, tasks))));
        }
        // A stream that panicked has sent no error, and must not look like one that ended.
        while let Some(joined) = tasks.join_next().await {
            if let Err(error) = joined {
                return Err(Error::new(
                    Code::Internal,
                    "task",
                    "reading rows ended in a panic",
                    "report it together with the pipeline spec",
                )
                .caused_by(error));
            }
        }
        Ok(None)
    })
    .boxed()
}

/// Makes a feed of streams that are opened once.
fn once(streams: Vec<BatchStream>) -> Feed {
    let openers = streams
        .into_iter()
        .map(|stream| {
            let held = Mutex::new(Some(stream));
            let opener: Opener = Arc::new(move |projection| {
                let stream = held.lock().unwrap_or_else(PoisonError::into_inner).take();
                let again = || Error::new(Code::Internal, "sink", "rows were asked for twice", "report this");
                let Some(stream) = stream else { return futures::stream::once(async move { Err(again()) }).boxed() };
                match projection.map(<[usize]>::to_vec) {
                    None => stream,
                    Some(indices) => stream
                        .map(move |batch| {
                            batch?.project(&indices).map_err(|error| {
                                Error::new(Code::Internal, "sink", "a batch lacks a column", "report this")
                                    .caused_by(error)
                            })
                        })
                        .boxed(),
                }
            });
            opener
        })
        .collect();
    Feed::Streams { openers, size: None }
}
