//! Lists the partitions of a source as they are now.

use dagwright_model::task::Split;

use super::{Done, Failure, Task};
use crate::tally::{Rejects, SourceTally};

pub(super) async fn run(task: &Task, work: &Split) -> Result<Done, Failure> {
    // Splitting reads no rows, so nothing can be rejected: the receiving end is not needed.
    let (rejects, _) = Rejects::channel();
    let context = task.read_context(&work.source, SourceTally::shared(), rejects);
    let source = task.host.connectors.source(&work.read.locator, &task.host.environment)?;
    let partitions = source.split(work, &context).await?;
    Ok(Done { partitions, ..Done::default() })
}
