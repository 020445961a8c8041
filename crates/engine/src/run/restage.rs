//! What an earlier task staged may be gone: its disk was lost, or a machine goes on with the run that has another one.
//!
//! Then the tasks that staged it run again, before the one that missed it is tried again. Only staging is repeated, whose
//! effect nobody sees; what was loaded stays, and is not loaded again.

use std::{collections::BTreeSet, sync::Arc};

use dagwright_model::{
    code::Code,
    id::Name,
    plan::PlannedTask,
    record::TaskInstance,
    task::{Input, Output, Work},
};

use super::{Phase, Run};

impl Run {
    /// Has the tasks run again that staged what a task reads which failed over the staging area. They may have been fine:
    /// the area itself was out of reach, and its content is only staged once more.
    pub(super) fn restage(&mut self, failed: &TaskInstance) {
        let outcome = self.instance(failed).and_then(|instance| instance.outcome.as_ref());
        let code = outcome.and_then(|outcome| outcome.problem.as_ref()).map(|problem| problem.code);
        let plan = Arc::clone(&self.plan);
        let (Some(Code::StagingUnavailable), Some(reader)) = (code, self.planned(&failed.task)) else { return };
        let read = staged_inputs(reader);
        for (planned, task) in plan.tasks.iter().zip(&mut self.tasks) {
            if staged_outputs(planned).any(|relation| read.contains(relation)) {
                let again = task.instances.iter_mut().flatten().filter(|instance| instance.has_succeeded());
                again.for_each(|instance| instance.phase = Phase::Waiting);
            }
        }
    }
}

fn staged_inputs(task: &PlannedTask) -> BTreeSet<Name> {
    let Work::Move(work) = &task.spec.work else { return BTreeSet::new() };
    let staged = work.inputs.iter().filter(|(_, input)| matches!(input, Input::Staged { .. }));
    staged.map(|(relation, _)| relation.clone()).collect()
}

fn staged_outputs(task: &PlannedTask) -> impl Iterator<Item = &Name> {
    let outputs = match &task.spec.work {
        Work::Move(work) => work.outputs.as_slice(),
        Work::Split(_) | Work::Publish(_) | Work::Cleanup => &[],
    };
    outputs.iter().filter_map(|output| match output {
        Output::Staged { relation } => Some(relation),
        Output::Sink(_) => None,
    })
}
