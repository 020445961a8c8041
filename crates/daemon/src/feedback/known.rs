//! Which posts were taken in lately.
//!
//! A listener posts again what it was not answered to, at once or after its pause: so what matters is the last few of each
//! machine. What is forgotten and posted again is told twice, which changes nothing.

use std::collections::{HashSet, VecDeque};

/// How many posts are remembered: what one machine's spool holds, and some more. An id takes less than 64 bytes here.
const KNOWN_MAX: usize = 16_384;

/// The ids of posts; the oldest go.
#[derive(Default)]
pub(super) struct Known {
    ids: HashSet<u128>,
    order: VecDeque<u128>,
}

// === impl Known ===

impl Known {
    /// Remembers an id; false when it was known. `id` is 32 hexadecimal digits.
    pub(super) fn is_new(&mut self, id: &str) -> bool {
        // Ids that are none were refused before.
        let Ok(id) = u128::from_str_radix(id, 16) else { return true };
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{KNOWN_MAX, Known};

    #[test]
    fn the_last_ones_are_known() {
        let mut known = Known::default();
        let id = |number: usize| format!("{number:032x}");
        assert!((0..2 * KNOWN_MAX).all(|number| known.is_new(&id(number))));
        assert!((KNOWN_MAX..2 * KNOWN_MAX).all(|number| !known.is_new(&id(number))));
        assert!(known.is_new(&id(0)), "long ago");
        assert_eq!((known.ids.len(), known.order.len()), (KNOWN_MAX, KNOWN_MAX));
    }
}
