//! What becomes of decoded rows: rejected, passed over, or handed on; and counted, each exactly once.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::{FilterBuilder, and, not},
    datatypes::SchemaRef,
};
use dagwright_model::{code::Code, spec::LossyCast, task::SourceRead};
use serde_json::{Map, Value};

use super::{fault::Subject, filter::Filters};
use crate::{
    connectors::ReadContext,
    error::Result,
    tally::{Reject, Rejects, SourceTally},
    types::arrow_schema,
};

/// Turns decoded columns into batches of the sealed schema.
#[derive(Clone)]
pub(crate) struct Finisher {
    pub(crate) schema: SchemaRef,
    pub(crate) filters: Filters,
    lossy: LossyCast,
    names: Arc<Vec<String>>,
    types: Arc<Vec<String>>,
    source: dagwright_model::id::Name,
    pub(crate) tally: Arc<SourceTally>,
    rejects: Rejects,
    batch_rows: usize,
    pub(crate) subject: Subject,
}

/// Decoded columns, of the sealed types; a value that did not fit is NULL.
pub(crate) struct Decoded {
    /// The columns.
    pub(crate) columns: Vec<ArrayRef>,
    /// How many rows.
    pub(crate) rows: usize,
    /// What did not fit: (row, column).
    pub(crate) misfits: Vec<(u32, u32)>,
}

/// How a rejected row is described.
pub(crate) trait Origin {
    /// Where the row stands, as `file:line`.
    fn position(&self, row: usize) -> Option<String>;
    /// Its values as text, without classified and masked ones.
    fn values(&self, row: usize) -> Map<String, Value>;
}

// === impl Finisher ===

impl Finisher {
    /// Prepares a read.
    pub(crate) fn new(read: &SourceRead, context: &ReadContext, subject: &Subject) -> Result<Self> {
        Ok(Self {
            schema: arrow_schema(&read.columns),
            filters: Filters::new(read, context, subject)?,
            lossy: read.lossy,
            names: Arc::new(read.columns.iter().map(|column| column.name.clone()).collect()),
            types: Arc::new(read.columns.iter().map(|column| column.data_type.to_string()).collect()),
            source: context.name.clone(),
            tally: context.tally.clone(),
            rejects: context.rejects.clone(),
            batch_rows: context.batch_rows.max(1),
            subject: subject.clone(),
        })
    }

    /// Sends a malformed record to the quarantine; from a blocking thread.
    pub(crate) fn reject_malformed(&self, reason: String, position: String, values: Map<String, Value>) -> Result<()> {
        self.tally.read.fetch_add(1, Relaxed);
        self.tally.quarantined.fetch_add(1, Relaxed);
        self.send(Reject { relation: self.source.clone(), reason, position: Some(position), values })
    }

    fn send(&self, reject: Reject) -> Result<()> {
        self.rejects.send_blocking(reject).map_err(|error| {
            self.subject
                .error(Code::Cancelled, "the quarantine is closed", "see the quarantine's own error")
                .caused_by(error)
        })
    }

    /// Judges decoded rows; from a blocking thread.
    ///
    /// # Errors
    /// DW0503 for a misfit and DW0305 for a NULL where the sealed column has none, unless `lossy` quarantines or
    /// nulls them; DW0309 and DW0502 from the filters.
    pub(crate) fn finish(&self, decoded: Decoded, origin: &dyn Origin) -> Result<Vec<RecordBatch>> {
        let Decoded { columns, rows, mut misfits } = decoded;
        if rows == 0 {
            return Ok(Vec::new());
        }
        misfits.sort_unstable();
        let mut reasons: Vec<(usize, String)> = Vec::new();
        match self.lossy {
            LossyCast::Reject => {
                if let Some((row, column)) = misfits.first() {
                    return Err(self.misfit(*row as usize, *column as usize, origin));
                }
            }
            LossyCast::Null => {}
            LossyCast::Quarantine => {
                for (row, column) in &misfits {
                    if reasons.last().is_none_or(|(last, _)| *last != *row as usize) {
                        reasons.push((*row as usize, self.reason(*column as usize)));
                    }
                }
            }
        }
        self.forbidden_nulls(&columns, &misfits, &mut reasons, origin)?;
        reasons.sort_by_key(|(row, _)| *row);
        reasons.dedup_by_key(|(row, _)| *row);
        let rejected = (!reasons.is_empty()).then(|| {
            let mut rejected = vec![false; rows];
            reasons.iter().for_each(|(row, _)| rejected[*row] = true);
            BooleanArray::from(rejected)
        });

        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.filters.schema.clone(), columns, &options)
            .map_err(|error| self.subject.internal("decoded columns do not fit the sealed schema").caused_by(error))?;
        let judged = self.filters.judge(&batch, rejected.as_ref())?;

