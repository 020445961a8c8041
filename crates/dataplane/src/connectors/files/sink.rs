//! Writes a file sink: a single file, or a folder of parts.
//!
//! Nothing is visible before the commit, and its steps are ordered so that a crash between any two of them is harmless:
//! files become whole under names nobody reads, then get their final names, then the manifest names them together with
//! the effect and the cursors, then what it no longer names is deleted. Who reads a folder by its manifest sees the
//! whole old state or the whole new one.

use std::{cmp::Ordering, collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use dagwright_model::{
    canonical,
    code::Code,
    spec::{FileFormat, Locator, SinkMode},
    task::{Partition, SinkCounts, SinkWrite, WriteStrategy},
};
use serde::{Deserialize, Serialize};

use super::{
    cursor,
    encode::Encoder,
    fault::Subject,
    listing,
    location::Location,
    manifest::{self, Effect, EffectId, Manifest, Part, Pending},
    output::{self, Finished, Output},
};
use crate::{
    connectors::{Begin, Commit, SinkWriter, WriteContext},
    error::Result,
    types::arrow_schema,
};

/// The size at which a folder's part ends and the next one begins.
const PART_BYTES_MAX: u64 = 1 << 30;

/// How many staged parts a publish may find.
const STAGED_PARTS_MAX: usize = 100_000;

/// A sink and the effect that is written to it.
#[derive(Clone)]
pub(crate) struct Target {
    location: Location,
    write: SinkWrite,
    context: WriteContext,
    schema: SchemaRef,
    id: EffectId,
    /// Names the effect's files: equal for every attempt, different for every generation.
    hash: String,
    subject: Subject,
}

/// Writes one effect.
pub(crate) struct FileWriter {
    target: Target,
    current: Option<Encoder>,
    current_rows: u64,
    rows: u64,
    parts: Vec<(Finished, u64)>,
    next_part: usize,
}

/// What a partition staged.
#[derive(Debug, Serialize, Deserialize)]
struct Staged {
    /// What was written for, and which part it is; another plan for the same effect may cut and write otherwise. Absent in
    /// what an older version staged.
    #[serde(default)]
    contract: Option<StagedFor>,
    parts: Vec<StagedPart>,
    counts: SinkCounts,
    cursors: BTreeMap<String, String>,
}

/// What a partition was staged for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StagedFor {
    /// The hash of how the sink is written.
    write: String,
    partition: Option<Partition>,
}

/// One staged file.
#[derive(Debug, Serialize, Deserialize)]
struct StagedPart {
    /// Its name once it is visible.
    file: String,
    rows: u64,
    bytes: u64,
}

// === impl Target ===

impl Target {
    /// Finds out what is to be written where.
    pub(crate) fn new(write: &SinkWrite, context: &WriteContext) -> Result<Self> {
        let subject = Subject::sink(&write.name);
        let invalid = |message: &str, hint: &str| Err(subject.error(Code::TaskSpecInvalid, message, hint));
        let Locator::Uri(uri) = &write.locator else { return invalid("a file sink has no URI", "plan again") };
        let location = Location::resolve(uri, &context.run, &subject)?;
        writable(&location, &subject)?;
        let staged = write.strategy == WriteStrategy::PartitionStaging;
        match write.mode {
            SinkMode::Append if !location.is_folder() => {
                return invalid("a single file cannot be appended to", "end the sink's URI in `/`");
            }
            SinkMode::Append | SinkMode::Replace => {}
            SinkMode::Upsert | SinkMode::OverwritePartitions | SinkMode::Scd2 => {
                return invalid("files are appended to or replaced", "use `mode: append` or `replace`, or a database");
            }
        }
        if staged && !location.is_folder() {
            return invalid("a single file cannot be written by partitions", "end the sink's URI in `/`");
        }
        let partition = context.run.partition.as_ref().map(|partition| partition.index);
        if !staged && partition.is_some() && write.mode == SinkMode::Replace {
            return invalid("partitions cannot each replace the sink", "stage them and publish");
        }
        let id =
            EffectId { key: context.run.effect_key(&write.name), partition: if staged { None } else { partition } };
        let hash = canonical::hash(&(&id.key, context.run.generation))[..16].to_owned();
        let schema = arrow_schema(&write.columns);
        Ok(Self { location, write: write.clone(), context: context.clone(), schema, id, hash, subject })
    }

