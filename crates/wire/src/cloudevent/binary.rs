//! Binary mode: attributes in headers, the data as the body.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use super::{
    Binding, CloudEvent, Data, Encoded, Message,
    attributes::{Attributes, REQUIRED},
};
use crate::Error;

/// What HTTP headers carry percent-encoded: blanks, quotes, percent signs, and all that is no printable ASCII.
const HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Reads a message in binary mode; `None` when it has none of the attributes that every event has.
pub(super) fn decode(message: Message<'_>, content_type: Option<String>) -> Result<Option<CloudEvent>, Error> {
    let of_event: Vec<_> = message
        .headers
        .iter()
        .filter_map(|(name, value)| Some((attribute_name(message.binding, name)?, *value)))
        .collect();
    if !of_event.iter().any(|(name, _)| REQUIRED.contains(&&**name)) {
        return Ok(None);
    }
    let mut attributes = Attributes::default();
    for (name, value) in of_event {
        if name == "datacontenttype" {
            return Err(Error::attribute(&name, "the header content-type, and no header of its own"));
        }
        let text = match message.binding {
            Binding::Http => from_http(&name, value)?,
            Binding::Kafka => {
                String::from_utf8(value.to_vec()).map_err(|_| Error::attribute(&name, "text in UTF-8"))?
            }
        };
        attributes.insert(&name, text)?;
    }
    if let Some(content_type) = content_type {
        attributes.insert("datacontenttype", content_type)?;
    }
    let body = (!message.body.is_empty()).then_some(message.body);
    attributes.into_event(|media_type| body.map(|body| Data::of(body, media_type)).transpose()).map(Some)
}

/// Renders an event in binary mode.
pub(super) fn encode(event: &CloudEvent, binding: Binding) -> Encoded {
    let value = |text: String| match binding {
        Binding::Http => utf8_percent_encode(&text, HEADER).to_string().into_bytes(),
        Binding::Kafka => text.into_bytes(),
    };
    let named = event.attributes().into_iter();
    let mut headers: Vec<_> = named.map(|(name, text)| (format!("{}{name}", prefix(binding)), value(text))).collect();
    let content_type = event.datacontenttype.iter();
    headers.extend(content_type.map(|text| ("content-type".to_owned(), text.clone().into_bytes())));
    Encoded { headers, body: event.data.as_ref().map(Data::bytes).unwrap_or_default().to_vec() }
}

fn prefix(binding: Binding) -> &'static str {
    match binding {
        Binding::Http => "ce-",
        Binding::Kafka => "ce_",
    }
}

/// Returns the name of the attribute that a header carries, if it carries one.
fn attribute_name(binding: Binding, header: &str) -> Option<Cow<'_, str>> {
    let start = header.get(..prefix(binding).len())?;
    let name = &header[start.len()..];
    match binding {
        // HTTP's names have no case.
        Binding::Http => start.eq_ignore_ascii_case(prefix(binding)).then(|| name.to_ascii_lowercase().into()),
        Binding::Kafka => (start == prefix(binding)).then(|| name.into()),
    }
}

/// Reads the value of an HTTP header: quotes are taken off, then one round of percent-decoding is done.
fn from_http(name: &str, value: &[u8]) -> Result<String, Error> {
    let value = value.trim_ascii();
    if !value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(Error::attribute(name, "printable ASCII; write the rest as percent-encoded UTF-8"));
    }
    let unquoted = match value.strip_prefix(b"\"") {
        Some(rest) => unquoted(rest).ok_or_else(|| Error::attribute(name, "closed by the quote it opens with"))?,
        None => value.to_vec(),
    };
    let mut percents = unquoted.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    let is_escape = |at: usize| unquoted.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !percents.all(|(at, _)| is_escape(at)) {
        return Err(Error::attribute(name, "percent-encoded: after each % stand two hexadecimal digits"));
    }
    let text = percent_decode(&unquoted).decode_utf8();
    text.map(Cow::into_owned).map_err(|_| Error::attribute(name, "percent-encoded UTF-8"))
}

/// Reads the rest of a quoted string (RFC 7230, section 3.2.6) up to its end, which must be the end of the value.
fn unquoted(rest: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
}
