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

/// Says that a record repeats the one before it of its partition and producer, which brokers had left open.
pub const REPEATED: &str = "dagwright-repeated";

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

/// Says how many bytes the content of a dead letter had that holds only the first of them.
pub const CUT_FROM: &str = "dagwright-cut-from";

/// The longest text that says of what a dead letter died; a spec may have a fault in every line.
const ERROR_BYTES_MAX: usize = 8 << 10;

/// A dead letter with less content than this is rather cut to nothing.
const CUT_BYTES_MIN: usize = 64;

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
    /// Its content; what is made of it shares the bytes.
    pub value: Option<Arc<[u8]>>,
    /// Its headers; empty when they are not [readable](Self::headers_readable).
    pub headers: HeaderList,
    /// Whether all of its headers have names that are text.
    pub headers_readable: bool,
    /// When it was sent, in milliseconds since the Unix epoch, where it says.
    pub timestamp: Option<i64>,
    /// The room that it takes; given back when it is dropped.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// The room that a record takes until this is dropped. Whoever makes a commit of the record holds it until that has its
/// outcome, so that what waits for a transaction stays bounded too.
#[derive(Debug)]
#[must_use = "what is dropped at once bounds nothing"]
pub struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A record to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: Destination,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its content; a ledger record without is one that was taken back.
    pub value: Option<Arc<[u8]>>,
    /// Its headers.
    pub headers: HeaderList,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The ledger's partition with the number of the partition on whose ownership the commit rests.
    Ledger,
    /// The ledger's partition with this number, whoever owns it: only what is asked of its owner.
    LedgerOf(i32),
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
            value: message.payload().map(Arc::from),
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

    /// Takes the room out, to hold it for longer than the record.
    pub fn take_room(&mut self) -> Room {
        Room { _permit: self.room.take() }
    }

    /// Returns the length of everything.
    pub(crate) fn len(&self) -> usize {
        len(self.key.as_deref(), self.value.as_deref(), &self.headers)
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

    /// Returns what to write to put it to the dead letters, with the reason. Of a long reason, the beginning is said.
    #[must_use]
    pub fn dead_letter(&self, code: Code, error: &str) -> Outgoing {
        let mut headers = without_verdict(&self.headers);
        headers.push((ERROR_CODE.into(), Some(code.to_string().into_bytes())));
        headers.push((ERROR.into(), Some(beginning(error, ERROR_BYTES_MAX).into_bytes())));
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
            .field("bytes", &self.value.as_deref().map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Makes a record without headers.
    #[must_use]
    pub fn new(to: Destination, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { to, key: Some(key.into()), value: Some(value.into().into()), headers: Vec::new() }
    }

    /// Returns the length of everything.
    #[must_use]
    pub fn len(&self) -> usize {
        len(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }

    /// Makes a dead letter shorter that the brokers did not take: down to `len` in all, or its content by half when it is
    /// not longer than that; then without what it came with, so that at least the verdict is told. False when nothing is
    /// left to leave out, and of other records.
    pub(crate) fn shorten(&mut self, len: usize) -> bool {
        if self.to != Destination::DeadLetters {
            return false;
        }
        let kept = self.value.as_deref().unwrap_or_default().len();
        if kept > 0 {
            let around = self.len() - kept;
            let room = len.saturating_sub(around);
            let room = if room < kept { room } else { kept / 2 };
            let room = if room < CUT_BYTES_MIN { 0 } else { room };
            self.value = self.value.as_deref().map(|value| Arc::from(&value[..room]));
            if !self.headers.iter().any(|(name, _)| name == CUT_FROM) {
                self.headers.push((CUT_FROM.into(), Some(kept.to_string().into_bytes())));
            }
            return true;
        }
        let before = self.headers.len();
        self.headers.retain(|(name, _)| is_verdict(name));
        self.key.take().is_some() || self.headers.len() < before
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
            Self::Ledger | Self::LedgerOf(_) => &topics.ledger,
            Self::Events => &topics.events,
            Self::Requests => &topics.requests,
            Self::Agents => &topics.agents,
            Self::DeadLetters => &topics.dead_letters,
        }
    }

    /// Returns the partition where it does not follow from the key; `owned` is the one on whose ownership a commit rests.
    pub(crate) fn partition(self, owned: Option<i32>) -> Option<i32> {
        match self {
            Self::Ledger => owned,
            Self::LedgerOf(partition) => Some(partition),
            Self::Events | Self::Requests | Self::Agents | Self::DeadLetters => None,
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
    headers.iter().filter(|(name, _)| !is_verdict(name)).cloned().collect()
}

fn is_verdict(name: &str) -> bool {
    [ERROR_CODE, ERROR, ATTEMPTS, ORIGIN, CUT_FROM].contains(&name)
}

fn len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(String, Option<Vec<u8>>)]) -> usize {
    let of = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    of(key) + of(value) + headers.iter().map(|(name, value)| name.len() + of(value.as_deref())).sum::<usize>()
}

/// Returns a text, or its beginning with a mark that more was there.
fn beginning(text: &str, len_max: usize) -> String {
    if text.len() <= len_max {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(len_max)])
}

/// Returns how many bytes the content had that was cut, as headers say.
pub(crate) fn cut_from_in(headers: &[(String, Option<Vec<u8>>)]) -> Option<u64> {
    let (_, value) = headers.iter().rev().find(|(name, _)| name == CUT_FROM)?;
    std::str::from_utf8(value.as_deref()?).ok()?.parse().ok()
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

/// Tells whether a record says that it [repeats](REPEATED) the one before it.
pub(crate) fn is_repeated(message: &BorrowedMessage<'_>) -> bool {
    headers_of(message).is_some_and(|headers| headers.iter().any(|(name, _)| name == REPEATED))
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

#[cfg(test)]
mod tests {
    use super::{CUT_FROM, Destination, ERROR_CODE, Outgoing, beginning};

    fn letter(value: &[u8]) -> Outgoing {
        let mut letter = Outgoing::new(Destination::DeadLetters, "key", value);
        letter.headers.push(("theirs".into(), Some(vec![b'x'; 100])));
        letter.headers.push((ERROR_CODE.into(), Some(b"DW0802".to_vec())));
        letter
    }

    #[test]
    fn a_dead_letter_keeps_as_much_as_is_taken() {
        let mut long = letter(&[7; 10_000]);
        assert!(long.shorten(8_000));
        assert!(long.len() <= 8_000 + CUT_FROM.len() + 5 && long.len() > 7_900, "{}", long.len());
        let cut_from = |letter: &Outgoing| {
            letter
                .headers
                .iter()
                .filter(|(name, _)| name == CUT_FROM)
                .map(|(_, value)| value.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut_from(&long), [Some(b"10000".to_vec())]);
        // The bound was not what it was said to be: by half each time, then what it came with, and never the verdict.
        let mut lengths = Vec::new();
        while long.shorten(8_000) {
            lengths.push(long.value.as_deref().map_or(0, <[u8]>::len));
        }
        assert!(lengths.windows(2).all(|pair| pair[0] > pair[1] || pair[1] == 0), "{lengths:?}");
        assert!(lengths.len() < 12, "{lengths:?}");
        let names: Vec<_> = long.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((long.key.as_deref(), names), (None, vec![ERROR_CODE, CUT_FROM]));
        assert_eq!(cut_from(&long), [Some(b"10000".to_vec())]);
    }

    #[test]
    fn only_dead_letters_are_cut() {
        let mut record = Outgoing { to: Destination::Ledger, ..letter(b"record") };
        assert!(!record.shorten(1));
        assert_eq!(record, Outgoing { to: Destination::Ledger, ..letter(b"record") });
    }

    #[test]
    fn a_long_reason_is_told_in_part() {
        assert_eq!(beginning("äöü", 6), "äöü");
        assert_eq!(beginning("äöü", 5), "äö…");
    }
}
