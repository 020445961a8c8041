//! Brings a sink's table into the form that its rows need.
//!
//! Everything happens in the writing transaction and is judged anew first: a plan that creates its table runs every
//! night, and finds it from the second night on.

use dagwright_model::{
    schema::{Column, DataType, Verdict},
    spec::{SinkMode, TableName},
    task::{SchemaEdit, SinkWrite},
};

use super::{
    catalog::{PgColumn, Relation},
    connect::Session,
    encode::Target,
    sql::{PREFIX, Table, quoted, quoted_list},
    types::{Native, Wire, fits, type_sql},
};
use crate::error::{Error, Result};

/// A table that is ready for rows.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// The table.
    pub relation: Relation,
    /// Whether this transaction made it.
    pub created: bool,
    /// How the written columns travel, in order.
    pub targets: Vec<Target>,
    /// For each written column, what the server must cast it to, where its own type cannot travel.
    pub casts: Vec<Option<String>>,
}

/// Returns the column that marks appended rows.
pub(crate) fn run_id_column() -> String {
    format!("{PREFIX}run_id")
}

/// Tells whether a write marks its rows.
pub(crate) fn marks_rows(write: &SinkWrite) -> bool {
    write.mode == SinkMode::Append && write.meta_columns
}

/// Makes the changes that the plan allows, and checks that rows will fit.
pub(crate) async fn prepare(session: &Session, write: &SinkWrite, name: &TableName, home: &Table) -> Result<Ready> {
    let mut relation = Relation::find_exactly(session, home).await?;
    let mut created = false;
    if relation.is_none() && write.changes.contains(&SchemaEdit::CreateTable) {
        // A concurrent first run of another pipeline waits here instead of failing.
        let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        let locked = session.client.query(lock, &[&home.sql()]).await;
        locked.map_err(|error| session.fault("wait for the table's creation", error))?;
        if Relation::find_exactly(session, home).await?.is_none() {
            session.run("create the table", &create_table(write, home)).await?;
            created = true;
        }
        relation = Relation::find_exactly(session, home).await?;
    }
    let relation = relation.ok_or_else(|| drift(session, format!("there is no table {name}"), "plan again"))?;
    if !relation.is_table() {
        return Err(drift(session, format!("{name} is not a table"), "write to the table below it"));
    }
    edit(session, write, &relation).await?;
    if marks_rows(write) {
        mark(session, &relation, write).await?;
    }
    let columns = relation.columns(session).await?;
    let (targets, casts) = targets(session, write, &columns)?;
    Ok(Ready { relation, created, targets, casts })
}

fn create_table(write: &SinkWrite, home: &Table) -> String {
    // Only the key is NOT NULL: that no NULL was seen today promises nothing for tomorrow.
    let mut parts: Vec<String> = write.columns.iter().map(definition).collect();
    if marks_rows(write) {
        parts.push(format!("{} uuid", quoted(&run_id_column())));
    }
    if write.mode == SinkMode::Upsert && !write.key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", quoted_list(write.key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE {} ({})", home.sql(), parts.join(", "))
}

fn definition(column: &Column) -> String {
    format!("{} {}", quoted(&column.name), type_sql(&column.data_type))
}

async fn edit(session: &Session, write: &SinkWrite, relation: &Relation) -> Result<()> {
    let table = relation.table.sql();
    let columns = relation.columns(session).await?;
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    for change in &write.changes {
        let sql = match change {
            SchemaEdit::CreateTable => None,
            SchemaEdit::AddColumn(column) => match find(&column.name) {
                Some(_) => None,
                None => Some(format!("ALTER TABLE {table} ADD COLUMN {}", definition(column))),
            },
            SchemaEdit::WidenColumn(column) => match find(&column.name) {
                None => return Err(missing(session, &column.name)),
                Some(found) if fits(&column.data_type, &found.native) => None,
                Some(found) if found.native.data_type.cast_to(&column.data_type) <= Verdict::Lossless => {
                    let (name, wanted) = (quoted(&column.name), type_sql(&column.data_type));
                    Some(format!("ALTER TABLE {table} ALTER COLUMN {name} TYPE {wanted} USING {name}::{wanted}"))
                }
                Some(found) => {
                    return Err(drift(
                        session,
                        format!(
                            "column {:?} is {} now, which {} does not hold",
                            column.name, found.native.data_type, column.data_type
                        ),
                        "plan again",
                    ));
                }
            },
            SchemaEdit::DropNotNull(name) => match find(name) {
                None => return Err(missing(session, name)),
                Some(found) if found.nullable => None,
                Some(_) => Some(format!("ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL", quoted(name))),
            },
            SchemaEdit::AddUniqueKey(key) => match has_key(session, relation, key).await? {
                true => None,
                false => {
                    Some(format!("CREATE UNIQUE INDEX ON {table} ({})", quoted_list(key.iter().map(String::as_str))))
                }
            },
        };
        if let Some(sql) = sql {
            session.run("change the table's schema", &sql).await?;
        }
    }
    if write.mode == SinkMode::Upsert && !has_key(session, relation, &write.key).await? {
        let hint = "add a unique index or primary key on exactly these columns, or plan again";
        return Err(drift(session, format!("the table has no unique key on {:?}", write.key), hint));
    }
    Ok(())
}

