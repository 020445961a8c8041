//! What a user says about Kafka, and what each client is told of it.
//!
//! The guarantees rest on a few of librdkafka's settings, so those are ours alone: a user who sets one is told why not.
//! Everything else is passed on as it is, and librdkafka refuses what it does not know. Values of settings that may hold
//! secrets stand in no `Debug` and no error.

use std::{collections::BTreeMap, fmt, time::Duration};

use rdkafka::{ClientConfig, ClientContext, config::FromClientConfigAndContext, error::KafkaError};

use super::Error;

/// The longest name of a topic that brokers take.
const TOPIC_NAME_MAX: usize = 249;

/// What the longest of our topics adds to the prefix.
const LONGEST_SUFFIX: &str = ".requests.dlq.v1";

/// More partitions are no mistake of Kafka's, but one of whoever wrote the setting.
const PARTITIONS_MAX: u16 = 4096;

/// Properties that are ours, with the reason.
const RESERVED: [(&str, &str); 24] = [
    ("acks", IDEMPOTENCE),
    ("auto.commit.enable", OFFSETS),
    ("auto.commit.interval.ms", OFFSETS),
    ("auto.offset.reset", OFFSETS),
    ("bootstrap.servers", "the brokers are set by `kafka.brokers`"),
    ("client.id", "it names the instance"),
    ("enable.auto.commit", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("enable.idempotence", IDEMPOTENCE),
    ("enable.partition.eof", "the end of the ledger is found by it"),
    ("group.id", "the group is set by `kafka.group`"),
    ("group.instance.id", GROUP),
    ("group.protocol", GROUP),
    ("group.remote.assignor", GROUP),
    ("isolation.level", "what is not committed must not be read"),
    ("metadata.broker.list", "the brokers are set by `kafka.brokers`"),
    ("partition.assignment.strategy", GROUP),
    ("partitioner", "a pipeline's home partition is found by it"),
    ("plugin.library.paths", "it would load foreign code"),
    ("request.required.acks", IDEMPOTENCE),
    ("ssl.engine.location", "it would load foreign code"),
    ("ssl.providers", "it would load foreign code"),
    ("statistics.interval.ms", "metrics are made from it"),
    ("transactional.id", "it names the instance"),
];
const OFFSETS: &str = "offsets are committed only together with what was made of the records";
const IDEMPOTENCE: &str = "no record may be lost or written twice";
const GROUP: &str = "instances must hand partitions over one by one, and be fenced when they were taken for dead";

/// Properties that only consumers know; librdkafka warns of them in a producer.
const OF_CONSUMERS: [&str; 14] = [
    "check.crcs",
    "coordinator.query.interval.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "heartbeat.interval.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// Properties that only producers know.
const OF_PRODUCERS: [&str; 18] = [
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.timeout.ms",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
];

/// Defaults of a consumer, which a user may overrule.
const CONSUMER_DEFAULTS: [(&str, &str); 4] = [
    // What a dead instance held is taken over within this time.
    ("session.timeout.ms", "15000"),
    // Ahead of the bounded queue, so it counts against the memory of the process.
    ("queued.max.messages.kbytes", "16384"),
    // An empty topic is asked again at once, not after half a second.
    ("fetch.wait.max.ms", "100"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// Defaults of a producer, which a user may overrule.
const PRODUCER_DEFAULTS: [(&str, &str); 3] = [
    ("compression.type", "lz4"),
    // How long a record may be is the topics' affair: whatever was taken from one must be fit to go to another.
    ("message.max.bytes", "67108864"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// How long an open transaction of a dead instance may hold up its successor.
/// A broker that restarts within it finds the transaction as it was, and we go on with it.
const TRANSACTION_TIMEOUT: (&str, &str) = ("transaction.timeout.ms", "60000");

/// What a user says about Kafka.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The brokers to ask first, `host:port,…`.
    pub brokers: String,
    /// What the names of our topics begin with.
    pub prefix: String,
    /// The consumer group that shares the requests.
    pub group: String,
    /// Names this process among those of the group. The same name after a restart ends at once what the process that
    /// had it left open; two running processes must not share one.
    pub instance: String,
    /// Topics with requests beside our own.
    pub ingress: Vec<String>,
    /// How many partitions topics are made with. It can never be changed: a pipeline's home follows from it.
    pub partitions: u16,
    /// How many brokers keep a record; `None` is the brokers' default.
    pub replication: Option<u16>,
    /// The `retention.ms` that a topic of events is made with, as Kafka takes it: -1 is for ever; `None` is the brokers'
    /// default.
    pub events_retention_ms: Option<String>,
    /// How long transactions may fail before the instance gives up.
    pub patience: Duration,
    /// Passed to librdkafka.
    pub properties: BTreeMap<String, String>,
}

// === impl Settings ===

impl Settings {
    /// How many partitions topics are made with unless a user says otherwise.
    pub const PARTITIONS: u16 = 12;

    /// How long transactions may fail unless a user says otherwise: longer than a broker takes to restart.
    pub const PATIENCE: Duration = Duration::from_secs(300);

    /// Makes settings with everything by default.
    #[must_use]
    pub fn new(brokers: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: "dagwright".into(),
            group: "dagwright".into(),
            instance: instance.into(),
            ingress: Vec::new(),
            partitions: Self::PARTITIONS,
            replication: None,
            events_retention_ms: None,
            patience: Self::PATIENCE,
            properties: BTreeMap::new(),
        }
    }

    /// Checks everything that can be checked without a broker.
    ///
    /// # Errors
    /// [`Error::Settings`] with every problem.
    pub fn validate(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        if self.brokers.trim().is_empty() {
            problems.push("`kafka.brokers` is empty; give the address of a broker, such as localhost:9092".into());
        }
        for (key, name) in [("prefix", &self.prefix), ("group", &self.group), ("instance", &self.instance)] {
            problems.extend(name_problem(&format!("kafka.{key}"), name, TOPIC_NAME_MAX - LONGEST_SUFFIX.len()));
        }
        for topic in &self.ingress {
            problems.extend(name_problem("kafka.ingress", topic, TOPIC_NAME_MAX));
        }
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            problems.push(format!("`kafka.partitions` is {}; give 1 to {PARTITIONS_MAX}", self.partitions));
        }
        if self.replication == Some(0) {
            problems.push("`kafka.replication` is 0; give the number of brokers that keep a record".into());
        }
        for (key, reason) in RESERVED {
            if self.properties.contains_key(key) {
                problems.push(format!("`kafka.properties.{key}` cannot be set: {reason}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Settings { problems }) }
    }

    /// What every client is told.
    fn client(&self, role: &str, foreign: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", format!("{}.{}.{role}", self.prefix, self.instance));
        for (key, value) in self.properties.iter().filter(|(key, _)| !foreign.contains(&key.as_str())) {
            config.set(key, value);
        }
        config
    }

    fn reader(&self, role: &str) -> ClientConfig {
        let mut config = self.client(role, &[&OF_PRODUCERS[..], &[TRANSACTION_TIMEOUT.0]].concat());
        for (key, value) in CONSUMER_DEFAULTS {
            default(&mut config, key, value);
        }
        // Of the group even where it never joins: one name to grant rights to.
        config.set("group.id", &self.group);
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("isolation.level", "read_committed");
        config
    }

    /// For the member of the consumer group.
    pub(crate) fn member(&self) -> ClientConfig {
        let mut config = self.reader("member");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("auto.offset.reset", "earliest");
        config.set("statistics.interval.ms", "5000");
        config
    }

    /// For a member of another group than ours: one that reads events to hand them on.
    pub(crate) fn events(&self, group: &str) -> ClientConfig {
        let mut config = self.reader("events");
        config.set("group.id", group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        // What was remembered is gone from the topic: as little as possible is passed over.
        config.set("auto.offset.reset", "earliest");
        config.set("statistics.interval.ms", "5000");
        config
    }

    /// For readers of whole topics outside the group.
    pub(crate) fn tail(&self, role: &str) -> ClientConfig {
        let mut config = self.reader(role);
        // An offset that is out of range means that what was remembered is of another topic; to start anew would hide it.
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config
    }

    /// For readers of what others write to a topic of theirs, outside any group.
    pub(crate) fn listener(&self, topic: &str) -> Result<ClientConfig, Error> {
        if let Some(problem) = name_problem("airflow.events.topic", topic, TOPIC_NAME_MAX) {
            return Err(Error::Settings { problems: vec![problem] });
        }
        self.validate()?;
        let mut config = self.reader("listener");
        // Its place is gone from the topic: as little as possible is passed over.
        config.set("auto.offset.reset", "earliest");
        Ok(config)
    }

    /// For whoever wants to know what is committed, and reads hardly anything.
    pub(crate) fn witness(&self) -> ClientConfig {
        self.reader("witness")
    }

    /// For whoever wants to know what is not committed.
    pub(crate) fn uncommitted(&self) -> ClientConfig {
        let mut config = self.reader("dangling");
        config.set("isolation.level", "read_uncommitted");
        config
    }

    /// For the idempotent producer.
    pub(crate) fn producer(&self, role: &str) -> ClientConfig {
        let mut config = self.client(role, &[&OF_CONSUMERS[..], &[TRANSACTION_TIMEOUT.0]].concat());
        for (key, value) in PRODUCER_DEFAULTS {
            default(&mut config, key, value);
        }
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config
    }

    /// For the transactional producer.
    pub(crate) fn transactional(&self) -> ClientConfig {
        let mut config = self.client("ledger", &OF_CONSUMERS);
        for (key, value) in PRODUCER_DEFAULTS.into_iter().chain([TRANSACTION_TIMEOUT]) {
            default(&mut config, key, value);
        }
        // A transaction is sent as a whole, so waiting for more would only be waiting.
        default(&mut config, "linger.ms", "0");
        // The coordinator refuses a transaction for the moment in which it still writes down the end of the one before.
        default(&mut config, "retry.backoff.ms", "10");
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config.set("transactional.id", format!("{}.{}.{}", self.prefix, self.group, self.instance));
        config
    }

    /// For administration.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.client("admin", &[&OF_CONSUMERS[..], &OF_PRODUCERS, &[TRANSACTION_TIMEOUT.0]].concat())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value): (&String, &String)| {
            (key.clone(), if is_secret(key) { "***".to_owned() } else { value.clone() })
        };
        let properties: BTreeMap<_, _> = self.properties.iter().map(shown).collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("group", &self.group)
            .field("instance", &self.instance)
            .field("ingress", &self.ingress)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("events_retention_ms", &self.events_retention_ms)
            .field("patience", &self.patience)
            .field("properties", &properties)
            .finish()
    }
}

/// Makes a client; what librdkafka says against a property becomes a problem of the settings.
pub(crate) fn create<C, T>(config: &ClientConfig, context: C) -> Result<T, Error>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    config.create_with_context(context).map_err(|source| match source {
        // Its own text has the value, which may be a secret.
        KafkaError::ClientConfig(_, problem, key, _) => {
            let problem = if is_secret(&key) { "is not usable".to_owned() } else { problem };
            Error::Settings { problems: vec![format!("`kafka.properties.{key}`: {problem}")] }
        }
        KafkaError::ClientCreation(problem) => Error::Settings { problems: vec![problem] },
        source => Error::Client { what: "make a Kafka client", source },
    })
}

/// Tells whether a property's value is nobody's business.
fn is_secret(key: &str) -> bool {
    ["password", "secret", "key.pem", "oauthbearer.config", "username", "assertion", "sasl.kerberos.kinit.cmd"]
        .iter()
        .any(|part| key.contains(part))
}

fn default(config: &mut ClientConfig, key: &str, value: &str) {
    if config.get(key).is_none() {
        config.set(key, value);
    }
}

fn name_problem(key: &str, name: &str, len_max: usize) -> Option<String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let well_formed = !name.is_empty() && name.len() <= len_max && name.bytes().all(is_fine);
    let is_path = name == "." || name == "..";
    (!well_formed || is_path)
        .then(|| format!("`{key}` is {name:?}; give 1 to {len_max} of the characters a-z A-Z 0-9 . _ -"))
}

#[cfg(test)]
mod tests {
    use super::{RESERVED, Settings, create};
    use crate::kafka::{Error, client::Log};

    fn settings(properties: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::new("localhost:9092", "a");
        settings.properties = properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        settings
    }

    #[track_caller]
    fn problems(settings: &Settings) -> Vec<String> {
        match settings.validate() {
            Err(Error::Settings { problems }) => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_reserved_property_is_refused_with_its_reason() {
        let all: Vec<_> = RESERVED.iter().map(|(key, _)| (*key, "x")).collect();
        let problems = problems(&settings(&all));
        assert_eq!(problems.len(), RESERVED.len());
        for ((key, reason), problem) in RESERVED.iter().zip(&problems) {
            assert_eq!(*problem, format!("`kafka.properties.{key}` cannot be set: {reason}"));
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut bad = settings(&[]);
        bad.brokers = " ".into();
        bad.prefix = "a b".into();
        bad.instance = String::new();
        bad.ingress = vec!["fine".into(), "..".into()];
        bad.partitions = 0;
        bad.replication = Some(0);
        assert_eq!(problems(&bad).len(), 6, "{:?}", problems(&bad));
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = settings(&[
            ("sasl.password", "hunter2"),
            ("ssl.key.pem", "hunter2"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("security.protocol", "sasl_ssl"),
        ]);
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("sasl_ssl"), "{shown}");
    }

    #[test]
    fn librdkafka_refuses_what_it_does_not_know() {
        let made = create::<_, rdkafka::consumer::BaseConsumer<Log>>(
            &settings(&[("no.such.password", "hunter2")]).member(),
            Log::new("test"),
        );
        let error = made.err().expect("an error");
        assert!(error.to_string().contains("no.such.password"), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
}
