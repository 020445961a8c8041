//! Structured mode in protobuf: `io.cloudevents.v1.CloudEvent`.

use chrono::{DateTime, Datelike, Utc};
use prost::Message as _;
use prost_types::Timestamp;

use super::{
    CloudEvent, Data, YEAR_END,
    attributes::{Attributes, REQUIRED, time_text},
    base64,
};
use crate::{
    Error,
    cloudevents_proto::{self as proto, cloud_event::Data as WireData},
};

type Value = proto::cloud_event::cloud_event_attribute_value::Attr;

/// Reads an event.
pub(super) fn decode(body: &[u8]) -> Result<CloudEvent, Error> {
    let wanted = "a protobuf message of type io.cloudevents.v1.CloudEvent";
    let wire = proto::CloudEvent::decode(body).map_err(|_| Error::request("the event", wanted))?;
    let mut attributes = Attributes::default();
    for (name, value) in wire.attributes {
        if REQUIRED.contains(&name.as_str()) {
            return Err(Error::attribute(&name, "a field of the event, and not among its attributes"));
        }
        let value = value.attr.ok_or_else(|| Error::attribute(&name, "given a value"))?;
        attributes.insert(&name, canonical(&name, value)?)?;
    }
    // An absent field reads as empty; both are refused alike.
    for (name, value) in REQUIRED.into_iter().zip([wire.spec_version, wire.id, wire.source, wire.r#type]) {
        attributes.insert(name, value)?;
    }
    if let Some(WireData::ProtoData(any)) = &wire.data {
        // The format wants the type URL there, which need be no URI; `Data::Message` says it already.
        if attributes.get("dataschema") == Some(&any.type_url) {
            attributes.remove("dataschema");
        }
        if attributes.get("datacontenttype").is_none() {
            attributes.insert("datacontenttype", "application/protobuf".into())?;
        }
    }
    attributes.into_event(|content_type| {
        Ok(match wire.data {
            None => None,
            Some(WireData::BinaryData(bytes)) => Some(Data::of(&bytes, content_type)?),
            Some(WireData::TextData(text)) => Some(Data::of(text.as_bytes(), content_type)?),
            Some(WireData::ProtoData(any)) => Some(Data::Message { type_url: any.type_url, value: any.value }),
        })
    })
}

/// Returns the canonical text of an attribute.
fn canonical(name: &str, value: Value) -> Result<String, Error> {
    Ok(match value {
        Value::CeBoolean(value) => value.to_string(),
        Value::CeInteger(value) => value.to_string(),
        Value::CeString(text) | Value::CeUri(text) | Value::CeUriRef(text) => text,
        Value::CeBytes(bytes) => base64(&bytes),
        Value::CeTimestamp(timestamp) => {
            let time = instant(&timestamp);
            time_text(time.ok_or_else(|| Error::attribute(name, "an instant between the years 1 and 9999"))?)
        }
    })
}

fn instant(timestamp: &Timestamp) -> Option<DateTime<Utc>> {
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    DateTime::from_timestamp(timestamp.seconds, nanos).filter(|time| (1..YEAR_END).contains(&time.year()))
}
