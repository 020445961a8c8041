//! A broker, instances that do something simple, and a reader that shares nothing with them but librdkafka.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use dagwright_bus::kafka::{
    Commit, CommitError, Committer, Destination, Instance, LedgerCache, LedgerRecord, Outgoing, Producer, REPEATED,
    Received, Requests, Settings, Stats, Topics,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long to wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How many partitions requests and ledger have in tests.
pub(crate) const PARTITIONS: u16 = 4;

/// A real broker that ends with this process.
pub(crate) struct Broker {
    folder: TempDir,
    pub(crate) address: String,
}

/// A cache in memory that remembers everything.
#[derive(Clone, Default)]
pub(crate) struct Cache {
    pub(crate) records: Arc<Mutex<Vec<LedgerRecord>>>,
    /// What to answer when asked where to go on.
    pub(crate) from: BTreeMap<i32, i64>,
}

/// An instance with the task that acts for it.
pub(crate) struct Station {
    pub(crate) instance: Instance,
    pub(crate) cache: Cache,
    pub(crate) stats: Arc<Stats>,
    worker: JoinHandle<()>,
}

/// A record as the reader found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, Option<String>)>,
}

// === impl Broker ===

impl Broker {
    /// The broker of this test process.
    pub(crate) fn shared() -> &'static Self {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(Self::start)
    }

    /// A broker that a test may take away.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("dagwright-kafka-").tempdir().expect("a temporary folder");
        let mut broker = Self { folder, address: String::new() };
        broker.address = broker.script(&["start"]);
        broker
    }

    /// A broker that also listens where one has to say who one is.
    pub(crate) fn start_secure() -> Self {
        let folder = tempfile::Builder::new().prefix("dagwright-kafka-").tempdir().expect("a temporary folder");
        let mut broker = Self { folder, address: String::new() };
        broker.address = broker.script(&["start", "--secure"]);
        broker
    }

    /// What a secure broker says of itself; see tests/scripts/kafka.sh.
    pub(crate) fn secured(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("client.json")).expect("client.json");
        let (_, rest) = text.split_once(&format!("\"{name}\": \"")).unwrap_or_else(|| panic!("no {name} in {text}"));
        rest.split('"').next().expect("a value").to_owned()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.script(&["kill"]);
    }

    /// Starts it again with its data.
    pub(crate) fn restart(&mut self) {
        assert_eq!(self.script(&["start"]), self.address);
    }

    fn script(&self, arguments: &[&str]) -> String {
        let verb = arguments[0];
        let mut command = Command::new(script());
        command.arg(verb).arg(self.folder.path());
        if verb == "start" {
            command.arg(std::process::id().to_string());
        }
        command.args(&arguments[1..]);
        let output = command.output().expect("bash");
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tests/scripts/kafka.sh {verb}: {says}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("stop").arg(self.folder.path()).output();
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/kafka.sh")
}

// === impl Cache ===

impl Cache {
    pub(crate) fn records(&self) -> Vec<LedgerRecord> {
        self.records.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.lock().unwrap().len()
    }
}

impl LedgerCache for Cache {
    fn offsets(&mut self) -> Result<BTreeMap<i32, i64>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.from.clone())
    }

    fn apply(&mut self, records: Vec<LedgerRecord>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.records.lock().unwrap().extend(records);
        Ok(())
    }
}

// === impl Station ===

impl Station {
    /// Starts an instance that acts on requests by itself.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let (instance, requests, cache, stats) = instance(settings).await;
        let worker = tokio::spawn(work(requests, instance.committer(), instance.topics().clone()));
        Self { instance, cache, stats, worker }
    }

    /// Hands over and ends.
    pub(crate) async fn close(self) {
        self.instance.close().await;
        self.worker.await.expect("the worker ends with the instance");
    }
}

