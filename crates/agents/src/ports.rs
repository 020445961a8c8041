//! What agents need from outside: traits, so that tests can stand in for processes and clocks.

use std::{sync::OnceLock, time::Instant};

use async_trait::async_trait;
use dagwright_model::facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest};

/// Observes systems and types transforms: the only way facts come into a negotiation.
///
/// A failure is an answer too; it names the system and what to do.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Profiles a source or inspects a sink, as it is now.
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply;

    /// Types steps and gates over the sources' columns.
    async fn type_steps(&self, request: &TypingRequest) -> TypingReply;
}

/// Tells the time; for the origin of facts and for the negotiation's deadline, never for a decision of the rules.
pub trait Clock: Send + Sync {
    /// Returns milliseconds since the Unix epoch. Somebody may set that clock at any moment, also back.
    fn now_ms(&self) -> u64;

    /// Returns milliseconds that only pass, since a moment of this process: for spans of time.
    fn elapsed_ms(&self) -> u64;

    /// Returns the same as an RFC 3339 instant in UTC, to the millisecond.
    fn now_rfc3339(&self) -> String {
        let ms = i64::try_from(self.now_ms()).unwrap_or(i64::MAX);
        let time = chrono::DateTime::from_timestamp_millis(ms).unwrap_or_default();
        time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed_ms(&self) -> u64 {
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        let elapsed = BEGINNING.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}
