//! Writes a sink's rows in one transaction, together with its effect.
//!
//! | mode | direct | over a staging table |
//! |---|---|---|
//! | append | `COPY` into the table | `COPY`, then `INSERT … SELECT` |
//! | replace | empty the table, `COPY` into it | the same, then `INSERT … SELECT` |
//! | upsert | – | `COPY`, then `INSERT … ON CONFLICT DO UPDATE` |
//!
//! A staging table of this path is made in the same transaction: whatever ends it, nothing is left behind.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use dagwright_model::{
    code::Code,
    spec::SinkMode,
    task::{SinkCounts, SinkWrite, WriteStrategy},
};

use super::{
    catalog::{Relation, schema_of},
    connect::{Session, table_of},
    ddl::{self, Ready},
    effects::{Books, Claim, Effect, cleared},
    encode::Encoder,
    fault::Subject,
    pipe::Pipe,
    sql::{Table, quoted, quoted_list},
};
use crate::{
    connectors::{Begin, Commit, SinkWriter, WriteContext},
    error::{Error, Result},
};

/// How long a rollback may take before the connection is simply closed.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How every writing transaction starts: a statement after a wait must see what was waited for.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A write under way: its connection, in a transaction.
pub(crate) struct Writing {
    pub session: Session,
    pub books: Books,
    pub effect: Effect,
    pub write: SinkWrite,
    pub context: WriteContext,
}

/// Writes to a table.
struct TableWriter {
    writing: Writing,
    ready: Ready,
    /// Where `COPY` goes when not into the table itself.
    staging: Option<Table>,
    /// Whether old rows must go before the first new one.
    must_clear: bool,
    pipe: Option<Pipe>,
}

/// Opens a connection for a write, and finds the table's home.
pub(crate) async fn open(write: &SinkWrite, context: &WriteContext) -> Result<(Session, Table)> {
    let subject = Subject::sink(write.name.as_str());
    let (connection, table) = table_of(&write.locator, &subject)?;
    let opened = Session::open(&context.environment, &context.sealed, connection, subject.clone());
    let session = tokio::select! {
        biased;
        () = context.cancel.cancelled() => return Err(subject.cancelled()),
        opened = opened => opened?,
    };
    // The search path decides only where no schema is named, and a table that exists comes before one to create.
    let home = match Relation::find(&session, table).await? {
        Some(found) => found.table,
        None => match schema_of(&session, table).await? {
            Some(schema) => Table::new(schema, table.table.clone()),
            None => {
                let message = format!("there is no schema for table {table}");
                return Err(subject.error(Code::SinkDrifted, message, "create the schema, or correct its name"));
            }
        },
    };
    Ok((session, home))
}

/// Begins to write a whole effect.
pub(crate) async fn begin(write: &SinkWrite, context: &WriteContext) -> Result<Begin> {
    let (session, home) = open(write, context).await?;
    let (books, effect) = (Books::of(&home.schema), Effect::of(write, context));
    let writing = Writing { session, books, effect, write: write.clone(), context: context.clone() };
    let claimed = writing.session.unless_cancelled(&context.cancel, writing.claim(&home)).await?;
    let ready = match claimed {
        Ok(ready) => ready,
        Err(counts) => return Ok(Begin::Repeated(counts)),
    };
    let staged = write.strategy != WriteStrategy::Direct
        || write.mode == SinkMode::Upsert
        || ready.casts.iter().any(Option::is_some);
    let staging = match staged {
        true => {
            let table = home.beside(writing.effect.staging(None));
            create_staging(&writing.session, write, &ready, &table, true).await?;
            Some(table)
        }
        false => None,
    };
    let must_clear = write.mode == SinkMode::Replace && !ready.created;
    Ok(Begin::Write(Box::new(TableWriter { writing, ready, staging, must_clear, pipe: None })))
}

// === impl Writing ===

impl Writing {
    /// Starts the transaction, claims the effect and readies the table; the inner error holds the counts of a repeat.
    pub(crate) async fn claim(&self, home: &Table) -> Result<Result<Ready, SinkCounts>> {
        let Self { session, books, effect, write, .. } = self;
        books.ensure(session).await?;
        session.run("start the transaction", BEGIN).await?;
        let marked = ddl::marks_rows(write);
        let older = match books.claim(session, effect, home, marked).await? {
            Claim::Done(counts) => {
                session.run("end the transaction", "ROLLBACK").await?;
                return Ok(Err(counts));
            }
            Claim::New => None,
            Claim::Older { marked, loaded } => Some((marked, loaded)),
        };
        let (_, name) = table_of(&write.locator, &session.subject)?;
        let ready = ddl::prepare(session, write, name, home).await?;
        if let Some((marked, loaded)) = older
            && write.mode == SinkMode::Append
            && loaded > 0
        {
            if !marked || !ddl::marks_rows(write) {
                return Err(cleared(session));
            }
            let (table, column) = (ready.relation.table.sql(), quoted(&ddl::run_id_column()));
            let sql = format!("DELETE FROM {table} WHERE {column} = $1::text::uuid");
            let deleted = session.client.execute(&sql, &[&effect.run_id_text()]).await;
            deleted.map_err(|error| session.fault("remove what the run wrote before", error))?;
        }
        Ok(Ok(ready))
    }

