//! Lets joins without an equality spill where DataFusion does it right, and keeps the others from trying.
//!
//! Such a join holds its left side in memory. When that does not fit, DataFusion's nested loop goes through it in
//! portions. It computes the left side a second time for this, which streams that can be read once do not allow; and for
//! outer and semi joins it loses or repeats rows without a partner. A product is another operator, which cannot spill at
//! all. So a frugal session keeps the left side of inner joins in a file that can be read again, and computes products by
//! nested loops; whatever else asks a second time is told that memory is short.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use datafusion::{
    common::{
        JoinType,
        config::ConfigOptions,
        internal_err, resources_err,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    execution::{SendableRecordBatchStream, SpillFile, TaskContext},
    physical_expr::PhysicalExpr,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, PlanProperties,
        ReplaceChildrenOptions, SpillManager,
        joins::{CrossJoinExec, NestedLoopJoinExec},
        metrics::{ExecutionPlanMetricsSet, SpillMetrics},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

/// Prepares joins without an equality for the case that memory does not hold their left side.
#[derive(Debug)]
pub(super) struct NestedLoops {
    /// Whether they must get by with little memory; else they may say that it is short.
    pub(super) frugal: bool,
}

/// The left side of a nested loop.
struct LeftExec {
    input: Arc<dyn ExecutionPlan>,
    again: Again,
    metrics: ExecutionPlanMetricsSet,
}

/// What happens when the left side is asked for again.
#[derive(Clone)]
enum Again {
    /// Memory is short; set once it was asked for at all.
    Refused(Arc<AtomicBool>),
    /// It is read from a file, as it was the first time; `None` when there were no rows.
    Kept(Arc<OnceCell<Option<Arc<dyn SpillFile>>>>),
}

// === impl NestedLoops ===

impl PhysicalOptimizerRule for NestedLoops {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let product = node.downcast_ref::<CrossJoinExec>().filter(|_| self.frugal);
            let node: Arc<dyn ExecutionPlan> = match product {
                Some(product) => {
                    let (left, right) = (product.left().clone(), product.right().clone());
                    Arc::new(NestedLoopJoinExec::try_new(left, right, None, &JoinType::Inner, None)?)
                }
                None => node,
            };
            let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else { return Ok(Transformed::no(node)) };
            let kept = self.frugal && *join.join_type() == JoinType::Inner;
            let (left, right) = (Arc::new(LeftExec::new(join.left().clone(), kept)), join.right().clone());
            Ok(Transformed::yes(
                node.replace_children(
                    vec![left, right],
                    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
                )?,
            ))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "nested_loops"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

// === impl LeftExec ===

impl LeftExec {
    fn new(input: Arc<dyn ExecutionPlan>, kept: bool) -> Self {
        let again = if kept { Again::Kept(Arc::default()) } else { Again::Refused(Arc::default()) };
        Self { input, again, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn replaced(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(Self::new(input, matches!(self.again, Again::Kept(_))))),
            _ => internal_err!("the left side has one input"),
        }
    }
}

impl fmt::Debug for LeftExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeftExec").field("kept", &matches!(self.again, Again::Kept(_))).finish_non_exhaustive()
    }
}

impl DisplayAs for LeftExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeftExec: kept={}", matches!(self.again, Again::Kept(_)))
    }
}

impl ExecutionPlan for LeftExec {
    fn name(&self) -> &'static str {
        "LeftExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replaced(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replaced(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let kept = match &self.again {
            Again::Refused(asked) if asked.swap(true, Relaxed) => {
                return resources_err!("the left side of a join does not fit in memory");
            }
            Again::Refused(_) => return self.input.execute(partition, context),
            Again::Kept(kept) => kept.clone(),
        };
        let (input, schema) = (self.input.clone(), self.schema());
        let metrics = SpillMetrics::new(&self.metrics, partition);
        let manager = SpillManager::new(context.runtime_env(), metrics, schema.clone());
        let read = async move {
            let keep = async || {
                let mut rows = input.execute(partition, context.clone())?;
                let mut file = manager.create_in_progress_file("the left side of a join")?;
                while let Some(batch) = rows.next().await {
                    file.append_batch(&batch?)?;
                }
                file.finish()
            };
            match kept.get_or_try_init(keep).await? {
                Some(file) => manager.read_spill_as_stream(file.clone(), None),
                None => Ok(Box::pin(EmptyRecordBatchStream::new(input.schema())) as SendableRecordBatchStream),
            }
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(read).try_flatten())))
    }
}
