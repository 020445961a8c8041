//! Leaves one row a key for upserts: the first in the request's order.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::DataType;
use dagwright_model::{code::Code, task::SinkWrite};

use crate::{
    connectors::BatchStream,
    error::{Error, Result},
    transform::{
        Session, invalid_sql,
        relation::{Feed, Relation},
        sql::quoted,
    },
    types::arrow_type,
};

/// The column that ranks rows of a key; no column of a pipeline may be called so.
const RANK: &str = "_dagwright_rank";

/// Keeps the first row of each key; rows come out ordered by key.
///
/// Ties are broken by all other columns, so that the same rows give the same result in whatever order they come.
///
/// # Errors
/// DW0120 when key or order name columns that are not written.
pub(super) async fn first_of_each_key(session: &Session, write: &SinkWrite, rows: Feed) -> Result<Vec<BatchStream>> {
    let table = format!("_rows_{}", write.name);
    let relation = Arc::new(Relation::unnamed(write.columns.clone()));
    relation.feed_from(rows);
    session.register_as(&table, &relation)?;
    let (plan, _) = session
        .plan_select(&sql(write, &table)?, &BTreeMap::new())
        .await
        .map_err(|reason| invalid_sql(write.name.as_str(), &reason))?;
    session.run_plan(write.name.as_str(), &plan).await
}

fn sql(write: &SinkWrite, table: &str) -> Result<String> {
    let list = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let named = write.key.iter().chain(write.dedupe.iter().map(|order| &order.column));
    for name in named.clone() {
        if !write.columns.iter().any(|column| column.name == *name) {
            return Err(Error::new(
                Code::TaskSpecInvalid,
                write.name.as_str(),
                format!("key or order name column {name:?}, which is not written"),
                "write the column too, or choose another key or order",
            ));
        }
    }
    let mut order: Vec<String> = write
        .dedupe
        .iter()
        .map(|order| {
            let direction = if order.descending { "DESC" } else { "ASC" };
            format!("{} {direction} NULLS LAST", quoted(&order.column))
        })
        .collect();
    for column in &write.columns {
        let has_order = !matches!(arrow_type(&column.data_type), DataType::List(_) | DataType::Struct(_));
        if has_order && !named.clone().any(|name| *name == column.name) {
            order.push(format!("{} ASC NULLS LAST", quoted(&column.name)));
        }
    }
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    let names: Vec<String> = write.columns.iter().map(|column| column.name.clone()).collect();
    let (columns, key, table) = (list(&names), list(&write.key), quoted(table));
    Ok(format!(
        "SELECT {columns} FROM (SELECT *, row_number() OVER (PARTITION BY {key}{order}) AS {RANK} FROM {table}) \
         WHERE {RANK} = 1"
    ))
}
