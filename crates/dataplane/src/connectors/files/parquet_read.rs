//! Reads Parquet files: the needed columns, of the row groups that may hold needed rows.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::{DataType as Arrow, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use dagwright_model::{code::Code, schema::Column, task::SourceRead};
use datafusion::{
    common::{Column as ColumnName, pruning::PruningStatistics},
    physical_optimizer::pruning::PruningPredicateBuilder,
    scalar::ScalarValue,
};
use futures::{StreamExt, stream};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, statistics::StatisticsConverter},
    },
    errors::ParquetError,
};
use serde_json::{Map, Value};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    cast as casting,
    fault::Subject,
    listing::{self, Listed},
    location::{Location, Store},
    mask::Masking,
    parquet_bytes::ParquetBytes,
    rows::{Decoded, Finisher, Origin},
};
use crate::{
    connectors::{BatchStream, ReadContext},
    error::Result,
    types::model_type,
};

/// How many batches of one stream may wait.
const BATCHES_QUEUED_MAX: usize = 2;

/// How a source of Parquet files is read.
pub(crate) struct ParquetRead {
    location: Location,
    columns: Vec<Column>,
    masks: Vec<Option<Masking>>,
    hidden: Vec<String>,
    batch_rows: usize,
    finisher: Finisher,
}

/// A file whose footer was read.
#[derive(Clone)]
pub(crate) struct Opened {
    file: Listed,
    reader: ParquetBytes,
    /// The footer and the Arrow schema.
    pub(crate) metadata: ArrowReaderMetadata,
}

/// What one turn of a stream reads.
enum Item {
    File(Listed),
    RowGroup(Box<Opened>, usize, u64),
}

// === impl Opened ===

impl Opened {
    /// Reads a file's footer.
    pub(crate) async fn new(store: &Store, file: &Listed, subject: &Subject) -> Result<Self> {
        let mut reader = ParquetBytes::new(store, file, subject);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
        let metadata = metadata.map_err(|error| bad(file, error, subject))?;
        Ok(Self { file: file.clone(), reader, metadata })
    }

    /// What messages call the file.
    pub(crate) fn name(&self) -> &str {
        &self.file.name
    }

    /// A reader of the file.
    pub(crate) fn reader(&self) -> ParquetBytes {
        self.reader.clone()
    }

    /// Says that the file could not be read.
    pub(crate) fn unreadable(&self, error: ParquetError, subject: &Subject) -> crate::error::Error {
        bad(&self.file, error, subject)
    }

    /// The Arrow schema of the file.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }
}

fn bad(file: &Listed, error: ParquetError, subject: &Subject) -> crate::error::Error {
    let source = match error {
        ParquetError::External(inner) => match inner.downcast::<crate::error::Error>() {
            Ok(error) => return *error,
            Err(inner) => ParquetError::External(inner),
        },
        other => other,
    };
    subject
        .malformed(
            format!("{} is not a readable Parquet file", file.name),
            "write it again; a file cut short cannot be read",
        )
        .caused_by(source)
}

// === impl ParquetRead ===

impl ParquetRead {
    /// Prepares a read of Parquet files.
    pub(crate) fn new(
        read: &SourceRead,
        location: &Location,
        context: &ReadContext,
        finisher: Finisher,
    ) -> Result<Self> {
        let key = context.environment.mask_key.as_deref();
        let mask = |column: &Column| {
            read.masks.get(&column.name).map(|mask| Masking::new(*mask, key, &finisher.subject)).transpose()
        };
        let masks = read.columns.iter().map(mask).collect::<Result<_>>()?;
        Ok(Self {
            location: location.clone(),
            columns: read.columns.clone(),
            masks,
            hidden: read.classified.iter().chain(read.masks.keys()).cloned().collect(),
            batch_rows: context.batch_rows.max(1),
            finisher,
        })
    }

    /// Starts to read files, and returns the streams.
    pub(crate) async fn start(
        self,
        files: Vec<Listed>,
        streams: usize,
        cancel: &CancellationToken,
    ) -> Result<Vec<BatchStream>> {
        let mut items: VecDeque<Item> = VecDeque::new();
        if files.len() < streams * 4 {
            // Few files: let streams share the row groups within them.
            for file in &files {
                let opened = Opened::new(&self.location.store, file, &self.finisher.subject).await?;
                items.extend(
                    self.row_groups(opened).map(|(opened, group, row)| Item::RowGroup(Box::new(opened), group, row)),
                );
            }
        } else {
            items.extend(files.into_iter().map(Item::File));
        }
        let streams = streams.clamp(1, items.len().max(1));
        let items = Arc::new(Mutex::new(items));
        let read = Arc::new(self);
        Ok((0..streams).map(|_| read.clone().stream(items.clone(), cancel.clone())).collect())
    }

