//! Encodes batches as Parquet, CSV or NDJSON, on all cores.

use std::{collections::VecDeque, io::Write, sync::Arc, thread};

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use dagwright_model::{
    code::Code,
    spec::{Compression, FileFormat},
    task::SinkWrite,
};
use flate2::write::GzEncoder;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression as Codec, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{fault::Subject, format::Values, json, output::Output};
use crate::error::{Error, Result};

/// The most rows of a row group: enough for pages and dictionaries to pay off, few enough to hold two groups in memory.
const ROW_GROUP_ROWS_MAX: usize = 128 << 10;

/// The most bytes of a row group in memory.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// How many row groups may be encoded while the next one fills.
const ROW_GROUPS_ENCODING_MAX: usize = 2;

/// The level of zstd for Parquet: the library's own default, as other writers use.
const ZSTD_LEVEL: i32 = 3;

/// Writes batches into a file.
pub(crate) enum Encoder {
    /// As Parquet.
    Parquet(Box<ParquetEncoder>),
    /// As CSV or NDJSON.
    Text(Box<TextEncoder>),
}

/// Writes Parquet: collects row groups and encodes their columns in parallel.
pub(crate) struct ParquetEncoder {
    schema: SchemaRef,
    /// `None` only while a thread has it.
    writer: Option<SerializedFileWriter<Output>>,
    columns: Arc<ArrowRowGroupWriterFactory>,
    /// For each column, how many leaves it has.
    leaves: Vec<usize>,
    group: Vec<RecordBatch>,
    group_rows: usize,
    group_bytes: usize,
    groups: usize,
    encoding: VecDeque<JoinHandle<Result<Vec<ArrowColumnChunk>>>>,
    name: String,
    subject: Subject,
}

/// Writes text: formats batches in parallel, compresses and writes them in order.
pub(crate) struct TextEncoder {
    /// `None` only while a thread has it.
    writer: Option<TextWriter>,
    style: Style,
    formatting: VecDeque<JoinHandle<Result<Vec<u8>>>>,
    name: String,
    subject: Subject,
}

#[derive(Clone, Copy)]
enum Style {
    Csv { delimiter: u8 },
    Ndjson,
}

enum TextWriter {
    Plain(Output),
    Gzip(Box<GzEncoder<Output>>),
    Zstd(zstd::stream::write::Encoder<'static, Output>),
}

/// How many cores there are.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}

// === impl Encoder ===

impl Encoder {
    /// Starts a file.
    pub(crate) fn new(write: &SinkWrite, schema: &SchemaRef, output: Output, subject: &Subject) -> Result<Self> {
        match write.format {
            Some(FileFormat::Parquet) => {
                Ok(Self::Parquet(Box::new(ParquetEncoder::new(write, schema, output, subject)?)))
            }
            Some(FileFormat::Csv | FileFormat::Ndjson) => {
                Ok(Self::Text(Box::new(TextEncoder::new(write, schema, output, subject)?)))
            }
            None => Err(subject.error(Code::TaskSpecInvalid, "a file sink has no format", "plan again")),
        }
    }

    /// Writes a batch.
    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(encoder) => encoder.write(batch).await,
            Self::Text(encoder) => encoder.write(batch).await,
        }
    }

    /// Returns how many bytes reached the file so far.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Parquet(encoder) => encoder.writer.as_ref().map_or(0, |writer| writer.inner().bytes()),
            Self::Text(encoder) => encoder.writer.as_ref().map_or(0, |writer| writer.output().bytes()),
        }
    }

    /// Writes what is left, and returns the file.
    pub(crate) async fn finish(self) -> Result<Output> {
        match self {
            Self::Parquet(encoder) => encoder.finish().await,
            Self::Text(encoder) => encoder.finish().await,
        }
    }

    /// Gives up.
    pub(crate) async fn abort(self) {
        let output = match self {
            Self::Parquet(encoder) => {
                encoder.encoding.iter().for_each(JoinHandle::abort);
                // The footer it writes goes with the file.
                encoder.writer.and_then(|writer| writer.into_inner().ok())
            }
            Self::Text(encoder) => encoder.writer.and_then(|writer| writer.into_output().ok()),
        };
        if let Some(output) = output {
            output.abort().await;
        }
    }
}

