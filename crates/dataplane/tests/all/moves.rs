//! Moves end to end: reading, steps, gates, casts, keys, cursors, repeats and failures.

use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use dagwright_model::{
    code::Code,
    spec::{GateRule, Incremental, Lag, LossyCast, OnFail, OrderBy, ParamType, QualityGate, SinkMode},
    task::{CursorCommit, IncrementalRead, Input, Output, SinkRef, Status, TaskEvent},
};

use crate::memory::{Bench, block_on, columns, name, people};

const PEOPLE: &str = "id:int64? who:string?";

fn gate(gate: &str, on: &str, rule: GateRule, on_fail: OnFail, max_rejected: &str) -> QualityGate {
    QualityGate { name: name(gate), on: name(on), rule, on_fail, max_rejected: max_rejected.parse().unwrap() }
}

fn three_people() -> Vec<Vec<arrow::array::RecordBatch>> {
    vec![vec![people(&[(Some(1), Some("ada")), (Some(2), None)])], vec![people(&[(Some(3), Some("cy"))])]]
}

fn ids(bench: &Bench, sink: &str) -> Vec<i64> {
    let batch = bench.loaded(sink);
    let mut ids: Vec<i64> = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
    ids.sort_unstable();
    ids
}

#[test]
fn a_source_goes_straight_to_a_sink() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.sink("out", "src", PEOPLE);
    let outcome = bench.done();
    assert_eq!(ids(&bench, "out"), [1, 2, 3]);
    let source = outcome.counts.sources["src"];
    assert_eq!((source.read, source.passed, source.quarantined), (3, 3, 0));
    let sink = outcome.counts.sinks["out"];
    assert_eq!((sink.produced, sink.loaded), (3, 3));
    assert!(bench.staged_files().is_empty(), "temporary files are gone");
}

#[test]
fn steps_build_on_each_other_with_binds() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.work().binds.insert("least".into(), ParamType::Integer);
    bench.work().binds.insert("region".into(), ParamType::String);
    bench.task.run.params.insert("least".into(), 2.into());
    bench.task.run.params.insert("region".into(), "eu'; DROP TABLE src".into());
    bench.step("some", "SELECT id, $region AS region FROM src WHERE id >= $least");
    bench.step("counted", "SELECT region, count(*) AS n FROM some GROUP BY region");
    bench.sink("out", "counted", "region:string? n:int64");
    let outcome = bench.done();
    let batch = bench.loaded("out");
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "eu'; DROP TABLE src");
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(outcome.counts.steps["some"], 2);
    assert_eq!(outcome.counts.steps["counted"], 1);
}

#[test]
fn a_relation_used_often_is_read_once() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.step("pairs", "SELECT a.id, b.who FROM src a JOIN src b ON a.id = b.id");
    bench.step(
        "walk",
        "WITH RECURSIVE w AS (SELECT 1 AS id UNION ALL SELECT w.id + 1 FROM w JOIN src USING (id)) SELECT id FROM w",
    );
    bench.sink("raw", "src", PEOPLE);
    bench.sink("paired", "pairs", PEOPLE);
    bench.sink("again", "pairs", PEOPLE);
    bench.sink("walked", "walk", "id:int64?");
    let outcome = bench.done();
    assert_eq!(bench.world.opened.lock().unwrap().len(), 1);
    assert_eq!(outcome.counts.sources["src"].read, 3);
    assert_eq!(outcome.counts.steps["pairs"], 3);
    for sink in ["raw", "paired", "again"] {
        assert_eq!(ids(&bench, sink), [1, 2, 3], "{sink}");
    }
    assert_eq!(ids(&bench, "walked"), [1, 2, 3, 4]);
}