    fn stream(self: Arc<Self>, items: Arc<Mutex<VecDeque<Item>>>, cancel: CancellationToken) -> BatchStream {
        let (sender, receiver) = mpsc::channel(BATCHES_QUEUED_MAX);
        let runtime = Handle::current();
        let subject = self.finisher.subject.clone();
        let stop = cancel.clone();
        tokio::task::spawn_blocking(move || {
            loop {
                let item = items.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(item) = item else { return };
                let done = match item {
                    Item::RowGroup(opened, group, row) => {
                        self.read_row_group(&opened, group, row, &runtime, &sender, &stop)
                    }
                    Item::File(file) => runtime
                        .block_on(Opened::new(&self.location.store, &file, &self.finisher.subject))
                        .and_then(|opened| {
                            for (opened, group, row) in self.row_groups(opened) {
                                if !self.read_row_group(&opened, group, row, &runtime, &sender, &stop)? {
                                    return Ok(false);
                                }
                            }
                            Ok(true)
                        }),
                };
                match done {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        items.lock().unwrap_or_else(PoisonError::into_inner).clear();
                        // Nobody may be listening any more.
                        let _ = sender.blocking_send(Err(error));
                        return;
                    }
                }
            }
        });
        let batches = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let cancelled = subject.error(Code::Cancelled, "cancelled while reading", "start it again");
        let watched = stream::unfold((batches.boxed(), Some((cancel, cancelled))), |(mut batches, watch)| async move {
            let (cancel, cancelled) = watch?;
            tokio::select! {
                biased;
                () = cancel.cancelled() => Some((Err(cancelled), (batches, None))),
                batch = batches.next() => Some((batch?, (batches, Some((cancel, cancelled))))),
            }
        });
        watched.boxed()
    }

    /// Returns the row groups that may hold needed rows, each with the number of its first row.
    fn row_groups(&self, opened: Opened) -> impl Iterator<Item = (Opened, usize, u64)> + use<> {
        let kept = self.kept_row_groups(&opened);
        let mut groups = Vec::new();
        let mut row = 0;
        for (index, group) in opened.metadata.metadata().row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).unwrap_or_default();
            if kept.as_ref().is_none_or(|kept| kept[index]) {
                groups.push((opened.clone(), index, row));
            } else {
                self.finisher.tally.skipped.fetch_add(rows, Relaxed);
            }
            row += rows;
        }
        groups.into_iter()
    }

    fn kept_row_groups(&self, opened: &Opened) -> Option<Vec<bool>> {
        let count = opened.metadata.metadata().num_row_groups();
        let mut kept = vec![true; count];
        let statistics = Statistics { read: self, opened };
        for necessary in self.finisher.filters.necessary() {
            // A predicate that statistics say nothing about keeps every row group.
            let builder = PruningPredicateBuilder::new().with_file_schema(self.finisher.filters.schema.clone());
            let Ok(pruning) = builder.try_build(necessary) else { continue };
            let Ok(may_hold) = pruning.prune(&statistics) else { continue };
            kept.iter_mut().zip(may_hold).for_each(|(kept, may_hold)| *kept &= may_hold);
        }
        Some(kept)
    }

    /// Reads a row group; false when nobody listens any more.
    fn read_row_group(
        &self,
        opened: &Opened,
        group: usize,
        first_row: u64,
        runtime: &Handle,
        sender: &mpsc::Sender<Result<RecordBatch>>,
        cancel: &CancellationToken,
    ) -> Result<bool> {
        let subject = &self.finisher.subject;
        let file = &opened.file;
        let metadata = opened.metadata.metadata();
        let roots = self.roots(opened)?;
        let mask = ProjectionMask::roots(metadata.file_metadata().schema_descr(), roots.iter().copied());
        for (leaf, column) in metadata.row_group(group).columns().iter().enumerate() {
            if mask.leaf_included(leaf) {
                self.finisher
                    .tally
                    .bytes
                    .fetch_add(u64::try_from(column.compressed_size()).unwrap_or_default(), Relaxed);
            }
        }
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(opened.reader.clone(), opened.metadata.clone());
        let built = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(self.batch_rows).build();
        let mut batches = built.map_err(|error| bad(file, error, subject))?;
        let mut row = first_row;
        while let Some(batch) = runtime.block_on(batches.next()) {
            if cancel.is_cancelled() {
                return Ok(false);
            }
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    runtime.block_on(self.verify(file))?;
                    return Err(bad(file, error, subject));
                }
            };
            let rows = batch.num_rows() as u64;
            for finished in self.decode(&batch, file, row)? {
                if sender.blocking_send(Ok(finished)).is_err() {
                    return Ok(false);
                }
            }
            row += rows;
        }
        runtime.block_on(self.verify(file))?;
        Ok(true)
    }

    /// Checks that a file is still what it was when it was listed.
    async fn verify(&self, file: &Listed) -> Result<()> {
        let subject = &self.finisher.subject;
        let now = listing::look_up(&self.location, &file.path, subject).await?;
        if now.is_some_and(|now| now.size == file.size && now.version == file.version) {
            return Ok(());
        }
        Err(subject.changed(&file.name))
    }

    /// Returns the file's index of each sealed column.
    fn roots(&self, opened: &Opened) -> Result<Vec<usize>> {
        let find = |column: &Column| {
            opened.schema().index_of(&column.name).map_err(|_| {
                self.finisher.subject.error(
                    Code::SourceDrifted,
                    format!("{} has no column {:?}", opened.file.name, column.name),
                    "plan again if the source changed for good; else mend the file",
                )
            })
        };
        self.columns.iter().map(find).collect()
    }

    fn decode(&self, batch: &RecordBatch, file: &Listed, first_row: u64) -> Result<Vec<RecordBatch>> {
        let subject = &self.finisher.subject;
        let schema = batch.schema();
        let mut columns = Vec::with_capacity(self.columns.len());
        let mut misfits = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            let impossible = || {
                subject.error(
                    Code::SourceDrifted,
                    format!(
                        "column {:?} of {} has a type that does not become {}",
                        column.name, file.name, column.data_type
                    ),
                    "plan again if the source changed for good; else mend the file",
                )
            };
            let at = schema.index_of(&column.name).map_err(|_| impossible())?;
            let (array, field) = (batch.column(at), schema.field(at));
            let mut rows = Vec::new();
            columns.push(match &self.masks[index] {
                None => casting::convert(array, field, column, &mut rows).ok_or_else(impossible)?,
                Some(mask) => mask.apply(&casting::texts(array, field).ok_or_else(impossible)?, &column.data_type),
            });
            misfits.extend(rows.into_iter().map(|row| (row, u32::try_from(index).unwrap_or(u32::MAX))));
        }
        let decoded = Decoded { columns, rows: batch.num_rows(), misfits };
        self.finisher.finish(decoded, &Rows { read: self, batch, file, first_row })
    }
}

