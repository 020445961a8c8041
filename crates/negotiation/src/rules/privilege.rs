//! What the sink's user must be allowed to do for a write.

use dagwright_model::{
    id::Name,
    message::{Guarantee, Privilege},
    spec::SinkMode,
    task::SchemaEdit,
};

use crate::case::Case;

/// Returns the privileges that writing a sink with these edits needs.
#[must_use]
pub fn required(case: Case<'_>, name: &Name, edits: &[SchemaEdit]) -> Vec<Guarantee> {
    let exists = case.inspection(name).is_some_and(|seen| seen.exists);
    let mut needed = Vec::new();
    if exists {
        needed.push(Privilege::Insert);
        match case.spec.sinks[name].mode {
            SinkMode::Replace => needed.push(Privilege::Delete),
            SinkMode::Upsert => needed.push(Privilege::Update),
            SinkMode::Append | SinkMode::OverwritePartitions | SinkMode::Scd2 => {}
        }
        if !edits.is_empty() {
            needed.push(Privilege::Alter);
        }
    } else {
        needed.push(Privilege::Create);
    }
    needed.into_iter().map(|privilege| Guarantee::Privilege { sink: name.clone(), privilege }).collect()
}

/// Returns the privileges that the inspections showed.
#[must_use]
pub fn granted(case: Case<'_>) -> Vec<Guarantee> {
    let mut granted = Vec::new();
    for (sink, seen) in &case.facts.sinks {
        let privileges = [
            (seen.privileges.create, Privilege::Create),
            (seen.privileges.insert, Privilege::Insert),
            (seen.privileges.update, Privilege::Update),
            (seen.privileges.delete, Privilege::Delete),
            (seen.privileges.alter, Privilege::Alter),
        ];
        let held = privileges.iter().filter(|(held, _)| *held);
        granted.extend(held.map(|(_, privilege)| Guarantee::Privilege { sink: sink.clone(), privilege: *privilege }));
    }
    granted
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        message::{Guarantee, Privilege},
        spec::SinkMode,
        task::SchemaEdit,
    };

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(exists: bool, mode: SinkMode, edits: &[SchemaEdit], wanted: &[Privilege]) {
        let mut fixture = Fixture::table();
        if exists {
            fixture.existing_sink(&["id"]);
        }
        fixture.sink_mut().mode = mode;
        let found: Vec<_> = super::required(fixture.case(), &fixture.sink, edits)
            .into_iter()
            .filter_map(|needed| match needed {
                Guarantee::Privilege { privilege, .. } => Some(privilege),
                _ => None,
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn each_write_needs_its_privileges() {
        let edit = [SchemaEdit::DropNotNull("id".into())];
        check(false, SinkMode::Append, &[], &[Privilege::Create]);
        check(true, SinkMode::Append, &[], &[Privilege::Insert]);
        check(true, SinkMode::Replace, &[], &[Privilege::Insert, Privilege::Delete]);
        check(true, SinkMode::Upsert, &edit, &[Privilege::Insert, Privilege::Update, Privilege::Alter]);
    }
}