#[test]
fn gates_judge_before_anything_is_visible() {
    let check = || GateRule::Check("length(who) < 3 OR id = 99".into());
    for (on_fail, max_rejected, wanted) in [
        (OnFail::Fail, "0%", Err(Code::GateFailed)),
        (OnFail::Quarantine, "10%", Err(Code::QuarantineFull)),
        (OnFail::Quarantine, "50%", Ok(vec![2, 3])),
        (OnFail::Warn, "0%", Ok(vec![1, 2, 3])),
    ] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, three_people());
        bench.step("all_of_it", "SELECT * FROM src");
        bench.gate(gate("short", "all_of_it", check(), on_fail, max_rejected));
        bench.sink("out", "all_of_it", PEOPLE);
        match wanted {
            Err(code) => {
                assert_eq!(bench.code(), code);
                assert!(!bench.is_committed());
                assert_eq!(*bench.world.aborted.lock().unwrap(), 1);
            }
            Ok(loaded) => {
                let outcome = bench.done();
                assert_eq!(ids(&bench, "out"), loaded);
                assert_eq!(outcome.counts.gates["short"], 1);
                let sink = outcome.counts.sinks["out"];
                assert_eq!(sink.produced, sink.loaded + sink.quarantined + sink.superseded);
                assert_eq!(sink.produced, outcome.counts.steps["all_of_it"]);
            }
        }
        let warned = bench.world.events.lock().unwrap().iter().any(|event| matches!(event, TaskEvent::Warning(_)));
        assert_eq!(warned, on_fail == OnFail::Warn);
        assert_eq!(bench.quarantined().len(), usize::from(on_fail == OnFail::Quarantine));
    }
}

#[test]
fn gates_see_rows_that_nobody_asks_for() {
    for on in ["src", "middle"] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, three_people());
        bench.step("middle", "SELECT * FROM src");
        bench.step("first", "SELECT id FROM middle LIMIT 1");
        bench.gate(gate("named", on, GateRule::NotNull(vec!["who".into()]), OnFail::Warn, "0%"));
        bench.gate(gate("single", on, GateRule::Unique(vec!["id".into()]), OnFail::Fail, "0%"));
        bench.sink("out", "first", "id:int64?");
        let outcome = bench.done();
        assert_eq!(outcome.counts.gates["named"], 1, "on {on}");
        assert_eq!(outcome.counts.sources["src"].read, 3, "on {on}");
    }
}

#[test]
fn unique_counts_repeats_and_passes_over_nulls() {
    let rows = [(Some(1), Some("a")), (Some(1), Some("b")), (None, Some("c")), (None, Some("d")), (Some(1), Some("a"))];
    for (key, repeats) in [(vec!["id"], 2), (vec!["id", "who"], 1), (vec!["who"], 1)] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, vec![vec![people(&rows)]]);
        let rule = GateRule::Unique(key.iter().map(ToString::to_string).collect());
        bench.gate(gate("single", "src", rule, OnFail::Warn, "0%"));
        bench.sink("out", "src", PEOPLE);
        assert_eq!(bench.done().counts.gates["single"], repeats, "{key:?}");
    }
}

#[test]
fn gates_of_a_source_count_there() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.gate(gate("named", "src", GateRule::NotNull(vec!["who".into()]), OnFail::Quarantine, "50%"));
    bench.sink("out", "src", PEOPLE);
    let outcome = bench.done();
    let source = outcome.counts.sources["src"];
    assert_eq!((source.read, source.passed, source.quarantined), (3, 2, 1));
    let sink = outcome.counts.sinks["out"];
    assert_eq!((sink.produced, sink.loaded, sink.quarantined), (2, 2, 0));
    assert_eq!(bench.quarantined(), [("src".into(), "gate named".into(), r#"{"id":2,"who":null}"#.into())]);
}

#[test]
fn classified_values_stay_out_of_the_quarantine() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people()).classified = vec!["who".into()];
    bench.step("shout", "SELECT id, upper(who) AS loud, id + 1 AS next FROM src");
    bench.gate(gate("never", "shout", GateRule::Check("id > 100".into()), OnFail::Quarantine, "100%"));
    bench.sink("out", "shout", "id:int64? loud:string?").min_rows = 0;
    bench.done();
    let quarantined = bench.quarantined();
    assert_eq!(quarantined.len(), 3);
    let text = format!("{quarantined:?} {:?}", bench.world.events.lock().unwrap()).to_lowercase();
    assert!(!text.contains("ada") && text.contains(r#"\"next\":2"#), "{text}");
}

#[test]
fn values_that_do_not_fit_follow_the_policy() {
    let rows = [(Some(1), Some("7")), (Some(2), Some("secret")), (Some(40_000), None)];
    for (lossy, wanted) in [
        (LossyCast::Reject, Err(Code::CastFailed)),
        (LossyCast::Null, Ok((3, 2, 0))),
        (LossyCast::Quarantine, Ok((1, 0, 2))),
    ] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, vec![vec![people(&rows)]]);
        bench.work().max_rejected = "100%".parse().unwrap();
        bench.sink("out", "src", "who:int32? id:int16?").lossy = lossy;
        match wanted {
            Err(code) => {
                let outcome = block_on(bench.run());
                let problem = outcome.problem.unwrap();
                assert_eq!(problem.code, code);
                assert!(!format!("{problem:?}").contains("secret"));
            }
            Ok((loaded, nulled, quarantined)) => {
                let sink = bench.done().counts.sinks["out"];
                assert_eq!((sink.loaded, sink.nulled, sink.quarantined), (loaded, nulled, quarantined));
                assert_eq!(sink.produced, 3);
                assert_eq!(bench.quarantined().len() as u64, quarantined);
            }
        }
    }
}

