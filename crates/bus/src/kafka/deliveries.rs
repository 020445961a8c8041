//! What became of each record of a transaction.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::AcqRel},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};
use tokio::sync::mpsc;

use super::{
    client::{Complaint, Log},
    commit::Job,
    confirm::Written,
};

/// Hears what became of each record, and of the brokers.
pub(crate) struct Deliveries {
    log: Log,
    /// Something was wrong with a broker or the way to it.
    is_disturbed: AtomicBool,
    looks: mpsc::WeakSender<Job>,
    state: Mutex<Delivered>,
    changed: Condvar,
}

#[derive(Default)]
struct Delivered {
    outstanding: usize,
    /// Which commit's record failed, and how.
    failures: Vec<(usize, RDKafkaErrorCode)>,
    written: Written,
}

// === impl Deliveries ===

impl Deliveries {
    /// Makes the context of a producer; by `looks` it asks to look for what is open after something was wrong.
    pub(crate) fn new(looks: mpsc::WeakSender<Job>) -> Self {
        Self {
            log: Log::new("ledger"),
            is_disturbed: AtomicBool::new(false),
            looks,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Tells whether something was wrong with a broker since the last time.
    pub(crate) fn take_disturbed(&self) -> bool {
        self.is_disturbed.swap(false, AcqRel)
    }

    /// Begins to count so many records of a transaction.
    pub(crate) fn expect(&self, records: usize) {
        *self.lock() = Delivered { outstanding: records, ..Delivered::default() };
    }

    /// Notes that a record could not even be handed over.
    pub(crate) fn fail(&self, commit: usize, code: RDKafkaErrorCode) {
        self.lock().failures.push((commit, code));
    }

    /// Returns which commits' records failed so far, and how.
    pub(crate) fn failures(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        self.lock().failures.clone()
    }

    /// Takes what the brokers took of the transaction.
    pub(crate) fn take_written(&self) -> Written {
        std::mem::take(&mut self.lock().written)
    }

    /// Returns what librdkafka said last against the producer, if it said anything.
    pub(crate) fn complaint(&self) -> Option<Complaint> {
        self.log.complaint()
    }

    /// Waits until every record was taken, or one was not; returns those that were not.
    pub(crate) fn wait(&self) -> Vec<(usize, RDKafkaErrorCode)> {
        // librdkafka gives each record a bounded time.
        let waits = |state: &mut Delivered| state.outstanding > 0 && state.failures.is_empty();
        self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner).failures.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
        let was_disturbed = self.is_disturbed.swap(true, AcqRel);
        if let (false, Some(looks)) = (was_disturbed, self.looks.upgrade()) {
            // A full queue is looked at anyway.
            let _ = looks.try_send(Job::Look);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, commit: usize) {
        let mut state = self.lock();
        state.outstanding = state.outstanding.saturating_sub(1);
        match result {
            Ok(message) => state.written.note(message.detach()),
            Err((error, _)) => {
                state.failures.push((commit, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)));
            }
        }
        self.changed.notify_all();
    }
}