struct Rows<'a> {
    read: &'a ParquetRead,
    batch: &'a RecordBatch,
    file: &'a Listed,
    first_row: u64,
}

impl Origin for Rows<'_> {
    fn position(&self, row: usize) -> Option<String> {
        Some(format!("{}:{}", self.file.name, self.first_row + row as u64 + 1))
    }

    fn values(&self, row: usize) -> Map<String, Value> {
        let mut values = Map::new();
        let options = FormatOptions::new();
        for column in &self.read.columns {
            let Some(array) =
                self.batch.column_by_name(&column.name).filter(|_| !self.read.hidden.contains(&column.name))
            else {
                continue;
            };
            let text = array
                .is_valid(row)
                .then(|| ArrayFormatter::try_new(array.as_ref(), &options).ok()?.value(row).try_to_string().ok());
            values.insert(column.name.clone(), text.flatten().into());
        }
        values
    }
}

/// What a file's footer says of its row groups.
struct Statistics<'a> {
    read: &'a ParquetRead,
    opened: &'a Opened,
}

impl Statistics<'_> {
    fn bounds(
        &self,
        name: &ColumnName,
        of: impl Fn(&StatisticsConverter<'_>) -> parquet::errors::Result<ArrayRef>,
    ) -> Option<ArrayRef> {
        let index = self.read.columns.iter().position(|column| column.name == name.name)?;
        let column = &self.read.columns[index];
        let schema = self.opened.schema();
        let field = schema.field_with_name(&column.name).ok()?;
        // What a predicate sees is masked; NaN stands in no statistics; text does not order as what it reads as.
        let floats = matches!(field.data_type(), Arrow::Float16 | Arrow::Float32 | Arrow::Float64);
        let text = model_type(field.data_type())? == dagwright_model::schema::DataType::TEXT
            && column.data_type != dagwright_model::schema::DataType::TEXT;
        if self.read.masks[index].is_some() || floats || text {
            return None;
        }
        let descriptor = self.opened.metadata.metadata().file_metadata().schema_descr();
        let found = of(&StatisticsConverter::try_new(&column.name, schema, descriptor).ok()?).ok()?;
        arrow::compute::cast(&found, &crate::types::arrow_type(&column.data_type)).ok()
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column, |converter| converter.row_group_mins(self.opened.metadata.metadata().row_groups()))
    }

    fn max_values(&self, column: &ColumnName) -> Option<ArrayRef> {
        self.bounds(column, |converter| converter.row_group_maxes(self.opened.metadata.metadata().row_groups()))
    }

    fn num_containers(&self) -> usize {
        self.opened.metadata.metadata().num_row_groups()
    }

    fn null_counts(&self, _: &ColumnName) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(
        &self,
        _: &ColumnName,
        _: &std::collections::HashSet<ScalarValue>,
    ) -> Option<arrow::array::BooleanArray> {
        None
    }
}
