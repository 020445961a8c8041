//! Our topics: their names, and that they are as they have to be.
//!
//! A pipeline's requests and its ledger lie in partitions of the same number, so whoever is assigned the one owns the
//! other. That holds only while both topics have the same count of partitions and that count never changes, so any
//! other count is refused rather than worked with.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::{Metadata, MetadataTopic},
};

use super::{
    Error, Settings,
    agents::MESSAGE_BYTES_MAX,
    client::Log,
    error::{is_denial, is_forbidden},
    partitioner::partition_of,
    settings::create,
};

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long one question takes before we look whether there is hope.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to look for what librdkafka says of the connection.
pub(crate) const EVENTS_TIMEOUT: Duration = Duration::from_millis(50);

/// What stands for the brokers' own choice of replicas.
const BROKERS_DEFAULT: i32 = -1;

/// How long brokers keep what agents said: longer than any negotiation takes.
const AGENTS_KEPT_MS: &str = "86400000";

/// How long what is sent together may be unless somebody set `max.message.bytes`.
const BROKERS_BYTES_MAX: usize = 1_048_588;

/// What stands around a record of some headers when it is sent.
const FRAMING_BYTES_MAX: usize = 1024;

/// Dead letters are few, and read as one list.
const DEAD_LETTER_PARTITIONS: i32 = 1;

/// The topics, all of them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// What is asked for, by pipeline.
    pub requests: String,
    /// What agents say to each other, by session.
    pub agents: String,
    /// What the outside is told, by pipeline.
    pub events: String,
    /// The ledger, by pipeline.
    pub ledger: String,
    /// What could not be read.
    pub dead_letters: String,
    /// Topics with requests that are not ours.
    pub ingress: Vec<String>,
    /// How many partitions requests and ledger have.
    pub partitions: u16,
}

/// One of our topics, as it has to be.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: i32,
    pub(crate) compacted: bool,
    pub(crate) is_of_events: bool,
    /// What else to ask of the brokers.
    settings: Vec<(&'static str, String)>,
}

// === impl Topics ===

impl Topics {
    /// Names the topics.
    #[must_use]
    pub fn named(settings: &Settings) -> Self {
        let name = |what| format!("{}.{what}.v1", settings.prefix);
        Self {
            requests: name("requests"),
            agents: name("agents"),
            events: name("events"),
            ledger: name("ledger"),
            dead_letters: name("requests.dlq"),
            ingress: settings.ingress.clone(),
            partitions: settings.partitions,
        }
    }

    /// Makes those of our topics that are missing, and checks those that are there.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a topic that cannot be worked with, [`Error::Denied`] and [`Error::Unreachable`].
    pub async fn ensure(settings: &Settings) -> Result<Self, Error> {
        settings.validate()?;
        let topics = Self::named(settings);
        let admin: AdminClient<Log> = create(&settings.admin(), Log::new("admin"))?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let known = counts(settings).await?;
            let count = |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
            if let Some(topic) = topics.ingress.iter().find(|topic| count(topic).is_none()) {
                return Err(Error::Unfit {
                    topic: topic.clone(),
                    problem: "does not exist".into(),
                    remedy: "make it, or take it out of `kafka.ingress`".into(),
                });
            }
            for wanted in topics.wanted() {
                if let Some(count) = count(wanted.name) {
                    wanted.check(count)?;
                }
            }
            let missing: Vec<_> = topics.wanted().into_iter().filter(|wanted| count(wanted.name).is_none()).collect();
            if make(&admin, &missing, settings).await? || Instant::now() >= deadline {
                if !missing.iter().any(|wanted| wanted.compacted) {
                    check_compaction(&admin, &topics.ledger).await?;
                }
                break;
            }
            // Somebody was faster: what they made is looked at as well.
        }
        // Its end joins a thread.
        let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
        Ok(topics)
    }

    /// Returns the partition of requests and ledger in which a pipeline (by `dag_id`) is at home.
    #[must_use]
    pub fn home(&self, pipeline: &str) -> i32 {
        partition_of(pipeline.as_bytes(), self.partitions)
    }

    pub(crate) fn wanted(&self) -> [Wanted<'_>; 5] {
        let partitions = i32::from(self.partitions);
        let kept = |name| Wanted { name, partitions, compacted: false, is_of_events: false, settings: Vec::new() };
        let of_agents = vec![
            ("retention.ms", AGENTS_KEPT_MS.to_owned()),
            // A call for proposals has the profile of every source.
            ("max.message.bytes", MESSAGE_BYTES_MAX.to_string()),
        ];
        [
            kept(&self.requests),
            Wanted { settings: of_agents, ..kept(&self.agents) },
            Wanted { is_of_events: true, ..kept(&self.events) },
            Wanted { compacted: true, ..kept(&self.ledger) },
            Wanted { partitions: DEAD_LETTER_PARTITIONS, ..kept(&self.dead_letters) },
        ]
    }
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Only where requests are at home and what else is by key the count matters; dead letters have no place.
    pub(crate) fn check(&self, partitions: i32) -> Result<(), Error> {
        if partitions == self.partitions || self.partitions == DEAD_LETTER_PARTITIONS {
            return Ok(());
        }
        Err(Error::Unfit {
            topic: self.name.into(),
            problem: format!("has {partitions} partitions instead of {}", self.partitions),
            remedy: format!(
                "set `kafka.partitions` to {partitions} if all of our topics have as many and always had, or another \
                 `kafka.prefix` to begin with new topics; a pipeline's ledger is found by that count"
            ),
        })
    }
}

