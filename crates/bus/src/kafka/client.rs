//! What all clients share: librdkafka's log becomes ours.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

/// What librdkafka said against a client.
#[derive(Clone, Debug)]
pub(crate) struct Complaint {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) reason: String,
}

/// The context of a client that only logs; it remembers what was last said against it, as do its clones.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    role: &'static str,
    last: Arc<Mutex<Option<Complaint>>>,
}

// === impl Log ===

impl Log {
    pub(crate) fn new(role: &'static str) -> Self {
        Self { role, last: Arc::default() }
    }

    /// Returns what librdkafka said last against the client, if it said anything.
    pub(crate) fn complaint(&self) -> Option<Complaint> {
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
        // It is in the log beside, or comes back from a call.
        tracing::debug!(target: "librdkafka", client = self.role, %error, reason, "client reported an error");
        let code = match error.rdkafka_error_code() {
            // That follows from another one, which says why; and the end of a partition is no error.
            None | Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::PartitionEOF) => return,
            Some(code) => code,
        };
        let complaint = Complaint { code, reason: reason.to_owned() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Log {}
