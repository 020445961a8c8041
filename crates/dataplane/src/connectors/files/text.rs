//! Reads text files on all cores.
//!
//! One thread reads, decompresses, decodes and cuts chunks of whole records; as many threads as there are cores parse
//! them. Batches come out in the file's order when there is one stream; several streams share the chunks as they come,
//! so that none of them has to wait for another. Whatever the input, only a few chunks are in memory.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError, mpsc as sync_mpsc},
};

use arrow::array::{AsArray, RecordBatch};
use dagwright_model::{
    code::Code,
    facts::TextProfile,
    spec::{Encoding, FileFormat, LossyCast, Ragged},
    task::SourceRead,
};
use futures::{StreamExt, stream};
use serde_json::{Map, Value};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    chunk::{self, CHUNK_BYTES, Chunk, Chunker},
    column::{Cells, Syntax},
    csv::{self, Dialect, Fault, Shape, Table},
    fault::Subject,
    input,
    listing::Listed,
    location::Store,
    mask::Masking,
    ndjson::Members,
    rows::{Decoded, Finisher, Origin},
};
use crate::{
    connectors::{BatchStream, ReadContext},
    error::Result,
};
use dagwright_model::schema::{Column, DataType};

/// How a source of text files is read.
#[derive(Clone)]
pub(crate) struct TextRead {
    /// The sealed columns.
    columns: Arc<Vec<Column>>,
    masks: Arc<Vec<Option<Masking>>>,
    /// Columns whose values do not go to the quarantine.
    hidden: Arc<Vec<String>>,
    grammar: Grammar,
    encoding: Encoding,
    finisher: Finisher,
}

#[derive(Clone)]
enum Grammar {
    Csv { dialect: Dialect, header: bool, positions: Arc<Vec<String>>, ragged: Ragged, syntax: Arc<Syntax> },
    Ndjson { members: Arc<Members>, lossy: LossyCast },
}

/// A file as far as its chunks need to know.
struct FileShape {
    name: String,
    /// What each of the file's fields is called; CSV only.
    fields: Vec<String>,
    shape: Shape,
    /// For each sealed column, its slot among the wanted fields.
    slots: Vec<usize>,
}

type Job = (Chunk, Arc<FileShape>, oneshot::Sender<Result<Vec<RecordBatch>>>);
type Pending = oneshot::Receiver<Result<Vec<RecordBatch>>>;

// === impl TextRead ===

impl TextRead {
    /// Prepares a read of text files.
    pub(crate) fn new(
        read: &SourceRead,
        format: FileFormat,
        context: &ReadContext,
        finisher: Finisher,
    ) -> Result<Self> {
        let subject = &finisher.subject;
        let Some(text) = &read.text else {
            return Err(subject.error(Code::TaskSpecInvalid, "a text source has no text profile", "plan again"));
        };
        let key = context.environment.mask_key.as_deref();
        let masks = read
            .columns
            .iter()
            .map(|column| read.masks.get(&column.name).map(|mask| Masking::new(*mask, key, subject)).transpose());
        let masks = Arc::new(masks.collect::<Result<Vec<_>>>()?);
        let grammar = match format {
            FileFormat::Csv => {
                let dialect = dialect(text, subject)?;
                Grammar::Csv {
                    dialect,
                    header: text.header,
                    positions: Arc::new(read.positions.clone()),
                    ragged: read.ragged,
                    syntax: Arc::new(Syntax::csv(dialect, &read.null_values)),
                }
            }
            FileFormat::Ndjson | FileFormat::Parquet => {
                let as_read: Vec<Column> = read
                    .columns
                    .iter()
                    .zip(masks.iter())
                    .map(|(column, mask)| as_read(column, mask.as_ref()))
                    .collect();
                Grammar::Ndjson { members: Arc::new(Members::new(&as_read)), lossy: read.lossy }
            }
        };
        let hidden = read.classified.iter().chain(read.masks.keys()).cloned().collect();
        Ok(Self {
            columns: Arc::new(read.columns.clone()),
            masks,
            hidden: Arc::new(hidden),
            grammar,
            encoding: text.encoding,
            finisher,
        })
    }

