//! What every source file has, and what none has.

use crate::{File, assert_none, files};

/// The longest source file, in lines. The house style asks for one idea and fewer than 500; this is the wall behind it.
const LINES_MAX: usize = 700;

/// Folders and files at the root.
const ROOT: [&str; 24] = [
    ".ci",
    ".config",
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "README.md",
    "clippy.toml",
    "config",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "examples",
    "proto",
    "ruff.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
];

/// Where Python may be.
const PYTHON: [&str; 4] = ["deploy/airflow/", "examples/", "tests/", "crates/compiler/tests/"];

fn sources() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// The lines of a file before its inline tests, numbered from 1.
fn lines_without_tests(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.take_while(|(_, line)| *line != "#[cfg(test)]" || !file.text.contains("#[cfg(test)]\nmod tests {"))
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[test]
fn every_source_file_says_what_it_is() {
    let without = |file: &File| !file.text.starts_with("//! ") && !file.text.starts_with("#![");
    let found = sources().into_iter().filter(without).map(|file| file.path);
    assert_none("source files without a `//!` header", found.collect());
}

#[test]
fn source_files_are_small() {
    let large = |file: File| {
        let lines = file.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.path))
    };
    assert_none("source files to be split", sources().into_iter().filter_map(large).collect());
}

#[test]
fn nothing_is_left_undone() {
    // Joined here, so that this file does not find itself.
    let words: Vec<String> = [
        ("to", "do!("),
        ("unimple", "mented!("),
        ("db", "g!("),
        ("#[ign", "ore"),
        ("TO", "DO"),
        ("FIX", "ME"),
        ("XX", "X:"),
    ]
    .iter()
    .map(|(a, b)| format!("{a}{b}"))
    .collect();
    let code =
        |path: &str| [".rs", ".py", ".sh", ".toml", ".yaml", ".yml", ".proto"].iter().any(|end| path.ends_with(end));
    let mut findings = Vec::new();
    for file in files().into_iter().filter(|file| code(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                findings.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    assert_none("work left undone", findings);
}

#[test]
fn tests_do_not_sleep() {
    let sleep = ["::sleep", "("].concat();
    let mut findings = Vec::new();
    for file in sources().into_iter().filter(|file| is_test(&file.path)) {
        let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains(&sleep));
        findings.extend(lines.map(|(number, _)| format!("{}:{}", file.path, number + 1)));
    }
    assert_none("tests that sleep instead of waiting for what they need", findings);
}

#[test]
fn pure_crates_touch_neither_clock_nor_world() {
    let impure = [
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "SystemTime",
        "Instant::now",
        "Utc::now",
        "Local::now",
        "std::io::stdin",
        "println!",
        "RandomState",
        "HashMap<",
        "HashSet<",
    ];
    let mut findings = Vec::new();
    for file in sources() {
        let pure = ["crates/model/src/", "crates/negotiation/src/", "crates/compiler/src/"];
        if !pure.iter().any(|folder| file.path.starts_with(folder)) || is_test(&file.path) {
            continue;
        }
        for (number, line) in lines_without_tests(&file).filter(|(_, line)| !line.trim_start().starts_with("//")) {
            if let Some(word) = impure.iter().find(|word| line.contains(*word)) {
                findings.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    assert_none("impure code in pure crates (hash maps have no order)", findings);
}

#[test]
fn only_agents_are_actors() {
    let actor = |file: &File| file.text.lines().any(|line| line.starts_with("impl") && line.contains("Actor for "));
    let found = sources().into_iter().filter(|file| !file.path.starts_with("crates/agents/") && actor(file));
    assert_none("actors outside crate agents", found.map(|file| file.path).collect());
}

#[test]
fn files_are_where_the_layout_says() {
    let mut findings = Vec::new();
    for file in files() {
        let path = file.path.as_str();
        let root = path.split('/').next().unwrap_or(path);
        if !ROOT.contains(&root) {
            findings.push(format!("{path}: nothing of this name belongs at the root"));
        }
        if path.ends_with("/mod.rs") {
            findings.push(format!("{path}: write foo.rs beside foo/"));
        }
        if path.ends_with(".py") && !PYTHON.iter().any(|folder| path.starts_with(folder)) {
            findings.push(format!("{path}: no Python here"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
        if !path.chars().all(plain) {
            findings.push(format!("{path}: a name of other characters than letters, digits, `.`, `_` and `-`"));
        }
    }
    assert_none("files outside the layout", findings);
}
