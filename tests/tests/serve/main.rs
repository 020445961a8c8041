//! The service end to end: real programs, real files, and the bytes on the wire.

mod anew;
mod commands;
mod endings;
mod manners;
mod secure;

use std::path::Path;

use dagwright_tests::{Workspace, daemon::Daemon, http};
use serde_json::Value;

/// Reads an example as a service can: with whole paths.
fn spec(workspace: &Workspace, example: &str) -> String {
    let folder = workspace.path("");
    let text = std::fs::read_to_string(workspace.path(&format!("examples/{example}"))).expect("an example");
    let at = |relative: &str| Path::new(&folder).join(relative).display().to_string();
    text.replace("uri: ../tests", &format!("uri: {}", at("tests")))
        .replace("uri: out", &format!("uri: {}", at("examples/out")))
}

/// Sends a spec, and returns what the service says.
fn submit(daemon: &Daemon, spec: &str, key: &str) -> http::Reply {
    let headers = [("content-type", "application/yaml"), ("idempotency-key", key)];
    http::call(daemon.address, "POST", "/api/v1/requests", &headers, spec.as_bytes())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

/// Waits for the last event of a request; returns the names of all its events.
fn until_the_end(daemon: &Daemon, request: &str) -> Vec<String> {
    let mut kinds = Vec::new();
    for told in http::Events::open(daemon.address, &format!("/api/v1/events?request={request}"), None) {
        kinds.push(told.event);
        let last = kinds.last().map(String::as_str);
        if matches!(
            last,
            Some("run.succeeded" | "run.failed" | "run.cancelled" | "request.rejected" | "plan.deadlocked")
        ) {
            break;
        }
    }
    kinds
}
