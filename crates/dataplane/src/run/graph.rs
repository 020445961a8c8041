//! Decides what of a move is computed, and what is kept because it is used more than once.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    code::Code,
    id::Name,
    task::{Move, Output},
};

use crate::{
    error::{Error, Result},
    transform::{PlannedStep, lineage::shape},
};

/// How the relations of a move are used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// How often each needed relation is read by needed steps; one that reads itself again and again counts twice.
    pub(super) by_steps: BTreeMap<Name, usize>,
    /// How often each is written.
    pub(super) by_outputs: BTreeMap<Name, usize>,
    /// The relations that gates judge.
    pub(super) gated: BTreeSet<Name>,
    /// Every relation that must be computed.
    pub(super) needed: BTreeSet<Name>,
}

// === impl Uses ===

impl Uses {
    /// Finds the uses, given the outputs that are still to be written and the relations that are judged.
    pub(super) fn find(
        work: &Move,
        steps: &BTreeMap<Name, PlannedStep>,
        outputs: &[&Output],
        gated: BTreeSet<Name>,
    ) -> Result<Self> {
        let mut uses = Self { gated, ..Self::default() };
        for output in outputs {
            *uses.by_outputs.entry(relation_of(output).clone()).or_default() += 1;
        }
        let mut open: Vec<Name> = uses.by_outputs.keys().chain(&uses.gated).cloned().collect();
        while let Some(name) = open.pop() {
            if !uses.needed.insert(name.clone()) {
                continue;
            }
            let Some(step) = steps.get(&name) else {
                if work.inputs.contains_key(&name) {
                    continue;
                }
                return Err(Error::new(
                    Code::TaskSpecInvalid,
                    name.as_str(),
                    "the task uses a relation that it neither reads nor computes",
                    "plan again; the sealed task does not fit",
                ));
            };
            let shape = shape(&step.plan);
            let each = if shape.recursive { 2 } else { 1 };
            for table in shape.scans {
                // A scan of anything else is of a table that the query itself names, such as a recursive one.
                let known = work.inputs.keys().chain(steps.keys()).find(|name| name.as_str() == table);
                if let Some(known) = known {
                    *uses.by_steps.entry(known.clone()).or_default() += each;
                    open.push(known.clone());
                }
            }
        }
        Ok(uses)
    }

    /// Tells whether a relation must be kept: it is read more than once, or a gate must see rows of a step that the
    /// next step may not ask for.
    pub(super) fn is_kept(&self, name: &Name, is_step: bool) -> bool {
        let (by_steps, by_outputs) = (count(&self.by_steps, name), count(&self.by_outputs, name));
        by_steps + by_outputs > 1 || (is_step && by_steps > 0 && self.gated.contains(name))
    }

    /// Tells whether a relation is only there to be judged.
    pub(super) fn is_only_judged(&self, name: &Name) -> bool {
        self.gated.contains(name) && count(&self.by_steps, name) + count(&self.by_outputs, name) == 0
    }
}

/// Returns the relation that an output writes.
pub(super) fn relation_of(output: &Output) -> &Name {
    match output {
        Output::Staged { relation } => relation,
        Output::Sink(write) => &write.relation,
    }
}

fn count(counts: &BTreeMap<Name, usize>, name: &Name) -> usize {
    counts.get(name).copied().unwrap_or_default()
}
