//! A warehouse in PostgreSQL: loaded once however often and however rudely a run is repeated.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use dagwright_tests::{Postgres, Workspace};

const APPEND: &str = "\
version: 1
pipeline: appended
source: { uri: tests/data/nycflights13/flights.csv }
sink: { connection: warehouse, table: public.flights, mode: append }
";

#[test]
fn rows_are_upserted_by_their_key_and_a_second_night_changes_nothing() {
    let server = Postgres::shared();
    let url = server.database("upserted");
    let workspace = Workspace::new();
    let run = || {
        let mut command = workspace.dagwright();
        command.args(["run", "examples/flights_postgres.yaml", "--json"]).env("DAGWRIGHT_CONN_WAREHOUSE", &url);
        let ended = dagwright_tests::Ended::from(command.output().expect("dagwright starts"));
        ended.expect(0);
    };
    run();
    let count = "select count(*) from public.flights";
    let first = server.query(&url, count);
    assert_ne!(first, "0");
    run();
    assert_eq!(server.query(&url, count), first);
}

/// Kills `dagwright run` when its log says that a task started, then runs the same command to its end.
#[test]
fn a_run_that_was_killed_is_continued_and_nothing_is_loaded_twice() {
    let server = Postgres::shared();
    let url = server.database("killed");
    let workspace = Workspace::new();
    workspace.write("spec.yaml", APPEND);
    let command = || {
        let mut command = workspace.dagwright();
        command.args(["run", "spec.yaml", "--verbose", "--json"]).env("DAGWRIGHT_CONN_WAREHOUSE", &url);
        command
    };
    let mut killed = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("dagwright starts");
    let log = BufReader::new(killed.stderr.take().expect("a log"));
    let started = log.lines().map_while(Result::ok).any(|line| line.contains("task started"));
    assert!(started, "no task started");
    killed.kill().expect("killed");
    killed.wait().expect("ended");

    let ended = dagwright_tests::Ended::from(command().output().expect("dagwright starts"));
    ended.expect(0);
    assert!(ended.stderr.contains("continuing an unfinished run"), "{ended:?}");
    assert_eq!(server.query(&url, "select count(*) from public.flights"), "27004");
    assert_eq!(server.query(&url, "select count(distinct _dagwright_run_id) from public.flights"), "1");
}
