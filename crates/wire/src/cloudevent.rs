//! CloudEvents 1.0, in and out: structured mode (JSON, protobuf) and binary mode, over HTTP and Kafka.
//!
//! A message is headers and a body, whatever carried it. What comes in is held to the letter of CloudEvents 1.0.2 and
//! its bindings and formats; the first fault is an [`Error`] that names the attribute. What goes out is built from
//! [`Event`]s and always conforms.
//!
//! The `cloudevents-sdk` crate was looked at and not taken: it accepts empty and ill-named attributes, keys that stand
//! twice and version 0.3, knows no protobuf, and decodes HTTP headers only as types of crate `http`.
//!
//! Deliberately absent: batches (each message is one request), and the meaning of the data ([`crate::request`]).

mod attributes;
mod binary;
mod protobuf;
mod structured;

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Datelike, Utc};
use dagwright_model::{canonical, event::Event, spec::SPEC_BYTES_MAX};
use mime::Mime;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;

use crate::{Error, media_type};

/// The longest message, in bytes, headers included: the largest spec written as base64 or with JSON's escapes, and an
/// envelope around it.
pub const EVENT_BYTES_MAX: usize = 2 * SPEC_BYTES_MAX;

/// The content type of structured mode in JSON.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";

/// The content type of structured mode in protobuf.
pub const STRUCTURED_PROTOBUF: &str = "application/cloudevents+protobuf";

/// The media types with this start are CloudEvents' own; all others are the data's, in binary mode.
const STRUCTURED: &str = "application/cloudevents";

/// What may stand in a segment of a URI's path beside letters and digits (RFC 3986, `unreserved`).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The digits of `sequence`: those of the largest number, so that texts are in the order of their numbers.
const SEQUENCE_DIGITS: usize = 20;

/// The year after the last that RFC 3339 can write.
const YEAR_END: i32 = 10_000;

/// What carried a message, which decides how attributes stand in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Headers `ce-…`, case-insensitive, values percent-encoded.
    Http,
    /// Headers `ce_…`, values in UTF-8.
    Kafka,
}

/// A message as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What carried it.
    pub binding: Binding,
    /// All its headers, in their order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its body; empty where it has none.
    pub body: &'a [u8],
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// An event that conforms to CloudEvents 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudEvent {
    /// Identifies the event within its source.
    pub id: String,
    /// The context in which it happened: a URI-reference.
    pub source: String,
    /// What happened: the attribute `type`.
    pub kind: String,
    /// What it is about, within the source.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<DateTime<Utc>>,
    /// The schema of the data: an absolute URI.
    pub dataschema: Option<String>,
    /// The content type of the data.
    pub datacontenttype: Option<String>,
    /// The extensions, in the canonical text of their types.
    pub extensions: BTreeMap<String, String>,
    /// The data.
    pub data: Option<Data>,
}

/// The data of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// JSON, where the content type says so.
    Json(JsonText),
    /// A protobuf message that came with its type.
    Message {
        /// Its type, as `type.googleapis.com/dagwright.v1.PipelineRequest`.
        type_url: String,
        /// Its bytes.
        value: Vec<u8>,
    },
    /// Anything else, text too.
    Bytes(Vec<u8>),
}

/// A text that is one JSON value, kept as it was written.
#[derive(Clone)]
pub struct JsonText(Box<RawValue>);

/// Reads a message; `None` when nothing in it says that it is a CloudEvent.
///
/// # Errors
/// [`Error::RequestTooLong`] above [`EVENT_BYTES_MAX`], else what is wrong with the first attribute that is not as
/// CloudEvents 1.0 wants it.
pub fn decode(message: Message<'_>) -> Result<Option<CloudEvent>, Error> {
    message.check_length()?;
    let content_type = message.content_type()?;
    let Some(format) = content_type.as_deref().and_then(structured_format) else {
        return binary::decode(message, content_type);
    };
    let media_type = content_type.as_deref().and_then(media_type::parse);
    if !media_type.is_some_and(|media_type| media_type::is_utf8(&media_type)) {
        return Err(Error::header("content-type", "a media type (RFC 2046), in UTF-8"));
    }
    match &*format {
        "+json" => structured::decode(message.body).map(Some),
        "+protobuf" => protobuf::decode(message.body).map(Some),
        batch if batch.starts_with("-batch") => {
            Err(Error::header("content-type", "that of one event: a batch is refused, send its events one by one"))
        }
        _ => Err(Error::header("content-type", "application/cloudevents+json or application/cloudevents+protobuf")),
    }
}

