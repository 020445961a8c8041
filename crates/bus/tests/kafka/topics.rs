//! What is refused before anything is read or written.

use std::collections::BTreeMap;

use dagwright_bus::kafka::{Destination, Error, Instance, Outgoing, Producer, Settings, Stats, Topics};
use dagwright_model::code::Code;

use crate::harness::{Broker, Cache, PARTITIONS, Station, assert_once, make_topic, read, settings, submit, until};

#[track_caller]
fn unfit(result: Result<Topics, Error>, topic: &str, says: &str) {
    let error = result.expect_err("refused");
    assert_eq!(error.code(), Code::BusUnfit, "{error}");
    let text = error.to_string();
    assert!(text.contains(topic) && text.contains(says), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_never_with_another_count() {
    let broker = Broker::shared();
    let mut settings = settings(&broker.address, "shape", "a");
    let (one, two) = tokio::join!(Topics::ensure(&settings), Topics::ensure(&settings));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(Topics::ensure(&settings).await.unwrap().partitions, PARTITIONS);
    settings.partitions = 6;
    unfit(
        Topics::ensure(&settings).await,
        "shape.requests.v1",
        "has 4 partitions instead of 6; set `kafka.partitions` to 4",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_forgets_is_refused() {
    let broker = Broker::shared();
    make_topic(&broker.address, "forgets.ledger.v1", PARTITIONS.into(), "compact,delete").await;
    let settings = settings(&broker.address, "forgets", "a");
    unfit(Topics::ensure(&settings).await, "forgets.ledger.v1", "set its cleanup.policy to compact");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_topic_has_to_exist() {
    let broker = Broker::shared();
    let mut settings = settings(&broker.address, "missing", "a");
    settings.ingress = vec!["nowhere".into()];
    unfit(Topics::ensure(&settings).await, "nowhere", "does not exist");
    settings.ingress.clear();
    settings.replication = Some(3);
    unfit(Topics::ensure(&settings).await, "missing.", "set `kafka.replication`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_another_ledger_is_refused() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "foreign-cache", "a");
    let topics = Topics::ensure(&settings).await.unwrap();
    let cache = Cache { from: BTreeMap::from([(1, 1_000)]), ..Cache::default() };
    let (instance, _requests) =
        Instance::start(settings, topics, cache, Stats::default().into()).await.expect("an instance");
    let mut failure = instance.failure();
    let failed = failure.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!(failed.code(), Code::CacheForeign, "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_goes_on_where_it_was() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "goes-on", "a");
    let station = Station::start(&settings).await;
    let topics = station.instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let first = submit(&producer, "first", 100).await;
    until("every record is in the cache", || station.cache.len() == first.len());
    let next = |records: Vec<dagwright_bus::kafka::LedgerRecord>| {
        records.iter().fold(BTreeMap::new(), |mut next: BTreeMap<i32, i64>, record| {
            let known = next.entry(record.partition).or_default();
            *known = (record.offset + 1).max(*known);
            next
        })
    };
    let from = next(station.cache.records());
    station.close().await;
    let cache = Cache { from, ..Cache::default() };
    let started = Instance::start(settings.clone(), topics.clone(), cache.clone(), Stats::default().into()).await;
    let (instance, requests) = started.unwrap();
    let worker = tokio::spawn(crate::harness::work(requests, instance.committer(), topics.clone()));
    let second = submit(&producer, "second", 100).await;
    until("every record is in the cache", || cache.len() == second.len());
    assert_once(&broker.address, &topics, &[first, second].concat());
    instance.close().await;
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_ask_who_is_there_get_an_answer() {
    let broker = Broker::start_secure();
    let secured = |password: &str, ca: &str| {
        let mut settings: Settings = settings(&broker.secured("sasl_ssl"), "secure", "a");
        for (key, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", &broker.secured("mechanism")),
            ("sasl.username", &broker.secured("user")),
            ("sasl.password", password),
            ("ssl.ca.location", ca),
        ] {
            settings.properties.insert(key.into(), value.into());
        }
        settings
    };
    let (password, ca) = (broker.secured("password"), broker.secured("ca"));
    for wrong in [secured("guessed", &ca), secured(&password, &broker.secured("stranger"))] {
        let error = Topics::ensure(&wrong).await.expect_err("refused");
        assert_eq!(error.code(), Code::BusDenied, "{error}");
        let text = format!("{error:?} {error}");
        assert!(!text.contains("guessed") && !text.contains(&password), "{text}");
    }
    let settings = secured(&password, &ca);
    let station = Station::start(&settings).await;
    let topics = station.instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    producer.produce(&Outgoing::new(Destination::Requests, "p", "p/1")).await.unwrap();
    until("the record is in the cache", || station.cache.len() == 1);
    assert_eq!(read(&broker.address, &topics.events).len(), 1);
    station.close().await;
}
