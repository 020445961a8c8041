//! How a run is asked to end in good order.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Asks one run to end; clones ask the same run. The first to ask is the one who is recorded.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    by: Arc<OnceLock<Option<String>>>,
    token: CancellationToken,
}

// === impl Cancel ===

impl Cancel {
    /// Asks the run to end; `by` is who wants it, where they are known.
    pub fn request(&self, by: Option<String>) {
        // Lost to somebody faster: theirs is recorded.
        let _ = self.by.set(by);
        self.token.cancel();
    }

    /// Waits until somebody asks; returns who.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn requested(&self) -> Option<String> {
        self.token.cancelled().await;
        self.by.get().cloned().flatten()
    }
}
