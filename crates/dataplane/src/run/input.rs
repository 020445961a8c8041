//! The relations a move reads: opened once, counted, watched for cursors, judged.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use arrow::{array::RecordBatch, datatypes::Schema};
use dagwright_model::{
    code::Code,
    id::Name,
    schema::DataType,
    task::{Input, SourceRead},
};
use futures::{StreamExt, TryStreamExt, future::try_join_all};

use super::Task;
use crate::{
    connectors::{BatchStream, ReadContext},
    cursor,
    error::{Error, Result},
    gates::Gates,
    staging::{self, SeenCursor},
    tally::{Rejects, SourceTally},
    transform::relation::{Feed, Opener, Relation, Size},
};

/// How much more than what was looked at an input is taken to hold when its end was not seen.
const UNSEEN_FACTOR: u64 = 64;

/// A relation that a move reads.
pub(super) struct OpenInput {
    pub(super) relation: Arc<Relation>,
    /// What was counted, for a source.
    pub(super) tally: Option<Arc<SourceTally>>,
    /// The largest cursors: of the source itself, or of those that a staged relation was computed from.
    cursors: Arc<Mutex<BTreeMap<Name, SeenCursor>>>,
    slots: Vec<Slot>,
}

/// A stream that is read once, by whoever opens it first; what is left of it can be read to its end afterwards.
#[derive(Clone)]
struct Slot(Arc<tokio::sync::Mutex<SlotState>>);

struct SlotState {
    ahead: VecDeque<RecordBatch>,
    stream: Option<BatchStream>,
    taken: bool,
}

// === impl OpenInput ===

impl OpenInput {
    /// Makes the relation of an input, before it is opened.
    ///
    /// # Errors
    /// DW0606 when a staged relation is not there.
    pub(super) async fn prepare(task: &Task, name: &Name, input: &Input) -> Result<Self> {
        let cursors = Arc::default();
        match input {
            Input::Source(read) => {
                let classified: BTreeSet<String> = read.classified.iter().cloned().collect();
                let relation = Arc::new(Relation::new(name.clone(), read.columns.clone(), classified));
                Ok(Self { relation, tally: Some(SourceTally::shared()), cursors, slots: Vec::new() })
            }
            Input::Staged { columns } => {
                let (pipeline, run) = (&task.spec.pipeline, &task.run);
                let staged = staging::read(pipeline, run, name, columns, task.host.cores).await?;
                let classified = staged.extracts.iter().flat_map(|extract| extract.classified.clone()).collect();
                let relation = Arc::new(Relation::new(name.clone(), columns.clone(), classified));
                let input = Self { relation, tally: None, cursors, slots: Vec::new() };
                for (source, seen) in staged.extracts.into_iter().flat_map(|extract| extract.cursors) {
                    saw(&input.cursors, &source, seen)?;
                }
                input.relation.feed_from(staged.feed);
                Ok(input)
            }
        }
    }

    /// Opens the input, an incremental source after a cursor; its rows are judged by `gates` as they are read.
    ///
    /// # Errors
    /// Whatever opening the source meets.
    pub(super) async fn open(
        &mut self,
        task: &Task,
        input: &Input,
        after_cursor: Option<String>,
        gates: Option<Arc<Gates>>,
        rejects: Rejects,
    ) -> Result<()> {
        let (streams, size) = match input {
            Input::Source(read) => (self.open_source(task, read, after_cursor, rejects).await?, None),
            Input::Staged { .. } => match self.relation.feed() {
                Some(Feed::Streams { openers, size }) => (openers.iter().map(|open| open(None)).collect(), size),
                Some(Feed::Plan(_)) | None => (Vec::new(), None),
            },
        };
        self.slots = streams
            .into_iter()
            .map(|stream| {
                let relation = self.relation.clone();
                let counted = stream
                    .inspect_ok(move |batch| {
                        relation.rows.fetch_add(batch.num_rows() as u64, Relaxed);
                    })
                    .boxed();
                let judged = match &gates {
                    Some(gates) => gates.judge_stream(counted),
                    None => counted,
                };
                Slot::new(judged)
            })
            .collect();
        if self.slots.is_empty() {
            self.slots.push(Slot::new(futures::stream::empty().boxed()));
        }
        self.feed(size);
        Ok(())
    }

    async fn open_source(
        &self,
        task: &Task,
        read: &SourceRead,
        after_cursor: Option<String>,
        rejects: Rejects,
    ) -> Result<Vec<BatchStream>> {
        let name = &self.relation.name;
        let tally = self.tally.clone().unwrap_or_default();
        let context = ReadContext { after_cursor, ..task.read_context(name, tally, rejects) };
        let source = task.host.connectors.source(&read.locator, &task.host.environment)?;
        let (schema, streams) = source.open(read, &context).await?;
        if !streams.is_empty() {
            same_columns(name, &schema, &self.relation.schema)?;
        }
        let Some(incremental) = &read.incremental else { return Ok(streams) };
        let watched = streams.into_iter().map(|stream| {
            let (cursors, name) = (self.cursors.clone(), name.clone());
            let (column, data_type) = (incremental.incremental.cursor.clone(), incremental.data_type.clone());
            let watch = move |batch: RecordBatch| {
                watch_cursor(&cursors, &name, &batch, &column, &data_type)?;
                Ok(batch)
            };
            stream.map(move |batch| batch.and_then(&watch)).boxed()
        });
        Ok(watched.collect())
    }

