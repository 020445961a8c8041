//! Counts distinct values: exactly while there are few, by their smallest hashes when there are many.
//!
//! K minimum values (Bar-Yossef et al., "Counting Distinct Elements in a Data Stream", 2002): if the K-th smallest of
//! the hashes lies at a share `x` of their range, there are about `(K - 1) / x` of them; the error is about 1/√K.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

/// How many hashes are kept: exact below, about 1.6 % off above.
const HASHES_MAX: usize = 4096;

/// How many keys are compared before uniqueness is left open.
pub(super) const KEYS_MAX: usize = 4_000_000;

/// Counts distinct values.
#[derive(Default)]
pub(super) struct Distinct {
    smallest: BTreeSet<u64>,
}

/// Looks for repeated keys.
#[derive(Default)]
pub(super) struct Repeats {
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
    /// How many rows repeat an earlier key.
    pub(super) duplicates: u64,
    /// Whether there were too many keys to remember.
    pub(super) overflowed: bool,
}

/// Hashes are hashed already.
#[derive(Default)]
pub(super) struct Identity(u64);

/// Returns the hash of a value; the same in every process.
pub(super) fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

// === impl Distinct ===

impl Distinct {
    /// Adds the hash of a value.
    #[inline]
    pub(super) fn add(&mut self, hash: u64) {
        if self.smallest.len() < HASHES_MAX {
            self.smallest.insert(hash);
        } else if self.smallest.last().is_some_and(|largest| hash < *largest) && self.smallest.insert(hash) {
            self.smallest.pop_last();
        }
    }

    /// Returns the count, roughly when it is large.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub(super) fn count(&self) -> u64 {
        match self.smallest.last() {
            Some(largest) if self.smallest.len() == HASHES_MAX => {
                ((HASHES_MAX - 1) as f64 / (*largest as f64 / u64::MAX as f64)).round() as u64
            }
            _ => self.smallest.len() as u64,
        }
    }
}

// === impl Repeats ===

impl Repeats {
    /// Adds the hash of a key.
    pub(super) fn add(&mut self, hash: u64) {
        if self.overflowed {
            return;
        }
        if self.seen.len() >= KEYS_MAX {
            self.overflowed = true;
            self.seen = HashSet::default();
        } else if !self.seen.insert(hash) {
            self.duplicates += 1;
        }
    }

    /// Forgets the keys, once uniqueness is disproved and the number does not matter.
    pub(super) fn forget(&mut self) {
        self.seen = HashSet::default();
    }
}

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::{Distinct, Repeats, hash};

    #[test]
    fn counts_are_exact_when_small_and_close_when_large() {
        for (count, tolerance) in [(0_u64, 0), (1, 0), (4000, 0), (100_000, 6_000)] {
            let mut distinct = Distinct::default();
            (0..count).chain(0..count).for_each(|value| distinct.add(hash(&value.to_le_bytes())));
            assert!(distinct.count().abs_diff(count) <= tolerance, "{count}: {}", distinct.count());
        }
    }

    #[test]
    fn repeats_are_counted() {
        let mut repeats = Repeats::default();
        [1, 2, 1, 1].iter().for_each(|key| repeats.add(*key));
        assert_eq!(repeats.duplicates, 2);
    }
}
