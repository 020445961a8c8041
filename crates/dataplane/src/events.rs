//! What a task says while it runs, and what it knows of its own process.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dagwright_model::task::{Problem, TaskEvent};
use tokio::{task::AbortHandle, time};

use crate::{
    tally::{SinkTally, SourceTally},
    transform::relation::Relation,
};

/// The pause between two progress events: at most four a second.
const PROGRESS_PAUSE: Duration = Duration::from_millis(250);

/// Where events go.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(&TaskEvent) + Send + Sync>);

/// Everything whose sums make up a progress event.
#[derive(Clone, Default)]
pub struct Gauges {
    /// The sources read.
    pub sources: Vec<Arc<SourceTally>>,
    /// The staged relations read.
    pub staged: Vec<Arc<Relation>>,
    /// The sinks written.
    pub sinks: Vec<Arc<SinkTally>>,
    /// Rows staged.
    pub rows_staged: Arc<AtomicU64>,
}

/// Sends progress events until it is dropped.
pub struct Progress(AbortHandle);

// === impl Events ===

impl Events {
    /// Sends events to `receive`, from any thread.
    pub fn new(receive: impl Fn(&TaskEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// Sends an event.
    pub fn send(&self, event: &TaskEvent) {
        (self.0)(event);
    }

    /// Sends a warning.
    pub fn warn(&self, problem: Problem) {
        self.send(&TaskEvent::Warning(problem));
    }

    /// Starts to send progress events, where there is progress.
    #[must_use]
    pub fn watch(&self, gauges: Gauges) -> Progress {
        let events = self.clone();
        let task = tokio::spawn(async move {
            let mut ticks = time::interval(PROGRESS_PAUSE);
            let mut last = None;
            loop {
                ticks.tick().await;
                let now = gauges.read();
                if last.replace(now) != Some(now) && now != (0, 0, 0) {
                    let (rows_read, bytes_read, rows_written) = now;
                    events.send(&TaskEvent::Progress { rows_read, bytes_read, rows_written });
                }
            }
        });
        Progress(task.abort_handle())
    }
}

// === impl Gauges ===

impl Gauges {
    fn read(&self) -> (u64, u64, u64) {
        let sources = || self.sources.iter();
        let rows_read = sources().map(|tally| tally.read.load(Relaxed)).sum::<u64>()
            + self.staged.iter().map(|relation| relation.rows()).sum::<u64>();
        let bytes_read = sources().map(|tally| tally.bytes.load(Relaxed)).sum();
        let rows_written =
            self.sinks.iter().map(|tally| tally.written.load(Relaxed)).sum::<u64>() + self.rows_staged.load(Relaxed);
        (rows_read, bytes_read, rows_written)
    }
}

// === impl Progress ===

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the largest resident set of this process so far, in bytes; 0 where unknown.
#[must_use]
pub fn memory_peak_bytes() -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
