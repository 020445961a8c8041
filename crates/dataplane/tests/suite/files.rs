//! The conformance suite of file stores: every promise of a file source and sink, over any store.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::RecordBatch, compute::concat_batches, util::pretty::pretty_format_batches};
use dagwright_dataplane::{
    connectors::{
        Begin, Commit, Environment, ReadContext, Sink, Source, WriteContext,
        files::{FileSink, FileSource},
    },
    error::Result,
    tally::{Reject, Rejects, SinkTally, SourceTally},
    types::arrow_schema,
};
use dagwright_model::{
    code::Code,
    facts::{SourceProfile, TextCompression, TextProfile},
    id::{Name, PlanHash},
    schema::Column,
    spec::{
        self, Compression, CsvOptions, Encoding, FileFormat, Locator, LossyCast, OnMissing, Ragged, SinkMode,
        WriteOptions,
    },
    task::{
        CursorCommit, Partition, PartitionRange, RunContext, SinkCounts, SinkRef, SinkWrite, SourceCounts, SourceRead,
        Split, SplitBy, WriteStrategy,
    },
};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

/// What a read gave.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) batch: RecordBatch,
    pub(crate) counts: SourceCounts,
    pub(crate) rejects: Vec<Reject>,
}

/// A place to test in: a folder of any store, ending in `/`.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) root: String,
    pub(crate) base: Option<String>,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn columns(text: &[(&str, &str)]) -> Vec<Column> {
    text.iter()
        .map(|(name, data_type)| Column { name: (*name).into(), data_type: data_type.parse().unwrap(), nullable: true })
        .collect()
}

pub(crate) fn run(base: Option<String>) -> RunContext {
    RunContext {
        effect: "request-1".into(),
        generation: 0,
        plan_hash: PlanHash("0".repeat(64)),
        attempt: 1,
        base,
        staging: "/nowhere".into(),
        quarantine: "/nowhere".into(),
        interval: None,
        params: BTreeMap::new(),
        partition: None,
        backfill: false,
        keep_staged: false,
    }
}

pub(crate) fn text_profile() -> TextProfile {
    TextProfile {
        encoding: Encoding::Utf8,
        compression: TextCompression::None,
        delimiter: Some(','),
        quote: Some('"'),
        escape: None,
        header: true,
        ragged: 0,
    }
}

pub(crate) fn source_read(uri: &str, format: FileFormat, columns: Vec<Column>) -> SourceRead {
    SourceRead {
        locator: Locator::Uri(uri.into()),
        format: Some(format),
        text: (format != FileFormat::Parquet).then(text_profile),
        null_values: Vec::new(),
        ragged: Ragged::Fail,
        positions: columns.iter().map(|column| column.name.clone()).collect(),
        columns,
        masks: BTreeMap::new(),
        classified: Vec::new(),
        filters: Vec::new(),
        incremental: None,
        on_missing: OnMissing::Fail,
        lossy: LossyCast::Reject,
        partitioned: false,
    }
}

pub(crate) fn sink_write(uri: &str, format: FileFormat, columns: Vec<Column>) -> SinkWrite {
    SinkWrite {
        name: name("out"),
        relation: name("rows"),
        locator: Locator::Uri(uri.into()),
        format: Some(format),
        write: WriteOptions::default(),
        mode: SinkMode::Replace,
        strategy: WriteStrategy::Direct,
        columns,
        lossy: LossyCast::Reject,
        key: Vec::new(),
        dedupe: Vec::new(),
        min_rows: 0,
        meta_columns: false,
        changes: Vec::new(),
        cursors: Vec::new(),
    }
}

pub(crate) fn read_context(run: RunContext, streams: usize) -> (ReadContext, tokio::sync::mpsc::Receiver<Reject>) {
    let (rejects, received) = Rejects::channel();
    let context = ReadContext {
        name: name("rows"),
        run: Arc::new(run),
        environment: Arc::new(Environment { mask_key: Some(b"key".to_vec()), ..Environment::default() }),
        sealed: Arc::default(),
        after_cursor: None,
        streams,
        batch_rows: 1000,
        tally: SourceTally::shared(),
        rejects,
        cancel: CancellationToken::new(),
    };
    (context, received)
}

