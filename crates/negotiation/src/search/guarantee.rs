//! Which gift meets which need, and which guarantees exclude each other.

use dagwright_model::{message::Guarantee, schema::Verdict};

/// Tells whether a gift meets a need.
#[must_use]
pub fn meets(gift: &Guarantee, need: &Guarantee) -> bool {
    match (gift, need) {
        (
            Guarantee::Schema { relation, columns: given, .. },
            Guarantee::Schema { relation: wanted, columns, verdict },
        ) => {
            relation == wanted
                && columns.iter().all(|column| {
                    let same = given.iter().find(|given| given.name == column.name);
                    same.is_some_and(|given| {
                        given.data_type.cast_to(&column.data_type) <= *verdict && *verdict < Verdict::Impossible
                    })
                })
        }
        (Guarantee::Unique { relation, columns: given }, Guarantee::Unique { relation: wanted, columns }) => {
            relation == wanted && given.iter().all(|column| columns.contains(column))
        }
        (Guarantee::Ordering { relation, by: given }, Guarantee::Ordering { relation: wanted, by }) => {
            relation == wanted && given.starts_with(by)
        }
        (Guarantee::Partitioning { .. }, Guarantee::Partitioning { .. })
        | (Guarantee::Staged { .. }, Guarantee::Staged { .. })
        | (Guarantee::Privilege { .. }, Guarantee::Privilege { .. }) => gift == need,
        (
            Guarantee::Schema { .. }
            | Guarantee::Unique { .. }
            | Guarantee::Ordering { .. }
            | Guarantee::Partitioning { .. }
            | Guarantee::Staged { .. }
            | Guarantee::Privilege { .. },
            _,
        ) => false,
    }
}

/// Tells whether two guarantees cannot both hold.
pub(super) fn contradicts(a: &Guarantee, b: &Guarantee) -> bool {
    match (a, b) {
        (
            Guarantee::Partitioning { relation: a, in_parts: a_parts },
            Guarantee::Partitioning { relation: b, in_parts: b_parts },
        ) => a == b && a_parts != b_parts,
        _ => false,
    }
}
