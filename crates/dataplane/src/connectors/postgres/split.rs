//! Splits a table or query into ranges of a key.
//!
//! The bounds are the histogram's where the statistics have one (about as many rows in each range), else even steps
//! from the smallest to the largest value. The first range has no lower and the last no upper bound, so rows that come
//! meanwhile belong somewhere. Each mapped task reads as of its own moment: a snapshot cannot outlive the task that
//! took it.

use dagwright_model::{
    code::Code,
    schema::DataType,
    spec::OnMissing,
    task::{Partition, PartitionRange, Split, SplitBy},
};

use super::{
    catalog::{PgColumn, Relation, columns_of, read_from},
    connect::{Session, connection_of},
    effects::comparable,
    fault::Subject,
    range::cursor_condition,
    read::{BEGIN, missing_column, missing_table},
    sql::{Bounds, quoted},
};
use crate::{connectors::ReadContext, error::Result};

/// Lists the ranges.
pub(crate) async fn split(split: &Split, context: &ReadContext) -> Result<Vec<Partition>> {
    let subject = Subject::source(context.name.as_str());
    let SplitBy::KeyRange(key) = &split.by else {
        return Err(subject.error(
            Code::TaskSpecInvalid,
            "a table is split by ranges of a key, not by files",
            "plan again",
        ));
    };
    let connection = connection_of(&split.read.locator, &subject)?;
    let session = Session::open(&context.environment, &context.sealed, connection, subject).await?;
    session.unless_cancelled(&context.cancel, split_by(&session, split, key, context)).await
}

async fn split_by(session: &Session, split: &Split, key: &str, context: &ReadContext) -> Result<Vec<Partition>> {
    session.run("start the transaction", BEGIN).await?;
    let read = &split.read;
    let Some((from, relation)) = read_from(session, &read.locator, Some(&context.run)).await? else {
        return match read.on_missing {
            OnMissing::Skip => Ok(partitions(key, &[])),
            OnMissing::Fail => Err(missing_table(&session.subject, &read.locator.to_string())),
        };
    };
    let columns = columns_of(session, &from, relation.as_ref()).await?;
    let column = columns.iter().find(|column| column.name == *key);
    let column = column.ok_or_else(|| missing_column(&session.subject, key))?;
    let wanted = split.partitions_max.max(1) as usize;
    let mut bounds = Bounds::of_read();
    let condition = cursor_condition(read, context, &columns, &mut bounds);
    bounds.set(&session.client).await.map_err(|error| session.fault("set the range to split", error))?;
    let limits = match (&relation, &condition) {
        // With a cursor only the newest rows are read, of which the histogram of all knows little.
        (Some(relation), None) => histogram(session, relation, column, wanted).await?,
        _ => Vec::new(),
    };
    let limits = match limits.is_empty() {
        true => even(session, &from, condition.as_deref(), column, wanted).await?,
        false => limits,
    };
    Ok(partitions(key, &limits))
}

/// Returns the partitions between limits.
fn partitions(key: &str, limits: &[String]) -> Vec<Partition> {
    let count = u32::try_from(limits.len() + 1).unwrap_or(u32::MAX);
    let range = |index: usize| PartitionRange::KeyRange {
        column: key.into(),
        from: index.checked_sub(1).map(|before| limits[before].clone()),
        to: limits.get(index).cloned(),
    };
    (0..count).zip(0..).map(|(index, at)| Partition { index, count, range: range(at) }).collect()
}

/// Returns limits from the statistics, none where there are none or they are too coarse.
async fn histogram(session: &Session, relation: &Relation, column: &PgColumn, wanted: usize) -> Result<Vec<String>> {
    const SQL: &str = "SELECT histogram_bounds::text::text[] FROM pg_catalog.pg_stats
        WHERE schemaname = $1 AND tablename = $2 AND attname = $3 AND histogram_bounds IS NOT NULL
        ORDER BY inherited DESC LIMIT 1";
    let table = &relation.table;
    let found = session.client.query_opt(SQL, &[&table.schema, &table.name, &column.name]).await;
    let found = found.map_err(|error| session.fault("look up the statistics", error))?;
    let known: Vec<String> = found.map(|row| row.get(0)).unwrap_or_default();
    if known.len() <= wanted {
        return Ok(Vec::new());
    }
    let mut limits: Vec<String> = (1..wanted).map(|part| known[part * (known.len() - 1) / wanted].clone()).collect();
    limits.dedup();
    Ok(limits)
}

