//! `/metrics`: what is measured, for Prometheus; and the measuring of answers.

use std::time::Instant;

use actix_web::{
    Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::StatusCode,
    middleware::{Next, from_fn},
    web,
};
use dagwright_model::record::Ingress;
use prometheus::{Encoder, Registry, TextEncoder};

use super::{
    auth::{self, May, Read},
    connections::{Held, Link},
    fault::Told,
};
use crate::metrics;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/metrics").wrap(from_fn(auth::guard)).route(web::get().to(show)));
}

async fn show(_: May<Read>, metrics: web::Data<Registry>) -> HttpResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&metrics.gather(), &mut text) {
        Ok(()) => HttpResponse::Ok().content_type(encoder.format_type()).body(text),
        Err(error) => {
            tracing::error!(%error, "could not write the metrics");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Measures every answer, and keeps its connection busy until it is sent.
pub(super) async fn measure<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Held>, Error> {
    let began = Instant::now();
    let method = request.method().clone();
    let busy = request.conn_data::<Link>().map(Link::asked);
    let answer = next.call(request).await;
    match &answer {
        Ok(answer) => {
            let route = answer.request().match_pattern();
            metrics::answered(route.as_deref(), method.as_str(), answer.status().as_u16(), began.elapsed());
            if let Some(Told(code)) = answer.response().extensions().get()
                && is_refusal(answer.status())
            {
                metrics::refused(Ingress::Http, code);
            }
        }
        Err(error) => {
            let status = error.as_response_error().status_code();
            metrics::answered(None, method.as_str(), status.as_u16(), began.elapsed());
        }
    }
    answer.map(|answer| answer.map_body(|_, body| Held::new(body, busy)))
}

/// Tells what was refused from what failed.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE
}
