//! The disk of a service's ledger is full: it says so and ends, and the next one goes on from there.

use std::{fs::File, process::Stdio};

use dagwright_tests::{Workspace, daemon::Daemon, disk::Disk, kafka::Kafka};
use serde_json::Value;

use crate::{Place, ROWS, assert_done_once, assert_loaded, is_outcome, request, spec, until_all_ended};

/// How much is left for the ledger, in KiB, from nothing to what a few steps of a request take.
const LEFT_KIB: [u64; 3] = [0, 64, 512];

/// A service whose ledger lies on a small disk.
struct Cramped {
    workspace: Workspace,
    disk: Disk,
    variables: Vec<(String, String)>,
    logs: usize,
}

impl Cramped {
    fn new(variables: Vec<(String, String)>) -> Self {
        let workspace = Workspace::new();
        workspace.write("in.csv", ROWS);
        let disk = Disk::mount(&workspace, "disk", "64m");
        let store = workspace.path("disk/store").display().to_string();
        let elsewhere = |name: &str| workspace.path(name).display().to_string();
        let own = [
            ("DAGWRIGHT__STORE__PATH", store),
            // So that it is the ledger that finds no room.
            ("DAGWRIGHT__STAGING__URI", elsewhere("staging")),
            ("DAGWRIGHT__QUARANTINE__URI", elsewhere("quarantine")),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        Self { workspace, disk, variables: variables.into_iter().chain(own).collect(), logs: 0 }
    }

    /// Starts a service, or returns the exit code of one that found no room to start.
    fn start(&mut self) -> Result<Daemon, Option<i32>> {
        self.logs += 1;
        let log = File::create(self.workspace.path(&format!("log-{}", self.logs))).expect("a file");
        let command = Daemon::command(&self.workspace, &crate::borrowed(&self.variables));
        let mut inside = self.disk.inside(&command);
        Daemon::launch(inside.stderr(Stdio::from(log)))
    }

    /// Returns what the last service logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.workspace.path(&format!("log-{}", self.logs))).expect("a log")
    }

    #[track_caller]
    fn assert_told(&self, exit: Option<i32>) {
        let log = self.log();
        assert_eq!(exit, Some(1), "{log}");
        assert!(log.contains("DW0703") && log.contains("No space left on device"), "{log}");
        assert!(log.lines().any(|line| line.trim_start().starts_with('→')), "no remedy: {log}");
    }
}

#[test]
fn a_ledger_without_room_ends_the_service_and_nothing_is_lost_or_doubled() {
    let mut cramped = Cramped::new(Vec::new());
    let mut ids = Vec::new();
    for (round, kib) in LEFT_KIB.into_iter().enumerate() {
        let mut daemon = cramped.start().expect("there is room");
        cramped.disk.leave(kib);
        // Until one of them finds no room: submitted, refused with a code, or cut off.
        let mut names = Vec::new();
        for number in 0.. {
            assert!(number < 100, "the disk is never full: {kib} KiB, {}", cramped.log());
            let name = format!("p{round}_{number}");
            let text = spec(&cramped.workspace, &name).to_string();
            let file = cramped.workspace.write(&format!("{name}.json"), text);
            let file = file.display().to_string();
            let ended = daemon.run(&cramped.workspace, &["submit", &file, "--id", &name, "--wait", "--json"]);
            names.push((name, file));
            if ended.code != Some(0) {
                assert!(ended.stdout.contains("DW0"), "{ended:?}");
                break;
            }
        }
        let exit = daemon.ended();
        cramped.assert_told(exit);
        drop(daemon);
        // Again without any room: it may not even start, and what it does start harms nothing.
        if round % 2 == 0 {
            cramped.disk.leave(0);
            let exit = cramped.start().map_or_else(
                |exit| exit,
                |mut daemon| {
                    // The last one has not come to its end, so there is something to write.
                    for (name, file) in &names {
                        let _ = daemon.run(&cramped.workspace, &["submit", file, "--id", name, "--wait"]);
                    }
                    daemon.ended()
                },
            );
            cramped.assert_told(exit);
        }
        cramped.disk.resize("64m");
        let daemon = cramped.start().unwrap_or_else(|exit| panic!("there is room again: {exit:?}, {}", cramped.log()));
        for (name, file) in names {
            let ended = daemon.run(&cramped.workspace, &["submit", &file, "--id", &name, "--wait", "--json"]);
            let said: Value = serde_json::from_str(&ended.expect(0).stdout).expect("JSON");
            ids.push((name, said["request"]["request_id"].as_str().expect("an id").to_owned()));
        }
    }
    let daemon = cramped.start().expect("there is room");
    let runs = daemon.get("/runs?limit=500");
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(ids.len()), "{runs}");
    for (name, id) in ids {
        assert_loaded(&cramped.workspace, &name);
        let events =
            dagwright_tests::http::Events::open(daemon.address, &format!("/api/v1/events?after=0&request={id}"), None);
        let mut kinds = Vec::new();
        for told in events {
            kinds.push(told.event);
            if kinds.last().is_some_and(|kind| is_outcome(kind)) {
                break;
            }
        }
        assert_done_once(&cramped.workspace, &[(name, kinds)].into());
    }
}

#[test]
fn a_cache_without_room_ends_the_service_and_the_ledger_on_kafka_has_everything() {
    let kafka = Kafka::shared();
    let place = Place { brokers: kafka.bootstrap(), prefix: "cramped" };
    let mut cramped = Cramped::new(place.variables());
    let mut client = kafka.client();
    let mut pipelines = std::collections::BTreeSet::new();
    for (round, kib) in [0, 256].into_iter().enumerate() {
        let mut daemon = cramped.start().expect("there is room");
        cramped.disk.leave(kib);
        for number in 0..20 {
            let name = format!("p{round}_{number}");
            client.produce(&place.topic("requests"), &[request(&cramped.workspace, &name, "1")]);
            pipelines.insert(name);
        }
        let exit = daemon.ended();
        cramped.assert_told(exit);
        cramped.disk.resize("64m");
    }
    let _daemon = cramped.start().expect("there is room again");
    let kinds = until_all_ended(&mut client, &place.topic("events"), &pipelines);
    assert_done_once(&cramped.workspace, &kinds);
    assert_eq!(kinds.len(), pipelines.len());
}