pub(crate) fn write_context(run: RunContext) -> WriteContext {
    WriteContext {
        pipeline: "pipeline".into(),
        run: Arc::new(run),
        environment: Arc::default(),
        sealed: Arc::default(),
        tally: SinkTally::shared(),
        cancel: CancellationToken::new(),
    }
}

pub(crate) async fn read_with(
    read: &SourceRead,
    context: ReadContext,
    mut received: tokio::sync::mpsc::Receiver<Reject>,
) -> Result<Found> {
    let tally = context.tally.clone();
    let (schema, streams) = FileSource::new().open(read, &context).await?;
    drop(context);
    let collecting = tokio::spawn(async move {
        let mut rejects = Vec::new();
        while let Some(reject) = received.recv().await {
            rejects.push(reject);
        }
        rejects
    });
    let tasks: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(stream.try_collect::<Vec<_>>())).collect();
    let mut batches = Vec::new();
    for task in tasks {
        batches.extend(task.await.unwrap()?);
    }
    for batch in &batches {
        assert_eq!(batch.schema(), schema);
    }
    let rejects = collecting.await.unwrap();
    let batch = concat_batches(&schema, &batches).unwrap();
    let counts = tally.counts();
    assert_eq!(counts.read, counts.passed + counts.quarantined);
    assert_eq!(counts.passed, batch.num_rows() as u64);
    assert_eq!(counts.quarantined, rejects.len() as u64);
    Ok(Found { batch, counts, rejects })
}

pub(crate) async fn read(place: &Place, read: &SourceRead) -> Result<Found> {
    let (context, received) = read_context(run(place.base.clone()), 1);
    read_with(read, context, received).await
}

pub(crate) async fn begin(write: &SinkWrite, run: RunContext) -> Result<Begin> {
    FileSink::new().begin(write, &write_context(run)).await
}

pub(crate) async fn write(write: &SinkWrite, run: RunContext, batches: &[RecordBatch]) -> Result<SinkCounts> {
    write_with(write, run, batches, Commit::default()).await
}

pub(crate) async fn write_with(
    write: &SinkWrite,
    run: RunContext,
    batches: &[RecordBatch],
    commit: Commit,
) -> Result<SinkCounts> {
    match begin(write, run).await? {
        Begin::Repeated(counts) => Ok(counts),
        Begin::Write(mut writer) => {
            for batch in batches {
                writer.write(batch.clone()).await?;
            }
            writer.commit(commit).await
        }
    }
}

pub(crate) fn ids(from: i64, to: i64) -> RecordBatch {
    let columns = columns(&[("id", "int64"), ("text", "string")]);
    let ids: Vec<i64> = (from..to).collect();
    let texts: Vec<Option<String>> = ids.iter().map(|id| (id % 3 != 0).then(|| format!("text \"{id}\",\n"))).collect();
    let (ids, texts) = (arrow::array::Int64Array::from(ids), arrow::array::StringArray::from(texts));
    RecordBatch::try_new(arrow_schema(&columns), vec![Arc::new(ids), Arc::new(texts)]).unwrap()
}

pub(crate) fn id_columns() -> Vec<Column> {
    columns(&[("id", "int64"), ("text", "string")])
}

/// The ids in a batch, sorted.
pub(crate) fn ids_in(batch: &RecordBatch) -> Vec<i64> {
    let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0));
    let mut ids: Vec<i64> = ids.values().to_vec();
    ids.sort_unstable();
    ids
}

#[track_caller]
pub(crate) fn assert_same(found: &RecordBatch, wanted: &RecordBatch) {
    let show = |batch: &RecordBatch| pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
    assert!(found == wanted, "found:\n{}\nwanted:\n{}", show(found), show(wanted));
}

#[track_caller]
pub(crate) fn code_of<T>(result: Result<T>) -> Code {
    result.map(|_| ()).expect_err("it must fail").code()
}

fn effect(place: &Place, effect: &str) -> RunContext {
    RunContext { effect: effect.into(), ..run(place.base.clone()) }
}

