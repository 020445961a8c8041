//! The cheapest consistent combination: one alternative for each subject, such that every need is met and every hard
//! constraint holds; and why each other alternative lost.
//!
//! The order is total: fewest values lost first, then the objective, then ids. So equal offers give the equal choice,
//! in whatever order they came. When nothing fits, the combination with the fewest problems names the conflicts.

mod guarantee;

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    message::{Alternative, Conflict, ConflictKind, Cost, Guarantee, Placement, Privilege, Role, Strategy},
    plan::{Choice, Rejected},
    spec::{LossyCast, Objective},
    units::{ByteSize, Span},
};

use guarantee::contradicts;
pub use guarantee::meets;

use crate::{
    case::Case,
    cost::{Rates, objective},
    participants::transformation,
    rules::{conflict, privilege, remedy},
};

/// Combinations looked at for one placement. Beyond it the cheapest subjects keep only their best alternative, so
/// that a spec with hundreds of sources is still searched within milliseconds.
const COMBINATIONS_MAX: usize = 1024;

/// What a search finds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The best combination.
    Best(Combination),
    /// None; these stand in the way of the one that comes closest.
    Nothing(Vec<Conflict>),
}

/// A consistent combination.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// The alternatives: placement, then sources, then sinks, each in the spec's order.
    pub chosen: Vec<Alternative>,
    /// Where the steps are computed.
    pub placement: Placement,
    /// What the whole run is expected to cost.
    pub cost: Cost,
    /// Why it is these.
    pub choices: Vec<Choice>,
}

/// What a combination is ranked by; the smallest wins.
type Rank = (usize, usize, (u64, u64), Vec<u16>);

/// One combination that was looked at.
struct Leaf {
    rank: Rank,
    picks: Vec<usize>,
    cost: Cost,
}

/// The offers, prepared for the search.
struct Table<'a> {
    case: Case<'a>,
    rates: &'a Rates,
    offers: Vec<&'a Alternative>,
    /// The subjects in their order, each with the indices of its offers.
    subjects: Vec<(&'a str, Role, Vec<usize>)>,
    /// For each offer, for each of its needs: the offers that meet it; `None` where the facts do.
    met_by: Vec<Vec<Option<Vec<usize>>>>,
}

/// Searches.
#[must_use]
pub fn search(case: Case<'_>, rates: &Rates, alternatives: &[Alternative]) -> Found {
    let table = Table::new(case, rates, alternatives);
    let orphans = table.orphans();
    if !orphans.is_empty() {
        return Found::Nothing(orphans);
    }
    let mut leaves = Vec::new();
    for &placement in &table.subjects[0].2 {
        table.leaves(placement, &mut leaves);
    }
    let best = leaves.iter().min_by(|a, b| a.rank.cmp(&b.rank)).expect("a combination for each placement");
    if best.rank.0 > 0 {
        return Found::Nothing(table.conflicts(best, &leaves));
    }
    let chosen: Vec<_> = best.picks.iter().map(|&pick| table.offers[pick].clone()).collect();
    debug_assert!(table.problems(&best.picks, &best.cost).is_empty(), "N3: every hard constraint holds");
    Found::Best(Combination {
        placement: placement_of(&chosen[0]),
        choices: table.choices(best, &leaves),
        chosen,
        cost: best.cost,
    })
}

/// Returns where an offer of the transformation agent computes.
fn placement_of(offer: &Alternative) -> Placement {
    match offer.strategy {
        Strategy::Compute { placement } => placement,
        Strategy::Read(_) | Strategy::Write(_) => Placement::Fused,
    }
}

// === impl Table ===

