//! Reads what the outside is told, for whoever hands it on to where Kafka is not.
//!
//! Each outlet is a consumer group of its own: the group shares the partitions among the instances and remembers how far
//! each was handed on, so another instance goes on where one was lost. A group that is new begins with what is told from
//! then on: where that is gets remembered before anything is read, so nothing is passed over when the first instance goes
//! before it has handed anything on.
//!
//! One thread polls, whatever else happens, so the group never takes us for dead. When nobody takes what was read, the
//! partitions are paused.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    Error, Settings, Topics,
    client::Log,
    error::is_connection,
    message::{HeaderList, headers_of},
    settings::create,
    topics::{blocking, watermarks},
};

/// How many records may wait for whoever hands them on.
const QUEUED_MAX: usize = 256;

/// How long the thread waits for Kafka before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(50);

/// How long the group may take to say what it remembers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A record of the topic.
    Record {
        /// The partition.
        partition: i32,
        /// Its place there.
        offset: i64,
        /// Its headers; none when they are no text.
        headers: HeaderList,
        /// Its content.
        value: Option<Vec<u8>>,
    },
    /// The partition is another instance's now: what was read of it is not to be handed on.
    Lost(i32),
}

/// Reads events as one of a group.
pub struct EventReader {
    told: mpsc::Receiver<Told>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    progress: Mutex<Progress>,
    lag: AtomicU64,
}

#[derive(Default)]
struct Progress {
    /// The offsets to go on from, by partition, of what is ours.
    reached: BTreeMap<i32, i64>,
    /// Partitions that were lost and not told of yet.
    lost: VecDeque<i32>,
    /// How many of their losses are on their way to whoever hands events on; what that says of them is outdated.
    outdated: BTreeMap<i32, usize>,
}

/// Hears what the group decides.
struct Group {
    log: Log,
    topic: String,
    shared: Arc<Shared>,
}

type GroupConsumer = BaseConsumer<Group>;

/// The thread's state.
struct Reading {
    consumer: GroupConsumer,
    shared: Arc<Shared>,
    topic: String,
    told: mpsc::Sender<Told>,
    /// Read and without room.
    held: VecDeque<Told>,
    paused: bool,
    committed: BTreeMap<i32, i64>,
}

// === impl EventReader ===

impl EventReader {
    /// Joins a group of readers.
    ///
    /// # Errors
    /// When the settings cannot be used, no broker answers, or the group is closed to us.
    pub async fn start(settings: &Settings, topics: &Topics, group: &str) -> Result<Self, Error> {
        let (config, topic, partitions) = (settings.events(group), topics.events.clone(), topics.partitions);
        blocking(move || {
            let shared = Arc::new(Shared::default());
            let context = Group { log: Log::new("events"), topic: topic.clone(), shared: shared.clone() };
            let consumer: GroupConsumer = create(&config, context)?;
            remember_beginning(&consumer, &topic, i32::from(partitions))?;
            let subscribed = consumer.subscribe(&[&topic]);
            subscribed.map_err(|source| Error::Client { what: "join the group of an outlet", source })?;
            let (sender, told) = mpsc::channel(QUEUED_MAX);
            let reading = Reading {
                consumer,
                shared: shared.clone(),
                topic,
                told: sender,
                held: VecDeque::new(),
                paused: false,
                committed: BTreeMap::new(),
            };
            let thread = std::thread::Builder::new().name("kafka-events".into()).spawn(move || reading.run());
            Ok(Self { told, shared, thread: Some(thread.map_err(Error::Thread)?) })
        })
        .await
    }

    /// Returns what comes next; `None` when the thread ended.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Told> {
        let told = self.told.recv().await?;
        Some(self.shared.hand_over(told))
    }

    /// Returns what has come already, if anything has.
    pub fn try_next(&mut self) -> Option<Told> {
        let told = self.told.try_recv().ok()?;
        Some(self.shared.hand_over(told))
    }

    /// Has the offsets remembered from which to go on, by partition; those of partitions that were lost do not count.
    pub fn reached(&self, mut offsets: BTreeMap<i32, i64>) {
        let mut progress = self.shared.progress();
        offsets.retain(|partition, _| !progress.outdated.contains_key(partition));
        progress.reached = offsets;
    }

    /// Returns how many records of our partitions are behind what was reached, as of some seconds ago. Kafka's markers
    /// count too.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.shared.lag.load(Relaxed)
    }

    /// Remembers what was reached, and leaves the group.
    pub async fn close(mut self) {
        self.shared.over.store(true, Relaxed);
        let thread = self.thread.take();
        blocking(move || {
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that reads events panicked");
            }
        })
        .await;
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
    }
}

// === impl Shared ===

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is told from now on: of a partition whose loss is, whatever is said later is about a new beginning.
    fn hand_over(&self, told: Told) -> Told {
        if let Told::Lost(partition) = &told {
            let mut progress = self.progress();
            if let Some(count) = progress.outdated.get_mut(partition) {
                *count -= 1;
                if *count == 0 {
                    progress.outdated.remove(partition);
                }
            }
        }
        told
    }
}