const FORMATS: [(FileFormat, &[Compression]); 3] = [
    (FileFormat::Parquet, &[Compression::Zstd, Compression::Snappy, Compression::None]),
    (FileFormat::Csv, &[Compression::None, Compression::Gzip, Compression::Zstd]),
    (FileFormat::Ndjson, &[Compression::None, Compression::Gzip, Compression::Zstd]),
];

/// Runs the suite.
pub(crate) async fn conformance(place: Place) {
    round_trips(&place).await;
    appends_and_repeats(&place).await;
    replaces(&place).await;
    replaces_a_file(&place).await;
    clears(&place).await;
    stages_and_publishes(&place).await;
    aborts(&place).await;
    commits_cursors(&place).await;
    refuses_too_few_rows(&place).await;
    splits(&place).await;
    misses(&place).await;
    inspects(&place).await;
    profiles(&place).await;
}

async fn round_trips(place: &Place) {
    for (format, compressions) in FORMATS {
        for compression in compressions {
            for ending in ["single", "folder/"] {
                let uri = format!("{}round/{format:?}/{compression:?}/{ending}", place.root);
                let mut sink = sink_write(&uri, format, id_columns());
                sink.write.compression = Some(*compression);
                let batch = ids(0, 2500);
                let pieces = [batch.slice(0, 1000), batch.slice(1000, 0), batch.slice(1000, 1500)];
                let counts = write(&sink, effect(place, "a"), &pieces).await.unwrap();
                assert_eq!((counts.produced, counts.loaded), (2500, 2500), "{uri}");
                assert!(counts.bytes > 0, "{uri}");
                let found = read(place, &source_read(&uri, format, id_columns())).await.unwrap();
                assert_same(&found.batch, &batch);
                assert!(found.counts.bytes > 0, "{uri}");
            }
        }
    }
}

async fn appends_and_repeats(place: &Place) {
    let uri = format!("{}append/", place.root);
    let sink = SinkWrite { mode: SinkMode::Append, ..sink_write(&uri, FileFormat::Parquet, id_columns()) };
    let source = source_read(&uri, FileFormat::Parquet, id_columns());
    let first = write(&sink, effect(place, "a"), &[ids(0, 10)]).await.unwrap();
    write(&sink, effect(place, "b"), &[ids(10, 20)]).await.unwrap();
    // Repeated, with other rows, as after a source changed: no second effect.
    assert_eq!(write(&sink, effect(place, "a"), &[ids(0, 99)]).await.unwrap(), first);
    assert!(matches!(begin(&sink, effect(place, "b")).await.unwrap(), Begin::Repeated(_)));
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), (0..20).collect::<Vec<_>>());
    let glob = source_read(&format!("{uri}*.parquet"), FileFormat::Parquet, id_columns());
    assert_eq!(read(place, &glob).await.unwrap().batch.num_rows(), 20);
}

async fn replaces(place: &Place) {
    let uri = format!("{}replace/", place.root);
    let sink = sink_write(&uri, FileFormat::Csv, id_columns());
    write(&sink, effect(place, "a"), &[ids(0, 10)]).await.unwrap();
    let begun = begin(&sink, effect(place, "b")).await.unwrap();
    let Begin::Write(mut writer) = begun else { panic!("nothing is there yet") };
    writer.write(ids(5, 8)).await.unwrap();
    let source = source_read(&uri, FileFormat::Csv, id_columns());
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), (0..10).collect::<Vec<_>>());
    writer.commit(Commit::default()).await.unwrap();
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), [5, 6, 7]);
    let glob = source_read(&format!("{uri}*.csv"), FileFormat::Csv, id_columns());
    assert_eq!(ids_in(&read(place, &glob).await.unwrap().batch), [5, 6, 7], "old parts are deleted");
    write(&sink, effect(place, "c"), &[]).await.unwrap();
    assert_eq!(read(place, &source).await.unwrap().batch.num_rows(), 0);
}