    /// Begins to write, or finds the effect.
    pub(crate) async fn begin(self) -> Result<Begin> {
        let partition = self.partition();
        if self.is_staged() {
            let ours = self.staged_for();
            let staged = self.staged(partition).await?;
            if let Some(staged) = staged.filter(|staged| staged.contract.as_ref().is_none_or(|known| *known == ours)) {
                return Ok(Begin::Repeated(staged.counts));
            }
            output::remove_temporary(&self.location, self.staging_folder().trim_end_matches('/'), &self.tag(partition));
        } else {
            if let Some(counts) = self.found().await? {
                self.sweep().await?;
                return Ok(Begin::Repeated(counts));
            }
            output::remove_temporary(&self.location, output::folder_of(&self.location.path), &self.tag(partition));
        }
        Ok(Begin::Write(Box::new(FileWriter {
            target: self,
            current: None,
            current_rows: 0,
            rows: 0,
            parts: Vec::new(),
            next_part: 0,
        })))
    }

    fn is_staged(&self) -> bool {
        self.write.strategy == WriteStrategy::PartitionStaging
    }

    fn partition(&self) -> u32 {
        self.context.run.partition.as_ref().map_or(0, |partition| partition.index)
    }

    fn tag(&self, partition: u32) -> String {
        format!("{}-{partition}-", self.hash)
    }

    fn staging_folder(&self) -> String {
        format!("{}{}/staging/{}/", self.location.path, manifest::FOLDER, self.hash)
    }

    fn staged_list(&self, partition: u32) -> String {
        format!("{}{partition}.json", self.staging_folder())
    }

    fn staged_for(&self) -> StagedFor {
        StagedFor { write: canonical::hash(&self.write), partition: self.context.run.partition.clone() }
    }

