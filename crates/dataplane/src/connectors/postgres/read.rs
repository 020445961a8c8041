//! Reads tables and queries by binary `COPY … TO STDOUT`, in one `REPEATABLE READ` transaction.
//!
//! The server projects, casts what Arrow has no type for, and judges cursor and partition; what remains (exact types,
//! masks, `lossy`, filters, counting) is done here, on a thread of its own behind the network.

use std::sync::atomic::Ordering::Relaxed;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use bytes::Bytes;
use dagwright_model::{
    code::Code,
    schema::{Column, DataType, Verdict},
    spec::{Mask, OnMissing},
    task::SourceRead,
};
use futures::{StreamExt, stream};
use serde_json::{Map, Value};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::CopyOutStream;
use tokio_util::sync::CancellationToken;

use super::{
    catalog::{PgColumn, columns_of, read_from},
    connect::{Session, connection_of},
    decode::Decoder,
    fault::Subject,
    json,
    range::{cursor_condition, partition_condition},
    sql::{Bounds, quoted},
    types::{Native, Wire},
};
use crate::{
    connectors::{
        BatchStream, ReadContext,
        files::{
            cast::convert,
            fault::Subject as RowSubject,
            mask::Masking,
            rows::{Decoded, Finisher, Origin},
        },
    },
    error::{Error, Result},
    types::{arrow_field, arrow_schema},
};

/// How a reading transaction starts: everything is read as of one moment.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// How many messages (rows) travel between threads at once.
const MESSAGES_AT_ONCE: usize = 1024;

/// How many such portions may wait for the decoder.
const PORTIONS_WAITING: usize = 4;

/// How many batches may wait for whoever reads them.
const BATCHES_WAITING: usize = 2;

/// A batch is cut when it has this many bytes, however few rows these are.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Messages, one a row.
type Portion = Vec<Result<Bytes, tokio_postgres::Error>>;

/// One column of a read.
struct Planned {
    /// What is selected.
    sql: String,
    /// How it travels.
    native: Native,
    /// What it must become.
    sealed: Column,
    mask: Option<Masking>,
}

/// Opens a source.
pub(crate) async fn open(read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)> {
    let subject = Subject::source(context.name.as_str());
    let opening = async {
        let connection = connection_of(&read.locator, &subject)?;
        let session = Session::open(&context.environment, &context.sealed, connection, subject.clone()).await?;
        session.run("start the transaction", BEGIN).await?;
        start(session, read, context).await
    };
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(subject.cancelled()),
        opened = opening => opened,
    }
}

async fn start(session: Session, read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)> {
    let schema = arrow_schema(&read.columns);
    let Some((from, relation)) = read_from(&session, &read.locator, Some(&context.run)).await? else {
        return match read.on_missing {
            OnMissing::Skip => Ok((schema, Vec::new())),
            OnMissing::Fail => Err(missing_table(&session.subject, &read.locator.to_string())),
        };
    };
    let columns = columns_of(&session, &from, relation.as_ref()).await?;
    let planned = plan(read, context, &columns, &session.subject)?;
    let mut bounds = Bounds::of_read();
    let conditions = [
        cursor_condition(read, context, &columns, &mut bounds),
        partition_condition(read, context, &columns, &session.subject, &mut bounds)?,
    ];
    bounds.set(&session.client).await.map_err(|error| session.fault("set the range to read", error))?;
    let selected: Vec<&str> = planned.iter().map(|column| column.sql.as_str()).collect();
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let sql = format!("COPY (SELECT {} FROM {from}{filter}) TO STDOUT (FORMAT binary)", selected.join(", "));
    let copied = session.client.copy_out(&sql).await.map_err(|error| session.fault("start to read", error))?;

    let row_subject = RowSubject::source(&session.subject.name);
    let finisher = Finisher::new(read, context, &row_subject)?;
    let hidden = read.classified.iter().chain(read.masks.keys()).cloned().collect();
    let turning = Turning { planned, finisher, hidden, subject: session.subject.clone() };
    let stream = pump(session, copied, turning, context.batch_rows.max(1), context.cancel.clone());
    Ok((schema, vec![stream]))
}