impl<'a> Table<'a> {
    fn new(case: Case<'a>, rates: &'a Rates, alternatives: &'a [Alternative]) -> Self {
        let mut offers: Vec<&Alternative> = alternatives.iter().collect();
        // Ids are unique in a session; the order of arrival must not matter.
        offers.sort_by(|a, b| a.id.cmp(&b.id));
        let of = |role: Role, subject: &str| -> Vec<usize> {
            let mine = |offer: &&Alternative| offer.role == role && offer.subject == subject;
            offers.iter().enumerate().filter(|(_, offer)| mine(offer)).map(|(index, _)| index).collect()
        };
        let mut subjects =
            vec![(transformation::SUBJECT, Role::Transformation, of(Role::Transformation, transformation::SUBJECT))];
        for name in case.spec.sources.keys() {
            subjects.push((name.as_str(), Role::Extraction, of(Role::Extraction, name.as_str())));
        }
        for name in case.spec.sinks.keys() {
            subjects.push((name.as_str(), Role::Loading, of(Role::Loading, name.as_str())));
        }
        let granted = privilege::granted(case);
        let met_by = offers
            .iter()
            .map(|offer| {
                let meet = |need: &Guarantee| {
                    if granted.contains(need) {
                        return None;
                    }
                    let gives = |other: &&Alternative| other.provides.iter().any(|gift| meets(gift, need));
                    Some(offers.iter().enumerate().filter(|(_, o)| gives(o)).map(|(index, _)| index).collect())
                };
                offer.requires.iter().map(meet).collect()
            })
            .collect();
        Self { case, rates, offers, subjects, met_by }
    }

    /// Returns a conflict for each subject that nobody offers a way for.
    fn orphans(&self) -> Vec<Conflict> {
        let orphans = self.subjects.iter().filter(|(_, _, offers)| offers.is_empty());
        orphans
            .map(|(subject, role, _)| {
                let message = format!("no {role} agent offers a way to do it");
                conflict(ConflictKind::NoOffer, *role, *subject, message)
            })
            .collect()
    }

    /// Looks at every combination with a placement, within [`COMBINATIONS_MAX`].
    fn leaves(&self, placement: usize, leaves: &mut Vec<Leaf>) {
        let mut columns: Vec<Vec<usize>> = vec![vec![placement]];
        for (_, _, offers) in &self.subjects[1..] {
            let fitting: Vec<_> = offers.iter().copied().filter(|&offer| !self.excludes(placement, offer)).collect();
            columns.push(if fitting.is_empty() { offers.clone() } else { fitting });
        }
        self.shrink(&mut columns);
        let mut picks = vec![0; columns.len()];
        loop {
            leaves.push(self.leaf(picks.iter().zip(&columns).map(|(&pick, column)| column[pick]).collect()));
            // Counts up like an odometer.
            let Some(digit) = (0..picks.len()).rev().find(|&digit| picks[digit] + 1 < columns[digit].len()) else {
                break;
            };
            picks[digit] += 1;
            picks[digit + 1..].fill(0);
        }
    }

    /// Cuts the subjects with the least at stake to their best offer, until the combinations are few enough.
    fn shrink(&self, columns: &mut [Vec<usize>]) {
        let goal = self.case.spec.goals.optimize;
        let key = |&offer: &usize| {
            let offer = self.offers[offer];
            (offer.objections.len(), objective(&offer.cost, goal))
        };
        let count = |columns: &[Vec<usize>]| columns.iter().fold(1_usize, |all, c| all.saturating_mul(c.len()));
        while count(columns) > COMBINATIONS_MAX {
            let stake = |column: &Vec<usize>| column.iter().map(key).max();
            let least =
                (0..columns.len()).filter(|&index| columns[index].len() > 1).min_by_key(|&i| stake(&columns[i]));
            let Some(least) = least else { return };
            let best = columns[least].iter().copied().min_by_key(key);
            columns[least] = best.into_iter().collect();
        }
    }

    /// Tells whether an offer can never stand beside a placement.
    fn excludes(&self, placement: usize, offer: usize) -> bool {
        let (placement, offer) = (self.offers[placement], self.offers[offer]);
        let contradict = |a: &[Guarantee], b: &[Guarantee]| a.iter().any(|a| b.iter().any(|b| contradicts(a, b)));
        contradict(&placement.requires, &offer.provides)
            || contradict(&placement.requires, &offer.requires)
            || contradict(&placement.provides, &offer.requires)
    }

