//! Structured mode in JSON: attributes and data in one object.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

use super::{CloudEvent, Data, JsonText, attributes::Attributes, base64};
use crate::{Error, json, media_type};

/// Reads an event.
pub(super) fn decode(body: &[u8]) -> Result<CloudEvent, Error> {
    let text = str::from_utf8(body).map_err(|_| Error::request("the event", "JSON in UTF-8"))?;
    let mut attributes = Attributes::default();
    let (mut data, mut data_base64) = (None, None);
    for (name, value) in json::members(text, "the event")? {
        match &*name {
            "data" => data = Some(value),
            "data_base64" => data_base64 = Some(value),
            _ => {
                if let Some(text) = attribute(&name, value)? {
                    attributes.insert(&name, text)?;
                }
            }
        }
    }
    let Some(encoded) = data_base64 else {
        if data.is_some() && attributes.get("datacontenttype").is_none() {
            // "Exactly equivalent", says the specification; only so can other formats carry the event on.
            attributes.insert("datacontenttype", mime::APPLICATION_JSON.to_string())?;
        }
        return attributes.into_event(|content_type| {
            let Some(value) = data else { return Ok(None) };
            if content_type.is_some_and(media_type::is_json) {
                let json = JsonText::new(value.get()).map_err(|error| Error::not_json("data", "JSON", &error))?;
                return Ok(Some(Data::Json(json)));
            }
            Ok(Some(Data::Bytes(text_of(value, "data")?.into_bytes())))
        });
    };
    if data.is_some() {
        return Err(Error::request("data_base64", "left out, for there is data; an event has one of them"));
    }
    let bytes = BASE64_STANDARD.decode(text_of(encoded, "data_base64")?);
    let bytes = bytes.map_err(|_| Error::request("data_base64", "base64 (RFC 4648, section 4, with padding)"))?;
    attributes.into_event(|content_type| Data::of(&bytes, content_type).map(Some))
}

/// Renders an event.
pub(super) fn encode(event: &CloudEvent) -> Vec<u8> {
    // Texts and JSON that was checked: there is nothing to fail on.
    serde_json::to_vec(&Structured(event)).unwrap_or_default()
}

struct Structured<'a>(&'a CloudEvent);

// === impl Structured ===

impl Serialize for Structured<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in event.attributes() {
            map.serialize_entry(name, &value)?;
        }
        if let Some(content_type) = &event.datacontenttype {
            map.serialize_entry("datacontenttype", content_type)?;
        }
        match &event.data {
            None => {}
            Some(Data::Json(text)) => map.serialize_entry("data", &text.0)?,
            Some(data) => map.serialize_entry("data_base64", &base64(data.bytes()))?,
        }
        map.end()
    }
}

/// Returns the canonical text of an attribute; `None` where it is null, which is the same as left out.
fn attribute(name: &str, value: &RawValue) -> Result<Option<String>, Error> {
    let wanted = "text, a whole number of 32 bits, true or false";
    let value: Value = match value.get().as_bytes() {
        // Not parsed, so that its nesting costs nothing.
        [b'{' | b'[', ..] => return Err(Error::attribute(name, wanted)),
        _ => serde_json::from_str(value.get()).map_err(|_| Error::attribute(name, wanted))?,
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        // The types of these attributes are texts; a number is none of them.
        _ if CORE.contains(&name) => Err(Error::attribute(name, "text")),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(number) => {
            let whole = number.as_i64().and_then(|number| i32::try_from(number).ok());
            whole.map(|number| Some(number.to_string())).ok_or_else(|| Error::attribute(name, wanted))
        }
        Value::Array(_) | Value::Object(_) => Err(Error::attribute(name, wanted)),
    }
}

/// The attributes that the specification itself defines; all are texts.
const CORE: [&str; 8] = ["specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"];

fn text_of(value: &RawValue, place: &'static str) -> Result<String, Error> {
    serde_json::from_str(value.get()).map_err(|_| Error::request(place, "text"))
}
