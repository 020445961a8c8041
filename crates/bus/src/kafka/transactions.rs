//! Commits what an owner decided, all of it or nothing, and many commits in one transaction.
//!
//! A transaction carries the offsets of every partition that its commits rest on, with the group's metadata. So the
//! brokers refuse it once the group has moved on, whatever we believe; and they tell nobody the offset of such a partition
//! while the transaction is open. Kafka compares the generation and not the assignment, hence the order in which an attempt
//! asks: first for the metadata, then whether the partitions are still owned. A partition that is lost after the second
//! question is another's in a later generation only, and the metadata is of an earlier one.
//!
//! An outcome that is not known is never guessed at: the partition is acquired anew, and whoever acts for it loads
//! again what there is.

mod ending;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dagwright_telemetry::chain::ErrorChain;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Commit, CommitError, Destination, Error, Outgoing, Ownership, Settings,
    client::Log,
    commit::Job,
    confirm::Written,
    deliveries::Deliveries,
    error::{is_forbidden, is_too_large},
    member::GroupConsumer,
    message::TopicName,
    ownership::NotNow,
    settings::create,
    shared::Shared,
    topics,
};

/// How many commits share a transaction.
const COMMITS_MAX: usize = 512;

/// How many bytes of commits share a transaction, but for one longer commit.
const BYTES_MAX: usize = 4 << 20;

/// How long one call of librdkafka may take before we look whether to go on. Calls are resumed, not begun again.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a transaction may be unknown before the producer is given up; longer than transactions last.
const DOUBT_MAX: Duration = Duration::from_secs(90);

/// How long the coordinator is given to write down the end of a transaction before the next one begins: it refuses one that
/// comes earlier, and librdkafka then asks again after 20 ms only. What comes meanwhile goes along.
const REST: Duration = Duration::from_millis(4);

/// The first pause before another attempt, and the longest; each is twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// A commit whose outcome somebody waits for.
struct Pending {
    commit: Commit,
    /// What it was to write was too long, and is another by now.
    gave_way: bool,
    reply: oneshot::Sender<Result<(), CommitError>>,
}

type TransactionalProducer = ThreadedProducer<Deliveries>;

/// The thread's state.
pub(crate) struct Transactions {
    settings: Settings,
    shared: Arc<Shared>,
    consumer: Arc<GroupConsumer>,
    /// Sees what is committed. It reads nothing, as a broker answers a connection's questions one after the other, and the
    /// member's would wait until there are records for it.
    witness: BaseConsumer<Log>,
    jobs: mpsc::Receiver<Job>,
    /// By which a producer asks to look for what is open.
    looks: mpsc::WeakSender<Job>,
    producer: Option<TransactionalProducer>,
    /// Something went wrong in a way that may have left something open.
    is_suspect: bool,
    /// The last transaction is known to have been committed.
    last_is_committed: bool,
    /// A partition and the tag of the transaction whose outcome is not known.
    in_doubt: Option<((TopicName, i32), String)>,
    /// What the last transaction wrote that was committed, or may have been, until it is known to be visible.
    unconfirmed: Written,
    /// Tells the transactions of this process apart.
    transactions: u64,
    boot: u128,
    /// Since when no transaction succeeded although some were tried.
    failing_since: Option<Instant>,
    /// How many commits may share a transaction: fewer while it is not known which of them has a record that is too long.
    together_max: usize,
    /// When the last transaction ended.
    ended: Instant,
}

/// How far the partitions of a transaction have come by it.
#[derive(Default)]
struct Advance {
    /// What the transaction is called; stands beside the offsets.
    tag: String,
    partitions: BTreeMap<(TopicName, i32), (Ownership, usize, i64)>,
}

/// What came of an attempt.
enum Attempt {
    /// Every commit has its outcome.
    Done,
    /// Nothing became visible; the commits that are left may be tried again.
    Again(KafkaError),
    /// Nothing became visible, as a record was too long; what can be done about that was done.
    TooLong,
    /// It is not known what became visible.
    Doubt(KafkaError),
}

/// How bad an error of librdkafka is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// Call again.
    Resume,
    /// Abort, and begin again.
    Abort,
    /// The producer is of no use any more.
    Fatal,
}

// === impl Transactions ===

