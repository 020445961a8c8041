//! The trade-offs, one a file: each a pure function of a [`Case`](crate::case::Case), with its table of cases.
//!
//! A rule says what is possible, what stands in the way and what would remove it; it never chooses. Choosing is the
//! search's, by costs.

pub mod cursor;
pub mod on_missing;
pub mod partition;
pub mod placement;
pub mod privilege;
pub mod pushdown;
pub mod read_write;
pub mod setback;
pub mod sink_mode;
pub mod sink_schema;
pub mod source_type;
pub mod space;
pub mod type_fit;
pub mod unique_index;
pub mod unique_key;

#[cfg(test)]
pub(crate) mod fixture;

use dagwright_model::message::{Conflict, ConflictKind, Remedy, Role};

/// Makes a conflict without a column.
pub(crate) fn conflict(kind: ConflictKind, owner: Role, subject: impl Into<String>, message: String) -> Conflict {
    Conflict { kind, owner, subject: subject.into(), column: None, message, remedies: Vec::new() }
}

/// Makes a remedy.
pub(crate) fn remedy(path: impl Into<String>, change: impl Into<String>) -> Remedy {
    Remedy { path: path.into(), change: change.into() }
}

/// Writes `part` of `whole` as a share of a hundred with one digit, as `3.1 %`; `< 0.1 %` where it would read 0.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1000 / u128::from(whole.max(1));
    match permille {
        0 if part > 0 => "< 0.1 %".into(),
        _ => format!("{}.{} %", permille / 10, permille % 10),
    }
}
