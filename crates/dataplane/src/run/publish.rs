//! Makes what partitioned moves staged for a sink visible, in one instant.

use dagwright_model::task::Publish;

use super::{Done, Failure, Task};
use crate::tally::SinkTally;

pub(super) async fn run(task: &Task, work: &Publish) -> Result<Done, Failure> {
    let context = task.write_context(SinkTally::shared());
    // How many instances were mapped is known to whoever starts this; 0 leaves it to what the parts say themselves.
    let partitions = task.run.partition.as_ref().map_or(0, |partition| partition.count);
    let counts = task.sink(&work.sink.locator)?.publish(&work.sink, partitions, &context).await?;
    let mut done = Done::default();
    done.counts.sinks.insert(work.sink.name.clone(), counts);
    Ok(done)
}
