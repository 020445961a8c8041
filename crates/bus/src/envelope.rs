//! Negotiation messages on [`Topic::Agents`]: protobuf, keyed by session.

use dagwright_model::message::Envelope;
use dagwright_wire::envelope;

use crate::{Error, Record, Topic};

/// Renders a message for the bus.
#[must_use]
pub fn to_record(message: &Envelope) -> Record {
    Record { key: message.session.to_string(), payload: envelope::encode(message) }
}

/// Reads a message from the bus.
///
/// # Errors
/// [`Error::Unreadable`] when the bytes are no message; whoever sent them is not to be trusted.
pub fn from_record(record: &Record) -> Result<Envelope, Error> {
    envelope::decode(&record.payload)
        .map_err(|source| Error::Unreadable { topic: Topic::Agents, source: Box::new(source) })
}
