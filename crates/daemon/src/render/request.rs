//! Requests of a service: one, or a list.

use dagwright_store::RequestState;

use super::{BAD, DIM, GOOD, HEADING, WARN, indented, number, problem, safe, styled, table};
use crate::api::Request;

/// Renders a request.
pub(crate) fn request(request: &Request) -> String {
    let mut rows = table();
    let mut line = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    line("pipeline", safe(&request.pipeline));
    line("requester", request.requester.as_deref().map_or_else(|| "nobody had to say".into(), safe));
    if let Some(identity) = &request.identity {
        line("called", format!("{} of {}", safe(&identity.id), safe(&identity.source)));
    }
    line("accepted", safe(&request.accepted_at));
    line("changed", safe(&request.changed_at));
    if let Some(plan) = &request.plan_hash {
        line("plan", safe(&plan.0));
    }
    for replan in &request.replans {
        let changes = number::counted(replan.changes.len() as u64, "change");
        line(&format!("version {}", replan.version), format!("{changes} after {}", replan.reason.code));
    }
    for drift in &request.drift {
        line("changed", safe(&drift.to_string()));
    }
    if let Some(rows) = &request.rows {
        let counted = [(rows.read, "read"), (rows.loaded, "loaded"), (rows.quarantined, "quarantined")];
        line("rows", counted.map(|(rows, what)| format!("{} {what}", number::count(rows))).join(", "));
    }
    let heading = format!("{} {}", styled(HEADING, safe(&request.request_id.0)), state(request.state));
    let problems: String = request.problems.iter().map(problem::problem).collect();
    format!("{heading}\n{}{problems}", indented(&rows))
}

/// Renders a list of requests.
pub(crate) fn requests(requests: &[Request]) -> String {
    let mut rows = table();
    for request in requests {
        let code = request.problems.first().map(|problem| problem.code.to_string()).unwrap_or_default();
        rows.add_row([
            safe(&request.request_id.0),
            safe(&request.pipeline),
            state(request.state),
            safe(&request.accepted_at),
            code,
        ]);
    }
    indented(&rows)
}

fn state(state: RequestState) -> String {
    let (style, word) = match state {
        RequestState::Negotiating => (DIM, "negotiating"),
        RequestState::Sealed => (DIM, "sealed"),
        RequestState::AwaitingApproval => (WARN, "awaiting approval"),
        RequestState::Deadlocked => (BAD, "deadlocked"),
        RequestState::Failed => (BAD, "failed"),
        RequestState::Running => (DIM, "running"),
        RequestState::Cancelling => (WARN, "cancelling"),
        RequestState::Cancelled => (WARN, "cancelled"),
        RequestState::Succeeded => (GOOD, "succeeded"),
    };
    styled(style, word)
}
