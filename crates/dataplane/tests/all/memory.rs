//! Connectors over memory, for tests: sources are batches by name, sinks keep what was committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{AsArray, BooleanArray, Int64Array, RecordBatch, StringArray},
    compute::{concat_batches, filter_record_batch},
    datatypes::{Int64Type, SchemaRef},
};
use async_trait::async_trait;
use dagwright_dataplane::{
    connectors::{BatchStream, Begin, Commit, Environment, ReadContext, Sink, SinkWriter, Source, WriteContext},
    error::{Error, Result},
    events::Events,
    run::{Connectors, Host, run},
    types::arrow_schema,
};
use dagwright_model::{
    code::Code,
    facts::{SinkInspection, SourceProfile},
    id::{Name, PlanHash, TaskId},
    schema::Column,
    spec::{self, FileFormat, Locator, LossyCast, OnMissing, QualityGate, Ragged, SinkMode, Step, WriteOptions},
    task::{
        Input, Move, Outcome, Output, Partition, RunContext, SinkCounts, SinkRef, SinkWrite, SourceRead, Split,
        TASK_VERSION, TaskEvent, TaskRun, TaskSpec, Work, WriteStrategy,
    },
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// Everything that tests put in and look at.
#[derive(Default)]
pub(crate) struct World {
    /// The batches of sources, by URI; each inner list is one stream.
    pub(crate) sources: Mutex<BTreeMap<String, Vec<Vec<RecordBatch>>>>,
    /// How often each source was opened, and after which cursor.
    pub(crate) opened: Mutex<Vec<(String, Option<String>)>>,
    /// What sinks committed, by effect key.
    pub(crate) committed: Mutex<BTreeMap<String, (Vec<RecordBatch>, SinkCounts)>>,
    /// Cursors by (sink, source).
    pub(crate) cursors: Mutex<BTreeMap<(Name, Name), String>>,
    /// How many writers were given up.
    pub(crate) aborted: Mutex<usize>,
    /// What was said.
    pub(crate) events: Mutex<Vec<TaskEvent>>,
}

struct Shared(Arc<World>);

struct Writer {
    world: Arc<World>,
    write: SinkWrite,
    context: WriteContext,
    batches: Vec<RecordBatch>,
}

/// A world, a folder, and the move to run in them.
pub(crate) struct Bench {
    pub(crate) world: Arc<World>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) task: TaskRun,
    pub(crate) cancel: CancellationToken,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `id int64, who string` unless the type is given: `id:int32?` (a question mark for nullable).
pub(crate) fn columns(text: &str) -> Vec<Column> {
    text.split_whitespace()
        .map(|word| {
            let (name, data_type) = word.split_once(':').unwrap();
            let nullable = data_type.ends_with('?');
            let data_type = data_type.trim_end_matches('?').parse().unwrap();
            Column { name: name.into(), data_type, nullable }
        })
        .collect()
}

/// A batch of `id` and `who`.
pub(crate) fn people(rows: &[(Option<i64>, Option<&str>)]) -> RecordBatch {
    let ids: Int64Array = rows.iter().map(|(id, _)| *id).collect();
    let who: StringArray = rows.iter().map(|(_, who)| *who).collect();
    RecordBatch::try_new(arrow_schema(&columns("id:int64? who:string?")), vec![Arc::new(ids), Arc::new(who)]).unwrap()
}

/// The rows whose cursor is larger, or has no value.
fn beyond(batch: &RecordBatch, cursor: &str, after: i64) -> RecordBatch {
    let cursors = batch.column_by_name(cursor).unwrap().as_primitive::<Int64Type>();
    let new: BooleanArray = cursors.iter().map(|cursor| Some(cursor.is_none_or(|cursor| cursor > after))).collect();
    filter_record_batch(batch, &new).unwrap()
}

// === impl Bench ===

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let run = RunContext {
            effect: "request-1".into(),
            generation: 0,
            plan_hash: PlanHash("0".repeat(64)),
            attempt: 1,
            base: None,
            staging: path("staging"),
            quarantine: path("quarantine"),
            interval: None,
            params: BTreeMap::new(),
            partition: None,
            backfill: false,
            keep_staged: false,
        };
        let work = Move {
            inputs: BTreeMap::new(),
            steps: Vec::new(),
            binds: BTreeMap::new(),
            gates: Vec::new(),
            max_rejected: "1%".parse().unwrap(),
            outputs: Vec::new(),
        };
        let task = TaskSpec {
            version: TASK_VERSION,
            pipeline: "test".into(),
            id: TaskId("load".into()),
            work: Work::Move(work),
            connections: BTreeMap::new(),
            memory_max: "64MiB".parse().unwrap(),
        };
        Self { world: Arc::default(), folder, task: TaskRun { task, run }, cancel: CancellationToken::new() }
    }

    pub(crate) fn work(&mut self) -> &mut Move {
        match &mut self.task.task.work {
            Work::Move(work) => work,
            other => panic!("not a move: {other:?}"),
        }
    }

    /// Adds a source of streams of batches.
    pub(crate) fn source(&mut self, source: &str, has: &str, streams: Vec<Vec<RecordBatch>>) -> &mut SourceRead {
        self.world.sources.lock().unwrap().insert(source.into(), streams);
        let read = SourceRead {
            locator: Locator::Uri(source.into()),
            format: None,
            text: None,
            null_values: Vec::new(),
            ragged: Ragged::Fail,
            columns: columns(has),
            positions: Vec::new(),
            masks: BTreeMap::new(),
            classified: Vec::new(),
            filters: Vec::new(),
            incremental: None,
            on_missing: OnMissing::Fail,
            lossy: LossyCast::Reject,
            partitioned: false,
        };
        self.work().inputs.insert(name(source), Input::Source(read));
        match self.work().inputs.get_mut(source) {
            Some(Input::Source(read)) => read,
            other => panic!("not a source: {other:?}"),
        }
    }

    pub(crate) fn step(&mut self, step: &str, sql: &str) {
        self.work().steps.push(Step { name: name(step), sql: sql.into() });
    }

    pub(crate) fn gate(&mut self, gate: QualityGate) {
        self.work().gates.push(gate);
    }

    /// Adds a sink that takes a relation's columns.
    pub(crate) fn sink(&mut self, sink: &str, relation: &str, takes: &str) -> &mut SinkWrite {
        let write = SinkWrite {
            name: name(sink),
            relation: name(relation),
            locator: Locator::Uri(sink.into()),
            format: Some(FileFormat::Parquet),
            write: WriteOptions::default(),
            mode: SinkMode::Append,
            strategy: WriteStrategy::Direct,
            columns: columns(takes),
            lossy: LossyCast::Reject,
            key: Vec::new(),
            dedupe: Vec::new(),
            min_rows: 1,
            meta_columns: false,
            changes: Vec::new(),
            cursors: Vec::new(),
        };
        self.work().outputs.push(Output::Sink(write));
        match self.work().outputs.last_mut() {
            Some(Output::Sink(write)) => write,
            other => panic!("not a sink: {other:?}"),
        }
    }

    pub(crate) async fn run(&self) -> Outcome {
        let world = self.world.clone();
        let host = Host {
            environment: Arc::default(),
            connectors: Arc::new(Shared(self.world.clone())),
            events: Events::new(move |event| world.events.lock().unwrap().push(event.clone())),
            cancel: self.cancel.clone(),
            cores: 2,
        };
        run(self.task.clone(), host).await
    }

    /// Runs, and fails the test when the task did.
    #[track_caller]
    pub(crate) fn done(&self) -> Outcome {
        let outcome = block_on(self.run());
        assert_eq!(outcome.problem, None, "the task failed");
        outcome
    }

    /// Runs, and returns the code it failed with.
    #[track_caller]
    pub(crate) fn code(&self) -> Code {
        let outcome = block_on(self.run());
        outcome.problem.expect("the task should fail").code
    }

    /// What a sink committed, as one batch.
    pub(crate) fn loaded(&self, sink: &str) -> RecordBatch {
        let committed = self.world.committed.lock().unwrap();
        let (batches, _) = &committed[&self.task.run.effect_key(&name(sink))];
        match batches.first() {
            Some(first) => concat_batches(&first.schema(), batches).unwrap(),
            None => RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())),
        }
    }

    pub(crate) fn is_committed(&self) -> bool {
        !self.world.committed.lock().unwrap().is_empty()
    }

    /// The quarantined rows: relation, reason, values.
    pub(crate) fn quarantined(&self) -> Vec<(String, String, String)> {
        let path = self.folder.path().join("quarantine/test/request-1/load.parquet");
        if !path.exists() {
            return Vec::new();
        }
        let file = std::fs::File::open(path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let mut rows = Vec::new();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let text = |column: &str, row: usize| {
                let column = batch.column_by_name(column).unwrap();
                column.as_any().downcast_ref::<StringArray>().unwrap().value(row).to_owned()
            };
            rows.extend(
                (0..batch.num_rows()).map(|row| (text("relation", row), text("reason", row), text("values", row))),
            );
        }
        rows.sort();
        rows
    }

    /// Every file below the staging area.
    pub(crate) fn staged_files(&self) -> BTreeSet<String> {
        fn walk(folder: &std::path::Path, root: &std::path::Path, files: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, files);
                } else {
                    files.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        let mut files = BTreeSet::new();
        let root = self.folder.path().join("staging");
        walk(&root, &root, &mut files);
        files
    }
}

