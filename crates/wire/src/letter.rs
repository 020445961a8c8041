//! The bytes of the agents topic: letters between agents, and the word that an agent is there.
//!
//! Dagwright writes protobuf, and reads JSON as well: an agent of somebody else's needs nothing but a Kafka client, and
//! is written to in the encoding that it speaks itself. A record that begins with `{` is JSON, which no protobuf message
//! of the wanted type does.

use dagwright_model::{
    canonical,
    letter::{HOST_LENGTH_MAX, Letter, Post, Presence},
    message::Envelope,
};
use prost::Message as _;

use crate::{Error, proto};

/// The longest record, in bytes. The largest is a call for proposals with the profiles of a hundred sources, a few
/// megabytes.
pub const POST_BYTES_MAX: usize = 16 << 20;

/// The longest name of a session, in bytes: a request's id.
const SESSION_LENGTH_MAX: usize = 256;

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// A protobuf message `dagwright.v1.Post`.
    #[default]
    Protobuf,
    /// The same as JSON.
    Json,
}

/// Renders a record.
#[must_use]
pub fn encode(post: &Post, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => proto::Post::from(post).encode_to_vec(),
        Encoding::Json => canonical::to_bytes(post),
    }
}

/// Renders a message for whoever reads it in this process.
#[must_use]
pub fn encode_envelope(from_host: &str, envelope: &Envelope) -> Vec<u8> {
    let letter = proto::Letter {
        from_host: from_host.into(),
        to_host: String::new(),
        envelope: Some(proto::Envelope::from(envelope)),
    };
    proto::Post { post: Some(proto::post::Post::Letter(letter)) }.encode_to_vec()
}

/// Reads a record.
///
/// # Errors
/// [`Error::TooLong`] above [`POST_BYTES_MAX`], else what is wrong with the first bad field.
pub fn decode(bytes: &[u8]) -> Result<(Post, Encoding), Error> {
    if bytes.len() > POST_BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len(), bytes_max: POST_BYTES_MAX });
    }
    let (post, encoding) = if bytes.first() == Some(&b'{') {
        let read = serde_json::from_slice(bytes);
        let wrong =
            |error: serde_json::Error| Error::Json { field: "post", line: error.line(), column: error.column() };
        (read.map_err(wrong)?, Encoding::Json)
    } else {
        let read = proto::Post::decode(bytes).map_err(|source| Error::Malformed { message: "Post", source })?;
        (read.try_into()?, Encoding::Protobuf)
    };
    check(&post)?;
    Ok((post, encoding))
}

/// Checks what neither format does. Within a process letters bear no hosts.
fn check(post: &Post) -> Result<(), Error> {
    const WANTED: &str = "a name of at most 256 bytes without control characters";
    let is_name = |text: &str, length_max| text.len() <= length_max && !text.chars().any(char::is_control);
    let named = |text: &str, length_max, field| {
        if is_name(text, length_max) { Ok(()) } else { Err(Error::Invalid { field, wanted: WANTED }) }
    };
    let there = |text: &str, field| if text.is_empty() { Err(Error::Missing { field }) } else { Ok(()) };
    match post {
        Post::Letter(Letter { from_host, to_host, envelope }) => {
            named(from_host, HOST_LENGTH_MAX, "letter.from_host")?;
            named(to_host, HOST_LENGTH_MAX, "letter.to_host")?;
            there(&envelope.session.0, "envelope.session")?;
            named(&envelope.session.0, SESSION_LENGTH_MAX, "envelope.session")
        }
        Post::Presence(Presence { host, incarnation, .. }) => {
            there(host, "presence.host")?;
            there(incarnation, "presence.incarnation")?;
            named(host, HOST_LENGTH_MAX, "presence.host")?;
            named(incarnation, HOST_LENGTH_MAX, "presence.incarnation")
        }
    }
}
