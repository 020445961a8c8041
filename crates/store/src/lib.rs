//! The event log behind one trait: memory and sled.
//!
//! A [`Store`] keeps the records of each request, and a few facts derived from them that would be dear to find again:
//! which run is unfinished, which plan a pipeline last ran, what is known of the world, what the outside is told. [`ledger`] holds the one
//! implementation of all that, over an ordered map with atomic batches; [`memory`] and [`sled`](mod@sled) are two such maps, and
//! [`behind`] puts one over another, so they cannot differ in what they mean. [`conformance`] is the suite that every implementation must pass.
//!
//! Calls block: for a flush, a few milliseconds. Async callers go through `spawn_blocking`.

pub mod behind;
pub mod conformance;
mod error;
mod folder;
mod keys;
pub mod ledger;
pub mod memory;
pub mod metrics;
pub mod sled;

use std::{fmt, sync::Arc};

use dagwright_model::{
    ask::{Ask, AskKind},
    event::{Event, Rows},
    id::{PlanHash, RequestId},
    message::Observation,
    plan::Plan,
    record::{Ingress, PipelineStatus, Purpose, Record},
    task::Problem,
};
pub use error::Error;
pub use memory::MemoryStore;
use serde::{Deserialize, Serialize};
pub use sled::{SledCache, SledStore};

/// The most records that one [`Store::append`] takes; a step of any machine makes a few dozen.
pub const APPEND_RECORDS_MAX: usize = 10_000;

/// The event log, and what is derived from it.
pub trait Store: fmt::Debug + Send + Sync {
    /// Appends records of one request: all of them or none, on disk when this returns.
    ///
    /// The first record's sequence must be the one that follows the request's last record (0 for a new request), and
    /// the others must follow it, so two writers that read the same state cannot both append.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another writer was faster, [`Error::TooLong`] for a record that is longer than can be
    /// kept, [`Error::Misuse`] for records that do not belong together,
    /// or what is wrong with the storage; nothing was appended in any of these cases.
    fn append(&self, records: &[Record]) -> Result<(), Error>;

    /// Returns the records of a request from a sequence on, in order; none for an unknown request.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn read(&self, request: &RequestId, from: u64) -> Result<Vec<Record>, Error>;

    /// Returns what is known of a request at a glance.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn request(&self, request: &RequestId) -> Result<Option<RequestSummary>, Error>;

    /// Returns the requests of a pipeline (by `dag_id`), the newest first, at most `limit`.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn requests(&self, pipeline: &str, limit: usize) -> Result<Vec<RequestSummary>, Error>;

    /// Returns the newest request with this [run key](dagwright_model::record::Accepted::run_key) that has a sealed
    /// plan and neither ended nor was cancelled.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn unfinished(&self, run_key: &str) -> Result<Option<RequestId>, Error>;

    /// Returns the plan that a pipeline ran last, which `diff` compares with; only the start of a run moves it.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn baseline(&self, pipeline: &str) -> Result<Option<PlanHash>, Error>;

    /// Returns a plan that was sealed for any request.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn plan(&self, hash: &PlanHash) -> Result<Option<Plan>, Error>;

    /// Returns the latest recorded answer to a question, by the hash of the question.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn fact(&self, key: &str) -> Result<Option<Observation>, Error>;
}

/// What a service knows at a glance of everything it was ever asked for.
pub trait Register: Store {
    /// Returns the requests that a service took on and that have not ended, the oldest first.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn open_requests(&self) -> Result<Vec<RequestId>, Error>;

