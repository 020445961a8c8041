//! Three daemons that share the work: killed, with their disk too, and come and gone without end.

use std::time::Duration;

use dagwright_tests::kafka::Kafka;
use fastrand::Rng;

use crate::{begin, kills, moment, process::Process, station::Station, strikes};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// How many kills there are before everything is counted, and a new group begins: so a failure is found near its cause.
const KILLS_A_ROUND: usize = 25;

/// How many requests are open at a time: enough that everybody is at work, few enough to end soon.
const OPEN_MAX: usize = 40;

/// How long it is, at most, until the next strike.
const MOMENT: Duration = Duration::from_millis(2500);

#[test]
fn killed_daemons_lose_nothing_and_repeat_nothing() {
    let mut turn = begin("killed daemons");
    let kafka = Kafka::start();
    let (mut done, total) = (0, kills());
    while done < total {
        let kills = (total - done).min(KILLS_A_ROUND);
        kill_often(&kafka, &mut turn.rng, &format!("killed{done}"), kills);
        done += kills;
        eprintln!("{done} of {total} kills");
    }
}

fn kill_often(kafka: &Kafka, rng: &mut Rng, prefix: &str, kills: usize) {
    let mut station = Station::start(kafka, rng, prefix, &NAMES);
    let mut done = 0;
    while done < kills {
        station.until_open(OPEN_MAX);
        let count = rng.usize(3..10);
        station.submit(count);
        if rng.bool() {
            // In the middle of what it does, as far as can be seen from here.
            let events = rng.usize(1..20);
            station.listen(events, MOMENT);
        }
        moment(rng, MOMENT);
        // One, rarely two, and once in a while all of them.
        let victims = [1, 1, 1, 1, 1, 1, 1, 2, 2, 3][rng.usize(..10)];
        let mut up: Vec<_> = (0..NAMES.len()).filter(|index| station.daemons[*index].is_up()).collect();
        rng.shuffle(&mut up);
        for index in up.into_iter().take(victims) {
            let daemon = &mut station.daemons[index];
            daemon.kill();
            done += 1;
            if rng.u8(..3) == 0 {
                daemon.lose_disk();
            }
        }
        // Some stay away for a while, and the others take over; nobody does if all are away.
        for daemon in station.daemons.iter_mut().filter(|daemon| !daemon.is_up()) {
            if rng.u8(..3) != 0 {
                daemon.start();
            }
        }
        if station.daemons.iter().all(|daemon| !daemon.is_up()) {
            station.daemons[rng.usize(..NAMES.len())].start();
        }
    }
    station.finish();
}

#[test]
fn daemons_that_come_and_go_lose_nothing_and_repeat_nothing() {
    let mut turn = begin("daemons that come and go");
    let kafka = Kafka::start();
    let rng = &mut turn.rng;
    let mut station = Station::start(&kafka, rng, "storm", &["stays", "one", "two", "three"]);
    for _ in 0..4 * strikes() {
        station.until_open(OPEN_MAX);
        let count = rng.usize(2..6);
        station.submit(count);
        // The first one stays, so that somebody can act.
        let daemon = &mut station.daemons[rng.usize(1..4)];
        match (daemon.is_up(), rng.u8(..4)) {
            (false, _) => daemon.start(),
            (true, 0) => daemon.kill(),
            (true, 1) => stand_still(daemon, rng),
            (true, _) => {
                let _ = daemon.address();
                daemon.stop();
            }
        }
        // Shorter than a rebalance takes, often.
        moment(rng, Duration::from_secs(1));
    }
    station.finish();
}

/// Has a daemon stand still, often long enough for the group to take it for dead; then it goes on with what it had in hand.
fn stand_still(daemon: &Process, rng: &mut Rng) {
    daemon.signal("STOP");
    moment(rng, Duration::from_secs(8));
    daemon.signal("CONT");
}
