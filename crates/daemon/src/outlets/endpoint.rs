//! Posts to one URL, once.
//!
//! Redirects are not followed, and no more is read of an answer than its head and a little of its body.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use reqwest::{RequestBuilder, Response, header};
use url::Url;

use super::verdict::{Verdict, judge};
use crate::client;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much is read of an answer's body, so that its connection can be used again; a longer one costs the connection.
const BODY_BYTES_MAX: usize = 16 << 10;

/// A URL that is posted to.
pub(super) struct Endpoint {
    http: reqwest::Client,
    url: Url,
}

// === impl Endpoint ===

impl Endpoint {
    /// Makes an endpoint; connects to nothing yet.
    ///
    /// # Errors
    /// When no client can be made, as when no certificate authority is known.
    pub(super) fn new(url: Url, timeout: Duration) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dagwright/", env!("CARGO_PKG_VERSION")));
        if client::is_loopback(&url) {
            http = http.no_proxy();
        }
        Ok(Self { http: http.build()?, url })
    }

    /// Returns a post, to be given headers and a body.
    pub(super) fn post(&self) -> RequestBuilder {
        self.http.post(self.url.clone())
    }
}

/// Sends a post and judges what comes back.
pub(super) async fn send(post: RequestBuilder) -> Verdict {
    match post.send().await {
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
