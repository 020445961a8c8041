//! `/livez` and `/readyz`.

use actix_web::{HttpResponse, web};

use crate::serve::State;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/livez", web::get().to(livez)).route("/readyz", web::get().to(readyz));
}

/// Answers as long as the process answers at all.
async fn livez() -> HttpResponse {
    HttpResponse::Ok().body("ok\n")
}

/// Tells whether requests are taken on.
async fn readyz(state: web::Data<State>) -> HttpResponse {
    if state.service.is_ready() {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body("requests are not taken on\n")
    }
}