#[test]
fn too_many_misfits_fail() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.sink("out", "src", "who:int32?").lossy = LossyCast::Quarantine;
    assert_eq!(bench.code(), Code::QuarantineFull);
    assert!(!bench.is_committed());
}

#[test]
fn a_null_where_none_is_allowed_does_not_fit() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.work().max_rejected = "50%".parse().unwrap();
    bench.sink("out", "src", "id:int64 who:string").lossy = LossyCast::Quarantine;
    let sink = bench.done().counts.sinks["out"];
    assert_eq!((sink.loaded, sink.quarantined), (2, 1));
}

#[test]
fn upserts_get_one_row_a_key() {
    let rows =
        [(Some(1), Some("old")), (Some(1), Some("zoo")), (Some(2), None), (Some(2), Some("new")), (None, Some("x"))];
    for descending in [true, false] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, vec![vec![people(&rows[..2])], vec![people(&rows[2..])]]);
        let sink = bench.sink("out", "src", PEOPLE);
        sink.mode = SinkMode::Upsert;
        sink.key = vec!["id".into()];
        sink.dedupe = vec![OrderBy { column: "who".into(), descending }];
        let counts = bench.done().counts.sinks["out"];
        assert_eq!((counts.produced, counts.loaded, counts.superseded), (5, 3, 2));
        let batch = bench.loaded("out");
        let who = batch.column(1).as_string::<i32>();
        let winners: Vec<&str> = (0..who.len()).map(|row| if who.is_null(row) { "" } else { who.value(row) }).collect();
        assert!(winners.contains(&if descending { "zoo" } else { "old" }), "{winners:?}");
        assert!(winners.contains(&"new"), "NULLs come last: {winners:?}");
    }
}

#[test]
fn duplicates_without_an_order_are_refused() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, vec![vec![people(&[(Some(1), Some("a")), (Some(1), Some("b"))])]]);
    let sink = bench.sink("out", "src", PEOPLE);
    sink.mode = SinkMode::Upsert;
    sink.key = vec!["id".into()];
    assert_eq!(bench.code(), Code::SinkDuplicateKey);
    assert!(!bench.is_committed());
}

#[test]
fn too_few_rows_fail_before_anything_is_visible() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.step("none", "SELECT * FROM src WHERE id > 10");
    bench.sink("out", "none", PEOPLE);
    assert_eq!(bench.code(), Code::SinkTooFewRows);
    assert!(!bench.is_committed());
}

#[test]
fn a_repeat_has_no_second_effect() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.sink("out", "src", PEOPLE);
    let first = bench.done();
    let second = bench.done();
    assert!(!first.repeated && second.repeated);
    assert_eq!(first.counts.sinks, second.counts.sinks);
    assert_eq!(bench.world.opened.lock().unwrap().len(), 1);
    // A sink that the first try did not reach still gets its rows.
    bench.sink("late", "src", PEOPLE);
    let third = bench.done();
    assert!(!third.repeated);
    assert_eq!(third.counts.sinks["late"].loaded, 3);
    assert_eq!(third.counts.sinks["out"], first.counts.sinks["out"]);
}

