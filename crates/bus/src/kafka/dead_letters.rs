//! What could not be taken on, and sending it again.
//!
//! Dead letters are read from the topic itself, so any instance and any command can. Each call has a bound. A letter that
//! is sent again stays among the dead letters: nothing here takes anything away.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};

use super::{
    Error, Place, Producer, Settings, Topics,
    client::Log,
    message::{
        ATTEMPTS, ERROR, ERROR_CODE, HeaderList, ORIGIN, REPLAY_OF, attempts_in, cut_from_in, headers_of, is_repeated,
        native, place_in, without_verdict,
    },
    settings::create,
    topics::{blocking, metadata, watermarks},
};

/// How many bytes of keys and reasons one listing holds, but for one longer letter.
const LIST_BYTES_MAX: usize = 32 << 20;

/// How long a listing goes on to look for older letters that fit.
const LIST_TIME_MAX: Duration = Duration::from_secs(30);

/// How many records are read to find those that fit; each further step back is twice as long up to the most.
const STEP: (i64, i64) = (256, 4096);

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for a letter before looking at the clock.
const POLL: Duration = Duration::from_millis(100);

const WHAT: &str = "read dead letters";

/// Names a dead letter: where it is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// A record that could not be taken on, but for its content and its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where it is.
    pub address: Address,
    /// When it died, in milliseconds since the Unix epoch.
    pub at: Option<i64>,
    /// The key that it came with.
    pub key: Option<Vec<u8>>,
    /// How many bytes the content had, of a letter that holds only the first of them.
    pub cut_from: Option<u64>,
    /// The code of what was wrong with it.
    pub code: Option<String>,
    /// What was wrong with it.
    pub error: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// Which record it was.
    pub origin: Option<Place>,
    /// Which record it was first, when it is a replayed dead letter that died again.
    pub replay_of: Option<Place>,
    /// How many bytes its content has; `None` when it has none.
    pub bytes: Option<usize>,
}

/// A record that could not be taken on.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// What a listing says of it.
    pub head: Head,
    /// The content that it came with.
    pub value: Option<Vec<u8>>,
    /// The headers that it came with.
    pub headers: HeaderList,
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those with this code.
    pub code: Option<String>,
    /// Those that were records of this topic.
    pub topic: Option<String>,
    /// Those before these offsets, and in these partitions only; empty: all.
    pub before: BTreeMap<i32, i64>,
    /// How many at most.
    pub limit: usize,
}

/// Some of the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The letters, the newest first; those of one partition from the highest offset down.
    pub letters: Vec<Head>,
    /// Before which offsets older ones may be, by partition; empty when these were all that there are.
    pub older: BTreeMap<i32, i64>,
}

/// What was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Which letter.
    pub address: Address,
    /// Where it is now.
    pub place: Place,
    /// Which try that will be.
    pub attempt: u32,
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

    /// Lists dead letters, the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, selection: &Selection) -> Result<Listing, Error> {
        let selection = selection.clone();
        self.read(move |reader| reader.list(&selection)).await
    }

    /// Returns one dead letter.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`], or when they cannot be read.
    pub async fn show(&self, address: Address) -> Result<DeadLetter, Error> {
        self.read(move |reader| reader.show(address)).await
    }

    /// Sends a dead letter again as it came, to the topic where it came from, and returns where it is now. Sent twice, it
    /// is one request: the one that it names, or else the record that it was first.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`], [`Error::DeadLetterCut`], [`Error::Homeless`], or when it cannot be read or written.
    pub async fn replay(&self, producer: &Producer, address: Address) -> Result<Replayed, Error> {
        let DeadLetter { head, value, mut headers } = self.show(address).await?;
        if let Some(bytes) = head.cut_from {
            let Address { partition, offset } = address;
            return Err(Error::DeadLetterCut { partition, offset, bytes });
        }
        let topic = self.home(&head)?;
        let attempt = head.attempts.saturating_add(1);
        headers.push((ATTEMPTS.into(), Some(attempt.to_string().into_bytes())));
        if head.replay_of.is_none() {
            let first = head.origin.as_ref().map(|origin| origin.to_string().into_bytes());
            headers.push((REPLAY_OF.into(), first));
        }
        let sent = producer.produce_to((topic, None), head.key.as_deref(), value.as_deref(), native(&headers)).await?;
        let place = Place { topic: topic.into(), partition: sent.0, offset: sent.1 };
        Ok(Replayed { address, place, attempt })
    }

    /// Returns the topic that a letter goes back to. What it may ask for depends on the topic, so a letter that says
    /// nothing, or names one that requests are not taken from, goes nowhere.
    fn home<'a>(&'a self, head: &Head) -> Result<&'a str, Error> {
        let from = head.origin.as_ref().map(|origin| origin.topic.as_str());
        let homes = [&self.topics.requests].into_iter().chain(&self.topics.ingress);
        let home = homes.map(String::as_str).find(|topic| Some(*topic) == from);
        home.ok_or_else(|| Error::Homeless {
            partition: head.address.partition,
            offset: head.address.offset,
            origin: head.origin.clone(),
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.settings.validate()?;
        let (config, topic) = (self.settings.tail("dlq"), self.topics.dead_letters.clone());
        blocking(move || work(&Reader::new(create(&config, Log::new("dlq"))?, topic)?)).await
    }
}

