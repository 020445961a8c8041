//! `/livez` and `/readyz`.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use dagwright_agents::{Service, Team};
use dagwright_bus::kafka::Stats;
use serde_json::json;

/// Who knows whether this process does its part.
#[derive(Clone)]
pub(crate) enum Readiness {
    /// One that takes requests on.
    Service {
        service: Service,
        /// What is known of the part in the group; `None` without Kafka.
        kafka: Option<Arc<Stats>>,
    },
    /// One that only has agents.
    Agents(Arc<Team>),
}

/// Where readiness is told.
pub(super) const READY: &str = "/readyz";

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/livez", web::get().to(livez)).route(READY, web::get().to(readyz));
}

/// Answers as long as the process answers at all.
async fn livez() -> HttpResponse {
    HttpResponse::Ok().body("ok\n")
}

/// Tells whether the process does its part, and what stands in the way.
async fn readyz(readiness: web::Data<Readiness>) -> HttpResponse {
    let checks = match &**readiness {
        Readiness::Service { service, kafka } => {
            let mut checks = service.readiness().await;
            if let Some(kafka) = kafka {
                // Whoever has not read all of it would deny what it does not know yet.
                checks.push(("kafka", (!kafka.caught_up.get()).then(|| "the ledger is still being read".into())));
            }
            checks
        }
        Readiness::Agents(team) => vec![("agents", team.fault())],
    };
    let reasons: Vec<_> =
        checks.iter().filter_map(|(what, fault)| Some(json!({ "check": what, "reason": fault.as_ref()? }))).collect();
    let checked: Vec<_> = checks.iter().map(|(what, _)| what).collect();
    let body = json!({ "ready": reasons.is_empty(), "checked": checked, "reasons": reasons });
    if reasons.is_empty() { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
