//! Moves batches into a binary `COPY`: encoding on a thread of its own, sending on another task, little in between.
//!
//! Memory is bounded by [`BATCHES_WAITING`] batches and [`CHUNKS_WAITING`] chunks, however fast the source is.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use arrow::array::RecordBatch;
use bytes::Bytes;
use dagwright_model::code::Code;
use futures::SinkExt;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::CopyInSink;

use super::{
    connect::Session,
    encode::{EncodeError, Encoder},
    fault::Subject,
};
use crate::{
    error::{Error, Result},
    tally::SinkTally,
};

/// How many batches may wait for the encoder.
const BATCHES_WAITING: usize = 2;

/// How many encoded chunks (64 KiB each) may wait for the network.
const CHUNKS_WAITING: usize = 32;

/// A `COPY` under way; dropping it makes the server forget the rows.
pub(crate) struct Pipe {
    batches: mpsc::Sender<RecordBatch>,
    encoder: JoinHandle<Result<(), EncodeError>>,
    pump: JoinHandle<Result<u64, Stopped>>,
}

enum Chunk {
    Rows(Bytes),
    /// The last one; without it the rows are not complete and the `COPY` must fail.
    End(Bytes),
}

enum Stopped {
    Failed(tokio_postgres::Error),
    Incomplete,
}

// === impl Pipe ===

impl Pipe {
    /// Starts the `COPY` of this statement.
    pub(crate) async fn open(session: &Session, sql: &str, encoder: Encoder, tally: Arc<SinkTally>) -> Result<Self> {
        let opened = session.client.copy_in(sql).await;
        let sink: CopyInSink<Bytes> = opened.map_err(|error| session.fault("start to copy rows in", error))?;
        let (batches, receiver) = mpsc::channel(BATCHES_WAITING);
        let (chunks, encoded) = mpsc::channel(CHUNKS_WAITING);
        let encoder = tokio::task::spawn_blocking(move || encode(encoder, receiver, &chunks));
        let pump = tokio::spawn(pump(sink, encoded, tally));
        Ok(Self { batches, encoder, pump })
    }

    /// Hands over a batch; waits while encoder and network are behind. `false`: it has stopped, [`Self::finish`] says
    /// why.
    pub(crate) async fn send(&self, batch: RecordBatch) -> bool {
        self.batches.send(batch).await.is_ok()
    }

    /// Ends the `COPY` and returns how many rows the server took.
    pub(crate) async fn finish(self, subject: &Subject) -> Result<u64> {
        let Self { batches, encoder, pump } = self;
        drop(batches);
        let encoded = encoder.await.map_err(|error| internal(subject).caused_by(error))?;
        let pumped = pump.await.map_err(|error| internal(subject).caused_by(error))?;
        // When the server gives up first, the encoder merely finds nobody to send to.
        match (encoded, pumped) {
            (_, Err(Stopped::Failed(error))) => Err(subject.fault("write rows", error)),
            (Err(error @ EncodeError::Columns), _) => Err(internal(subject).caused_by(error)),
            (Err(error), _) => {
                let hint = "filter or convert such values in a transform";
                Err(subject.error(Code::SinkRejectedRows, error.to_string(), hint))
            }
            (Ok(()), Err(Stopped::Incomplete)) => Err(internal(subject)),
            (Ok(()), Ok(rows)) => Ok(rows),
        }
    }

    /// Ends the `COPY` so that the server forgets its rows.
    pub(crate) async fn abort(self) {
        drop(self.batches);
        self.pump.abort();
        let _ = self.pump.await;
        let _ = self.encoder.await;
    }
}

fn internal(subject: &Subject) -> Error {
    subject.error(Code::Internal, "rows could not be encoded", "report this with the log")
}

fn encode(
    mut encoder: Encoder,
    mut batches: mpsc::Receiver<RecordBatch>,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<(), EncodeError> {
    while let Some(batch) = batches.blocking_recv() {
        let mut open = true;
        encoder.push(&batch, |chunk| {
            open = chunks.blocking_send(Chunk::Rows(chunk)).is_ok();
            open
        })?;
        if !open {
            return Ok(());
        }
    }
    // Nobody listens any more when the pump was aborted.
    let _ = chunks.blocking_send(Chunk::End(encoder.finish()));
    Ok(())
}

async fn pump(
    sink: CopyInSink<Bytes>,
    mut chunks: mpsc::Receiver<Chunk>,
    tally: Arc<SinkTally>,
) -> Result<u64, Stopped> {
    let mut sink = std::pin::pin!(sink);
    while let Some(chunk) = chunks.recv().await {
        let (bytes, last) = match chunk {
            Chunk::Rows(bytes) => (bytes, false),
            Chunk::End(bytes) => (bytes, true),
        };
        tally.bytes.fetch_add(bytes.len() as u64, Relaxed);
        sink.feed(bytes).await.map_err(Stopped::Failed)?;
        if last {
            return sink.as_mut().finish().await.map_err(Stopped::Failed);
        }
    }
    Err(Stopped::Incomplete)
}
