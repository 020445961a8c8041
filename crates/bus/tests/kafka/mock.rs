//! What brokers answer when they are in trouble, injected on the wire by librdkafka's mock cluster.

use std::sync::Arc;

use dagwright_bus::kafka::{
    Commit, CommitError, Destination, Instance, Outgoing, Producer, Received, Requests, Settings, Stats, Topics,
    partition_of,
};
use dagwright_model::code::Code;
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer},
};

use crate::harness::{Cache, PARTITIONS, PATIENCE, owns, settings};

/// A mock cluster and an instance on it.
struct Mocked {
    cluster: MockCluster<'static, DefaultProducerContext>,
    instance: Instance,
    requests: Requests,
    producer: Producer,
    stats: Arc<Stats>,
    cache: Cache,
}

// === impl Mocked ===

impl Mocked {
    /// Starts an instance after the cluster was prepared.
    async fn start(prepare: impl FnOnce(&MockCluster<'static, DefaultProducerContext>)) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let settings: Settings = settings(&cluster.bootstrap_servers(), "mock", "a");
        let topics = Topics::named(&settings);
        for topic in [&topics.requests, &topics.ledger, &topics.events, &topics.dead_letters] {
            cluster.create_topic(topic, PARTITIONS.into(), 1).unwrap();
        }
        prepare(&cluster);
        let stats = Arc::new(Stats::default());
        let cache = Cache::default();
        let started = Instance::start(settings.clone(), topics.clone(), cache.clone(), stats.clone()).await;
        let (instance, requests) = started.unwrap();
        let producer = Producer::new(&settings, topics).await.unwrap();
        owns(&instance, PARTITIONS.into()).await;
        Self { cluster, instance, requests, producer, stats, cache }
    }

    async fn request(&mut self) -> Received {
        self.producer.produce(&Outgoing::new(Destination::Requests, "p", "p/1")).await.unwrap();
        self.requests.next(1).await.pop().unwrap()
    }

    async fn commit(&self, received: &Received) -> Result<(), CommitError> {
        let records = vec![Outgoing::new(Destination::Ledger, "k", "v"), Outgoing::new(Destination::Events, "p", "e")];
        let commit =
            Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise: None };
        self.instance.commit(commit).await
    }
}

/// Answers one kind of request with errors, and asserts that a commit gets over them.
async fn gets_over(api: Api, answers: &[Answer]) -> Mocked {
    let mut mocked = Mocked::start(|_| ()).await;
    let first = mocked.request().await;
    assert_eq!(mocked.commit(&first).await, Ok(()));
    let second = mocked.request().await;
    mocked.cluster.request_errors(api, answers);
    assert_eq!(mocked.commit(&second).await, Ok(()), "{answers:?}");
    assert!(second.ownership.is_current() && mocked.instance.failure().borrow().is_none());
    mocked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_moves_on_is_followed_while_the_partition_stays() {
    let answers = [
        Answer::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
        Answer::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        Answer::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    ];
    let mocked = gets_over(Api::TxnOffsetCommit, &answers).await;
    assert_eq!(mocked.stats.aborted.get(), 3);
    assert_eq!((mocked.stats.committed.get(), mocked.stats.rebuilt.get()), (2, 0));
    mocked.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_moves_is_found_again() {
    let answers = [Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, Answer::RD_KAFKA_RESP_ERR_NOT_COORDINATOR];
    for api in [Api::AddPartitionsToTxn, Api::AddOffsetsToTxn, Api::TxnOffsetCommit, Api::EndTxn] {
        gets_over(api, &answers).await.instance.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_moves_is_found_again() {
    let answers = [Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT];
    gets_over(Api::Produce, &answers).await.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_comes_to_be_although_its_coordinator_is_late() {
    let answers = [Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE; 2];
    let mut mocked = Mocked::start(|cluster| cluster.request_errors(Api::InitProducerId, &answers)).await;
    let received = mocked.request().await;
    assert_eq!(mocked.commit(&received).await, Ok(()));
    mocked.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_end_is_not_guessed_at() {
    let mut mocked = Mocked::start(|_| ()).await;
    let received = mocked.request().await;
    mocked.cluster.request_errors(Api::EndTxn, &[Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    assert_eq!(mocked.commit(&received).await, Err(CommitError::Lost));
    assert!(!received.ownership.is_current());
    assert_eq!((mocked.stats.in_doubt.get(), mocked.stats.rebuilt.get()), (1, 1));
    // The mock cluster commits offsets as they are sent, so to it this one is done; what comes next can be committed.
    owns(&mocked.instance, PARTITIONS.into()).await;
    let next = mocked.request().await;
    assert!(next.ownership.epoch() > received.ownership.epoch());
    assert_eq!(mocked.commit(&received).await, Err(CommitError::Lost), "what was lost stays lost");
    assert_eq!(mocked.commit(&next).await, Ok(()));
    assert!(mocked.instance.failure().borrow().is_none());
    mocked.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_ends_the_instance() {
    let mut mocked = Mocked::start(|_| ()).await;
    let received = mocked.request().await;
    let answers = [Answer::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED];
    mocked.cluster.request_errors(Api::AddOffsetsToTxn, &answers);
    assert_eq!(mocked.commit(&received).await, Err(CommitError::Closed));
    let failed = mocked.instance.failure().borrow().clone().expect("a failure");
    assert_eq!(failed.code(), Code::BusDenied, "{failed}");
    assert_eq!(mocked.commit(&received).await, Err(CommitError::Closed));
    mocked.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_an_owner_lies_in_its_partition_and_is_read() {
    let mocked = Mocked::start(|_| ()).await;
    for partition in 0..i32::from(PARTITIONS) {
        let ask = Outgoing::new(Destination::LedgerOf(partition), format!("{partition}/cancel"), "x");
        assert_eq!(mocked.producer.produce(&ask).await.unwrap(), (partition, 0));
    }
    let reader = mocked.instance.reader();
    let all = 0..i32::from(PARTITIONS);
    assert!(tokio::task::spawn_blocking(move || reader.catch_up(all, PATIENCE)).await.unwrap());
    let mut found: Vec<_> = mocked.cache.records().into_iter().map(|found| (found.partition, found.key)).collect();
    found.sort();
    let wanted: Vec<_> = (0..i32::from(PARTITIONS)).map(|it| (it, Some(format!("{it}/cancel").into_bytes()))).collect();
    assert_eq!(found, wanted);
    mocked.instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_we_look_for_it() {
    let mut mocked = Mocked::start(|_| ()).await;
    for number in 0..50 {
        let key = format!("namespace.pipeline_{number}");
        let (partition, _) =
            mocked.producer.produce(&Outgoing::new(Destination::Requests, key.as_str(), "x")).await.unwrap();
        assert_eq!(partition, partition_of(key.as_bytes(), PARTITIONS), "{key}");
        assert_eq!(partition, mocked.instance.topics().home(&key));
        let received = mocked.requests.next(1).await.pop().unwrap();
        assert_eq!(received.ownership.partition(), partition);
    }
    mocked.instance.close().await;
}
