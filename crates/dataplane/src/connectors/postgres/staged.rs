//! Partitions: each writes a staging table of its own, and one publish makes all of them visible.
//!
//! A partition's staging table is named by effect key and index, and listed in `_dagwright_staged` in the transaction
//! that filled it. Staging tables are unlogged: a crash of the server empties them, so publishing counts what it moves
//! and refuses to make half a run visible.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    id::Name,
    spec::SinkMode,
    task::{CursorCommit, Partition, SinkCounts, SinkWrite},
};

use super::{
    catalog::Relation,
    connect::Session,
    ddl,
    effects::{Books, Effect, comparable, json},
    encode::{Encoder, Target},
    fault::Subject,
    pipe::Pipe,
    sql::{PREFIX, Table, quoted},
    types::type_sql,
    write::{BEGIN, Superseding, Writing, copy_sql, open, send},
};
use crate::{
    connectors::{Begin, Commit, SinkWriter, WriteContext},
    error::{Error, Result},
};

/// Writes one partition.
struct PartitionWriter {
    writing: Writing,
    partition: Partition,
    staging: Table,
    targets: Vec<Target>,
    pipe: Option<Pipe>,
}

/// A partition that waits.
struct Waiting {
    index: i32,
    staging: String,
    counts: SinkCounts,
    cursors: BTreeMap<Name, String>,
}

/// Begins to stage one partition of an effect.
pub(crate) async fn begin(write: &SinkWrite, partition: &Partition, context: &WriteContext) -> Result<Begin> {
    let (session, home) = open(write, context).await?;
    let (books, effect) = (Books::of(&home.schema), Effect::of(write, context));
    let writing = Writing { session, books, effect, write: write.clone(), context: context.clone() };
    let staging = home.beside(writing.effect.staging(Some(partition.index)));
    let prepared = prepare(&writing, &home, partition, &staging);
    match writing.session.unless_cancelled(&context.cancel, prepared).await? {
        Err(counts) => Ok(Begin::Repeated(counts)),
        Ok(targets) => Ok(Begin::Write(Box::new(PartitionWriter {
            writing,
            partition: partition.clone(),
            staging,
            targets,
            pipe: None,
        }))),
    }
}

/// Publishes the staged partitions of an effect.
pub(crate) async fn publish(write: &SinkWrite, partitions: u32, context: &WriteContext) -> Result<SinkCounts> {
    let (session, home) = open(write, context).await?;
    let (books, effect) = (Books::of(&home.schema), Effect::of(write, context));
    let writing = Writing { session, books, effect, write: write.clone(), context: context.clone() };
    let moved = writing.session.unless_cancelled(&context.cancel, move_all(&writing, &home, partitions)).await;
    match moved {
        Ok(Err(counts)) => Ok(counts),
        Ok(Ok(counts)) => {
            // From here on a cancellation comes too late: the outcome must be known.
            writing.session.run("commit", "COMMIT").await?;
            Ok(counts)
        }
        Err(error) => {
            writing.roll_back().await;
            Err(error)
        }
    }
}

/// Removes what a run staged, in every schema where it may have.
pub(crate) async fn cleanup(connection: &Name, context: &WriteContext) -> Result<()> {
    let subject = Subject::sink(connection.as_str());
    let session = Session::open(&context.environment, &context.sealed, connection, subject).await?;
    let doing = "remove staged tables";
    const HOMES: &str = "SELECT n.nspname::text FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = $1 AND c.relkind = 'r' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
          AND pg_catalog.has_table_privilege(c.oid, 'SELECT, DELETE') ORDER BY 1";
    let homes = session.client.query(HOMES, &[&format!("{PREFIX}staged")]).await;
    for home in homes.map_err(|error| session.fault(doing, error))? {
        let books = Books::of(home.get(0));
        session.run(doing, BEGIN).await?;
        let sql =
            format!("DELETE FROM {} WHERE pg_catalog.starts_with(effect, $1) RETURNING staging", books.staged.sql());
        let gone = session.client.query(&sql, &[&format!("{}/", context.run.effect)]).await;
        for row in gone.map_err(|error| session.fault(doing, error))? {
            drop_staging(&session, &books.staged.beside(row.get::<_, String>(0))).await?;
        }
        session.run(doing, "COMMIT").await?;
    }
    Ok(())
}

