//! What things are expected to cost: the one place with constants, each with its reason.
//!
//! They are throughputs measured once on two cores and rounded to one digit; a plan needs them only to *rank*
//! alternatives and to tell a deadline that nobody can meet from one that many can. [`Rates`] is plain data, so that
//! observations of earlier runs can stand in for the defaults.

use dagwright_model::{
    facts::{SourceProfile, TransformTyping},
    message::Cost,
    spec::{FileFormat, Objective},
};
use serde::{Deserialize, Serialize};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// Throughputs and fixed costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Parsing CSV on one core, bytes a second: a vectorised reader with type inference done before.
    pub csv_bytes_s: u64,
    /// Parsing JSON lines on one core, bytes a second.
    pub ndjson_bytes_s: u64,
    /// Decoding Parquet on one core, stored bytes a second.
    pub parquet_bytes_s: u64,
    /// Binary COPY out of or into PostgreSQL, bytes a second: the server's own core is the bound.
    pub postgres_bytes_s: u64,
    /// What the network to an object store carries, bytes a second.
    pub remote_bytes_s: u64,
    /// What a local disk carries, bytes a second.
    pub local_bytes_s: u64,
    /// Rows a second through a projection or filter.
    pub light_rows_s: u64,
    /// Rows a second through a join, sort or aggregate.
    pub blocking_rows_s: u64,
    /// Starting a task: process, connections, plan.
    pub start_ms: u64,
    /// The memory of a task that does nothing: code, runtime, allocator.
    pub task_bytes: u64,
    /// Batches in flight for each stream read.
    pub stream_bytes: u64,
    /// The least a join, sort or aggregate needs before it can spill.
    pub blocking_bytes: u64,
    /// An open Parquet row group.
    pub parquet_writer_bytes: u64,
    /// Buffers of any other writer.
    pub writer_bytes: u64,
    /// Tasks that run at the same time on one worker.
    pub parallel_tasks: u64,
}

// === impl Rates ===

impl Default for Rates {
    fn default() -> Self {
        Self {
            csv_bytes_s: 200 * MIB,
            ndjson_bytes_s: 100 * MIB,
            parquet_bytes_s: 300 * MIB,
            postgres_bytes_s: 60 * MIB,
            remote_bytes_s: 50 * MIB,
            local_bytes_s: 500 * MIB,
            light_rows_s: 10_000_000,
            blocking_rows_s: 3_000_000,
            start_ms: 100,
            task_bytes: 24 * MIB,
            stream_bytes: 4 * MIB,
            blocking_bytes: 16 * MIB,
            parquet_writer_bytes: 32 * MIB,
            writer_bytes: 8 * MIB,
            parallel_tasks: 4,
        }
    }
}

impl Rates {
    /// Returns the cost of reading `share` thousandths of a source's bytes in one stream.
    #[must_use]
    pub fn read(&self, profile: &SourceProfile, share: u64) -> Cost {
        let is_remote = profile.identity.scheme != "file";
        let parse = match profile.format {
            Some(FileFormat::Csv) => self.csv_bytes_s,
            Some(FileFormat::Ndjson) => self.ndjson_bytes_s,
            Some(FileFormat::Parquet) => self.parquet_bytes_s,
            None => self.postgres_bytes_s,
        };
        let bytes = profile.bytes.value.saturating_mul(share) / 1000;
        let cpu_ms = millis(bytes, parse);
        let io_ms = millis(bytes, if is_remote { self.remote_bytes_s } else { self.local_bytes_s });
        Cost {
            rows: profile.rows.value,
            bytes,
            cpu_ms,
            wall_ms: cpu_ms.max(io_ms),
            memory_bytes: self.stream_bytes,
            confidence: if profile.rows.exact && profile.bytes.exact { 90 } else { 60 },
        }
    }

    /// Returns the cost of computing all steps over `rows` source rows.
    #[must_use]
    pub fn compute(&self, typing: &TransformTyping, rows: u64, bytes: u64) -> Cost {
        let mut cost = Cost { confidence: 50, ..Cost::default() };
        for step in &typing.steps {
            let rate = if step.blocking { self.blocking_rows_s } else { self.light_rows_s };
            let cpu_ms = millis(rows, rate);
            // What does not fit spills, so more than twice the least only makes it faster.
            let memory = if step.blocking { self.blocking_bytes.max((bytes).min(2 * self.blocking_bytes)) } else { 0 };
            cost = cost.then(Cost { rows, cpu_ms, wall_ms: cpu_ms, confidence: 50, ..Cost::default() });
            cost.memory_bytes += memory;
        }
        cost
    }

    /// Returns the cost of writing rows to a system of that scheme and format.
    #[must_use]
    pub fn write(&self, scheme: &str, format: Option<FileFormat>, rows: u64, bytes: u64) -> Cost {
        let (rate, memory) = match format {
            // Parquet is encoded and compressed, text only printed.
            Some(FileFormat::Parquet) => (self.parquet_bytes_s / 4, self.parquet_writer_bytes),
            Some(FileFormat::Csv) => (self.csv_bytes_s, self.writer_bytes),
            Some(FileFormat::Ndjson) => (self.ndjson_bytes_s, self.writer_bytes),
            None => (self.postgres_bytes_s, self.writer_bytes),
        };
        let io = if scheme == "file" { self.local_bytes_s } else { self.remote_bytes_s };
        let cpu_ms = millis(bytes, rate);
        Cost { rows, bytes, cpu_ms, wall_ms: cpu_ms.max(millis(bytes, io)), memory_bytes: memory, confidence: 60 }
    }

    /// Returns the cost of leaving bytes in the staging area and reading them back.
    #[must_use]
    pub fn stage(&self, rows: u64, bytes: u64) -> Cost {
        let written = self.write("file", Some(FileFormat::Parquet), rows, bytes);
        let cpu_ms = written.cpu_ms + millis(bytes, self.parquet_bytes_s);
        Cost { bytes: bytes.saturating_mul(2), cpu_ms, wall_ms: cpu_ms, ..written }
    }

    /// Returns the fixed cost of `tasks` tasks, `in_a_row` of which wait for each other.
    #[must_use]
    pub fn start(&self, tasks: u64, in_a_row: u64) -> Cost {
        Cost {
            cpu_ms: self.start_ms.saturating_mul(tasks),
            wall_ms: self.start_ms.saturating_mul(in_a_row),
            confidence: 100,
            ..Cost::default()
        }
    }
}

/// Returns what the search minimises, and what breaks ties between equal values of that.
#[must_use]
pub fn objective(cost: &Cost, objective: Objective) -> (u64, u64) {
    // A CPU second is worth a GiB moved: about what both cost on rented machines.
    let price = cost.cpu_ms.saturating_add(cost.bytes / MIB);
    match objective {
        Objective::Cost => (price, cost.wall_ms),
        Objective::Time => (cost.wall_ms, price),
        Objective::Memory => (cost.memory_bytes, price),
    }
}

/// Returns how long `amount` takes at `rate` a second, in milliseconds, rounded up.
fn millis(amount: u64, rate: u64) -> u64 {
    amount.saturating_mul(1000).div_ceil(rate.max(1))
}
