//! Runs that fail in a way that another plan may not: the agents negotiate anew, and the request goes on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use dagwright_tests::{Workspace, bin_dir, daemon::Daemon, duckdb, http};
use serde_json::Value;

use crate::{submit, text};

/// Writes a program that stands before `dagwright-task`: `before` is done first, when it is told to run a task.
fn worker(workspace: &Workspace, before: &str) -> String {
    let task = bin_dir().join("dagwright-task");
    let script = format!("#!/bin/sh\nif [ \"$1\" = run ]; then\n{before}\nfi\nexec {} \"$@\"\n", task.display());
    let path = workspace.write("worker", script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    path.to_str().expect("text").to_owned()
}

fn copy(workspace: &Workspace, policy: &str) -> String {
    format!(
        "version: 1\npipeline: copy\nsource: {{ uri: {}/in.csv }}\nsink: {{ uri: {}/out/, format: parquet, mode: append }}\n\
         retries: {{ max: 0 }}\npolicy: {policy}\n",
        at(&workspace.path("")),
        at(&workspace.path(""))
    )
}

fn at(folder: &Path) -> String {
    folder.to_str().expect("text").trim_end_matches('/').to_owned()
}

/// Waits for an event of a request, and returns the names of those before it, and its data.
fn until(daemon: &Daemon, request: &str, wanted: &[&str]) -> (Vec<String>, Value) {
    let mut kinds = Vec::new();
    for told in http::Events::open(daemon.address, &format!("/api/v1/events?request={request}"), None) {
        kinds.push(told.event);
        if wanted.contains(&kinds[kinds.len() - 1].as_str()) {
            return (kinds, told.data["data"].clone());
        }
    }
    panic!("no {wanted:?} in {kinds:?}");
}

const ENDS: [&str; 4] = ["run.succeeded", "run.failed", "request.rejected", "plan.deadlocked"];

fn explained(daemon: &Daemon, workspace: &Workspace, request: &str) -> String {
    daemon.run(workspace, &["explain", request]).expect(0).stdout.clone()
}

fn rows(workspace: &Workspace) -> Vec<String> {
    duckdb(&format!("select count(*), count(distinct id) from '{}/out/*.parquet'", at(&workspace.path(""))))
}

#[test]
fn a_run_out_of_memory_is_done_by_another_plan_and_loads_once() {
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,text\n1,a\n2,b\n3,c\n");
    let folder = at(&workspace.path(""));
    // As a task that finds no memory ends: once, the first time that it is tried.
    let worker = worker(&workspace, &format!("if mkdir {folder}/tried 2>/dev/null; then exit 15; fi"));
    let daemon = Daemon::start(&workspace, &[("TASK__COMMAND", &worker)]);
    let receipt = submit(&daemon, &copy(&workspace, "{ approval: never }"), "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, data) = until(&daemon, &id, &ENDS);
    let count = |wanted: &str| kinds.iter().filter(|kind| *kind == wanted).count();
    assert_eq!(kinds.last().map(String::as_str), Some("run.succeeded"), "{kinds:?}");
    let counts = ["request.accepted", "plan.sealed", "remedy.applied", "run.started", "run.failed"].map(count);
    assert_eq!(counts, [1, 2, 1, 2, 0], "{kinds:?}");
    assert_eq!(data["rows"]["loaded"], 3);
    assert_eq!(rows(&workspace), ["3", "3"]);

    let (_, remedy) = until(&daemon, &id, &["remedy.applied"]);
    assert_eq!(remedy["error"]["code"], "DW0506", "{remedy}");
    assert_eq!((&remedy["replan"]["version"], &remedy["replan"]["class"]), (&2.into(), &"resources".into()));
    let changes = remedy["replan"]["changes"].as_array().expect("changes");
    assert!(
        changes.iter().any(|change| change["kind"] == "added" && change["subject"] == "extract_source"),
        "{remedy}"
    );

    let known = daemon.get(&format!("/requests/{id}"));
    assert_eq!((&known["replans"][0]["version"], &known["replans"][0]["left"]), (&2.into(), &1.into()), "{known}");
    let told = explained(&daemon, &workspace, &id);
    for sentence in [
        "The run of version 1 of the plan failed",
        "works in one streaming task and may hold",
        "the agents negotiated anew",
        "Version 2, plan",
        "+ extract_source: runs from now on",
        "The run succeeded.",
    ] {
        assert!(told.contains(sentence), "no {sentence:?} in {told}");
    }
    let metrics = http::call(daemon.address, "GET", "/metrics", &[], b"");
    let counted = metrics.expect(200).body.lines().any(|line| {
        line.starts_with("dagwright_replans_total") && line.contains("class=\"resources\"") && line.ends_with(" 1")
    });
    assert!(counted, "{}", metrics.body);
}

#[test]
fn a_run_that_no_plan_finds_memory_for_ends_and_says_so() {
    let workspace = Workspace::new();
    workspace.write("in.csv", "id,text\n1,a\n");
    let worker = worker(&workspace, "exit 15");
    let daemon = Daemon::start(&workspace, &[("TASK__COMMAND", &worker)]);
    let receipt = submit(&daemon, &copy(&workspace, "{ approval: never }"), "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, data) = until(&daemon, &id, &ENDS);
    // One file cannot be read in parts: after fused and staged there is no other way.
    assert_eq!(kinds.last().map(String::as_str), Some("plan.deadlocked"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "run.started").count(), 2, "{kinds:?}");
    assert_eq!(data["error"]["code"], "DW0506", "{data}");
    let told = explained(&daemon, &workspace, &id);
    assert!(told.contains("version 1 of the plan did it fused, and task load_sink ran out of its"), "{told}");
    assert_eq!(daemon.get(&format!("/requests/{id}"))["state"], "deadlocked");

    let allowed = format!("{}/**", at(&workspace.path("")));
    let elsewhere = Workspace::new();
    let settings =
        [("TASK__COMMAND", worker.as_str()), ("NEGOTIATION__REPLANS_MAX", "1"), ("URIS__ALLOW", allowed.as_str())];
    let bounded = Daemon::start(&elsewhere, &settings);
    let receipt = submit(&bounded, &copy(&workspace, "{ approval: never }"), "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, data) = until(&bounded, &id, &ENDS);
    assert_eq!(kinds.last().map(String::as_str), Some("run.failed"), "{kinds:?}");
    let hint = data["error"]["hint"].as_str().expect("a hint");
    assert!(hint.ends_with("its plan was made anew once, as often as it may be"), "{hint}");
}

/// Starts a service whose first task finds another source than the one that its plan was sealed for.
fn drifting(workspace: &Workspace, before: &str, after: &str) -> Daemon {
    workspace.write("in.csv", before);
    workspace.write("next.csv", after);
    let folder = at(&workspace.path(""));
    let worker = worker(workspace, &format!("mv {folder}/next.csv {folder}/in.csv 2>/dev/null"));
    Daemon::start(workspace, &[("TASK__COMMAND", &worker)])
}

#[test]
fn a_breaking_change_waits_for_a_person_who_sees_both_schemas() {
    let workspace = Workspace::new();
    let daemon = drifting(&workspace, "id,text\n1,a\n2,b\n", "id,amount\n1,5\n2,6\n3,7\n");
    let spec = copy(&workspace, "{ schema_change: additive, approval: never }");
    let receipt = submit(&daemon, &spec, "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, needed) = until(&daemon, &id, &["approval.needed", "run.succeeded", "run.failed"]);
    assert_eq!(kinds.last().map(String::as_str), Some("approval.needed"), "{kinds:?}");
    let drift = &needed["drift"][0];
    assert_eq!((&drift["subject"], &drift["change"]), (&"source".into(), &"breaking".into()), "{needed}");
    let names = |columns: &Value| -> Vec<String> {
        columns.as_array().expect("columns").iter().map(|column| text(column, "name")).collect()
    };
    assert_eq!(names(&drift["before"]), ["id", "text"]);
    assert_eq!(names(&drift["after"]), ["id", "amount"]);

    let waiting = daemon.get(&format!("/requests/{id}"));
    assert_eq!((&waiting["state"], &waiting["drift"]), (&"awaiting_approval".into(), &needed["drift"]));
    let told = explained(&daemon, &workspace, &id);
    for sentence in ["The source source was: id int32, text string.", "The source source is: id int32, amount int32."] {
        assert!(told.contains(sentence), "no {sentence:?} in {told}");
    }
    daemon.run(&workspace, &["approve", &text(&needed, "plan_hash")]).expect(0);
    let (kinds, _) = until(&daemon, &id, &ENDS);
    assert_eq!(kinds.last().map(String::as_str), Some("run.succeeded"), "{kinds:?}");
    assert_eq!(rows(&workspace), ["3", "3"]);
}

#[test]
fn a_policy_that_allows_no_change_refuses_it_by_name() {
    let workspace = Workspace::new();
    let daemon = drifting(&workspace, "id,text\n1,a\n2,b\n", "id,amount\n1,5\n");
    let receipt = submit(&daemon, &copy(&workspace, "{ approval: never }"), "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, data) = until(&daemon, &id, &ENDS);
    assert_eq!(kinds.last().map(String::as_str), Some("request.rejected"), "{kinds:?}");
    assert_eq!(data["error"]["code"], "DW0207");
    let message = text(&data["error"], "message");
    assert!(message.contains("source source: column text is gone (it was string)"), "{message}");
    assert!(!workspace.path("out").exists(), "nothing was loaded");
}

#[test]
fn what_an_earlier_plan_staged_is_used_by_the_next_one() {
    let workspace = Workspace::new();
    let folder = at(&workspace.path(""));
    workspace.write("a.csv", "id,name\n1,ada\n2,bob\n");
    workspace.write("b.csv", "id,colour\n1,red\n2,blue\n");
    workspace.write("next.csv", "id,weight\n1,5\n2,6\n");
    // The first plan finds no memory, the second another source b.
    let before = format!(
        "if mkdir {folder}/tried 2>/dev/null; then exit 15; fi\nmv {folder}/next.csv {folder}/b.csv 2>/dev/null"
    );
    let worker = worker(&workspace, &before);
    let staging = workspace.path("staging");
    let settings = [("TASK__COMMAND", worker.as_str()), ("STAGING__URI", staging.to_str().expect("text"))];
    let daemon = Daemon::start(&workspace, &settings);
    let spec = format!(
        "version: 1\npipeline: joined\nsources: {{ a: {{ uri: {folder}/a.csv }}, b: {{ uri: {folder}/b.csv }} }}\n\
         transform: [{{ name: both, sql: \"SELECT a.name, b.* FROM a JOIN b USING (id)\" }}]\n\
         sink: {{ uri: {folder}/out/, format: parquet, mode: append, from: both }}\nretries: {{ max: 0 }}\n\
         policy: {{ schema_change: additive }}\n"
    );
    let receipt = submit(&daemon, &spec, "a").expect(202).json();
    let id = text(&receipt, "request_id");
    let (kinds, needed) = until(&daemon, &id, &[&["approval.needed"][..], &ENDS].concat());
    assert_eq!(kinds.last().map(String::as_str), Some("approval.needed"), "{kinds:?}");
    assert!(staging.join("joined").join(&id).join("a").is_dir(), "what was staged is kept");
    daemon.run(&workspace, &["approve", &text(&needed, "plan_hash")]).expect(0);
    let (kinds, _) = until(&daemon, &id, &ENDS);
    assert_eq!(kinds.last().map(String::as_str), Some("run.succeeded"), "{kinds:?}");
    assert_eq!(rows(&workspace), ["2", "2"]);
    let told = explained(&daemon, &workspace, &id);
    assert!(told.contains("extract_a found its effect there already"), "{told}");
    assert!(!told.contains("extract_b found its effect there already"), "{told}");
    assert!(!staging.join("joined").join(&id).exists(), "the last clean-up removes it");
}
