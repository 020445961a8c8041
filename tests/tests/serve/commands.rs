//! The commands that talk to a service.

use dagwright_tests::{Workspace, daemon::Daemon, duckdb, http, repository, tools};
use regex_lite::Regex;

use crate::{spec, submit, text, until_the_end};

#[test]
fn a_spec_is_submitted_followed_and_loaded_once() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let submit = ["submit", "examples/flights.yaml", "--wait", "--id", "mine", "--json"];
    let ended = daemon.run(&workspace, &submit);
    ended.expect(0);
    let said: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let counts = &said["run"]["particulars"]["counts"]["sinks"]["lake"];
    let lake = workspace.path("examples/out/flights");
    let rows = || duckdb(&format!("select count(*) from '{}/*.parquet'", lake.display()));
    assert_eq!(rows(), [counts["loaded"].to_string()]);
    assert!(ended.stderr.contains("run.succeeded"), "{ended:?}");

    // Sent again it is the same request, which has ended long ago.
    let again = daemon.run(&workspace, &submit);
    again.expect(0);
    let repeated: serde_json::Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(repeated["request"]["request_id"], said["request"]["request_id"]);
    assert_eq!(daemon.get("/runs")["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(rows(), [counts["loaded"].to_string()]);
}

#[test]
fn a_deadlock_and_a_refusal_end_as_they_do_without_a_service() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let deadlocked = daemon.run(&workspace, &["submit", "examples/flights_deadlock.yaml", "--wait"]);
    assert!(deadlocked.expect(4).stdout.contains("DW0201"), "{deadlocked:?}");
    workspace.write(
        "outside.yaml",
        "version: 1\npipeline: p\nsource: {uri: /etc/passwd, format: csv}\nsink: {uri: o.csv, mode: replace}\n",
    );
    let refused = daemon.run(&workspace, &["submit", "outside.yaml"]);
    assert!(refused.expect(1).stderr.contains("DW0806"), "{refused:?}");
    workspace.write("wrong.yaml", "version: 1\npipeline: p\nsorce: {uri: a.csv}\n");
    let wrong = daemon.run(&workspace, &["submit", "wrong.yaml"]);
    assert!(wrong.expect(2).stderr.contains("wrong.yaml:3: DW0102"), "{wrong:?}");
    for command in [&["status", "x"][..], &["explain", "x"], &["watch", "x"], &["cancel", "x"], &["approve", "x"]] {
        let unknown = daemon.run(&workspace, command);
        assert!(unknown.expect(2).stderr.contains("DW0803"), "{unknown:?}");
    }
}

#[test]
fn a_service_that_is_not_there_is_unreachable() {
    let workspace = Workspace::new();
    for command in [&["status"][..], &["submit", "examples/flights.yaml"], &["watch"]] {
        // Port 1 of the loopback listens nowhere.
        let output = workspace.dagwright().args(command).args(["--url", "http://127.0.0.1:1"]).output();
        let ended = dagwright_tests::Ended::from(output.expect("dagwright starts"));
        assert!(ended.expect(3).stderr.contains("DW0813"), "{ended:?}");
    }
}