/// Reads the topic outside any group.
struct Reader {
    consumer: BaseConsumer<Log>,
    topic: String,
    /// First and next offset by partition.
    bounds: BTreeMap<i32, (i64, i64)>,
}

/// What was found in one partition.
struct Found {
    /// The letters, from the highest offset down.
    letters: VecDeque<Head>,
    /// The lowest offset that was looked at.
    reached: i64,
}

// === impl Reader ===

impl Reader {
    fn new(consumer: BaseConsumer<Log>, topic: String) -> Result<Self, Error> {
        let failed = |source| Error::of(WHAT, consumer.context().complaint(), source);
        let metadata = metadata(&consumer, Some(&topic), WHAT, ANSWER_TIMEOUT)?;
        let partitions: Vec<_> = metadata.topics().iter().flat_map(|topic| topic.partitions()).collect();
        if partitions.is_empty() {
            return Err(Error::Unfit {
                topic,
                problem: "does not exist".into(),
                remedy: "check `kafka.prefix` and `kafka.brokers`; `dagwright serve` makes it".into(),
            });
        }
        let mut bounds = BTreeMap::new();
        for partition in partitions {
            bounds.insert(partition.id(), watermarks(&consumer, &topic, partition.id()).map_err(failed)?);
        }
        Ok(Self { consumer, topic, bounds })
    }

    fn list(&self, selection: &Selection) -> Result<Listing, Error> {
        let deadline = Instant::now() + LIST_TIME_MAX;
        let mut found: BTreeMap<i32, Found> = BTreeMap::new();
        for (partition, (low, high)) in &self.bounds {
            let end = selection.before.get(partition).copied();
            let is_left_out = !selection.before.is_empty() && end.is_none();
            let end = end.unwrap_or(*high).min(*high);
            if *low < end && !is_left_out {
                found.insert(*partition, self.look_back(*partition, (*low, end), selection, deadline)?);
            }
        }
        let mut letters = Vec::new();
        while letters.len() < selection.limit {
            // Those of one partition stay in its order, whatever clocks say.
            let newest = found.values_mut().max_by_key(|found| found.letters.front().map(|head| head.at));
            let Some(head) = newest.and_then(|found| found.letters.pop_front()) else { break };
            letters.push(head);
        }
        let older = found.into_iter().filter_map(|(partition, found)| {
            let next = found.letters.front().map_or(found.reached, |head| head.address.offset + 1);
            (next > self.bounds[&partition].0).then_some((partition, next))
        });
        Ok(Listing { older: older.collect(), letters })
    }

