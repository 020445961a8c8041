//! A receiver of events as they are: the request is that of the CloudEvents HTTP binding, with the headers of Standard
//! Webhooks and the event's trace context.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use async_trait::async_trait;
use dagwright_wire::cloudevent::{Binding, CloudEvent, STRUCTURED_JSON};
use url::Url;

use super::{
    endpoint::{Endpoint, send},
    receiver::Receiver,
    signature::Signer,
    verdict::Verdict,
};
use crate::config::webhooks::Mode;

/// A receiver of events.
pub(super) struct Webhook {
    endpoint: Endpoint,
    mode: Mode,
    signer: Option<Signer>,
}

// === impl Webhook ===

impl Webhook {
    /// Makes a receiver; connects to nothing yet.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub(super) fn new(url: Url, mode: Mode, signer: Option<Signer>, timeout: Duration) -> Result<Self> {
        Ok(Self { endpoint: Endpoint::new(url, timeout)?, mode, signer })
    }
}

#[async_trait]
impl Receiver for Webhook {
    async fn tell(&self, event: &CloudEvent) -> Verdict {
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
        let mut post = self.endpoint.post();
        for (name, value) in headers {
            post = post.header(name, value);
        }
        post = post.header("webhook-id", &event.id).header("webhook-timestamp", timestamp.to_string());
        if let Some(signer) = &self.signer {
            post = post.header("webhook-signature", signer.sign(&event.id, timestamp, &body));
        }
        if let Some(traceparent) = event.extensions.get("traceparent") {
            post = post.header("traceparent", traceparent);
        }
        send(post.body(body)).await
    }
}