    async fn staged(&self, partition: u32) -> Result<Option<Staged>> {
        let path = self.staged_list(partition);
        let Some((bytes, _)) = manifest::read_small(&self.location, &path, &self.subject).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| self.staging("a staged partition is not readable").caused_by(error))
    }

    fn staging(&self, message: impl Into<String>) -> crate::error::Error {
        self.subject.error(Code::StagingUnavailable, message, "run the partition's task again")
    }

    /// Returns the counts of this effect if it is visible.
    async fn found(&self) -> Result<Option<SinkCounts>> {
        let Some(manifest) = manifest::read(&self.location, &self.subject).await? else { return Ok(None) };
        let generation = self.context.run.generation;
        if !self.location.is_folder() {
            let visible = output::mark_of(&self.location, &self.location.path, &self.subject).await?;
            if visible.is_none() {
                return Ok(None);
            }
            if let Some(pending) = manifest.pending.as_ref().filter(|pending| visible.as_ref() == Some(&pending.mark)) {
                // An earlier attempt ended between the file's rename and this.
                self.settle(pending.clone()).await?;
                let found = pending.effect.id == self.id && pending.effect.generation >= generation;
                if found {
                    return Ok(Some(pending.effect.counts));
                }
            }
        }
        let found = manifest.effect(&self.id, generation).map(|effect| effect.counts);
        if found.is_none() && generation > 0 && manifest.forgetful && self.write.mode == SinkMode::Append {
            return Err(self.subject.error(
                Code::SinkCleared,
                "this run wrote so long ago that its parts are no longer known",
                "remove its rows by hand, and request a new run",
            ));
        }
        Ok(found)
    }

    /// Turns a pending effect into a committed one.
    async fn settle(&self, pending: Pending) -> Result<()> {
        let settled = manifest::update(&self.location, &self.subject, |manifest| {
            if manifest.pending.as_ref().is_some_and(|known| known.mark == pending.mark) {
                manifest.pending = None;
                manifest.remember(pending.effect.clone());
                self.move_cursors(manifest, &pending.cursors);
            }
            manifest.columns.clone_from(&self.write.columns);
            Ok(Some(()))
        });
        settled.await.map(|_| ())
    }

    fn move_cursors(&self, manifest: &mut Manifest, cursors: &BTreeMap<String, String>) {
        for (name, value) in cursors {
            let data_type = self.write.cursors.iter().find(|commit| self.cursor_name(commit.source.as_str()) == *name);
            let moves = match (manifest.cursors.get(name), data_type) {
                (Some(known), Some(commit)) => cursor::compare(&commit.data_type, value, known) == Ordering::Greater,
                (Some(_) | None, _) => true,
            };
            if moves {
                manifest.cursors.insert(name.clone(), value.clone());
            }
        }
    }

    fn cursor_name(&self, source: &str) -> String {
        cursor::name(&self.context.pipeline, source)
    }

    fn cursors(&self, commit: &Commit) -> BTreeMap<String, String> {
        commit.cursors.iter().map(|(source, value)| (self.cursor_name(source.as_str()), value.clone())).collect()
    }

    fn check_rows(&self, rows: u64) -> Result<()> {
        if rows >= self.write.min_rows {
            return Ok(());
        }
        let message = format!("{rows} rows are fewer than min_rows, {}", self.write.min_rows);
        Err(self.subject.error(Code::SinkTooFewRows, message, "check the sources, or set the sink's `min_rows`"))
    }

    fn extension(&self) -> &'static str {
        match self.write.format {
            Some(FileFormat::Csv) => "csv",
            Some(FileFormat::Ndjson) => "ndjson",
            Some(FileFormat::Parquet) | None => "parquet",
        }
    }

    fn part_name(&self, partition: u32, part: usize) -> String {
        use dagwright_model::spec::Compression as C;
        let packed = match (self.write.format, self.write.write.compression) {
            (Some(FileFormat::Csv | FileFormat::Ndjson), Some(C::Gzip)) => ".gz",
            (Some(FileFormat::Csv | FileFormat::Ndjson), Some(C::Zstd)) => ".zst",
            _ => "",
        };
        format!("part-{}-{partition}-{part}.{}{packed}", self.hash, self.extension())
    }

    /// Names parts that have their final names in the manifest, with the effect and the cursors; another attempt may
    /// have been faster: then its counts count.
    async fn record(
        &self,
        parts: &[Part],
        counts: SinkCounts,
        cursors: &BTreeMap<String, String>,
    ) -> Result<SinkCounts> {
        let generation = self.context.run.generation;
        let there_before = self.unlisted().await?;
        let effect = Effect { id: self.id.clone(), generation, counts };
        let recorded = manifest::update(&self.location, &self.subject, |manifest| {
            if let Some(known) = manifest.effect(&self.id, generation) {
                return Ok(Some(known.counts));
            }
            match self.write.mode {
                SinkMode::Replace => manifest.parts.clear(),
                // Files that were there before the first manifest stay part of the folder.
                _ if manifest.effects.is_empty() && manifest.parts.is_empty() => {
                    let foreign = there_before.iter().filter(|part| !parts.iter().any(|new| new.file == part.file));
                    manifest.parts.extend(foreign.cloned());
                }
                _ => manifest.parts.retain(|part| part.effect.as_ref() != Some(&self.id)),
            }
            manifest.parts.extend_from_slice(parts);
            manifest.remember(effect.clone());
            self.move_cursors(manifest, cursors);
            manifest.columns.clone_from(&self.write.columns);
            Ok(Some(counts))
        });
        Ok(recorded.await?.unwrap_or(counts))
    }

    /// Lists data files of the folder itself that look like parts, named in the manifest or not.
    async fn unlisted(&self) -> Result<Vec<Part>> {
        let pattern = Location { path: format!("{}*", escaped(&self.location.path)), ..self.location.clone() };
        let files = match listing::list(&pattern, &self.subject).await {
            Ok(files) => files,
            Err(error) if error.code() == Code::SourceMissing => Vec::new(),
            Err(error) => return Err(error),
        };
        let ending = format!(".{}", self.extension());
        let name = |path: &str| path.strip_prefix(self.location.path.as_str()).map(ToOwned::to_owned);
        let is_data = |name: &str| name.trim_end_matches(".gz").trim_end_matches(".zst").ends_with(&ending);
        Ok(files
            .into_iter()
            .filter_map(|file| Some(Part { file: name(&file.path)?, effect: None, rows: None, bytes: file.size }))
            .filter(|part| is_data(&part.file) && !part.file.contains('/'))
            .collect())
    }

    /// Deletes what the manifest does not name: when replacing, every data file; else those of this effect.
    async fn sweep(&self) -> Result<()> {
        if !self.location.is_folder() {
            return Ok(());
        }
        let Some(manifest) = manifest::read(&self.location, &self.subject).await? else { return Ok(()) };
        // A later run may have replaced this one: what it wrote is none of this one's business.
        let is_latest = manifest.effects.last().is_some_and(|effect| effect.id == self.id);
        let named = manifest.files();
        let own = format!("part-{}-", self.hash);
        let all = self.unlisted().await?;
        let unnamed =
            all.iter().filter(|part| !named.contains(part.file.as_str())).filter(|part| match self.id.partition {
                Some(partition) => part.file.starts_with(&format!("{own}{partition}-")),
                None => {
                    part.file.starts_with(&own)
                        || (is_latest && self.write.mode == SinkMode::Replace)
                        || self.is_superseded(&part.file)
                }
            });
        let paths: Vec<String> = unnamed.map(|part| format!("{}{}", self.location.path, part.file)).collect();
        output::remove(&self.location, &paths, &self.subject).await
    }

    /// Tells whether a file is from an earlier generation of this effect.
    fn is_superseded(&self, file: &str) -> bool {
        (0..self.context.run.generation).rev().take(100).any(|generation| {
            file.starts_with(&format!("part-{}-", &canonical::hash(&(&self.id.key, generation))[..16]))
        })
    }

    /// Makes what partitions staged visible.
    pub(crate) async fn publish(self, partitions: u32) -> Result<SinkCounts> {
        if let Some(counts) = self.found().await? {
            self.sweep().await?;
            self.clear_staging(partitions).await?;
            return Ok(counts);
        }
        let (mut counts, mut cursors) = (SinkCounts::default(), BTreeMap::<String, String>::new());
        let mut parts = Vec::new();
        let mut moves = Vec::new();
        let write = canonical::hash(&self.write);
        let is_for_this = |staged: &Staged| match &staged.contract {
            Some(known) => known.write == write && known.partition.as_ref().is_none_or(|it| it.count == partitions),
            None => true,
        };
        for partition in 0..partitions {
            let staged = self.staged(partition).await?.filter(is_for_this);
            let staged =
                staged.ok_or_else(|| self.staging(format!("partition {partition} of {partitions} is not staged")))?;
            for part in staged.parts {
                moves.push(part.file.clone());
                let effect = Some(self.id.clone());
                parts.push(Part { file: part.file, effect, rows: Some(part.rows), bytes: part.bytes });
            }
            if parts.len() > STAGED_PARTS_MAX {
                return Err(self.staging(format!("more than {STAGED_PARTS_MAX} parts are staged")));
            }
            counts.produced += staged.counts.produced;
            counts.loaded += staged.counts.loaded;
            counts.quarantined += staged.counts.quarantined;
            counts.superseded += staged.counts.superseded;
            counts.nulled += staged.counts.nulled;
            counts.bytes += staged.counts.bytes;
            self.merge_cursors(&mut cursors, staged.cursors);
        }
        self.check_rows(counts.loaded)?;
        for file in &moves {
            self.reveal(file).await?;
        }
        let counts = self.record(&parts, counts, &cursors).await?;
        self.sweep().await?;
        self.clear_staging(partitions).await?;
        Ok(counts)
    }

    /// Gives a staged part its final name; an earlier attempt may have done so.
    async fn reveal(&self, file: &str) -> Result<()> {
        let from = format!("{}{file}.staged", self.staging_folder());
        let to = format!("{}{file}", self.location.path);
        if listing::look_up(&self.location, &from, &self.subject).await?.is_some() {
            return output::rename(&self.location, &from, &to, &self.subject).await;
        }
        if listing::look_up(&self.location, &to, &self.subject).await?.is_none() {
            return Err(self.staging(format!("the staged part {file} is gone")));
        }
        Ok(())
    }

    async fn clear_staging(&self, partitions: u32) -> Result<()> {
        let lists: Vec<String> = (0..partitions).map(|partition| self.staged_list(partition)).collect();
        output::remove(&self.location, &lists, &self.subject).await?;
        if matches!(self.location.store, super::location::Store::Local) {
            // Only when it is empty: temporary files of another attempt keep it.
            let _ = std::fs::remove_dir(self.staging_folder());
        }
        Ok(())
    }

    /// Partitions read different rows: the largest cursor counts.
    fn merge_cursors(&self, into: &mut BTreeMap<String, String>, more: BTreeMap<String, String>) {
        let mut largest = Manifest { cursors: std::mem::take(into), ..Manifest::default() };
        self.move_cursors(&mut largest, &more);
        *into = largest.cursors;
    }
}

