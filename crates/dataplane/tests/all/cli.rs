//! The process: its exit codes, its lease, and what ends it.

use std::{
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Output as Ended, Stdio},
};

use dagwright_dataplane::connectors::identity::identity_of_url;
use dagwright_model::{
    code::Code,
    facts::{TypingReply, TypingRequest},
    task::{Outcome, Output, Status, TaskEvent, Work},
};

use crate::memory::{Bench, columns, name};

fn task(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dagwright-task"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Gives a process its whole input, and waits for its end.
fn feed(mut command: Command, input: &str) -> Ended {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn outcome(lines: &str) -> Outcome {
    match serde_json::from_str(lines.lines().last().expect("an outcome")).unwrap() {
        TaskEvent::Outcome(outcome) => *outcome,
        other => panic!("the last event is not the outcome: {other:?}"),
    }
}

/// A task that would compute for years, and stages what it computes.
fn endless() -> Bench {
    let mut bench = Bench::new();
    bench.step("numbers", "SELECT value FROM generate_series(1, 1000000000000)");
    bench.work().outputs.push(Output::Staged { relation: name("numbers") });
    bench
}

/// Starts the endless task and waits until it has begun to write.
fn start(bench: &Bench) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = task(&["run", "--spec", "-", "--lease-stdin"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let spec = serde_json::to_string(&bench.task).unwrap();
    stdin.write_all(format!("{spec}\n").as_bytes()).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"progress\"") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the task ended early");
    }
    (child, stdin, stdout)
}

#[track_caller]
fn check_cancelled(bench: &Bench, mut child: Child, stdout: BufReader<ChildStdout>) {
    let lines: Vec<String> = stdout.lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(17));
    let outcome = outcome(&lines.join("\n"));
    assert_eq!((outcome.status, outcome.problem.unwrap().code), (Status::Cancelled, Code::Cancelled));
    assert!(bench.staged_files().is_empty(), "{:?}", bench.staged_files());
}

#[test]
fn the_end_of_its_lease_cancels_a_task() {
    let bench = endless();
    let (child, stdin, stdout) = start(&bench);
    drop(stdin);
    check_cancelled(&bench, child, stdout);
}

#[test]
fn a_signal_cancels_a_task() {
    let bench = endless();
    let (child, _stdin, stdout) = start(&bench);
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    check_cancelled(&bench, child, stdout);
}

#[test]
fn a_reader_that_is_gone_cancels_a_task() {
    let bench = endless();
    let (mut child, _stdin, stdout) = start(&bench);
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(17));
    assert!(bench.staged_files().is_empty());
}

#[test]
fn a_task_that_was_killed_leaves_nothing_after_the_next_try() {
    let mut bench = endless();
    let (mut child, _stdin, _stdout) = start(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    bench.work().steps[0].sql = "SELECT 1 AS value".into();
    let ended = feed(task(&["run", "--spec", "-"]), &serde_json::to_string(&bench.task).unwrap());
    assert_eq!(ended.status.code(), Some(0));
    let files: Vec<String> = bench.staged_files().into_iter().collect();
    assert!(files.contains(&"test/request-1/numbers/0.parquet".to_owned()), "{files:?}");
    assert!(!files.iter().any(|file| file.starts_with(".tmp")), "{files:?}");
}

#[test]
fn a_spec_that_is_none_exits_10() {
    for input in ["", "{}", "[1, 2", "\u{0}"] {
        let ended = feed(task(&["run", "--spec", "-"]), input);
        assert_eq!(ended.status.code(), Some(10), "{input:?}");
        let outcome = outcome(&String::from_utf8(ended.stdout).unwrap());
        assert_eq!(outcome.problem.unwrap().code, Code::TaskSpecInvalid);
    }
    assert_eq!(feed(task(&["run", "--spec", "/nowhere/at/all.json"]), "").status.code(), Some(10));
    assert_eq!(feed(task(&["run"]), "").status.code(), Some(10));
}

#[test]
fn a_connection_that_points_elsewhere_exits_19() {
    let mut bench = Bench::new();
    bench.task.task.work = Work::Cleanup;
    let identity = identity_of_url("postgresql://u:p@sealed.example/db").unwrap();
    bench.task.task.connections = [(name("warehouse"), identity)].into();
    let mut command = task(&["run", "--spec", "-"]);
    command.env("DAGWRIGHT_CONN_WAREHOUSE", "postgresql://user:hunter2@elsewhere.example/db");
    let ended = feed(command, &serde_json::to_string(&bench.task).unwrap());
    assert_eq!(ended.status.code(), Some(19));
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).join("\n");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn a_cleanup_succeeds_where_there_is_nothing() {
    let mut bench = Bench::new();
    bench.task.task.work = Work::Cleanup;
    let ended = feed(task(&["run", "--spec", "-"]), &serde_json::to_string(&bench.task).unwrap());
    assert_eq!(ended.status.code(), Some(0));
    let outcome = outcome(&String::from_utf8(ended.stdout).unwrap());
    assert_eq!(outcome.status, Status::Succeeded);
    assert!(outcome.memory_peak_bytes > 0);
}

#[test]
fn plan_answers_in_one_line() {
    let mut request = TypingRequest {
        sources: [(name("src"), columns("id:int64 who:string?"))].into(),
        steps: vec![dagwright_model::spec::Step { name: name("s"), sql: "SELECT id FROM src".into() }],
        binds: [].into(),
        gates: Vec::new(),
        outputs: vec![name("s")],
        incremental: [].into(),
    };
    for (sql, exit) in [("SELECT id FROM src", 0), ("SELECT nothing FROM src", 10)] {
        request.steps[0].sql = sql.into();
        let ended = feed(task(&["plan", "--spec", "-"]), &serde_json::to_string(&request).unwrap());
        assert_eq!(ended.status.code(), Some(exit), "{sql}");
        let stdout = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(stdout.lines().count(), 1);
        let reply: TypingReply = serde_json::from_str(&stdout).unwrap();
        assert_eq!(matches!(reply, TypingReply::Typed(_)), exit == 0);
    }
}
