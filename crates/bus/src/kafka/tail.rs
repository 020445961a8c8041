//! Reads the whole ledger into the local cache, and goes on reading.
//!
//! Every instance does, for all partitions and outside the group: so each can answer for every pipeline, and a partition
//! changes its owner in the time that it takes to read what was written last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release},
    },
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    Error,
    client::Log,
    error::{is_connection, is_forbidden},
    message::LedgerRecord,
    shared::Shared,
};

/// How many records go to the cache at once.
const BATCH_RECORDS_MAX: usize = 1000;

/// How many bytes go to the cache at once, but for one longer record.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How long to wait for records before looking whether an end was asked for.
const POLL: Duration = Duration::from_millis(20);

/// How long a seek may take; it is an affair of this process.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// The local cache of the ledger. Calls come from one thread, and may block.
pub trait LedgerCache: Send + 'static {
    /// Returns the offsets to go on from, by partition; one that is not there is read from its beginning.
    ///
    /// # Errors
    /// When the cache cannot be read; the instance then fails.
    fn offsets(&mut self) -> Result<BTreeMap<i32, i64>, Box<dyn std::error::Error + Send + Sync>>;

    /// Takes in records, those of a partition in order, and remembers the offsets after them. When this returns, whoever
    /// asks the cache sees them. Records that it has already come again after a restart, and those that this instance
    /// committed itself come as all others do.
    ///
    /// # Errors
    /// When the cache cannot be written; the instance then fails.
    fn apply(&mut self, records: Vec<LedgerRecord>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Who wants to know when the cache has met the end of a partition.
pub(crate) struct Ends {
    partitions: Vec<End>,
}

#[derive(Default)]
struct End {
    asked: AtomicU64,
    met: AtomicU64,
}

/// A question for the end of a partition as it is from now on.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    partition: usize,
    number: u64,
}

/// The thread's state.
pub(crate) struct Tail<C> {
    consumer: BaseConsumer<Log>,
    shared: Arc<Shared>,
    cache: C,
    /// What to read next, by partition; `None` until something was read from the beginning.
    next: Vec<Option<i64>>,
    /// The partitions whose end was not met yet.
    behind: BTreeSet<i32>,
    /// The last question by partition for which the reading was started again.
    answering: Vec<u64>,
    batch: Vec<LedgerRecord>,
    batch_bytes: usize,
}

// === impl Ends ===

impl Ends {
    pub(crate) fn new(partitions: u16) -> Self {
        Self { partitions: (0..partitions).map(|_| End::default()).collect() }
    }

    /// Asks for the end as it is from now on; `None` for a partition that the ledger does not have.
    pub(crate) fn ask(&self, partition: i32) -> Option<Ticket> {
        let partition = usize::try_from(partition).ok()?;
        let number = self.partitions.get(partition)?.asked.fetch_add(1, AcqRel) + 1;
        Some(Ticket { partition, number })
    }

    /// Tells whether the cache has met the end that was asked for.
    pub(crate) fn is_met(&self, ticket: Ticket) -> bool {
        self.partitions[ticket.partition].met.load(Acquire) >= ticket.number
    }
}

// === impl Tail ===

impl<C: LedgerCache> Tail<C> {
    /// Starts where the cache is.
    ///
    /// # Errors
    /// When the cache cannot be read, or the partitions cannot be assigned.
    pub(crate) fn new(consumer: BaseConsumer<Log>, shared: Arc<Shared>, mut cache: C) -> Result<Self, Error> {
        let offsets = cache.offsets().map_err(|source| Error::Cache { what: "read", source })?;
        let count = usize::from(shared.topics.partitions);
        let mut next = vec![None; count];
        let mut places = TopicPartitionList::with_capacity(count);
        for (partition, next) in (0..).zip(&mut next) {
            *next = offsets.get(&partition).copied();
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            let added = places.add_partition_offset(&shared.topics.ledger, partition, offset);
            added.map_err(|_| Error::ForeignCache { topic: shared.topics.ledger.clone() })?;
        }
        consumer.assign(&places).map_err(|source| Error::Client { what: "read the ledger", source })?;
        let answering = vec![0; count];
        let behind = (0..i32::from(shared.topics.partitions)).collect();
        Ok(Self { consumer, shared, cache, next, behind, answering, batch: Vec::new(), batch_bytes: 0 })
    }

    /// Reads until the instance is over.
    pub(crate) fn run(mut self) {
        while !self.shared.is_over() {
            self.look_for_ends();
            if let Err(error) = self.read() {
                self.shared.fail(error);
            }
        }
    }

    /// Reads what is there, up to a batch.
    fn read(&mut self) -> Result<(), Error> {
        let mut patience = POLL;
        let mut ended = BTreeSet::new();
        while self.batch.len() < BATCH_RECORDS_MAX && self.batch_bytes < BATCH_BYTES_MAX {
            match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    let record = LedgerRecord::of(&message);
                    self.batch_bytes += record.len();
                    self.batch.push(record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(error)) => self.complain(error)?,
            }
            patience = Duration::ZERO;
        }
        self.apply()?;
        for partition in ended {
            self.meet(partition);
            self.behind.remove(&partition);
        }
        if self.behind.is_empty() {
            self.shared.stats.caught_up.set(true);
        }
        Ok(())
    }

    fn apply(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        for record in &self.batch {
            if let Some(next) = usize::try_from(record.partition).ok().and_then(|index| self.next.get_mut(index)) {
                *next = Some(record.offset + 1);
            }
        }
        self.shared.stats.tailed.add(self.batch.len());
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.cache.apply(batch).map_err(|source| Error::Cache { what: "write", source })
    }

    /// Starts reading again where an end is asked for: librdkafka tells of an end once, and what it told before the
    /// question may have been an earlier end.
    fn look_for_ends(&mut self) {
        for index in 0..self.next.len() {
            let asked = self.shared.ends.partitions[index].asked.load(Acquire);
            let Ok(partition) = i32::try_from(index) else { continue };
            if asked == self.answering[index] {
                continue;
            }
            let offset = self.next[index].map_or(Offset::Beginning, Offset::Offset);
            match self.consumer.seek(&self.shared.topics.ledger, partition, offset, SEEK_TIMEOUT) {
                Ok(()) => self.answering[index] = asked,
                // It has not begun to read; the next time round it will have.
                Err(error) => tracing::debug!(partition, %error, "could not seek in the ledger yet"),
            }
        }
    }

    fn meet(&self, partition: i32) {
        let Ok(index) = usize::try_from(partition) else { return };
        if let (Some(end), Some(answering)) = (self.shared.ends.partitions.get(index), self.answering.get(index)) {
            end.met.store(*answering, Release);
            self.shared.table.wake();
        }
    }

    fn complain(&self, error: KafkaError) -> Result<(), Error> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(Error::ForeignCache { topic: self.shared.topics.ledger.clone() })
            }
            Some(code) if is_forbidden(code) => {
                Err(Error::of("read the ledger", self.consumer.context().complaint(), error))
            }
            Some(code) if is_connection(code) => Ok(()),
            _ => {
                tracing::warn!(%error, "could not read the ledger for now");
                Ok(())
            }
        }
    }
}
