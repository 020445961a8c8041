//! What could not be read, and sending it again.
//!
//! Dead letters are read from the topic itself, so any instance and any command can. Each call has a bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};

use super::{
    Destination, Error, Outgoing, Producer, Settings, Topics,
    client::Log,
    message::{ATTEMPTS, ERROR, ERROR_CODE, HeaderList, attempts_in, headers_of, without_verdict},
    settings::create,
    topics::{blocking, watermarks},
};

/// How many bytes one listing holds, but for one longer letter.
const LIST_BYTES_MAX: usize = 32 << 20;

/// How long a listing may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for a letter before looking at the clock.
const POLL: Duration = Duration::from_millis(100);

/// A record that could not be read.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its partition among the dead letters.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When it died, in milliseconds since the Unix epoch.
    pub at: Option<i64>,
    /// The key that it came with.
    pub key: Option<Vec<u8>>,
    /// The content that it came with.
    pub value: Option<Vec<u8>>,
    /// The headers that it came with.
    pub headers: HeaderList,
    /// The code of what was wrong with it.
    pub code: Option<String>,
    /// What was wrong with it.
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// Some of the dead letters, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// Where to go on, by partition; empty when these were all that there are.
    pub next: BTreeMap<i32, i64>,
}

/// The dead letters.
pub struct DeadLetters {
    settings: Settings,
    topics: Topics,
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Makes a reader; it connects when there is something to read.
    #[must_use]
    pub fn new(settings: Settings, topics: Topics) -> Self {
        Self { settings, topics }
    }

    /// Lists dead letters, at most `limit`: from the beginning, or from where an earlier listing says to go on.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, from: &BTreeMap<i32, i64>, limit: usize) -> Result<Listing, Error> {
        let (config, topic, from) = (self.settings.tail("dlq"), self.topics.dead_letters.clone(), from.clone());
        blocking(move || Reader::new(create(&config, Log::new("dlq"))?, topic)?.list(&from, limit)).await
    }

    /// Returns one dead letter.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`], or when they cannot be read.
    pub async fn show(&self, partition: i32, offset: i64) -> Result<DeadLetter, Error> {
        let (config, topic) = (self.settings.tail("dlq"), self.topics.dead_letters.clone());
        blocking(move || Reader::new(create(&config, Log::new("dlq"))?, topic)?.show(partition, offset)).await
    }

    /// Sends a dead letter again as it came, and returns where it is now among the requests. It stays among the dead
    /// letters; sent twice, it is one request if it says who it is.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`], or when it cannot be read or written.
    pub async fn replay(&self, producer: &Producer, partition: i32, offset: i64) -> Result<(i32, i64), Error> {
        let letter = self.show(partition, offset).await?;
        let mut headers = letter.headers;
        headers.push((ATTEMPTS.into(), Some(letter.attempts.saturating_add(1).to_string().into_bytes())));
        producer.produce(&Outgoing { to: Destination::Requests, key: letter.key, value: letter.value, headers }).await
    }
}

/// Reads the topic outside any group.
struct Reader {
    consumer: BaseConsumer<Log>,
    topic: String,
    /// First and next offset by partition.
    bounds: BTreeMap<i32, (i64, i64)>,
}

// === impl Reader ===

impl Reader {
    fn new(consumer: BaseConsumer<Log>, topic: String) -> Result<Self, Error> {
        let what = "read dead letters";
        let failed = |source| Error::of(what, consumer.context().complaint(), source);
        let metadata = consumer.fetch_metadata(Some(&topic), ANSWER_TIMEOUT).map_err(failed)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let mut bounds = BTreeMap::new();
        for partition in partitions {
            bounds.insert(partition.id(), watermarks(&consumer, &topic, partition.id()).map_err(failed)?);
        }
        Ok(Self { consumer, topic, bounds })
    }

    fn list(&self, from: &BTreeMap<i32, i64>, limit: usize) -> Result<Listing, Error> {
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, (low, high)) in &self.bounds {
            let start = from.get(partition).copied().unwrap_or(*low).max(*low);
            let is_left_out = !from.is_empty() && !from.contains_key(partition);
            if start < *high && !is_left_out {
                next.insert(*partition, start);
            }
        }
        let mut letters = Vec::new();
        let mut bytes = 0;
        self.read(next.clone(), |letter| {
            bytes += letter.value.as_ref().map_or(0, Vec::len);
            if letters.len() >= limit || (bytes > LIST_BYTES_MAX && !letters.is_empty()) {
                return false;
            }
            next.insert(letter.partition, letter.offset + 1);
            letters.push(letter);
            true
        })
        .map(|ended| {
            next.retain(|partition, _| !ended.contains(partition));
            letters.sort_by_key(|letter| (letter.at, letter.partition, letter.offset));
            Listing { letters, next }
        })
    }

    fn show(&self, partition: i32, offset: i64) -> Result<DeadLetter, Error> {
        let (low, high) = self.bounds.get(&partition).copied().unwrap_or_default();
        let mut found = None;
        if (low..high).contains(&offset) {
            self.read([(partition, offset)].into(), |letter| {
                found = Some(letter);
                false
            })?;
        }
        // Where Kafka's own marks are, the next letter comes instead.
        found.filter(|letter| letter.offset == offset).ok_or(Error::NoDeadLetter { partition, offset })
    }

    /// Reads from these offsets on until everything is read or `take` wants no more; returns the partitions that were read
    /// to their end.
    fn read(&self, from: BTreeMap<i32, i64>, mut take: impl FnMut(DeadLetter) -> bool) -> Result<BTreeSet<i32>, Error> {
        let what = "read dead letters";
        let failed = |source| Error::of(what, self.consumer.context().complaint(), source);
        let mut ended = BTreeSet::new();
        if from.is_empty() {
            return Ok(ended);
        }
        let mut places = TopicPartitionList::new();
        for (partition, offset) in &from {
            places.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
        }
        self.consumer.assign(&places).map_err(|source| Error::Client { what, source })?;
        let deadline = Instant::now() + LIST_TIMEOUT;
        while ended.len() < from.len() {
            match self.consumer.poll(POLL) {
                None if Instant::now() < deadline => {}
                None => return Err(failed(KafkaError::Canceled)),
                Some(Ok(message)) => {
                    if !take(DeadLetter::of(&message)) {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                Some(Err(source)) => return Err(failed(source)),
            }
        }
        Ok(ended)
    }
}

// === impl DeadLetter ===

impl DeadLetter {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = headers_of(message).unwrap_or_default();
        let text = |name: &str| {
            let (_, value) = headers.iter().rev().find(|(known, _)| known == name)?;
            Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
        };
        Self {
            partition: message.partition(),
            offset: message.offset(),
            at: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            code: text(ERROR_CODE),
            error: text(ERROR),
            attempts: attempts_in(&headers).unwrap_or(1),
            headers: without_verdict(&headers),
        }
    }
}

impl fmt::Debug for DeadLetter {
    /// Without content: that is for whoever asks for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("place", &(self.partition, self.offset))
            .field("code", &self.code)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