async fn replaces_a_file(place: &Place) {
    let uri = format!("{}file.ndjson", place.root);
    let sink = sink_write(&uri, FileFormat::Ndjson, id_columns());
    let source = source_read(&uri, FileFormat::Ndjson, id_columns());
    let first = write(&sink, effect(place, "a"), &[ids(0, 10)]).await.unwrap();
    assert_eq!(write(&sink, effect(place, "a"), &[ids(0, 3)]).await.unwrap(), first);
    write(&sink, effect(place, "b"), &[ids(3, 6)]).await.unwrap();
    assert!(matches!(begin(&sink, effect(place, "a")).await.unwrap(), Begin::Repeated(counts) if counts == first));
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), [3, 4, 5]);
    let glob = source_read(&format!("{}*.ndjson", place.root), FileFormat::Ndjson, id_columns());
    assert_eq!(read(place, &glob).await.unwrap().batch.num_rows(), 3, "nothing else has the ending");
}

async fn clears(place: &Place) {
    let uri = format!("{}clear/", place.root);
    let sink = SinkWrite { mode: SinkMode::Append, ..sink_write(&uri, FileFormat::Parquet, id_columns()) };
    write(&sink, effect(place, "a"), &[ids(0, 10)]).await.unwrap();
    write(&sink, effect(place, "b"), &[ids(10, 20)]).await.unwrap();
    let again = RunContext { generation: 1, ..effect(place, "a") };
    write(&sink, again.clone(), &[ids(100, 103)]).await.unwrap();
    assert!(matches!(begin(&sink, again).await.unwrap(), Begin::Repeated(_)));
    let wanted: Vec<i64> = (10..20).chain(100..103).collect();
    for uri in [uri.clone(), format!("{uri}*.parquet")] {
        let found = read(place, &source_read(&uri, FileFormat::Parquet, id_columns())).await.unwrap();
        assert_eq!(ids_in(&found.batch), wanted, "{uri}");
    }
}

async fn stages_and_publishes(place: &Place) {
    let uri = format!("{}staged/", place.root);
    let mut sink = sink_write(&uri, FileFormat::Parquet, id_columns());
    sink.cursors =
        vec![CursorCommit { source: name("rows"), column: "id".into(), data_type: "int64".parse().unwrap() }];
    write(&sink, effect(place, "old"), &[ids(0, 5)]).await.unwrap();
    sink.strategy = WriteStrategy::PartitionStaging;
    sink.min_rows = 25;
    let partition = |index: u32| RunContext {
        partition: Some(Partition { index, count: 3, range: PartitionRange::Files(Vec::new()) }),
        ..effect(place, "new")
    };
    let cursor = |value: &str| Commit { cursors: BTreeMap::from([(name("rows"), value.into())]), ..Commit::default() };
    write_with(&sink, partition(0), &[ids(100, 110)], cursor("9")).await.unwrap();
    write_with(&sink, partition(2), &[ids(120, 130)], cursor("10")).await.unwrap();
    let context = write_context(effect(place, "new"));
    let publish = || async { FileSink::new().publish(&sink, 3, &context).await };
    assert_eq!(code_of(publish().await), Code::StagingUnavailable);
    let staged = write_with(&sink, partition(1), &[ids(110, 120)], cursor("8")).await.unwrap();
    assert!(matches!(begin(&sink, partition(1)).await.unwrap(), Begin::Repeated(counts) if counts == staged));
    // Another plan of the same request cuts otherwise: what was staged before is no part of that.
    let cut = |count| RunContext {
        partition: Some(Partition { index: 0, count, range: PartitionRange::Files(Vec::new()) }),
        ..effect(place, "cut")
    };
    write_with(&sink, cut(2), &[ids(0, 30)], cursor("1")).await.unwrap();
    assert!(matches!(begin(&sink, cut(2)).await.unwrap(), Begin::Repeated(_)));
    assert!(matches!(begin(&sink, cut(1)).await.unwrap(), Begin::Write(_)));
    let context_of_cut = write_context(effect(place, "cut"));
    assert_eq!(code_of(FileSink::new().publish(&sink, 1, &context_of_cut).await), Code::StagingUnavailable);
    let source = source_read(&uri, FileFormat::Parquet, id_columns());
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), [0, 1, 2, 3, 4]);
    let everything = source_read(&format!("{uri}**/*.parquet"), FileFormat::Parquet, id_columns());
    assert_eq!(read(place, &everything).await.unwrap().batch.num_rows(), 5, "nothing staged is visible");
    let counts = publish().await.unwrap();
    assert_eq!(counts.loaded, 30);
    assert_eq!(publish().await.unwrap(), counts);
    assert_eq!(ids_in(&read(place, &source).await.unwrap().batch), (100..130).collect::<Vec<_>>());
    assert_eq!(read(place, &everything).await.unwrap().batch.num_rows(), 30);
    let reference = SinkRef { name: sink.name.clone(), locator: sink.locator.clone() };
    let committed = FileSink::new().committed_cursor(&reference, "pipeline", &name("rows"), &context).await.unwrap();
    assert_eq!(committed.as_deref(), Some("10"), "the largest, as a number");
}