/// Settings for a prefix of its own.
pub(crate) fn settings(address: &str, prefix: &str, instance: &str) -> Settings {
    let mut settings = Settings::new(address, instance);
    settings.prefix = prefix.into();
    settings.group = prefix.into();
    settings.partitions = PARTITIONS;
    for (key, value) in
        [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "300"), ("transaction.timeout.ms", "3000")]
    {
        settings.properties.insert(key.into(), value.into());
    }
    settings
}

/// Starts an instance whose requests the test handles.
pub(crate) async fn instance(settings: &Settings) -> (Instance, Requests, Cache, Arc<Stats>) {
    let topics = Topics::ensure(settings).await.expect("topics");
    let (cache, stats) = (Cache::default(), Arc::new(Stats::default()));
    let started = Instance::start(settings.clone(), topics, cache.clone(), stats.clone()).await;
    let (instance, requests) = started.expect("an instance");
    (instance, requests, cache, stats)
}

/// Waits until an instance owns so many partitions of the requests, and returns.
pub(crate) async fn owns(instance: &Instance, count: usize) {
    let requests = &instance.topics().requests;
    let mut owned = instance.owned();
    let enough = owned.wait_for(|owned| owned.keys().filter(|(topic, _)| **topic == **requests).count() == count);
    tokio::time::timeout(PATIENCE, enough).await.expect("ownership in time").expect("the instance runs");
}

/// Acts on requests: forwards what is elsewhere at home, and notes the others in the ledger and as an event.
pub(crate) async fn work(mut requests: Requests, committer: Committer, topics: Topics) {
    let mut commits = tokio::task::JoinSet::new();
    while let Some(received) = requests.next(1).await.pop() {
        match committer.submit(decide(&received, &topics)).await {
            Ok(outcome) => drop(commits.spawn(outcome.visible())),
            Err(error) => check(Err(error)),
        }
        while let Some(done) = commits.try_join_next() {
            check(done.unwrap());
        }
    }
    while let Some(done) = commits.join_next().await {
        check(done.unwrap());
    }
}

/// Losing a partition is part of life, and what was received after an uncommitted record is then out of order.
#[track_caller]
fn check(outcome: Result<(), CommitError>) {
    match outcome {
        Ok(()) | Err(CommitError::Lost | CommitError::Closed) => {}
        Err(error @ (CommitError::OutOfOrder { .. } | CommitError::TooLarge)) => panic!("{error:?}"),
    }
}

/// What to commit for a request: its key is its pipeline, or its value begins with it.
pub(crate) fn decide(received: &Received, topics: &Topics) -> Commit {
    let value = String::from_utf8(received.value.as_deref().unwrap_or_default().to_vec()).expect("text");
    let pipeline = value.split('/').next().unwrap_or_default().to_owned();
    let is_home =
        received.ownership.topic() == topics.requests && received.ownership.partition() == topics.home(&pipeline);
    let records = if is_home {
        let offset = received.offset.to_string();
        let mut record = Outgoing::new(Destination::Ledger, value.clone(), value.clone());
        record.headers.push(("offset".into(), Some(offset.into())));
        vec![record, Outgoing::new(Destination::Events, pipeline, value)]
    } else {
        vec![received.forward(&pipeline)]
    };
    Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise: None }
}

/// Produces requests `<pipeline>/<number>` over many pipelines, each keyed by its pipeline, and returns their values.
pub(crate) async fn submit(producer: &Producer, name: &str, count: usize) -> Vec<String> {
    let values: Vec<_> = (0..count).map(|number| format!("{name}-{}/{number}", number % 50)).collect();
    let request = |value: &String| {
        let pipeline = value.split('/').next().unwrap_or_default();
        Outgoing::new(Destination::Requests, pipeline, value.as_str())
    };
    for chunk in values.chunks(200) {
        let sent: Vec<_> = chunk
            .iter()
            .map(|value| {
                let (producer, request) = (producer.clone(), request(value));
                tokio::spawn(async move { producer.produce(&request).await })
            })
            .collect();
        for sent in sent {
            sent.await.expect("no panic").expect("a broker takes it");
        }
    }
    values
}

