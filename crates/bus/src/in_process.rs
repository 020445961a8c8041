//! The bus of a single process: bounded queues.

use std::{collections::BTreeMap, sync::Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{Bus, Error, Record, Subscription, Topic};

/// How many records may wait for one group; a negotiation has at most 200 messages.
const QUEUED_MAX: usize = 256;

/// Carries records between the actors of one process.
#[derive(Debug, Default)]
pub struct InProcess {
    groups: Mutex<BTreeMap<(Topic, String), mpsc::Sender<Record>>>,
}

// === impl InProcess ===

impl InProcess {
    /// Makes a bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn groups_of(&self, topic: Topic) -> Vec<mpsc::Sender<Record>> {
        let groups = self.groups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        groups.iter().filter(|((known, _), _)| *known == topic).map(|(_, sender)| sender.clone()).collect()
    }
}

#[async_trait]
impl Bus for InProcess {
    async fn publish(&self, topic: Topic, record: Record) -> Result<(), Error> {
        for group in self.groups_of(topic) {
            // A group whose subscriber has gone is no reason to fail: its successor starts from the store.
            let _ = group.send(record.clone()).await;
        }
        Ok(())
    }

    async fn subscribe(&self, topic: Topic, group: &str) -> Result<Subscription, Error> {
        let (sender, receiver) = mpsc::channel(QUEUED_MAX);
        let mut groups = self.groups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        groups.insert((topic, group.to_owned()), sender);
        Ok(Subscription(receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::InProcess;
    use crate::{Bus, Record, Topic};

    fn record(text: &str) -> Record {
        Record { key: "session".into(), payload: text.into() }
    }

    #[tokio::test]
    async fn every_group_sees_every_record_in_order() {
        let bus = InProcess::new();
        let mut a = bus.subscribe(Topic::Agents, "a").await.unwrap();
        let mut b = bus.subscribe(Topic::Agents, "b").await.unwrap();
        for text in ["1", "2"] {
            bus.publish(Topic::Agents, record(text)).await.unwrap();
        }
        for group in [&mut a, &mut b] {
            assert_eq!(group.next().await, Some(record("1")));
            assert_eq!(group.next().await, Some(record("2")));
        }
    }

    #[tokio::test]
    async fn a_second_subscription_takes_over() {
        let bus = InProcess::new();
        let mut old = bus.subscribe(Topic::Agents, "a").await.unwrap();
        let mut new = bus.subscribe(Topic::Agents, "a").await.unwrap();
        bus.publish(Topic::Agents, record("1")).await.unwrap();
        assert_eq!(old.next().await, None);
        assert_eq!(new.next().await, Some(record("1")));
    }

    #[tokio::test]
    async fn a_publisher_waits_for_a_group_that_is_behind() {
        let bus = InProcess::new();
        let mut slow = bus.subscribe(Topic::Agents, "slow").await.unwrap();
        for _ in 0..super::QUEUED_MAX {
            bus.publish(Topic::Agents, record("x")).await.unwrap();
        }
        let mut blocked = std::pin::pin!(bus.publish(Topic::Agents, record("last")));
        tokio::select! {
            biased;
            _ = &mut blocked => panic!("the queue is unbounded"),
            () = tokio::task::yield_now() => {}
        }
        slow.next().await.unwrap();
        blocked.await.unwrap();
    }

    #[tokio::test]
    async fn a_group_that_has_gone_holds_nobody_up() {
        let bus = InProcess::new();
        drop(bus.subscribe(Topic::Agents, "gone").await.unwrap());
        for _ in 0..2 * super::QUEUED_MAX {
            bus.publish(Topic::Agents, record("x")).await.unwrap();
        }
    }
}
