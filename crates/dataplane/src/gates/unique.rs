//! Keeps the keys of a `unique` gate aside and counts those that repeat.

use std::sync::Arc;

use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
};
use dagwright_model::{id::Name, schema::Column};
use datafusion::arrow::{array::AsArray, datatypes::Int64Type};
use futures::TryStreamExt;
use tokio::sync::Mutex;

use crate::{
    error::Result,
    spool::SpoolWriter,
    storage::Folder,
    transform::{Session, failure::run_failure, relation::Relation, sql::quoted},
};

/// The most bytes of keys kept in memory; more go to a temporary file.
const KEYS_BYTES_MAX: usize = 8 << 20;

/// The keys seen so far.
pub(super) struct Keys {
    gate: Name,
    positions: Vec<usize>,
    columns: Vec<Column>,
    writer: Mutex<Option<SpoolWriter>>,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new(
        session: &Session,
        gate: &Name,
        relation: &Relation,
        positions: Vec<usize>,
        temp: &Folder,
    ) -> Result<Self> {
        let schema = relation.schema.project(&positions).map_err(|error| run_failure(gate.as_str(), &error.into()))?;
        let columns = positions.iter().map(|position| relation.columns[*position].clone()).collect();
        let name = format!("gate {gate}");
        let writer = SpoolWriter::new(&name, temp.clone(), Arc::new(schema), session.pool(), KEYS_BYTES_MAX);
        Ok(Self { gate: gate.clone(), positions, columns, writer: Mutex::new(Some(writer)) })
    }

    /// Takes the keys of a batch, those with a NULL left out.
    pub(super) async fn take(&self, batch: &RecordBatch) -> Result<()> {
        let broken = |error: arrow::error::ArrowError| run_failure(self.gate.as_str(), &error.into());
        let mut keys = batch.project(&self.positions).map_err(broken)?;
        if keys.columns().iter().any(|column| column.null_count() > 0) {
            let whole = BooleanBuffer::collect_bool(keys.num_rows(), |row| {
                keys.columns().iter().all(|column| column.is_valid(row))
            });
            keys = filter_record_batch(&keys, &BooleanArray::new(whole, None)).map_err(broken)?;
        }
        match self.writer.lock().await.as_mut() {
            Some(writer) => writer.write(keys).await,
            None => Ok(()),
        }
    }

    /// Counts the rows that repeat the key of an earlier one.
    pub(super) async fn repeats(&self, session: &Session) -> Result<u64> {
        let Some(writer) = self.writer.lock().await.take() else { return Ok(0) };
        let spool = writer.finish().await?;
        // Relations of a pipeline have names that start with a letter.
        let table = format!("_keys_{}", self.gate);
        let relation = Arc::new(Relation::unnamed(self.columns.clone()));
        relation.feed_from(spool.feed(session.cores()));
        session.register_as(&table, &relation)?;
        let list = self.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT coalesce(sum(repeats), 0) AS repeats FROM \
             (SELECT count(*) - 1 AS repeats FROM {} GROUP BY {list})",
            quoted(&table)
        );
        let (plan, _) = session
            .plan_select(&sql, &Default::default())
            .await
            .map_err(|reason| crate::transform::invalid_sql(self.gate.as_str(), &reason))?;
        let mut repeats = 0;
        for mut stream in session.run_plan(self.gate.as_str(), &plan).await? {
            while let Some(batch) = stream.try_next().await? {
                let counts = batch.column(0).as_primitive::<Int64Type>();
                repeats += counts.values().iter().map(|count| u64::try_from(*count).unwrap_or_default()).sum::<u64>();
            }
        }
        session.deregister(&table);
        Ok(repeats)
    }
}
