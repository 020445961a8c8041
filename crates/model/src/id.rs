//! Identifiers, each a newtype that can only hold a valid value.
//!
//! Names come from untrusted specs and end up in file names, SQL identifiers, metric labels and Python literals, so
//! the accepted alphabet is narrow and checked once, on construction and on deserialization alike.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::canonical;

/// The longest [`Name`], in bytes; PostgreSQL cuts at 63, Airflow's `dag_id` at 250.
pub const NAME_LENGTH_MAX: usize = 128;

/// A name of a pipeline, namespace, source, step, sink, gate or parameter: `^[a-z][a-z0-9_]{0,127}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Says that a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name must match ^[a-z][a-z0-9_]{{0,127}}$")]
pub struct InvalidName;

/// Identifies a request: minted once at ingress, from what its requester calls it where that is known, and recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct RequestId(pub String);

/// The SHA-256 of a sealed plan's canonical JSON, in lower-case hexadecimal (64 characters).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct PlanHash(#[schemars(regex(pattern = r"^[0-9a-f]{64}$"))] pub String);

/// Identifies a task within a plan, for example `extract_flights` or `load_warehouse`.
///
/// Built only by the plan's sealing from [`Name`]s, so it is a valid Airflow task id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct TaskId(pub String);

// === impl Name ===

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// [`InvalidName`] when the text does not match `^[a-z][a-z0-9_]{0,127}$`.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let valid = text.len() <= NAME_LENGTH_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if valid { Ok(Self(text)) } else { Err(InvalidName) }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl schemars::JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,127}$" })
    }
}

// === impl RequestId, PlanHash, TaskId ===

impl RequestId {
    /// Derives the id of a request from its pipeline and what its requester calls it, so that the same request sent
    /// twice, wherever it comes in, is one: the first 128 bits of a SHA-256, in lower-case hexadecimal.
    #[must_use]
    pub fn derive(pipeline: &str, source: &str, id: &str) -> Self {
        let mut digest = canonical::hash(&("request", pipeline, source, id));
        digest.truncate(32);
        Self(digest)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PlanHash {
    /// Returns the first 12 characters, as used in file names and for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_narrow() {
        for good in ["a", "flights_daily", "a1"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "a.b", "ä", "a\n", "a/../b", &"a".repeat(129)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}