#[test]
fn cursors_are_committed_with_the_rows() {
    let mut bench = Bench::new();
    let incremental = |lag| IncrementalRead {
        incremental: Incremental { cursor: "id".into(), initial_value: Some("0".into()), lag },
        data_type: "int64".parse().unwrap(),
        committed_in: ["out", "other"]
            .map(|sink| SinkRef { name: name(sink), locator: dagwright_model::spec::Locator::Uri(sink.into()) })
            .to_vec(),
    };
    bench.source("src", PEOPLE, three_people()).incremental = Some(incremental(Some(Lag::Number(1))));
    bench.step("first", "SELECT * FROM src LIMIT 1");
    for sink in ["out", "other"] {
        let commit = CursorCommit { source: name("src"), column: "id".into(), data_type: "int64".parse().unwrap() };
        let sink = bench.sink(sink, "first", PEOPLE);
        (sink.cursors, sink.min_rows) = (vec![commit], 0);
    }
    let outcome = bench.done();
    assert_eq!(outcome.cursors, [(name("src"), "3".to_owned())].into());
    let cursor = |bench: &Bench, sink: &str| bench.world.cursors.lock().unwrap()[&(name(sink), name("src"))].clone();
    assert_eq!((cursor(&bench, "out"), cursor(&bench, "other")), ("3".into(), "3".into()));
    // The next run continues for each after its own, less the lag, and never moves a cursor back.
    bench.world.cursors.lock().unwrap().insert((name("out"), name("src")), "9".into());
    bench.task.run.effect = "request-2".into();
    bench.done();
    assert_eq!(cursor(&bench, "out"), "9");
    // A backfill neither follows cursors nor moves them.
    bench.task.run.effect = "request-3".into();
    bench.task.run.backfill = true;
    bench.world.cursors.lock().unwrap().insert((name("other"), name("src")), "1".into());
    bench.done();
    assert_eq!(cursor(&bench, "other"), "1");
    let opened: Vec<_> = bench.world.opened.lock().unwrap().iter().map(|(_, after)| after.clone()).collect();
    assert_eq!(opened, [Some("0".into()), Some("8".into()), Some("2".into()), None]);
}

#[test]
fn a_sink_gets_only_what_lies_beyond_its_own_cursor() {
    let mut bench = Bench::new();
    let sinks = ["ahead", "behind", "new", "also_ahead"];
    bench.source("src", PEOPLE, three_people()).incremental = Some(IncrementalRead {
        incremental: Incremental { cursor: "id".into(), initial_value: None, lag: None },
        data_type: "int64".parse().unwrap(),
        committed_in: sinks
            .map(|sink| SinkRef { name: name(sink), locator: dagwright_model::spec::Locator::Uri(sink.into()) })
            .to_vec(),
    });
    bench.step("counted", "SELECT count(*) AS id, max(who) AS who FROM src");
    bench.gate(gate("not_two", "src", GateRule::Check("id <> 2".into()), OnFail::Quarantine, "100%"));
    bench.gate(gate("some", "counted", GateRule::Check("id > 0".into()), OnFail::Fail, "0%"));
    for (sink, from) in sinks.into_iter().zip(["src", "counted", "src", "src"]) {
        let commit = CursorCommit { source: name("src"), column: "id".into(), data_type: "int64".parse().unwrap() };
        bench.sink(sink, from, PEOPLE).cursors = vec![commit];
    }
    for (sink, cursor) in [("ahead", "2"), ("behind", "1"), ("also_ahead", "2")] {
        bench.world.cursors.lock().unwrap().insert((name(sink), name("src")), cursor.into());
    }
    let outcome = bench.done();
    assert_eq!(ids(&bench, "ahead"), [3]);
    assert_eq!(ids(&bench, "also_ahead"), [3]);
    assert_eq!(ids(&bench, "new"), [1, 3]);
    assert_eq!(ids(&bench, "behind"), [1], "one of the two rows after 1 was quarantined");
    // Who continues at the same place shares a reading, and every reading is counted and judged.
    let opened: Vec<_> = bench.world.opened.lock().unwrap().iter().map(|(_, after)| after.clone()).collect();
    assert_eq!(opened, [Some("2".into()), Some("1".into()), None]);
    let source = outcome.counts.sources["src"];
    assert_eq!((source.read, source.passed, source.quarantined), (6, 4, 2));
    assert_eq!(outcome.counts.gates, [("not_two", 2), ("some", 0)].map(|(g, n)| (name(g), n)).into());
    assert_eq!(outcome.cursors, [(name("src"), "3".to_owned())].into());
    for sink in sinks {
        assert_eq!(bench.world.cursors.lock().unwrap()[&(name(sink), name("src"))], "3", "{sink}");
    }
    // A verdict over one reading keeps back what the others wrote.
    bench.task.run.effect = "request-2".into();
    bench.world.cursors.lock().unwrap().insert((name("ahead"), name("src")), "1".into());
    bench.world.committed.lock().unwrap().clear();
    assert_eq!(bench.code(), Code::GateFailed);
    assert!(!bench.is_committed());
}