/// Asks for the topics that exist, with their counts of partitions.
async fn counts(settings: &Settings) -> Result<Vec<(String, i32)>, Error> {
    // A consumer, as its events can be polled: they tell why no broker answers.
    let probe: BaseConsumer<Log> = create(&settings.admin(), Log::new("admin"))?;
    blocking(move || {
        let metadata = metadata(&probe, None, "ask for the topics", ANSWER_TIMEOUT)?;
        let count = |topic: &MetadataTopic| {
            (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
        };
        Ok(metadata.topics().iter().map(count).collect())
    })
    .await
}

/// Asks for one topic or all of them until there is an answer or no hope. Polls the client, which must not have been
/// assigned anything yet.
pub(crate) fn metadata(
    probe: &BaseConsumer<Log>,
    topic: Option<&str>,
    what: &'static str,
    within: Duration,
) -> Result<Metadata, Error> {
    let deadline = Instant::now() + within;
    loop {
        let asked = probe.fetch_metadata(topic, PROBE_TIMEOUT);
        while probe.poll(EVENTS_TIMEOUT).is_some() {}
        let complaint = probe.context().complaint();
        let is_final = complaint.as_ref().is_some_and(|complaint| is_denial(complaint.code));
        match asked {
            Ok(metadata) => return Ok(metadata),
            Err(error) if is_final || Instant::now() >= deadline => return Err(Error::of(what, complaint, error)),
            Err(_) => {}
        }
    }
}

/// Makes topics; false when there was one of them already.
async fn make(admin: &AdminClient<Log>, missing: &[Wanted<'_>], settings: &Settings) -> Result<bool, Error> {
    if missing.is_empty() {
        return Ok(true);
    }
    let topics = new_topics(missing, settings);
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).operation_timeout(Some(ANSWER_TIMEOUT));
    let what = "make topics";
    let made = admin.create_topics(&topics, &options).await;
    let mut are_new = true;
    for result in made.map_err(|source| Error::of(what, None, source))? {
        match result {
            Ok(topic) => tracing::info!(topic, "made topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => are_new = false,
            Err((topic, code)) if is_setting(code) => {
                return Err(Error::Unfit {
                    topic,
                    problem: format!("cannot be made ({code})"),
                    remedy: "set `kafka.replication` to no more than there are brokers, or make the topic yourself"
                        .into(),
                });
            }
            Err((_, code)) => return Err(Error::of(what, None, KafkaError::AdminOp(code))),
        }
    }
    Ok(are_new)
}

/// Describes topics to be made.
pub(crate) fn new_topics<'a>(missing: &'a [Wanted<'a>], settings: &'a Settings) -> Vec<NewTopic<'a>> {
    let replication = settings.replication.map_or(BROKERS_DEFAULT, i32::from);
    let new = |wanted: &'a Wanted<'a>| {
        let policy = if wanted.compacted { "compact" } else { "delete" };
        let topic = NewTopic::new(wanted.name, wanted.partitions, TopicReplication::Fixed(replication));
        let topic = topic.set("cleanup.policy", policy);
        let topic = wanted.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        match settings.events_retention_ms.as_deref().filter(|_| wanted.is_of_events) {
            Some(retention) => topic.set("retention.ms", retention),
            None => topic,
        }
    };
    missing.iter().map(new).collect()
}

/// Tells whether a topic cannot be made for what it was to be.
pub(crate) fn is_setting(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::PolicyViolation
    )
}

/// Refuses a ledger from which the brokers drop what is old.
async fn check_compaction(admin: &AdminClient<Log>, ledger: &str) -> Result<(), Error> {
    let what = "ask how the ledger's topic is kept";
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(ledger)], &options).await;
    for resource in described.map_err(|source| Error::of(what, None, source))? {
        let policy = match &resource {
            Ok(resource) => resource.get("cleanup.policy").and_then(|entry| entry.value.clone()),
            // Whoever may not ask is not told; that alone is no reason not to work.
            Err(code) => {
                tracing::warn!(topic = ledger, error = %code, "could not check that the ledger is compacted");
                None
            }
        };
        if let Some(policy) = policy.filter(|policy| policy.contains("delete")) {
            return Err(Error::Unfit {
                topic: ledger.into(),
                problem: format!("has cleanup.policy={policy}, so what is old would be lost"),
                remedy: "set its cleanup.policy to compact".into(),
            });
        }
    }
    Ok(())
}

/// Returns how long a record may be to be taken by a topic, as its brokers say, or what they take by default. May block for
/// as long as brokers need to answer.
pub(crate) fn record_bytes_max(settings: &Settings, topic: &str) -> usize {
    let asked = async {
        let admin: AdminClient<Log> = create(&settings.admin(), Log::new("admin"))?;
        let options = AdminOptions::new().request_timeout(Some(PROBE_TIMEOUT));
        let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
        let described = described.map_err(|source| Error::of("ask how long a record may be", None, source))?;
        let said =
            described.into_iter().flatten().find_map(|resource| resource.get("max.message.bytes")?.value.clone());
        Ok::<_, Error>(said.and_then(|text| text.parse::<usize>().ok()))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let said = runtime.ok().and_then(|runtime| runtime.block_on(asked).ok()).flatten();
    said.unwrap_or(BROKERS_BYTES_MAX).saturating_sub(FRAMING_BYTES_MAX)
}

/// Returns the first and the next offset of a partition. A partition that was just made is not known everywhere at once.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), KafkaError> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let asked = consumer.fetch_watermarks(topic, partition, PROBE_TIMEOUT);
        match asked {
            Err(ref error) if error.rdkafka_error_code().is_some_and(is_forbidden) => return asked,
            Err(_) if Instant::now() < deadline => {
                // Asks for the topic's leaders.
                let _ = consumer.fetch_metadata(Some(topic), PROBE_TIMEOUT);
            }
            _ => return asked,
        }
    }
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
