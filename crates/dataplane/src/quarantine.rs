//! Writes rejected rows to the quarantine: one Parquet file a task, or a mapped instance of it.
//!
//! The file is named by effect and task, so a repeat overwrites itself; it appears whole. Its columns are `reason`,
//! `relation`, `position` and `values` (a JSON object); values of classified columns never reach it.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use dagwright_model::{id::TaskId, task::RunContext};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    error::{Error, Result},
    relations::FileWriter,
    storage::{Folder, unusable},
    tally::{Reject, Rejects},
};

/// How many rejects are written at once.
const BATCH_REJECTS: usize = 1024;

/// Collects the rejects of one task and writes them.
pub struct Quarantine {
    folder: Folder,
    file: String,
    rejects: Rejects,
    finish: oneshot::Sender<()>,
    writer: JoinHandle<Result<Option<FileWriter>>>,
}

// === impl Quarantine ===

impl Quarantine {
    /// Starts to collect.
    ///
    /// # Errors
    /// DW0606 when the quarantine's location is not usable.
    pub fn start(pipeline: &str, task: &TaskId, run: &RunContext) -> Result<Self> {
        let folder = folder(pipeline, run)?;
        let file = match &run.partition {
            Some(partition) => format!("{task}-{}.parquet", partition.index),
            None => format!("{task}.parquet"),
        };
        let (rejects, receiver) = Rejects::channel();
        let (finish, finished) = oneshot::channel();
        let writer = tokio::spawn(write(folder.clone(), file.clone(), receiver, finished));
        Ok(Self { folder, file, rejects, finish, writer })
    }

    /// Returns where rejects go.
    #[must_use]
    pub fn rejects(&self) -> Rejects {
        self.rejects.clone()
    }

    /// Tells whether it has stopped by itself, which only a failure makes it do.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.writer.is_finished()
    }

    /// Writes what is left; the file is there afterwards, or none when nothing was rejected.
    ///
    /// # Errors
    /// DW0606 when it could not be written.
    pub async fn finish(self) -> Result<()> {
        match stop(self.finish, self.writer).await? {
            Some(file) => file.close(None).await.map(drop),
            // An earlier try may have rejected what this one did not.
            None => self.folder.remove(&self.file).await,
        }
    }

    /// Gives up; no file appears, and an earlier one stays.
    ///
    /// # Errors
    /// Why the writer had stopped, if it had.
    pub async fn abort(self) -> Result<()> {
        if let Some(file) = stop(self.finish, self.writer).await? {
            file.abort().await;
        }
        Ok(())
    }
}

/// Returns the folder of a run's quarantine.
///
/// # Errors
/// DW0606 when the location is not usable.
pub fn folder(pipeline: &str, run: &RunContext) -> Result<Folder> {
    Ok(Folder::open(&run.quarantine, run.base.as_deref())?.child(pipeline).child(&run.effect))
}

async fn stop(
    finish: oneshot::Sender<()>,
    writer: JoinHandle<Result<Option<FileWriter>>>,
) -> Result<Option<FileWriter>> {
    // Nobody listens when the writer failed: then it says so below.
    let _ = finish.send(());
    writer.await.unwrap_or_else(|error| Err(unusable("the quarantine's writer ended early").caused_by(error)))
}

async fn write(
    folder: Folder,
    name: String,
    mut rejects: mpsc::Receiver<Reject>,
    mut finished: oneshot::Receiver<()>,
) -> Result<Option<FileWriter>> {
    let schema = schema();
    let mut file = None;
    let mut pending = Vec::with_capacity(BATCH_REJECTS);
    let mut open = true;
    while open {
        // Senders outlive the last reject, so the end is told; what was sent before it is still taken.
        open = tokio::select! {
            biased;
            received = rejects.recv_many(&mut pending, BATCH_REJECTS) => received > 0,
            _ = &mut finished => false,
        };
        if !open {
            rejects.close();
            while let Ok(reject) = rejects.try_recv() {
                pending.push(reject);
            }
        }
        if pending.len() >= BATCH_REJECTS || (!open && !pending.is_empty()) {
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(FileWriter::start(folder.writer(&name), schema.clone(), true)?),
            };
            let batch = batch(&schema, &pending)?;
            pending.clear();
            file.write(&batch).await?;
        }
    }
    Ok(file)
}

fn schema() -> SchemaRef {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    let fields = [text("reason", false), text("relation", false), text("position", true), text("values", false)];
    Arc::new(Schema::new(fields.to_vec()))
}

fn batch(schema: &SchemaRef, rejects: &[Reject]) -> Result<RecordBatch> {
    let mut columns: [StringBuilder; 4] = Default::default();
    for reject in rejects {
        columns[0].append_value(&reject.reason);
        columns[1].append_value(reject.relation.as_str());
        columns[2].append_option(reject.position.as_deref());
        columns[3].append_value(Value::Object(reject.values.clone()).to_string());
    }
    let arrays = columns.map(|mut column| Arc::new(column.finish()) as _).to_vec();
    RecordBatch::try_new(schema.clone(), arrays).map_err(|error: arrow::error::ArrowError| -> Error {
        unusable("rejected rows could not be written").caused_by(error)
    })
}