    /// Looks for letters that fit, from the end of a range on backwards.
    fn look_back(
        &self,
        partition: i32,
        (low, end): (i64, i64),
        selection: &Selection,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let mut found = Found { letters: VecDeque::new(), reached: end };
        let (mut step, step_max) = STEP;
        let mut bytes = 0;
        while found.reached > low && found.letters.len() < selection.limit && bytes < LIST_BYTES_MAX {
            if Instant::now() >= deadline {
                break;
            }
            let start = (found.reached - step).max(low);
            let mut here: VecDeque<Head> = VecDeque::new();
            let (mut held, mut is_cut) = (0, false);
            self.read(partition, start..found.reached, |letter| {
                if letter.head.fits(selection) {
                    held += letter.head.len();
                    here.push_back(letter.head);
                }
                // Rather the newer ones.
                while here.len() > 1
                    && (here.len() + found.letters.len() > selection.limit || bytes + held > LIST_BYTES_MAX)
                {
                    held -= here.pop_front().map_or(0, |head| head.len());
                    is_cut = true;
                }
            })?;
            bytes += held;
            found.reached = match here.front() {
                Some(oldest) if is_cut => oldest.address.offset,
                _ => start,
            };
            found.letters.extend(here.into_iter().rev());
            step = (step * 2).min(step_max);
        }
        Ok(found)
    }

    fn show(&self, address: Address) -> Result<DeadLetter, Error> {
        let Address { partition, offset } = address;
        let (low, high) = self.bounds.get(&partition).copied().unwrap_or_default();
        let mut found = None;
        if (low..high).contains(&offset) {
            // Where Kafka's own marks are, there is no letter.
            self.read(partition, offset..offset + 1, |letter| found = Some(letter))?;
        }
        found.ok_or(Error::NoDeadLetter { partition, offset })
    }

    /// Reads what a partition has in a range.
    fn read(&self, partition: i32, range: std::ops::Range<i64>, mut take: impl FnMut(DeadLetter)) -> Result<(), Error> {
        let failed = |source| Error::of(WHAT, self.consumer.context().complaint(), source);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, partition, Offset::Offset(range.start)).map_err(failed)?;
        self.consumer.assign(&place).map_err(|source| Error::Client { what: WHAT, source })?;
        let mut deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match self.consumer.poll(POLL) {
                None if Instant::now() < deadline => {}
                None => return Err(failed(KafkaError::Canceled)),
                Some(Ok(message)) if message.offset() >= range.end => return Ok(()),
                Some(Ok(message)) => {
                    if !is_repeated(&message) {
                        take(DeadLetter::of(&message));
                    }
                    deadline = Instant::now() + ANSWER_TIMEOUT;
                    if message.offset() + 1 == range.end {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(source)) => return Err(failed(source)),
            }
        }
    }
}

// === impl Listing ===

impl Listing {
    /// Leaves out those of which a newer one is the same record once more: a letter that was replayed and died again.
    /// Who sends a whole listing again would else send twice as many each time.
    #[must_use]
    pub fn newest_of_each(self) -> Vec<Head> {
        let mut seen = HashSet::new();
        let mut is_newest = |head: &Head| {
            head.replay_of.as_ref().or(head.origin.as_ref()).is_none_or(|first| seen.insert(first.clone()))
        };
        self.letters.into_iter().filter(|head| is_newest(head)).collect()
    }
}

// === impl Head ===

impl Head {
    fn fits(&self, selection: &Selection) -> bool {
        let has_code = selection.code.is_none() || selection.code == self.code;
        let of_topic = selection
            .topic
            .as_ref()
            .is_none_or(|wanted| self.origin.as_ref().is_some_and(|origin| origin.topic == *wanted));
        has_code && of_topic
    }

    fn len(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.error.as_ref().map_or(0, String::len)
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
        let head = Head {
            address: Address { partition: message.partition(), offset: message.offset() },
            at: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            cut_from: cut_from_in(&headers),
            code: text(ERROR_CODE),
            error: text(ERROR),
            attempts: attempts_in(&headers).unwrap_or(1),
            origin: place_in(&headers, ORIGIN),
            replay_of: place_in(&headers, REPLAY_OF),
            bytes: message.payload().map(<[u8]>::len),
        };
        Self { head, value: message.payload().map(<[u8]>::to_vec), headers: without_verdict(&headers) }
    }
}

impl fmt::Debug for DeadLetter {
    /// Without content: that is for whoever asks for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("address", &self.head.address)
            .field("code", &self.head.code)
            .field("attempts", &self.head.attempts)
            .finish_non_exhaustive()
    }
}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(partition, offset)| {
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        numbers
            .filter(|it| it.partition >= 0 && it.offset >= 0)
            .ok_or("it has to be PARTITION/OFFSET, as `dagwright dlq list` shows it, such as 0/17")
    }
}
