//! A sink's free space against what will be written.

use dagwright_model::{
    id::Name,
    message::{Conflict, ConflictKind, Role},
    units::ByteSize,
};

use super::{conflict, remedy};
use crate::case::Case;

/// Returns the conflict when what is read is certainly more than the sink can take.
///
/// Columnar files are a fraction of their sources, so only a tenth of the bytes is called certain.
#[must_use]
pub fn objection(case: Case<'_>, name: &Name) -> Option<Conflict> {
    let free = case.inspection(name)?.bytes_free?;
    let source = case.row_local_source(&case.spec.sinks[name].from)?;
    let least = case.profile(&source)?.bytes.value / 10;
    if least <= free || !case.filters(&source).is_empty() {
        return None;
    }
    // The estimate is not exact to the byte, and would not read well if it looked so.
    let least = least.next_multiple_of(1 << 10);
    let message = format!("{} are free, at least {} are to be written", ByteSize(free), ByteSize(least));
    let mut found = conflict(ConflictKind::Space, Role::Loading, name.as_str(), message);
    found.remedies.push(remedy("", format!("free space at {}", case.spec.sinks[name].locator)));
    found.remedies.push(remedy(format!("sinks.{name}"), "write to where there is space"));
    Some(found)
}

#[cfg(test)]
mod tests {
    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(free: Option<u64>, wanted: Option<&str>) {
        let mut fixture = Fixture::table();
        fixture.inspection_mut().bytes_free = free;
        fixture.profile_mut().bytes.value = 10 << 20;
        let found = super::objection(fixture.case(), &fixture.sink);
        assert_eq!(found.map(|conflict| conflict.message).as_deref(), wanted);
    }

    #[test]
    fn what_cannot_fit_is_said_before() {
        check(None, None);
        check(Some(1 << 20), None);
        check(Some(1 << 19), Some("512KiB are free, at least 1MiB are to be written"));
    }
}
