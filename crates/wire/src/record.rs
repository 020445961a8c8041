//! The bytes of ledger records, as the store and the ledger topic keep them.

use dagwright_model::record::Record;
use prost::Message as _;

use crate::{Error, proto};

/// The longest record, in bytes. The largest are plans and split outcomes; 64 MiB is far above both, and far below
/// what would hurt a reader.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Renders a record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    proto::Record::from(record).encode_to_vec()
}

/// Reads a record.
///
/// # Errors
/// [`Error::TooLong`] above [`RECORD_BYTES_MAX`], else what is wrong with the first bad field.
pub fn decode(bytes: &[u8]) -> Result<Record, Error> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Error::TooLong { bytes: bytes.len(), bytes_max: RECORD_BYTES_MAX });
    }
    let record = proto::Record::decode(bytes).map_err(|source| Error::Malformed { message: "Record", source })?;
    record.try_into()
}
