//! A broker that dies under load: daemons stay, wait for it, and go on.

use std::time::Duration;

use dagwright_tests::kafka::Kafka;

use crate::{begin, moment, station::Station, strikes};

#[test]
fn a_broker_that_dies_delays_and_nothing_else() {
    let mut turn = begin("a broker that dies");
    let mut kafka = Kafka::start();
    let rng = &mut turn.rng;
    let mut station = Station::start(&kafka, rng, "broker", &["one", "two"]);
    for _ in 0..strikes() {
        let count = rng.usize(5..15);
        station.submit(count);
        if rng.bool() {
            let events = rng.usize(1..40);
            station.listen(events, Duration::from_secs(5));
        }
        moment(rng, Duration::from_secs(1));
        kafka.kill();
        // Sometimes it is away for longer than a session or a transaction lasts.
        moment(rng, Duration::from_secs(10));
        kafka.restart();
        // Everybody is still there, and goes on.
        let open = station.load.asked.len() / 2;
        station.until_open(open.min(10));
    }
    station.finish_with_repeats();
}
