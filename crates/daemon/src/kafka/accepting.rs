//! Acceptances on their way into the ledger: not there yet, and not to be written twice.
//!
//! Each rests on an ownership, and comes to nothing when that ends: its message then comes again, under a later ownership
//! and perhaps before the first one's outcome is heard. That one counts; to take it for a repeat would lose the request.

use std::collections::HashMap;

use dagwright_model::id::RequestId;

/// Acceptances on their way, with the epoch of the ownership on which each rests.
#[derive(Debug, Default)]
pub(super) struct Accepting(HashMap<RequestId, u64>);

// === impl Accepting ===

impl Accepting {
    /// Notes that an acceptance goes on its way.
    pub(super) fn begin(&mut self, request: RequestId, epoch: u64) {
        self.0.insert(request, epoch);
    }

    /// Tells whether an acceptance is on its way that has an outcome before whatever else rests on the same ownership.
    pub(super) fn contains(&self, request: &RequestId, epoch: u64) -> bool {
        self.0.get(request) == Some(&epoch)
    }

    /// Notes that an acceptance has its outcome.
    pub(super) fn end(&mut self, request: &RequestId, epoch: u64) {
        if self.contains(request, epoch) {
            self.0.remove(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::id::RequestId;

    use super::Accepting;

    #[test]
    fn a_message_that_comes_again_under_a_later_ownership_is_no_repeat() {
        let (mut accepting, request) = (Accepting::default(), RequestId("a".into()));
        accepting.begin(request.clone(), 1);
        assert!(accepting.contains(&request, 1));
        assert!(!accepting.contains(&request, 2), "the first one may come to nothing");
        accepting.begin(request.clone(), 2);
        accepting.end(&request, 1);
        assert!(accepting.contains(&request, 2), "the second one is still on its way");
        accepting.end(&request, 2);
        assert!(!accepting.contains(&request, 2));
    }
}
