//! Every error of the API as RFC 9457 problem details: with a code, without stacks, paths of this machine or secrets.
//!
//! What callers can do something about is told in full; of what they cannot, the log has the details and they have the
//! code.

use std::{fmt, future::Future, panic::AssertUnwindSafe};

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
};
use dagwright_agents::service::Refused;
use dagwright_model::{code::Code, spec::Diagnostics, task::Problem};
use dagwright_telemetry::chain::ErrorChain;
use futures::FutureExt as _;

use super::health;
use crate::{admission::Rejected, api::Details};

/// The media type of problem details.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request of a caller is not fulfilled.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    details: Box<Details>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The code that an answer tells, for whoever counts answers.
pub(super) struct Told(pub(super) String);

// === impl Fault ===

impl Fault {
    pub(crate) fn new(status: StatusCode, code: Code, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        let details = Details {
            kind: format!("urn:dagwright:error:{code}"),
            title: code.title().into(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_string(),
            hint: hint.into(),
            ..Details::default()
        };
        Self { status, details: Box::new(details), headers: Vec::new() }
    }

    /// Something about the HTTP request itself is wrong.
    pub(crate) fn bad(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::RequestInvalid, detail, hint)
    }

    /// There is no such thing, or none that the caller may see: they are not told which.
    pub(crate) fn unknown(what: &str, id: &str) -> Self {
        let detail = format!("there is no {what} {id:?}");
        let fault = Self::new(StatusCode::NOT_FOUND, Code::RequestUnknown, detail, "check the id");
        fault.about(id)
    }

    /// Something is wrong here, and the log says what.
    pub(crate) fn internal(code: Code) -> Self {
        let detail = "the service could not do it; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail, "tell its operators, with the time")
    }

    #[must_use]
    pub(crate) fn about(mut self, subject: &str) -> Self {
        self.details.subject = subject.into();
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        self.headers.extend(value.try_into().ok().map(|value| (name, value)));
        self
    }

    /// Returns the code, for the log.
    pub(crate) fn code(&self) -> &str {
        &self.details.code
    }

    /// Explains a status that something else than a handler answered with.
    fn of_status(status: StatusCode) -> Self {
        let (code, detail, hint) = match status {
            StatusCode::NOT_FOUND => {
                (Code::RequestUnknown, "there is nothing at this path", "/api/v1/openapi.json lists what there is")
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                (Code::RequestInvalid, "this path does not take that method", "the header Allow lists those it takes")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                (Code::RequestTooLarge, "the body is larger than http.body_max allows", "send less")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                (Code::RequestInvalid, "this content type or encoding is not read", "send JSON or YAML")
            }
            StatusCode::REQUEST_TIMEOUT => {
                (Code::RequestSlow, "the request took longer to arrive than http.timeout allows", "send it again")
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                (Code::Overloaded, "the service has more to do than it takes on", "send it again later")
            }
            status if status.is_client_error() => {
                (Code::RequestInvalid, "the request is not valid", "see docs/http.md")
            }
            _ => return Self::internal(Code::Internal),
        };
        Self::new(status, code, detail, hint)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.details.code, self.details.detail)
    }
}

impl std::error::Error for Fault {}

impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.clone()));
        }
        // Texts and numbers: there is nothing to fail on.
        let body = serde_json::to_vec(&self.details).unwrap_or_default();
        let mut response =
            response.insert_header((header::CACHE_CONTROL, "no-store")).content_type(MEDIA_TYPE).body(body);
        response.extensions_mut().insert(Told(self.details.code.clone()));
        response
    }
}

impl From<Diagnostics> for Fault {
    fn from(diagnostics: Diagnostics) -> Self {
        let first = diagnostics.0.first();
        let code = first.map_or(Code::RequestInvalid, |diagnostic| diagnostic.code);
        let detail = match (diagnostics.0.as_slice(), first) {
            ([only], _) => only.message.clone(),
            (all, _) => format!("{} things are wrong; see diagnostics", all.len()),
        };
        let hint = first.map(|diagnostic| diagnostic.hint.clone()).unwrap_or_default();
        let mut fault = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail, hint);
        fault.details.diagnostics = diagnostics.0;
        fault
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        let Problem { code, subject, message, hint } = problem;
        match status(code) {
            StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(%code, subject, message, "could not answer");
                Self::internal(code)
            }
            status => Self::new(status, code, message, hint).about(&subject),
        }
    }
}

impl From<dagwright_store::Error> for Fault {
    fn from(error: dagwright_store::Error) -> Self {
        use dagwright_store::Error as StoreError;
        if let StoreError::Elsewhere { .. } | StoreError::Unreached { .. } = error {
            tracing::warn!(error = %ErrorChain(&error), "could not write to the ledger");
            let status = match error.code() {
                Code::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            return Self::new(status, error.code(), error.to_string(), error.hint());
        }
        tracing::error!(error = %ErrorChain(&error), "could not use the ledger");
        Self::internal(error.code())
    }
}

impl From<dagwright_wire::Error> for Fault {
    fn from(error: dagwright_wire::Error) -> Self {
        let status = match &error {
            dagwright_wire::Error::Attribute { attribute, .. } if attribute == "header content-type" => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            error => status(error.code()),
        };
        Self::new(status, error.code(), ErrorChain(&error).to_string(), "docs/http.md shows what a request looks like")
    }
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Invalid(diagnostics) => diagnostics.into(),
            Rejected::Problem(problem) => problem.into(),
            Rejected::Store(error) => error.into(),
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problem(problem) => problem.into(),
            Refused::Store(error) => error.into(),
        }
    }
}

/// Sees to it that every error has problem details: what actix answers by itself, and panics.
pub(super) async fn explain<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // What is not ready says why by itself.
    let is_readiness = request.path() == health::READY;
    let response = caught(next.call(request)).await??.map_into_boxed_body();
    let status = response.status();
    let is_explained = || {
        let media_type = response.headers().get(header::CONTENT_TYPE);
        media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(MEDIA_TYPE.as_bytes()))
    };
    if is_readiness || !(status.is_client_error() || status.is_server_error()) || is_explained() {
        return Ok(response);
    }
    let allowed = response.headers().get(header::ALLOW).cloned();
    let mut fault = Fault::of_status(status);
    fault.headers.extend(allowed.map(|methods| (header::ALLOW, methods)));
    Ok(response.into_response(fault.error_response()))
}

/// Turns a panic into a fault: one request fails, and the connection gets an answer.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Fault> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| {
        tracing::error!("a handler panicked");
        Fault::internal(Code::Internal)
    })
}

/// Returns the status that a code is told with.
fn status(code: Code) -> StatusCode {
    match code {
        Code::RequestInvalid => StatusCode::BAD_REQUEST,
        Code::Unauthenticated | Code::SignatureInvalid => StatusCode::UNAUTHORIZED,
        Code::NotAllowed | Code::ScopeMissing | Code::ApprovalOwn => StatusCode::FORBIDDEN,
        Code::RequestUnknown | Code::DeadLetterUnknown => StatusCode::NOT_FOUND,
        Code::RequestSlow => StatusCode::REQUEST_TIMEOUT,
        Code::NothingToDecide | Code::RevisionStale | Code::PipelinePaused => StatusCode::CONFLICT,
        Code::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::ConnectionMissing => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        // The spec's own.
        code if code.number() < 200 => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
