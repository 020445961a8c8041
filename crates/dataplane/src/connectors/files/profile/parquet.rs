//! Profiles Parquet: from the footers, and from the rows where they are few enough.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use dagwright_model::{
    code::Code,
    facts::{Count, SourceProfile},
    schema::{Column, DataType},
    spec::FileFormat,
};
use futures::StreamExt;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, arrow_reader::statistics::StatisticsConverter};
use tokio::runtime::Handle;

use super::{
    super::{cast as casting, parquet_read::Opened},
    Observed, Question, sketch,
};
use crate::{
    error::Result,
    types::{arrow_type, model_column},
};

/// Up to this many rows are read whole.
const WHOLE_ROWS_MAX: u64 = 2_000_000;

/// How many rows are looked at otherwise.
const SAMPLED_ROWS: u64 = 200_000;

/// Profiles Parquet files.
pub(super) fn profile(question: &Question, runtime: &Handle) -> Result<SourceProfile> {
    let subject = &question.subject;
    let mut opened = Vec::with_capacity(question.files.len());
    for file in &question.files {
        opened.push(runtime.block_on(Opened::new(&question.location.store, file, subject))?);
    }
    let Some(first) = opened.first() else { return Ok(question.empty()) };
    let columns = columns(question, first)?;
    let rows: u64 = opened.iter().map(rows_of).sum();
    let complete = question.whole && rows <= WHOLE_ROWS_MAX;
    let names = columns.iter().map(|column| column.name.clone()).collect();
    let mut observed = Observed::new(names, question);
    for (state, column) in observed.columns.iter_mut().zip(&columns) {
        state.declare(&column.data_type);
    }
    let mut budget = if complete { u64::MAX } else { SAMPLED_ROWS.min(sketch::KEYS_MAX as u64) };
    for file in &opened {
        if budget == 0 {
            break;
        }
        budget -= read(file, &columns, budget, &mut observed, question, runtime)?;
    }
    let mut answer = question.answer(FileFormat::Parquet, observed, Count { value: rows, exact: true }, complete)?;
    for (index, (profile, column)) in answer.columns.iter_mut().zip(&columns).enumerate() {
        // What the footers say is true of all rows, and what they leave open may hold NULL.
        profile.column.nullable |= column.nullable && !complete;
        if !complete {
            profile.column.nullable = column.nullable && nulls(&opened, index) != Some(0);
        }
    }
    Ok(answer)
}

fn rows_of(opened: &Opened) -> u64 {
    u64::try_from(opened.metadata.metadata().file_metadata().num_rows()).unwrap_or_default()
}

fn columns(question: &Question, first: &Opened) -> Result<Vec<Column>> {
    let unknown = |name: &str| {
        question.subject.error(
            Code::SourceDrifted,
            format!("column {name:?} has a Parquet type that is not supported"),
            "write it as another type",
        )
    };
    first.schema().fields().iter().map(|field| model_column(field).ok_or_else(|| unknown(field.name()))).collect()
}

/// How many NULLs the footers name in a column; `None` when one of them does not say.
fn nulls(opened: &[Opened], index: usize) -> Option<u64> {
    let mut sum = 0;
    for file in opened {
        let metadata = file.metadata.metadata();
        let field = file.schema().fields().get(index)?;
        let converter =
            StatisticsConverter::try_new(field.name(), file.schema(), metadata.file_metadata().schema_descr()).ok()?;
        let counts = converter.row_group_null_counts(metadata.row_groups()).ok()?;
        if counts.null_count() > 0 {
            return None;
        }
        sum += counts.values().iter().sum::<u64>();
    }
    Some(sum)
}

/// Observes at most `most` rows of a file; returns how many.
fn read(
    opened: &Opened,
    columns: &[Column],
    most: u64,
    observed: &mut Observed,
    question: &Question,
    runtime: &Handle,
) -> Result<u64> {
    let subject = &question.subject;
    let metadata = opened.metadata.metadata();
    let mut roots = Vec::with_capacity(columns.len());
    for column in columns {
        roots.push(opened.schema().index_of(&column.name).map_err(|_| {
            subject.error(
                Code::SourceDrifted,
                format!("{} has no column {:?}, which other files of the source have", opened.name(), column.name),
                "use a pattern that matches files of one kind",
            )
        })?);
    }
    let mask = ProjectionMask::roots(metadata.file_metadata().schema_descr(), roots);
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(opened.reader(), opened.metadata.clone());
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let built = builder.with_projection(mask).with_limit(limit).build();
    let mut batches = built.map_err(|error| opened.unreadable(error, subject))?;
    let mut seen = 0;
    while let Some(batch) = runtime.block_on(batches.next()) {
        let batch = batch.map_err(|error| opened.unreadable(error, subject))?;
        observe(&batch, columns, observed, question)?;
        seen += batch.num_rows() as u64;
    }
    Ok(seen)
}

fn observe(batch: &RecordBatch, columns: &[Column], observed: &mut Observed, question: &Question) -> Result<()> {
    let schema = batch.schema();
    let mut texts: Vec<(ArrayRef, bool)> = Vec::with_capacity(columns.len());
    for column in columns {
        let impossible = || {
            question.subject.error(
                Code::SourceDrifted,
                format!("column {:?} does not have the same type in every file", column.name),
                "use a pattern that matches files of one kind",
            )
        };
        let at = schema.index_of(&column.name).map_err(|_| impossible())?;
        let converted =
            casting::convert(batch.column(at), schema.field(at), column, &mut Vec::new()).ok_or_else(impossible)?;
        let field = crate::types::arrow_field(column);
        let text = casting::texts(&converted, &field).ok_or_else(impossible)?;
        debug_assert_eq!(converted.data_type(), &arrow_type(&column.data_type));
        let string = matches!(column.data_type, DataType::String { .. } | DataType::Json);
        texts.push((std::sync::Arc::new(text), string));
    }
    for row in 0..batch.num_rows() {
        observed.row(question.whole, |column| {
            let (texts, string) = &texts[column];
            let texts = texts.as_string::<i32>();
            texts.is_valid(row).then(|| (texts.value(row).as_bytes(), *string))
        });
    }
    Ok(())
}
