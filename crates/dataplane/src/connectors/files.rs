//! Reads and writes files, on local disks and in object stores.
//!
//! | module | what it does |
//! |---|---|
//! | `location`, `listing` | finds files: URIs, placeholders, patterns, changes while reading |
//! | `input`, `chunk` | bytes of a file: decompressed, in UTF-8, cut into whole records |
//! | `csv`, `ndjson`, `json`, `value`, `column` | text becomes typed columns, on all cores |
//! | `text`, `parquet_read`, `cast` | files become streams of batches |
//! | `rows`, `filter`, `mask` | what becomes of each row: masked, rejected, passed over, handed on |
//! | `profile` | what is seen of files before anything is sealed |
//! | `sink`, `encode`, `format`, `output`, `manifest`, `cursor` | batches become files, visible in one instant |
//! | `inspect` | what is seen of a sink before anything is sealed |
//!
//! A source folder that has a manifest is read by it; so is one sink another pipeline's source without ever being half
//! a state. Deliberately absent: Avro, ORC, Excel, table formats.

pub(super) mod cast;
mod chunk;
mod column;
mod csv;
mod cursor;
mod encode;
pub(super) mod fault;
mod filter;
mod format;
mod input;
mod inspect;
mod json;
mod listing;
mod location;
mod manifest;
pub(super) mod mask;
mod ndjson;
mod output;
mod parquet_bytes;
mod parquet_read;
mod profile;
pub(super) mod rows;
mod sink;
mod text;
mod value;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    facts::{SinkInspection, SourceProfile},
    id::Name,
    spec::{self, FileFormat, Locator, OnMissing},
    task::{Partition, PartitionRange, RunContext, SinkCounts, SinkRef, SinkWrite, SourceRead, Split},
};

use self::{fault::Subject, listing::Listed, location::Location};
use super::{BatchStream, Begin, Environment, ReadContext, Sink, Source, WriteContext};
use crate::{error::Result, types::arrow_schema};

/// How many bytes of text one stream is worth at least.
const STREAM_BYTES_MIN: u64 = 8 << 20;

/// Reads files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSource;

/// Writes files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSink;

// === impl FileSource ===

impl FileSource {
    /// Makes a source; it has no state.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Source for FileSource {
    async fn open(&self, read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)> {
        let subject = Subject::source(&context.name);
        let location = Location::resolve(uri(&read.locator, &subject)?, &context.run, &subject)?;
        let files = files(read, context, &location, &subject).await?;
        let schema = arrow_schema(&read.columns);
        if files.is_empty() {
            return Ok((schema, Vec::new()));
        }
        let finisher = rows::Finisher::new(read, context, &subject)?;
        let streams = match read.format {
            Some(FileFormat::Parquet) => {
                let read = parquet_read::ParquetRead::new(read, &location, context, finisher)?;
                read.start(files, context.streams.max(1), &context.cancel).await?
            }
            Some(format @ (FileFormat::Csv | FileFormat::Ndjson)) => {
                let bytes: u64 = files.iter().map(|file| file.size).sum();
                let useful = usize::try_from(bytes / STREAM_BYTES_MIN).unwrap_or(usize::MAX);
                let read = text::TextRead::new(read, format, context, finisher)?;
                read.start(location.store, files, context.streams.min(useful), &context.cancel)
            }
            None => return Err(subject.error(Code::TaskSpecInvalid, "a file source has no format", "plan again")),
        };
        Ok((schema, streams))
    }

    async fn split(&self, split: &Split, context: &ReadContext) -> Result<Vec<Partition>> {
        let subject = Subject::source(&context.name);
        let location = Location::resolve(uri(&split.read.locator, &subject)?, &context.run, &subject)?;
        let found = listing::list(&location, &subject).await?;
        if found.is_empty() && split.read.on_missing == OnMissing::Fail {
            return Err(missing(&location, &subject));
        }
        Ok(balanced(found, split.partitions_max))
    }

