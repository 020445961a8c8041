//! The system's clock jumps by hours, forwards and back, in the middle of requests: nothing but what is the time changes.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use dagwright_tests::{Workspace, daemon::Daemon, tools};

use crate::{ROWS, assert_loaded, spec};

/// What the clock shows beside the time, one after the other.
const JUMPS: [&str; 4] = ["+5h", "-7h", "+0", "+30d"];

/// How long it stays there.
const STAY: Duration = Duration::from_millis(3);

/// A clock that is set through a file.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn new(workspace: &Workspace) -> Self {
        let clock = Self { file: workspace.path("clock") };
        clock.show("+0");
        clock
    }

    fn show(&self, offset: &str) {
        // Whole or not at all, as it may be read at any moment.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).expect("a file");
        std::fs::rename(new, &self.file).expect("a file");
    }

    fn variables(&self) -> Vec<(String, String)> {
        let library = tools().join("faketime-0.9.10/lib/libfaketimeMT.so.1");
        assert!(library.exists(), "run tests/scripts/tools.sh faketime");
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            // As on any system: the clock that only counts is never set.
            ("DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

#[test]
fn requests_end_as_they_should_while_the_clock_jumps() {
    let workspace = Workspace::new();
    workspace.write("in.csv", ROWS);
    let clock = Clock::new(&workspace);
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| format!("jumped_{name}"));
    let (ids, stories) = {
        let daemon = Daemon::with(&workspace, &crate::borrowed(&clock.variables()), &[]);
        let is_over = AtomicBool::new(false);
        let ids = thread::scope(|scope| {
            scope.spawn(|| {
                for offset in JUMPS.iter().cycle() {
                    clock.show(offset);
                    // Nobody wakes it: it goes on.
                    thread::park_timeout(STAY);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let submitted: Vec<_> = names
                .iter()
                .map(|name| {
                    let file = workspace.write(&format!("{name}.json"), spec(&workspace, name).to_string());
                    let file = file.display().to_string();
                    daemon.run(&workspace, &["submit", &file, "--id", name, "--wait", "--json"])
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            submitted
        });
        let ids: Vec<_> = ids
            .iter()
            .map(|ended| {
                let said: serde_json::Value = serde_json::from_str(&ended.expect(0).stdout).expect("JSON");
                said["request"]["request_id"].as_str().expect("an id").to_owned()
            })
            .collect();
        let stories: Vec<_> =
            ids.iter().map(|id| daemon.run(&workspace, &["explain", id]).expect(0).stdout.clone()).collect();
        (ids, stories)
    };
    for name in &names {
        assert_loaded(&workspace, name);
    }
    println!("{}", stories.join("\n"));

    // Lists hold everything once, however small their parts are, and in the next process too.
    clock.show("-1d");
    let daemon = Daemon::with(&workspace, &crate::borrowed(&clock.variables()), &[]);
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get(&format!("/requests?limit=2{cursor}"));
        let items = page["items"].as_array().expect("items");
        listed.extend(items.iter().map(|item| item["request_id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    listed.sort();
    let mut wanted = ids;
    wanted.sort();
    assert_eq!(listed, wanted);
}