async fn aborts(place: &Place) {
    for uri in [format!("{}aborted/", place.root), format!("{}aborted.parquet", place.root)] {
        let sink = sink_write(&uri, FileFormat::Parquet, id_columns());
        let Begin::Write(mut writer) = begin(&sink, effect(place, "a")).await.unwrap() else {
            panic!("nothing is there")
        };
        writer.write(ids(0, 1000)).await.unwrap();
        writer.abort().await;
        let source = source_read(&format!("{}*aborted*", place.root), FileFormat::Parquet, id_columns());
        assert_eq!(code_of(read(place, &source).await), Code::SourceMissing, "{uri}");
    }
}

async fn commits_cursors(place: &Place) {
    for uri in [format!("{}cursor/", place.root), format!("{}cursor.csv", place.root)] {
        let mut sink = sink_write(&uri, FileFormat::Csv, id_columns());
        sink.cursors =
            vec![CursorCommit { source: name("rows"), column: "id".into(), data_type: "int64".parse().unwrap() }];
        let reference = SinkRef { name: sink.name.clone(), locator: sink.locator.clone() };
        let context = write_context(effect(place, "a"));
        let committed = || async {
            FileSink::new().committed_cursor(&reference, "pipeline", &name("rows"), &context).await.unwrap()
        };
        assert_eq!(committed().await, None, "{uri}");
        for (effect_name, value, wanted) in [("a", "9", "9"), ("b", "10", "10"), ("c", "7", "10"), ("a", "99", "10")] {
            let commit = Commit { cursors: BTreeMap::from([(name("rows"), value.into())]), ..Commit::default() };
            write_with(&sink, effect(place, effect_name), &[ids(0, 1)], commit).await.unwrap();
            assert_eq!(committed().await.as_deref(), Some(wanted), "{uri}");
        }
    }
}

async fn refuses_too_few_rows(place: &Place) {
    for uri in [format!("{}few/", place.root), format!("{}few.parquet", place.root)] {
        let sink = SinkWrite { min_rows: 2, ..sink_write(&uri, FileFormat::Parquet, id_columns()) };
        assert_eq!(code_of(write(&sink, effect(place, "a"), &[ids(0, 1)]).await), Code::SinkTooFewRows);
        let source = source_read(&uri, FileFormat::Parquet, id_columns());
        assert_eq!(code_of(read(place, &source).await), Code::SourceMissing, "{uri}");
        write(&sink, effect(place, "a"), &[ids(0, 2)]).await.unwrap();
        assert_eq!(read(place, &source).await.unwrap().batch.num_rows(), 2);
    }
}

async fn splits(place: &Place) {
    for part in 0..5 {
        let uri = format!("{}split/{part}.csv", place.root);
        let sink = sink_write(&uri, FileFormat::Csv, id_columns());
        write(&sink, effect(place, "a"), &[ids(part * 100, part * 100 + 10 * (part + 1))]).await.unwrap();
    }
    let mut source = source_read(&format!("{}split/[0-9].csv", place.root), FileFormat::Csv, id_columns());
    let split = Split { source: name("rows"), read: source.clone(), by: SplitBy::Files, partitions_max: 3 };
    let (context, _) = read_context(run(place.base.clone()), 1);
    let partitions = FileSource::new().split(&split, &context).await.unwrap();
    assert_eq!(partitions.len(), 3);
    source.partitioned = true;
    let mut found = Vec::new();
    for partition in partitions {
        let (context, received) = read_context(RunContext { partition: Some(partition), ..run(place.base.clone()) }, 2);
        found.extend(ids_in(&read_with(&source, context, received).await.unwrap().batch));
    }
    found.sort_unstable();
    source.partitioned = false;
    assert_eq!(found, ids_in(&read(place, &source).await.unwrap().batch));
    assert_eq!(found.len(), 150);
}

