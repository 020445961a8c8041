//! One daemon on its own store, killed while it is asked over HTTP: what it said that it took on is done, once.

use std::{net::SocketAddr, thread, time::Duration};

use dagwright_tests::{
    Workspace,
    http::{Events, attempt},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    begin, kills,
    load::{Asked, Load},
    moment,
    process::Process,
    told::Told,
};

/// How many kills there are before everything is waited for.
const KILLS_A_ROUND: usize = 5;

/// How long it lives, at most.
const MOMENT: Duration = Duration::from_millis(1500);

#[test]
fn a_killed_daemon_does_what_it_took_on_once() {
    let mut turn = begin("a killed daemon");
    let rng = &mut turn.rng;
    let workspace = Workspace::new();
    let mut load = Load::new(rng.fork(), &workspace, "alone");
    let mut variables = load.variables();
    variables.push(("DAGWRIGHT__NEGOTIATION__FACTS_AGE_MAX", "30s".into()));
    let mut daemon = Process::new(&workspace, "alone", &variables);
    let mut untaken: Vec<Asked> = Vec::new();
    for done in 1..=kills() {
        daemon.start();
        // Also before it listens.
        let (id, mut chance) = (i32::try_from(daemon.id()).expect("an id"), rng.fork());
        let killer = move |chance: &mut fastrand::Rng| {
            moment(chance, MOMENT);
            kill(Pid::from_raw(id), Signal::SIGKILL).expect("a process that nobody has waited for");
        };
        if rng.u8(..5) == 0 {
            killer(&mut chance);
        } else {
            let address = daemon.address();
            let killing = thread::spawn(move || killer(&mut chance));
            let count = rng.usize(2..8);
            untaken.extend(load.ask(count));
            untaken.extend(load.repeats(false));
            rng.shuffle(&mut untaken);
            untaken.retain(|asked| !submit(address, asked));
            killing.join().expect("killed");
        }
        daemon.buried();
        if done % KILLS_A_ROUND == 0 {
            untaken = settle(&mut daemon, &load, untaken);
            daemon.kill();
            eprintln!("{done} kills");
        }
    }
    untaken.extend(load.repeats(true));
    let left = settle(&mut daemon, &load, untaken);
    assert!(left.is_empty());
    hear(daemon.address(), &load).assert_once(&load);
    daemon.stop();
    load.assert_loaded();
    eprintln!("{} requests, each with one outcome and one effect", load.asked.len());
}

/// Starts it, submits what it has not taken yet, and waits for the end of everything.
fn settle(daemon: &mut Process, load: &Load, mut untaken: Vec<Asked>) -> Vec<Asked> {
    if !daemon.is_up() {
        daemon.start();
    }
    let address = daemon.address();
    untaken.retain(|asked| !submit(address, asked));
    assert!(untaken.is_empty(), "it runs, and does not take {untaken:?}");
    let told = hear(address, load);
    assert_eq!(told.ended(), load.asked.len());
    daemon.assert_well();
    untaken
}

/// Hears all that it ever told, until every request has ended.
fn hear(address: SocketAddr, load: &Load) -> Told {
    let mut told = Told::default();
    // Ends when nothing comes for long.
    for event in Events::open(address, "/api/v1/events", Some(0)) {
        told.hear(&event.data);
        if told.ended() == load.asked.len() {
            break;
        }
    }
    told
}

/// Asks for something; true when it says that it was taken on, or had been.
fn submit(address: SocketAddr, asked: &Asked) -> bool {
    let headers = [("content-type", "application/cloudevents+json")];
    match attempt(address, "POST", "/api/v1/requests", &headers, asked.event().to_string().as_bytes()) {
        Some(200 | 202) => true,
        // It ends, or its answer was cut off; whether it took the request on is not known.
        None => false,
        Some(status) => panic!("{status} for {asked:?}"),
    }
}
