//! A server, a schema for each test, and short ways to say what a task would be given.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
};
use dagwright_dataplane::{
    connectors::{
        Begin, Commit, Environment, ReadContext, Sink, Source, WriteContext,
        postgres::{PostgresSink, PostgresSource},
    },
    error::{Error, Result},
    tally::{Reject, Rejects, SinkTally, SourceTally},
    types::arrow_schema,
};
use dagwright_model::{
    id::{Name, PlanHash},
    schema::Column,
    spec::{Locator, LossyCast, OnMissing, Ragged, SinkMode, TableName, WriteOptions},
    task::{Partition, RunContext, SchemaEdit, SinkCounts, SinkWrite, SourceRead, WriteStrategy},
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

/// The connection every test uses.
pub(crate) const CONNECTION: &str = "warehouse";

/// A schema of its own on the server.
pub(crate) struct Db {
    pub(crate) schema: String,
    pub(crate) client: Client,
    pub(crate) environment: Arc<Environment>,
}

/// The server's URL; the server ends with this process.
pub(crate) fn server() -> &'static str {
    static SERVER: OnceLock<String> = OnceLock::new();
    SERVER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/postgres.sh");
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("dagwright-postgres-{pid}"));
        let output = Command::new(&script).arg("start").arg(&dir).arg(pid.to_string()).output();
        let output = output.unwrap_or_else(|error| panic!("could not run {}: {error}", script.display()));
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/scripts/postgres.sh could not start a server: {says}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// Returns the environment in which the connection is this URL.
pub(crate) fn environment(url: &str) -> Arc<Environment> {
    let connections = BTreeMap::from([(name(CONNECTION), url.to_owned())]);
    Arc::new(Environment { connections, mask_key: Some(b"key".to_vec()) })
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Db {
    /// Makes an empty schema.
    pub(crate) async fn new(schema: &str) -> Self {
        let url = server();
        let client = connect(url).await;
        let quoted = schema.replace('"', "\"\"");
        client.batch_execute(&format!("CREATE SCHEMA \"{quoted}\"; SET search_path = \"{quoted}\"")).await.unwrap();
        Self { schema: schema.into(), client, environment: environment(url) }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Returns one value as text.
    pub(crate) async fn one(&self, sql: &str) -> Option<String> {
        let row = self.client.query_one(&format!("SELECT ({sql})::text"), &[]).await;
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    /// Counts the rows of a table.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.one(&format!("SELECT count(*) FROM {table}")).await.unwrap().parse().unwrap()
    }

    pub(crate) fn locator(&self, table: &str) -> Locator {
        let table = TableName { schema: Some(self.schema.clone()), table: table.into() };
        Locator::Table { connection: name(CONNECTION), table }
    }

    /// A direct write of these columns (`id int64, note string`).
    pub(crate) fn write(&self, table: &str, mode: SinkMode, columns: &[Column]) -> SinkWrite {
        SinkWrite {
            name: name("sink"),
            relation: name("rows"),
            locator: self.locator(table),
            format: None,
            write: WriteOptions::default(),
            mode,
            strategy: if mode == SinkMode::Upsert { WriteStrategy::StagingTable } else { WriteStrategy::Direct },
            columns: columns.to_vec(),
            lossy: LossyCast::Reject,
            key: if mode == SinkMode::Upsert { vec!["id".into()] } else { Vec::new() },
            dedupe: Vec::new(),
            min_rows: 0,
            meta_columns: true,
            changes: vec![SchemaEdit::CreateTable],
            cursors: Vec::new(),
        }
    }

    /// A full read of these columns.
    pub(crate) fn read(&self, locator: Locator, columns: &[Column]) -> SourceRead {
        SourceRead {
            locator,
            format: None,
            text: None,
            null_values: Vec::new(),
            ragged: Ragged::Fail,
            columns: columns.to_vec(),
            positions: Vec::new(),
            masks: BTreeMap::new(),
            classified: Vec::new(),
            filters: Vec::new(),
            incremental: None,
            on_missing: OnMissing::Fail,
            lossy: LossyCast::Reject,
            partitioned: false,
        }
    }

    pub(crate) fn write_context(&self, run: RunContext) -> WriteContext {
        WriteContext {
            pipeline: "tests.pipeline".into(),
            run: Arc::new(run),
            environment: self.environment.clone(),
            sealed: Arc::default(),
            tally: SinkTally::shared(),
            cancel: CancellationToken::new(),
        }
    }

    /// Writes rows as one task would; a repeat returns its counts.
    pub(crate) async fn load(&self, write: &SinkWrite, run: RunContext, rows: &[RecordBatch]) -> Result<SinkCounts> {
        self.load_with(write, run, rows, Commit::default()).await
    }

    pub(crate) async fn load_with(
        &self,
        write: &SinkWrite,
        run: RunContext,
        rows: &[RecordBatch],
        commit: Commit,
    ) -> Result<SinkCounts> {
        match PostgresSink::new().begin(write, &self.write_context(run)).await? {
            Begin::Repeated(counts) => Ok(counts),
            Begin::Write(mut writer) => {
                for batch in rows {
                    if let Err(error) = writer.write(batch.clone()).await {
                        writer.abort().await;
                        return Err(error);
                    }
                }
                writer.commit(commit).await
            }
        }
    }

    /// Reads everything into one batch.
    pub(crate) async fn fetch(&self, read: &SourceRead, run: RunContext) -> Result<Fetched> {
        let (rejects, mut rejected) = Rejects::channel();
        let tally = SourceTally::shared();
        let context = ReadContext {
            name: name("source"),
            run: Arc::new(run),
            environment: self.environment.clone(),
            sealed: Arc::default(),
            after_cursor: None,
            streams: 1,
            batch_rows: 1000,
            tally: tally.clone(),
            rejects,
            cancel: CancellationToken::new(),
        };
        self.fetch_with(read, context, &mut rejected).await
    }

    pub(crate) async fn fetch_with(
        &self,
        read: &SourceRead,
        context: ReadContext,
        rejected: &mut mpsc::Receiver<Reject>,
    ) -> Result<Fetched> {
        let tally = context.tally.clone();
        let (schema, streams) = PostgresSource::new().open(read, &context).await?;
        let mut batches = Vec::new();
        for mut stream in streams {
            while let Some(batch) = stream.next().await {
                batches.push(batch?);
            }
        }
        drop(context);
        let mut rejects = Vec::new();
        while let Ok(reject) = rejected.try_recv() {
            rejects.push(reject);
        }
        let rows = concat_batches(&schema, &batches).unwrap();
        Ok(Fetched { rows, counts: tally.counts(), rejects })
    }
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) rows: RecordBatch,
    pub(crate) counts: dagwright_model::task::SourceCounts,
    pub(crate) rejects: Vec<Reject>,
}

/// A run; the effect key is this and the sink's name.
pub(crate) fn run(effect: &str) -> RunContext {
    RunContext {
        effect: effect.into(),
        generation: 0,
        plan_hash: PlanHash("0".repeat(64)),
        attempt: 1,
        base: None,
        staging: String::new(),
        quarantine: String::new(),
        interval: None,
        params: BTreeMap::new(),
        partition: None,
        backfill: false,
        keep_staged: false,
    }
}

pub(crate) fn partition_run(effect: &str, partition: Partition) -> RunContext {
    RunContext { partition: Some(partition), ..run(effect) }
}

/// Columns from `name type` texts; all nullable.
pub(crate) fn columns(texts: &[(&str, &str)]) -> Vec<Column> {
    let column = |(name, data_type): &(&str, &str)| Column {
        name: (*name).into(),
        data_type: data_type.parse().unwrap(),
        nullable: true,
    };
    texts.iter().map(column).collect()
}

/// The columns most tests use.
pub(crate) fn id_note() -> Vec<Column> {
    columns(&[("id", "int64"), ("note", "string")])
}

/// Rows of [`id_note`].
pub(crate) fn rows(values: &[(i64, &str)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|(id, _)| *id)));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(values.iter().map(|(_, note)| *note)));
    RecordBatch::try_new(arrow_schema(&id_note()), vec![ids, notes]).unwrap()
}

/// Many rows of [`id_note`].
pub(crate) fn many_rows(from: i64, count: i64) -> RecordBatch {
    let values: Vec<(i64, String)> = (from..from + count).map(|id| (id, format!("note {id}"))).collect();
    rows(&values.iter().map(|(id, note)| (*id, note.as_str())).collect::<Vec<_>>())
}

/// Asserts that an error has a code, and that its text holds none of these values.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>, code: &str, values: &[&str]) -> Error {
    let error = result.err().expect("an error");
    let text = format!("{error} {} {error:?}", error.problem.hint);
    assert_eq!(error.code().to_string(), code, "{text}");
    for value in values {
        assert!(!text.contains(value), "{value:?} stands in {text}");
    }
    error
}