    /// Starts to read files, and returns the streams.
    pub(crate) fn start(
        self,
        store: Store,
        files: Vec<Listed>,
        streams: usize,
        cancel: &CancellationToken,
    ) -> Vec<BatchStream> {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let (jobs, queue) = sync_mpsc::sync_channel::<Job>(workers);
        let (pending, ordered) = mpsc::channel::<Pending>(workers * 2);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let (queue, read) = (queue.clone(), self.clone());
            tokio::task::spawn_blocking(move || {
                loop {
                    // Only one thread waits in `recv`; the others wait for the lock, which comes to the same.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((chunk, file, reply)) = job else { return };
                    // A reply that nobody waits for any more is dropped.
                    let _ = reply.send(read.parse(&chunk, &file));
                }
            });
        }
        let subject = self.finisher.subject.clone();
        let stop = cancel.clone();
        tokio::task::spawn_blocking(move || {
            let dispatch = |chunk, file| {
                let (reply, waiting) = oneshot::channel();
                let open = !stop.is_cancelled() && pending.blocking_send(waiting).is_ok();
                open && jobs.send((chunk, file, reply)).is_ok()
            };
            if let Err(error) = self.cut(&store, &files, dispatch) {
                let (reply, waiting) = oneshot::channel();
                let _ = reply.send(Err(error));
                let _ = pending.blocking_send(waiting);
            }
        });
        let ordered = Arc::new(AsyncMutex::new(ordered));
        (0..streams.max(1)).map(|_| batches(ordered.clone(), cancel.clone(), subject.clone())).collect()
    }

    /// Cuts all files into chunks until `dispatch` says to stop.
    fn cut(
        &self,
        store: &Store,
        files: &[Listed],
        mut dispatch: impl FnMut(Chunk, Arc<FileShape>) -> bool,
    ) -> Result<()> {
        let subject = &self.finisher.subject;
        for file in files {
            let tally = Some(self.finisher.tally.clone());
            let text = input::open_text(store, file, self.encoding, tally, subject)?;
            let mut chunker = self.chunker(text, &file.name, CHUNK_BYTES);
            let mut shape = None;
            while let Some(mut chunk) = chunker.next()? {
                let shape = match &shape {
                    Some(shape) => Arc::clone(shape),
                    None => shape.insert(Arc::new(self.file_shape(&mut chunk, &file.name)?)).clone(),
                };
                if !dispatch(chunk, shape) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn chunker<R: Read>(&self, text: R, name: &str, chunk_bytes: usize) -> Chunker<R> {
        let dialect = match &self.grammar {
            Grammar::Csv { dialect, .. } => Some(*dialect),
            Grammar::Ndjson { .. } => None,
        };
        Chunker::new(text, dialect, chunk_bytes, name, &self.finisher.subject)
    }

    /// Reads a file's header from its first chunk, and removes it there.
    fn file_shape(&self, chunk: &mut Chunk, name: &str) -> Result<FileShape> {
        let subject = &self.finisher.subject;
        let Grammar::Csv { dialect, header, positions, ragged, .. } = &self.grammar else {
            let slots = (0..self.columns.len()).collect();
            return Ok(FileShape {
                name: name.into(),
                fields: Vec::new(),
                shape: Shape { wanted: Vec::new(), fill: false },
                slots,
            });
        };
        let fields = if *header {
            let end = csv::record_end(&chunk.bytes, *dialect);
            let record = std::str::from_utf8(&chunk.bytes[..end]).map_err(|_| not_text(name, 1, subject))?;
            let fields = header_names(record.as_bytes(), *dialect);
            chunk.line += chunk::lines(&chunk.bytes[..end]);
            chunk.bytes.drain(..end);
            fields
        } else {
            positions.to_vec()
        };
        let mut at = Vec::with_capacity(self.columns.len());
        for column in self.columns.iter() {
            let found = fields.iter().position(|field| *field == column.name);
            at.push(found.ok_or_else(|| {
                subject.error(
                    Code::SourceDrifted,
                    format!("{name} has no column {:?}", column.name),
                    "plan again if the source changed for good; else mend the file",
                )
            })?);
        }
        let wanted: Vec<bool> = (0..fields.len()).map(|field| at.contains(&field)).collect();
        let slots = at.iter().map(|field| wanted[..*field].iter().filter(|wanted| **wanted).count()).collect();
        Ok(FileShape { name: name.into(), shape: Shape { wanted, fill: *ragged == Ragged::Fill }, fields, slots })
    }

    /// Parses a chunk.
    fn parse(&self, chunk: &Chunk, file: &FileShape) -> Result<Vec<RecordBatch>> {
        let subject = &self.finisher.subject;
        if let Some(line) = bad_text(chunk) {
            return Err(not_text(&file.name, line, subject));
        }
        let mut table = Table::default();
        let (width, syntax) = match &self.grammar {
            Grammar::Csv { dialect, syntax, .. } => {
                table.read(&chunk.bytes, *dialect, &file.shape);
                (file.shape.wanted.iter().filter(|wanted| **wanted).count(), syntax.as_ref())
            }
            Grammar::Ndjson { members, .. } => {
                members.read(&chunk.bytes, &mut table);
                (self.columns.len(), &Syntax::JSON)
            }
        };
        self.malformed(chunk, file, &table)?;
        let rows = table.starts.len();
        let mut misfits = Vec::new();
        let mut columns = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let cells = Cells { bytes: &chunk.bytes, spans: &table.spans, width, slot: file.slots[index], syntax };
            let mut rows_misfit = Vec::new();
            columns.push(match &self.masks[index] {
                None => cells.array(&column.data_type, &mut rows_misfit),
                Some(mask) => {
                    let texts = cells.array(&DataType::TEXT, &mut rows_misfit);
                    let texts = texts.as_string::<i32>();
                    mask.apply(texts, &column.data_type)
                }
            });
            misfits.extend(rows_misfit.into_iter().map(|row| (row, u32::try_from(index).unwrap_or(u32::MAX))));
        }
        let decoded = Decoded { columns, rows, misfits };
        self.finisher.finish(decoded, &Rows { read: self, chunk, file, table: &table, width, syntax })
    }

    fn malformed(&self, chunk: &Chunk, file: &FileShape, table: &Table) -> Result<()> {
        for malformed in &table.malformed {
            let line = chunk.line + chunk::lines(&chunk.bytes[..malformed.start]);
            let position = format!("{}:{line}", file.name);
            let reason = match malformed.fault {
                Fault::Fields(found) => format!("{found} fields instead of {}", file.shape.wanted.len()),
                Fault::AfterQuote => "text after a closing quote".into(),
                Fault::NotAnObject => "not one JSON object".into(),
            };
            let quarantines = match &self.grammar {
                Grammar::Csv { ragged, .. } => *ragged == Ragged::Quarantine,
                Grammar::Ndjson { lossy, .. } => *lossy == LossyCast::Quarantine,
            };
            if !quarantines {
                let hint = match &self.grammar {
                    Grammar::Csv { .. } => {
                        "mend the file, check `csv.delimiter` and `csv.quote`, or set `csv.ragged` to quarantine or fill"
                    }
                    Grammar::Ndjson { .. } => "write one JSON object a line, or set `policy.lossy_cast: quarantine`",
                };
                return Err(self.finisher.subject.malformed(format!("{position}: malformed record: {reason}"), hint));
            }
            self.finisher.reject_malformed(reason, position, self.raw_values(chunk, file, malformed))?;
        }
        Ok(())
    }

    /// The fields of a malformed record as far as they have names; nothing where something is to be hidden, because a
    /// field may then stand in another's place.
    fn raw_values(&self, chunk: &Chunk, file: &FileShape, malformed: &csv::Malformed) -> Map<String, Value> {
        let Grammar::Csv { dialect, syntax, .. } = &self.grammar else { return Map::new() };
        if !self.hidden.is_empty() {
            return Map::new();
        }
        let record = &chunk.bytes[malformed.start..malformed.end];
        let spans = csv::fields(record, *dialect);
        let mut scratch = Vec::new();
        let text = |span: &csv::Span, scratch: &mut Vec<u8>| {
            syntax.text(*span, record, scratch).map(|text| String::from_utf8_lossy(text).into_owned())
        };
        file.fields.iter().zip(&spans).map(|(name, span)| (name.clone(), text(span, &mut scratch).into())).collect()
    }
}

/// Returns a column as it is read before its mask is applied.
fn as_read(column: &Column, mask: Option<&Masking>) -> Column {
    let data_type = if mask.is_some() { DataType::TEXT } else { column.data_type.clone() };
    Column { data_type, ..column.clone() }
}

/// Returns the dialect of a text profile.
pub(crate) fn dialect(text: &TextProfile, subject: &Subject) -> Result<Dialect> {
    let byte = |found: Option<char>, what: &str| {
        found
            .map(|found| u8::try_from(found).ok().filter(|byte| byte.is_ascii() && *byte != b'\n' && *byte != b'\r'))
            .map_or(Ok(None), |byte| match byte {
                Some(byte) => Ok(Some(byte)),
                None => Err(subject.error(
                    Code::TaskSpecInvalid,
                    format!("the {what} is not an ASCII character"),
                    "give one ASCII character",
                )),
            })
    };
    let delimiter = byte(text.delimiter, "delimiter")?.unwrap_or(b',');
    let quote = byte(text.quote, "quote")?;
    let escape = byte(text.escape, "escape")?.filter(|escape| Some(*escape) != quote);
    Ok(Dialect { delimiter, quote, escape })
}

/// Returns the names in a header: trimmed, empty ones named by position, repeated ones numbered.
pub(crate) fn header_names(record: &[u8], dialect: Dialect) -> Vec<String> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    let syntax = Syntax::csv(dialect, &[]);
    let mut scratch = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for (index, span) in csv::fields(record, dialect).into_iter().enumerate() {
        let text = syntax.text(span, record, &mut scratch).unwrap_or_default();
        let name = String::from_utf8_lossy(text).trim().to_owned();
        let name = if name.is_empty() { position_name(index) } else { name };
        let mut unique = name.clone();
        let mut count = 1;
        while names.contains(&unique) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        names.push(unique);
    }
    names
}