    async fn profile(
        &self,
        name: &Name,
        source: &spec::Source,
        keys: &[Vec<String>],
        run: &RunContext,
        _: &Environment,
    ) -> Result<SourceProfile> {
        let subject = Subject::source(name);
        let location = Location::resolve(uri(&source.locator, &subject)?, run, &subject)?;
        profile::profile(name, source, keys, &location, &subject).await
    }
}

// === impl FileSink ===

impl FileSink {
    /// Makes a sink; it has no state.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn inspect(
        &self,
        name: &Name,
        locator: &Locator,
        format: Option<FileFormat>,
        _: spec::SinkMode,
        run: &RunContext,
        _: &Environment,
    ) -> Result<SinkInspection> {
        inspect::inspect(name, locator, format, run).await
    }

    async fn begin(&self, write: &SinkWrite, context: &WriteContext) -> Result<Begin> {
        sink::Target::new(write, context)?.begin().await
    }

    async fn publish(&self, write: &SinkWrite, partitions: u32, context: &WriteContext) -> Result<SinkCounts> {
        sink::Target::new(write, context)?.publish(partitions).await
    }

    async fn committed_cursor(
        &self,
        sink: &SinkRef,
        pipeline: &str,
        source: &Name,
        context: &WriteContext,
    ) -> Result<Option<String>> {
        let subject = Subject::sink(&sink.name);
        let location = Location::resolve(uri(&sink.locator, &subject)?, &context.run, &subject)?;
        sink::committed_cursor(&location, &cursor::name(pipeline, source.as_str()), &subject).await
    }
}

// === free functions ===

fn uri<'a>(locator: &'a Locator, subject: &Subject) -> Result<&'a str> {
    match locator {
        Locator::Uri(uri) => Ok(uri),
        Locator::Table { .. } | Locator::Query { .. } => {
            Err(subject.error(Code::TaskSpecInvalid, "this is not the locator of a file", "plan again"))
        }
    }
}

/// Returns the files of a read: those of its partition, or all; none when there may be none.
async fn files(
    read: &SourceRead,
    context: &ReadContext,
    location: &Location,
    subject: &Subject,
) -> Result<Vec<Listed>> {
    if read.partitioned {
        let partition = context.run.partition.as_ref().map(|partition| &partition.range);
        let Some(PartitionRange::Files(names)) = partition else {
            return Err(subject.error(Code::TaskSpecInvalid, "a partitioned read has no files", "run the split again"));
        };
        return listing::these(location, names.iter().map(|name| location.path_of(name)), subject).await;
    }
    let found = listing::list(location, subject).await?;
    if found.is_empty() && read.on_missing == OnMissing::Fail {
        return Err(missing(location, subject));
    }
    Ok(found)
}

fn missing(location: &Location, subject: &Subject) -> crate::error::Error {
    subject.error(
        Code::SourceMissing,
        format!("there is nothing at {}", location.written),
        "check the path; a relative one starts at the base folder (`--base`); or set `on_missing: skip`",
    )
}

/// Deals files out to partitions, largest first to the lightest, each partition's in order of name.
fn balanced(mut files: Vec<Listed>, partitions_max: u32) -> Vec<Partition> {
    let most = usize::try_from(partitions_max).unwrap_or(usize::MAX);
    let count = files.len().min(most).max(1);
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    let mut dealt: Vec<(u64, Vec<String>)> = vec![(0, Vec::new()); count];
    for file in files {
        if let Some((bytes, names)) = dealt.iter_mut().min_by_key(|(bytes, names)| (*bytes, names.len())) {
            *bytes += file.size;
            names.push(file.name);
        }
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let partition = |(index, (_, mut names)): (u32, (u64, Vec<String>))| {
        names.sort();
        Partition { index, count, range: PartitionRange::Files(names) }
    };
    (0..count).zip(dealt).map(partition).collect()
}
