//! A source with nothing at its locator: when it counts as empty, and what that says of its columns.

use dagwright_model::{id::Name, spec::OnMissing};

use crate::case::Case;

/// Returns a sentence for a source that is not there but may be absent; [`Case::missing`] names those that may not.
#[must_use]
pub fn remark(case: Case<'_>, source: &Name) -> Option<String> {
    if case.profile(source).is_none_or(|profile| profile.exists) {
        return None;
    }
    Some(match case.source(source).on_missing {
        OnMissing::Skip => "nothing is there now: it counts as empty, with the declared columns".into(),
        OnMissing::Fail => "nothing is there for now: the declared columns stand for it".into(),
    })
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::{ColumnSpec, Locator, OnMissing};

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(declared: bool, uri: &str, on_missing: OnMissing, problems: usize) {
        let mut fixture = Fixture::files(1);
        fixture.profile_mut().exists = false;
        let source = fixture.source_mut();
        source.locator = Locator::Uri(uri.into());
        source.on_missing = on_missing;
        if declared {
            let spec = ColumnSpec { data_type: Some("int64".parse().expect("a type")), ..ColumnSpec::default() };
            source.columns.insert("id".into(), spec);
        }
        assert_eq!(fixture.case().missing().len(), problems);
        assert!(super::remark(fixture.case(), &fixture.source).is_some());
        assert_eq!(fixture.case().source_columns(&fixture.source).len(), usize::from(declared));
    }

    #[test]
    fn a_missing_source_needs_declared_columns_and_leave() {
        check(true, "in.csv", OnMissing::Skip, 0);
        check(false, "in.csv", OnMissing::Skip, 1);
        check(true, "in.csv", OnMissing::Fail, 1);
        check(true, "in-{data_interval_start:%Y-%m-%d}.csv", OnMissing::Fail, 0);
        check(false, "in-{data_interval_start:%Y-%m-%d}.csv", OnMissing::Fail, 1);
    }
}
