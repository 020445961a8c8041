//! `/livez` and `/readyz`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::serve::State;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/livez", web::get().to(livez)).route("/readyz", web::get().to(readyz));
}

/// Answers as long as the process answers at all.
async fn livez() -> HttpResponse {
    HttpResponse::Ok().body("ok\n")
}

/// Tells whether requests are taken on, and what stands in the way.
async fn readyz(state: web::Data<State>) -> HttpResponse {
    let mut checks = state.service.readiness().await;
    if let Some(kafka) = &state.kafka {
        // Whoever has not read all of it would deny what it does not know yet.
        checks.push(("kafka", (!kafka.caught_up.get()).then_some("the ledger is still being read")));
    }
    let reasons: Vec<_> =
        checks.iter().filter_map(|(what, fault)| Some(json!({ "check": what, "reason": fault.as_ref()? }))).collect();
    let checked: Vec<_> = checks.iter().map(|(what, _)| what).collect();
    let body = json!({ "ready": reasons.is_empty(), "checked": checked, "reasons": reasons });
    if reasons.is_empty() { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
