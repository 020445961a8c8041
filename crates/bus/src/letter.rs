//! Records on [`Topic::Agents`]: letters keyed by session, and presences keyed by host.

use dagwright_model::{
    letter::{Letter, Post},
    message::Envelope,
};
use dagwright_wire::letter::{self, Encoding};

use crate::{Error, Record, Topic};

/// Renders a record for other processes.
#[must_use]
pub fn to_record(post: &Post, encoding: Encoding) -> Record {
    let key = match post {
        Post::Letter(letter) => letter.envelope.session.to_string(),
        Post::Presence(presence) => presence.host.clone(),
    };
    Record { key, payload: letter::encode(post, encoding) }
}

/// Renders a message for an agent of this process; an answer is for `from_host`, or for this process where it is empty.
#[must_use]
pub fn within(from_host: &str, envelope: &Envelope) -> Record {
    Record { key: envelope.session.to_string(), payload: letter::encode_envelope(from_host, envelope) }
}

/// Reads a record, and tells how it was written.
///
/// # Errors
/// [`Error::Unreadable`] when the bytes are no record of this topic; whoever sent them is not to be trusted.
pub fn from_record(record: &Record) -> Result<(Post, Encoding), Error> {
    letter::decode(&record.payload)
        .map_err(|source| Error::Unreadable { topic: Topic::Agents, source: Box::new(source) })
}

/// Reads a letter, and passes over what is none.
///
/// # Errors
/// As [`from_record`].
pub fn letter_in(record: &Record) -> Result<Option<Letter>, Error> {
    Ok(match from_record(record)?.0 {
        Post::Letter(letter) => Some(letter),
        Post::Presence(_) => None,
    })
}