    fn leaf(&self, picks: Vec<usize>) -> Leaf {
        let cost = self.cost(&picks);
        let problems = self.count_problems(&picks, &cost);
        let lossy = picks.iter().flat_map(|&pick| &self.offers[pick].lossy);
        let lost = lossy.filter(|used| used.policy != LossyCast::Reject).count();
        let order = picks.iter().map(|&pick| u16::try_from(pick).unwrap_or(u16::MAX)).collect();
        Leaf { rank: (problems, lost, objective(&cost, self.case.spec.goals.optimize), order), picks, cost }
    }

    /// Returns what the combination costs as a whole.
    fn cost(&self, picks: &[usize]) -> Cost {
        let placed = self.offers[picks[0]];
        let sum = |role: Role| {
            let mine = picks[1..].iter().map(|&pick| self.offers[pick]).filter(move |offer| offer.role == role);
            let (mut sum, mut longest, mut memory) = (Cost { confidence: 100, ..Cost::default() }, 0, 0);
            for offer in mine {
                longest = offer.cost.wall_ms.max(longest);
                memory += offer.cost.memory_bytes;
                sum = sum.then(offer.cost);
            }
            (sum, longest, memory)
        };
        let (reads, read_longest, read_memory) = sum(Role::Extraction);
        let (writes, write_longest, write_memory) = sum(Role::Loading);
        let mut cost = placed.cost.then(reads).then(writes);
        let compute_memory = placed.cost.memory_bytes;
        match placement_of(placed) {
            // A pipeline is as slow as its slowest part.
            Placement::Fused | Placement::Mapped => {
                cost.wall_ms = placed.cost.wall_ms + reads.wall_ms.max(writes.wall_ms);
                cost.memory_bytes = self.rates.task_bytes + read_memory + compute_memory + write_memory;
            }
            // Extracts run beside each other, and so do loads.
            Placement::Staged => {
                cost.wall_ms = placed.cost.wall_ms + read_longest + write_longest;
                let streams = self.case.spec.sources.len() as u64 * self.rates.stream_bytes;
                let steps = streams + compute_memory + self.rates.parquet_writer_bytes;
                let load = self.rates.stream_bytes + writes.memory_bytes;
                let extract = reads.memory_bytes + self.rates.parquet_writer_bytes;
                cost.memory_bytes = self.rates.task_bytes + extract.max(steps).max(load);
            }
        }
        cost
    }

    fn count_problems(&self, picks: &[usize], cost: &Cost) -> usize {
        let mut count = 0;
        for &pick in picks {
            count += self.offers[pick].objections.len();
            count += self.unmet(pick, picks).count();
        }
        count + self.over_policy(picks).count() + usize::from(self.over_memory(cost)) + usize::from(self.late(cost))
    }

    /// Returns everything that stands in the way of a combination.
    fn problems(&self, picks: &[usize], cost: &Cost) -> Vec<Conflict> {
        let mut found = Vec::new();
        for &pick in picks {
            let offer = self.offers[pick];
            found.extend(offer.objections.iter().cloned());
            found.extend(self.unmet(pick, picks).map(|need| self.unmet_conflict(offer, need)));
        }
        for offer in self.over_policy(picks) {
            let message = format!("{} does what the policy does not allow", offer.id);
            found.push(conflict(ConflictKind::Unsupported, offer.role, offer.subject.clone(), message));
        }
        if self.over_memory(cost) {
            found.push(self.memory_conflict(cost, cost.memory_bytes));
        }
        if self.late(cost) {
            found.push(self.deadline_conflict(picks, cost, cost.wall_ms));
        }
        found
    }

    fn unmet<'b>(&'b self, pick: usize, picks: &'b [usize]) -> impl Iterator<Item = &'b Guarantee> {
        let needs = self.offers[pick].requires.iter().zip(&self.met_by[pick]);
        needs.filter_map(move |(need, by)| match by {
            None => None,
            Some(by) => (!by.iter().any(|giver| picks.contains(giver))).then_some(need),
        })
    }

    fn over_policy<'b>(&'b self, picks: &'b [usize]) -> impl Iterator<Item = &'b Alternative> {
        let policy = self.case.spec.policy;
        picks.iter().map(|&pick| self.offers[pick]).filter(move |offer| {
            let lossy = offer.lossy.iter().any(|used| !allowed(used.policy, policy.lossy_cast));
            lossy || offer.schema_change > policy.schema_change
        })
    }

