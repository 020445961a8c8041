//! Requests in, ledger records and events out, over a real broker.

use dagwright_bus::kafka::{Commit, CommitError, Destination, Outgoing, Producer};
use dagwright_model::code::Code;

use crate::harness::{
    Broker, PARTITIONS, Station, assert_once, decide, instance, noise, owns, read, settings, submit, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_record_an_event_and_an_offset() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "basic", "a");
    let station = Station::start(&settings).await;
    let topics = station.instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let submitted = submit(&producer, "p", 500).await;
    until("every record is in the cache", || station.cache.len() == submitted.len());
    assert_once(&broker.address, &topics, &submitted);
    for record in station.cache.records() {
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        assert_eq!(record.partition, topics.home(value.split('/').next().unwrap()));
    }
    station.close().await;

    let again = Station::start(&settings).await;
    owns(&again.instance, PARTITIONS.into()).await;
    assert_eq!(again.cache.len(), submitted.len(), "who owns a partition knows its ledger");
    let more = submit(&producer, "q", 100).await;
    until("every record is in the cache", || again.cache.len() == submitted.len() + more.len());
    assert_once(&broker.address, &topics, &[submitted, more].concat());
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_says_when_it_has_read_what_there_was() {
    let broker = Broker::shared();
    let station = Station::start(&settings(&broker.address, "behind", "a")).await;
    let producer = Producer::new(&settings(&broker.address, "behind", "a"), station.instance.topics().clone()).await;
    let submitted = submit(&producer.unwrap(), "p", 300).await;
    until("every record is in the cache", || station.cache.len() == submitted.len());
    let (other, _requests, cache, stats) = instance(&settings(&broker.address, "behind", "b")).await;
    until("all was read", || stats.caught_up.get());
    assert_eq!(cache.len(), submitted.len(), "whether or not it owns anything");
    other.close().await;
    station.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_keep_the_order_in_which_requests_came() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "order", "a");
    let (instance, mut requests, _, _) = instance(&settings).await;
    let topics = instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    for value in ["p/1", "p/2"] {
        producer.produce(&Outgoing::new(Destination::Requests, "p", value)).await.unwrap();
    }
    let (first, second) = (requests.next(1).await.pop().unwrap(), requests.next(1).await.pop().unwrap());
    let outcome = instance.commit(decide(&second, &topics)).await;
    assert_eq!(outcome, Err(CommitError::OutOfOrder { expected: Some(first.offset) }));
    assert_eq!(read(&broker.address, &topics.ledger), []);
    let (one, two) = tokio::join!(instance.commit(decide(&first, &topics)), instance.commit(decide(&second, &topics)));
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_once(&broker.address, &topics, &["p/1".into(), "p/2".into()]);
    instance.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_long_fails_alone() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "long", "a");
    let (instance, mut requests, _, _) = instance(&settings).await;
    let topics = instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    producer.produce(&Outgoing::new(Destination::Requests, "p", "p/1")).await.unwrap();
    let received = requests.next(1).await.pop().unwrap();
    let long = Commit {
        ownership: received.ownership.clone(),
        consumed: None,
        records: vec![Outgoing::new(Destination::Ledger, "k", noise(1, 5_000_000))],
        otherwise: None,
    };
    let (long, fine) = tokio::join!(instance.commit(long), instance.commit(decide(&received, &topics)));
    assert_eq!((long, fine), (Err(CommitError::TooLarge), Ok(())));
    assert_once(&broker.address, &topics, &["p/1".into()]);
    let error = producer.produce(&Outgoing::new(Destination::Requests, "p", noise(1, 5_000_000))).await.unwrap_err();
    assert_eq!(error.code(), Code::RequestTooLarge, "{error}");
    instance.close().await;
}
