//! What Airflow tells of runs: checked, counted, and handed to the engine that follows them.
//!
//! | module | what it is |
//! |---|---|
//! | `known` | which posts were taken in lately |
//! | `metrics` | what is measured |
//! | `topic` | what Airflow's own event producer writes |
//!
//! What the listener of `dagwright-airflow` posts comes in over HTTP: see `http::feedback`. Whatever comes may come twice,
//! late, or never: it makes things quick, and Airflow itself is asked for what is true.

mod known;
pub(crate) mod metrics;
pub(crate) mod topic;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::Utc;
use dagwright_engine::airflow::told::{
    Ear,
    posted::{Content, Posted},
};

use self::{
    known::Known,
    metrics::{Outcome, Source},
};
use crate::{
    config::feedback::{AirflowFeedback, Fault},
    outlets::signature::Signer,
};

/// Takes in what is posted.
pub(crate) struct Feedback {
    /// What posts are checked by; `None`: nothing is taken.
    signer: RwLock<Option<Arc<Signer>>>,
    known: Mutex<Known>,
}

// === impl Feedback ===

impl Feedback {
    /// Reads the secrets.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn new(settings: &AirflowFeedback) -> Result<Self, Fault> {
        let signer = RwLock::new(settings.signer()?.map(Arc::new));
        Ok(Self { signer, known: Mutex::new(Known::default()) })
    }

    /// Reads the secrets again.
    ///
    /// # Errors
    /// As [`Feedback::new`]; then nothing changes.
    pub(crate) fn change(&self, settings: &AirflowFeedback) -> Result<(), Fault> {
        let signer = settings.signer()?.map(Arc::new);
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer;
        Ok(())
    }

    /// Returns what posts are checked by.
    pub(crate) fn signer(&self) -> Option<Arc<Signer>> {
        self.signer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in what was posted, unless it was posted before.
    pub(crate) fn take(&self, ear: &dyn Ear, posted: Posted) {
        if !self.known.lock().unwrap_or_else(PoisonError::into_inner).is_new(&posted.id) {
            return metrics::count(Source::Http, Outcome::Repeated);
        }
        metrics::heard(Source::Http, posted.at, Utc::now());
        match posted.content {
            Content::Told(told) => ear.hear(*told),
            Content::Dropped(dropped) => {
                metrics::dropped(dropped);
                let host = posted.host;
                tracing::warn!(
                    host,
                    dropped,
                    "a spool of Airflow's was full: events are lost, and found out by asking"
                );
            }
        }
    }
}
