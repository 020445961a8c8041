//! Relations as Parquet files of our own: written whole, read in parallel.
//!
//! The staging area, spooled relations and the quarantine share this; connectors do not.

pub mod reader;

use std::{error::Error as StdError, io, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path};
use parquet::{
    arrow::{
        AsyncArrowWriter, ParquetRecordBatchStreamBuilder, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    },
    basic::{Compression, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
};

use crate::{
    connectors::BatchStream,
    error::{Error, Result},
    relations::reader::StoreReader,
    storage::unusable,
    transform::{BATCH_ROWS, relation::Opener},
};

/// Rows of a row group: what one reader takes at a time.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Writes one Parquet file; it appears when it is closed.
pub struct FileWriter {
    writer: AsyncArrowWriter<BufWriter>,
}

/// A written Parquet file.
#[derive(Clone, Debug)]
pub struct File {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    metadata: ArrowReaderMetadata,
}

// === impl FileWriter ===

impl FileWriter {
    /// Starts a file; `kept` says whether it outlives the task, and is worth compressing well.
    ///
    /// # Errors
    /// DW0606.
    pub fn start(writer: BufWriter, schema: SchemaRef, kept: bool) -> Result<Self> {
        let compression = if kept { Compression::ZSTD(ZstdLevel::default()) } else { Compression::SNAPPY };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_dictionary_enabled(kept)
            .set_statistics_enabled(EnabledStatistics::None)
            .build();
        let writer = AsyncArrowWriter::try_new(writer, schema, Some(properties)).map_err(unwritable)?;
        Ok(Self { writer })
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// DW0606.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).await.map_err(unwritable)
    }

    /// Ends the file, with a text in its footer, and returns its size.
    ///
    /// # Errors
    /// DW0606; then the file does not appear.
    pub async fn close(mut self, footer: Option<(&str, String)>) -> Result<u64> {
        if let Some((key, value)) = footer {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        self.writer.finish().await.map_err(unwritable)?;
        Ok(self.writer.bytes_written() as u64)
    }

    /// Gives the file up; it does not appear.
    pub async fn abort(self) {
        // What cannot be removed now lies under a temporary name, and a store's life cycle removes it.
        let _ = self.writer.into_inner().abort().await;
    }
}

// === impl File ===

impl File {
    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// DW0606.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path) -> Result<Self> {
        let size = store.head(&path).await.map_err(unreadable)?.size;
        let mut reader = StoreReader::new(store.clone(), path.clone(), size);
        let metadata =
            ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await.map_err(unreadable)?;
        Ok(Self { store, path, size, metadata })
    }

    /// Returns a text of the footer.
    #[must_use]
    pub fn footer(&self, key: &str) -> Option<String> {
        let entries = self.metadata.metadata().file_metadata().key_value_metadata()?;
        entries.iter().find(|entry| entry.key == key)?.value.clone()
    }

    /// Returns the Arrow schema it was written with.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Returns how many rows it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows().try_into().unwrap_or_default()
    }

    /// Returns how many bytes its values take before compression, roughly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups();
        groups.iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or_default()).sum()
    }

    /// Returns openers of at most `streams` streams that together read it once.
    #[must_use]
    pub fn openers(&self, streams: usize) -> Vec<Opener> {
        let groups = self.metadata.metadata().num_row_groups();
        let streams = streams.clamp(1, groups.max(1));
        (0..streams)
            .map(|stream| {
                let file = self.clone();
                let groups: Vec<usize> = (0..groups).filter(|group| group % streams == stream).collect();
                let opener: Opener = Arc::new(move |projection| file.read(groups.clone(), projection));
                opener
            })
            .collect()
    }

    fn read(&self, groups: Vec<usize>, projection: Option<&[usize]>) -> BatchStream {
        let reader = StoreReader::new(self.store.clone(), self.path.clone(), self.size);
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
            .with_batch_size(BATCH_ROWS)
            .with_row_groups(groups);
        let mut order = None;
        if let Some(indices) = projection {
            // A mask keeps the file's order; what was asked for may have another one.
            let mut sorted = indices.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            let place = |index: &usize| sorted.binary_search(index).unwrap_or_default();
            order = Some(indices.iter().map(place).collect::<Vec<_>>());
            let mask = ProjectionMask::roots(builder.parquet_schema(), sorted.iter().copied());
            builder = builder.with_projection(mask);
        }
        let stream = match builder.build() {
            Ok(stream) => stream,
            Err(error) => return futures::stream::once(async { Err(unreadable(error)) }).boxed(),
        };
        stream
            .map_err(unreadable)
            .map(move |batch| {
                let batch = batch?;
                match &order {
                    Some(order) => batch.project(order).map_err(unreadable),
                    None => Ok(batch),
                }
            })
            .boxed()
    }
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let what = if is_full(&error) { "there is no space left for a file" } else { "a file could not be written" };
    unusable(what).caused_by(error)
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    unusable("a file could not be read").caused_by(error)
}

fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}
