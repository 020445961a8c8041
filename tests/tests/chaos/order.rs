//! Messages that come many times, in any order and at any partition.

use dagwright_tests::kafka::Kafka;

use crate::{begin, station::Station};

/// How often each message comes.
const TIMES: usize = 5;

#[test]
fn what_comes_often_and_in_any_order_is_done_once() {
    let mut turn = begin("messages in any order");
    let kafka = Kafka::start();
    let mut station = Station::start(&kafka, &mut turn.rng, "often", &["one", "two"]);
    let asked = station.load.ask(25);
    let many: Vec<_> = std::iter::repeat_n(&asked, TIMES).flatten().cloned().collect();
    station.produce(&many);
    station.until_open(0);
    // After their end, too.
    station.produce(&many);
    station.finish();
}
