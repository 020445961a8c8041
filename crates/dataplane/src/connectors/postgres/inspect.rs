//! Inspects a sink's table.

use dagwright_model::{
    facts::{Privileges, SinkColumn, SinkInspection},
    id::Name,
    schema::Column,
    spec::Locator,
};

use super::{
    catalog::{Relation, schema_of},
    connect::{Session, table_of},
    ddl::run_id_column,
    effects::Books,
    fault::Subject,
    sql::Table,
};
use crate::{connectors::Environment, error::Result};

/// Below this size rows are counted instead of estimated.
const COUNT_BYTES_MAX: u64 = 16 << 20;

/// Inspects the table of a locator.
pub(crate) async fn inspect(name: &Name, locator: &Locator, environment: &Environment) -> Result<SinkInspection> {
    let subject = Subject::sink(name.as_str());
    let (connection, table) = table_of(locator, &subject)?;
    let identity = environment.identity(connection)?;
    let session = Session::open(environment, &Default::default(), connection, subject).await?;
    let mut inspection = SinkInspection {
        sink: name.clone(),
        identity,
        exists: false,
        columns: Vec::new(),
        unique_keys: Vec::new(),
        rows: None,
        privileges: Privileges::default(),
        bytes_free: None,
        referenced_by: Vec::new(),
    };
    let Some(relation) = Relation::find(&session, table).await? else {
        if let Some(schema) = schema_of(&session, table).await? {
            let create = may_create(&session, &schema).await?;
            // Whoever creates a table owns it.
            inspection.privileges =
                Privileges { create, insert: create, update: create, delete: create, alter: create };
        }
        return Ok(inspection);
    };
    inspection.exists = true;
    // The column of run ids is ours: nobody needs to provide it.
    inspection.columns = relation
        .columns(&session)
        .await?
        .into_iter()
        .filter(|column| column.name != run_id_column())
        .map(|found| SinkColumn {
            column: Column { name: found.name, data_type: found.native.data_type, nullable: found.nullable },
            has_default: found.has_default,
            generated: found.generated,
        })
        .collect();
    inspection.unique_keys = relation.unique_keys(&session).await?.into_iter().map(|key| key.columns).collect();
    inspection.rows = rows(&session, &relation).await?;
    inspection.privileges = privileges(&session, &relation).await?;
    inspection.referenced_by = relation.referenced_by(&session).await?;
    Ok(inspection)
}

async fn rows(session: &Session, relation: &Relation) -> Result<Option<u64>> {
    if relation.kind != 'r' || relation.bytes > COUNT_BYTES_MAX {
        return Ok(relation.rows_estimate);
    }
    // A user who may write but not read still gets an inspection.
    let counted = session.client.query_one(&format!("SELECT count(*) FROM {}", relation.table.sql()), &[]).await;
    Ok(counted.map_or(relation.rows_estimate, |row| row.get::<_, i64>(0).try_into().ok()))
}

async fn may_create(session: &Session, schema: &str) -> Result<bool> {
    let found = session.client.query_one("SELECT pg_catalog.has_schema_privilege($1, 'CREATE')", &[&schema]).await;
    Ok(found.map_err(|error| session.fault("look up privileges", error))?.get(0))
}

async fn privileges(session: &Session, relation: &Relation) -> Result<Privileges> {
    const SQL: &str = "SELECT pg_catalog.has_table_privilege(c.oid, 'INSERT'),
          pg_catalog.has_table_privilege(c.oid, 'UPDATE'), pg_catalog.has_table_privilege(c.oid, 'DELETE'),
          pg_catalog.pg_has_role(c.relowner, 'USAGE')
        FROM pg_catalog.pg_class c WHERE c.oid = $1";
    let found = session.client.query_one(SQL, &[&relation.oid]).await;
    let row = found.map_err(|error| session.fault("look up privileges", error))?;
    let create = may_create(session, &relation.table.schema).await? || has_books(session, &relation.table).await?;
    Ok(Privileges { create, insert: row.get(0), update: row.get(1), delete: row.get(2), alter: row.get(3) })
}

/// Tells whether Dagwright's own tables are there, so that nothing must be created.
async fn has_books(session: &Session, table: &Table) -> Result<bool> {
    let books = Books::of(&table.schema);
    let names: Vec<String> = [books.effects, books.cursors, books.staged].iter().map(Table::sql).collect();
    const SQL: &str =
        "SELECT bool_and(COALESCE(pg_catalog.has_table_privilege(pg_catalog.to_regclass(name), 'INSERT'), false))
        FROM pg_catalog.unnest($1::text[]) name";
    let found = session.client.query_one(SQL, &[&names]).await;
    Ok(found.map_err(|error| session.fault("look up privileges", error))?.get(0))
}
