//! What all clients share: librdkafka's log becomes ours.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

/// The context of a client that only logs; it remembers what was last said against it, as do its clones.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    role: &'static str,
    last: Arc<Mutex<String>>,
}

// === impl Log ===

impl Log {
    pub(crate) fn new(role: &'static str) -> Self {
        Self { role, last: Arc::default() }
    }

    /// Returns what librdkafka said last against the client; empty when it said nothing.
    pub(crate) fn last_reason(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Log {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka's errors are what it will try again; what is final comes back from a call.
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", client = self.role, facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", client = self.role, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", client = self.role, facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes this way too, and is no error.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(target: "librdkafka", client = self.role, %error, reason, "client reported an error");
            reason.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Log {}