/// Returns everything that is committed on a topic by now.
pub(crate) fn read(address: &str, topic: &str) -> Vec<Found> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let partitions = metadata.topics()[0].partitions().len();
    let mut places = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap() {
        places.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&places).expect("an assignment");
    let (mut found, mut ended) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while ended < partitions {
        match consumer.poll(Duration::from_millis(100)) {
            None => assert!(Instant::now() < deadline, "no end of {topic}"),
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(text))).collect()
                });
                found.push(Found {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(text),
                    value: message.payload().map(text),
                    headers: headers.unwrap_or_default(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
        }
    }
    found
}

/// Makes a topic.
pub(crate) async fn make_topic(address: &str, topic: &str, partitions: i32, policy: &str) {
    make_topic_with(address, topic, partitions, &[("cleanup.policy", policy)]).await;
}

/// Makes a topic with settings of its own.
pub(crate) async fn make_topic_with(address: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let made = admin.create_topics([&new], &options).await.expect("an answer");
    assert_eq!(made, [Ok(topic.to_owned())]);
}

/// Gives a topic more partitions.
pub(crate) async fn grow_topic(address: &str, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let grown = admin.create_partitions(&[NewPartitions::new(topic, partitions)], &options).await.expect("an answer");
    assert_eq!(grown, [Ok(topic.to_owned())]);
}

/// Produces a record as others do.
pub(crate) async fn produce(
    address: &str,
    topic: &str,
    key: Option<&str>,
    value: &str,
    headers: &[(String, Option<Vec<u8>>)],
) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", address).create().expect("a producer");
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_ref() }));
    let record =
        FutureRecord { topic, partition: None, payload: Some(value), key, timestamp: None, headers: Some(headers) };
    producer.send(record, PATIENCE).await.expect("a broker takes it");
}

/// How far a topic has grown, all records and marks counted.
pub(crate) fn size(address: &str, topic: &str) -> i64 {
    static CLIENTS: Mutex<BTreeMap<String, Arc<BaseConsumer>>> = Mutex::new(BTreeMap::new());
    let connect = || Arc::new(ClientConfig::new().set("bootstrap.servers", address).create().expect("a consumer"));
    let client = CLIENTS.lock().unwrap().entry(address.into()).or_insert_with(connect).clone();
    let end = |partition| client.fetch_watermarks(topic, partition, PATIENCE).map_or(0, |(_, end)| end);
    (0..i32::from(PARTITIONS)).map(end).sum()
}

/// The values on a topic, sorted; without repeats that say that they are some, which readers drop by their keys or ids.
pub(crate) fn values(address: &str, topic: &str) -> Vec<String> {
    let is_new = |found: &Found| found.headers.iter().all(|(name, _)| name != REPEATED);
    let mut values: Vec<_> = read(address, topic).into_iter().filter(is_new).filter_map(|found| found.value).collect();
    values.sort();
    values
}

/// Letters in which a compressor finds nothing.
pub(crate) fn noise(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + (state % 75) as u8)
    };
    (0..len).map(letter).collect()
}

/// Waits until a condition holds that nothing tells of.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        // Nobody wakes it: it looks again.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Asserts that every request is in the ledger and among the events once, and that nothing else is.
#[track_caller]
pub(crate) fn assert_once(address: &str, topics: &Topics, submitted: &[String]) {
    let mut wanted = submitted.to_vec();
    wanted.sort();
    for topic in [&topics.ledger, &topics.events] {
        let found = values(address, topic);
        let missing: Vec<_> = wanted.iter().filter(|value| found.binary_search(value).is_err()).collect();
        let twice: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(missing.is_empty() && twice.is_empty(), "{topic}: missing {missing:?}, twice {twice:?}");
        assert_eq!(found.len(), wanted.len(), "{topic} has what nobody asked for");
    }
}
