//! Instances come, go, stand still and die, and every request is acted on once.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
};

use dagwright_bus::kafka::{Producer, Topics};

use crate::harness::{
    Broker, PARTITIONS, Station, assert_once, instance, owns, settings, size, submit, until, values, work,
};

/// An instance in a process of its own.
struct Process {
    child: Child,
    prefix: &'static str,
    name: String,
}

// === impl Process ===

impl Process {
    fn start(broker: &Broker, prefix: &'static str, name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "failover::process", "--nocapture"]);
        command.env("DAGWRIGHT_TEST_BROKER", &broker.address).env("DAGWRIGHT_TEST_PREFIX", prefix);
        command.env("DAGWRIGHT_TEST_INSTANCE", name).stdin(Stdio::piped()).stdout(Stdio::null());
        Self { child: command.spawn().expect("a process"), prefix, name: name.into() }
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill");
        assert!(done.success(), "kill {signal}");
    }

    fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("an end");
    }

    fn start_again(&mut self, broker: &Broker) {
        *self = Self::start(broker, self.prefix, &self.name);
    }

    /// Has it hand over and end.
    fn close(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("an end").success(), "{} failed", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What [`Process`] runs: an instance, until standard input ends. It is no test where nobody beside it started it.
#[tokio::test(flavor = "multi_thread")]
async fn process() {
    let Ok(address) = std::env::var("DAGWRIGHT_TEST_BROKER") else { return };
    let variable = |name: &str| std::env::var(name).expect("set by the tests beside it");
    let settings = settings(&address, &variable("DAGWRIGHT_TEST_PREFIX"), &variable("DAGWRIGHT_TEST_INSTANCE"));
    let station = Station::start(&settings).await;
    let mut failure = station.instance.failure();
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        _ = ended => station.close().await,
        failed = failure.wait_for(Option::is_some) => panic!("{:?}", failed.unwrap()),
    }
}

/// Submits requests while something happens once a few of them are done, and waits for all of them.
async fn under_load(
    address: &str,
    topics: &Topics,
    producer: &Producer,
    name: &str,
    happens: impl FnOnce(),
) -> Vec<String> {
    let before = size(address, &topics.ledger);
    let (producer, name) = (producer.clone(), name.to_owned());
    let submitting = tokio::spawn(async move { submit(&producer, &name, 600).await });
    until("some are done", || size(address, &topics.ledger) > before + 20);
    happens();
    submitting.await.expect("no panic")
}

#[track_caller]
fn until_all(address: &str, topics: &Topics, submitted: &[String]) {
    until("every request is done", || values(address, &topics.ledger).len() >= submitted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_repeat_nothing_and_lose_nothing() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "killed", "parent");
    let topics = Topics::ensure(&settings).await.unwrap();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let mut process = Process::start(broker, "killed", "a");
    let mut submitted = Vec::new();
    for round in 0..4 {
        let name = format!("round{round}");
        let kill = || {
            process.kill();
            process.start_again(broker);
        };
        submitted.extend(under_load(&broker.address, &topics, &producer, &name, kill).await);
    }
    until_all(&broker.address, &topics, &submitted);
    process.close();
    assert_once(&broker.address, &topics, &submitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_share_the_work_while_one_is_dead_or_stands_still() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "three", "parent");
    let topics = Topics::ensure(&settings).await.unwrap();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let mut processes = ["a", "b", "c"].map(|name| Process::start(broker, "three", name));
    let mut submitted = Vec::new();
    for round in 0..4 {
        let victim = &mut processes[round % 3];
        let stands_still = round % 2 == 0;
        let strike = || if stands_still { victim.signal("-STOP") } else { victim.kill() };
        submitted.extend(under_load(&broker.address, &topics, &producer, &format!("round{round}"), strike).await);
        // All of it, so the others took over; then the zombie goes on with what it had in hand.
        until_all(&broker.address, &topics, &submitted);
        if stands_still { victim.signal("-CONT") } else { victim.start_again(broker) }
    }
    submitted.extend(under_load(&broker.address, &topics, &producer, "last", || ()).await);
    until_all(&broker.address, &topics, &submitted);
    processes.into_iter().for_each(Process::close);
    assert_once(&broker.address, &topics, &submitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_one_by_one_under_load() {
    let broker = Broker::shared();
    let of = |name: &str| settings(&broker.address, "moves", name);
    let a = Station::start(&of("a")).await;
    let topics = a.instance.topics().clone();
    let producer = Producer::new(&of("a"), topics.clone()).await.unwrap();
    owns(&a.instance, PARTITIONS.into()).await;
    let kept = a.instance.owned().borrow().values().cloned().collect::<Vec<_>>();
    let load = {
        let producer = producer.clone();
        tokio::spawn(async move { submit(&producer, "load", 3000).await })
    };
    let b = Station::start(&of("b")).await;
    owns(&b.instance, 2).await;
    let c = Station::start(&of("c")).await;
    owns(&c.instance, 1).await;
    let submitted = load.await.unwrap();
    until_all(&broker.address, &topics, &submitted);
    assert!(kept.iter().any(|ownership| ownership.is_current()), "what stays need not be acquired again");
    let mut owners = BTreeMap::<i32, usize>::new();
    for station in [&a, &b, &c] {
        for (_, partition) in station.instance.owned().borrow().keys() {
            *owners.entry(*partition).or_default() += 1;
        }
    }
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    c.close().await;
    b.close().await;
    owns(&a.instance, PARTITIONS.into()).await;
    a.close().await;
    assert_once(&broker.address, &topics, &submitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_behind_is_paused_and_stays_in_the_group() {
    let broker = Broker::shared();
    let of = |name: &str| settings(&broker.address, "pressure", name);
    let (slow, requests, cache, stats) = instance(&of("slow")).await;
    let topics = slow.topics().clone();
    let producer = Producer::new(&of("slow"), topics.clone()).await.unwrap();
    let submitted = submit(&producer, "p", 4000).await;
    until("it is paused", || stats.paused.get());
    let received = stats.consumed.get();
    assert!((1024..1500).contains(&received), "{received}");
    // It hands over half of its partitions, so it polls.
    let helper = Station::start(&of("helper")).await;
    owns(&helper.instance, 2).await;
    owns(&slow, 2).await;
    let worker = tokio::spawn(work(requests, slow.committer(), topics.clone()));
    until("every record is in the cache", || cache.len() == submitted.len());
    assert!(!stats.paused.get());
    assert_once(&broker.address, &topics, &submitted);
    helper.close().await;
    slow.close().await;
    worker.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_delays_and_nothing_else() {
    let mut broker = Broker::start();
    let address = broker.address.clone();
    let settings = settings(&address, "restart", "a");
    let station = Station::start(&settings).await;
    let topics = station.instance.topics().clone();
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let mut submitted = Vec::new();
    for round in 0..2 {
        let kill = || {
            broker.kill();
            broker.restart();
        };
        submitted.extend(under_load(&address, &topics, &producer, &format!("round{round}"), kill).await);
    }
    until_all(&address, &topics, &submitted);
    assert!(station.instance.failure().borrow().is_none());
    assert_once(&address, &topics, &submitted);
    station.close().await;
}
