//! Two nodes of physical plans: where streams enter, and where a step's rows are counted.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{Array, RecordBatch, RecordBatchOptions, UInt64Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
};
use datafusion::{
    common::{Statistics, internal_err, stats::Precision, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        StatisticsArgs,
        execution_plan::{Boundedness, EmissionType, SchedulingType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};

use super::{
    failure::{run_failure, wrap},
    relation::{Opener, Relation, Size},
};

/// Streams from outside, as the leaf of a plan.
pub(super) struct StreamsExec {
    schema: SchemaRef,
    openers: Vec<Opener>,
    projection: Option<Vec<usize>>,
    size: Option<Size>,
    properties: Arc<PlanProperties>,
}

/// Counts the rows of a step and names it in failures.
pub(super) struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    relation: Arc<Relation>,
    properties: Arc<PlanProperties>,
}

// === impl StreamsExec ===

impl StreamsExec {
    /// Makes a leaf over streams that have `schema` before the projection.
    pub(super) fn try_new(
        schema: &SchemaRef,
        openers: Vec<Opener>,
        projection: Option<&[usize]>,
        size: Option<Size>,
    ) -> Result<Self> {
        let schema = match projection {
            Some(indices) => Arc::new(schema.project(indices)?),
            None => schema.clone(),
        };
        let properties = Arc::new(properties(&schema, openers.len()));
        Ok(Self { schema, openers, projection: projection.map(<[usize]>::to_vec), size, properties })
    }
}

impl fmt::Debug for StreamsExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsExec").field("streams", &self.openers.len()).finish_non_exhaustive()
    }
}

impl DisplayAs for StreamsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamsExec: streams={}, projection={:?}", self.openers.len(), self.projection)
    }
}

impl ExecutionPlan for StreamsExec {
    fn name(&self) -> &'static str {
        "StreamsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(opener) = self.openers.get(partition) else {
            return internal_err!("there is no stream {partition}");
        };
        let schema = self.schema.clone();
        let stream = opener(self.projection.as_deref()).map(move |batch| {
            let batch = batch.map_err(wrap)?;
            relabelled(&batch, &schema)
        });
        let Some((rows_max, bytes_max)) = super::batch_bounds(&context) else {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)));
        };
        let pieces = stream.flat_map(move |batch| stream::iter(cut(batch, rows_max, bytes_max)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), pieces)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let (Some(size), None) = (self.size, args.partition()) {
            let precise = |value: u64| {
                let value = usize::try_from(value).unwrap_or(usize::MAX);
                if size.exact { Precision::Exact(value) } else { Precision::Inexact(value) }
            };
            statistics.num_rows = precise(size.rows);
            statistics.total_byte_size = precise(size.bytes).to_inexact();
        }
        Ok(Arc::new(statistics))
    }
}

// === impl TapExec ===

impl TapExec {
    /// Makes a node that gives the rows of `input` the (projected) schema of its relation.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, schema: SchemaRef, relation: Arc<Relation>) -> Self {
        let properties = Arc::new(properties(&schema, input.properties().partitioning.partition_count()));
        Self { input, schema, relation, properties }
    }
}

impl fmt::Debug for TapExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapExec").field("relation", &self.relation.name).finish_non_exhaustive()
    }
}

impl DisplayAs for TapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TapExec: relation={}", self.relation.name)
    }
}

impl ExecutionPlan for TapExec {
    fn name(&self) -> &'static str {
        "TapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => {
                Ok(Arc::new(Self::new(input, self.schema.clone(), self.relation.clone())))
            }
            _ => internal_err!("a tap has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => {
                Ok(Arc::new(Self::new(input, self.schema.clone(), self.relation.clone())))
            }
            _ => internal_err!("a tap has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (schema, relation) = (self.schema.clone(), self.relation.clone());
        let name = |relation: &Relation, error: &DataFusionError| wrap(run_failure(relation.name.as_str(), error));
        let input = self.input.execute(partition, context).map_err(|error| name(&relation, &error))?;
        let stream = input.map(move |batch| {
            let batch = batch.map_err(|error| name(&relation, &error))?;
            relation.rows.fetch_add(batch.num_rows() as u64, Relaxed);
            relabelled(&batch, &schema)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }

    fn child_stats_requests(&self, _: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let (Some(input), None) = (inputs.first(), args.partition()) {
            statistics.num_rows = input.num_rows.to_inexact();
            statistics.total_byte_size = input.total_byte_size.to_inexact();
        }
        Ok(Arc::new(statistics))
    }
}

fn properties(schema: &SchemaRef, streams: usize) -> PlanProperties {
    PlanProperties::new(
        EquivalenceProperties::new(schema.clone()),
        Partitioning::UnknownPartitioning(streams),
        EmissionType::Incremental,
        Boundedness::Bounded,
    )
    .with_scheduling_type(SchedulingType::NonCooperative)
}

/// Gives a batch the schema it is known by; the columns stay.
fn relabelled(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}

/// Cuts a batch in pieces of at most so many rows and bytes, but a row at least; each owns its memory, so that it counts
/// for what it is.
fn cut(batch: Result<RecordBatch>, rows_max: usize, bytes_max: usize) -> Vec<Result<RecordBatch>> {
    let batch = match batch {
        Ok(batch) if batch.num_rows() > 1 => batch,
        other => return vec![other],
    };
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_default());
    let row_bytes = sizes.sum::<usize>().div_ceil(batch.num_rows()).max(1);
    let rows = (bytes_max / row_bytes).clamp(1, rows_max.max(1));
    if rows >= batch.num_rows() {
        return vec![Ok(batch)];
    }
    let piece = |start: usize| {
        let end = (start + rows).min(batch.num_rows());
        let indices: UInt64Array = (start as u64..end as u64).collect::<Vec<_>>().into();
        Ok(take_record_batch(&batch, &indices)?)
    };
    (0..batch.num_rows()).step_by(rows).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, RecordBatch, StringArray};

    use super::cut;

    #[test]
    fn batches_are_cut_by_rows_and_by_bytes() {
        let texts: StringArray = (0..100).map(|row| Some(format!("{row:0>1000}"))).collect();
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as _)]).unwrap();
        for (rows_max, bytes_max, wanted) in [(1000, 1 << 20, 1), (30, 1 << 20, 4), (1000, 10_500, 10), (1000, 1, 100)]
        {
            let pieces: Vec<RecordBatch> = cut(Ok(batch.clone()), rows_max, bytes_max).into_iter().flatten().collect();
            assert_eq!(pieces.len(), wanted, "{rows_max} rows, {bytes_max} bytes");
            let texts = pieces.iter().flat_map(|piece| piece.column(0).as_string::<i32>().iter().flatten());
            assert!(texts.eq(batch.column(0).as_string::<i32>().iter().flatten()));
        }
        let halves = cut(Ok(batch.slice(0, 50)), 25, 1 << 20);
        assert!(
            halves.iter().flatten().all(|half| half.column(0).get_array_memory_size() < 30_000),
            "memory of its own"
        );
        assert_eq!(cut(Ok(batch.slice(0, 0)), 1, 1).len(), 1);
    }
}