fn plan(read: &SourceRead, context: &ReadContext, columns: &[PgColumn], subject: &Subject) -> Result<Vec<Planned>> {
    let row_subject = RowSubject::source(&subject.name);
    let key = context.environment.mask_key.as_deref();
    let plan_one = |sealed: &Column| {
        let found = columns.iter().find(|found| found.name == sealed.name);
        let found = found.ok_or_else(|| missing_column(subject, &sealed.name))?;
        let name = quoted(&found.name);
        let text = Native { wire: Wire::Text, data_type: DataType::TEXT, cast: None, loose: false };
        let mask = read.masks.get(&sealed.name);
        let (sql, native) = match mask {
            // What nobody may see does not travel at all.
            Some(Mask::Null) => ("NULL::text".into(), text),
            Some(Mask::Redact) => (format!("CASE WHEN {name} IS NOT NULL THEN '***' END"), text),
            Some(Mask::Hmac) => (format!("{name}::text"), text),
            None => {
                let native = found.native.read_as(&sealed.data_type);
                if native.data_type.cast_to(&sealed.data_type) == Verdict::Impossible {
                    let message = format!(
                        "column {:?} is {} now, which does not read as {}",
                        sealed.name, found.native.data_type, sealed.data_type
                    );
                    return Err(subject.error(Code::SourceDrifted, message, "plan again"));
                }
                (native.cast.map_or(name.clone(), |cast| format!("{name}::{cast}")), native)
            }
        };
        let mask = mask.map(|mask| Masking::new(*mask, key, &row_subject)).transpose()?;
        Ok(Planned { sql, native, sealed: sealed.clone(), mask })
    };
    read.columns.iter().map(plan_one).collect()
}

/// Makes the error of a column that went away.
pub(crate) fn missing_column(subject: &Subject, name: &str) -> Error {
    subject.error(Code::SourceDrifted, format!("there is no column {name:?} any more"), "plan again")
}

/// Makes the error of a source that is not there.
pub(crate) fn missing_table(subject: &Subject, locator: &str) -> Error {
    let hint = "correct the name, or grant USAGE on its schema; `on_missing: skip` takes it as empty";
    subject.error(Code::SourceMissing, format!("there is no table {locator}"), hint)
}

/// Carries messages from the network to the decoder, and batches on from there.
fn pump(
    session: Session,
    copied: CopyOutStream,
    turning: Turning,
    batch_rows: usize,
    cancel: CancellationToken,
) -> BatchStream {
    let (portions, received) = mpsc::channel::<Portion>(PORTIONS_WAITING);
    let (batches, stream) = mpsc::channel(BATCHES_WAITING);
    let subject = session.subject.clone();
    tokio::spawn(async move {
        let mut messages = Box::pin(copied.ready_chunks(MESSAGES_AT_ONCE));
        loop {
            let portion = tokio::select! {
                biased;
                () = cancel.cancelled() => break session.cancel_statement().await,
                portion = messages.next() => portion,
            };
            // Whoever read may have gone: the connection closes, and with it the statement ends.
            let Some(portion) = portion else { break };
            if portions.send(portion).await.is_err() {
                break;
            }
        }
    });
    let decoder = tokio::task::spawn_blocking(move || {
        if let Err(error) = turning.run(received, batch_rows, &batches) {
            let _ = batches.blocking_send(Err(error));
        }
    });
    let next = move |(mut stream, decoder): (mpsc::Receiver<Result<RecordBatch>>, Option<JoinHandle<()>>)| {
        let subject = subject.clone();
        async move {
            if let Some(batch) = stream.recv().await {
                return Some((batch, (stream, decoder)));
            }
            // A decoder that panicked must not look like the end.
            let failed = decoder?.await.err()?;
            let error = subject.error(Code::Internal, "the decoder stopped", "report this with the log");
            Some((Err(error.caused_by(failed)), (stream, None)))
        }
    };
    stream::unfold((stream, Some(decoder)), next).boxed()
}