    fn over_memory(&self, cost: &Cost) -> bool {
        cost.memory_bytes > self.case.spec.goals.memory_max.0
    }

    fn late(&self, cost: &Cost) -> bool {
        self.case.spec.goals.deadline.is_some_and(|deadline| cost.wall_ms > deadline.0)
    }

    fn unmet_conflict(&self, offer: &Alternative, need: &Guarantee) -> Conflict {
        let subject = offer.subject.clone();
        match need {
            Guarantee::Privilege { sink, privilege } => {
                let message = format!("the connection's user may not {}", may(*privilege));
                let mut found = conflict(ConflictKind::Privilege, Role::Loading, sink.as_str(), message);
                let locator = self.case.spec.sinks.get(sink).map(|sink| sink.locator.to_string()).unwrap_or_default();
                found.remedies.push(remedy("", format!("grant the user {} on {locator}", grant(*privilege))));
                found.remedies.push(remedy(format!("sinks.{sink}"), "use a connection whose user may"));
                found
            }
            Guarantee::Unique { columns, .. } => {
                let message = format!("{} needs rows that are unique by {}", offer.id, columns.join(", "));
                conflict(ConflictKind::Key, offer.role, subject, message)
            }
            Guarantee::Schema { relation, .. } => {
                let message = format!("{} needs columns of {relation} that nothing provides", offer.id);
                conflict(ConflictKind::MissingColumn, offer.role, subject, message)
            }
            Guarantee::Ordering { relation, .. } => {
                let message = format!("{} needs {relation} in an order that nothing provides", offer.id);
                conflict(ConflictKind::Unsupported, offer.role, subject, message)
            }
            Guarantee::Partitioning { relation, in_parts } => {
                let shape = if *in_parts { "in parts" } else { "in one stream" };
                conflict(
                    ConflictKind::Unsupported,
                    offer.role,
                    subject,
                    format!("{} needs {relation} {shape}", offer.id),
                )
            }
            Guarantee::Staged { relation } => conflict(
                ConflictKind::Unsupported,
                offer.role,
                subject,
                format!("{} needs {relation} staged", offer.id),
            ),
        }
    }

    fn memory_conflict(&self, _: &Cost, least: u64) -> Conflict {
        let max = self.case.spec.goals.memory_max;
        let needed = ByteSize(least.div_ceil(1 << 20) << 20);
        let message = format!("the leanest way needs about {needed}; memory_max is {max}");
        let mut found = conflict(ConflictKind::Memory, Role::Transformation, "goals", message);
        found.remedies.push(remedy("goals.memory_max", format!("allow {needed}")));
        found.remedies.push(remedy("sources", "split the pipeline, so that fewer sources meet in one task"));
        found
    }

    fn deadline_conflict(&self, picks: &[usize], _: &Cost, least: u64) -> Conflict {
        let deadline = self.case.spec.goals.deadline.unwrap_or(Span(0));
        let slowest = picks.iter().map(|&pick| self.offers[pick]).max_by_key(|offer| offer.cost.wall_ms);
        let owner = slowest.map_or(Role::Orchestrator, |offer| offer.role);
        let needed = Span(if least >= 10_000 { least.div_ceil(1000) * 1000 } else { least });
        let message = format!("the quickest way takes about {needed}; the deadline is {deadline}");
        let mut found = conflict(ConflictKind::Deadline, owner, "goals", message);
        found.remedies.push(remedy("goals.deadline", format!("allow {needed} or more")));
        found
    }

