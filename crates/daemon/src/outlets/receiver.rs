//! Posts one event to a receiver, once.
//!
//! The request is that of the CloudEvents HTTP binding, with the headers of Standard Webhooks and the event's trace
//! context. Redirects are not followed, and no more is read of an answer than its head and a little of its body.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use dagwright_wire::cloudevent::{Binding, CloudEvent, STRUCTURED_JSON};
use reqwest::{Response, header};
use url::Url;

use super::{
    signature::Signer,
    verdict::{Verdict, judge},
};
use crate::{client, config::webhooks::Mode};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much is read of an answer's body, so that its connection can be used again; a longer one costs the connection.
const BODY_BYTES_MAX: usize = 16 << 10;

/// A receiver.
pub(super) struct Receiver {
    http: reqwest::Client,
    url: Url,
    mode: Mode,
    signer: Option<Signer>,
}

// === impl Receiver ===

impl Receiver {
    /// Makes a receiver; connects to nothing yet.
    ///
    /// # Errors
    /// When no client can be made, as when no certificate authority is known.
    pub(super) fn new(url: Url, mode: Mode, signer: Option<Signer>, timeout: Duration) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dagwright/", env!("CARGO_PKG_VERSION")));
        if client::is_loopback(&url) {
            http = http.no_proxy();
        }
        Ok(Self { http: http.build()?, url, mode, signer })
    }

    /// Posts an event.
    pub(super) async fn post(&self, event: &CloudEvent) -> Verdict {
        let (headers, body) = match self.mode {
            Mode::Structured => {
                let content_type = format!("{STRUCTURED_JSON}; charset=utf-8").into_bytes();
                (vec![("content-type".to_owned(), content_type)], event.to_structured())
            }
            Mode::Binary => {
                let encoded = event.to_binary(Binding::Http);
                (encoded.headers, encoded.body)
            }
        };
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self.http.post(self.url.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request = request.header("webhook-id", &event.id).header("webhook-timestamp", timestamp.to_string());
        if let Some(signer) = &self.signer {
            request = request.header("webhook-signature", signer.sign(&event.id, timestamp, &body));
        }
        if let Some(traceparent) = event.extensions.get("traceparent") {
            request = request.header("traceparent", traceparent);
        }
        match request.body(body).send().await {
            Ok(answer) => {
                let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let verdict = judge(answer.status().as_u16(), retry_after, SystemTime::now());
                discard(answer).await;
                verdict
            }
            // An attribute that cannot stand in a header: no receiver will ever see this event.
            Err(error) if error.is_builder() => Verdict::Refused { why: cause(error) },
            Err(error) => Verdict::Away { why: cause(error), retry_after: None },
        }
    }
}

/// Reads a short body to its end. What breaks off there was answered all the same.
async fn discard(mut answer: Response) {
    let mut bytes = 0;
    while bytes <= BODY_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes += chunk.len(),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Returns the innermost cause; the URL is nobody's business.
fn cause(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".into();
    }
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