#[track_caller]
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

// === impl Shared ===

impl Connectors for Shared {
    fn source(&self, _: &Locator, _: &Environment) -> Result<Box<dyn Source>> {
        Ok(Box::new(Shared(self.0.clone())))
    }

    fn sink(&self, _: &Locator, _: &Environment) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Shared(self.0.clone())))
    }

    fn sink_of(&self, _: &Name, _: &Environment) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Shared(self.0.clone())))
    }
}

#[async_trait]
impl Source for Shared {
    async fn open(&self, read: &SourceRead, context: &ReadContext) -> Result<(SchemaRef, Vec<BatchStream>)> {
        let uri = read.locator.to_string();
        self.0.opened.lock().unwrap().push((uri.clone(), context.after_cursor.clone()));
        let streams = self.0.sources.lock().unwrap().get(&uri).cloned().unwrap_or_default();
        let cursor = read.incremental.as_ref().map(|incremental| incremental.incremental.cursor.clone());
        let after: Option<i64> = context.after_cursor.as_ref().map(|after| after.parse().unwrap());
        let streams = streams.into_iter().map(|batches| {
            let (tally, cursor) = (context.tally.clone(), cursor.clone());
            futures::stream::iter(batches)
                .map(move |batch| match (&cursor, after) {
                    (Some(cursor), Some(after)) => beyond(&batch, cursor, after),
                    _ => batch,
                })
                .map(move |batch| {
                    tally.read.fetch_add(batch.num_rows() as u64, Relaxed);
                    tally.passed.fetch_add(batch.num_rows() as u64, Relaxed);
                    Ok(batch)
                })
                .boxed()
        });
        Ok((arrow_schema(&read.columns), streams.collect()))
    }

