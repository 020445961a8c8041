//! The members of a JSON object as others wrote it: each is looked at, bounded, and named when it is not as it has to be.
//!
//! What is refused is named by its field alone: no value of it gets into a message.

use chrono::{DateTime, Utc};
use dagwright_model::{code::Code, task::Counts};
use serde_json::{Map, Value};

/// The longest text that is taken, in characters: what Airflow's own columns hold at most, with room.
pub(super) const TEXT_CHARS_MAX: usize = 1_000;

/// The longest message of an error, in characters.
pub(super) const MESSAGE_CHARS_MAX: usize = 2_000;

/// The largest number that is counted to. Sums of many of them still fit, and every JSON parser reads it exactly.
const COUNT_MAX: u64 = 1 << 53;

/// Says why something that was told is not taken in; holds nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than anything that is told.
    #[error("it has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        max: usize,
    },
    /// It is no JSON object.
    #[error("it is no JSON object")]
    NoObject,
    /// It is of a version of its form that is not read here.
    #[error("`{field}` is another than 1, the one that is read here")]
    Version {
        /// The field with the version.
        field: &'static str,
    },
    /// A field is not as it has to be.
    #[error("`{field}` {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The members of an object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

// === impl Refused ===

impl Refused {
    /// Returns the code of the error's page.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLong { .. } => Code::RequestTooLarge,
            Self::NoObject | Self::Version { .. } | Self::Field { .. } => Code::MessageInvalid,
        }
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Returns what a field holds; nothing where it is null or not there, as of an Airflow that does not have it.
    pub(super) fn get(&self, field: &'static str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Returns a text of at most [`TEXT_CHARS_MAX`] characters.
    pub(super) fn text(&self, field: &'static str) -> Result<&'a str, Refused> {
        let text = self.text_or_none(field)?.ok_or(Refused::Field { field, problem: "is missing" })?;
        if text.is_empty() { Err(Refused::Field { field, problem: "is empty" }) } else { Ok(text) }
    }

    /// Returns a text, where there is one.
    pub(super) fn text_or_none(&self, field: &'static str) -> Result<Option<&'a str>, Refused> {
        self.bounded(field, TEXT_CHARS_MAX)
    }

    /// Returns a text of at most so many characters, where there is one; it is fit for a line of a log.
    pub(super) fn bounded(&self, field: &'static str, chars_max: usize) -> Result<Option<&'a str>, Refused> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let text = value.as_str().ok_or(Refused::Field { field, problem: "is no text" })?;
        if text.chars().nth(chars_max).is_some() {
            return Err(Refused::Field { field, problem: "is too long" });
        }
        if text.chars().any(char::is_control) {
            return Err(Refused::Field { field, problem: "has a control character in it" });
        }
        Ok(Some(text))
    }

    /// Returns a number that counts something.
    pub(super) fn number(&self, field: &'static str) -> Result<u32, Refused> {
        self.number_or_none(field)?.ok_or(Refused::Field { field, problem: "is missing" })
    }

    /// Returns a number that counts something, where there is one.
    pub(super) fn number_or_none(&self, field: &'static str) -> Result<Option<u32>, Refused> {
        let problem = "is no whole number from 0 to 4294967295";
        let read = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.get(field).map(|value| read(value).ok_or(Refused::Field { field, problem })).transpose()
    }

    /// Returns which instance of a mapped task it is; −1 is none.
    pub(super) fn map_index(&self, field: &'static str) -> Result<Option<u32>, Refused> {
        let value = self.get(field).ok_or(Refused::Field { field, problem: "is missing" })?;
        match value.as_i64() {
            Some(-1) => Ok(None),
            Some(_) | None => Ok(Some(self.number(field)?)),
        }
    }

    /// Returns an instant.
    pub(super) fn instant(&self, field: &'static str) -> Result<DateTime<Utc>, Refused> {
        self.instant_or_none(field)?.ok_or(Refused::Field { field, problem: "is missing" })
    }

    /// Returns an instant, where there is one: RFC 3339, or as Python prints it, with a blank before the time. An empty text
    /// is none.
    pub(super) fn instant_or_none(&self, field: &'static str) -> Result<Option<DateTime<Utc>>, Refused> {
        let Some(text) = self.text_or_none(field)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let problem = "is no instant";
        let read = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1));
        read.map(|instant| Some(instant.to_utc())).map_err(|_| Refused::Field { field, problem })
    }

    /// Returns an object, where there is one.
    pub(super) fn object_or_none(&self, field: &'static str) -> Result<Option<Fields<'a>>, Refused> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_object().map(|map| Some(Fields(map))).ok_or(Refused::Field { field, problem: "is no object" })
    }

    /// Returns counts, where there are some that can be added up: a task that succeeded has, whatever it counted.
    pub(super) fn counts(&self, field: &'static str) -> Result<Option<Counts>, Refused> {
        if self.object_or_none(field)?.is_none() {
            return Ok(None);
        }
        let value = self.get(field).filter(|value| is_countable(value));
        Ok(value.and_then(|value| serde_json::from_value(value.clone()).ok()))
    }
}

/// Reads a JSON object of at most so many bytes.
pub(super) fn object(bytes: &[u8], max: usize) -> Result<Map<String, Value>, Refused> {
    if bytes.len() > max {
        return Err(Refused::TooLong { bytes: bytes.len(), max });
    }
    serde_json::from_slice(bytes).map_err(|_| Refused::NoObject)
}

/// Tells whether every number in it can be counted to.
fn is_countable(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some_and(|number| number <= COUNT_MAX),
        Value::Array(values) => values.iter().all(is_countable),
        Value::Object(members) => members.values().all(is_countable),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}
