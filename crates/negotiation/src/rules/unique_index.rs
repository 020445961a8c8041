//! An upsert into an existing table needs a unique index on its key, which `ON CONFLICT` can name.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, Role},
    spec::{Locator, SchemaChange, SinkMode},
    task::SchemaEdit,
};

use super::{conflict, remedy};
use crate::case::Case;

/// Returns the edit that adds the index, or the conflict where that is not allowed; nothing where it is not needed.
#[must_use]
pub fn edit(case: Case<'_>, name: &Name, allowed: SchemaChange) -> Option<Result<SchemaEdit, Conflict>> {
    let sink = &case.spec.sinks[name];
    let seen = case.inspection(name).filter(|seen| seen.exists)?;
    if sink.mode != SinkMode::Upsert || !matches!(sink.locator, Locator::Table { .. }) {
        return None;
    }
    let same = |known: &Vec<String>| known.len() == sink.key.len() && sink.key.iter().all(|key| known.contains(key));
    if seen.unique_keys.iter().any(same) {
        return None;
    }
    if allowed >= SchemaChange::Additive {
        return Some(Ok(SchemaEdit::AddUniqueKey(sink.key.clone())));
    }
    let key = sink.key.join(", ");
    let message = format!("key {key}: the table has no unique index on it");
    let mut found = conflict(ConflictKind::UniqueIndex, Role::Loading, name.as_str(), message);
    found.remedies = vec![
        remedy("policy.schema_change", "set additive, so that the index is added"),
        remedy("", format!("add a unique index on ({key}) to {}", sink.locator)),
    ];
    Some(Err(found))
}

#[cfg(test)]
mod tests {
    use dagwright_model::{spec::SchemaChange, task::SchemaEdit};

    use crate::rules::fixture::Fixture;

    #[test]
    fn an_index_is_used_added_or_missed() {
        let mut fixture = Fixture::table();
        fixture.upsert(&["id"]);
        let edit = |fixture: &Fixture, allowed| super::edit(fixture.case(), &fixture.sink, allowed);
        assert!(edit(&fixture, SchemaChange::None).is_none(), "a new table is made with its key");
        fixture.existing_sink(&["id", "seen_at", "amount", "label"]);
        let missing = edit(&fixture, SchemaChange::None).expect("needed").expect_err("not allowed");
        assert_eq!(missing.message, "key id: the table has no unique index on it");
        assert_eq!(edit(&fixture, SchemaChange::Additive), Some(Ok(SchemaEdit::AddUniqueKey(vec!["id".into()]))));
        fixture.inspection_mut().unique_keys = vec![vec!["id".into()]];
        assert!(edit(&fixture, SchemaChange::None).is_none());
    }
}
