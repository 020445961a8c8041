//! Events as they happen: server-sent events, picked up again where a connection broke.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use chrono::{DateTime, Utc};
use dagwright_model::{
    code::Code,
    event::{EventData, EventKind},
    id::RequestId,
};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{Attempt, Client};
use crate::refusal::Refusal;

/// How often a stream is opened again in a row without an event in between.
const TRIES_MAX: u32 = 8;

/// The pause before it is opened again; each further one is twice as long, at most [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(200);

const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a stream may be silent: the service says every 15 s that it is still there.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The longest event that is read.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// How many requests' last events are remembered, to tell a repeat; older ones have long ended.
const REQUESTS_MAX: usize = 10_000;

/// An event as the service told it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `None` for a kind of a later version.
    pub(crate) kind: Option<EventKind>,
    /// Its name, as `run.succeeded`.
    pub(crate) name: String,
    pub(crate) time: Option<DateTime<Utc>>,
    pub(crate) data: EventData,
    /// All of it, as it came.
    pub(crate) whole: Value,
}

/// A stream of events.
pub(crate) struct Watch<'c> {
    client: &'c Client,
    path: String,
    open: Option<Response>,
    /// What came and is not yet a whole event.
    buffer: Vec<u8>,
    /// The position of the last event.
    after: Option<String>,
    /// The last event of each request: what comes after a break may have been told before it.
    told: HashMap<RequestId, u64>,
    failures: u32,
    /// What is watched may not be there yet.
    is_expected: bool,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    time: Option<DateTime<Utc>>,
    data: EventData,
}

// === impl Watch ===

impl<'c> Watch<'c> {
    /// Watches the events of a path below the API's root, as `/events?request=…`.
    pub(crate) fn new(client: &'c Client, path: String) -> Self {
        let (buffer, told) = (Vec::new(), HashMap::new());
        Self { client, path, open: None, buffer, after: None, told, failures: 0, is_expected: false }
    }

    /// Watches what was sent on its way and may not have arrived yet, as where requests go through Kafka.
    pub(crate) fn expecting(client: &'c Client, path: String) -> Self {
        Self { is_expected: true, ..Self::new(client, path) }
    }

    /// Opens the stream, so that nothing that happens from now on is missed.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub(crate) async fn open(&mut self) -> Result<()> {
        while self.open.is_none() {
            match self.client.stream(&self.path, self.after.as_deref()).await {
                Ok(stream) => (self.open, self.is_expected) = (Some(stream), false),
                Err(Attempt::Failed(error)) if self.is_expected && self.failures < TRIES_MAX && is_unknown(&error) => {
                    self.pause(None).await;
                }
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again { error, .. }) if self.failures >= TRIES_MAX => return Err(error),
                Err(Attempt::Again { wait, .. }) => self.pause(wait).await,
            }
        }
        Ok(())
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// When the service refuses, or cannot be reached any longer.
    pub(crate) async fn next(&mut self) -> Result<Seen> {
        loop {
            while let Some(block) = self.block() {
                if let Some(seen) = self.take(&block) {
                    self.failures = 0;
                    return Ok(seen);
                }
            }
            self.open().await?;
            let Some(stream) = &mut self.open else { continue };
            match tokio::time::timeout(SILENCE_MAX, stream.chunk()).await {
                Ok(Ok(Some(chunk))) if self.buffer.len() + chunk.len() <= EVENT_BYTES_MAX => {
                    self.buffer.extend_from_slice(&chunk);
                }
                // It ended, broke, fell silent or says too much: begin anew after the last event.
                _ => {
                    self.open = None;
                    self.buffer.clear();
                    self.pause(None).await;
                }
            }
        }
    }

    async fn pause(&mut self, wait: Option<Duration>) {
        let pause = PAUSE * 2_u32.pow(self.failures.min(TRIES_MAX));
        self.failures += 1;
        tokio::time::sleep(wait.unwrap_or(pause).min(PAUSE_MAX)).await;
    }

    /// Takes a whole block from what came: the lines before an empty one.
    fn block(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block = self.buffer.drain(..end + 2).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&block).into_owned())
    }

    /// Reads a block; `None` for what is no event, or was told before.
    fn take(&mut self, block: &str) -> Option<Seen> {
        let (mut name, mut data, mut position) = ("", String::new(), None);
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value,
                "data" => data.push_str(value),
                "id" => position = Some(value.to_owned()),
                _ => {}
            }
        }
        if let Some(position) = position {
            self.after = Some(position);
        }
        let whole: Value = serde_json::from_str(&data).ok()?;
        let envelope = Envelope::deserialize(&whole).ok()?;
        let sequence = envelope.id.rsplit('/').next().and_then(|text| text.parse().ok())?;
        if self.told.len() >= REQUESTS_MAX {
            self.told.clear();
        }
        let last = self.told.insert(envelope.data.request_id.clone(), sequence);
        if let Some(last) = last.filter(|last| sequence <= *last) {
            self.told.insert(envelope.data.request_id, last);
            return None;
        }
        let kind = EventKind::ALL.iter().copied().find(|kind| kind.as_str() == name);
        Some(Seen { kind, name: name.to_owned(), time: envelope.time, data: envelope.data, whole })
    }
}

/// Tells whether the service does not know what was asked for.
fn is_unknown(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Refusal::Problem(problem)) if problem.code == Code::RequestUnknown)
}
