//! Records as they come from topics and go to them.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use dagwright_model::code::Code;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{Place, Topics, ownership::Ownership};

/// Says where a forwarded request came from, as `topic/partition/offset`.
pub const FORWARDED_FROM: &str = "dagwright-forwarded-from";

/// Says with which code a dead letter died.
pub const ERROR_CODE: &str = "dagwright-error-code";

/// Says of what a dead letter died.
pub const ERROR: &str = "dagwright-error";

/// Says how often a dead letter was tried.
pub const ATTEMPTS: &str = "dagwright-attempts";

/// Says which record a dead letter was, as `topic/partition/offset`.
pub const ORIGIN: &str = "dagwright-origin";

/// Says which record a replayed dead letter was first, as `topic/partition/offset`; it stays however often it is replayed.
pub const REPLAY_OF: &str = "dagwright-replay-of";

/// A record's headers: names and values, in order.
pub type HeaderList = Vec<(String, Option<Vec<u8>>)>;

/// A record that somebody sent, with the right to act on it.
pub struct Received {
    /// Where it was, and what a commit rests on.
    pub ownership: Ownership,
    /// Its place in the partition.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its content.
    pub value: Option<Vec<u8>>,
    /// Its headers; empty when they are not [readable](Self::headers_readable).
    pub headers: HeaderList,
    /// Whether all of its headers have names that are text.
    pub headers_readable: bool,
    /// When it was sent, in milliseconds since the Unix epoch, where it says.
    pub timestamp: Option<i64>,
    /// The room that it takes; given back when it is dropped.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// A record to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its content; a ledger record without is one that was taken back.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: HeaderList,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The ledger's partition with the number of the partition on whose ownership the commit rests.
    Ledger,
    /// What the outside is told; the partition follows from the key.
    Events,
    /// What is asked for; the partition follows from the key.
    Requests,
    /// What agents say; the partition follows from the key.
    Agents,
    /// What could not be read.
    DeadLetters,
}

/// A record of the ledger.
#[derive(Clone, PartialEq, Eq)]
pub struct LedgerRecord {
    /// The partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its content; `None` takes back what was under the key.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: HeaderList,
}

// === impl Received ===

impl Received {
    /// Takes over a record; memory holds it once more from here on.
    pub(crate) fn of(message: &BorrowedMessage<'_>, ownership: Ownership) -> Self {
        let headers = headers_of(message);
        Self {
            ownership,
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers_readable: headers.is_some(),
            headers: headers.unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
            room: None,
        }
    }

    /// Returns the last value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    /// Returns which try this is, from 1: a replayed dead letter says so.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        attempts_in(&self.headers).unwrap_or(1)
    }

    /// Returns where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        let ownership = &self.ownership;
        Place { topic: ownership.topic().into(), partition: ownership.partition(), offset: self.offset }
    }

    /// Returns which record it was first, when it is a replayed dead letter and says so.
    #[must_use]
    pub fn replay_of(&self) -> Option<Place> {
        place_in(&self.headers, REPLAY_OF)
    }

    /// Returns what to write to send it where its pipeline is at home.
    #[must_use]
    pub fn forward(&self, pipeline: &str) -> Outgoing {
        let mut headers = self.headers.clone();
        headers.push((FORWARDED_FROM.into(), Some(self.place().to_string().into_bytes())));
        Outgoing { to: Destination::Requests, key: Some(pipeline.into()), value: self.value.clone(), headers }
    }

    /// Returns what to write to put it to the dead letters, with the reason.
    #[must_use]
    pub fn dead_letter(&self, code: Code, error: &str) -> Outgoing {
        let mut headers = without_verdict(&self.headers);
        headers.push((ERROR_CODE.into(), Some(code.to_string().into_bytes())));
        headers.push((ERROR.into(), Some(error.into())));
        headers.push((ATTEMPTS.into(), Some(self.attempt().to_string().into_bytes())));
        headers.push((ORIGIN.into(), Some(self.place().to_string().into_bytes())));
        Outgoing { to: Destination::DeadLetters, key: self.key.clone(), value: self.value.clone(), headers }
    }
}

impl fmt::Debug for Received {
    /// Without content: that is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("topic", &self.ownership.topic())
            .field("partition", &self.ownership.partition())
            .field("offset", &self.offset)
            .field("bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Makes a record without headers.
    #[must_use]
    pub fn new(to: Destination, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { to, key: Some(key.into()), value: Some(value.into()), headers: Vec::new() }
    }

    /// Returns the length of everything.
    #[must_use]
    pub fn len(&self) -> usize {
        let of = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + of(value)).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// Tells whether it has neither key nor content nor headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn native_headers(&self) -> Option<OwnedHeaders> {
        native(&self.headers)
    }
}

impl fmt::Debug for Outgoing {
    /// Without content, as that may be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("to", &self.to).field("bytes", &self.len()).finish_non_exhaustive()
    }
}

// === impl Destination ===

impl Destination {
    pub(crate) fn topic(self, topics: &Topics) -> &str {
        match self {
            Self::Ledger => &topics.ledger,
            Self::Events => &topics.events,
            Self::Requests => &topics.requests,
            Self::Agents => &topics.agents,
            Self::DeadLetters => &topics.dead_letters,
        }
    }
}

// === impl LedgerRecord ===

impl LedgerRecord {
    pub(crate) fn of(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers_of(message).unwrap_or_default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }
}

impl fmt::Debug for LedgerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = (self.partition, self.offset);
        f.debug_struct("LedgerRecord").field("place", &place).field("bytes", &self.len()).finish_non_exhaustive()
    }
}

/// Returns headers as librdkafka takes them.
pub(crate) fn native(headers: &[(String, Option<Vec<u8>>)]) -> Option<OwnedHeaders> {
    let add = |into: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
        into.insert(Header { key: name, value: value.as_ref() })
    };
    (!headers.is_empty()).then(|| headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), add))
}

/// Returns the headers without what an earlier death left in them.
pub(crate) fn without_verdict(headers: &[(String, Option<Vec<u8>>)]) -> HeaderList {
    let is_verdict = |name: &str| [ERROR_CODE, ERROR, ATTEMPTS, ORIGIN].contains(&name);
    headers.iter().filter(|(name, _)| !is_verdict(name)).cloned().collect()
}

/// Returns how often headers say that a record was tried.
pub(crate) fn attempts_in(headers: &[(String, Option<Vec<u8>>)]) -> Option<u32> {
    let (_, value) = headers.iter().rev().find(|(name, _)| name == ATTEMPTS)?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
}

/// Returns the place that a header names.
pub(crate) fn place_in(headers: &[(String, Option<Vec<u8>>)], name: &str) -> Option<Place> {
    let (_, value) = headers.iter().rev().find(|(known, _)| known == name)?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
}

/// Returns a message's headers; `None` when a name among them is no text.
pub(crate) fn headers_of(message: &BorrowedMessage<'_>) -> Option<HeaderList> {
    let Some(headers) = message.headers() else { return Some(Vec::new()) };
    let read = || headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect();
    // The library panics over a name that is no UTF-8, which anybody may send; that must not end us.
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Keeps the topic's name once for all of its records.
pub(crate) type TopicName = Arc<str>;