    /// Returns the columns that rows bring, quoted, the run id last.
    pub(crate) fn columns_sql(&self) -> String {
        let run_id = ddl::run_id_column();
        let marked = ddl::marks_rows(&self.write).then_some(run_id.as_str());
        quoted_list(self.write.columns.iter().map(|column| column.name.as_str()).chain(marked))
    }

    /// Removes the old rows of the table, so that nobody sees it empty: within this transaction.
    ///
    /// `TRUNCATE` is fast and leaves no dead rows, but shuts readers out until the commit. It is taken only where
    /// nobody uses the table right now: this also keeps a task that replaces what it reads from waiting for itself.
    /// Returns whether the table was truncated.
    pub(crate) async fn clear(&self, relation: &Relation) -> Result<bool> {
        let session = &self.session;
        let doing = "remove the old rows";
        let table = relation.table.sql();
        const SQL: &str = "SELECT pg_catalog.has_table_privilege($1::oid, 'TRUNCATE')";
        let may = session.client.query_one(SQL, &[&relation.oid]).await;
        let may: bool = may.map_err(|error| session.fault(doing, error))?.get(0);
        if may && relation.referenced_by(session).await?.is_empty() {
            session.run(doing, "SAVEPOINT lock").await?;
            let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT");
            match session.client.batch_execute(&lock).await {
                Ok(()) => {
                    session.run(doing, &format!("RELEASE SAVEPOINT lock; TRUNCATE {table}")).await?;
                    return Ok(true);
                }
                Err(error) if error.code().is_some_and(|code| code.code() == "55P03") => {
                    session.run(doing, "ROLLBACK TO SAVEPOINT lock; RELEASE SAVEPOINT lock").await?;
                }
                Err(error) => return Err(session.fault(doing, error)),
            }
        }
        session.run(doing, &format!("DELETE FROM {table}")).await?;
        Ok(false)
    }

    /// Moves rows from what stands after `FROM` into the table; returns how many.
    pub(crate) async fn insert_from(&self, ready: &Ready, from: &str, order: &Superseding) -> Result<u64> {
        let mut casts: Vec<Option<&str>> = ready.casts.iter().map(Option::as_deref).collect();
        casts.push(None);
        let run_id = ddl::run_id_column();
        let marked = ddl::marks_rows(&self.write).then_some(run_id.as_str());
        let names = self.write.columns.iter().map(|column| column.name.as_str()).chain(marked);
        let selected: Vec<String> = names
            .zip(casts)
            .map(|(name, cast)| match cast {
                Some(cast) => format!("{}::{cast}", quoted(name)),
                None => quoted(name),
            })
            .collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT {}{} FROM {}{}{}",
            ready.relation.table.sql(),
            self.columns_sql(),
            order.distinct,
            selected.join(", "),
            from,
            order.order_by,
            conflict_sql(&self.write),
        );
        let moved = self.session.client.execute(&sql, &[]).await;
        moved.map_err(|error| self.session.fault("move the staged rows", error))
    }

    /// Rolls back, as far as the connection still allows.
    pub(crate) async fn roll_back(self) {
        self.session.cancel_statement().await;
        let _ = tokio::time::timeout(ROLLBACK_TIMEOUT, self.session.client.batch_execute("ROLLBACK")).await;
    }
}

/// Which of several staged rows with the same key wins, where partitions may hold them.
#[derive(Debug, Default)]
pub(crate) struct Superseding {
    /// `DISTINCT ON (…) `, or nothing.
    pub distinct: String,
    /// ` ORDER BY …`, or nothing.
    pub order_by: String,
}

// === impl Superseding ===

impl Superseding {
    /// Writes the order of a sink's `dedupe`.
    pub(crate) fn of(write: &SinkWrite) -> Self {
        let written = |name: &String| write.columns.iter().any(|column| column.name == *name);
        if write.mode != SinkMode::Upsert
            || write.dedupe.is_empty()
            || !write.dedupe.iter().all(|by| written(&by.column))
        {
            return Self::default();
        }
        let key = quoted_list(write.key.iter().map(String::as_str));
        let terms = write
            .dedupe
            .iter()
            .map(|by| format!("{} {} NULLS LAST", quoted(&by.column), if by.descending { "DESC" } else { "ASC" }));
        Self {
            distinct: format!("DISTINCT ON ({key}) "),
            order_by: format!(" ORDER BY {key}, {}", terms.collect::<Vec<_>>().join(", ")),
        }
    }
}

fn conflict_sql(write: &SinkWrite) -> String {
    if write.mode != SinkMode::Upsert {
        return String::new();
    }
    let key = quoted_list(write.key.iter().map(String::as_str));
    let set: Vec<String> = write
        .columns
        .iter()
        .filter(|column| !write.key.contains(&column.name))
        .map(|column| format!("{0} = EXCLUDED.{0}", quoted(&column.name)))
        .collect();
    if set.is_empty() {
        return format!(" ON CONFLICT ({key}) DO NOTHING");
    }
    format!(" ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "))
}

