//! Gives a relation's rows the sink's types, and finds the values that do not fit.
//!
//! A cast that loses nothing is Arrow's. A lossy one is checked value by value: what becomes NULL, or does not come
//! back when it is cast the other way, does not fit, and follows the request's policy. Nothing is lost silently.

mod column;

use std::collections::BTreeSet;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    buffer::BooleanBuffer,
    compute::{filter_record_batch, nullif},
    datatypes::{Field, SchemaRef},
};
use dagwright_model::{
    code::Code,
    id::Name,
    schema::{Column, Verdict},
    spec::LossyCast,
};
use serde_json::Map;

use crate::{
    error::{Error, Result},
    tally::Reject,
    types::{arrow_field, arrow_schema},
    values,
};

/// Gives batches of one relation the columns of one sink.
pub struct Caster {
    subject: Name,
    relation: Name,
    input: SchemaRef,
    output: SchemaRef,
    columns: Vec<ColumnCast>,
    lossy: LossyCast,
    classified: BTreeSet<String>,
    identity: bool,
}

/// What became of a batch.
pub struct Casted {
    /// The rows that fit.
    pub batch: RecordBatch,
    /// Values that became NULL.
    pub nulled: u64,
    /// The rows that did not fit.
    pub rejects: Vec<Reject>,
}

struct ColumnCast {
    index: usize,
    from: Field,
    to: Column,
    verdict: Verdict,
}

// === impl Caster ===

impl Caster {
    /// Prepares to write `relation`'s rows to `subject`'s columns.
    ///
    /// # Errors
    /// DW0120 when the relation lacks a column, or a column has no cast.
    pub fn new(
        subject: &Name,
        relation: &Name,
        from: &[Column],
        to: &[Column],
        lossy: LossyCast,
        classified: &BTreeSet<String>,
    ) -> Result<Self> {
        let misplanned = |message: String| {
            Error::new(Code::TaskSpecInvalid, subject.as_str(), message, "plan again; the sealed task does not fit")
        };
        let columns = to
            .iter()
            .map(|wanted| {
                let found = from.iter().enumerate().find(|(_, column)| column.name == wanted.name);
                let (index, column) =
                    found.ok_or_else(|| misplanned(format!("{relation} has no column {:?}", wanted.name)))?;
                let verdict = column.data_type.cast_to(&wanted.data_type);
                if verdict == Verdict::Impossible {
                    return Err(misplanned(format!(
                        "column {:?}: {} cannot become {}",
                        wanted.name, column.data_type, wanted.data_type
                    )));
                }
                Ok(ColumnCast { index, from: arrow_field(column), to: wanted.clone(), verdict })
            })
            .collect::<Result<Vec<_>>>()?;
        let nothing = |(place, cast): (usize, &ColumnCast)| {
            cast.index == place && cast.verdict == Verdict::Exact && (cast.to.nullable || !cast.from.is_nullable())
        };
        let identity = columns.len() == from.len() && columns.iter().enumerate().all(nothing);
        Ok(Self {
            subject: subject.clone(),
            relation: relation.clone(),
            input: arrow_schema(from),
            output: arrow_schema(to),
            columns,
            lossy,
            classified: classified.clone(),
            identity,
        })
    }

