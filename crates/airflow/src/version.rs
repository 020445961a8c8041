//! Which Airflow answers, and by which of its two APIs.

use std::fmt;

/// The oldest 2.x: before it, runs and tasks say less of themselves.
const MINOR_MIN_OF_2: u32 = 11;

/// A version of Airflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// 2 or 3.
    pub major: u32,
    /// As 11 in 2.11.2.
    pub minor: u32,
    /// As 2 in 2.11.2; what follows the numbers, as `rc1`, is left out.
    pub patch: u32,
}

/// Which API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/api/v1`, of Airflow 2.
    V1,
    /// `/api/v2`, of Airflow 3.
    V2,
}

// === impl Version ===

impl Version {
    /// Reads a version as Airflow tells it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u32>().ok()
        };
        let mut parts = text.split('.');
        let (major, minor) = (number(parts.next()?)?, number(parts.next()?)?);
        Some(Self { major, minor, patch: parts.next().and_then(number).unwrap_or(0) })
    }

    /// Returns the API of a version that this client knows.
    pub(crate) fn api(&self) -> Option<Api> {
        match self.major {
            2 if self.minor >= MINOR_MIN_OF_2 => Some(Api::V1),
            3 => Some(Api::V2),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

// === impl Api ===

impl Api {
    /// The API's root, below the URL.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::V1 => "/api/v1/",
            Self::V2 => "/api/v2/",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Api, Version};

    #[test]
    fn versions_are_read() {
        let api = |text: &str| Version::parse(text).and_then(|version| version.api());
        for (text, wanted) in [
            ("2.11.2", Some(Api::V1)),
            ("2.11.2+composer", Some(Api::V1)),
            ("3.0.6", Some(Api::V2)),
            ("3.4.0.dev0", Some(Api::V2)),
            ("3.2rc1", Some(Api::V2)),
            ("2.10.5", None),
            ("4.0.0", None),
            ("three", None),
            ("", None),
        ] {
            assert_eq!(api(text), wanted, "{text}");
        }
        assert_eq!(Version::parse("3.3.2").expect("a version").to_string(), "3.3.2");
    }
}