impl Transactions {
    pub(crate) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        consumer: Arc<GroupConsumer>,
        witness: BaseConsumer<Log>,
        (jobs, looks): (mpsc::Receiver<Job>, mpsc::WeakSender<Job>),
    ) -> Self {
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Self {
            settings,
            shared,
            consumer,
            witness,
            jobs,
            looks,
            producer: None,
            is_suspect: true,
            last_is_committed: false,
            in_doubt: None,
            unconfirmed: Written::default(),
            transactions: 0,
            boot,
            failing_since: None,
            together_max: COMMITS_MAX,
            ended: Instant::now(),
        }
    }

    /// Commits until it is told to end, or the instance fails.
    pub(crate) fn run(mut self) {
        // Ends what a former process of this name left open, before anybody waits for it.
        self.prepare_at_last(false);
        let mut is_last = false;
        while !is_last && !self.shared.is_over() {
            let (mut batch, ends) = self.gather();
            is_last = ends;
            self.commit(&mut batch);
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            if let Job::Commit(_, reply) = job {
                let _ = reply.send(Err(CommitError::Closed));
            }
        }
    }

    /// Waits for a commit and takes those that wait with it; true when no more are to be taken.
    fn gather(&mut self) -> (Vec<Pending>, bool) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut next = self.jobs.blocking_recv();
        std::thread::sleep(REST.saturating_sub(self.ended.elapsed()));
        loop {
            match next {
                Some(Job::Commit(commit, reply)) => {
                    bytes += commit.records.iter().map(Outgoing::len).sum::<usize>();
                    batch.push(Pending { commit, gave_way: false, reply });
                }
                Some(Job::Look) => return (batch, false),
                Some(Job::End) | None => return (batch, true),
            }
            if batch.len() >= COMMITS_MAX || bytes >= BYTES_MAX {
                return (batch, false);
            }
            match self.jobs.try_recv() {
                Ok(job) => next = Some(job),
                Err(_) => return (batch, false),
            }
        }
    }

    /// Tries until each commit of a batch has its outcome, and nothing is left open.
    fn commit(&mut self, batch: &mut Vec<Pending>) {
        let is_idle = batch.is_empty();
        self.decide(batch);
        // Others wait for what is open, even if we have nothing more to commit.
        self.prepare_at_last(is_idle);
        self.ended = Instant::now();
    }

    /// Tries until there is a producer and nothing is left open; without anything to commit, however long that takes, or
    /// until there is. Whoever is told to end leaves that to its next start.
    fn prepare_at_last(&mut self, is_idle: bool) {
        let mut pause = PAUSES.0;
        while !self.shared.is_over() && !self.shared.is_draining() {
            match self.prepare() {
                Ok(()) => {
                    self.failing_since = None;
                    return;
                }
                Err(_) if is_idle && self.jobs.is_empty() => {}
                Err(_) if is_idle => return,
                Err(error) => self.note_failure(&error),
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// Tries until each commit of a batch has its outcome.
    fn decide(&mut self, batch: &mut Vec<Pending>) {
        let mut pause = PAUSES.0;
        while !batch.is_empty() {
            let mut others = batch.split_off(self.together_max.min(batch.len()));
            let attempted = self.attempt(batch);
            if !matches!(attempted, Attempt::Doubt(_)) {
                batch.append(&mut others);
            }
            match attempted {
                Attempt::Done => {
                    self.failing_since = None;
                    self.together_max = (2 * self.together_max).min(COMMITS_MAX);
                    continue;
                }
                Attempt::TooLong => {
                    self.shared.stats.aborted.add(1);
                    continue;
                }
                Attempt::Again(error) => {
                    self.shared.stats.aborted.add(1);
                    tracing::debug!(%error, commits = batch.len(), "transaction came to nothing");
                    self.note_failure(&error);
                }
                Attempt::Doubt(error) => {
                    tracing::warn!(%error, commits = batch.len(), "outcome of a transaction is not known");
                    self.shared.stats.in_doubt.add(batch.len());
                    for Pending { commit, reply, .. } in batch.drain(..) {
                        self.shared.table.renew(&commit.ownership);
                        let _ = reply.send(Err(CommitError::Lost));
                    }
                    // Of those that were not tried, whose partitions are still ours can be.
                    batch.append(&mut others);
                    self.note_failure(&error);
                }
            }
            if self.shared.is_over() {
                for Pending { reply, .. } in batch.drain(..) {
                    let _ = reply.send(Err(CommitError::Closed));
                }
                return;
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// Tries once.
    fn attempt(&mut self, batch: &mut Vec<Pending>) -> Attempt {
        if let Err(error) = self.prepare() {
            return Attempt::Again(error);
        }
        // First this, see the head of the file.
        let Some(metadata) = self.consumer.group_metadata() else {
            return Attempt::Again(KafkaError::Canceled);
        };
        let mut advance = self.admit(batch);
        if batch.is_empty() {
            return Attempt::Done;
        }
        self.transactions += 1;
        advance.tag = format!("{}:{}:{}", self.settings.instance, self.boot, self.transactions);
        let Some(producer) = &self.producer else { return Attempt::Again(KafkaError::Canceled) };
        let error = match self.write(producer, batch, &advance, &metadata) {
            Err(error) => error,
            Ok(()) => match self.call(|| producer.commit_transaction(CALL_TIMEOUT)) {
                Ok(()) => {
                    self.unconfirmed = producer.context().take_written();
                    self.last_is_committed = true;
                    self.succeed(batch, &advance);
                    return Attempt::Done;
                }
                // The brokers have decided against it.
                Err(error) if severity(&error) == Severity::Abort => error,
                Err(error) => {
                    self.unconfirmed = producer.context().take_written();
                    self.last_is_committed = false;
                    self.in_doubt = advance.partitions.keys().next().cloned().map(|place| (place, advance.tag));
                    self.give_up_producer();
                    return Attempt::Doubt(error);
                }
            },
        };
        self.last_is_committed = false;
        let is_usable =
            severity(&error) != Severity::Fatal && self.call(|| producer.abort_transaction(CALL_TIMEOUT)).is_ok();
        let failures = producer.context().failures();
        let too_long: BTreeSet<_> =
            failures.iter().filter(|(_, code)| is_too_large(*code)).map(|(index, _)| *index).collect();
        self.is_suspect |= !is_of_the_group(&error);
        if !is_usable {
            self.give_up_producer();
        }
        if too_long.is_empty() {
            return Attempt::Again(error);
        }
        self.make_way(batch, &too_long);
        Attempt::TooLong
    }

    /// Makes a producer unless there is one, and ends what an earlier one left open.
    fn prepare(&mut self) -> Result<(), KafkaError> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => {
                let deliveries = Deliveries::new(self.looks.clone());
                let producer = self.or_fail(create(&self.settings.transactional(), deliveries))?;
                self.is_suspect = true;
                // Returns once the brokers take the last transaction of this name for ended.
                self.call(|| Producer::init_transactions(&producer, CALL_TIMEOUT))?;
                producer
            }
        };
        self.is_suspect |= producer.context().take_disturbed();
        let cleaned = if self.is_suspect { self.clean(&producer) } else { self.confirm(&producer) };
        if cleaned.as_ref().is_err_and(|error| severity(error) == Severity::Fatal) {
            return cleaned;
        }
        self.producer = Some(producer);
        cleaned
    }

    fn or_fail<T>(&self, made: Result<T, Error>) -> Result<T, KafkaError> {
        made.map_err(|error| {
            self.shared.fail(error);
            KafkaError::Canceled
        })
    }

    /// Calls librdkafka until it has an answer, for a bounded time: a call that ran out of time goes on where it was.
    fn call(&self, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + DOUBT_MAX;
        loop {
            match call() {
                Err(error) if severity(&error) == Severity::Resume => {
                    if Instant::now() >= deadline || self.shared.is_over() {
                        return Err(error);
                    }
                    tracing::debug!(%error, "call again");
                }
                decided => return decided,
            }
        }
    }

    /// Answers the commits that cannot be tried, and returns how far the others bring their partitions.
    fn admit(&self, batch: &mut Vec<Pending>) -> Advance {
        // Set by librdkafka before it forgets who we are in the group, so it was read after the metadata on purpose.
        let is_all_lost = self.consumer.assignment_lost();
        let mut advance = Advance::default();
        let mut admitted = Vec::with_capacity(batch.len());
        for pending in batch.drain(..) {
            let Commit { ownership, consumed, .. } = &pending.commit;
            let place = ownership.place();
            let ahead = advance.partitions.get(&place).map_or(0, |(_, ahead, _)| *ahead);
            let admission = match is_all_lost {
                true => Err(NotNow::Lost),
                false => self.shared.table.admit(ownership, ahead, *consumed),
            };
            match admission {
                Ok(position) => {
                    let ahead = ahead + usize::from(consumed.is_some());
                    advance.partitions.insert(place, (ownership.clone(), ahead, position));
                    admitted.push(pending);
                }
                Err(NotNow::Lost) => {
                    self.shared.stats.fenced.add(1);
                    let _ = pending.reply.send(Err(CommitError::Lost));
                }
                Err(NotNow::OutOfOrder { expected }) => {
                    let _ = pending.reply.send(Err(CommitError::OutOfOrder { expected }));
                }
            }
        }
        *batch = admitted;
        advance
    }

    /// Opens a transaction and puts everything into it.
    fn write(
        &self,
        producer: &TransactionalProducer,
        batch: &[Pending],
        advance: &Advance,
        metadata: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        let deliveries = producer.context();
        deliveries.expect(batch.iter().map(|pending| pending.commit.records.len()).sum());
        producer.begin_transaction()?;
        for (index, Pending { commit, .. }) in batch.iter().enumerate() {
            for record in &commit.records {
                self.send(producer, index, commit, record)?;
            }
        }
        let offsets = advance.offsets()?;
        self.call(|| producer.send_offsets_to_transaction(&offsets, metadata, CALL_TIMEOUT))?;
        if let Some((_, code)) = deliveries.wait().first() {
            return Err(KafkaError::MessageProduction(*code));
        }
        // The last report is handled a moment before its record is counted off, and a commit that meets one to be
        // counted off waits for a tenth of a second.
        let deadline = Instant::now() + CALL_TIMEOUT;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn send(
        &self,
        producer: &TransactionalProducer,
        index: usize,
        commit: &Commit,
        record: &Outgoing,
    ) -> Result<(), KafkaError> {
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.to.topic(&self.shared.topics), index);
        out.key = record.key.as_deref();
        out.payload = record.value.as_deref();
        out.headers = record.native_headers();
        out.partition = record.to.partition(Some(commit.ownership.partition()));
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            match producer.send(out) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) && Instant::now() < deadline =>
                {
                    out = back;
                    std::thread::sleep(PAUSES.0);
                }
                Err((error, _)) => {
                    if let Some(code) = error.rdkafka_error_code() {
                        producer.context().fail(index, code);
                    }
                    return Err(error);
                }
            }
        }
    }

    fn succeed(&self, batch: &mut Vec<Pending>, advance: &Advance) {
        let stats = &self.shared.stats;
        for (ownership, consumed, position) in advance.partitions.values() {
            self.shared.table.committed(ownership, *consumed, *position);
        }
        stats.committed.add(1);
        for Pending { commit, gave_way, reply } in batch.drain(..) {
            let to = |to| commit.records.iter().filter(|record| record.to == to).count();
            stats.produced.add(commit.records.len());
            stats.dead_letters.add(to(Destination::DeadLetters));
            let is_forwarded =
                |record: &&Outgoing| matches!(record.to, Destination::Requests | Destination::LedgerOf(_));
            stats.forwarded.add(commit.records.iter().filter(is_forwarded).count());
            // Whoever asked may have gone.
            let _ = reply.send(if gave_way { Err(CommitError::TooLarge) } else { Ok(()) });
        }
    }

    /// Sees to it that a record which the brokers do not take holds up no other one. Brokers refuse records by what was sent
    /// together, so as long as several commits may be at fault, fewer are tried together.
    fn make_way(&mut self, batch: &mut Vec<Pending>, too_long: &BTreeSet<usize>) {
        let only = match too_long.first() {
            Some(index) if too_long.len() == 1 && *index < batch.len() => *index,
            _ => {
                self.together_max = (batch.len() / 2).max(1);
                return;
            }
        };
        let pending = &mut batch[only];
        // Asked each time: whoever looks after the topic may have changed it, and it is rare.
        let len = topics::record_bytes_max(&self.settings, &self.shared.topics.dead_letters);
        if pending.commit.records.iter_mut().any(|record| record.shorten(len)) {
            tracing::warn!(
                topic = pending.commit.ownership.topic(),
                partition = pending.commit.ownership.partition(),
                offset = pending.commit.consumed,
                "a dead letter is longer than its topic takes, and is shortened"
            );
        } else if let Some(otherwise) = pending.commit.otherwise.take() {
            pending.commit.records = otherwise;
            pending.gave_way = true;
        } else {
            let _ = batch.remove(only).reply.send(Err(CommitError::TooLarge));
        }
    }

    fn give_up_producer(&mut self) {
        self.producer = None;
        self.shared.stats.rebuilt.add(1);
    }

    /// Fails the instance when there is no hope, or has not been for too long.
    fn note_failure(&mut self, error: &KafkaError) {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_refused = error.rdkafka_error_code().is_some_and(is_forbidden);
        if is_refused || since.elapsed() >= self.settings.patience {
            let complaint = self.producer.as_ref().and_then(|producer| producer.context().complaint());
            self.shared.fail(Error::of("commit to the ledger", complaint, error.clone()));
        } else if since.elapsed() >= CALL_TIMEOUT {
            tracing::warn!(error = %ErrorChain(error), since_s = since.elapsed().as_secs(), "cannot commit for now");
        }
    }
}

// === impl Advance ===

impl Advance {
    fn offsets(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(self.partitions.len());
        for ((topic, partition), (_, _, position)) in &self.partitions {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*position))?;
            if let Some(mut place) = offsets.find_partition(topic, *partition) {
                place.set_metadata(&self.tag);
            }
        }
        Ok(offsets)
    }
}

/// Tells whether a transaction failed as the group moves on, and for nothing that has to do with what was written.
fn is_of_the_group(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::FencedInstanceId
        )
    )
}

fn severity(error: &KafkaError) -> Severity {
    match error {
        KafkaError::Transaction(error) if error.is_fatal() => Severity::Fatal,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Severity::Abort,
        KafkaError::Transaction(error) if error.is_retriable() => Severity::Resume,
        // A call at the wrong time: what librdkafka believes is not what we do.
        KafkaError::Transaction(_) => Severity::Fatal,
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => Severity::Resume,
        KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) => Severity::Fatal,
        _ => Severity::Abort,
    }
}
