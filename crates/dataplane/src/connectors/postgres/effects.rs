//! What this connector remembers beside a sink: effects, cursors and staged partitions.
//!
//! Three tables in the sink table's schema. A row of `_dagwright_effects` is written in the transaction that makes the
//! rows visible, so a repeated task finds it; its primary key makes a concurrent duplicate wait for the first one's
//! end. `_dagwright_cursors` moves in the same transaction, and never backwards. `_dagwright_staged` lists the
//! partitions that wait for their publish.

use std::collections::BTreeMap;

use dagwright_model::{
    code::Code,
    id::Name,
    schema::DataType,
    task::{CursorCommit, SinkCounts, SinkWrite},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    connect::Session,
    sql::{PREFIX, Table},
    types::type_sql,
};
use crate::{
    connectors::WriteContext,
    error::{Error, Result},
};

/// Serialises the creation of the tables, which `IF NOT EXISTS` alone does not; any number nobody else uses.
const CREATION_LOCK: i64 = 0x6461_6777_7269_6768;

const EFFECTS: &str = "effect text PRIMARY KEY, generation bigint NOT NULL, plan_hash text NOT NULL, \
    sink_table text NOT NULL, run_id uuid, counts jsonb NOT NULL, cursors jsonb NOT NULL, \
    committed_at timestamptz NOT NULL DEFAULT pg_catalog.now()";

const CURSORS: &str = "pipeline text NOT NULL, source text NOT NULL, sink text NOT NULL, value text NOT NULL, \
    type text NOT NULL, committed_at timestamptz NOT NULL DEFAULT pg_catalog.now(), \
    PRIMARY KEY (pipeline, source, sink)";

const STAGED: &str = "effect text NOT NULL, partition integer NOT NULL, partitions integer NOT NULL, \
    generation bigint NOT NULL, staging text NOT NULL, counts jsonb NOT NULL, cursors jsonb NOT NULL, \
    staged_at timestamptz NOT NULL DEFAULT pg_catalog.now(), PRIMARY KEY (effect, partition)";

/// The tables of one schema.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    /// What became visible.
    pub effects: Table,
    /// Where incremental sources stand.
    pub cursors: Table,
    /// What waits to be published.
    pub staged: Table,
}

/// What a write is, as the books know it.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    /// The effect key.
    pub key: String,
    /// The generation.
    pub generation: i64,
    /// What `_dagwright_run_id` holds: the first half of the key's SHA-256.
    pub run_id: [u8; 16],
    plan_hash: String,
}

/// What claiming an effect finds.
pub(crate) enum Claim {
    /// Nobody wrote it yet.
    New,
    /// An earlier generation wrote it; whether its rows carry the run id, and how many there were.
    Older { marked: bool, loaded: u64 },
    /// It is there.
    Done(SinkCounts),
}

// === impl Effect ===

impl Effect {
    /// Names the effect of a write in a run.
    pub(crate) fn of(write: &SinkWrite, context: &WriteContext) -> Self {
        let key = context.run.effect_key(&write.name);
        let mut run_id = [0; 16];
        run_id.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
        let generation = i64::from(context.run.generation);
        Self { key, generation, run_id, plan_hash: context.run.plan_hash.0.clone() }
    }

    /// Returns the run id as PostgreSQL reads it.
    pub(crate) fn run_id_text(&self) -> String {
        hex::encode(self.run_id)
    }

    /// Names a staging table of this effect.
    pub(crate) fn staging(&self, partition: Option<u32>) -> String {
        let hash = hex::encode(&self.run_id[..8]);
        match partition {
            Some(index) => format!("{PREFIX}stg_{hash}_{index}"),
            None => format!("{PREFIX}stg_{hash}"),
        }
    }
}

// === impl Books ===

impl Books {
    /// Names the tables of a schema.
    pub(crate) fn of(schema: &str) -> Self {
        let table = |name: &str| Table::new(schema, format!("{PREFIX}{name}"));
        Self { effects: table("effects"), cursors: table("cursors"), staged: table("staged") }
    }

    /// Creates what is missing, in a transaction of its own.
    pub(crate) async fn ensure(&self, session: &Session) -> Result<()> {
        let tables = [(&self.effects, EFFECTS), (&self.cursors, CURSORS), (&self.staged, STAGED)];
        let names: Vec<String> = tables.iter().map(|(table, _)| table.sql()).collect();
        const SQL: &str = "SELECT pg_catalog.bool_and(pg_catalog.to_regclass(name) IS NOT NULL) FROM pg_catalog.unnest($1::text[]) name";
        let found = session.client.query_one(SQL, &[&names]).await;
        if found.map_err(|error| session.fault("look up Dagwright's own tables", error))?.get(0) {
            return Ok(());
        }
        let mut sql = format!("BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK});");
        for (table, columns) in tables {
            sql.push_str(&format!("CREATE TABLE IF NOT EXISTS {} ({columns});", table.sql()));
        }
        sql.push_str("COMMIT");
        session.run("create Dagwright's own tables", &sql).await
    }

