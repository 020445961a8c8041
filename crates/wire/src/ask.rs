//! The bytes of what is asked of whoever acts for a pipeline, as the store and the ledger's topic keep them.

use dagwright_model::{
    ask::{Ask, AskKind},
    id::RequestId,
};
use prost::Message as _;

use crate::{Error, proto, record::RECORD_BYTES_MAX};

/// Returns the key in the ledger's topic, where records have `<request>/<sequence>`.
#[must_use]
pub fn key(request: &RequestId, kind: AskKind) -> String {
    format!("{request}/{}", kind.as_str())
}

/// Tells whether a key of the ledger's topic is that of an ask.
#[must_use]
pub fn is_key(key: &[u8]) -> bool {
    let last = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    AskKind::ALL.iter().any(|kind| kind.as_str().as_bytes() == last)
}

/// Renders an ask.
#[must_use]
pub fn encode(ask: &Ask) -> Vec<u8> {
    proto::Ask::from(ask).encode_to_vec()
}

/// Reads an ask.
///
/// # Errors
/// [`Error::TooLong`] above [`RECORD_BYTES_MAX`], else what is wrong with the first bad field.
pub fn decode(bytes: &[u8]) -> Result<Ask, Error> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len(), bytes_max: RECORD_BYTES_MAX });
    }
    proto::Ask::decode(bytes).map_err(|source| Error::Malformed { message: "Ask", source })?.try_into()
}
