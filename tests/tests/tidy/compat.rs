//! The compatibility matrix, docs/airflow-compat.md, is of these versions and these tests.
//!
//! The tests that the matrix is about for 2.11.2 and 3.3.2 run beside this one: where these fail, that row is of no use anyhow. What
//! the versions between them do is written by `make compat`, through this test and `DAGWRIGHT_COMPAT_RESULTS`; a later golden or step of
//! the contract makes it stale. That the package, the client or its tests changed otherwise is not noticed here.

use std::{collections::BTreeMap, env, fs};

use dagwright_tests::{airflow, repository};

use crate::assert_none;

const PAGE: &str = "docs/airflow-compat.md";

/// Around the table.
const MARKS: [&str; 2] = ["<!-- by make compat -->\n", "<!-- end -->\n"];

/// What is tested, as compat.sh calls it; the last column is for people's remarks.
const COLUMNS: [&str; 5] = ["golden DAGs", "package tests", "real data", "client contract", "end to end"];

/// A row's cells, without the version.
type Row = Vec<String>;

#[test]
fn the_matrix_of_airflows_is_current() {
    let path = repository().join(PAGE);
    let text = fs::read_to_string(&path).expect("the matrix");
    let (before, rest) = text.split_once(MARKS[0]).expect("where the table begins");
    let (table, after) = rest.split_once(MARKS[1]).expect("where the table ends");
    let found = results();
    let wanted = render(&rows(table), &found);
    if found.is_empty() {
        assert_eq!(table, wanted, "{PAGE} is stale: make compat");
    } else {
        let page = format!("{before}{}{wanted}{}{after}", MARKS[0], MARKS[1]);
        fs::write(&path, page).expect("the matrix is writable");
    }
}

#[test]
fn what_fails_in_an_airflow_is_explained() {
    let text = fs::read_to_string(repository().join(PAGE)).expect("the matrix");
    let unexplained = |row: &&(String, Row)| {
        row.1.iter().any(|cell| cell.starts_with("fail")) && row.1.last().is_none_or(String::is_empty)
    };
    let table = text.split(MARKS[0]).nth(1).expect("where the table begins");
    let rows: Vec<_> = rows(table).into_iter().collect();
    assert_none("failures without a remark", rows.iter().filter(unexplained).map(|row| row.0.clone()).collect());
}

#[test]
fn scripts_test_the_airflows_of_the_tests() {
    let read = |name: &str| fs::read_to_string(repository().join("tests/scripts").join(name)).expect("a script");
    let [two, three] = in_make_test();
    assert!(read("run.sh").contains(&format!("for version in {two} {three};")));
    assert!(read("tools.sh").contains(&format!("set -- {two} {three}\n")));
}

/// Returns the versions that `make test` runs.
fn in_make_test() -> [String; 2] {
    [airflow::version_2(), airflow::version_3()]
}

/// Returns what compat.sh found, by version and column.
fn results() -> BTreeMap<(String, String), String> {
    let Some(path) = env::var_os("DAGWRIGHT_COMPAT_RESULTS") else { return BTreeMap::new() };
    let text = fs::read_to_string(path).expect("results");
    let result = |line: &str| {
        let [version, column, outcome] = line.split('\t').collect::<Vec<_>>().try_into().expect("three fields");
        assert!(COLUMNS.contains(&column) && ["pass", "fail"].contains(&outcome), "{line}");
        ((version.to_owned(), column.to_owned()), outcome.to_owned())
    };
    text.lines().map(result).collect()
}

/// Returns the rows of a table by version.
fn rows(table: &str) -> BTreeMap<String, Row> {
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        Some((cells.next()?, cells.collect()))
    };
    table.lines().filter(|line| line.starts_with("| ")).skip(1).filter_map(row).collect()
}

fn render(old: &BTreeMap<String, Row>, found: &BTreeMap<(String, String), String>) -> String {
    let counted = [Some(goldens()), None, None, Some(steps()), None];
    let mut table =
        format!("| Airflow | {} | remarks |\n|---|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len() + 1));
    for version in locked() {
        let row = old.get(&version);
        let cell = |(index, column): (usize, &&str)| {
            let how_many = counted[index].map(|count| format!(" ({count})")).unwrap_or_default();
            if in_make_test().contains(&version) {
                return format!("pass{how_many}");
            }
            if let Some(outcome) = found.get(&(version.clone(), (*column).to_owned())) {
                return format!("{outcome}{how_many}");
            }
            // As it was, unless it is of fewer or other tests than there are.
            let cell = row.and_then(|row| row.get(index)).cloned().unwrap_or_default();
            let current = [format!("pass{how_many}"), format!("fail{how_many}")].contains(&cell);
            if current { cell } else { "not run".to_owned() }
        };
        let cells: Vec<_> = COLUMNS.iter().enumerate().map(cell).collect();
        let remarks = row.and_then(|row| row.get(COLUMNS.len())).map_or("", String::as_str);
        table += &format!("| {version} | {} | {remarks} |\n", cells.join(" | "));
    }
    table
}

/// Returns the versions that tools.sh can install, the oldest first.
fn locked() -> Vec<String> {
    let files = fs::read_dir(repository().join("tests/scripts/requirements")).expect("requirements");
    let name = |file: Result<fs::DirEntry, _>| file.expect("a file").file_name().into_string().expect("UTF-8");
    let version = |name: String| Some(name.strip_prefix("airflow-")?.strip_suffix(".txt")?.to_owned());
    let mut versions: Vec<_> = files.map(name).filter_map(version).collect();
    versions.sort_by_key(|version| {
        version.split('.').map(|number| number.parse::<u32>().expect("a number")).collect::<Vec<_>>()
    });
    versions
}

/// Returns how many DAGs the compiler's goldens for Airflow 3 are.
fn goldens() -> usize {
    let folder = fs::read_dir(repository().join("crates/compiler/tests/golden/airflow3")).expect("goldens");
    folder.filter(|file| file.as_ref().expect("a file").path().extension().is_some_and(|ending| ending == "py")).count()
}

/// Returns how many steps the contract of the client has.
fn steps() -> usize {
    let text = fs::read_to_string(repository().join("tests/tests/airflow_client/main.rs")).expect("the contract");
    text.lines().filter(|line| line.trim().starts_with("contract.") && line.ends_with("().await;")).count()
}