    /// Returns the conflicts of the combination that comes closest.
    fn conflicts(&self, best: &Leaf, leaves: &[Leaf]) -> Vec<Conflict> {
        let mut found = self.problems(&best.picks, &best.cost);
        // The bounds are named by the best that anybody could do, not by what this combination would take.
        let least_ms = leaves.iter().map(|leaf| leaf.cost.wall_ms).min().unwrap_or(0);
        let least_bytes = leaves.iter().map(|leaf| leaf.cost.memory_bytes).min().unwrap_or(0);
        for conflict in &mut found {
            match conflict.kind {
                ConflictKind::Deadline if least_ms > self.case.spec.goals.deadline.map_or(u64::MAX, |d| d.0) => {
                    *conflict = self.deadline_conflict(&best.picks, &best.cost, least_ms);
                }
                ConflictKind::Memory if least_bytes > self.case.spec.goals.memory_max.0 => {
                    *conflict = self.memory_conflict(&best.cost, least_bytes);
                }
                _ => {}
            }
        }
        let mut seen = BTreeSet::new();
        found.retain(|conflict| seen.insert((conflict.kind, conflict.subject.clone(), conflict.message.clone())));
        found
    }

    fn choices(&self, best: &Leaf, leaves: &[Leaf]) -> Vec<Choice> {
        // The best combination that each offer is part of.
        let mut best_with: BTreeMap<usize, &Leaf> = BTreeMap::new();
        for leaf in leaves {
            for &pick in &leaf.picks {
                let known = best_with.entry(pick).or_insert(leaf);
                if leaf.rank < known.rank {
                    *known = leaf;
                }
            }
        }
        let choose = |(index, (subject, role, offers)): (usize, &(&str, Role, Vec<usize>))| {
            let winner = self.offers[best.picks[index]];
            let lost = offers.iter().filter(|&&offer| offer != best.picks[index]);
            let rejected = lost.map(|&offer| Rejected {
                alternative: self.offers[offer].id.clone(),
                cost: self.offers[offer].cost,
                why: self.why(offer, best, best_with.get(&offer).copied()),
            });
            Choice {
                role: *role,
                subject: (*subject).to_string(),
                chosen: winner.id.clone(),
                rationale: winner.rationale.clone(),
                cost: winner.cost,
                rejected: rejected.collect(),
            }
        };
        self.subjects.iter().enumerate().map(choose).collect()
    }

    /// Returns why an offer lost, one sentence.
    fn why(&self, offer: usize, best: &Leaf, with: Option<&Leaf>) -> String {
        if let Some(objection) = self.offers[offer].objections.first() {
            return objection.message.clone();
        }
        let Some(with) = with else { return "it does not go together with what the others do at their best".into() };
        if with.rank.0 > 0 {
            let problem = self.problems(&with.picks, &with.cost).into_iter().next();
            return problem.map_or_else(String::new, |problem| problem.message);
        }
        if with.rank.1 > best.rank.1 {
            return "it would give up values that the chosen way keeps".into();
        }
        let goal = self.case.spec.goals.optimize;
        let (won, lost) = (objective(&best.cost, goal), objective(&with.cost, goal));
        let unit = |(main, _): (u64, u64)| match goal {
            Objective::Cost => format!("{main} units of cost"),
            Objective::Time => Span(main).to_string(),
            Objective::Memory => ByteSize(main.div_ceil(1 << 20) << 20).to_string(),
        };
        if won.0 == lost.0 && won.1 == lost.1 {
            return "it is as good, and comes later by name".into();
        }
        if won.0 == lost.0 {
            return "it is as good by the goal, and otherwise dearer".into();
        }
        format!("the run would take {} instead of {}", unit(lost), unit(won))
    }
}

/// Tells whether a policy for values that do not fit is within what the request allows; to reject always is.
#[must_use]
pub fn allowed(used: LossyCast, policy: LossyCast) -> bool {
    used == LossyCast::Reject || used == policy
}

fn may(privilege: Privilege) -> &'static str {
    match privilege {
        Privilege::Create => "create it",
        Privilege::Insert => "add rows",
        Privilege::Update => "change rows",
        Privilege::Delete => "remove rows",
        Privilege::Alter => "alter it",
    }
}

fn grant(privilege: Privilege) -> &'static str {
    match privilege {
        Privilege::Create => "CREATE",
        Privilege::Insert => "INSERT",
        Privilege::Update => "UPDATE",
        Privilege::Delete => "DELETE and TRUNCATE",
        Privilege::Alter => "ownership",
    }
}