/// Turns messages into batches.
struct Turning {
    planned: Vec<Planned>,
    finisher: Finisher,
    hidden: Vec<String>,
    subject: Subject,
}

impl Turning {
    fn run(
        self,
        mut portions: mpsc::Receiver<Portion>,
        batch_rows: usize,
        batches: &mpsc::Sender<Result<RecordBatch>>,
    ) -> Result<()> {
        let wires: Vec<Wire> = self.planned.iter().map(|column| column.native.wire.clone()).collect();
        let mut decoder = Decoder::new(&wires, batch_rows);
        while let Some(portion) = portions.blocking_recv() {
            for message in portion {
                let message = message.map_err(|error| self.subject.fault("read", error))?;
                self.finisher.tally.bytes.fetch_add(message.len() as u64, Relaxed);
                let malformed = |error| {
                    let hint = "see that nothing between here and the server changes what it sends";
                    self.subject
                        .error(Code::SourceMalformed, "the server sent no rows in binary form", hint)
                        .caused_by(error)
                };
                decoder.push(&message).map_err(|error: super::decode::Malformed| malformed(error))?;
                let full = decoder.rows() >= batch_rows || decoder.bytes() >= BATCH_BYTES_MAX;
                if full && !self.hand_over(&mut decoder, batches)? {
                    return Ok(());
                }
            }
        }
        if !decoder.ended() {
            // The network side left without the trailer or an error: it was told to.
            return Err(self.subject.cancelled());
        }
        self.hand_over(&mut decoder, batches).map(|_| ())
    }

    /// Finishes the rows so far; returns whether anybody still wants them.
    fn hand_over(&self, decoder: &mut Decoder, batches: &mpsc::Sender<Result<RecordBatch>>) -> Result<bool> {
        let rows = decoder.rows();
        let internal = || self.subject.error(Code::Internal, "rows could not be decoded", "report this with the log");
        let (arrays, misfits) = decoder.finish().map_err(|error| internal().caused_by(error))?;
        let mut misfits: Vec<(u32, u32)> =
            misfits.iter().map(|misfit| (narrow(misfit.row), narrow(misfit.column))).collect();
        let mut columns = Vec::with_capacity(arrays.len());
        for (index, (planned, array)) in self.planned.iter().zip(&arrays).enumerate() {
            let mut rows = Vec::new();
            columns.push(planned.turn(array, &mut rows).ok_or_else(internal)?);
            misfits.extend(rows.into_iter().map(|row| (row, narrow(index))));
        }
        let origin = Rows { planned: &self.planned, arrays: &arrays, hidden: &self.hidden };
        for batch in self.finisher.finish(Decoded { columns, rows, misfits }, &origin)? {
            if batches.blocking_send(Ok(batch)).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Planned {
    fn turn(&self, array: &ArrayRef, misfits: &mut Vec<u32>) -> Option<ArrayRef> {
        use arrow::array::AsArray;
        if let Some(mask) = &self.mask {
            return Some(mask.apply(array.as_string_opt::<i32>()?, &self.sealed.data_type));
        }
        if self.native.data_type == self.sealed.data_type {
            return Some(array.clone());
        }
        let field = Column { data_type: self.native.data_type.clone(), ..self.sealed.clone() };
        convert(array, &arrow_field(&field), &self.sealed, misfits)
    }
}

/// Rows as they came, for the quarantine.
struct Rows<'a> {
    planned: &'a [Planned],
    arrays: &'a [ArrayRef],
    hidden: &'a [String],
}

impl Origin for Rows<'_> {
    fn position(&self, _row: usize) -> Option<String> {
        None
    }

    fn values(&self, row: usize) -> Map<String, Value> {
        let visible =
            self.planned.iter().zip(self.arrays).filter(|(column, _)| !self.hidden.contains(&column.sealed.name));
        visible.map(|(column, array)| (column.sealed.name.clone(), json::cell(array, row))).collect()
    }
}

/// Rows of a batch and columns of a table are counted in far fewer than 32 bits.
fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