/// Returns the name of a column that has none.
pub(crate) fn position_name(index: usize) -> String {
    format!("column_{}", index + 1)
}

/// Returns the line of the first byte that is no text.
fn bad_text(chunk: &Chunk) -> Option<u64> {
    let bytes = &chunk.bytes;
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    let good = memchr::memchr(0, &bytes[..valid]).unwrap_or(valid);
    (good < bytes.len()).then(|| chunk.line + chunk::lines(&bytes[..good]))
}

fn not_text(name: &str, line: u64, subject: &Subject) -> crate::error::Error {
    subject.malformed(
        format!("{name}:{line}: this is not text in the expected encoding"),
        "check that it is a text file, and give its `csv.encoding`",
    )
}

/// A stream of the batches of whatever chunk comes next.
fn batches(
    ordered: Arc<AsyncMutex<mpsc::Receiver<Pending>>>,
    cancel: CancellationToken,
    subject: Subject,
) -> BatchStream {
    let chunks = stream::unfold(Some((ordered, cancel, subject)), |state| async move {
        let (ordered, cancel, subject) = state?;
        let next = async {
            let pending = ordered.lock().await.recv().await?;
            Some(pending.await.unwrap_or_else(|_| Err(subject.internal("a reader ended early"))))
        };
        let parsed = tokio::select! {
            biased;
            () = cancel.cancelled() => Some(Err(subject.error(Code::Cancelled, "cancelled while reading", "start it again"))),
            parsed = next => parsed,
        };
        match parsed? {
            Ok(batches) => Some((batches.into_iter().map(Ok).collect::<Vec<_>>(), Some((ordered, cancel, subject)))),
            Err(error) => {
                // The other streams end too: without a receiver, the threads stop.
                ordered.lock().await.close();
                Some((vec![Err(error)], None))
            }
        }
    });
    chunks.flat_map(stream::iter).boxed()
}

/// The rows of a chunk.
struct Rows<'a> {
    read: &'a TextRead,
    chunk: &'a Chunk,
    file: &'a FileShape,
    table: &'a Table,
    width: usize,
    syntax: &'a Syntax,
}

impl Origin for Rows<'_> {
    fn position(&self, row: usize) -> Option<String> {
        let start = *self.table.starts.get(row)? as usize;
        Some(format!("{}:{}", self.file.name, self.chunk.line + chunk::lines(&self.chunk.bytes[..start])))
    }

    fn values(&self, row: usize) -> Map<String, Value> {
        let mut values = Map::new();
        let mut scratch = Vec::new();
        for (column, slot) in self.read.columns.iter().zip(&self.file.slots) {
            if self.read.hidden.contains(&column.name) {
                continue;
            }
            let span = self.table.spans[row * self.width + slot];
            let text = if self.syntax.is_null(span, &self.chunk.bytes) {
                None
            } else {
                self.syntax.text(span, &self.chunk.bytes, &mut scratch)
            };
            values.insert(column.name.clone(), text.map(|text| String::from_utf8_lossy(text).into_owned()).into());
        }
        values
    }
}
