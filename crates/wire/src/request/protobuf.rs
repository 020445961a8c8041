//! A request as `dagwright.v1.PipelineRequest`.

use dagwright_model::request::Request;
use prost::{
    Message as _,
    encoding::{DecodeContext, decode_key, skip_field},
};

use crate::{Error, proto};

/// The numbers of the message's fields.
const FIELDS: std::ops::RangeInclusive<u32> = 1..=6;

/// Reads a request.
pub(super) fn read(bytes: &[u8]) -> Result<Request, Error> {
    check_fields(bytes)?;
    proto::PipelineRequest::decode(bytes).map_err(malformed)?.try_into()
}

/// Refuses fields that this version does not know. A decoder drops them, and what they ask for would not be done.
fn check_fields(mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(malformed)?;
        if !FIELDS.contains(&field) {
            let place = format!("field {field} of dagwright.v1.PipelineRequest");
            return Err(Error::Unknown { place, known: "1 to 6" });
        }
        skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(malformed)?;
    }
    Ok(())
}

fn malformed(_: prost::DecodeError) -> Error {
    Error::request("data", "a protobuf message of type dagwright.v1.PipelineRequest")
}