        let mut quarantined = 0;
        for (row, reason) in reasons {
            if judged.after_cursor.as_ref().is_none_or(|after| after.value(row)) {
                quarantined += 1;
                let (position, values) = (origin.position(row), origin.values(row));
                self.send(Reject { relation: self.source.clone(), reason, position, values })?;
            }
        }
        let internal = |error| {
            self.subject
                .internal("rows do not filter")
                .caused_by(Box::<dyn std::error::Error + Send + Sync>::from(error))
        };
        let kept = match (judged.kept, rejected) {
            (Some(kept), Some(rejected)) => Some(and(&kept, &not(&rejected).map_err(internal)?).map_err(internal)?),
            (None, Some(rejected)) => Some(not(&rejected).map_err(internal)?),
            (kept, None) => kept,
        };
        let passed = kept.as_ref().map_or(rows, BooleanArray::true_count);
        if self.lossy == LossyCast::Null {
            let nulled =
                misfits.iter().filter(|(row, _)| kept.as_ref().is_none_or(|kept| kept.value(*row as usize))).count();
            self.tally.nulled.fetch_add(nulled as u64, Relaxed);
        }
        self.tally.read.fetch_add((passed + quarantined) as u64, Relaxed);
        self.tally.passed.fetch_add(passed as u64, Relaxed);
        self.tally.quarantined.fetch_add(quarantined as u64, Relaxed);
        self.tally.skipped.fetch_add((rows - passed - quarantined) as u64, Relaxed);
        if passed == 0 {
            return Ok(Vec::new());
        }
        let batch = match &kept {
            Some(kept) if passed < rows => {
                FilterBuilder::new(kept).optimize().build().filter_record_batch(&batch).map_err(internal)?
            }
            _ => batch,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(passed));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)
            .map_err(internal)?;
        Ok(self.pieces(batch))
    }

    /// Cuts a batch that is much larger than wanted into equal pieces.
    fn pieces(&self, batch: RecordBatch) -> Vec<RecordBatch> {
        let rows = batch.num_rows();
        let count = (rows + self.batch_rows / 2) / self.batch_rows;
        if count <= 1 {
            return vec![batch];
        }
        let size = rows.div_ceil(count);
        (0..rows).step_by(size).map(|at| batch.slice(at, size.min(rows - at))).collect()
    }

    /// Finds NULLs in columns that were sealed without.
    fn forbidden_nulls(
        &self,
        columns: &[ArrayRef],
        misfits: &[(u32, u32)],
        reasons: &mut Vec<(usize, String)>,
        origin: &dyn Origin,
    ) -> Result<()> {
        for (index, (field, column)) in self.schema.fields().iter().zip(columns).enumerate() {
            if field.is_nullable() || column.null_count() == 0 {
                continue;
            }
            let Some(nulls) = column.logical_nulls() else { continue };
            for row in (0..column.len()).filter(|row| nulls.is_null(*row)) {
                if self.lossy == LossyCast::Quarantine {
                    reasons.push((row, format!("column {:?}: NULL, and the column is sealed without", field.name())));
                    continue;
                }
                if misfits.iter().any(|(misfit, column)| *misfit as usize == row && *column as usize == index) {
                    return Err(self.misfit(row, index, origin));
                }
                let place = origin.position(row).map_or(String::new(), |position| format!(" at {position}"));
                return Err(self.subject.error(
                    Code::SourceDrifted,
                    format!("column {:?} is NULL{place}; it had no NULL when the plan was sealed", field.name()),
                    "plan again, so that the column may hold NULL; or mend the source",
                ));
            }
        }
        Ok(())
    }

    fn reason(&self, column: usize) -> String {
        format!("column {:?}: not {} {}", self.names[column], article(&self.types[column]), self.types[column])
    }

    fn misfit(&self, row: usize, column: usize, origin: &dyn Origin) -> crate::error::Error {
        let place = origin.position(row).map_or(String::new(), |position| format!(" at {position}"));
        self.subject.error(
            Code::CastFailed,
            format!("column {:?}{place} does not read as {}", self.names[column], self.types[column]),
            "mend the source, give the column another type, or set `policy.lossy_cast` to null or quarantine",
        )
    }
}

fn article(data_type: &str) -> &'static str {
    if data_type.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}
