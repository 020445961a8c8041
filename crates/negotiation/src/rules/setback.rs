//! What a run that ran out of memory has shown: the same way, and every way that holds as much at a time, is no way.
//!
//! | ran out | fused | staged | in n parts |
//! |---|---|---|---|
//! | fused | no | yes | yes |
//! | staged | no | no | yes |
//! | in n parts | no | yes | in more than n |
//!
//! Fused holds readers, steps and writers at a time, so it is no way after any of them. Staged takes them one after the other,
//! each with the whole budget. Of more parts each holds less.

use dagwright_model::{
    facts::SplitProfile,
    id::Name,
    message::{Conflict, ConflictKind, Parts, Placement, Role},
    record::FailureClass,
    setback::Setback,
    task::SplitBy,
    units::ByteSize,
};

use super::{conflict, partition, remedy};
use crate::{case::Case, participants::transformation};

/// How many times as many parts are offered after a run in parts ran out of memory.
const MORE_PARTS: u32 = 4;

/// Returns why a placement is no way, if so; which number of parts is one, [`parts`] says.
#[must_use]
pub fn placement(case: Case<'_>, placement: Placement) -> Option<Conflict> {
    let rules_out = |setback: &&Setback| match (setback.placement, placement) {
        (_, Placement::Fused) | (Placement::Staged, Placement::Staged) => true,
        (Placement::Fused | Placement::Mapped, Placement::Staged) | (_, Placement::Mapped) => false,
    };
    let setback = out_of_memory(case).find(rules_out)?;
    Some(objection(Role::Transformation, transformation::SUBJECT, setback))
}

/// Returns why a number of parts is no way, if so.
#[must_use]
pub fn parts(case: Case<'_>, source: &Name, parts: &Parts) -> Option<Conflict> {
    let setback = out_of_memory(case).find(|setback| setback.parts.is_some_and(|tried| parts.count_max <= tried))?;
    Some(objection(Role::Extraction, source.as_str(), setback))
}

/// Returns in how many more parts a source can be read than when that ran out of memory; `None` where it did not, or
/// where there are no more.
#[must_use]
pub fn more_parts(case: Case<'_>, source: &Name) -> Option<Parts> {
    let tried = out_of_memory(case).filter_map(|setback| setback.parts).max()?;
    let Parts { by, .. } = partition::parts(case, source).ok()?;
    let whole_files = case.profile(source)?.splits.iter().find_map(|split| match split {
        SplitProfile::Files { count } => Some(u32::try_from(*count).unwrap_or(u32::MAX)),
        SplitProfile::KeyRange { .. } => None,
    });
    let most = match by {
        SplitBy::Files => whole_files.unwrap_or(partition::PARTS_MAX).min(partition::PARTS_MAX),
        SplitBy::KeyRange(_) => partition::PARTS_MAX,
    };
    let count_max = tried.saturating_mul(MORE_PARTS).min(most);
    (count_max > tried).then_some(Parts { by, count_max })
}

fn out_of_memory(case: Case<'_>) -> impl Iterator<Item = &Setback> {
    case.facts.setbacks.iter().filter(|setback| setback.class == FailureClass::Resources)
}

fn objection(owner: Role, subject: &str, setback: &Setback) -> Conflict {
    let how = match (setback.placement, setback.parts) {
        (Placement::Mapped, Some(parts)) => format!("in {parts} parts at most"),
        (placement, _) => placement.as_str().to_owned(),
    };
    let over = match &setback.task {
        Some(task) => {
            let peak = match task.memory_peak_bytes {
                0 => String::new(),
                bytes => format!(", at its peak {}", ByteSize(bytes.div_ceil(1 << 20) << 20)),
            };
            format!("task {} ran out of its {}{peak} (exit {})", task.instance, task.memory_max, task.exit)
        }
        None => format!("the run did not have what it needs ({})", setback.problem.code),
    };
    let message = format!("version {} of the plan did it {how}, and {over}", setback.version);
    let mut found = conflict(ConflictKind::Memory, owner, subject, message);
    found.remedies.push(remedy("goals.memory_max", "allow more"));
    found.remedies.push(remedy("sources", "split the pipeline, so that fewer sources meet in one task"));
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use dagwright_model::{
        code::Code,
        id::{PlanHash, TaskId},
        message::{Placement, Role},
        record::{FailureClass, TaskInstance},
        setback::{FailedTask, Setback},
        task::Problem,
        units::ByteSize,
    };

    use crate::rules::fixture::Fixture;

    /// A run that ran out of 64 MiB.
    pub(crate) fn setback(version: u32, placement: Placement, parts: Option<u32>) -> Setback {
        Setback {
            version,
            plan_hash: PlanHash("ab".repeat(32)),
            class: FailureClass::Resources,
            task: Some(FailedTask {
                instance: TaskInstance { task: TaskId("load_warehouse".into()), map_index: parts.map(|_| 0) },
                role: Role::Loading,
                exit: 15,
                memory_max: ByteSize(64 << 20),
                memory_peak_bytes: 70 << 20,
            }),
            placement,
            parts,
            problem: Problem {
                code: Code::MemoryExhausted,
                subject: "load_warehouse".into(),
                message: "m".into(),
                hint: "h".into(),
            },
            left: 1,
        }
    }

    #[track_caller]
    fn check(setbacks: Vec<Setback>, ways: &[Placement], more: Option<u32>) {
        let mut fixture = Fixture::table();
        fixture.facts.setbacks = setbacks;
        let all = [Placement::Fused, Placement::Staged, Placement::Mapped];
        let left: Vec<_> =
            all.into_iter().filter(|placement| super::placement(fixture.case(), *placement).is_none()).collect();
        assert_eq!(left, ways);
        let found = super::more_parts(fixture.case(), &fixture.source).map(|parts| parts.count_max);
        assert_eq!(found, more);
    }

    #[test]
    fn what_holds_as_much_is_no_way_again() {
        use Placement::{Fused, Mapped, Staged};
        check(vec![], &[Fused, Staged, Mapped], None);
        check(vec![setback(1, Fused, None)], &[Staged, Mapped], None);
        check(vec![setback(1, Staged, None)], &[Mapped], None);
        check(vec![setback(1, Mapped, Some(2))], &[Staged, Mapped], Some(8));
        check(vec![setback(1, Mapped, Some(2)), setback(2, Mapped, Some(8))], &[Staged, Mapped], Some(32));
        check(vec![setback(1, Mapped, Some(64))], &[Staged, Mapped], None);
        let drifted = Setback { class: FailureClass::SchemaDrift, ..setback(1, Fused, None) };
        check(vec![drifted], &[Fused, Staged, Mapped], None);
    }

    #[test]
    fn files_are_no_more_parts_than_they_are() {
        for (files, wanted) in [(2, None), (5, Some(5)), (40, Some(8))] {
            let mut fixture = Fixture::files(files);
            fixture.facts.setbacks = vec![setback(1, Placement::Mapped, Some(2))];
            let found = super::more_parts(fixture.case(), &fixture.source).map(|parts| parts.count_max);
            assert_eq!(found, wanted, "{files} files");
        }
    }

    #[test]
    fn the_setback_is_named() {
        let mut fixture = Fixture::table();
        fixture.facts.setbacks = vec![setback(1, Placement::Fused, None)];
        let found = super::placement(fixture.case(), Placement::Fused).expect("an objection");
        let wanted = "version 1 of the plan did it fused, and task load_warehouse ran out of its 64MiB, at its peak 70MiB \
                      (exit 15)";
        assert_eq!(found.message, wanted);
    }
}