// === impl Group ===

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let reached = self.shared.progress().reached.clone();
        let behind = |(partition, known): (&i32, &rdkafka::statistics::Partition)| {
            let at = reached.get(partition).copied().unwrap_or(known.committed_offset);
            // Partitions of others have no position here.
            (known.fetch_state == "active" && at >= 0).then(|| u64::try_from(known.ls_offset - at).unwrap_or(0))
        };
        self.shared.lag.store(topic.partitions.iter().filter_map(behind).sum(), Relaxed);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &GroupConsumer, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => consumer.incremental_assign(partitions),
            _ => {
                let numbers: Vec<_> = partitions.elements().iter().map(|place| place.partition()).collect();
                let mut offsets = TopicPartitionList::new();
                {
                    let mut progress = self.shared.progress();
                    for partition in &numbers {
                        *progress.outdated.entry(*partition).or_default() += 1;
                        progress.lost.push_back(*partition);
                        if let Some(offset) = progress.reached.remove(partition) {
                            // Fails only for an offset that no partition has.
                            let _ = offsets.add_partition_offset(&self.topic, *partition, Offset::Offset(offset));
                        }
                    }
                }
                if offsets.count() > 0
                    && let Err(error) = consumer.commit(&offsets, CommitMode::Sync)
                {
                    tracing::warn!(%error, "could not say how far events were handed on, some are handed on again");
                }
                consumer.incremental_unassign(partitions)
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "could not follow the group of an outlet");
        }
    }
}

// === impl Reading ===

impl Reading {
    fn run(mut self) {
        while !self.shared.over.load(Relaxed) {
            self.relieve();
            self.commit(CommitMode::Async);
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let told = told(&message);
                    drop(message);
                    self.forget_lost();
                    self.held.push_back(told);
                    continue;
                }
                Some(Err(error)) => self.complain(&error),
            }
            self.forget_lost();
        }
        self.commit(CommitMode::Sync);
    }

    /// Tells of partitions that were lost, behind what was read of them before.
    fn forget_lost(&mut self) {
        let lost: Vec<_> = self.shared.progress().lost.drain(..).collect();
        for partition in lost {
            self.committed.remove(&partition);
            self.held.push_back(Told::Lost(partition));
        }
    }

    /// Hands over what waits; pauses while there is no room, and resumes when there is.
    fn relieve(&mut self) {
        while let Some(told) = self.held.pop_front() {
            match self.told.try_send(told) {
                Ok(()) => {}
                Err(TrySendError::Full(told)) => {
                    self.held.push_front(told);
                    break;
                }
                // It is about to end.
                Err(TrySendError::Closed(_)) => return,
            }
        }
        let is_full = !self.held.is_empty();
        // Again as long as it is so: what was assigned meanwhile is read from.
        if is_full || self.paused {
            let assigned = self.consumer.assignment();
            let done =
                assigned.and_then(|all| if is_full { self.consumer.pause(&all) } else { self.consumer.resume(&all) });
            match done {
                Ok(()) => self.paused = is_full,
                Err(error) => tracing::warn!(%error, "could not pause or resume the reading of events"),
            }
        }
    }

    fn commit(&mut self, mode: CommitMode) {
        let reached = self.shared.progress().reached.clone();
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in &reached {
            if self.committed.get(partition) != Some(offset) {
                // Fails only for an offset that no partition has.
                let _ = offsets.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset));
            }
        }
        if offsets.count() == 0 {
            return;
        }
        match self.consumer.commit(&offsets, mode) {
            Ok(()) => self.committed = reached,
            Err(error) => tracing::warn!(%error, "could not say how far events were handed on yet"),
        }
    }

    fn complain(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            // The group takes us back at the next poll.
            Some(RDKafkaErrorCode::PollExceeded) => tracing::warn!("the process stood still, and the group went on"),
            Some(code) if is_connection(code) => {}
            _ => tracing::warn!(%error, "could not read events for now"),
        }
    }
}

fn told(message: &BorrowedMessage<'_>) -> Told {
    Told::Record {
        partition: message.partition(),
        offset: message.offset(),
        headers: headers_of(message).unwrap_or_default(),
        value: message.payload().map(Into::into),
    }
}

/// Has a new group remember the ends of the partitions. Where it remembers something, that stays.
fn remember_beginning(consumer: &GroupConsumer, topic: &str, partitions: i32) -> Result<(), Error> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match try_to_remember_beginning(consumer, topic, partitions) {
            // A cluster that has just started, or lost a broker, still decides who remembers for the group.
            Err(Error::Unreachable { source, .. })
                if source.rdkafka_error_code().is_some_and(is_undecided) && Instant::now() < until =>
            {
                thread::sleep(POLL);
            }
            done => return done,
        }
    }
}

/// Tells whether the group has nobody to ask yet.
fn is_undecided(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
    )
}

fn try_to_remember_beginning(consumer: &GroupConsumer, topic: &str, partitions: i32) -> Result<(), Error> {
    let what = "ask where an outlet was";
    let failed = |source| Error::of(what, consumer.context().log.complaint(), source);
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition(topic, partition);
    }
    let known = consumer.committed_offsets(places, ANSWER_TIMEOUT).map_err(failed)?;
    let mut unknown = TopicPartitionList::new();
    for place in known.elements() {
        place.error().map_err(failed)?;
        if !matches!(place.offset(), Offset::Offset(_)) {
            let (_, end) = watermarks(consumer, topic, place.partition()).map_err(failed)?;
            unknown.add_partition_offset(topic, place.partition(), Offset::Offset(end)).map_err(failed)?;
        }
    }
    if unknown.count() == 0 {
        return Ok(());
    }
    match consumer.commit(&unknown, CommitMode::Sync) {
        Ok(()) => Ok(()),
        // It has members, who have done the same before they joined.
        Err(error)
            if matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration)
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}