/// Drops a staging table; only what has the name of one, whatever the list says.
async fn drop_staging(session: &Session, table: &Table) -> Result<()> {
    if !table.name.starts_with(&format!("{PREFIX}stg_")) {
        return Ok(());
    }
    session.run("drop a staging table", &format!("DROP TABLE IF EXISTS {}", table.sql())).await
}

/// Starts the transaction of a partition; the inner error holds the counts of one that was published already.
async fn prepare(
    writing: &Writing,
    home: &Table,
    partition: &Partition,
    staging: &Table,
) -> Result<Result<Vec<Target>, SinkCounts>> {
    let Writing { session, books, effect, write, .. } = writing;
    books.ensure(session).await?;
    session.run("start the transaction", BEGIN).await?;
    let (index, count) = (index(partition.index), index(partition.count));
    if books.done(session, effect).await?.is_some() {
        let sql = format!("SELECT counts::text FROM {} WHERE effect = $1 AND partition = $2", books.staged.sql());
        let known = session.client.query_opt(&sql, &[&effect.key, &index]).await;
        let known = known.map_err(|error| session.fault("look up the partition", error))?;
        let counts = known.and_then(|row| serde_json::from_str(row.get(0)).ok()).unwrap_or_default();
        session.run("end the transaction", "ROLLBACK").await?;
        return Ok(Err(counts));
    }
    // Whoever stages the same partition waits here for the first one's end, and then writes it anew.
    let sql = format!(
        "INSERT INTO {} (effect, partition, partitions, generation, staging, counts, cursors)
         VALUES ($1, $2, $3, $4, $5, '{{}}', '{{}}') ON CONFLICT (effect, partition) DO UPDATE
         SET partitions = EXCLUDED.partitions, generation = EXCLUDED.generation, staging = EXCLUDED.staging",
        books.staged.sql()
    );
    let listed = session.client.execute(&sql, &[&effect.key, &index, &count, &effect.generation, &staging.name]).await;
    listed.map_err(|error| session.fault("list the partition", error))?;
    create(session, write, home, staging).await?;
    // The table's own types say how values travel.
    let relation = Relation::find_exactly(session, staging).await?;
    let relation = relation.ok_or_else(|| lost(session, "a staging table vanished"))?;
    let columns = relation.columns(session).await?;
    let target = |name: &String, column: &super::catalog::PgColumn| Target {
        name: name.clone(),
        wire: column.native.wire.clone(),
    };
    Ok(Ok(write.columns.iter().zip(&columns).map(|(written, column)| target(&written.name, column)).collect()))
}

/// Creates a partition's staging table. The table itself may not exist yet, or have other types until the publish
/// changes it: a column that fits already lends its type, else the plan's type is taken.
async fn create(session: &Session, write: &SinkWrite, home: &Table, staging: &Table) -> Result<()> {
    let known = match Relation::find_exactly(session, home).await? {
        Some(relation) => relation.columns(session).await?,
        None => Vec::new(),
    };
    let mut parts: Vec<String> = Vec::new();
    for column in &write.columns {
        let found = known.iter().find(|found| found.name == column.name);
        let fitting = found.filter(|found| super::types::fits(&column.data_type, &found.native));
        let travels = match fitting {
            Some(found) => found.native.cast.map_or_else(|| found.type_sql.clone(), Into::into),
            None => type_sql(&column.data_type),
        };
        // A NULL in a key would never conflict, and come again with every repeat.
        let not_null = if write.key.contains(&column.name) { " NOT NULL" } else { "" };
        parts.push(format!("{} {travels}{not_null}", quoted(&column.name)));
    }
    if ddl::marks_rows(write) {
        parts.push(format!("{} uuid", quoted(&ddl::run_id_column())));
    }
    drop_staging(session, staging).await?;
    let sql = format!("CREATE UNLOGGED TABLE {} ({})", staging.sql(), parts.join(", "));
    session.run("create a staging table", &sql).await
}