// === impl ParquetEncoder ===

impl ParquetEncoder {
    fn new(write: &SinkWrite, schema: &SchemaRef, output: Output, subject: &Subject) -> Result<Self> {
        let codec = match write.write.compression {
            None | Some(Compression::Zstd) => Codec::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()),
            Some(Compression::Snappy) => Codec::SNAPPY,
            Some(Compression::None) => Codec::UNCOMPRESSED,
            Some(Compression::Gzip) => {
                let hint = "use zstd, snappy or none";
                return Err(subject.error(Code::TaskSpecInvalid, "Parquet is not written with gzip", hint));
            }
        };
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("dagwright ", env!("CARGO_PKG_VERSION")).into())
            .build();
        let name = output.name().to_owned();
        let writer = ArrowWriter::try_new(output, schema.clone(), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer);
        let (writer, columns) = writer.map_err(|error| failed(&name, error, subject))?;
        let descriptor = writer.schema_descr();
        let mut leaves = vec![0; schema.fields().len()];
        (0..descriptor.num_columns()).for_each(|leaf| leaves[descriptor.get_column_root_idx(leaf)] += 1);
        Ok(Self {
            schema: schema.clone(),
            writer: Some(writer),
            columns: Arc::new(columns),
            leaves,
            group: Vec::new(),
            group_rows: 0,
            group_bytes: 0,
            groups: 0,
            encoding: VecDeque::new(),
            name,
            subject: subject.clone(),
        })
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let mut batch = batch;
        while batch.num_rows() > 0 {
            let room = ROW_GROUP_ROWS_MAX - self.group_rows;
            let now = batch.slice(0, room.min(batch.num_rows()));
            batch = batch.slice(now.num_rows(), batch.num_rows() - now.num_rows());
            self.group_rows += now.num_rows();
            self.group_bytes += now.columns().iter().map(sliced_bytes).sum::<usize>();
            self.group.push(now);
            if self.group_rows >= ROW_GROUP_ROWS_MAX || self.group_bytes >= ROW_GROUP_BYTES_MAX {
                self.encode_group().await?;
            }
        }
        Ok(())
    }

    async fn encode_group(&mut self) -> Result<()> {
        while self.encoding.len() >= ROW_GROUPS_ENCODING_MAX {
            self.append_group().await?;
        }
        let group = Arc::new(std::mem::take(&mut self.group));
        (self.group_rows, self.group_bytes) = (0, 0);
        let index = self.groups;
        self.groups += 1;
        let (schema, columns, leaves) = (self.schema.clone(), self.columns.clone(), self.leaves.clone());
        let (name, subject) = (self.name.clone(), self.subject.clone());
        self.encoding.push_back(tokio::spawn(async move {
            let failed = |error| failed(&name, error, &subject);
            let mut writers = columns.create_column_writers(index).map_err(failed)?.into_iter();
            let mut work = Vec::new();
            for (column, leaves) in leaves.iter().enumerate() {
                let writers: Vec<_> = writers.by_ref().take(*leaves).collect();
                let bytes: usize = group.iter().map(|batch| sliced_bytes(batch.column(column))).sum();
                work.push((bytes, column, writers));
            }
            // The dearest columns first, so that no core waits long for another at the end.
            work.sort_by_key(|(bytes, column, _)| (std::cmp::Reverse(*bytes), *column));
            let encoded = stream::iter(work).map(|(_, column, mut writers)| {
                let (group, schema) = (group.clone(), schema.clone());
                spawn_blocking(move || -> Result<(usize, Vec<ArrowColumnChunk>), ParquetError> {
                    for batch in group.iter() {
                        let leaves = compute_leaves(schema.field(column), batch.column(column))?;
                        for (writer, leaf) in writers.iter_mut().zip(&leaves) {
                            writer.write(leaf)?;
                        }
                    }
                    let chunks = writers.into_iter().map(|writer| writer.close()).collect::<Result<_, _>>()?;
                    Ok((column, chunks))
                })
            });
            let mut chunks: Vec<(usize, Vec<ArrowColumnChunk>)> = encoded
                .buffer_unordered(cores())
                .map(|joined| match joined {
                    Ok(encoded) => encoded.map_err(failed),
                    Err(_) => Err(subject.internal("an encoder ended early")),
                })
                .try_collect()
                .await?;
            chunks.sort_by_key(|(column, _)| *column);
            Ok(chunks.into_iter().flat_map(|(_, chunks)| chunks).collect())
        }));
        Ok(())
    }

    /// Appends the oldest row group that is being encoded.
    async fn append_group(&mut self) -> Result<()> {
        let Some(encoding) = self.encoding.pop_front() else { return Ok(()) };
        let chunks = encoding.await.map_err(|_| self.subject.internal("an encoder ended early"))??;
        let Some(mut writer) = self.writer.take() else { return Err(self.subject.internal("a file was given up")) };
        let (name, subject) = (self.name.clone(), self.subject.clone());
        let appended = spawn_blocking(move || {
            let append = |writer: &mut SerializedFileWriter<Output>| {
                let mut group = writer.next_row_group()?;
                for chunk in chunks {
                    chunk.append_to_row_group(&mut group)?;
                }
                group.close().map(|_| ())
            };
            let appended = append(&mut writer).map_err(|error| failed(&name, error, &subject));
            (writer, appended)
        });
        let (mut writer, appended) = appended.await.map_err(|_| self.subject.internal("a writer ended early"))?;
        writer.inner_mut().ready().await?;
        self.writer = Some(writer);
        appended
    }

    async fn finish(mut self) -> Result<Output> {
        if self.group_rows > 0 {
            self.encode_group().await?;
        }
        while !self.encoding.is_empty() {
            self.append_group().await?;
        }
        let Some(writer) = self.writer.take() else { return Err(self.subject.internal("a file was given up")) };
        let (name, subject) = (self.name.clone(), self.subject.clone());
        let finished = spawn_blocking(move || writer.into_inner().map_err(|error| failed(&name, error, &subject)));
        finished.await.map_err(|_| self.subject.internal("a writer ended early"))?
    }
}