/// Renders an event of Dagwright's.
#[must_use]
pub fn of_event(event: &Event) -> CloudEvent {
    let at = i64::try_from(event.at).ok().and_then(DateTime::from_timestamp_millis);
    let mut extensions = BTreeMap::from([("partitionkey".to_owned(), event.data.pipeline.clone())]);
    // What no record tells has no place among those of records.
    if event.refused_try.is_none() {
        extensions.insert("sequence".to_owned(), format!("{:0SEQUENCE_DIGITS$}", event.sequence));
    }
    if let Some(traceparent) = &event.traceparent {
        extensions.insert("traceparent".to_owned(), traceparent.clone());
    }
    CloudEvent {
        id: event.id(),
        source: format!("/dagwright/pipelines/{}", utf8_percent_encode(&event.data.pipeline, SEGMENT)),
        kind: event.kind.type_name(),
        subject: Some(event.data.request_id.to_string()),
        time: at.filter(|at| at.year() < YEAR_END),
        dataschema: Some(event.kind.schema_uri()),
        datacontenttype: Some(mime::APPLICATION_JSON.to_string()),
        extensions,
        data: Some(Data::Json(JsonText::of(&event.data))),
    }
}

// === impl CloudEvent ===

impl CloudEvent {
    /// Renders the event in structured mode, as the JSON of [`STRUCTURED_JSON`].
    #[must_use]
    pub fn to_structured(&self) -> Vec<u8> {
        structured::encode(self)
    }

    /// Renders the event in binary mode.
    #[must_use]
    pub fn to_binary(&self, binding: Binding) -> Encoded {
        binary::encode(self, binding)
    }

    /// Returns every attribute but `datacontenttype`, by name, in the canonical text of its type.
    fn attributes(&self) -> Vec<(&str, String)> {
        let mut attributes = vec![
            ("specversion", attributes::SPECVERSION.to_owned()),
            ("id", self.id.clone()),
            ("source", self.source.clone()),
            ("type", self.kind.clone()),
        ];
        attributes.extend(self.subject.clone().map(|subject| ("subject", subject)));
        attributes.extend(self.time.map(|time| ("time", attributes::time_text(time))));
        attributes.extend(self.dataschema.clone().map(|uri| ("dataschema", uri)));
        attributes.extend(self.extensions.iter().map(|(name, value)| (name.as_str(), value.clone())));
        attributes
    }
}

// === impl Message ===

impl Message<'_> {
    /// Refuses what is longer than any request needs to be.
    pub(crate) fn check_length(&self) -> Result<(), Error> {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = headers + self.body.len();
        if bytes > EVENT_BYTES_MAX {
            return Err(Error::RequestTooLong { bytes, bytes_max: EVENT_BYTES_MAX });
        }
        Ok(())
    }

    /// Returns the content type as it is written, if there is one.
    pub(crate) fn content_type(&self) -> Result<Option<String>, Error> {
        let wanted = "text";
        let value = self.header("content-type")?;
        let text = value.map(|value| str::from_utf8(value).map_err(|_| Error::header("content-type", wanted)));
        Ok(text.transpose()?.map(|text| text.trim_matches([' ', '\t']).to_owned()))
    }

    /// Returns a header whose name has no case, in Kafka neither.
    pub(crate) fn header(&self, wanted: &str) -> Result<Option<&[u8]>, Error> {
        let mut found = self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let first = found.next().map(|(_, value)| *value);
        if found.next().is_some() {
            return Err(Error::Twice { place: format!("header {wanted}") });
        }
        Ok(first)
    }
}

// === impl Data ===

impl Data {
    /// Reads bytes as their content type says.
    fn of(bytes: &[u8], content_type: Option<&Mime>) -> Result<Self, Error> {
        if content_type.is_some_and(media_type::is_json) {
            let text = str::from_utf8(bytes).map_err(|_| Error::request("data", "JSON in UTF-8"))?;
            return JsonText::new(text).map(Self::Json).map_err(|error| Error::not_json("data", "JSON", &error));
        }
        Ok(Self::Bytes(bytes.to_vec()))
    }

    /// Returns the bytes that binary mode sends.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) => text.as_str().as_bytes(),
            Self::Message { value, .. } => value,
            Self::Bytes(bytes) => bytes,
        }
    }
}

// === impl JsonText ===

impl JsonText {
    /// Checks that `text` is one JSON value.
    ///
    /// # Errors
    /// Where it is none.
    pub fn new(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Box<RawValue>>(text).map(Self)
    }

    /// Renders a value of the model as canonical JSON.
    fn of(value: &impl serde::Serialize) -> Self {
        let text = String::from_utf8(canonical::to_bytes(value)).unwrap_or_default();
        Self(RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// Returns the text, without white space around it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

fn structured_format(content_type: &str) -> Option<String> {
    let start = content_type.get(..STRUCTURED.len())?;
    let rest = &content_type[STRUCTURED.len()..];
    let format = rest.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    start.eq_ignore_ascii_case(STRUCTURED).then_some(format)
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