#[test]
fn staged_relations_carry_cursors_and_classes_to_the_load() {
    let mut bench = Bench::new();
    let read = bench.source("src", PEOPLE, three_people());
    read.classified = vec!["who".into()];
    read.incremental = Some(IncrementalRead {
        incremental: Incremental { cursor: "id".into(), initial_value: None, lag: None },
        data_type: "int64".parse().unwrap(),
        committed_in: Vec::new(),
    });
    bench.work().outputs.push(Output::Staged { relation: name("src") });
    bench.task.task.id.0 = "extract".into();
    bench.done();
    assert_eq!(bench.staged_files(), ["test/request-1/src/0.parquet".to_owned()].into());

    let mut load = Bench::new();
    load.task.run.staging = bench.task.run.staging.clone();
    load.work().inputs.insert(name("src"), Input::Staged { columns: columns(PEOPLE) });
    load.gate(gate("none", "src", GateRule::Check("id <> 1".into()), OnFail::Quarantine, "50%"));
    let commit = CursorCommit { source: name("src"), column: "id".into(), data_type: "int64".parse().unwrap() };
    load.sink("out", "src", PEOPLE).cursors = vec![commit];
    let outcome = load.done();
    assert_eq!(load.world.cursors.lock().unwrap()[&(name("out"), name("src"))], "3");
    assert_eq!(load.quarantined(), [("src".into(), "gate none".into(), r#"{"id":1}"#.into())]);
    let sink = outcome.counts.sinks["out"];
    assert_eq!((sink.produced, sink.loaded, sink.quarantined), (3, 2, 1));

    bench.task.task.work = dagwright_model::task::Work::Cleanup;
    bench.done();
    assert!(bench.staged_files().is_empty());
    bench.done();
}

#[test]
fn a_missing_staged_relation_is_named() {
    let mut bench = Bench::new();
    bench.work().inputs.insert(name("src"), Input::Staged { columns: columns(PEOPLE) });
    bench.sink("out", "src", PEOPLE);
    assert_eq!(bench.code(), Code::StagingUnavailable);
}

#[test]
fn a_cancelled_task_leaves_nothing() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.sink("out", "src", PEOPLE);
    bench.cancel.cancel();
    let outcome = block_on(bench.run());
    assert_eq!(outcome.status, Status::Cancelled);
    assert_eq!(outcome.problem.unwrap().code, Code::Cancelled);
    assert!(!bench.is_committed());
    assert!(bench.staged_files().is_empty());
}

#[test]
fn temporary_files_of_a_killed_try_are_removed() {
    let mut bench = Bench::new();
    let left = bench.folder.path().join("staging/.tmp/test/request-1/load/datafusion-x/spill");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "left").unwrap();
    bench.source("src", PEOPLE, three_people());
    bench.sink("out", "src", PEOPLE);
    bench.done();
    assert!(bench.staged_files().is_empty());
}

#[test]
fn failures_of_sql_name_the_step_and_no_value() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, vec![vec![people(&[(Some(1), Some("secret"))])]]);
    bench.step("numbers", "SELECT CAST(who AS INT) AS n FROM src");
    bench.step("after", "SELECT n FROM numbers");
    bench.sink("out", "after", "n:int32?");
    let outcome = block_on(bench.run());
    let problem = outcome.problem.unwrap();
    assert_eq!((problem.code, problem.subject.as_str()), (Code::SqlFailed, "numbers"));
    assert!(!format!("{problem:?}").contains("secret"), "{problem:?}");
}

#[test]
fn only_one_select_is_a_step() {
    for sql in [
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1; SELECT 2",
        "INSERT INTO src VALUES (1, 'x')",
        "SELECT * INTO other FROM src",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd.csv\"",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.tables",
        "SELECT $nothing AS id FROM src",
        "SELECT a.id, b.id FROM src a, src b",
        "DROP TABLE src",
        "",
    ] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, three_people());
        bench.step("bad", sql);
        bench.sink("out", "bad", "id:int64?");
        assert_eq!(bench.code(), Code::SqlInvalid, "{sql}");
    }
    let deep = format!("SELECT {}1{} AS id FROM src", "(".repeat(10_000), ")".repeat(10_000));
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.step("deep", &deep);
    bench.sink("out", "deep", "id:int64?");
    assert_eq!(bench.code(), Code::SqlInvalid);
}

