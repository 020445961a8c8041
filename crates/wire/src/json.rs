//! JSON objects from outside, member by member: nothing is lost, nothing is read twice, nothing deep is built.

use std::fmt;

use serde::{
    Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Error, error::shown};

/// Returns the members of the object that `text` must be, in their order, with their values as they are written.
pub(crate) fn members<'a>(text: &'a str, place: &'static str) -> Result<Vec<(String, &'a RawValue)>, Error> {
    let mut twice = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Members { twice: &mut twice });
    match read.and_then(|members| deserializer.end().map(|()| members)) {
        Ok(members) => Ok(members),
        Err(error) => Err(match twice {
            Some(key) => Error::Twice { place: format!("the key {}", shown(&key)) },
            None if error.is_data() => Error::request(place, "a JSON object"),
            None => Error::not_json(place, "JSON", &error),
        }),
    }
}

struct Members<'t> {
    /// The key that stands there twice; JSON would let the last one win.
    twice: &'t mut Option<String>,
}

// === impl Members ===

impl<'a> Visitor<'a> for Members<'_> {
    type Value = Vec<(String, &'a RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while let Some((key, value)) = map.next_entry::<String, &'a RawValue>()? {
            if !seen.insert(key.clone()) {
                *self.twice = Some(key);
                return Err(A::Error::custom("a key stands there twice"));
            }
            members.push((key, value));
        }
        Ok(members)
    }
}
