//! Bodies: read whole, within a size and a time.

use std::time::Duration;

use actix_web::{
    FromRequest, HttpRequest,
    http::{StatusCode, header},
    web::{Bytes, Data, Payload},
};
use dagwright_model::code::Code;

use super::fault::Fault;
use crate::serve::State;

/// The encodings that are undone.
const ENCODINGS: [&str; 3] = ["identity", "gzip", "deflate"];

/// What a body is read within.
pub(super) struct Bound {
    pub(super) timeout: Duration,
    /// The limit that the route has, its encoding undone.
    pub(super) bytes_max: usize,
    /// What to do about one that is larger.
    pub(super) hint: &'static str,
}

/// Reads a body as the settings of the service allow, its encoding undone.
///
/// # Errors
/// When it is too large, takes too long, has an encoding that is not known, or breaks off.
pub(super) async fn read(request: &HttpRequest, payload: Payload, state: &Data<State>) -> Result<Bytes, Fault> {
    let http = &state.config.http;
    let bytes_max = usize::try_from(http.body_max.0).unwrap_or(usize::MAX);
    let hint = "specs hold no data; see http.body_max of the service";
    within(request, payload, Bound { timeout: Duration::from_millis(http.timeout.0), bytes_max, hint }).await
}

/// Reads a body on a route with a limit of its own, its encoding undone.
///
/// # Errors
/// As [`read`].
pub(super) async fn within(request: &HttpRequest, payload: Payload, bound: Bound) -> Result<Bytes, Fault> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        let known = |text: &str| ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(text.trim()));
        if !encoding.to_str().is_ok_and(known) {
            let hint = "send it plain, or with gzip";
            let detail = "the content encoding is not read";
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::RequestInvalid, detail, hint));
        }
    }
    let mut payload = payload.into_inner();
    let read = tokio::time::timeout(bound.timeout, Bytes::from_request(request, &mut payload)).await;
    let Ok(read) = read else {
        let detail = "the body took longer to arrive than http.timeout allows";
        return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, Code::RequestSlow, detail, "send it again")
            .with(header::CONNECTION, "close"));
    };
    read.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("the body is larger than {} bytes", bound.bytes_max);
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, detail, bound.hint)
        }
        _ => Fault::bad("the body breaks off or does not decode", "send it again"),
    })
}
