//! Bad input of every kind ends in a coded error with a remedy, the promised exit code, and nothing half-written.

use std::fmt::Write as _;

use dagwright_tests::{Ended, Postgres, Workspace};

/// A spec over one CSV file and one Parquet file.
const PLAIN: &str = "\
version: 1
pipeline: plain
source: { uri: in.csv }
sink: { uri: out/plain.parquet, mode: replace }
";

/// Runs `spec` over `data` and expects an exit code and a stable code, told to people (with what to do) and machines
/// alike. Returns what people are told.
#[track_caller]
fn check(spec: &str, data: Option<&[u8]>, exit: i32, code: &str) -> String {
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
    let ended = workspace.run(["run", "spec.yaml"]);
    ended.expect_problem(exit, code);
    format!("{}{}", ended.stdout, ended.stderr)
}

/// Runs a spec with a database as connection `db`.
fn run_with(workspace: &Workspace, spec: &str, url: &str) -> Ended {
    workspace.write("spec.yaml", spec);
    let output = workspace.dagwright().args(["run", "spec.yaml"]).env("DAGWRIGHT_CONN_DB", url).output();
    output.expect("dagwright starts").into()
}

/// Returns a spec that loads `in.csv` into a table.
fn into_table(table: &str, rest: &str) -> String {
    let sink = format!("{{ connection: db, table: {table}, {rest} }}");
    PLAIN.replace("{ uri: out/plain.parquet, mode: replace }", &sink) + "retries: { max: 0 }\n"
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
    let told = check(&PLAIN.replace("in.csv", uri), None, 2, "DW0109");
    assert!(!told.contains("secret"), "{told}");
    let sink = "s3://key:secret@bucket/plain.parquet";
    let told = check(&PLAIN.replace("out/plain.parquet", sink), None, 2, "DW0109");
    assert!(!told.contains("secret"), "{told}");
}

#[test]
fn steps_that_do_not_plan() {
    let with = |steps: &str| format!("{PLAIN}transform:\n{steps}");
    let cycle = "  - { name: a, sql: SELECT * FROM b }\n  - { name: b, sql: SELECT * FROM a }\n";
    check(&with(cycle), None, 2, "DW0108");
    let told = check(&with("  - { name: picked, sql: SELECT nothing FROM source }\n"), Some(b"id\n1\n"), 2, "DW0501");
    assert!(told.contains("No field named nothing") && told.contains("source.id"), "DataFusion's reason: {told}");
    assert!(told.contains("picked"), "the step: {told}");
    check(&with("  - { name: a, sql: DROP TABLE source }\n"), Some(b"id\n1\n"), 2, "DW0501");
}

#[test]
fn sources_that_cannot_be_read() {
    check(PLAIN, None, 1, "DW0301");
    check(PLAIN, Some(b""), 1, "DW0307");
    let junk: Vec<u8> = (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    check(PLAIN, Some(&junk), 1, "DW0306");
}

#[test]
fn databases_that_cannot_be_reached() {
    let spec = PLAIN.replace("{ uri: in.csv }", "{ connection: db, table: flights }");
    check(&spec, None, 2, "DW0601");
    let right = &Postgres::shared().url;
    let (user, host) = right.split_once('@').expect("a user");
    let wrong = format!("{}:hunter2@{host}", user.rsplit_once(':').expect("a password").0);
    let workspace = Workspace::new();
    workspace.write("in.csv", "id\n1\n");
    for (spec, unreachable, refused) in
        [(&spec, "DW0302", "DW0303"), (&into_table("public.flights", "mode: append"), "DW0401", "DW0402")]
    {
        // Port 1 of the loopback listens nowhere.
        let ended = run_with(&workspace, spec, "postgresql://nobody:hunter2@127.0.0.1:1/db");
        ended.expect_problem(3, unreachable);
        assert!(!format!("{ended:?}").contains("hunter2"));
        let ended = run_with(&workspace, spec, &wrong);
        ended.expect_problem(1, refused);
        assert!(!format!("{ended:?}").contains("hunter2"));
    }
}

#[test]
fn tables_of_other_types() {
    let server = Postgres::shared();
    let url = server.database("other_types");
    server.query(&url, "create table typed (id int primary key, at date not null, amount numeric(4, 1) not null)");
    let workspace = Workspace::new();
    let mut rows = "id,at,amount\n998,soon,2\n999,2024-01-03,many\n".to_owned();
    for id in 0..998 {
        writeln!(rows, "{id},2024-01-01,1.5").expect("a string grows");
    }
    workspace.write("in.csv", rows);
    let spec = into_table("public.typed", "mode: append");
    let ended = run_with(&workspace, &spec, &url);
    ended.expect_problem(4, "DW0201");
    for said in
        ["column at: source string, 0.1 % not a date; sink date", "column amount", "policy.lossy_cast: set quarantine"]
    {
        assert!(ended.stdout.contains(said), "no \"{said}\" in {}", ended.stdout);
    }
    assert_eq!(server.query(&url, "select count(*) from typed"), "0");

    // As it says.
    let allowed = format!("{spec}policy: {{ lossy_cast: quarantine }}\n");
    run_with(&workspace, &allowed, &url).expect(0);
    assert_eq!(server.query(&url, "select count(*) from typed"), "998");
}

#[test]
fn keys_that_repeat() {
    let server = Postgres::shared();
    let url = server.database("repeated_keys");
    let workspace = Workspace::new();
    let mut rows = "id,version\n".to_owned();
    for row in 0..1000 {
        writeln!(rows, "{},{row}", row / 2).expect("a string grows");
    }
    workspace.write("in.csv", rows);

    // The agents see it in the source.
    let spec = into_table("public.seen", "mode: upsert, key: [id]");
    let ended = run_with(&workspace, &spec, &url);
    ended.expect_problem(4, "DW0201");
    assert!(ended.stdout.contains("key id") && ended.stdout.contains("sinks.sink.dedupe"), "{}", ended.stdout);

    // Behind a step only the load can.
    let step = "transform:\n  - { name: thirds, sql: \"SELECT version / 3 AS third, version FROM source\" }\n";
    let spec = into_table("public.computed", "mode: upsert, key: [third]") + step;
    let ended = run_with(&workspace, &spec, &url);
    ended.expect_problem(1, "DW0407");
    assert!(ended.stderr.contains("(third)") && ended.stderr.contains("dedupe.order_by"), "{}", ended.stderr);
    assert_eq!(server.query(&url, "select to_regclass('public.seen'), to_regclass('public.computed')"), "|");

    // As both say.
    let ordered = spec.replace("key: [third]", "key: [third], dedupe: { order_by: [version desc] }");
    run_with(&workspace, &ordered, &url).expect(0);
    assert_eq!(server.query(&url, "select count(*), min(version), max(version) from computed"), "334|2|999");
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