    /// Returns the requests of a pipeline (by `dag_id`), or of all, but those that were only planned, the newest first:
    /// those after `before` (its time and id) in that order, at most `limit`.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn recent(
        &self,
        pipeline: Option<&str>,
        before: Option<(u64, &RequestId)>,
        limit: usize,
    ) -> Result<Vec<RequestSummary>, Error>;

    /// Returns what is known of a pipeline (by `dag_id`).
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn pipeline(&self, pipeline: &str) -> Result<Option<PipelineSummary>, Error>;

    /// Returns the pipelines after a `dag_id`, in the order of ids, at most `limit`.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn pipelines(&self, after: &str, limit: usize) -> Result<Vec<PipelineSummary>, Error>;

    /// Asks something of whoever acts for the request's pipeline; on disk when this returns. Returns whether anything of
    /// this kind waits to be settled now: what a request is past, as a decision about a plan that does not wait for one,
    /// is not kept, and what was asked before is not asked again.
    ///
    /// # Errors
    /// What is wrong with the storage, or with whatever it is kept in.
    fn ask(&self, ask: &Ask) -> Result<bool, Error>;

    /// Returns what is asked about a request and not settled.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn asks(&self, request: &RequestId) -> Result<Vec<Ask>, Error>;

    /// Returns everything that is asked and not settled, in no particular order.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn asked(&self) -> Result<Vec<(RequestId, AskKind)>, Error>;

    /// Returns how far this process read something outside, as was last kept under a name.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn bookmark(&self, name: &str) -> Result<Option<u64>, Error>;

    /// Keeps how far this process read something outside. It is this process's alone, also where the ledger is shared, and
    /// what was kept last may be lost in a crash: an earlier one is found then.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a name that is none, or what is wrong with the storage.
    fn keep_bookmark(&self, name: &str, at: u64) -> Result<(), Error>;

    /// Takes in what others have written about a pipeline (by `dag_id`), or about all, before this was called; waits for a
    /// bounded time, after which what is there may be a little old. Where this process has the ledger to itself, nobody
    /// else writes.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn catch_up(&self, pipeline: Option<&str>) -> Result<(), Error> {
        let _ = pipeline;
        Ok(())
    }

    /// Tells whether this process acts for a pipeline; where it has the ledger to itself, it acts for all.
    fn acts_for(&self, pipeline: &str) -> bool {
        let _ = pipeline;
        true
    }
}

/// What the outside is told: the events of all appended records, in one order.
///
/// An event is written with the record that it tells of, so an outage of whoever reads delays it and never drops it;
/// each reader has a position of its own.
pub trait Outbox: Store {
    /// Returns what the outside is told after a position, in order, at most `limit`; positions grow from 1. The events
    /// of a batch are there once it is on disk.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn events(&self, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, Error>;

    /// Returns the position of the newest event; 0 when there is none.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn newest_event(&self) -> Result<u64, Error>;

    /// Returns the position of the oldest event that is kept; `None` when there is none.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn oldest_event(&self) -> Result<Option<u64>, Error>;

    /// Returns the position of the last event that a reader has delivered; `None` for a reader nobody knows.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn delivered(&self, reader: &str) -> Result<Option<u64>, Error>;

    /// Remembers the position up to which a reader has delivered.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn deliver(&self, reader: &str, position: u64) -> Result<(), Error>;

    /// Calls `listener` after each append that told something, with the newest event's position; the last one to be
    /// given counts. It must not block.
    fn listen(&self, listener: Listener);
}

/// A ledger that is a cache of a log elsewhere, from which it can be built anew.
///
/// Nothing here is flushed before it is acknowledged: the log has it.
pub trait Cache: Register + Outbox + Retention {
    /// Returns what the outside will be told of records once they are appended; appends nothing.
    ///
    /// # Errors
    /// As [`Store::append`].
    fn foresee(&self, records: &[Record]) -> Result<Vec<Event>, Error>;

    /// Takes in what stands in a log before `position`, of any requests, in the log's order; passes over records that are
    /// known, and over what is asked of requests that are past it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when records before them are missing, or what is wrong with the storage; nothing was taken in
    /// then.
    fn absorb(&self, log: &str, position: u64, entries: &[Entry]) -> Result<(), Error>;

    /// Takes in records that this process has just written to the log, which tells the same later; those of a request in
    /// order.
    ///
    /// # Errors
    /// As [`Cache::absorb`].
    fn learn(&self, records: &[Record]) -> Result<(), Error>;

    /// Returns the position up to which a log was taken in; `None` for a log nobody knows.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn reached(&self, log: &str) -> Result<Option<u64>, Error>;

    /// Brings what was taken in to the disk, so that the next process need not read it again.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn flush(&self) -> Result<(), Error>;
}

/// Lets go of what is old.
///
/// A request may be forgotten when it has ended and nothing that is kept needs it: not its pipeline (its newest request, the one
/// that applied its spec, changed its state, or ran last, so that what `diff` compares with stays), and no other
/// request, which may use its plan. So what remains says the same of everything that it speaks of, also when it
/// is read anew from the beginning. A request that comes again after it was forgotten is a new one.
pub trait Retention: Register + Outbox {
    /// Looks at requests in the order in which they were accepted, at most `limit`, from behind `after` on, for those that may
    /// be forgotten since nothing happened to them at `before` (milliseconds since the Unix epoch) or later.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn forgettable(&self, before: u64, after: Option<&Mark>, limit: usize) -> Result<Forgettable, Error>;

    /// Forgets requests, each as a whole or not at all: records, facts, and plans that no other request has. Passes over
    /// those that may not be forgotten; returns how many were.
    ///
    /// # Errors
    /// What is wrong with the storage; some of them may be forgotten then.
    fn forget(&self, requests: &[RequestId]) -> Result<usize, Error>;

