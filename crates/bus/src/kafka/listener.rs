//! Reads a topic that others write to, from now on, for whoever wants to hear of what happens elsewhere soon.
//!
//! Every process reads all of it, and no group shares it: a record goes to a partition by a key of its producer's, which
//! has nothing to do with the partitions of requests, so of a group most members would get what concerns another one.
//! Nothing is remembered either. What was written while nobody listened is not read later: who listens must have another
//! way to learn of it, and a way that is slow. What is written while a process listens reaches it at least once, through
//! outages of brokers too.
//!
//! A topic that does not exist is waited for; then it is read from its beginning, since it began after we listened. The same
//! holds for partitions that are added.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dagwright_model::code::Code;
use dagwright_telemetry::chain::ErrorChain;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::mpsc;

use super::{
    Error, Settings,
    client::Log,
    error::is_connection,
    settings::create,
    topics::{blocking, watermarks},
};

/// How many records may wait for whoever listens. A full queue holds up the reading, and Kafka keeps what is to come.
const QUEUED_MAX: usize = 64;

/// How long to wait for a record before looking whether to end.
const POLL: Duration = Duration::from_millis(100);

/// How often to look which partitions there are.
const LOOK: Duration = Duration::from_secs(5);

/// How long brokers may take to say which partitions there are.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What goes wrong is said as this.
const WHAT: &str = "listen to a topic of others";

/// A record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// How long its value is, in bytes.
    pub bytes: usize,
    /// Its value, unless it has none, or one that is longer than was asked for.
    pub value: Option<Vec<u8>>,
}

/// Hears what is written to a topic.
#[derive(Debug)]
pub struct Listener {
    heard: mpsc::Receiver<Heard>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What stands against reading a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It does not exist.
    Missing,
    /// Brokers cannot be reached, or do not let us; what they say of it may change each time.
    Of(Code),
}

/// The thread's state.
struct Listening {
    consumer: BaseConsumer<Log>,
    topic: String,
    bytes_max: usize,
    /// Where to go on, by partition, of those that are read.
    places: BTreeMap<i32, Offset>,
    /// Whether partitions that are found are as old as our listening; else they are new, and read from their beginning.
    is_first: bool,
    /// What was last complained of in the log.
    trouble: Option<Trouble>,
    heard: mpsc::Sender<Heard>,
    over: Arc<AtomicBool>,
}

// === impl Listener ===

impl Listener {
    /// Begins to listen. What is written after this returned is heard, unless no broker could be reached.
    ///
    /// # Errors
    /// When the settings cannot be used. Brokers that do not answer, or do not let us read the topic, are asked again.
    ///
    /// # Cancel safety
    /// Not cancel safe: the thread may have started, and ends by itself.
    pub async fn start(settings: &Settings, topic: &str, bytes_max: usize) -> Result<Self, Error> {
        let (config, topic) = (settings.listener(topic)?, topic.to_owned());
        blocking(move || {
            let consumer: BaseConsumer<Log> = create(&config, Log::new("listener"))?;
            let (sender, heard) = mpsc::channel(QUEUED_MAX);
            let over = Arc::new(AtomicBool::new(false));
            let mut listening = Listening {
                consumer,
                topic,
                bytes_max,
                places: BTreeMap::new(),
                is_first: true,
                trouble: None,
                heard: sender,
                over: over.clone(),
            };
            listening.look();
            let thread = std::thread::Builder::new().name("kafka-listener".into()).spawn(move || listening.run());
            Ok(Self { heard, over, thread: Some(thread.map_err(Error::Thread)?) })
        })
        .await
    }

    /// Returns the next record; `None` when the thread ended.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// Hears nothing more, and ends.
    pub async fn close(mut self) {
        self.over.store(true, Relaxed);
        // It may wait for room.
        self.heard.close();
        let thread = self.thread.take();
        blocking(move || {
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the thread that listens to a topic panicked");
            }
        })
        .await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

// === impl Listening ===

impl Listening {
    fn run(mut self) {
        let mut looked = Instant::now();
        while !self.over.load(Relaxed) {
            if looked.elapsed() >= LOOK {
                self.look();
                looked = Instant::now();
            }
            let heard = match self.consumer.poll(POLL) {
                None => continue,
                Some(Ok(message)) => self.heard(&message),
                Some(Err(error)) => {
                    self.complain(&error);
                    continue;
                }
            };
            let (partition, next) = (heard.partition, heard.offset + 1);
            if self.heard.blocking_send(heard).is_err() {
                return;
            }
            self.places.insert(partition, Offset::Offset(next));
        }
    }

    /// Looks which partitions there are, and reads those that are new as well; says once what stands against it.
    fn look(&mut self) {
        let followed = self.follow();
        let trouble = match &followed {
            Ok(true) => None,
            Ok(false) => Some(Trouble::Missing),
            Err(error) => Some(Trouble::Of(error.code())),
        };
        if trouble == self.trouble {
            return;
        }
        let topic = &self.topic;
        match followed {
            Ok(true) => tracing::info!(topic, "listening to the topic again"),
            Ok(false) => tracing::warn!(topic, "the topic does not exist; waiting for it"),
            Err(error) => {
                let code = error.code();
                tracing::warn!(topic, %code, error = %ErrorChain(&error), "could not look at the topic; trying again");
            }
        }
        self.trouble = trouble;
    }

    /// Has every partition read; false when there is no such topic.
    fn follow(&mut self) -> Result<bool, Error> {
        let count = self.partitions()?;
        let is_gone = !self.places.is_empty() && count == 0;
        let new: Vec<_> = (0..count).filter(|partition| !self.places.contains_key(partition)).collect();
        if is_gone {
            self.places.clear();
        }
        let mut places = self.places.clone();
        for partition in &new {
            // The place is fixed here: a consumer that is told "the end" finds out where that is some time later.
            let place = if self.is_first {
                let asked = watermarks(&self.consumer, &self.topic, *partition);
                Offset::Offset(asked.map_err(|source| self.failed(source))?.1)
            } else {
                Offset::Beginning
            };
            places.insert(*partition, place);
        }
        if is_gone || !new.is_empty() {
            let mut assignment = TopicPartitionList::new();
            for (partition, place) in &places {
                let added = assignment.add_partition_offset(&self.topic, *partition, *place);
                added.map_err(|source| Error::Client { what: WHAT, source })?;
            }
            self.consumer.assign(&assignment).map_err(|source| Error::Client { what: WHAT, source })?;
            self.places = places;
        }
        self.is_first = false;
        Ok(count > 0)
    }

    /// Returns how many partitions the topic has; 0 when there is none.
    fn partitions(&self) -> Result<i32, Error> {
        let asked = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT);
        let metadata = asked.map_err(|source| self.failed(source))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == self.topic) else { return Ok(0) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => Ok(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(0),
            Some(code) => Err(self.failed(KafkaError::MetadataFetch(code))),
        }
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::of(WHAT, self.consumer.context().complaint(), source)
    }

    fn heard(&self, message: &BorrowedMessage<'_>) -> Heard {
        let value = message.payload();
        Heard {
            partition: message.partition(),
            offset: message.offset(),
            bytes: value.map_or(0, <[u8]>::len),
            value: value.filter(|value| value.len() <= self.bytes_max).map(Into::into),
        }
    }

    fn complain(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(code) if is_connection(code) => {}
            // The next look says so.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
            _ => tracing::warn!(topic = self.topic, %error, "could not listen to a topic for now"),
        }
    }
}