    /// Claims an effect for the running transaction; waits for whoever else is writing it.
    pub(crate) async fn claim(&self, session: &Session, effect: &Effect, table: &Table, marked: bool) -> Result<Claim> {
        let doing = "record the effect";
        let insert = format!(
            "INSERT INTO {} (effect, generation, plan_hash, sink_table, run_id, counts, cursors)
             VALUES ($1, $2, $3, $4, $5::text::uuid, '{{}}', '{{}}') ON CONFLICT (effect) DO NOTHING",
            self.effects.sql()
        );
        let run_id = marked.then(|| effect.run_id_text());
        let inserted = session
            .client
            .execute(&insert, &[&effect.key, &effect.generation, &effect.plan_hash, &table.sql(), &run_id])
            .await
            .map_err(|error| session.fault(doing, error))?;
        if inserted == 1 {
            return Ok(Claim::New);
        }
        let known = self.lock_effect(session, effect).await?.ok_or_else(|| {
            let hint = "try again";
            session.subject.error(session.subject.side.unreachable(), "the effect's record was removed meanwhile", hint)
        })?;
        if known.generation >= effect.generation {
            return Ok(Claim::Done(known.counts));
        }
        let update = format!(
            "UPDATE {} SET generation = $2, plan_hash = $3, sink_table = $4, run_id = $5::text::uuid WHERE effect = $1",
            self.effects.sql()
        );
        session
            .client
            .execute(&update, &[&effect.key, &effect.generation, &effect.plan_hash, &table.sql(), &run_id])
            .await
            .map_err(|error| session.fault(doing, error))?;
        Ok(Claim::Older { marked: known.marked, loaded: known.counts.loaded })
    }

    /// Returns the counts of an effect that is there in this generation or a later one.
    pub(crate) async fn done(&self, session: &Session, effect: &Effect) -> Result<Option<SinkCounts>> {
        let known = self.lock_effect(session, effect).await?;
        Ok(known.filter(|known| known.generation >= effect.generation).map(|known| known.counts))
    }

    async fn lock_effect(&self, session: &Session, effect: &Effect) -> Result<Option<KnownEffect>> {
        let sql = format!(
            "SELECT generation, counts::text, run_id IS NOT NULL FROM {} WHERE effect = $1 FOR UPDATE",
            self.effects.sql()
        );
        let found = session.client.query_opt(&sql, &[&effect.key]).await;
        let found = found.map_err(|error| session.fault("look up the effect", error))?;
        Ok(found.map(|row| KnownEffect {
            generation: row.get(0),
            counts: serde_json::from_str(row.get(1)).unwrap_or_default(),
            marked: row.get(2),
        }))
    }

    /// Completes a claimed effect with its counts and cursors.
    pub(crate) async fn complete(
        &self,
        session: &Session,
        effect: &Effect,
        counts: SinkCounts,
        cursors: &BTreeMap<Name, String>,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {} SET counts = $2::text::jsonb, cursors = $3::text::jsonb, committed_at = pg_catalog.now()
             WHERE effect = $1",
            self.effects.sql()
        );
        let done = session.client.execute(&sql, &[&effect.key, &json(&counts), &json(cursors)]).await;
        done.map(|_| ()).map_err(|error| session.fault("record the effect", error))
    }

    /// Moves the committed cursors of a write forward.
    pub(crate) async fn move_cursors(
        &self,
        session: &Session,
        write: &SinkWrite,
        context: &WriteContext,
        cursors: &BTreeMap<Name, String>,
    ) -> Result<()> {
        if context.run.backfill {
            return Ok(());
        }
        for CursorCommit { source, data_type, .. } in &write.cursors {
            let Some(value) = cursors.get(source) else { continue };
            let typed = comparable(data_type);
            let sql = format!(
                "INSERT INTO {} AS old (pipeline, source, sink, value, type) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (pipeline, source, sink) DO UPDATE
                 SET value = EXCLUDED.value, type = EXCLUDED.type, committed_at = pg_catalog.now()
                 WHERE CASE WHEN old.type <> EXCLUDED.type THEN true
                   ELSE old.value::{typed} < EXCLUDED.value::{typed} END",
                self.cursors.sql()
            );
            let (pipeline, source, sink) = (&context.pipeline, source.as_str(), write.name.as_str());
            let moved = session.client.execute(&sql, &[pipeline, &source, &sink, value, &data_type.to_string()]).await;
            moved.map_err(|error| session.fault("commit the cursor", error))?;
        }
        Ok(())
    }

    /// Returns a committed cursor.
    pub(crate) async fn cursor(
        &self,
        session: &Session,
        pipeline: &str,
        source: &str,
        sink: &str,
    ) -> Result<Option<String>> {
        const SQL: &str = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
        let exists = session.client.query_one(SQL, &[&self.cursors.sql()]).await;
        if !exists.map_err(|error| session.fault("look up the cursor", error))?.get::<_, bool>(0) {
            return Ok(None);
        }
        let sql = format!("SELECT value FROM {} WHERE pipeline = $1 AND source = $2 AND sink = $3", self.cursors.sql());
        let found = session.client.query_opt(&sql, &[&pipeline, &source, &sink]).await;
        Ok(found.map_err(|error| session.fault("look up the cursor", error))?.map(|row| row.get(0)))
    }
}

struct KnownEffect {
    generation: i64,
    counts: SinkCounts,
    marked: bool,
}

/// Returns the type in which two cursors compare; text by its bytes, as cursors of files do.
pub(crate) fn comparable(data_type: &DataType) -> String {
    match data_type {
        DataType::String { .. } | DataType::Json => "text COLLATE \"C\"".into(),
        DataType::Decimal { .. } => "numeric".into(),
        other => type_sql(other),
    }
}

/// Returns the error of an append that cannot find what it wrote.
pub(crate) fn cleared(session: &Session) -> Error {
    session.subject.error(
        Code::SinkCleared,
        "the task was cleared after it had succeeded, and the rows it appended carry no _dagwright_run_id",
        "remove those rows by hand and the run's row in _dagwright_effects, or use `meta_columns: true` from now on",
    )
}

/// Counts and cursors always serialise.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".into())
}