    /// Returns the schema of what comes out.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Casts a batch.
    ///
    /// # Errors
    /// DW0503 when a value does not fit and the policy is to reject.
    pub fn cast(&self, batch: &RecordBatch) -> Result<Casted> {
        let rows = batch.num_rows();
        if self.identity {
            let batch = self.assemble(batch.columns().to_vec(), rows)?;
            return Ok(Casted { batch, nulled: 0, rejects: Vec::new() });
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut nulled = 0;
        // By row: why it is rejected.
        let mut reasons: Vec<(BooleanArray, String)> = Vec::new();
        for cast in &self.columns {
            let source = batch.column(cast.index);
            let (mut array, misfits) = self.cast_column(cast, source)?;
            if let Some(misfits) = misfits.filter(|misfits| misfits.true_count() > 0) {
                let reason = format!("column {:?}: not {}", cast.to.name, article(&cast.to.data_type.to_string()));
                match self.lossy {
                    LossyCast::Reject => return Err(self.misfit(&reason, misfits.true_count())),
                    LossyCast::Null => {
                        array = nullif(&array, &misfits).map_err(|error| self.broken(error))?;
                        nulled += misfits.true_count() as u64;
                    }
                    LossyCast::Quarantine => reasons.push((misfits, reason)),
                }
            }
            if !cast.to.nullable && array.null_count() > 0 {
                let reason = format!("column {:?}: NULL is not allowed", cast.to.name);
                let nulls: BooleanArray = nulls_of(&array);
                match self.lossy {
                    LossyCast::Reject | LossyCast::Null => return Err(self.misfit(&reason, nulls.true_count())),
                    LossyCast::Quarantine => reasons.push((nulls, reason)),
                }
            }
            arrays.push(array);
        }
        if reasons.is_empty() {
            return Ok(Casted { batch: self.assemble(arrays, rows)?, nulled, rejects: Vec::new() });
        }
        let rejected = BooleanBuffer::collect_bool(rows, |row| reasons.iter().any(|(mask, _)| is_true(mask, row)));
        let rejects = rejected.set_indices().map(|row| self.reject(batch, row, &reasons)).collect();
        // Rejected rows may hold NULL where that is not allowed: they leave before the schema is applied.
        let keep = BooleanArray::new(!&rejected, None);
        let loose = self.loose(arrays, rows)?;
        let kept = filter_record_batch(&loose, &keep).map_err(|error| self.broken(error))?;
        let rows = kept.num_rows();
        Ok(Casted { batch: self.assemble(kept.columns().to_vec(), rows)?, nulled, rejects })
    }

    fn cast_column(&self, cast: &ColumnCast, source: &ArrayRef) -> Result<(ArrayRef, Option<BooleanArray>)> {
        if cast.verdict == Verdict::Exact {
            return Ok((source.clone(), None));
        }
        let to = arrow_field(&cast.to);
        let array = column::cast(source, &cast.from, &to).map_err(|error| self.broken(error))?;
        let misfits = match cast.verdict {
            Verdict::Lossy => Some(
                column::misfits(source, &cast.from, &array, &to, &cast.to.data_type)
                    .map_err(|error| self.broken(error))?,
            ),
            Verdict::Exact | Verdict::Lossless | Verdict::Impossible => None,
        };
        Ok((array, misfits))
    }

    fn assemble(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.output.clone(), arrays, &options).map_err(|error| self.broken(error))
    }

    fn loose(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let fields = self.output.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = arrow::datatypes::Schema::new(fields.collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.into(), arrays, &options).map_err(|error| self.broken(error))
    }

    fn reject(&self, batch: &RecordBatch, row: usize, reasons: &[(BooleanArray, String)]) -> Reject {
        let why: Vec<&str> =
            reasons.iter().filter(|(mask, _)| is_true(mask, row)).map(|(_, reason)| reason.as_str()).collect();
        Reject {
            relation: self.relation.clone(),
            reason: why.join("; "),
            position: None,
            values: row_values(batch, row, &self.input, &self.classified),
        }
    }

    fn misfit(&self, reason: &str, count: usize) -> Error {
        Error::new(
            Code::CastFailed,
            self.subject.as_str(),
            format!("{reason} ({count} of the rows looked at together)"),
            "set policy.lossy_cast to quarantine or null, clean the column in a step, or give the sink another type",
        )
    }

    fn broken(&self, error: arrow::error::ArrowError) -> Error {
        // Arrow's messages quote values; only the kind of failure is kept.
        let kind = match error {
            arrow::error::ArrowError::InvalidArgumentError(_) => "its rows do not have the sealed columns",
            _ => "its rows could not be cast to the sink's types",
        };
        Error::new(Code::CastFailed, self.subject.as_str(), kind, "plan again, so that types are negotiated anew")
    }
}

/// Returns a row's values by column, those of classified columns left out.
#[must_use]
pub fn row_values(
    batch: &RecordBatch,
    row: usize,
    schema: &SchemaRef,
    classified: &BTreeSet<String>,
) -> Map<String, serde_json::Value> {
    let open = schema.fields().iter().enumerate().filter(|(_, field)| !classified.contains(field.name()));
    open.map(|(index, field)| (field.name().clone(), values::json(batch.column(index), row, field))).collect()
}

fn nulls_of(array: &ArrayRef) -> BooleanArray {
    BooleanArray::new(BooleanBuffer::collect_bool(array.len(), |row| array.is_null(row)), None)
}

fn is_true(mask: &BooleanArray, row: usize) -> bool {
    mask.is_valid(row) && mask.value(row)
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']) && !noun.starts_with("uuid");
    format!("{} {noun}", if vowel { "an" } else { "a" })
}