async fn move_all(writing: &Writing, home: &Table, partitions: u32) -> Result<Result<SinkCounts, SinkCounts>> {
    let Writing { session, books, effect, write, context } = writing;
    let ready = match writing.claim(home).await? {
        Ok(ready) => ready,
        Err(counts) => return Ok(Err(counts)),
    };
    let waiting = waiting(session, books, effect, partitions).await?;
    if write.mode == SinkMode::Replace && !ready.created {
        writing.clear(&ready.relation).await?;
    }
    let mut counts = SinkCounts::default();
    for part in &waiting {
        add(&mut counts, &part.counts);
    }
    if write.mode == SinkMode::Upsert && !waiting.is_empty() {
        // Rows of different partitions may share a key: all of them meet in one statement.
        let moved =
            writing.insert_from(&ready, &union(writing, home, &waiting).await?, &Superseding::of(write)).await?;
        counts.superseded += counts.loaded.saturating_sub(moved);
        counts.loaded = moved;
    } else {
        for part in &waiting {
            let from = home.beside(part.staging.clone()).sql();
            let moved = writing.insert_from(&ready, &from, &Superseding::default()).await?;
            check_moved(session, moved, part.counts.loaded)?;
        }
    }
    for part in &waiting {
        drop_staging(session, &home.beside(part.staging.clone())).await?;
    }
    let cursors = furthest(session, write, &waiting).await?;
    books.complete(session, effect, counts, &cursors).await?;
    books.move_cursors(session, write, context, &cursors).await?;
    Ok(Ok(counts))
}

/// Returns the partitions that wait, when they are all there.
async fn waiting(session: &Session, books: &Books, effect: &Effect, partitions: u32) -> Result<Vec<Waiting>> {
    let sql = format!(
        "SELECT partition, staging, counts::text, cursors::text FROM {}
         WHERE effect = $1 AND generation = $2 AND partitions = $3 ORDER BY partition FOR UPDATE",
        books.staged.sql()
    );
    let rows = session.client.query(&sql, &[&effect.key, &effect.generation, &index(partitions)]).await;
    let rows = rows.map_err(|error| session.fault("look up the staged partitions", error))?;
    let waiting: Vec<Waiting> = rows
        .iter()
        .map(|row| Waiting {
            index: row.get(0),
            staging: row.get(1),
            counts: serde_json::from_str(row.get(2)).unwrap_or_default(),
            cursors: serde_json::from_str(row.get(3)).unwrap_or_default(),
        })
        .collect();
    let complete = waiting.len() == partitions as usize && (0..).zip(&waiting).all(|(at, part)| part.index == at);
    if !complete {
        return Err(lost(session, format!("{} of {partitions} partitions are staged", waiting.len())));
    }
    Ok(waiting)
}

/// Returns all staged rows as they stand after `FROM`, after it made sure that they are what was staged.
async fn union(writing: &Writing, home: &Table, waiting: &[Waiting]) -> Result<String> {
    let session = &writing.session;
    let columns = writing.columns_sql();
    let mut selects = Vec::new();
    for part in waiting {
        let table = home.beside(part.staging.clone()).sql();
        let counted = session.client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await;
        let counted: i64 = counted.map_err(|error| session.fault("count the staged rows", error))?.get(0);
        check_moved(session, counted.unsigned_abs(), part.counts.loaded)?;
        selects.push(format!("SELECT {columns} FROM {table}"));
    }
    Ok(format!("({}) AS staged", selects.join(" UNION ALL ")))
}

fn check_moved(session: &Session, moved: u64, staged: u64) -> Result<()> {
    if moved == staged {
        return Ok(());
    }
    Err(lost(session, format!("{moved} of {staged} staged rows of a partition are left")))
}

