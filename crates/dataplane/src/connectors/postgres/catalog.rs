//! Asks the server's catalog about relations, columns and keys.

use dagwright_model::{
    spec::{Locator, TableName},
    task::RunContext,
};
use tokio_postgres::Statement;

use super::{
    binds::Bound,
    connect::Session,
    sql::{Table, as_written},
    types::Native,
};
use crate::error::Result;

/// A table or view that exists.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    /// Its full name.
    pub table: Table,
    /// Its object id.
    pub oid: u32,
    /// `pg_class.relkind`.
    pub kind: char,
    /// How many rows the statistics say; `None` when it was never analysed.
    pub rows_estimate: Option<u64>,
    /// How many bytes it has, indexes left out.
    pub bytes: u64,
}

/// A column of a table or query.
#[derive(Clone, Debug)]
pub(crate) struct PgColumn {
    /// The name.
    pub name: String,
    /// What its type means.
    pub native: Native,
    /// The type as the server spells it.
    pub type_sql: String,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// Whether the server fills it in.
    pub has_default: bool,
    /// Whether it cannot be written.
    pub generated: bool,
}

/// A unique index.
#[derive(Clone, Debug)]
pub(crate) struct UniqueKey {
    /// Its columns.
    pub columns: Vec<String>,
    /// Whether none of them may be NULL.
    pub not_null: bool,
}

// === impl Relation ===

impl Relation {
    /// Finds a table, view or the like; `None` when there is none, or none that this user may see.
    pub(crate) async fn find(session: &Session, table: &TableName) -> Result<Option<Self>> {
        Self::lookup(session, &as_written(table)).await
    }

    /// The same by its full name.
    pub(crate) async fn find_exactly(session: &Session, table: &Table) -> Result<Option<Self>> {
        Self::lookup(session, &table.sql()).await
    }

    async fn lookup(session: &Session, name: &str) -> Result<Option<Self>> {
        const SQL: &str = "SELECT n.nspname::text, c.relname::text, c.oid, c.relkind, c.reltuples::float8,
              CASE WHEN c.relkind IN ('r', 'm', 'p', 't') THEN pg_catalog.pg_table_size(c.oid) ELSE 0 END
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
        let found = session.client.query_opt(SQL, &[&name]).await;
        let row = found.map_err(|error| session.fault("look up the table", error))?;
        Ok(row.map(|row| {
            let estimate: f64 = row.get(4);
            Self {
                table: Table::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                oid: row.get(2),
                kind: char::from(row.get::<_, i8>(3).cast_unsigned()),
                // -1 (0 before PostgreSQL 14) when never analysed.
                rows_estimate: (estimate >= 0.0).then_some(estimate as u64),
                bytes: row.get::<_, i64>(5).try_into().unwrap_or(0),
            }
        }))
    }

