//! How many requests of 1 KB go through: received, committed with a ledger record and an event of 1 KB each, visible.
//!
//! `cargo bench -p dagwright-bus --bench kafka`; starts a broker of its own, which shares the machine. Prints numbers and
//! asserts that every request was committed once.

#[path = "../tests/kafka/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;

use std::time::{Duration, Instant};

use dagwright_bus::kafka::{Commit, Destination, Instance, Outgoing, Producer, Received, Requests};
use harness::{Broker, PARTITIONS, instance, owns, settings, size};
use tokio::task::JoinSet;

const BYTES: usize = 1024;

#[tokio::main]
async fn main() {
    let broker = Broker::start();
    let settings = settings(&broker.address, "bench", "a");
    let (instance, mut requests, cache, stats) = instance(&settings).await;
    let topics = instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.expect("a producer");
    owns(&instance, PARTITIONS.into()).await;

    // One after the other: how long one takes.
    let mut took = Vec::new();
    for number in 0..200 {
        let start = Instant::now();
        produce(&producer, number, 1).await;
        let received = requests.next(1).await.pop().expect("a request");
        instance.commit(commit(&received)).await.expect("visible");
        took.push(start.elapsed());
    }
    took.sort();
    let at = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1e3;
    println!("one at a time: p50 {:.1} ms, p99 {:.1} ms from produce to visible", at(50), at(99));

    let count = 20_000;
    let start = Instant::now();
    let feed = {
        let producer = producer.clone();
        tokio::spawn(async move { produce(&producer, 1000, count).await })
    };
    let before = stats.committed.get();
    drain(&instance, &mut requests, count).await;
    let elapsed = start.elapsed();
    feed.await.expect("no panic");
    report("produced meanwhile", count, elapsed, stats.committed.get() - before);

    produce(&producer, 100_000, 1000).await;
    drain(&instance, &mut requests, 1000).await;
    let total = 200 + count + 1000;
    harness::until("the cache has everything", || cache.len() == total);
    assert_eq!(cache.len(), total);
    println!("ledger: {} records and marks", size(&broker.address, &topics.ledger));
    instance.close().await;
}

async fn produce(producer: &Producer, first: usize, count: usize) {
    let mut sending = JoinSet::new();
    for number in first..first + count {
        let producer = producer.clone();
        sending.spawn(async move {
            let pipeline = format!("pipeline-{}", number % 500);
            let request = Outgoing::new(Destination::Requests, pipeline, vec![b'x'; BYTES]);
            producer.produce(&request).await.expect("a broker takes it");
        });
        if sending.len() >= 1000 {
            sending.join_next().await;
        }
    }
    sending.join_all().await;
}

fn commit(received: &Received) -> Commit {
    let key = received.key.clone().unwrap_or_default();
    let records = [Destination::Ledger, Destination::Events]
        .map(|to| Outgoing::new(to, key.clone(), received.value.as_deref().unwrap_or_default()));
    Commit {
        ownership: received.ownership.clone(),
        consumed: Some(received.offset),
        records: records.into(),
        otherwise: None,
    }
}

async fn drain(instance: &Instance, requests: &mut Requests, count: usize) {
    let committer = instance.committer();
    let mut outcomes = JoinSet::new();
    for _ in 0..count {
        let received = requests.next(1).await.pop().expect("a request");
        let outcome = committer.submit(commit(&received)).await.expect("the instance runs");
        outcomes.spawn(outcome.visible());
        while let Some(done) = outcomes.try_join_next() {
            done.expect("no panic").expect("visible");
        }
    }
    for outcome in outcomes.join_all().await {
        outcome.expect("visible");
    }
}

fn report(what: &str, count: usize, elapsed: Duration, transactions: u64) {
    let seconds = elapsed.as_secs_f64();
    println!(
        "{what}: {count} requests in {seconds:.1} s, {:.0}/s, in {transactions} transactions ({:.0}/s)",
        count as f64 / seconds,
        transactions as f64 / seconds
    );
}
