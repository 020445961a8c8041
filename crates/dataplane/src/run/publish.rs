//! Makes what partitioned moves staged for a sink visible, in one instant.

use dagwright_model::{code::Code, task::Publish};

use super::{Done, Failure, Task};
use crate::{error::Error, tally::SinkTally};

pub(super) async fn run(task: &Task, work: &Publish) -> Result<Done, Failure> {
    let context = task.write_context(SinkTally::shared());
    // Publishing fewer parts than were staged would lose rows without a word, so whoever starts this must say.
    let Some(partition) = &task.run.partition else {
        let message = "a publish task needs one of the partitions that were staged, for their count";
        return Err(Error::new(
            Code::TaskSpecInvalid,
            work.sink.name.as_str(),
            message,
            "start it from the sealed plan",
        )
        .into());
    };
    let counts = task.sink(&work.sink.locator)?.publish(&work.sink, partition.count, &context).await?;
    let mut done = Done::default();
    done.counts.sinks.insert(work.sink.name.clone(), counts);
    Ok(done)
}
