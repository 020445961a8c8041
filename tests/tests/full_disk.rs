//! Full disks, for real: each ends in a coded error that says what to do, with nothing half-written, and the same
//! command succeeds once there is space.

use std::{collections::BTreeSet, fmt::Write as _};

use dagwright_tests::{Ended, Workspace, disk::Disk};

/// How many rows the tests load.
const ROWS: usize = 50_000;

/// A workspace with rows of random-looking text, which compresses badly, and a spec over them.
fn workspace(spec: &str) -> Workspace {
    let workspace = Workspace::new();
    let mut rows = "id,word\n".to_owned();
    let mut word = 1_u64;
    for id in 0..ROWS {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        writeln!(rows, "{id},{:016x}", word ^ (word >> 29)).expect("a string grows");
    }
    workspace.write("in.csv", rows);
    let head = "version: 1\npipeline: filled\nretries: { max: 0 }\nsource: { uri: in.csv }\n";
    workspace.write("spec.yaml", format!("{head}{spec}"));
    workspace
}

/// Runs the spec where the disk is seen, with settings in the environment.
fn run(workspace: &Workspace, disk: &Disk, settings: &[(&str, &str)]) -> Ended {
    let mut command = workspace.dagwright();
    command.args(["run", "spec.yaml"]).envs(settings.iter().copied());
    disk.inside(&command).output().expect("nsenter starts").into()
}

/// Expects that `spec` fails with a code while the disk at `disk` has `size`, leaves nothing on it or in `out`, and
/// succeeds once the disk is large. Returns how it failed.
#[track_caller]
fn check(spec: &str, size: &str, settings: &[(&str, &str)], exit: i32, code: &str) -> Ended {
    let workspace = workspace(spec);
    let disk = Disk::mount(&workspace, "disk", size);
    let failed = run(&workspace, &disk, settings);
    failed.expect_problem(exit, code);
    assert_eq!(disk.files(), [""; 0], "left on the disk");
    assert_eq!(workspace.list("out"), [""; 0], "left beside it");
    disk.resize("256m");
    run(&workspace, &disk, settings).expect(0);
    failed
}

#[test]
fn a_file_sink_whose_disk_is_full_leaves_nothing() {
    check("sink: { uri: disk/all.parquet, mode: replace }\n", "200k", &[], 1, "DW0405");
    check("sink: { uri: disk/all.csv, mode: replace }\n", "200k", &[], 1, "DW0405");
    check("sink: { uri: disk/parts/, format: ndjson, mode: append }\n", "200k", &[], 1, "DW0405");
}

#[test]
fn a_replaced_file_stays_when_the_disk_has_no_room_for_the_new_one() {
    let workspace = workspace("sink: { uri: disk/all.csv, mode: replace }\n");
    let disk = Disk::mount(&workspace, "disk", "1200k");
    let rows = std::fs::read_to_string(workspace.path("in.csv")).expect("the rows");
    let few: String = rows.split_inclusive('\n').take(5_000).collect();
    workspace.write("in.csv", &few);
    run(&workspace, &disk, &[]).expect(0);
    let before = disk.files();
    workspace.write("in.csv", rows);
    run(&workspace, &disk, &[]).expect_problem(1, "DW0405");
    assert_eq!(disk.files(), before);
    assert_eq!(disk.read("all.csv").lines().count(), 5_000);
}

#[test]
fn a_disk_that_is_full_beforehand_is_a_conflict() {
    let workspace = workspace("sink: { uri: disk/all.parquet, mode: replace }\n");
    let disk = Disk::mount(&workspace, "disk", "64k");
    run(&workspace, &disk, &[]).expect_problem(4, "DW0201");
    assert_eq!(disk.files(), [""; 0]);
}

#[test]
fn a_staging_area_whose_disk_is_full_shows_nothing_in_the_sinks() {
    // Many sinks of one source, and little memory: the source is staged.
    let sinks: String = ["a", "b", "c", "d", "e", "f"]
        .map(|sink| format!("  {sink}: {{ from: source, uri: out/{sink}.csv, mode: replace }}\n"))
        .concat();
    let spec = format!("sinks:\n{sinks}goals: {{ optimize: memory }}\n");
    let failed = check(&spec, "200k", &[("DAGWRIGHT__STAGING__URI", "disk/staging")], 3, "DW0606");
    assert!(failed.stderr.contains("no space left"), "{}", failed.stderr);
}

#[test]
fn a_disk_that_is_full_of_spilled_rows_ends_the_task() {
    let spec = "transform:\n  - name: pairs\n    sql: >\n      SELECT a.id AS left_id, b.id AS right_id, a.word || b.word AS words\n      \
                FROM source a JOIN source b ON a.id / 40 = b.id / 40 ORDER BY words\n\
                sink: { uri: out/pairs.parquet, mode: replace }\ngoals: { memory_max: 128MiB }\n";
    check(spec, "4m", &[("DAGWRIGHT__STAGING__URI", "disk/staging")], 3, "DW0606");
}

#[test]
fn a_quarantine_whose_disk_is_full_rejects_the_run() {
    let spec = "sink: { uri: out/few.csv, mode: replace }\nquality:\n  \
                - { name: few, check: \"id < 10\", on_fail: quarantine, max_rejected: 100% }\n";
    let failed = check(spec, "64k", &[("DAGWRIGHT__QUARANTINE__URI", "disk/quarantine")], 3, "DW0606");
    assert!(failed.stderr.contains("no space left"), "{}", failed.stderr);
}

/// Lets the disk of the store end a little later each time, until a run fits: so it ends in one phase after the other.
#[test]
fn a_store_whose_disk_is_full_opens_again_and_the_run_goes_on() {
    // Many sinks: what is recorded after their negotiation fills several of the disk's steps.
    const SINKS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let sinks =
        SINKS.map(|sink| format!("  {sink}: {{ from: source, uri: out/{sink}/, format: csv, mode: append }}\n"));
    let spec = format!("sinks:\n{}", sinks.concat());
    let mut operations = BTreeSet::new();
    for kilobytes in (4..).step_by(8) {
        assert!(kilobytes < 2_000, "a run never fits");
        let workspace = workspace(&spec);
        let disk = Disk::mount(&workspace, "disk", &format!("{kilobytes}k"));
        let settings = [("DAGWRIGHT__STORE__PATH", "disk/store")];
        let first = run(&workspace, &disk, &settings);
        if first.code == Some(0) {
            break;
        }
        first.expect_problem(1, "DW0703");
        assert!(first.stderr.contains("No space left on device"), "{}", first.stderr);
        let operation = ["negotiation", "compiled DAG", "run of request"];
        operations.extend(operation.into_iter().filter(|operation| first.stderr.contains(operation)));

        disk.resize("64m");
        run(&workspace, &disk, &settings).expect(0);
        for sink in SINKS {
            let folder = format!("out/{sink}");
            let files = workspace.list(&folder).into_iter().filter(|name| name.ends_with(".csv"));
            let rows = |name: String| {
                let text = std::fs::read_to_string(workspace.path(&folder).join(name)).expect("a file");
                text.lines().count() - 1
            };
            assert_eq!(files.map(rows).sum::<usize>(), ROWS, "{sink} with {kilobytes} KiB: loaded once");
        }
    }
    // Which of the last two it meets depends on when the store writes: a run of whole seconds records little.
    assert!(operations.contains("negotiation") && operations.len() > 1, "{operations:?}");
}