/// Creates a staging table with the written columns, as they travel.
pub(crate) async fn create_staging(
    session: &Session,
    write: &SinkWrite,
    ready: &Ready,
    staging: &Table,
    whole: bool,
) -> Result<()> {
    let columns = ready.relation.columns(session).await?;
    let mut parts = Vec::new();
    for column in &write.columns {
        let found = columns.iter().find(|found| found.name == column.name);
        let travels = found.map_or("text", |found| found.native.cast.unwrap_or(&found.type_sql));
        // A NULL in a key would never conflict, and come again with every repeat.
        let not_null = if write.key.contains(&column.name) { " NOT NULL" } else { "" };
        parts.push(format!("{} {travels}{not_null}", quoted(&column.name)));
    }
    if ddl::marks_rows(write) {
        parts.push(format!("{} uuid", quoted(&ddl::run_id_column())));
    }
    let table = staging.sql();
    // What a partition's dead predecessor left has the same name.
    let drop = if whole { String::new() } else { format!("DROP TABLE IF EXISTS {table}; ") };
    session.run("create a staging table", &format!("{drop}CREATE UNLOGGED TABLE {table} ({})", parts.join(", "))).await
}

// === impl TableWriter ===

impl TableWriter {
    async fn start(&mut self) -> Result<Pipe> {
        let Self { writing, ready, staging, must_clear, .. } = self;
        let mut freeze = ready.created || staging.is_some();
        if std::mem::take(must_clear) {
            freeze |= writing.clear(&ready.relation).await?;
        }
        let target = staging.as_ref().unwrap_or(&ready.relation.table);
        // Frozen rows of a table that this transaction made or emptied: a snapshot taken before the commit sees them
        // after it instead of an empty table, and no vacuum has to touch them again.
        let freeze = freeze && (staging.is_some() || ready.relation.kind == 'r');
        let sql = copy_sql(target, &writing.columns_sql(), freeze);
        let run_id = ddl::marks_rows(&writing.write).then_some(writing.effect.run_id);
        let encoder = Encoder::new(ready.targets.clone(), run_id);
        Pipe::open(&writing.session, &sql, encoder, writing.context.tally.clone()).await
    }

    async fn make_visible(&mut self, commit: &Commit) -> Result<SinkCounts> {
        let copied = match self.pipe.take() {
            Some(pipe) => pipe.finish(&self.writing.session.subject).await?,
            None => 0,
        };
        let Self { writing, ready, staging, must_clear, .. } = self;
        if std::mem::take(must_clear) {
            writing.clear(&ready.relation).await?;
        }
        if let Some(staging) = staging {
            if copied > 0 {
                writing.insert_from(ready, &staging.sql(), &Superseding::default()).await?;
            }
            writing.session.run("drop the staging table", &format!("DROP TABLE {}", staging.sql())).await?;
        }
        let counts = SinkCounts {
            produced: copied + commit.quarantined + commit.superseded,
            loaded: copied,
            quarantined: commit.quarantined,
            superseded: commit.superseded,
            nulled: commit.nulled,
            bytes: writing.context.tally.bytes.load(Relaxed),
        };
        writing.books.complete(&writing.session, &writing.effect, counts, &commit.cursors).await?;
        writing.books.move_cursors(&writing.session, &writing.write, &writing.context, &commit.cursors).await?;
        Ok(counts)
    }
}

/// Returns a binary `COPY … FROM STDIN`.
pub(crate) fn copy_sql(table: &Table, columns: &str, freeze: bool) -> String {
    let freeze = if freeze { ", FREEZE" } else { "" };
    format!("COPY {} ({columns}) FROM STDIN (FORMAT binary{freeze})", table.sql())
}

#[async_trait]
impl SinkWriter for TableWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let cancel = self.writing.context.cancel.clone();
        if self.pipe.is_none() {
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
        let made = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(self.writing.session.subject.cancelled()),
            made = self.make_visible(&commit) => made,
        };
        match made {
            Ok(counts) => {
                // From here on a cancellation comes too late: the outcome must be known.
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

/// Hands a batch to a pipe; when the pipe has stopped, returns why.
pub(crate) async fn send(pipe: &mut Option<Pipe>, batch: RecordBatch, writing: &Writing) -> Result<()> {
    let subject = &writing.session.subject;
    let Some(open) = pipe.as_ref() else {
        return Err(subject.error(Code::Internal, "a writer was used after it had failed", "report this with the log"));
    };
    let sent = tokio::select! {
        biased;
        () = writing.context.cancel.cancelled() => return Err(subject.cancelled()),
        sent = open.send(batch) => sent,
    };
    if sent {
        return Ok(());
    }
    let stopped = match pipe.take() {
        Some(pipe) => pipe.finish(subject).await.err(),
        None => None,
    };
    Err(stopped.unwrap_or_else(|| unexplained(subject)))
}

fn unexplained(subject: &Subject) -> Error {
    subject.error(Code::Internal, "the copy ended early without an error", "report this with the log")
}