/// Refuses stores that cannot be written.
fn writable(location: &Location, subject: &Subject) -> Result<()> {
    if matches!(location.store, super::location::Store::Object { lists: false, .. }) {
        return Err(subject.error(
            Code::TaskSpecInvalid,
            "a web server cannot be written",
            "write to a path, s3, gs or az",
        ));
    }
    if location.is_pattern() {
        let hint = "name one file, or a folder ending in `/`";
        return Err(subject.error(Code::SpecBadUri, format!("{} is a pattern", location.written), hint));
    }
    Ok(())
}

fn escaped(path: &str) -> String {
    glob::Pattern::escape(path)
}

// === impl FileWriter ===

impl FileWriter {
    async fn encoder(&mut self) -> Result<&mut Encoder> {
        if self.current.is_none() {
            let target = &self.target;
            let partition = target.partition();
            let path = if target.is_staged() {
                format!("{}{}.staged", target.staging_folder(), target.part_name(partition, self.next_part))
            } else if target.location.is_folder() {
                format!("{}{}", target.location.path, target.part_name(partition, self.next_part))
            } else {
                target.location.path.clone()
            };
            let tag = format!("{}{}", target.tag(partition), self.next_part);
            let tally = target.context.tally.clone();
            let output = Output::create(&target.location, &path, &tag, &target.hash, tally, &target.subject).await?;
            self.next_part += 1;
            self.current = Some(Encoder::new(&target.write, &target.schema, output, &target.subject)?);
        }
        self.current.as_mut().ok_or_else(|| Subject::sink("sink").internal("a file did not begin"))
    }

