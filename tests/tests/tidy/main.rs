//! Asserts what the architecture promises and no compiler checks.
//!
//! Needs `cargo` and `git`, reads only what the repository tracks or would track, and changes nothing; with
//! `DAGWRIGHT_BLESS=1` it rewrites the index of error pages, and for `make compat` the matrix of Airflows.

mod compat;
mod graph;
mod pages;
mod sources;
mod wheels;

use std::{fs, process::Command};

use dagwright_tests::repository;

/// A text file of the repository.
struct File {
    /// Its path from the root, with `/`.
    path: String,
    /// Its text.
    text: String,
}

/// Returns every text file that git tracks or would track.
fn files() -> Vec<File> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(repository())
        .output()
        .expect("git is installed");
    assert!(listing.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listing.stderr));
    let listing = String::from_utf8(listing.stdout).expect("paths are UTF-8");
    let file = |path: &str| {
        // A file that was removed and not yet committed is still listed; data that is no text is of no concern here.
        let text = fs::read_to_string(repository().join(path)).ok()?;
        Some(File { path: path.into(), text })
    };
    let files: Vec<_> = listing.split_terminator('\0').filter_map(file).collect();
    assert!(files.len() > 50, "only {} files in {}", files.len(), repository().display());
    files
}

/// Fails with every finding at once.
#[track_caller]
fn assert_none(what: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{what}:\n  {}", findings.join("\n  "));
}
