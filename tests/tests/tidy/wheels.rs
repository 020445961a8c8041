//! The wheels, which no Cargo.toml knows of, are of this version, licence and toolchain.

use std::fs;

use dagwright_tests::repository;

/// The folders of both.
const WHEELS: [&str; 2] = ["deploy/airflow", "deploy/task"];

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns a key's text in table `[project]`.
fn project<'a>(pyproject: &'a str, key: &str) -> &'a str {
    let table = pyproject.split("[project]\n").nth(1).and_then(|rest| rest.split("\n[").next()).expect("a project");
    let value = table.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'));
    value.unwrap_or_else(|| panic!("no {key} in {table}"))
}

#[test]
fn wheels_are_of_the_workspace() {
    let projects = WHEELS.map(|folder| read(&format!("{folder}/pyproject.toml")));
    for text in &projects {
        assert_eq!(project(text, "version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(project(text, "license"), env!("CARGO_PKG_LICENSE"));
    }
    let [airflow, task] = projects.each_ref().map(|text| project(text, "requires-python"));
    assert_eq!(airflow, task);
}

#[test]
fn the_task_is_built_by_one_maturin() {
    let pinned = |text: &str| {
        let (_, rest) = text.split_once("maturin==").expect("a pinned maturin");
        rest.split(|c: char| !c.is_ascii_digit() && c != '.').next().expect("a version").to_owned()
    };
    let project = read("deploy/task/pyproject.toml");
    assert_eq!(pinned(&project), pinned(&read("tests/scripts/requirements/wheels.txt")));
    let manifest = project.lines().find_map(|line| line.strip_prefix("manifest-path = \"")?.strip_suffix('"'));
    let manifest = read(&format!("deploy/task/{}", manifest.expect("a manifest")));
    assert!(manifest.contains("[[bin]]\nname = \"dagwright-task\"\n"), "{manifest}");
}
