//! The member of the consumer group: takes requests, and hears which partitions are ours.
//!
//! One thread polls, whatever else happens, so the group never takes us for dead while we are not. What it receives goes
//! into a bounded queue; when there is no room the partitions are paused, and the record at hand waits here.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    Error, Received,
    client::Log,
    error::{is_connection, is_forbidden},
    ownership::{Ownership, Task},
    shared::Shared,
};

/// How many requests may wait for whoever handles them.
pub(crate) const QUEUED_MAX: usize = 1024;

/// How many KiB requests may hold, from being received to being dropped. A longer one may come alone.
pub(crate) const QUEUED_KIB_MAX: usize = 64 * 1024;

/// How many requests may be received and not yet committed.
const OUTSTANDING_MAX: usize = 16 * 1024;

/// How long the thread waits for Kafka before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(50);

/// The same while a request waits for room.
const POLL_PAUSED: Duration = Duration::from_millis(2);

/// How long a seek may take; it is an affair of this process.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// The consumer of the group.
pub(crate) type GroupConsumer = BaseConsumer<Group>;

/// Hears what the group decides.
pub(crate) struct Group {
    log: Log,
    shared: Arc<Shared>,
}

/// The thread's state.
pub(crate) struct Member {
    consumer: Arc<GroupConsumer>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Received>,
    room: Arc<Semaphore>,
    /// Received and without room: one, and what librdkafka had at hand when it was paused.
    held: VecDeque<Received>,
    paused: bool,
}

// === impl Group ===

impl Group {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { log: Log::new("member"), shared }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let lag = |((topic, partition), position): (&(Arc<str>, i32), &i64)| {
            let ends_at = statistics.topics.get(&**topic)?.partitions.get(partition)?.ls_offset;
            Some(((topic.to_string(), *partition), u64::try_from(ends_at - position).unwrap_or(0)))
        };
        let positions = self.shared.table.positions();
        self.shared.stats.set_lag(positions.iter().filter_map(lag).collect::<BTreeMap<_, _>>());
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &GroupConsumer, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let places = partitions.elements();
        let table = &self.shared.table;
        let done = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                // Nothing is read before the partition was acquired.
                let done = consumer.incremental_assign(partitions).and_then(|()| consumer.pause(partitions));
                places.iter().for_each(|place| table.assign(place.topic(), place.partition()));
                done
            }
            _ => {
                // First of all nobody acts for it any more: the group may give it to another as soon as we agree.
                places.iter().for_each(|place| table.revoke(place.topic(), place.partition()));
                consumer.incremental_unassign(partitions)
            }
        };
        let names: Vec<_> = places.iter().map(|place| format!("{}/{}", place.topic(), place.partition())).collect();
        tracing::info!(what = ?what, partitions = %names.join(" "), "group moved partitions");
        if let Err(source) = done {
            self.shared.fail(Error::Client { what: "follow the consumer group", source });
        }
    }
}

// === impl Member ===

impl Member {
    pub(crate) fn new(
        consumer: Arc<GroupConsumer>,
        shared: Arc<Shared>,
        queue: mpsc::Sender<Received>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self { consumer, shared, queue, room, held: VecDeque::new(), paused: false }
    }

    /// Polls until the instance is over.
    pub(crate) fn run(mut self) {
        while !self.shared.is_over() {
            self.settle();
            self.relieve();
            let consumer = self.consumer.clone();
            match consumer.poll(if self.paused { POLL_PAUSED } else { POLL }) {
                None => {}
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.complain(error),
            }
        }
    }

    /// Does what the table has for us.
    fn settle(&mut self) {
        for task in self.shared.table.tasks() {
            match task {
                Task::Pause(ownership) => {
                    let done = self.consumer.pause(&list([(&ownership, Offset::Invalid)]));
                    self.or_fail(done);
                    self.shared.table.paused(&ownership);
                }
                Task::Resume(ownership, position) => self.resume(&ownership, position),
            }
        }
    }

    /// Reads on from an offset; put off while librdkafka is not so far.
    fn resume(&mut self, ownership: &Ownership, position: i64) {
        let place = list([(ownership, Offset::Offset(position))]);
        let sought = self.consumer.seek_partitions(place, SEEK_TIMEOUT);
        let sought = sought.and_then(|places| places.elements().iter().try_for_each(|place| place.error()));
        if let Err(error) = sought {
            tracing::debug!(?ownership, %error, "could not seek yet");
            self.shared.table.put_off();
            return;
        }
        self.shared.table.resumed(ownership, position);
        tracing::info!(topic = ownership.topic(), partition = ownership.partition(), position, "own partition");
        if !self.paused {
            let done = self.consumer.resume(&list([(ownership, Offset::Invalid)]));
            self.or_fail(done);
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        // Of a partition that was just stopped; it comes again when it is owned.
        let place = (message.topic(), message.partition(), message.offset());
        let Some(ownership) = self.shared.table.received(place.0, place.1, place.2) else { return };
        self.shared.stats.consumed.add(1);
        self.held.push_back(Received::of(message, ownership));
        self.relieve();
    }

    /// Hands over what waits; pauses while there is no room, and resumes when there is.
    fn relieve(&mut self) {
        while let Some(received) = self.held.pop_front() {
            if !received.ownership.is_current() {
                continue;
            }
            if let Err(received) = self.hand_over(received) {
                self.held.push_front(*received);
                break;
            }
        }
        let is_full =
            !self.held.is_empty() || self.shared.table.outstanding() >= OUTSTANDING_MAX || self.shared.is_draining();
        if is_full != self.paused {
            let owned = self.shared.table.read_from();
            let places = list(owned.iter().map(|ownership| (ownership, Offset::Invalid)));
            let done = if is_full { self.consumer.pause(&places) } else { self.consumer.resume(&places) };
            self.or_fail(done);
            self.paused = is_full;
            self.shared.stats.paused.set(is_full);
        }
    }

    fn hand_over(&self, mut received: Received) -> Result<(), Box<Received>> {
        let kib = u32::try_from((received.len() / 1024 + 1).min(QUEUED_KIB_MAX)).unwrap_or(u32::MAX);
        let (Ok(room), Ok(slot)) = (self.room.clone().try_acquire_many_owned(kib), self.queue.try_reserve()) else {
            return Err(Box::new(received));
        };
        received.room = Some(room);
        slot.send(received);
        Ok(())
    }

    fn complain(&self, error: KafkaError) {
        let is_final = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(code) if is_forbidden(code) => {
                self.shared.fail(Error::of("read requests", self.consumer.context().log.complaint(), error));
            }
            _ if is_final => self.shared.fail(Error::Client { what: "go on reading requests", source: error }),
            // The group takes us back at the next poll.
            Some(RDKafkaErrorCode::PollExceeded) => tracing::warn!("the process stood still, and the group went on"),
            Some(code) if is_connection(code) => {}
            _ => tracing::warn!(%error, "could not read requests for now"),
        }
    }

    fn or_fail(&self, done: Result<(), KafkaError>) {
        if let Err(source) = done {
            self.shared.fail(Error::Client { what: "pause or resume a partition", source });
        }
    }
}

fn list<'a>(places: impl IntoIterator<Item = (&'a Ownership, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (ownership, offset) in places {
        // Fails only for an offset that no partition has; there the partition would be read from its committed offset.
        let _ = list.add_partition_offset(ownership.topic(), ownership.partition(), offset);
    }
    list
}
