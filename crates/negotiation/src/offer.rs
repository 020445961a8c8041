//! Which offers count, whoever makes them.
//!
//! A plan is made of what was offered, and agents may be of others or speak in others' names. So the orchestrator takes
//! no more of an offer than it can vouch for: the way itself must be one that these rules know for this case, in every
//! promise and every need. Its author says what it costs, why, and what stands in its way beyond what is known. Of a
//! read in parts it may also say in how many.

use dagwright_model::message::{Alternative, Conflict, Party, Read, Role, SOLE_INSTANCE, Strategy};

use crate::{case::Case, cost::Rates, participants, rules::partition::PARTS_MAX};

/// Returns every way that the rules know for a role, with those that are only offered against `told`.
#[must_use]
pub fn known(case: Case<'_>, rates: &Rates, role: Role, told: &[Conflict]) -> Vec<Alternative> {
    let mut ways = participants::propose(role, case, rates);
    ways.extend(participants::counter(role, case, rates, told, &[]));
    ways
}

/// Returns why an offer does not count, if so, among the ways that are [`known`].
#[must_use]
pub fn fault(from: &Party, known: &[Alternative], offer: &Alternative) -> Option<&'static str> {
    if offer.role != from.role {
        return Some("it is another role's to offer");
    }
    if !is_named_by(from, offer) {
        return Some(
            "its id is not <role>/<subject>/<variant>, with <instance>/ before the variant unless that is main",
        );
    }
    if offer.cost.confidence > 100 {
        return Some("its confidence is above 100");
    }
    let mut like_it = known.iter().filter(|way| is_same_way(way, offer)).peekable();
    if like_it.peek().is_none() {
        return Some("it is no way that the rules know for this case");
    }
    let admits = |way: &Alternative| way.objections.iter().all(|known| offer.objections.contains(known));
    if !like_it.any(admits) {
        return Some("it leaves out what stands in the way of it");
    }
    None
}

/// Tells whether an offer's id is its author's to give, so that nobody takes another one's.
fn is_named_by(from: &Party, offer: &Alternative) -> bool {
    let parts: Vec<&str> = offer.id.split('/').collect();
    let role = offer.role.as_str();
    match parts[..] {
        [of, subject, variant] if from.instance.as_str() == SOLE_INSTANCE => {
            of == role && subject == offer.subject && !variant.is_empty()
        }
        [of, subject, instance, variant] if from.instance.as_str() != SOLE_INSTANCE => {
            of == role && subject == offer.subject && instance == from.instance.as_str() && !variant.is_empty()
        }
        _ => false,
    }
}

/// Tells whether two offers do the same, for and with the same.
fn is_same_way(known: &Alternative, offer: &Alternative) -> bool {
    known.subject == offer.subject
        && is_same_strategy(&known.strategy, &offer.strategy)
        && is_same_set(&known.provides, &offer.provides)
        && is_same_set(&known.requires, &offer.requires)
        && known.schema_change == offer.schema_change
        && is_same_set(&known.lossy, &offer.lossy)
        && known.delivery == offer.delivery
}

/// Compares without order: an agent knows the spec in its normal form, which names sources and sinks in another one.
fn is_same_set<T: PartialEq>(known: &[T], offered: &[T]) -> bool {
    known.len() == offered.len()
        && known.iter().all(|one| offered.contains(one))
        && offered.iter().all(|one| known.contains(one))
}

fn is_same_strategy(known: &Strategy, offer: &Strategy) -> bool {
    let (Strategy::Read(known), Strategy::Read(offer)) = (known, offer) else { return known == offer };
    let Some(parts) = known.parts.as_ref().zip(offer.parts.as_ref()) else { return known == offer };
    let (in_known, in_offer) = parts;
    let alike = Read { parts: known.parts.clone(), ..offer.clone() };
    *known == alike && in_known.by == in_offer.by && (1..=PARTS_MAX).contains(&in_offer.count_max) || known == offer
}
