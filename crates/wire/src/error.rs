//! What can be wrong with bytes from outside.

use std::borrow::Cow;

use dagwright_model::code::Code;

/// The longest name from outside that a message repeats, in characters.
const NAME_LENGTH_SHOWN: usize = 40;

/// Says why a message could not be read. Names fields, never their content: that is untrusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no protobuf message of the wanted type.
    #[error("not a protobuf message of type {message}")]
    Malformed {
        /// The wanted type.
        message: &'static str,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// A field that must be there is not.
    #[error("field {field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// An enum field holds a value that this version does not know.
    #[error("field {field} holds the unknown value {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The number it holds.
        value: i32,
    },
    /// A field holds something that is not allowed there.
    #[error("field {field} is not {wanted}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A field that holds JSON does not hold the JSON of the wanted type; where in it is said, but not what is there.
    #[error("field {field} does not hold the JSON wanted there (line {line}, column {column})")]
    Json {
        /// The field.
        field: &'static str,
        /// The line in the JSON, from 1.
        line: usize,
        /// The column in that line.
        column: usize,
    },
    /// The message is longer than accepted.
    #[error("the message has {bytes} bytes; at most {bytes_max} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An attribute or header of a CloudEvent is not what CloudEvents 1.0 demands.
    #[error("{attribute} must be {wanted}")]
    Attribute {
        /// Which, as `attribute id` or `header content-type`.
        attribute: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// A part of a request is not what it must be.
    #[error("{place} must be {wanted}")]
    Request {
        /// Where, as `run.interval.start`.
        place: Cow<'static, str>,
        /// What it must be.
        wanted: &'static str,
    },
    /// A part of a request or CloudEvent holds no JSON, or JSON of another type.
    #[error("{place} is not {wanted} (line {line}, column {column})")]
    NotJson {
        /// Where.
        place: Cow<'static, str>,
        /// What it must be.
        wanted: &'static str,
        /// The line in that place, from 1.
        line: usize,
        /// The column in that line.
        column: usize,
    },
    /// A request has a key or field that requests do not have.
    #[error("{place} is not known; known are {known}")]
    Unknown {
        /// Where.
        place: String,
        /// What may stand there.
        known: &'static str,
    },
    /// Something that may be there once is there again.
    #[error("{place} is there twice")]
    Twice {
        /// What.
        place: String,
    },
    /// A request uses what this version cannot do yet.
    #[error("{place} is not yet supported; {instead}")]
    NotYet {
        /// Where.
        place: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The request is longer than accepted.
    #[error("the request has {bytes} bytes, headers included; at most {bytes_max} are accepted")]
    RequestTooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

// === impl Error ===

impl Error {
    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::UnknownValue { .. }
            | Self::Invalid { .. }
            | Self::Json { .. }
            | Self::TooLong { .. } => Code::MessageInvalid,
            Self::Attribute { .. }
            | Self::Request { .. }
            | Self::NotJson { .. }
            | Self::Unknown { .. }
            | Self::Twice { .. } => Code::RequestInvalid,
            Self::NotYet { .. } => Code::SpecNotYet,
            Self::RequestTooLong { .. } => Code::RequestTooLarge,
        }
    }

    pub(crate) fn attribute(name: &str, wanted: &'static str) -> Self {
        Self::Attribute { attribute: format!("attribute {}", shown(name)), wanted }
    }

    pub(crate) fn header(name: &str, wanted: &'static str) -> Self {
        Self::Attribute { attribute: format!("header {}", shown(name)), wanted }
    }

    pub(crate) fn request(place: impl Into<Cow<'static, str>>, wanted: &'static str) -> Self {
        Self::Request { place: place.into(), wanted }
    }

    pub(crate) fn not_json(
        place: impl Into<Cow<'static, str>>,
        wanted: &'static str,
        error: &serde_json::Error,
    ) -> Self {
        Self::NotJson { place: place.into(), wanted, line: error.line(), column: error.column() }
    }
}

/// Makes a name from outside fit to stand in a message: on one line, and not long.
pub(crate) fn shown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if !name.is_empty() && name.len() <= NAME_LENGTH_SHOWN && name.chars().all(plain) {
        return name.into();
    }
    let start: String = name.chars().take(NAME_LENGTH_SHOWN).collect();
    let more = if start.len() < name.len() { "…" } else { "" };
    format!("\"{}{more}\"", start.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn names_from_outside_cannot_disturb_a_message() {
        for (name, wanted) in [
            ("run.intervall", "run.intervall"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\nb\u{1b}[31m", "\"a\\nb\\u{1b}[31m\""),
            (&"ä".repeat(41), &format!("\"{}…\"", "ä".repeat(40))),
        ] {
            assert_eq!(shown(name), wanted);
        }
    }
}