#[test]
fn a_plan_waits_for_somebody_else() {
    let workspace = Workspace::new();
    let file = workspace.write(
        "dagwright.toml",
        "[http.tokens.ann]\ntoken_env = \"ANN\"\nscopes = [\"read\", \"submit\", \"operate\"]\n\
         [http.tokens.bob]\ntoken_env = \"BOB\"\nscopes = [\"read\", \"operate\"]\n",
    );
    let (ann, bob) = ("ann-0123456789abcdef", "bob-0123456789abcdef");
    let daemon = Daemon::with(&workspace, &[("ANN", ann), ("BOB", bob)], &["--config", &file.to_string_lossy()]);
    let as_who = |token: &str, arguments: &[&str]| {
        let output = daemon.client(&workspace).env("DAGWRIGHT_TOKEN", token).args(arguments).output();
        dagwright_tests::Ended::from(output.expect("dagwright starts"))
    };
    let path = workspace.path("examples/flights.yaml");
    let example = std::fs::read_to_string(&path).expect("an example");
    std::fs::write(&path, example.replace("approval: never", "approval: always")).expect("written");
    let receipt = as_who(ann, &["submit", "examples/flights.yaml", "--json"]);
    let receipt: serde_json::Value = serde_json::from_str(&receipt.expect(0).stdout).expect("JSON");
    let id = text(&receipt, "request_id");

    let mut watch = daemon.client(&workspace);
    watch.env("DAGWRIGHT_TOKEN", bob).args(["watch", &id, "--json"]).stdout(std::process::Stdio::piped());
    let mut watch = watch.spawn().expect("dagwright starts");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().expect("a pipe")));
    let mut approved = false;
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        dagwright_tests::events::check(&event);
        if event["type"] == "dev.dagwright.approval.needed.v1" {
            let plan = text(&event["data"], "plan_hash");
            let own = as_who(ann, &["approve", &plan]);
            assert!(own.expect(1).stderr.contains("DW0810"), "{own:?}");
            as_who(bob, &["approve", &plan]).expect(0);
            approved = true;
        }
    }
    assert!(approved && watch.wait().expect("an end").success());
    let story = as_who(bob, &["explain", &id]);
    let told = &story.expect(0).stdout;
    assert!(told.contains("ann asked over HTTP") && told.contains("bob approved it."), "{told}");
    as_who("nobody-0123456789abcdef", &["status"]).expect(1);
    http::call(daemon.address, "GET", "/api/v1/requests", &[], b"").refused(401, "DW0807");
}

/// Makes what differs from run to run equal.
fn masked(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, mask) in [
        (r"\b[0-9a-f]{32}\b", "<request>"),
        (r"\b[0-9a-f]{12}\b", "<hash>"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "<time>"),
        (r"\+(\d+ ms|\d+\.\d s)", "+<span>"),
        (r"(after|took|waiting|negotiating|running|total) (\d+ ms|\d+\.\d s)", "$1 <span>"),
        (r"from (ledger|dagwright-task plan)", "from <source>"),
    ] {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, mask).into_owned();
    }
    text
}

#[test]
fn a_story_tells_who_what_and_why() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let receipt = submit(&daemon, &spec(&workspace, "flights_conflict.yaml"), "story").expect(202).json();
    let id = text(&receipt, "request_id");
    until_the_end(&daemon, &id);
    let told = masked(&daemon.run(&workspace, &["explain", &id]).expect(0).stdout);
    let path = repository().join("tests/tests/serve/story.txt");
    if std::env::var_os("DAGWRIGHT_BLESS").is_some() {
        std::fs::write(&path, &told).expect("written");
    }
    assert_eq!(told, std::fs::read_to_string(&path).expect("the golden"), "DAGWRIGHT_BLESS=1 rewrites it");
    let prose =
        http::call(daemon.address, "GET", &format!("/api/v1/requests/{id}/explain"), &[("accept", "text/plain")], b"");
    assert_eq!(masked(&prose.expect(200).body), told);
}

#[test]
fn the_description_of_the_api_is_valid() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let document = workspace.write("openapi.json", daemon.get("/openapi.json").to_string());
    let mut validator = std::process::Command::new(tools().join("tools/bin/python"));
    let output = validator.args(["-m", "openapi_spec_validator", "--schema", "3.1"]).arg(document).output();
    let ended = dagwright_tests::Ended::from(output.expect("run tests/scripts/tools.sh python"));
    ended.expect(0);
}

#[test]
fn doctor_finds_what_is_wrong() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace, &[]);
    let well = daemon.run(&workspace, &["doctor"]);
    let told = &well.expect(0).stdout;
    assert!(told.contains("in use") && told.contains("is ready"), "{told}");
    let ill = daemon
        .client(&workspace)
        .arg("doctor")
        .env("DAGWRIGHT_CONN_DB", "postgresql://u:hunter2@127.0.0.1:1/db")
        .output();
    let ill = dagwright_tests::Ended::from(ill.expect("dagwright starts"));
    assert!(ill.expect(3).stdout.contains("DW0302"), "{ill:?}");
    assert!(!format!("{ill:?}").contains("hunter2"));
}