#[test]
fn a_check_is_one_expression() {
    for check in [
        "1 = 1) AS a, (2 = 2",
        "true) FROM src UNION SELECT (true",
        "id IN (SELECT id FROM src)",
        "count(*) > 1",
        "id",
        "nothing > 1",
    ] {
        let mut bench = Bench::new();
        bench.source("src", PEOPLE, three_people());
        bench.gate(gate("bad", "src", GateRule::Check(check.into()), OnFail::Fail, "0%"));
        bench.sink("out", "src", PEOPLE);
        assert_eq!(bench.code(), Code::SqlInvalid, "{check}");
    }
}

#[test]
fn what_an_earlier_run_of_the_request_left_is_not_staged_again() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.work().outputs.push(Output::Staged { relation: name("src") });
    bench.task.task.id.0 = "extract".into();
    let first = bench.done();
    assert!(!first.repeated);
    // Of another plan, of which this task is the same.
    bench.task.run.plan_hash.0 = "1".repeat(64);
    let again = bench.done();
    assert!(again.repeated);
    assert_eq!(again.counts, first.counts);

    // A retry does its work, and so does what was cleared.
    bench.task.run.attempt = 2;
    assert!(!bench.done().repeated);
    (bench.task.run.attempt, bench.task.run.generation) = (1, 1);
    assert!(!bench.done().repeated);
    assert!(bench.done().repeated, "now it is of this generation");
    // So does other work.
    bench.gate(gate("named", "src", GateRule::NotNull(vec!["who".into()]), OnFail::Quarantine, "50%"));
    let other = bench.done();
    assert!(!other.repeated);
    assert_eq!(other.counts.sources["src"].quarantined, 1);
}

#[test]
fn what_was_computed_of_something_else_is_computed_again() {
    let mut extract = Bench::new();
    extract.source("src", PEOPLE, three_people());
    extract.work().outputs.push(Output::Staged { relation: name("src") });
    extract.task.task.id.0 = "extract".into();
    extract.done();
    let mut transform = Bench::new();
    transform.task.run.staging = extract.task.run.staging.clone();
    transform.task.task.id.0 = "transform".into();
    transform.work().inputs.insert(name("src"), Input::Staged { columns: columns(PEOPLE) });
    transform.step("doubled", "SELECT id * 2 AS id, who FROM src");
    transform.work().outputs.push(Output::Staged { relation: name("doubled") });
    assert!(!transform.done().repeated);
    assert!(transform.done().repeated);
    // The same columns, made by other work.
    extract.work().gates.push(gate("named", "src", GateRule::NotNull(vec!["who".into()]), OnFail::Quarantine, "50%"));
    assert!(!extract.done().repeated);
    assert!(!transform.done().repeated);
    assert!(transform.done().repeated);
}

#[test]
fn a_clean_up_leaves_what_another_plan_may_go_on_from() {
    let mut bench = Bench::new();
    bench.source("src", PEOPLE, three_people());
    bench.work().outputs.push(Output::Staged { relation: name("src") });
    bench.done();
    let extract = bench.task.clone();
    let cleaned = |bench: &mut Bench, keeps: bool, plan: &str| {
        bench.task.task.work = dagwright_model::task::Work::Cleanup;
        (bench.task.run.keep_staged, bench.task.run.plan_hash.0) = (keeps, plan.repeat(64));
        bench.done();
        bench.staged_files().iter().any(|file| file.ends_with("src/0.parquet"))
    };
    let set_back = |bench: &Bench| {
        block_on(dagwright_dataplane::staging::set_back("test", &bench.task.run)).expect("a note");
    };
    set_back(&bench);
    assert!(cleaned(&mut bench, true, "0"), "this run failed over a schema");
    assert!(!cleaned(&mut bench, true, "1"), "that of the next plan did not");
    assert!(bench.staged_files().is_empty());

    bench.task = extract;
    bench.done();
    set_back(&bench);
    assert!(!cleaned(&mut bench, false, "0"), "no other plan follows");
}
