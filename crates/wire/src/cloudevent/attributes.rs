//! The context attributes: their names, their types, and which must be there.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use fluent_uri::{Uri, UriRef};
use mime::Mime;

use super::{CloudEvent, Data};
use crate::{Error, error::shown, media_type, trace};

/// The one version that is spoken here.
pub(super) const SPECVERSION: &str = "1.0";

/// The attributes without which a message is no CloudEvent.
pub(super) const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The one name that attributes must not have, because formats call the data so.
const RESERVED: &str = "data";

/// The attributes of one event while it is read, as canonical text.
#[derive(Debug, Default)]
pub(super) struct Attributes(BTreeMap<String, String>);

// === impl Attributes ===

impl Attributes {
    /// Takes an attribute and checks what holds for every one.
    pub(super) fn insert(&mut self, name: &str, value: String) -> Result<(), Error> {
        check_name(name)?;
        if value.chars().any(is_disallowed) {
            return Err(Error::attribute(name, "text without control characters and Unicode's noncharacters"));
        }
        if self.0.insert(name.to_owned(), value).is_some() {
            return Err(Error::Twice { place: format!("attribute {}", shown(name)) });
        }
        Ok(())
    }

    /// Returns an attribute's text before it is checked further.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Takes an attribute out.
    pub(super) fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Checks what holds for each attribute, and reads the data by its content type.
    pub(super) fn into_event(
        mut self,
        data: impl FnOnce(Option<&Mime>) -> Result<Option<Data>, Error>,
    ) -> Result<CloudEvent, Error> {
        // First, because another version has other rules for all the rest.
        match self.remove("specversion").as_deref() {
            Some(SPECVERSION) => {}
            Some(_) => return Err(Error::attribute("specversion", "1.0")),
            None => return Err(Error::attribute("specversion", "given, as 1.0")),
        }
        let mut required = |name| {
            let value = self.remove(name).ok_or_else(|| Error::attribute(name, "given"))?;
            if value.is_empty() { Err(Error::attribute(name, "a text that is not empty")) } else { Ok(value) }
        };
        let (id, source, kind) = (required("id")?, required("source")?, required("type")?);
        if UriRef::parse(source.as_str()).is_err() {
            return Err(Error::attribute("source", "a URI-reference (RFC 3986)"));
        }
        let subject = self.remove("subject");
        if subject.as_deref() == Some("") {
            return Err(Error::attribute("subject", "a text that is not empty, or left out"));
        }
        let time = self.remove("time").map(|text| {
            time(&text).ok_or_else(|| Error::attribute("time", "an RFC 3339 instant such as 2025-01-01T03:00:00Z"))
        });
        let dataschema = self.remove("dataschema");
        if dataschema.as_deref().is_some_and(|uri| !is_absolute_uri(uri)) {
            return Err(Error::attribute("dataschema", "an absolute URI (RFC 3986, section 4.3) without a fragment"));
        }
        let datacontenttype = self.remove("datacontenttype");
        let media_type = datacontenttype.as_deref().map(|text| {
            media_type::parse(text).ok_or_else(|| Error::attribute("datacontenttype", "a media type (RFC 2046)"))
        });
        let media_type = media_type.transpose()?;
        if self.get("partitionkey") == Some("") {
            return Err(Error::attribute("partitionkey", "a text that is not empty, or left out"));
        }
        if self.get("traceparent").is_some_and(|text| !trace::is_traceparent(text)) {
            return Err(Error::attribute("traceparent", "a W3C trace context, or left out"));
        }
        let data = data(media_type.as_ref())?;
        let time = time.transpose()?;
        Ok(CloudEvent { id, source, kind, subject, time, dataschema, datacontenttype, extensions: self.0, data })
    }
}

/// Writes an instant as RFC 3339.
pub(super) fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Reads an RFC 3339 instant. The parser is laxer than the grammar, which has neither blanks nor signs of its own.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let separated = matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    let parsed = DateTime::parse_from_rfc3339(text).ok().filter(|_| text.is_ascii() && separated)?;
    Some(parsed.with_timezone(&Utc))
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if plain && name != RESERVED {
        return Ok(());
    }
    Err(Error::attribute(name, "named in lower-case letters and digits, and not data"))
}

/// Tells whether a character may not stand in an attribute (section "Type System", `String`).
fn is_disallowed(c: char) -> bool {
    let point = u32::from(c);
    c.is_control() || point & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&point)
}

fn is_absolute_uri(text: &str) -> bool {
    Uri::parse(text).is_ok_and(|uri| !uri.has_fragment())
}
