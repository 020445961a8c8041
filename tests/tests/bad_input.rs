//! Bad input of every kind ends in a coded error with a remedy, the promised exit code, and nothing half-written.

use dagwright_tests::{Postgres, Workspace};

/// A spec over one CSV file and one Parquet file.
const PLAIN: &str = "\
version: 1
pipeline: plain
source: { uri: in.csv }
sink: { uri: out/plain.parquet, mode: replace }
";

/// Runs `spec` over `data` and expects an exit code and a stable code, told to people and machines alike.
#[track_caller]
fn check(spec: &str, data: Option<&[u8]>, exit: i32, code: &str) {
    let workspace = Workspace::new();
    workspace.write("spec.yaml", spec);
    if let Some(data) = data {
        workspace.write("in.csv", data);
    }
    let (ended, said) = workspace.json(["run", "spec.yaml"]);
    let told = format!("{}{said}", ended.stderr);
    assert!(told.contains(code), "no {code} in {told}");
    ended.expect(exit);
    let written = workspace.path("out");
    let left = std::fs::read_dir(&written).map(|files| files.flatten().count()).unwrap_or_default();
    assert_eq!(left, 0, "something is left in {}", written.display());
}

#[test]
fn specs_that_are_not_specs() {
    check("version: [", None, 2, "DW0101");
    check(&PLAIN.replace("sink:", "snik:"), None, 2, "DW0102");
    check(&PLAIN.replace("version: 1", "version: one"), None, 2, "DW0103");
    check(&PLAIN.replace("pipeline: plain\n", ""), None, 2, "DW0104");
    check(&PLAIN.replace("plain\n", "../plain\n"), None, 2, "DW0105");
    check(&PLAIN.replace("mode: replace", "mode: scd2"), None, 2, "DW0110");
    let uri = "https://user:secret@example.org/in.csv";
    check(&PLAIN.replace("in.csv", uri), None, 2, "DW0109");
}

#[test]
fn steps_that_do_not_plan() {
    let with = |steps: &str| format!("{PLAIN}transform:\n{steps}");
    let cycle = "  - { name: a, sql: SELECT * FROM b }\n  - { name: b, sql: SELECT * FROM a }\n";
    check(&with(cycle), None, 2, "DW0108");
    check(&with("  - { name: a, sql: SELECT nothing FROM source }\n"), Some(b"id\n1\n"), 2, "DW0501");
    check(&with("  - { name: a, sql: DROP TABLE source }\n"), Some(b"id\n1\n"), 2, "DW0501");
}

#[test]
fn sources_that_cannot_be_read() {
    check(PLAIN, None, 1, "DW0301");
    check(PLAIN, Some(b""), 1, "DW0307");
    let junk: Vec<u8> = (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    check(PLAIN, Some(&junk), 1, "DW03");
}

#[test]
fn databases_that_cannot_be_reached() {
    let spec = PLAIN.replace("{ uri: in.csv }", "{ connection: db, table: flights }");
    check(&spec, None, 2, "DW0601");
    let connect = |url: &str| {
        let workspace = Workspace::new();
        workspace.write("spec.yaml", &spec);
        let output = workspace.dagwright().args(["run", "spec.yaml"]).env("DAGWRIGHT_CONN_DB", url).output();
        dagwright_tests::Ended::from(output.expect("dagwright starts"))
    };
    // Port 1 of the loopback listens nowhere.
    let unreachable = connect("postgresql://nobody:hunter2@127.0.0.1:1/db");
    assert!(unreachable.expect(3).stdout.contains("DW0302"), "{unreachable:?}");
    assert!(!format!("{unreachable:?}").contains("hunter2"));

    let right = &Postgres::shared().url;
    let (user, host) = right.split_once('@').expect("a user");
    let wrong = format!("{}:wrong@{host}", user.rsplit_once(':').expect("a password").0);
    let refused = connect(&wrong);
    assert!(refused.expect(1).stdout.contains("DW0303"), "{refused:?}");
}

#[test]
fn a_store_that_another_process_owns_is_waited_for_and_then_refused() {
    let workspace = Workspace::new();
    workspace.write("spec.yaml", PLAIN);
    workspace.write(".dagwright/not-a-store", "mine");
    let foreign = workspace.run(["run", "spec.yaml"]);
    assert!(foreign.expect(1).stderr.contains("DW0703"), "{foreign:?}");
}

#[test]
fn a_pattern_may_leave_the_folder_of_the_spec() {
    let workspace = Workspace::new();
    workspace.write("elsewhere/a1.csv", "id\n1\n");
    workspace.write("elsewhere/a2.csv", "id\n2\n");
    workspace.write("specs/spec.yaml", PLAIN.replace("in.csv", "../elsewhere/a*.csv"));
    let (ended, run) = workspace.json(["run", "specs/spec.yaml"]);
    ended.expect(0);
    assert_eq!(run["counts"]["sinks"]["sink"]["loaded"], 2, "{run}");
}
