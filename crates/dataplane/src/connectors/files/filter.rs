//! Passes over rows early: those at or before the cursor, and those that no step needs.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch, Scalar},
    compute::{
        and, is_not_null,
        kernels::cmp::{gt, gt_eq, lt},
        prep_null_mask_filter,
    },
    datatypes::{Schema, SchemaRef},
};
use dagwright_model::{
    code::Code,
    schema::{Column, DataType},
    task::SourceRead,
};
use datafusion::{
    common::{DFSchema, ScalarValue, tree_node::TreeNode},
    logical_expr::{Expr, Operator},
    physical_expr::expressions::{self as physical, BinaryExpr},
    physical_plan::PhysicalExpr,
    prelude::SessionContext,
};

use super::{
    column::{Cells, Syntax},
    csv::{Form, Span},
    fault::Subject,
};
use crate::{connectors::ReadContext, error::Result, types::arrow_field};

/// What a read passes over.
#[derive(Clone)]
pub(crate) struct Filters {
    /// The sealed columns, every one nullable: rows are judged before it is known whether they may be.
    pub(crate) schema: SchemaRef,
    /// The predicates.
    pub(crate) predicates: Vec<Arc<dyn PhysicalExpr>>,
    cursor: Option<CursorBound>,
    subject: Subject,
}

#[derive(Clone)]
struct CursorBound {
    name: String,
    index: usize,
    after: Option<ArrayRef>,
    /// For a backfill: from (inclusive), to (exclusive).
    between: Option<(ArrayRef, ArrayRef)>,
}

/// What was judged of a batch.
pub(crate) struct Judgement {
    /// Rows after the cursor; `None`: all.
    pub(crate) after_cursor: Option<BooleanArray>,
    /// Rows to keep as far as cursor and predicates go; `None`: all.
    pub(crate) kept: Option<BooleanArray>,
}

// === impl Filters ===

impl Filters {
    /// Plans the filters of a read.
    pub(crate) fn new(read: &SourceRead, context: &ReadContext, subject: &Subject) -> Result<Self> {
        let nullable = |column: &Column| arrow_field(&Column { nullable: true, ..column.clone() });
        let schema = Arc::new(Schema::new(read.columns.iter().map(nullable).collect::<Vec<_>>()));
        let predicates = predicates(&read.filters, &schema, context.name.as_str(), subject)?;
        let cursor = CursorBound::new(read, context, subject)?;
        Ok(Self { schema, predicates, cursor, subject: subject.clone() })
    }

    /// Returns what must hold of every row kept, for pruning by statistics.
    pub(crate) fn necessary(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let after = self.cursor.as_ref().and_then(|bound| {
            let literal = ScalarValue::try_from_array(bound.after.as_ref()?, 0).ok()?;
            let column = Arc::new(physical::Column::new(&bound.name, bound.index));
            let after = BinaryExpr::new(column, Operator::Gt, Arc::new(physical::Literal::new(literal)));
            Some(Arc::new(after) as Arc<dyn PhysicalExpr>)
        });
        self.predicates.iter().cloned().chain(after).collect()
    }

    /// Judges a batch of [`Self::schema`].
    ///
    /// # Errors
    /// DW0309 when a cursor is NULL, DW0502 when a predicate fails on the data.
    pub(crate) fn judge(&self, batch: &RecordBatch, rejected: Option<&BooleanArray>) -> Result<Judgement> {
        let after_cursor = match &self.cursor {
            Some(bound) => bound.judge(batch, rejected, &self.subject)?,
            None => None,
        };
        let mut kept = after_cursor.clone();
        for predicate in &self.predicates {
            let failed = |error| {
                let hint = "cast or guard the values the filter uses";
                self.subject.error(Code::SqlFailed, "an early filter failed on the data", hint).caused_by(Box::<
                    dyn std::error::Error + Send + Sync,
                >::from(
                    error
                ))
            };
            let found =
                predicate.evaluate(batch).and_then(|value| value.into_array(batch.num_rows())).map_err(failed)?;
            let Some(found) = found.as_any().downcast_ref::<BooleanArray>() else {
                return Err(self.subject.internal("an early filter is not a predicate"));
            };
            let found = if found.null_count() > 0 { prep_null_mask_filter(found) } else { found.clone() };
            kept = Some(match kept {
                Some(kept) => and(&kept, &found)
                    .map_err(|error| self.subject.internal("filters differ in length").caused_by(error))?,
                None => found,
            });
        }
        Ok(Judgement { after_cursor, kept })
    }
}