fn lost(session: &Session, message: impl Into<String>) -> Error {
    let hint = "clear the tasks that stage the partitions, so that they run again";
    session.subject.error(Code::StagingUnavailable, message, hint)
}

/// Returns the furthest cursor of each source among the partitions, compared by the database.
async fn furthest(session: &Session, write: &SinkWrite, waiting: &[Waiting]) -> Result<BTreeMap<Name, String>> {
    let mut cursors = BTreeMap::new();
    for CursorCommit { source, data_type, .. } in &write.cursors {
        let values: Vec<&String> = waiting.iter().filter_map(|part| part.cursors.get(source)).collect();
        let sql = format!(
            "SELECT value FROM pg_catalog.unnest($1::text[]) value ORDER BY value::{} DESC LIMIT 1",
            comparable(data_type)
        );
        let found = session.client.query_opt(&sql, &[&values]).await;
        if let Some(row) = found.map_err(|error| session.fault("compare the cursors", error))? {
            cursors.insert(source.clone(), row.get(0));
        }
    }
    Ok(cursors)
}

fn add(sum: &mut SinkCounts, more: &SinkCounts) {
    sum.produced += more.produced;
    sum.loaded += more.loaded;
    sum.quarantined += more.quarantined;
    sum.superseded += more.superseded;
    sum.nulled += more.nulled;
    sum.bytes += more.bytes;
}

/// Partitions are bounded far below this.
fn index(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

// === impl PartitionWriter ===

impl PartitionWriter {
    async fn start(&self) -> Result<Pipe> {
        let Self { writing, staging, targets, .. } = self;
        let sql = copy_sql(staging, &writing.columns_sql(), true);
        let run_id = ddl::marks_rows(&writing.write).then_some(writing.effect.run_id);
        let encoder = Encoder::new(targets.clone(), run_id);
        Pipe::open(&writing.session, &sql, encoder, writing.context.tally.clone()).await
    }

    async fn list(&mut self, commit: &Commit) -> Result<SinkCounts> {
        let Self { writing, partition, pipe, .. } = self;
        let session = &writing.session;
        let copied = match pipe.take() {
            Some(pipe) => pipe.finish(&session.subject).await?,
            None => 0,
        };
        let counts = SinkCounts {
            produced: copied + commit.quarantined + commit.superseded,
            loaded: copied,
            quarantined: commit.quarantined,
            superseded: commit.superseded,
            nulled: commit.nulled,
            bytes: writing.context.tally.bytes.load(Relaxed),
        };
        let sql = format!(
            "UPDATE {} SET counts = $3::text::jsonb, cursors = $4::text::jsonb, staged_at = pg_catalog.now()
             WHERE effect = $1 AND partition = $2",
            writing.books.staged.sql()
        );
        let parameters = (&writing.effect.key, index(partition.index), json(&counts), json(&commit.cursors));
        let (key, index, counts_text, cursors) = &parameters;
        let listed = session.client.execute(&sql, &[key, index, counts_text, cursors]).await;
        listed.map_err(|error| session.fault("list the partition", error))?;
        Ok(counts)
    }
}

#[async_trait]
impl SinkWriter for PartitionWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        if self.pipe.is_none() {
            let cancel = self.writing.context.cancel.clone();
            let pipe = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(self.writing.session.subject.cancelled()),
                started = self.start() => started?,
            };
            self.pipe = Some(pipe);
        }
        send(&mut self.pipe, batch, &self.writing).await?;
        self.writing.context.tally.written.fetch_add(rows, Relaxed);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, commit: Commit) -> Result<SinkCounts> {
        let cancel = self.writing.context.cancel.clone();
        let listed = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(self.writing.session.subject.cancelled()),
            listed = self.list(&commit) => listed,
        };
        match listed {
            Ok(counts) => {
                self.writing.session.run("commit", "COMMIT").await?;
                Ok(counts)
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn abort(self: Box<Self>) {
        let Self { writing, pipe, .. } = *self;
        if let Some(pipe) = pipe {
            pipe.abort().await;
        }
        writing.roll_back().await;
    }
}