async fn misses(place: &Place) {
    for uri in ["nothing.csv", "nothing/", "nothing/*.csv"] {
        let mut source = source_read(&format!("{}{uri}", place.root), FileFormat::Csv, id_columns());
        assert_eq!(code_of(read(place, &source).await), Code::SourceMissing, "{uri}");
        source.on_missing = OnMissing::Skip;
        assert_eq!(read(place, &source).await.unwrap().batch.num_rows(), 0, "{uri}");
        let profile = profile(place, &format!("{}{uri}", place.root), &[]).await.unwrap();
        assert!(!profile.exists, "{uri}");
    }
}

async fn inspects(place: &Place) {
    let inspect = |uri: String, format| {
        let run = run(place.base.clone());
        async move {
            let sink = FileSink::new();
            let locator = Locator::Uri(uri);
            sink.inspect(&name("out"), &locator, Some(format), SinkMode::Replace, &run, &Environment::default())
                .await
                .unwrap()
        }
    };
    let fresh = inspect(format!("{}fresh/", place.root), FileFormat::Parquet).await;
    assert!(!fresh.exists && fresh.columns.is_empty());
    assert!(fresh.privileges.create && fresh.privileges.insert);
    for uri in ["inspected/", "inspected.parquet"] {
        let uri = format!("{}{uri}", place.root);
        write(&sink_write(&uri, FileFormat::Parquet, id_columns()), effect(place, "a"), &[ids(0, 7)]).await.unwrap();
        let found = inspect(uri.clone(), FileFormat::Parquet).await;
        assert!(found.exists, "{uri}");
        assert_eq!(found.rows, Some(7), "{uri}");
        assert_eq!(found.columns.into_iter().map(|column| column.column).collect::<Vec<_>>(), id_columns(), "{uri}");
    }
}

pub(crate) async fn profile(place: &Place, uri: &str, keys: &[Vec<String>]) -> Result<SourceProfile> {
    let source = spec::Source {
        locator: Locator::Uri(uri.into()),
        format: None,
        csv: CsvOptions::default(),
        incremental: None,
        columns: BTreeMap::new(),
        on_missing: OnMissing::Fail,
    };
    profile_of(place, &source, keys).await
}

pub(crate) async fn profile_of(place: &Place, source: &spec::Source, keys: &[Vec<String>]) -> Result<SourceProfile> {
    FileSource::new().profile(&name("rows"), source, keys, &run(place.base.clone()), &Environment::default()).await
}

async fn profiles(place: &Place) {
    for (format, ending) in [(FileFormat::Parquet, "parquet"), (FileFormat::Csv, "csv"), (FileFormat::Ndjson, "ndjson")]
    {
        let uri = format!("{}profiled.{ending}", place.root);
        write(&sink_write(&uri, format, id_columns()), effect(place, "a"), &[ids(0, 300)]).await.unwrap();
        let keys = [vec!["id".to_owned()], vec!["text".to_owned()]];
        let found = profile(place, &uri, &keys).await.unwrap();
        assert_eq!(found.format, Some(format));
        assert_eq!((found.rows.value, found.rows.exact, found.rows_sampled), (300, true, 300), "{uri}");
        assert_eq!(found.candidate_keys, [["id"]], "{uri}");
        assert_eq!(found.key_checks[0].duplicates.value, 0, "{uri}");
        assert_eq!((found.key_checks[1].duplicates.value, found.key_checks[1].nulls), (0, 100), "{uri}");
        assert_eq!(found.columns[0].distinct, Some(300), "{uri}");
        assert_eq!(
            (found.columns[0].min.as_deref(), found.columns[0].max.as_deref()),
            (Some("0"), Some("299")),
            "{uri}"
        );
        assert_eq!(found.columns[1].nulls, 100, "{uri}");
        assert_eq!(found.watermarks[0].column, "id", "{uri}");
        assert_eq!(profile(place, &uri, &keys).await.unwrap(), found, "{uri}");
    }
}
