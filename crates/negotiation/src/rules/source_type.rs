//! The types that a request declares for a source's columns, against what was seen in them.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, LossyUse, Role},
    schema::DataType,
    spec::LossyCast,
};

use super::{conflict, remedy, type_fit};
use crate::case::Case;

/// Returns the declared columns that some values are known not to fit, as conflicts.
#[must_use]
pub fn objections(case: Case<'_>, source: &Name) -> Vec<Conflict> {
    let misfits = misfits(case, source).into_iter();
    misfits
        .map(|(column, declared, misfit)| {
            let message = format!("column {column}: declared {declared}, {misfit}");
            let mut found = conflict(ConflictKind::Type, Role::Extraction, source.as_str(), message);
            found.remedies = vec![
                remedy(format!("sources.{source}.columns.{column}.type"), "declare a type that holds every value"),
                remedy("policy.lossy_cast", "set quarantine to set such rows aside, or null to empty such values"),
            ];
            found.column = Some(column);
            found
        })
        .collect()
}

/// Returns how the policy of the request deals with the same columns; nothing when it rejects them.
#[must_use]
pub fn by_policy(case: Case<'_>, source: &Name) -> Vec<LossyUse> {
    let policy = case.spec.policy.lossy_cast;
    if policy == LossyCast::Reject {
        return Vec::new();
    }
    let misfits = misfits(case, source).into_iter();
    misfits
        .map(|(column, to, _)| LossyUse { subject: source.clone(), column, from: DataType::TEXT, to, policy })
        .collect()
}

fn misfits(case: Case<'_>, source: &Name) -> Vec<(String, DataType, String)> {
    let Some(profile) = case.profile(source) else { return Vec::new() };
    let needed = case.needed_columns(source);
    let mut found = Vec::new();
    for (name, spec) in &case.source(source).columns {
        // A masked column is hashed or emptied as text, before any type.
        let (Some(declared), None) = (&spec.data_type, spec.mask) else { continue };
        let Some(seen) = profile.columns.iter().find(|seen| seen.column.name == *name) else { continue };
        if needed.iter().any(|column| column.name == *name)
            && let Some(misfit) = type_fit::misfits(seen, profile, declared)
        {
            found.push((name.clone(), declared.clone(), misfit));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::{ColumnSpec, LossyCast};

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(policy: LossyCast, max: &str, misfits: Option<u64>, objections: &[&str], lossy: usize) {
        let mut fixture = Fixture::files(1);
        fixture.spec.policy.lossy_cast = policy;
        let declared: dagwright_model::schema::DataType = "decimal(3,0)".parse().expect("a type");
        let spec = ColumnSpec { data_type: Some(declared.clone()), ..ColumnSpec::default() };
        fixture.source_mut().columns.insert("amount".into(), spec);
        let column = fixture.column_mut("amount");
        column.column.data_type = declared;
        column.max = Some(max.into());
        column.misfits = misfits.map(|count| ("decimal(3,0)".to_string(), count)).into_iter().collect();
        let found = super::objections(fixture.case(), &fixture.source);
        assert_eq!(found.iter().map(|conflict| conflict.message.as_str()).collect::<Vec<_>>(), objections);
        assert_eq!(super::by_policy(fixture.case(), &fixture.source).len(), lossy);
    }

    #[test]
    fn declared_types_must_hold_what_is_there() {
        use LossyCast::{Quarantine, Reject};
        check(Reject, "999", None, &[], 0);
        check(Reject, "1301", None, &["column amount: declared decimal(3,0), some values out of its range"], 0);
        check(Quarantine, "1301", None, &["column amount: declared decimal(3,0), some values out of its range"], 1);
        check(Reject, "999", Some(2), &["column amount: declared decimal(3,0), 0.2 % of the values do not fit"], 0);
        check(Quarantine, "999", Some(2), &["column amount: declared decimal(3,0), 0.2 % of the values do not fit"], 1);
    }
}