/// The bytes that a slice of an array takes, roughly: buffers shared with other slices count only in part.
fn sliced_bytes(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size())
}

fn failed(name: &str, error: ParquetError, subject: &Subject) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => subject.io(name, *error),
            Err(inner) => subject.internal("Parquet could not be encoded").caused_by(inner),
        },
        error => subject.internal("Parquet could not be encoded").caused_by(error),
    }
}

// === impl TextEncoder ===

impl TextEncoder {
    fn new(write: &SinkWrite, schema: &SchemaRef, output: Output, subject: &Subject) -> Result<Self> {
        let invalid = |message: &str, hint: &str| subject.error(Code::TaskSpecInvalid, message, hint);
        let style = if write.format == Some(FileFormat::Csv) {
            let delimiter = match write.write.delimiter.as_deref().map(str::as_bytes) {
                None => b',',
                Some([byte]) if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
                Some(_) => return Err(invalid("the delimiter is not one ASCII character", "use `,`, `;` or a tab")),
            };
            Style::Csv { delimiter }
        } else {
            Style::Ndjson
        };
        let name = output.name().to_owned();
        let writer = match write.write.compression {
            None | Some(Compression::None) => TextWriter::Plain(output),
            Some(Compression::Gzip) => {
                TextWriter::Gzip(Box::new(GzEncoder::new(output, flate2::Compression::default())))
            }
            Some(Compression::Zstd) => {
                let encoder =
                    zstd::stream::write::Encoder::new(output, ZSTD_LEVEL).map_err(|error| subject.io(&name, error))?;
                TextWriter::Zstd(encoder)
            }
            Some(Compression::Snappy) => {
                return Err(invalid("text is not written with snappy", "use gzip, zstd or none"));
            }
        };
        let mut formatting = VecDeque::new();
        if let Style::Csv { delimiter } = style
            && write.write.header.unwrap_or(true)
        {
            let mut header = Vec::new();
            for (index, field) in schema.fields().iter().enumerate() {
                if index > 0 {
                    header.push(delimiter);
                }
                quoted_if_needed(field.name().as_bytes(), delimiter, &mut header);
            }
            header.push(b'\n');
            formatting.push_back(spawn_blocking(move || Ok(header)));
        }
        Ok(Self { writer: Some(writer), style, formatting, name, subject: subject.clone() })
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        while self.formatting.len() >= cores() {
            self.append().await?;
        }
        let (style, subject) = (self.style, self.subject.clone());
        self.formatting.push_back(spawn_blocking(move || style.format(&batch, &subject)));
        Ok(())
    }