    async fn end_part(&mut self) -> Result<()> {
        let Some(encoder) = self.current.take() else { return Ok(()) };
        let rows = std::mem::take(&mut self.current_rows);
        let output = encoder.finish().await?;
        let finished = tokio::task::spawn_blocking(move || output.finish());
        let finished = finished.await.map_err(|_| self.target.subject.internal("a writer ended early"))??;
        self.parts.push((finished, rows));
        Ok(())
    }

    fn counts(&self, commit: &Commit) -> SinkCounts {
        SinkCounts {
            produced: self.rows + commit.quarantined + commit.superseded,
            loaded: self.rows,
            quarantined: commit.quarantined,
            superseded: commit.superseded,
            nulled: commit.nulled,
            bytes: self.parts.iter().map(|(finished, _)| finished.bytes).sum(),
        }
    }

    fn cancelled(&self) -> Result<()> {
        if self.target.context.cancel.is_cancelled() {
            return Err(self.target.subject.error(Code::Cancelled, "cancelled while writing", "start it again"));
        }
        Ok(())
    }

    async fn commit_file(mut self, commit: &Commit) -> Result<SinkCounts> {
        let counts = self.counts(commit);
        let target = self.target;
        let Some((finished, _)) = self.parts.pop() else { return Err(target.subject.internal("no file was written")) };
        let effect = Effect { id: target.id.clone(), generation: target.context.run.generation, counts };
        let mark = finished.mark(&target.hash)?;
        let pending = Pending { effect, cursors: target.cursors(commit), mark };
        let announced = manifest::update(&target.location, &target.subject, |manifest| {
            manifest.pending = Some(pending.clone());
            Ok(Some(()))
        });
        if let Err(error) = announced.await {
            finished.abort().await;
            return Err(error);
        }
        finished.publish().await?;
        target.settle(pending).await?;
        Ok(counts)
    }

