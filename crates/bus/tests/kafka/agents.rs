//! Agents of several processes talk as those of one do.

use dagwright_bus::{
    Bus, Record, Topic,
    kafka::{KafkaBus, Topics},
};

use crate::harness::{Broker, settings};

fn record(key: &str, text: &str) -> Record {
    Record { key: key.into(), payload: text.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_group_of_every_process_hears_everything_in_order() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "agents", "a");
    let topics = Topics::ensure(&settings).await.unwrap();
    let here = KafkaBus::start(&settings, &topics).await.unwrap();
    here.publish(Topic::Agents, record("s", "before anybody listened")).await.unwrap();
    let there = KafkaBus::start(&settings, &topics).await.unwrap();
    let mut groups = [
        there.subscribe(Topic::Agents, "extraction/main").await.unwrap(),
        there.subscribe(Topic::Agents, "loading/main").await.unwrap(),
        here.subscribe(Topic::Agents, "orchestrator/main").await.unwrap(),
    ];
    for (bus, text) in [(&here, "call"), (&there, "proposal"), (&here, "award")] {
        bus.publish(Topic::Agents, record("s", text)).await.unwrap();
    }
    for (index, group) in groups.iter_mut().enumerate() {
        let mut heard = Vec::new();
        while heard.last() != Some(&record("s", "award")) {
            heard.push(group.next().await.unwrap());
        }
        // Who was there may have been reached by what was said before the group came.
        let new: Vec<_> =
            heard.into_iter().filter(|heard| index < 2 || heard.payload != b"before anybody listened").collect();
        assert_eq!(new, ["call", "proposal", "award"].map(|text| record("s", text)), "group {index}");
    }
    here.close().await;
    there.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_subscription_takes_over_and_a_closed_bus_ends_all() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "agents-again", "a");
    let topics = Topics::ensure(&settings).await.unwrap();
    let bus = KafkaBus::start(&settings, &topics).await.unwrap();
    let mut old = bus.subscribe(Topic::Agents, "a").await.unwrap();
    let mut new = bus.subscribe(Topic::Agents, "a").await.unwrap();
    bus.publish(Topic::Agents, record("s", "1")).await.unwrap();
    assert_eq!(old.next().await, None);
    assert_eq!(new.next().await, Some(record("s", "1")));
    bus.close().await;
    assert_eq!(new.next().await, None);
}
