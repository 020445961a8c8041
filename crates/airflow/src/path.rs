//! Paths of Airflow's API, made of segments.
//!
//! Ids are hostile text: `..` would climb, `~` stands for every DAG, a slash is one also where it is escaped. Such names are
//! refused; Airflow has none of them. Everything else is escaped.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Quoted, Subject};

/// The longest segment, in bytes: Airflow's keys have 250 characters at most, its file tokens some hundred more.
const SEGMENT_BYTES_MAX: usize = 2048;

/// What is escaped: all but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path below the API's root.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    text: String,
    bad: Option<Quoted>,
}

// === impl Path ===

impl Path {
    /// Starts a path with what stands in the program.
    pub(crate) fn new(fixed: &'static str) -> Self {
        Self { text: fixed.to_owned(), bad: None }
    }

    /// Goes on with what stands in the program.
    #[must_use]
    pub(crate) fn then(mut self, fixed: &'static str) -> Self {
        self.text.push('/');
        self.text.push_str(fixed);
        self
    }

    /// Goes on with a name from outside.
    #[must_use]
    pub(crate) fn name(mut self, name: &str) -> Self {
        let control = |c: char| c.is_control() || matches!(c, '/' | '\\');
        if matches!(name, "" | "." | ".." | "~") || name.len() > SEGMENT_BYTES_MAX || name.contains(control) {
            self.bad.get_or_insert_with(|| Quoted::new(name));
        }
        self.text.push('/');
        self.text.extend(utf8_percent_encode(name, ESCAPED));
        self
    }

    /// Goes on with a map index.
    #[must_use]
    pub(crate) fn index(mut self, index: u32) -> Self {
        self.text.push_str(&format!("/{index}"));
        self
    }

    /// Returns the path as it is sent.
    ///
    /// # Errors
    /// [`Error::BadName`] when a name is none.
    pub(crate) fn text(&self, call: &Subject) -> Result<&str, Error> {
        match &self.bad {
            None => Ok(&self.text),
            Some(name) => Err(Error::BadName { call: call.clone(), name: name.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Path;
    use crate::error::Subject;

    #[test]
    fn names_stay_within_their_segment() {
        let sent = |name: &str| {
            Path::new("dags").name(name).then("dagRuns").text(&Subject::bare("try")).map(ToOwned::to_owned).ok()
        };
        assert_eq!(sent("aviation.flights-1_~"), Some("dags/aviation.flights-1_~/dagRuns".into()));
        assert_eq!(
            sent("manual__2025-01-01T00:00:00+00:00"),
            Some("dags/manual__2025-01-01T00%3A00%3A00%2B00%3A00/dagRuns".into())
        );
        assert_eq!(sent("a b?c#d%2e;é"), Some("dags/a%20b%3Fc%23d%252e%3B%C3%A9/dagRuns".into()));
        assert_eq!(sent("%2e%2e"), Some("dags/%252e%252e/dagRuns".into()));
        for bad in ["", ".", "..", "~", "a/b", "..\\x", "a\nb", "\u{0}", &"x".repeat(4000)] {
            assert_eq!(sent(bad), None, "{bad:?}");
        }
    }
}