    async fn split(&self, _: &Split, _: &ReadContext) -> Result<Vec<Partition>> {
        Ok(Vec::new())
    }

    async fn profile(
        &self,
        name: &Name,
        _: &spec::Source,
        _: &[Vec<String>],
        _: &RunContext,
        _: &Environment,
    ) -> Result<SourceProfile> {
        Err(Error::new(Code::SpecNotYet, name.as_str(), "memory has no profile", "none"))
    }
}

#[async_trait]
impl Sink for Shared {
    async fn inspect(
        &self,
        name: &Name,
        _: &Locator,
        _: Option<FileFormat>,
        _: SinkMode,
        _: &RunContext,
        _: &Environment,
    ) -> Result<SinkInspection> {
        Err(Error::new(Code::SpecNotYet, name.as_str(), "memory has no inspection", "none"))
    }

    async fn begin(&self, write: &SinkWrite, context: &WriteContext) -> Result<Begin> {
        let key = context.run.effect_key(&write.name);
        if let Some((_, counts)) = self.0.committed.lock().unwrap().get(&key) {
            return Ok(Begin::Repeated(*counts));
        }
        let (write, context) = (write.clone(), context.clone());
        Ok(Begin::Write(Box::new(Writer { world: self.0.clone(), write, context, batches: Vec::new() })))
    }

    async fn publish(&self, write: &SinkWrite, _: u32, _: &WriteContext) -> Result<SinkCounts> {
        Err(Error::new(Code::SpecNotYet, write.name.as_str(), "memory has no partitions", "none"))
    }

    async fn committed_cursor(
        &self,
        sink: &SinkRef,
        _: &str,
        source: &Name,
        _: &WriteContext,
    ) -> Result<Option<String>> {
        Ok(self.0.cursors.lock().unwrap().get(&(sink.name.clone(), source.clone())).cloned())
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        assert_eq!(batch.schema(), arrow_schema(&self.write.columns), "a sink gets exactly its columns");
        self.context.tally.written.fetch_add(batch.num_rows() as u64, Relaxed);
        self.batches.push(batch);
        Ok(())
    }

    async fn commit(self: Box<Self>, commit: Commit) -> Result<SinkCounts> {
        let loaded = self.batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        let counts = SinkCounts {
            produced: loaded + commit.quarantined + commit.superseded,
            loaded,
            quarantined: commit.quarantined,
            superseded: commit.superseded,
            nulled: commit.nulled,
            bytes: 0,
        };
        let mut cursors = self.world.cursors.lock().unwrap();
        for (source, cursor) in commit.cursors {
            cursors.insert((self.write.name.clone(), source), cursor);
        }
        let key = self.context.run.effect_key(&self.write.name);
        self.world.committed.lock().unwrap().insert(key, (self.batches, counts));
        Ok(counts)
    }

    async fn abort(self: Box<Self>) {
        *self.world.aborted.lock().unwrap() += 1;
    }
}
