//! `/metrics`: what is measured, for Prometheus; and the measuring of answers.

use std::{env, time::Instant};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web,
};
use prometheus::{Encoder, TextEncoder};

use crate::{
    config::{Http, Scope},
    metrics,
    serve::State,
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/metrics", web::get().to(show));
}

async fn show(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    if !may_read(&request, &state.live.now().http) {
        return HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Bearer")).finish();
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&state.metrics.gather(), &mut text) {
        Ok(()) => HttpResponse::Ok().content_type(encoder.format_type()).body(text),
        Err(error) => {
            tracing::error!(%error, "could not write the metrics");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Tells whether the caller holds a token with the scope `read`, where tokens are set.
fn may_read(request: &HttpRequest, http: &Http) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    let is_it = |wanted: String| {
        let given = given.unwrap_or_default();
        // Every byte is looked at, so that the time tells nothing of where they differ.
        let differences = wanted.bytes().zip(given.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        !wanted.is_empty() && wanted.len() == given.len() && differences == 0
    };
    http.tokens.is_empty()
        || http
            .tokens
            .values()
            .filter(|token| token.scopes.contains(&Scope::Read))
            .any(|token| env::var(&token.token_env).is_ok_and(is_it))
}

/// Measures every answer.
pub(super) async fn measure<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let began = Instant::now();
    let method = request.method().clone();
    let answer = next.call(request).await;
    match &answer {
        Ok(answer) => {
            let route = answer.request().match_pattern();
            metrics::answered(route.as_deref(), method.as_str(), answer.status().as_u16(), began.elapsed());
        }
        Err(error) => {
            let status = error.as_response_error().status_code();
            metrics::answered(None, method.as_str(), status.as_u16(), began.elapsed());
        }
    }
    answer
}
