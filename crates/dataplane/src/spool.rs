//! Keeps a relation that is used more than once: in memory while it is small, else in one temporary Parquet file.
//!
//! A source is read exactly once however many steps and sinks use it, so that its counts have one meaning.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;

use crate::{
    error::Result,
    relations::{File, FileWriter},
    storage::Folder,
    transform::relation::{Feed, Opener, Size},
};

/// Takes a relation's batches.
pub struct SpoolWriter {
    name: String,
    folder: Folder,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
    bytes_max: usize,
    rows: u64,
    file: Option<FileWriter>,
}

/// A kept relation.
pub struct Spool {
    held: Held,
    /// How large it is.
    pub size: Size,
}

enum Held {
    Memory {
        batches: Arc<Vec<RecordBatch>>,
        // Released with the last reader.
        _reservation: Arc<MemoryReservation>,
    },
    File(File),
}

// === impl SpoolWriter ===

impl SpoolWriter {
    /// Starts to keep a relation: at most `bytes_max` in memory, then in `folder`.
    #[must_use]
    pub fn new(name: &str, folder: Folder, schema: SchemaRef, pool: &Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        let reservation = MemoryConsumer::new(format!("spool {name}")).register(pool);
        let (name, batches) = (format!("{name}.spool"), Vec::new());
        Self { name, folder, schema, batches, reservation, bytes_max, rows: 0, file: None }
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// DW0606 when the temporary file cannot be written.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if let Some(file) = &mut self.file {
            return file.write(&batch).await;
        }
        let bytes = batch.get_array_memory_size();
        let fits = self.reservation.size() + bytes <= self.bytes_max && self.reservation.try_grow(bytes).is_ok();
        self.batches.push(batch);
        if fits {
            return Ok(());
        }
        let mut file = FileWriter::start(self.folder.writer(&self.name), self.schema.clone(), false)?;
        for batch in self.batches.drain(..) {
            file.write(&batch).await?;
        }
        self.reservation.free();
        self.file = Some(file);
        Ok(())
    }

    /// Ends the relation.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn finish(self) -> Result<Spool> {
        let Some(file) = self.file else {
            let size = Size { rows: self.rows, bytes: self.reservation.size() as u64, exact: true };
            let held = Held::Memory { batches: Arc::new(self.batches), _reservation: Arc::new(self.reservation) };
            return Ok(Spool { held, size });
        };
        file.close(None).await?;
        let file = File::open(self.folder.store().clone(), self.folder.file(&self.name)).await?;
        let size = Size { rows: self.rows, bytes: file.bytes(), exact: true };
        Ok(Spool { held: Held::File(file), size })
    }
}

// === impl Spool ===

impl Spool {
    /// Returns what a relation reads it by, as often as it likes, with at most `streams` streams.
    #[must_use]
    pub fn feed(&self, streams: usize) -> Feed {
        let openers = match &self.held {
            Held::File(file) => file.openers(streams),
            Held::Memory { batches, _reservation: reservation } => {
                let streams = streams.clamp(1, batches.len().max(1));
                (0..streams)
                    .map(|stream| {
                        let (batches, reservation) = (batches.clone(), reservation.clone());
                        let opener: Opener = Arc::new(move |projection| {
                            let (batches, reservation) = (batches.clone(), reservation.clone());
                            let projection = projection.map(<[usize]>::to_vec);
                            let indices = (stream..batches.len()).step_by(streams);
                            futures::stream::iter(indices)
                                .map(move |index| {
                                    let _held = &reservation;
                                    let batch = &batches[index];
                                    match &projection {
                                        Some(columns) => Ok(batch.project(columns).map_err(|error| {
                                            crate::storage::unusable("a kept batch lacks a column").caused_by(error)
                                        })?),
                                        None => Ok(batch.clone()),
                                    }
                                })
                                .boxed()
                        });
                        opener
                    })
                    .collect()
            }
        };
        Feed::Streams { openers, size: Some(self.size) }
    }
}
