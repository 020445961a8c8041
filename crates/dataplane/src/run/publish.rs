//! Makes what partitioned moves staged for a sink visible, in one instant.

use dagwright_model::task::Publish;

use super::{Done, Failure, Task};
use crate::{staging, tally::SinkTally};

pub(super) async fn run(task: &Task, work: &Publish) -> Result<Done, Failure> {
    let context = task.write_context(SinkTally::shared());
    // Nobody tells this task how many instances were mapped; they noted it before they staged.
    let partitions = staging::noted_partitions(&task.spec.pipeline, &task.run, &work.sink.name).await?;
    let counts = task.sink(&work.sink.locator)?.publish(&work.sink, partitions, &context).await?;
    let mut done = Done::default();
    done.counts.sinks.insert(work.sink.name.clone(), counts);
    Ok(done)
}
