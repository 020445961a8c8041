//! Removes what a run left in the staging area and in the systems it staged in.

use super::{Done, Failure, Task};
use crate::{staging, tally::SinkTally};

pub(super) async fn run(task: &Task) -> Result<Done, Failure> {
    staging::remove(&task.spec.pipeline, &task.run).await?;
    for connection in task.spec.connections.keys() {
        // Files have no connection; what they staged lies beside them and is removed when it is published.
        if !task.host.environment.connections.contains_key(connection) {
            continue;
        }
        let sink = task.host.connectors.sink_of(connection, &task.host.environment)?;
        sink.cleanup(connection, &task.write_context(SinkTally::shared())).await?;
    }
    Ok(Done::default())
}
