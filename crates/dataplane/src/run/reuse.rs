//! Stages that an earlier run of the same request completed: they need not be done again by the plan that follows.
//!
//! A staged relation says by what it was made: its *contract*, the hash of its task's work, connections and run, and of the
//! contracts of what it read. Where all that a task leaves is there under the task's own contract, the task is done. What the
//! sources hold is no part of it: a request reads them once.
//!
//! Only a first try finds such a thing. A task that is tried again, or cleared, does its work: perhaps because what is there
//! is not as it should be, or somebody wants it anew.

use std::collections::BTreeMap;

use dagwright_model::{
    canonical,
    id::Name,
    task::{Input, Move, Output},
};

use super::{Done, Task};
use crate::staging;

/// Returns the hash of everything that a task's staged relations depend on; `None` for a task that writes to sinks, or reads
/// what does not tell what it was made by.
pub(super) async fn contract(task: &Task, work: &Move) -> Option<String> {
    let leaves_only_relations = work.outputs.iter().all(|output| matches!(output, Output::Staged { .. }));
    if !leaves_only_relations || work.outputs.is_empty() {
        return None;
    }
    let mut read: BTreeMap<&Name, Vec<String>> = BTreeMap::new();
    for (relation, _) in work.inputs.iter().filter(|(_, input)| matches!(input, Input::Staged { .. })) {
        let parts = staging::made(&task.spec.pipeline, &task.run, relation, None).await.ok()?;
        let contracts: Option<Vec<_>> = parts.into_iter().map(|made| Some(made?.0.contract)).collect();
        read.insert(relation, contracts.filter(|contracts| !contracts.is_empty())?);
    }
    let run = &task.run;
    let of_run = (&run.base, &run.interval, &run.params, run.backfill, run.generation, &run.partition);
    Some(canonical::hash(&("staged", work, &task.spec.connections, of_run, read)))
}

/// Returns what a task did, where an earlier run of its request did it.
pub(super) async fn completed(task: &Task, work: &Move) -> Option<Done> {
    if task.run.attempt > 1 {
        return None;
    }
    let wanted = contract(task, work).await?;
    let partition = task.run.partition.as_ref().map_or(0, |partition| partition.index);
    let mut done = Done { repeated: true, ..Done::default() };
    for output in &work.outputs {
        let Output::Staged { relation } = output else { return None };
        // What cannot be looked at is made anew.
        let parts = staging::made(&task.spec.pipeline, &task.run, relation, Some(partition)).await.ok()?;
        let (made, cursors) = parts.into_iter().next()??;
        if made.contract != wanted {
            return None;
        }
        // Each tells what the whole task counted.
        done.counts = made.counts;
        done.cursors.extend(cursors.into_iter().map(|(source, seen)| (source, seen.value)));
    }
    Some(done)
}