    /// Gives the parts their final names, or their staged ones.
    async fn reveal(&mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for (finished, rows) in self.parts.drain(..) {
            let file = finished.path.rsplit_once('/').map_or(finished.path.as_str(), |(_, name)| name).to_owned();
            let effect = Some(self.target.id.clone());
            parts.push(Part { file, effect, rows: Some(rows), bytes: finished.bytes });
            finished.publish().await?;
        }
        Ok(parts)
    }

    async fn commit_folder(mut self, commit: &Commit) -> Result<SinkCounts> {
        let counts = self.counts(commit);
        let parts = self.reveal().await?;
        let cursors = self.target.cursors(commit);
        let counts = self.target.record(&parts, counts, &cursors).await?;
        self.target.sweep().await?;
        Ok(counts)
    }

    async fn commit_staged(mut self, commit: &Commit) -> Result<SinkCounts> {
        let counts = self.counts(commit);
        let parts = self.reveal().await?;
        let plain = |file: String| file.strip_suffix(".staged").map(ToOwned::to_owned).unwrap_or(file);
        let parts = parts.into_iter().map(|part| StagedPart {
            file: plain(part.file),
            rows: part.rows.unwrap_or(0),
            bytes: part.bytes,
        });
        let contract = Some(self.target.staged_for());
        let staged = Staged { contract, parts: parts.collect(), counts, cursors: self.target.cursors(commit) };
        let path = self.target.staged_list(self.target.partition());
        let location = &self.target.location;
        let text = canonical::to_pretty(&staged);
        match &location.store {
            super::location::Store::Local => {
                // The next attempt removes what a killed one left, as it does with parts.
                let tag = format!("{}list-{}", self.target.tag(self.target.partition()), std::process::id());
                manifest::put_local(&path, text.as_bytes(), &tag)
                    .map_err(|error| self.target.subject.io(&location.display(&path), error))?;
            }
            super::location::Store::Object { client, .. } => {
                use object_store::ObjectStoreExt;
                let put = client.put(&listing::key(&path, &self.target.subject)?, text.into()).await;
                put.map_err(|error| self.target.subject.object(&location.display(&path), error))?;
            }
        }
        Ok(counts)
    }
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.cancelled()?;
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        self.encoder().await?.write(batch).await?;
        self.rows += rows;
        self.current_rows += rows;
        self.target.context.tally.written.fetch_add(rows, Relaxed);
        let full = self.current.as_ref().is_some_and(|encoder| encoder.bytes() >= PART_BYTES_MAX);
        if full && self.target.location.is_folder() {
            self.end_part().await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>, commit: Commit) -> Result<SinkCounts> {
        let ready = async {
            self.cancelled()?;
            if !self.target.is_staged() && self.target.id.partition.is_none() {
                self.target.check_rows(self.rows)?;
            }
            if self.parts.is_empty() {
                // Even without rows there is a file: it has the schema.
                self.encoder().await?;
            }
            self.end_part().await
        };
        if let Err(error) = ready.await {
            self.abort().await;
            return Err(error);
        }
        if self.target.is_staged() {
            self.commit_staged(&commit).await
        } else if self.target.location.is_folder() {
            self.commit_folder(&commit).await
        } else {
            self.commit_file(&commit).await
        }
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(encoder) = self.current.take() {
            encoder.abort().await;
        }
        for (finished, _) in self.parts.drain(..) {
            finished.abort().await;
        }
    }
}

/// Returns a committed cursor.
pub(crate) async fn committed_cursor(location: &Location, name: &str, subject: &Subject) -> Result<Option<String>> {
    let Some(manifest) = manifest::read(location, subject).await? else { return Ok(None) };
    if !location.is_folder() {
        let visible = output::mark_of(location, &location.path, subject).await?;
        // Who deletes the file wants its rows read again.
        let Some(visible) = visible else { return Ok(None) };
        let pending = manifest.pending.as_ref().filter(|pending| pending.mark == visible);
        if let Some(value) = pending.and_then(|pending| pending.cursors.get(name)) {
            return Ok(Some(value.clone()));
        }
    }
    Ok(manifest.cursors.get(name).cloned())
}
