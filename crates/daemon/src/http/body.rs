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

/// Reads a body, its encoding undone.
///
/// # Errors
/// When it is too large, takes too long, has an encoding that is not known, or breaks off.
pub(super) async fn read(request: &HttpRequest, payload: Payload, state: &Data<State>) -> Result<Bytes, Fault> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING) {
        let known = |text: &str| ENCODINGS.iter().any(|known| known.eq_ignore_ascii_case(text.trim()));
        if !encoding.to_str().is_ok_and(known) {
            let hint = "send it plain, or with gzip";
            let detail = "the content encoding is not read";
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::RequestInvalid, detail, hint));
        }
    }
    let timeout = Duration::from_millis(state.config.http.timeout.0);
    let mut payload = payload.into_inner();
    let read = tokio::time::timeout(timeout, Bytes::from_request(request, &mut payload)).await;
    let Ok(read) = read else {
        let detail = "the body took longer to arrive than http.timeout allows";
        return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, Code::RequestSlow, detail, "send it again")
            .with(header::CONNECTION, "close"));
    };
    read.map_err(|error| match error.as_response_error().status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("the body is larger than {} bytes", state.config.http.body_max.0);
            let hint = "specs hold no data; see http.body_max of the service";
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, detail, hint)
        }
        _ => Fault::bad("the body breaks off or does not decode", "send it again"),
    })
}
