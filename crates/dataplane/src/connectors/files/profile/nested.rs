//! Infers the type of JSON values that are not scalars.

use dagwright_model::schema::DataType;

use super::super::json::Json;

/// How deep types nest before they are left as JSON; the model allows 16.
const DEPTH_MAX: usize = 8;

/// The most members of a struct; more look like a map, whose keys are data.
const MEMBERS_MAX: usize = 100;

/// What is known of the type of values seen so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// Nothing but NULL.
    Nothing,
    /// This type.
    Type(DataType),
    /// Lists of this.
    List(Box<Seen>),
    /// Objects with these members.
    Struct(Vec<(String, Seen)>),
    /// Values of several kinds.
    Mixed,
}

// === impl Seen ===

impl Seen {
    /// Infers the type of one value.
    pub(super) fn of(value: &Json<'_>, depth: usize) -> Self {
        match value {
            Json::Null => Self::Nothing,
            Json::Bool(_) => Self::Type(DataType::Boolean),
            Json::Number(text) if super::super::value::int64(text.as_bytes()).is_some() => Self::Type(DataType::Int64),
            Json::Number(_) => Self::Type(DataType::Float64),
            Json::String(_) => Self::Type(DataType::TEXT),
            Json::Array(_) | Json::Object(_) if depth >= DEPTH_MAX => Self::Mixed,
            Json::Array(items) => {
                let inner = items.iter().fold(Self::Nothing, |seen, item| seen.and(Self::of(item, depth + 1)));
                Self::List(Box::new(inner))
            }
            Json::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.to_string(), Self::of(value, depth + 1)));
                Self::Struct(Vec::new()).and(Self::Struct(members.collect()))
            }
        }
    }

    /// Returns what both are.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, seen) | (seen, Self::Nothing) => seen,
            (Self::Type(a), Self::Type(b)) if a == b => Self::Type(a),
            (Self::Type(a), Self::Type(b)) if a.is_number() && b.is_number() => Self::Type(DataType::Float64),
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.and(*b))),
            (Self::Struct(mut a), Self::Struct(b)) => {
                for (name, seen) in b {
                    match a.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = std::mem::replace(known, Self::Nothing).and(seen),
                        None => a.push((name, seen)),
                    }
                    if a.len() > MEMBERS_MAX {
                        return Self::Mixed;
                    }
                }
                Self::Struct(a)
            }
            _ => Self::Mixed,
        }
    }

    /// Returns the type to read all of it as.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Nothing => DataType::TEXT,
            Self::Type(data_type) => data_type.clone(),
            Self::Mixed => DataType::Json,
            Self::List(inner) => match inner.data_type() {
                // Text would lose the kinds of mixed values.
                DataType::Json => DataType::Json,
                inner => DataType::List(Box::new(inner)),
            },
            Self::Struct(members) if members.is_empty() => DataType::Json,
            Self::Struct(members) => {
                let typed: Vec<_> = members.iter().map(|(name, seen)| (name.clone(), seen.data_type())).collect();
                if typed.iter().any(|(_, inner)| *inner == DataType::Json) {
                    DataType::Json
                } else {
                    DataType::Struct(typed)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Json, Seen};

    #[track_caller]
    fn check(values: &[&str], wanted: &str) {
        let seen = values.iter().map(|text| Seen::of(&Json::parse(text.as_bytes()).unwrap(), 0));
        assert_eq!(seen.fold(Seen::Nothing, Seen::and).data_type().to_string(), wanted, "{values:?}");
    }

    #[test]
    fn types_are_merged() {
        check(&["[1,2]", "[]", "null"], "list<int64>");
        check(&["[1]", "[1.5]"], "list<float64>");
        check(&["[1]", "[\"a\"]"], "json");
        check(&[r#"{"a":1}"#, r#"{"b":["x"]}"#], "struct<a:int64,b:list<string>>");
        check(&[r#"{"a":1}"#, "[1]"], "json");
        check(&["{}"], "json");
        check(&[&format!("{}{}", "[".repeat(20), "]".repeat(20))], "json");
    }
}