async fn has_key(session: &Session, relation: &Relation, key: &[String]) -> Result<bool> {
    let same = |known: &[String]| known.len() == key.len() && key.iter().all(|column| known.contains(column));
    Ok(relation.unique_keys(session).await?.iter().any(|known| same(&known.columns)))
}

async fn mark(session: &Session, relation: &Relation, write: &SinkWrite) -> Result<()> {
    let name = run_id_column();
    if write.columns.iter().any(|column| column.name == name) {
        let hint = "leave the column out in a transform, or set `meta_columns: false`";
        return Err(drift(session, format!("the rows bring a column {name:?} of their own"), hint));
    }
    let columns = relation.columns(session).await?;
    match columns.iter().find(|column| column.name == name) {
        Some(found) if found.native.wire == Wire::Uuid && !found.generated => Ok(()),
        Some(_) => {
            Err(drift(session, format!("column {name:?} is not a uuid"), "rename it, or set `meta_columns: false`"))
        }
        None => {
            let sql = format!("ALTER TABLE {} ADD COLUMN {} uuid", relation.table.sql(), quoted(&name));
            session.run("add the column of run ids (or set `meta_columns: false`)", &sql).await
        }
    }
}

fn targets(session: &Session, write: &SinkWrite, columns: &[PgColumn]) -> Result<(Vec<Target>, Vec<Option<String>>)> {
    let mut targets = Vec::with_capacity(write.columns.len());
    let mut casts = Vec::with_capacity(write.columns.len());
    for column in &write.columns {
        let found = columns.iter().find(|found| found.name == column.name);
        let found = found.ok_or_else(|| missing(session, &column.name))?;
        if found.generated {
            let message = format!("column {:?} is generated by the database", column.name);
            return Err(drift(session, message, "leave it out in a transform"));
        }
        if !fits(&column.data_type, &found.native) {
            let message =
                format!("column {:?} is {} now; planned was {}", column.name, found.native.data_type, column.data_type);
            return Err(drift(session, message, "plan again"));
        }
        targets.push(Target { name: column.name.clone(), wire: written_wire(&column.data_type, &found.native) });
        casts.push(found.native.cast.map(|_| found.type_sql.clone()));
    }
    let written = |name: &str| name == run_id_column() || write.columns.iter().any(|column| column.name == name);
    let unfilled =
        columns.iter().find(|found| !found.nullable && !found.has_default && !found.generated && !written(&found.name));
    if let Some(unfilled) = unfilled {
        let message = format!("column {:?} is NOT NULL, has no default, and is not written", unfilled.name);
        return Err(drift(session, message, "write it, or give it a default"));
    }
    Ok((targets, casts))
}

/// Without precision, a number is written as it is, not at some scale.
fn written_wire(written: &DataType, column: &Native) -> Wire {
    match (written, &column.wire) {
        (DataType::Decimal { precision, scale }, Wire::Numeric { strip, .. }) if column.loose => {
            Wire::Numeric { precision: *precision, scale: *scale, strip: *strip }
        }
        _ => column.wire.clone(),
    }
}

fn missing(session: &Session, name: &str) -> Error {
    drift(session, format!("there is no column {name:?} any more"), "plan again")
}

fn drift(session: &Session, message: impl Into<String>, hint: &str) -> Error {
    session.subject.error(session.subject.side.drifted(), message, hint)
}
