//! What a message asks for: from headers and body to a [`Request`].
//!
//! A request comes as a CloudEvent of type [`REQUESTED`], whose data is JSON, YAML or a protobuf `PipelineRequest`, or
//! bare: as a JSON object with the same keys, or as nothing but a spec. Whichever it is, the spec is handed on as the
//! text that was sent, so that its diagnostics have the sender's lines.
//!
//! What is refused here is a matter of form: a key that requests do not have, a value of another type. Deliberately
//! absent: parsing the spec ([`dagwright_model::spec::Spec::parse`] says everything that is wrong with one), what the
//! parts of a request must be to each other, minting an id, and who may ask for what.

mod object;
mod protobuf;

use dagwright_model::{record::EventIdentity, request::Request};
use mime::Mime;

pub(crate) use self::object::param;
use crate::{
    Error,
    cloudevent::{self, Data, Message},
    media_type, trace,
};

/// The CloudEvents type of a request.
pub const REQUESTED: &str = "dev.dagwright.pipeline.requested.v1";

/// The full name of the protobuf message that a request's data may be.
const MESSAGE_NAME: &str = "dagwright.v1.PipelineRequest";

/// A request and what its message says beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The request; its spec, if it has one, is text.
    pub request: Request,
    /// What the requester calls it; `None` when it came bare.
    pub identity: Option<EventIdentity>,
    /// The W3C trace context that it is a part of.
    pub traceparent: Option<String>,
}

/// Reads a request.
///
/// # Errors
/// What is wrong with the first part that is, with the code that the requester is told: `RequestInvalid`,
/// `RequestTooLarge` above [`cloudevent::EVENT_BYTES_MAX`], or `SpecNotYet` for what a later version may read.
pub fn decode(message: Message<'_>) -> Result<Received, Error> {
    let event = cloudevent::decode(message)?;
    let header = match message.header("traceparent")? {
        // "If the vendor failed to parse traceparent, it MUST NOT attempt to parse tracestate" and starts anew, says
        // W3C: a header that some proxy broke must not cost anybody a request.
        Some(value) => str::from_utf8(value).ok().map(str::trim).filter(|text| trace::is_traceparent(text)),
        None => None,
    };
    let Some(mut event) = event else {
        let content_type = message.content_type()?;
        let media_type = content_type.as_deref().map(|text| {
            media_type::parse(text).ok_or_else(|| Error::header("content-type", "a media type (RFC 2046)"))
        });
        let request = of_text(message.body, media_type.transpose()?.as_ref(), "header content-type")?;
        return Ok(Received { request, identity: None, traceparent: header.map(Into::into) });
    };
    if event.kind != REQUESTED {
        return Err(Error::attribute("type", REQUESTED));
    }
    if EventIdentity::is_reserved(&event.source) {
        return Err(Error::attribute("source", "the sender's own: airflow, /dagwright/… and /kafka/… are Dagwright's"));
    }
    let media_type = event.datacontenttype.as_deref().and_then(media_type::parse);
    let request = match event.data.take() {
        None => return Err(Error::request("data", "a request or a spec, and is missing")),
        Some(Data::Json(text)) => object::read(text.as_str())?,
        Some(Data::Message { type_url, value }) => {
            // What stands before the last slash is nobody's to rely on.
            if type_url.rsplit('/').next() != Some(MESSAGE_NAME) {
                return Err(Error::request("data", "a message of type dagwright.v1.PipelineRequest"));
            }
            protobuf::read(&value)?
        }
        Some(Data::Bytes(bytes)) if media_type.as_ref().is_some_and(media_type::is_protobuf) => protobuf::read(&bytes)?,
        Some(Data::Bytes(bytes)) => of_text(&bytes, media_type.as_ref(), "attribute datacontenttype")?,
    };
    // The event's own context is where the request began; the header is the last hop's.
    let traceparent = event.extensions.remove("traceparent").or_else(|| header.map(Into::into));
    Ok(Received { request, identity: Some(EventIdentity { source: event.source, id: event.id }), traceparent })
}

// === impl Received ===

impl Received {
    /// Returns the text of the spec, as it was sent.
    #[must_use]
    pub fn spec_text(&self) -> Option<&str> {
        self.request.spec.as_ref().and_then(serde_json::Value::as_str)
    }
}

/// Reads text: a request object, or a spec.
fn of_text(bytes: &[u8], media_type: Option<&Mime>, said: &'static str) -> Result<Request, Error> {
    let is_json = media_type.is_some_and(media_type::is_json);
    if !media_type.is_none_or(|it| is_json || media_type::is_yaml(it)) {
        return Err(Error::Attribute {
            attribute: said.into(),
            wanted: "application/json, application/yaml or that of a CloudEvent (application/cloudevents+json)",
        });
    }
    if !media_type.is_none_or(media_type::is_utf8) {
        return Err(Error::Attribute { attribute: said.into(), wanted: "without another charset than utf-8" });
    }
    let text = str::from_utf8(bytes).map_err(|_| Error::request("the body", "text in UTF-8"))?;
    if text.trim().is_empty() {
        return Err(Error::request("the body", "a request or a spec, and is empty"));
    }
    // A map in YAML's braces is no JSON; where JSON was not promised, it may be that.
    let may_be_yaml = !is_json && (!text.trim_start().starts_with('{') || cloudevent::JsonText::new(text).is_err());
    if may_be_yaml { Ok(object::spec(text)) } else { object::read(text) }
}