    /// Tells whether it can be written.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.kind, 'r' | 'p')
    }

    /// Returns its columns.
    pub(crate) async fn columns(&self, session: &Session) -> Result<Vec<PgColumn>> {
        const SQL: &str = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
              a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
              a.attgenerated <> '' OR a.attidentity = 'a'
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let statement = describe(session, &format!("SELECT * FROM {}", self.table.sql())).await?;
        let rows = session.client.query(SQL, &[&self.oid]).await;
        let rows = rows.map_err(|error| session.fault("look up the columns", error))?;
        let types = natives(&statement);
        Ok(rows
            .iter()
            .zip(types)
            .map(|(row, (_, native))| PgColumn {
                name: row.get(0),
                native,
                type_sql: row.get(1),
                nullable: !row.get::<_, bool>(2),
                has_default: row.get(3),
                generated: row.get(4),
            })
            .collect())
    }

    /// Returns its unique keys that are whole (no expression, no predicate) and immediate, the primary key first.
    pub(crate) async fn unique_keys(&self, session: &Session) -> Result<Vec<UniqueKey>> {
        const SQL: &str = "SELECT array_agg(a.attname::text ORDER BY k.place), bool_and(a.attnotnull)
            FROM pg_catalog.pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate
              AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
            GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts
            ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid";
        let rows = session.client.query(SQL, &[&self.oid]).await;
        let rows = rows.map_err(|error| session.fault("look up the keys", error))?;
        let mut keys = Vec::<UniqueKey>::new();
        for row in rows {
            let key = UniqueKey { columns: row.get(0), not_null: row.get(1) };
            if !keys.iter().any(|known| known.columns == key.columns) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// Returns the columns that an index starts with, so that ranges of them are cheap.
    pub(crate) async fn indexed_columns(&self, session: &Session) -> Result<Vec<String>> {
        const SQL: &str = "SELECT DISTINCT a.attname::text FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
            JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL ORDER BY 1";
        let rows = session.client.query(SQL, &[&self.oid]).await;
        let rows = rows.map_err(|error| session.fault("look up the indexes", error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Returns the tables whose foreign keys point here.
    pub(crate) async fn referenced_by(&self, session: &Session) -> Result<Vec<String>> {
        const SQL: &str = "SELECT DISTINCT n.nspname::text || '.' || c.relname::text FROM pg_catalog.pg_constraint k
            JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conrelid <> $1 ORDER BY 1";
        let rows = session.client.query(SQL, &[&self.oid]).await;
        let rows = rows.map_err(|error| session.fault("look up the foreign keys", error))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Returns the schema that a table is in, or would be created in; `None` when there is no such schema.
pub(crate) async fn schema_of(session: &Session, table: &TableName) -> Result<Option<String>> {
    const SQL: &str = "SELECT nspname::text FROM pg_catalog.pg_namespace
        WHERE nspname = COALESCE($1, pg_catalog.current_schema()::text)";
    let found = session.client.query_opt(SQL, &[&table.schema]).await;
    Ok(found.map_err(|error| session.fault("look up the schema", error))?.map(|row| row.get(0)))
}

/// Returns what a locator reads as it stands after `FROM`, and the relation when it is a table.
///
/// A query is described by itself first: only what is one complete statement by itself may be put into parentheses. Its
/// binds have their values in `run`, or samples where none is known; they hold for the current transaction.
pub(crate) async fn read_from(
    session: &Session,
    locator: &Locator,
    run: Option<&RunContext>,
) -> Result<Option<(String, Option<Relation>)>> {
    match locator {
        Locator::Table { table, .. } => {
            Ok(Relation::find(session, table).await?.map(|found| (found.table.sql(), Some(found))))
        }
        Locator::Query { query, binds, .. } => {
            let bound = Bound::new(query.trim_end().trim_end_matches(';'), binds, run, &session.subject)?;
            bound.values.set(&session.client).await.map_err(|error| session.fault("set the binds", error))?;
            describe(session, &bound.sql).await?;
            // The line's end closes a comment at the query's end.
            Ok(Some((format!("(\n{}\n) AS \"source\"", bound.sql), None)))
        }
        Locator::Uri(_) => Ok(None),
    }
}

/// Returns the columns of what stands after `FROM`.
pub(crate) async fn columns_of(session: &Session, from: &str, relation: Option<&Relation>) -> Result<Vec<PgColumn>> {
    if let Some(relation) = relation {
        return relation.columns(session).await;
    }
    let statement = describe(session, &format!("SELECT * FROM {from}")).await?;
    Ok(natives(&statement)
        .map(|(name, native)| PgColumn {
            name: name.into(),
            native,
            type_sql: String::new(),
            nullable: true,
            has_default: false,
            generated: false,
        })
        .collect())
}

async fn describe(session: &Session, sql: &str) -> Result<Statement> {
    session.client.prepare(sql).await.map_err(|error| session.fault("read the columns", error))
}

fn natives(statement: &Statement) -> impl Iterator<Item = (&str, Native)> {
    statement.columns().iter().map(|column| (column.name(), Native::of(column.type_(), column.type_modifier())))
}