/// Returns limits at even steps.
async fn even(
    session: &Session,
    from: &str,
    condition: Option<&str>,
    column: &PgColumn,
    wanted: usize,
) -> Result<Vec<String>> {
    let name = quoted(&column.name);
    // To whole numbers (days, microseconds) and back.
    let (there, back) = match column.native.data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => (format!("{name}::int8"), "step".to_owned()),
        DataType::Date => (format!("({name} - date '1970-01-01')::int8"), "(date '1970-01-01' + step::int)".into()),
        DataType::Timestamp | DataType::TimestampTz => (
            format!("(EXTRACT(epoch FROM {name}) * 1000000)::int8"),
            format!(
                "({}'epoch' + step * interval '1 microsecond')",
                if column.native.data_type == DataType::Timestamp { "timestamp " } else { "timestamptz " }
            ),
        ),
        _ => {
            let message = format!("column {:?} is {}, which has no even ranges", column.name, column.native.data_type);
            let hint = "split by an integer, date or timestamp column, or ANALYZE the table";
            return Err(session.subject.error(Code::TaskSpecInvalid, message, hint));
        }
    };
    let finite = match column.native.data_type {
        DataType::Date | DataType::Timestamp | DataType::TimestampTz => format!("isfinite({name})"),
        _ => "true".into(),
    };
    let condition = condition.map(|condition| format!(" AND {condition}")).unwrap_or_default();
    let sql = format!("SELECT min({there}), max({there}) FROM {from} WHERE {finite}{condition}");
    let found = session.client.query_one(&sql, &[]).await;
    let row = found.map_err(|error| session.fault("find the smallest and largest key", error))?;
    let (Some(min), Some(max)) = (row.get::<_, Option<i64>>(0), row.get::<_, Option<i64>>(1)) else {
        return Ok(Vec::new());
    };
    let steps = steps(min, max, wanted);
    let typed = comparable(&column.native.data_type);
    let sql = format!("SELECT ({back}::{typed})::text FROM pg_catalog.unnest($1::int8[]) step ORDER BY step");
    let rows = session.client.query(&sql, &[&steps]).await;
    Ok(rows.map_err(|error| session.fault("compute the ranges", error))?.iter().map(|row| row.get(0)).collect())
}

/// Returns at most `wanted - 1` limits between two values, each above the one before.
fn steps(min: i64, max: i64, wanted: usize) -> Vec<i64> {
    let (low, span) = (i128::from(min), i128::from(max) - i128::from(min) + 1);
    let parts = i128::try_from(wanted).unwrap_or(1).min(span).max(1);
    (1..parts).filter_map(|part| i64::try_from(low + span * part / parts).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{partitions, steps};

    #[test]
    fn steps_are_even_and_never_empty() {
        assert_eq!(steps(0, 99, 4), [25, 50, 75]);
        assert_eq!(steps(1, 3, 10), [2, 3]);
        assert!(steps(7, 7, 4).is_empty());
        assert_eq!(steps(i64::MIN, i64::MAX, 2), [0]);
    }

    #[test]
    fn ranges_leave_nothing_out() {
        let parts = serde_json::to_value(partitions("id", &["5".into()])).unwrap();
        assert_eq!(
            parts,
            serde_json::json!([
                { "index": 0, "count": 2, "range": { "key_range": { "column": "id", "from": null, "to": "5" } } },
                { "index": 1, "count": 2, "range": { "key_range": { "column": "id", "from": "5", "to": null } } },
            ])
        );
    }
}
