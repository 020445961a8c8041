//! The bytes of negotiation messages, as the bus carries them.

use dagwright_model::message::Envelope;
use prost::Message as _;

use crate::{Error, proto};

/// The longest message, in bytes. The largest is a call for proposals with the profiles of a hundred sources, a few
/// megabytes.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 20;

/// Renders a message.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    proto::Envelope::from(envelope).encode_to_vec()
}

/// Reads a message.
///
/// # Errors
/// [`Error::TooLong`] above [`ENVELOPE_BYTES_MAX`], else what is wrong with the first bad field.
pub fn decode(bytes: &[u8]) -> Result<Envelope, Error> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len(), bytes_max: ENVELOPE_BYTES_MAX });
    }
    let envelope = proto::Envelope::decode(bytes).map_err(|source| Error::Malformed { message: "Envelope", source })?;
    envelope.try_into()
}
