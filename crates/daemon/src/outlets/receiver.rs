//! Who is told of events.

use async_trait::async_trait;
use dagwright_wire::cloudevent::CloudEvent;

use super::verdict::Verdict;

/// Somebody who is told of events.
#[async_trait]
pub(super) trait Receiver: Send + Sync {
    /// Tells of an event, once.
    async fn tell(&self, event: &CloudEvent) -> Verdict;
}
