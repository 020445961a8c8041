//! `[retention]`: how long what is over is kept.

use dagwright_model::units::Span;
use serde::Deserialize;

/// How much longer requests must be kept than what was found for them counts as known, in milliseconds: whoever uses a plan
/// again must find it.
const MARGIN_MS: u64 = 60_000;

/// How long what is over is kept; 0: for ever.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    /// Requests, after they ended.
    pub(crate) requests: Span,
    /// Events, after they were told.
    pub(crate) events: Span,
}

// === impl Retention ===

impl Retention {
    /// Says what is wrong with it where plans are used again for so long.
    pub(super) fn fault(&self, facts_age_max: Span) -> Option<String> {
        let needed = facts_age_max.0.saturating_add(MARGIN_MS);
        let is_short = self.requests.0 > 0 && facts_age_max.0 > 0 && self.requests.0 < needed;
        is_short.then(|| format!("plans are used again for {facts_age_max}, and must be kept a minute longer"))
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::units::Span;

    use super::Retention;

    #[test]
    fn what_is_used_again_is_kept() {
        let fault = |requests, age| Retention { requests: Span(requests), events: Span(0) }.fault(Span(age)).is_some();
        assert!(!fault(0, 3_600_000) && !fault(1, 0) && !fault(3_660_000, 3_600_000));
        assert!(fault(3_600_000, 3_600_000));
    }
}
