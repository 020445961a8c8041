//! What agents say to each other: a contract net with counter-offers, rendered by `/proto`.

use serde::{Deserialize, Serialize};

/// A role in a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Opens, searches, seals.
    Orchestrator,
    /// Reads sources.
    Extraction,
    /// Computes steps.
    Transformation,
    /// Writes sinks.
    Loading,
}

/// What something is expected to cost.
///
/// Money is absent until an engine charges any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Rows handled.
    pub rows: u64,
    /// Bytes moved over disk or network.
    pub bytes: u64,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// Peak memory in bytes.
    pub memory_bytes: u64,
    /// How far to trust it, in percent.
    pub confidence: u8,
}
