//! What somebody left open in a topic holds up nobody who writes beside it.

use dagwright_bus::kafka::{Producer, Topics};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};

use crate::harness::{Broker, PATIENCE, Station, assert_once, settings, submit, until};

/// Where something is left open.
const PARTITION: i32 = 0;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_in_the_ledger_holds_up_no_other_partition() {
    let broker = Broker::shared();
    let settings = settings(&broker.address, "open", "a");
    let topics = Topics::ensure(&settings).await.unwrap();
    // It stays open longer than anything is waited for.
    let foreign: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("transactional.id", "open-foreign")
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    foreign.init_transactions(PATIENCE).unwrap();
    foreign.begin_transaction().unwrap();
    foreign.send(BaseRecord::to(&topics.ledger).partition(PARTITION).key("k").payload("v")).unwrap();
    foreign.flush(PATIENCE).unwrap();

    // An instance that starts ends what it finds open, and cannot end this.
    let station = Station::start(&settings).await;
    let producer = Producer::new(&settings, topics.clone()).await.unwrap();
    let submitted = submit(&producer, "p", 100).await;
    let is_elsewhere = |value: &&String| topics.home(value.split('/').next().unwrap()) != PARTITION;
    let elsewhere = submitted.iter().filter(is_elsewhere).count();
    assert!((1..submitted.len()).contains(&elsewhere));
    until("what is written beside it is in the cache", || station.cache.len() == elsewhere);
    // It may hold what a former owner committed, so nobody acts for that partition meanwhile.
    let home = (topics.requests.as_str().into(), PARTITION);
    assert!(!station.instance.owned().borrow().contains_key(&home));
    foreign.abort_transaction(PATIENCE).unwrap();
    until("every record is in the cache", || station.cache.len() == submitted.len());
    assert_once(&broker.address, &topics, &submitted);
    station.close().await;
}
