//! `/feedback`: takes in what Airflow's listener posts of runs and tasks.
//!
//! It shows by a signature who it is, not by a token: the listener is no caller who may see or ask for anything. What the
//! statuses mean to it stands in docs/airflow.md: 400, 409, 413, 415 and 422 give an event up, any other one keeps it, so
//! none of those is answered for what a change of a setting could mend.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Data, Payload},
};
use chrono::Utc;
use dagwright_engine::airflow::told::{
    Ear, Refused,
    posted::{self, EVENT_BYTES_MAX, Posted},
};
use dagwright_model::code::Code;

use super::{
    auth::Gate,
    body::{self, Bound},
    fault::Fault,
};
use crate::{
    feedback::metrics::{self, Outcome, Source},
    outlets::signature::Signer,
    serve::State,
};

/// How far the clocks of Airflow's machines and of this one may be apart, in seconds. An event that waited in a spool is
/// signed anew whenever it is posted, so this is not about its age.
const SKEW_S_MAX: u64 = 300;

/// Takes in one event.
#[utoipa::path(
    post, path = "/feedback", tag = "feedback",
    description = "Takes one event of Airflow's listener (package dagwright-airflow). Not called with a token but signed, as \
                   docs/airflow.md says. An event that is posted again changes nothing.",
    params(
        ("webhook-id" = String, Header, description = "The event's id"),
        ("webhook-timestamp" = String, Header, description = "When it is posted, in seconds since the Unix epoch; at most five minutes off"),
        ("webhook-signature" = String, Header, description = "`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64; several with blanks between them"),
    ),
    request_body(content((ref("#/components/schemas/FeedbackEvent") = "application/json"))),
    responses(
        (status = 204, description = "It was taken in, now or before"),
        (status = 400, description = "DW0801: the body breaks off or does not decode; DW0121: it is no JSON object", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 401, description = "DW0820: the signature is missing, not by a secret of airflow.feedback, or too old", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 403, description = "DW0806: airflow.feedback has no secret, or the engine is not Airflow", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 408, description = "DW0819: the body took too long to arrive", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 413, description = "DW0802: the event is too large", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 415, description = "DW0801: the content type or encoding is not read", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 422, description = "DW0121: the event is not as docs/feedback.schema.json says", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0812: the service is about to stop", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn take(
    state: Data<State>,
    gate: Data<Gate>,
    http: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Fault> {
    let read = async {
        let (ear, signer) = open(&state)?;
        let posted = read(&state, &signer, &http, payload).await?;
        Ok((ear, posted))
    };
    match read.await {
        Ok((ear, posted)) => {
            state.feedback.take(&*ear, posted);
            Ok(HttpResponse::NoContent().finish())
        }
        Err(fault) => {
            metrics::count(Source::Http, Outcome::Refused);
            Err(gate.refuse("airflow", &http, fault))
        }
    }
}

/// Returns who hears, and what posts are checked by.
fn open(state: &Data<State>) -> Result<(Arc<dyn Ear>, Arc<Signer>), Fault> {
    let closed = |detail, hint| Fault::new(StatusCode::FORBIDDEN, Code::NotAllowed, detail, hint);
    let Some(ear) = &state.ear else {
        let detail = "this daemon's engine is not Airflow, so it follows no run there";
        return Err(closed(
            detail,
            "set DAGWRIGHT_FEEDBACK_URL to a daemon with an engine on this Airflow, or unset it",
        ));
    };
    let Some(signer) = state.feedback.signer() else {
        let detail = "this daemon has no secret that Airflow's events are checked by";
        return Err(closed(detail, "set airflow.feedback.secret_file or secret_env, see docs/airflow.md"));
    };
    if state.closing.is_cancelled() {
        let detail = "the service is about to stop";
        return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, detail, "post it again later"));
    }
    Ok((ear.clone(), signer))
}

/// Reads an event, and believes it once its signature shows whose it is.
async fn read(state: &Data<State>, signer: &Signer, http: &HttpRequest, payload: Payload) -> Result<Posted, Fault> {
    let media_type = text(http, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let detail = "the content type is not read";
        let (status, hint) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json");
        return Err(Fault::new(status, Code::RequestInvalid, detail, hint));
    }
    let timeout = Duration::from_millis(state.config.http.timeout.0);
    let bound = Bound { timeout, bytes_max: EVENT_BYTES_MAX, hint: "no event of Airflow's is larger" };
    let body = body::within(http, payload, bound).await?;
    let id = text(http, "webhook-id").ok_or_else(|| unsigned("the header webhook-id is missing"))?;
    check(signer, http, id, &body, Utc::now().timestamp())?;
    let posted = posted::read(&body).map_err(unreadable)?;
    if posted.id != id {
        let detail = "the header webhook-id is not the event's id";
        let hint = "post the event as the listener wrote it";
        return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, Code::MessageInvalid, detail, hint));
    }
    Ok(posted)
}

/// Checks that what was posted is signed, and was so a moment ago.
fn check(signer: &Signer, http: &HttpRequest, id: &str, body: &[u8], now: i64) -> Result<(), Fault> {
    let signatures =
        text(http, "webhook-signature").ok_or_else(|| unsigned("the header webhook-signature is missing"))?;
    let timestamp = text(http, "webhook-timestamp").and_then(|text| text.parse::<u64>().ok());
    let timestamp = timestamp.ok_or_else(|| unsigned("the header webhook-timestamp has no time"))?;
    if !signer.verify(id, timestamp, body, signatures) {
        return Err(unsigned("the signature is by none of the secrets"));
    }
    // Said to those alone who know a secret, so that they look at their clock.
    if now.unsigned_abs().abs_diff(timestamp) > SKEW_S_MAX {
        return Err(unsigned("the signature is more than five minutes old, or one clock is wrong"));
    }
    Ok(())
}

fn unreadable(refused: Refused) -> Fault {
    let status = match refused {
        Refused::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::NoObject => StatusCode::BAD_REQUEST,
        Refused::Version { .. } | Refused::Field { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let hint =
        "docs/feedback.schema.json says what an event is; dagwright-airflow and the daemon should be of one version";
    Fault::new(status, refused.code(), format!("the event cannot be taken in: {refused}"), hint)
}

fn unsigned(detail: &str) -> Fault {
    let hint = "give Airflow and the daemon the same secret, and their machines the right time; see docs/airflow.md";
    Fault::new(StatusCode::UNAUTHORIZED, Code::SignatureInvalid, detail, hint)
}

fn text<'a>(http: &'a HttpRequest, name: &str) -> Option<&'a str> {
    http.headers().get(name).and_then(|value| value.to_str().ok())
}