/// Plans predicates over a schema; those with binds are left to the transform, which applies every one again.
fn predicates(
    texts: &[String],
    schema: &SchemaRef,
    name: &str,
    subject: &Subject,
) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error| {
        let hint = "this task's plan does not match its sources; plan again";
        subject
            .error(Code::TaskSpecInvalid, "an early filter does not plan", hint)
            .caused_by(Box::<dyn std::error::Error + Send + Sync>::from(error))
    };
    let session = SessionContext::new();
    let qualified = DFSchema::try_from_qualified_schema(name, schema).map_err(failed)?;
    let mut planned = Vec::new();
    for text in texts {
        let predicate = session.parse_sql_expr(text, &qualified).map_err(failed)?;
        let bound = predicate.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).map_err(failed)?;
        if !bound {
            planned.push(session.create_physical_expr(predicate, &qualified).map_err(failed)?);
        }
    }
    Ok(planned)
}

// === impl CursorBound ===

impl CursorBound {
    fn new(read: &SourceRead, context: &ReadContext, subject: &Subject) -> Result<Option<Self>> {
        let Some(incremental) = &read.incremental else { return Ok(None) };
        let name = incremental.incremental.cursor.clone();
        let Some(index) = read.columns.iter().position(|column| column.name == name) else {
            let hint = "this task's plan does not match its sources; plan again";
            return Err(subject.error(
                Code::TaskSpecInvalid,
                format!("the cursor {name:?} is not among the columns read"),
                hint,
            ));
        };
        let column = &read.columns[index];
        let scalar = |text: &str| scalar(text, column, subject);
        let (mut after, mut between) = (None, None);
        if context.run.backfill {
            if let Some(interval) = &context.run.interval {
                between = Some((scalar(&interval.start)?, scalar(&interval.end)?));
            }
        } else {
            let start = context.after_cursor.as_ref().or(incremental.incremental.initial_value.as_ref());
            after = start.map(|text| scalar(text)).transpose()?;
        }
        Ok(Some(Self { name, index, after, between }))
    }

    fn judge(
        &self,
        batch: &RecordBatch,
        rejected: Option<&BooleanArray>,
        subject: &Subject,
    ) -> Result<Option<BooleanArray>> {
        let cursor = batch.column(self.index);
        if cursor.null_count() > 0 {
            let valid =
                is_not_null(cursor).map_err(|error| subject.internal("a cursor has no validity").caused_by(error))?;
            let unexcused =
                (0..valid.len()).any(|row| !valid.value(row) && rejected.is_none_or(|rejected| !rejected.value(row)));
            if unexcused {
                return Err(subject.error(
                    Code::CursorInvalid,
                    format!("the cursor {:?} is NULL in a row: an incremental read would never load it", self.name),
                    "choose a cursor that always holds a value, or read the source in full",
                ));
            }
        }
        let failed = |error| {
            subject
                .internal("a cursor does not compare")
                .caused_by(Box::<dyn std::error::Error + Send + Sync>::from(error))
        };
        let found = match (&self.after, &self.between) {
            (Some(after), _) => gt(cursor, &Scalar::new(after.clone())).map_err(failed)?,
            (None, Some((from, to))) => {
                let from = gt_eq(cursor, &Scalar::new(from.clone())).map_err(failed)?;
                and(&from, &lt(cursor, &Scalar::new(to.clone())).map_err(failed)?).map_err(failed)?
            }
            (None, None) => return Ok(None),
        };
        // A rejected row without a cursor is not passed over: it goes to the quarantine.
        Ok(Some(match found.nulls() {
            Some(nulls) => {
                BooleanArray::from_iter((0..found.len()).map(|row| Some(nulls.is_null(row) || found.value(row))))
            }
            None => found,
        }))
    }
}

/// Reads a cursor's text as one value of its column; a day or an instant may stand for each other.
fn scalar(text: &str, column: &Column, subject: &Subject) -> Result<ArrayRef> {
    let day_start = format!("{text}T00:00:00Z");
    let local = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"));
    let candidates = match column.data_type {
        DataType::Date => [Some(text), text.get(..10), None],
        DataType::Timestamp => [Some(text), local, None],
        DataType::TimestampTz => [Some(text), Some(day_start.as_str()), None],
        _ => [Some(text), None, None],
    };
    for candidate in candidates.into_iter().flatten() {
        let spans = [Span::new(0, candidate.len(), Form::Quoted)];
        let cells = Cells { bytes: candidate.as_bytes(), spans: &spans, width: 1, slot: 0, syntax: &Syntax::JSON };
        let mut misfits = Vec::new();
        let array = cells.array(&column.data_type, &mut misfits);
        if misfits.is_empty() {
            return Ok(array);
        }
    }
    let message = format!("where the cursor {:?} continues does not read as {}", column.name, column.data_type);
    Err(subject.error(
        Code::CursorInvalid,
        message,
        "check `incremental.initial_value`, or whether the column's type changed",
    ))
}