    async fn append(&mut self) -> Result<()> {
        let Some(formatting) = self.formatting.pop_front() else { return Ok(()) };
        let text = formatting.await.map_err(|_| self.subject.internal("an encoder ended early"))??;
        let Some(mut writer) = self.writer.take() else { return Err(self.subject.internal("a file was given up")) };
        let appended = spawn_blocking(move || {
            let appended = writer.write_all(&text);
            (writer, appended)
        });
        let (mut writer, appended) = appended.await.map_err(|_| self.subject.internal("a writer ended early"))?;
        writer.output_mut().ready().await?;
        self.writer = Some(writer);
        appended.map_err(|error| self.subject.io(&self.name, error))
    }

    async fn finish(mut self) -> Result<Output> {
        while !self.formatting.is_empty() {
            self.append().await?;
        }
        let Some(writer) = self.writer.take() else { return Err(self.subject.internal("a file was given up")) };
        let finished = spawn_blocking(move || writer.into_output());
        let finished = finished.await.map_err(|_| self.subject.internal("a writer ended early"))?;
        finished.map_err(|error| self.subject.io(&self.name, error))
    }
}

// === impl Style ===

impl Style {
    fn format(self, batch: &RecordBatch, subject: &Subject) -> Result<Vec<u8>> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            Values::new(column.as_ref(), field)
                .ok_or_else(|| subject.internal(format!("column {:?} has no text form", field.name())))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut text = Vec::with_capacity(batch.num_rows() * columns.len() * 8);
        match self {
            Self::Csv { delimiter } => {
                let mut scratch = Vec::new();
                for row in 0..batch.num_rows() {
                    for (index, values) in columns.iter().enumerate() {
                        if index > 0 {
                            text.push(delimiter);
                        }
                        if values.is_null(row) {
                            continue;
                        }
                        scratch.clear();
                        values.text(row, &mut scratch);
                        quoted_if_needed(&scratch, delimiter, &mut text);
                    }
                    text.push(b'\n');
                }
            }
            Self::Ndjson => {
                let mut keys: Vec<Vec<u8>> = Vec::with_capacity(columns.len());
                for (index, field) in schema.fields().iter().enumerate() {
                    let mut key = vec![if index == 0 { b'{' } else { b',' }];
                    json::write_string(field.name(), &mut key);
                    key.push(b':');
                    keys.push(key);
                }
                for row in 0..batch.num_rows() {
                    for (key, values) in keys.iter().zip(&columns) {
                        text.extend_from_slice(key);
                        values.json(row, &mut text);
                    }
                    text.extend_from_slice(if columns.is_empty() { b"{}\n" } else { b"}\n" });
                }
            }
        }
        Ok(text)
    }
}

/// Writes a field of CSV; the empty text in quotes, so that it is not NULL.
fn quoted_if_needed(text: &[u8], delimiter: u8, into: &mut Vec<u8>) {
    let plain = !text.is_empty() && !text.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r') || *byte == delimiter);
    if plain {
        return into.extend_from_slice(text);
    }
    into.push(b'"');
    for byte in text {
        if *byte == b'"' {
            into.push(b'"');
        }
        into.push(*byte);
    }
    into.push(b'"');
}

// === impl TextWriter ===

impl TextWriter {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(output) => output.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn output(&self) -> &Output {
        match self {
            Self::Plain(output) => output,
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
        }
    }

    fn output_mut(&mut self) -> &mut Output {
        match self {
            Self::Plain(output) => output,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn into_output(self) -> std::io::Result<Output> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}
