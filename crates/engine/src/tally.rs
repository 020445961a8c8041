//! What a run counted, from what its tasks counted.

use std::collections::BTreeSet;

use dagwright_model::{
    id::TaskId,
    plan::{Plan, PlannedTask},
    task::{Counts, Outcome, Status, Work},
};

/// Returns the sum of what succeeded tasks counted, given the last outcomes of their instances.
///
/// Rows that partitions staged count when they were published: a sink has them from its publish task, or `loaded` stays 0.
/// `published` are the tasks that succeeded with all their instances.
pub(crate) fn sum<'a>(
    plan: &Plan,
    published: &BTreeSet<&TaskId>,
    outcomes: impl Iterator<Item = (&'a PlannedTask, &'a Outcome)>,
) -> Counts {
    let mut sum = Counts::default();
    for (task, outcome) in outcomes.filter(|(_, outcome)| outcome.status == Status::Succeeded) {
        sum.add(&accountable(plan, published, task, &outcome.counts));
    }
    sum
}

/// Returns what of a task's counts goes into the run's: what it staged for a publish task, that one counts.
fn accountable(plan: &Plan, published: &BTreeSet<&TaskId>, task: &PlannedTask, counts: &Counts) -> Counts {
    let mut counts = counts.clone();
    for publisher in &plan.tasks {
        match &publisher.spec.work {
            Work::Publish(publish) if publish.staged_by == task.spec.id => {
                if published.contains(&publisher.spec.id) {
                    counts.sinks.remove(&publish.sink.name);
                } else if let Some(staged) = counts.sinks.get_mut(&publish.sink.name) {
                    staged.loaded = 0;
                }
            }
            Work::Publish(_) | Work::Split(_) | Work::Move(_) | Work::Cleanup => {}
        }
    }
    counts
}
