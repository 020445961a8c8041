//! Listening to a topic of others: everybody hears everything from then on, whatever becomes of topic and broker.

use std::collections::BTreeSet;

use dagwright_bus::kafka::{Heard, Listener, Settings};

use crate::harness::{Broker, PATIENCE, grow_topic, make_topic, produce, settings};

/// The longest value that is wanted in these tests.
const BYTES_MAX: usize = 1_000;

async fn listen(settings: &Settings, topic: &str) -> Listener {
    Listener::start(settings, topic, BYTES_MAX).await.expect("a listener")
}

async fn next(listener: &mut Listener) -> Heard {
    tokio::time::timeout(PATIENCE, listener.next()).await.expect("in time").expect("a record")
}

/// Returns the values of the next records, in any order: they are on several partitions.
async fn values(listener: &mut Listener, count: usize) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for _ in 0..count {
        let value = next(listener).await.value.expect("a value");
        assert!(values.insert(String::from_utf8(value).expect("text")), "each is heard once");
    }
    values
}

fn texts(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|number| number.to_string()).collect()
}

async fn say(address: &str, topic: &str, range: std::ops::Range<u32>) {
    for text in texts(range) {
        produce(address, topic, Some(&format!("dag/{text}")), &text, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_what_is_written_from_then_on() {
    let broker = Broker::shared();
    let topic = "listener.now";
    make_topic(&broker.address, topic, 3, "delete").await;
    say(&broker.address, topic, 0..10).await;
    // Two of the same group and of the same name: neither takes anything from the other.
    let settings = settings(&broker.address, "listener", "a");
    let (mut one, mut other) = (listen(&settings, topic).await, listen(&settings, topic).await);
    say(&broker.address, topic, 10..200).await;
    assert_eq!(values(&mut one, 190).await, texts(10..200));
    assert_eq!(values(&mut other, 190).await, texts(10..200));

    let (short, long) = ("x".repeat(BYTES_MAX), "x".repeat(BYTES_MAX + 1));
    produce(&broker.address, topic, Some("k"), &long, &[]).await;
    produce(&broker.address, topic, Some("k"), &short, &[]).await;
    let heard = next(&mut one).await;
    assert_eq!((heard.bytes, heard.value), (BYTES_MAX + 1, None));
    let after = next(&mut one).await;
    assert_eq!((after.partition, after.offset), (heard.partition, heard.offset + 1));
    assert_eq!(after.value.as_deref(), Some(short.as_bytes()));

    // Nobody takes what is written, and the end comes all the same.
    say(&broker.address, topic, 200..300).await;
    one.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_later_is_heard_from_its_beginning() {
    let broker = Broker::shared();
    let topic = "listener.later";
    let settings = settings(&broker.address, "listener-later", "a");
    let mut listener = listen(&settings, topic).await;
    make_topic(&broker.address, topic, 1, "delete").await;
    say(&broker.address, topic, 0..20).await;
    assert_eq!(values(&mut listener, 20).await, texts(0..20));
    grow_topic(&broker.address, topic, 3).await;
    say(&broker.address, topic, 20..60).await;
    // Some go to partitions that nobody knew of.
    assert_eq!(values(&mut listener, 40).await, texts(20..60));
    listener.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_away_is_heard_again() {
    let mut broker = Broker::start();
    let topic = "listener.away";
    make_topic(&broker.address, topic, 2, "delete").await;
    let settings = settings(&broker.address, "listener-away", "a");
    let mut listener = listen(&settings, topic).await;
    say(&broker.address, topic, 0..10).await;
    assert_eq!(values(&mut listener, 10).await, texts(0..10));
    broker.kill();
    broker.restart();
    say(&broker.address, topic, 10..30).await;
    assert_eq!(values(&mut listener, 20).await, texts(10..30));
    listener.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_topic_is_refused() {
    let settings = settings("127.0.0.1:1", "listener-bad", "a");
    for topic in ["", "a b", "..", "a/b"] {
        let refused = Listener::start(&settings, topic, BYTES_MAX).await.expect_err("refused");
        assert_eq!(refused.code().to_string(), "DW0701");
        assert!(refused.to_string().contains("airflow.events.topic"), "{refused}");
    }
}