    /// Forgets events that were told before a time, up to a position, from the oldest on, at most `limit`; never the
    /// newest, from which positions go on. Returns how many.
    ///
    /// # Errors
    /// What is wrong with the storage.
    fn forget_events(&self, before: u64, up_to: u64, limit: usize) -> Result<usize, Error>;
}

/// A place among the requests in the order in which they were accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Those that were only planned come after all others.
    pub(crate) looked: bool,
    pub(crate) at: u64,
    pub(crate) request: RequestId,
}

/// What was found to be forgettable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgettable {
    /// The requests.
    pub requests: Vec<RequestSummary>,
    /// Where to look on; `None` at the end.
    pub next: Option<Mark>,
}

/// What stands in a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Something that happened.
    Record(Record),
    /// Something that is asked.
    Ask(Ask),
    /// A request was forgotten.
    Forgotten {
        /// The request.
        request: RequestId,
        /// When it had been accepted, in milliseconds since the Unix epoch: what was accepted later stays.
        accepted_at: u64,
    },
}

/// Hears that there are new events.
pub type Listener = Arc<dyn Fn(u64) + Send + Sync>;

/// A request at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestSummary {
    /// The request.
    pub request: RequestId,
    /// The pipeline's `dag_id`.
    pub pipeline: String,
    /// The hash of its spec's normal form.
    pub spec_hash: String,
    /// What it is for.
    pub purpose: Purpose,
    /// See [`Accepted::run_key`](dagwright_model::record::Accepted::run_key).
    pub run_key: String,
    /// When it was accepted, in milliseconds since the Unix epoch; later than any that its pipeline accepted before, also
    /// when the clock was set back in between. The order of requests rests on it.
    pub accepted_at: u64,
    /// When its last record was made, likewise; never before an earlier one.
    pub changed_at: u64,
    /// The sequence that its next record must have.
    pub next_sequence: u64,
    /// How far it is.
    pub state: RequestState,
    /// The sealed plan, once there is one.
    pub plan: Option<PlanHash>,
    /// Where it came in.
    pub ingress: Ingress,
    /// Who asked, as ingress knows them.
    #[serde(default)]
    pub requester: Option<String>,
    /// The trace context that it came with.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// When its run began, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub run_started_at: Option<u64>,
    /// The id of its DAG run, where Airflow runs it.
    #[serde(default)]
    pub dag_run: Option<String>,
    /// Whether its last run was a setback, and that of another plan has not begun.
    #[serde(default)]
    pub replans: bool,
    /// The rows of its run, once that ended.
    #[serde(default)]
    pub rows: Option<Rows>,
    /// Why it came to nothing.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// A pipeline at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineSummary {
    /// Its `dag_id`.
    pub pipeline: String,
    /// Whether it runs.
    pub status: PipelineStatus,
    /// Its revision; 0 when none was ever applied.
    pub revision: u64,
    /// The request that applied the revision.
    pub applied: Option<RequestId>,
    /// The plan that it ran last.
    pub baseline: Option<PlanHash>,
    /// Its newest request.
    pub newest: RequestId,
    /// When that was accepted, as its summary says.
    #[serde(default)]
    pub newest_at: u64,
    /// The request that ran last.
    #[serde(default)]
    pub ran: Option<RequestId>,
    /// The request that changed its state last.
    #[serde(default)]
    pub changed: Option<RequestId>,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// The agents negotiate.
    Negotiating,
    /// There is a plan; nothing runs yet.
    Sealed,
    /// The plan waits for a person.
    AwaitingApproval,
    /// The agents could not agree.
    Deadlocked,
    /// It failed, before or in its run.
    Failed,
    /// The plan runs.
    Running,
    /// The run was asked to stop, and has not stopped yet.
    Cancelling,
    /// It was asked to stop, and did.
    Cancelled,
    /// What was asked for is done.
    Succeeded,
}

// === impl RequestState ===

impl RequestState {
    /// Tells whether a run in this state can be continued.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        match self {
            Self::Sealed | Self::Running => true,
            Self::Negotiating
            | Self::AwaitingApproval
            | Self::Deadlocked
            | Self::Failed
            | Self::Cancelling
            | Self::Cancelled
            | Self::Succeeded => false,
        }
    }

    /// Tells whether nothing further happens to a request in this state.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Deadlocked | Self::Failed | Self::Cancelled | Self::Succeeded => true,
            Self::Negotiating | Self::Sealed | Self::AwaitingApproval | Self::Running | Self::Cancelling => false,
        }
    }
}