    /// Looks at the beginning of every stream, so that joins know which side is small.
    ///
    /// # Errors
    /// Whatever reading meets.
    pub(super) async fn look_ahead(&self, bytes_max: usize) -> Result<()> {
        let each = bytes_max / self.slots.len().max(1);
        let looks = try_join_all(self.slots.iter().map(|slot| slot.look_ahead(each))).await?;
        let mut size = Size { rows: 0, bytes: 0, exact: true };
        for (rows, bytes, ended) in looks {
            size.rows += rows;
            size.bytes += bytes;
            size.exact &= ended;
        }
        if !size.exact {
            size.rows = size.rows.saturating_mul(UNSEEN_FACTOR);
            size.bytes = size.bytes.max(bytes_max as u64).saturating_mul(UNSEEN_FACTOR);
        }
        self.feed(Some(size));
        Ok(())
    }

    /// Reads what nobody asked for, so that gates have seen every row and cursors are the largest.
    ///
    /// # Errors
    /// Whatever reading meets.
    pub(super) async fn drain(&self) -> Result<()> {
        for slot in &self.slots {
            while slot.next().await?.is_some() {}
        }
        Ok(())
    }

    /// Returns the largest cursors read so far.
    pub(super) fn cursors(&self) -> BTreeMap<Name, SeenCursor> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn feed(&self, size: Option<Size>) {
        let openers = self.slots.iter().map(|slot| slot.opener(self.relation.name.clone())).collect();
        self.relation.feed_from(Feed::Streams { openers, size });
    }
}

fn watch_cursor(
    cursors: &Mutex<BTreeMap<Name, SeenCursor>>,
    source: &Name,
    batch: &RecordBatch,
    column: &str,
    data_type: &DataType,
) -> Result<()> {
    match cursor::largest_in(source, batch, column, data_type)? {
        Some(value) => saw(cursors, source, SeenCursor { value, data_type: data_type.clone() }),
        None => Ok(()),
    }
}

fn saw(cursors: &Mutex<BTreeMap<Name, SeenCursor>>, source: &Name, seen: SeenCursor) -> Result<()> {
    let mut cursors = cursors.lock().unwrap_or_else(PoisonError::into_inner);
    let known = cursors.get(source).map(|known| known.value.clone());
    if let Some(value) = cursor::largest(source, &seen.data_type, Some(seen.value), known)? {
        cursors.insert(source.clone(), SeenCursor { value, data_type: seen.data_type });
    }
    Ok(())
}

fn same_columns(name: &Name, found: &Schema, wanted: &Schema) -> Result<()> {
    let same = found.fields().len() == wanted.fields().len()
        && found
            .fields()
            .iter()
            .zip(wanted.fields())
            .all(|(found, wanted)| found.name() == wanted.name() && found.data_type() == wanted.data_type());
    if same {
        return Ok(());
    }
    Err(Error::new(
        Code::SourceDrifted,
        name.as_str(),
        "the source's rows do not have the sealed columns",
        "plan again, so that the source is profiled anew",
    ))
}

// === impl Slot ===

impl Slot {
    fn new(stream: BatchStream) -> Self {
        let state = SlotState { ahead: VecDeque::new(), stream: Some(stream), taken: false };
        Self(Arc::new(tokio::sync::Mutex::new(state)))
    }

    async fn next(&self) -> Result<Option<RecordBatch>> {
        let mut state = self.0.lock().await;
        if let Some(batch) = state.ahead.pop_front() {
            return Ok(Some(batch));
        }
        let Some(stream) = &mut state.stream else { return Ok(None) };
        let next = stream.try_next().await;
        if !matches!(next, Ok(Some(_))) {
            // A stream ends at its first error; it must not be polled again.
            state.stream = None;
        }
        next
    }

    async fn look_ahead(&self, bytes_max: usize) -> Result<(u64, u64, bool)> {
        let mut state = self.0.lock().await;
        let (mut rows, mut bytes) = (0, 0);
        while bytes < bytes_max {
            let Some(stream) = &mut state.stream else { break };
            match stream.try_next().await? {
                Some(batch) => {
                    rows += batch.num_rows() as u64;
                    bytes += batch.get_array_memory_size();
                    state.ahead.push_back(batch);
                }
                None => state.stream = None,
            }
        }
        Ok((rows, bytes as u64, state.stream.is_none()))
    }

    fn opener(&self, relation: Name) -> Opener {
        let slot = self.clone();
        Arc::new(move |projection| {
            let (slot, relation) = (slot.clone(), relation.clone());
            let projection = projection.map(<[usize]>::to_vec);
            let once = |slot: Slot, relation: Name| async move {
                let mut state = slot.0.lock().await;
                if std::mem::replace(&mut state.taken, true) {
                    return Err(Error::new(
                        Code::Internal,
                        relation.as_str(),
                        "a relation was read twice that can be read once",
                        "report it together with the pipeline spec",
                    ));
                }
                drop(state);
                Ok(slot)
            };
            futures::stream::once(once(slot, relation))
                .map_ok(move |slot| {
                    let projection = projection.clone();
                    futures::stream::try_unfold(slot, |slot| async move {
                        Ok(slot.next().await?.map(|batch| (batch, slot)))
                    })
                    .map(move |batch: Result<RecordBatch>| match &projection {
                        Some(indices) => batch?.project(indices).map_err(|error| {
                            Error::new(Code::Internal, "input", "a batch lacks a column", "report this")
                                .caused_by(error)
                        }),
                        None => batch,
                    })
                })
                .try_flatten()
                .boxed()
        })
    }
}
