//! Tells which of users' troubles an I/O error is.

use std::io;

use dagwright_model::code::Code;

use crate::error::Error;

/// What an error is about, and from which side the files are touched.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The source's or sink's name.
    pub(crate) name: String,
    /// Whether it is written.
    pub(crate) sink: bool,
}

// === impl Subject ===

impl Subject {
    /// Makes the subject of a source.
    pub(crate) fn source(name: impl ToString) -> Self {
        Self { name: name.to_string(), sink: false }
    }

    /// Makes the subject of a sink.
    pub(crate) fn sink(name: impl ToString) -> Self {
        Self { name: name.to_string(), sink: true }
    }

    /// Makes an error about this subject.
    pub(crate) fn error(&self, code: Code, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::new(code, &self.name, message, hint)
    }

    /// Says that something is wrong with the data at a place.
    pub(crate) fn malformed(&self, message: impl Into<String>, hint: impl Into<String>) -> Error {
        self.error(Code::SourceMalformed, message, hint)
    }

    /// Says that a file changed while it was read.
    pub(crate) fn changed(&self, place: &str) -> Error {
        self.error(
            Code::SourceChanged,
            format!("{place} changed while it was read"),
            "let its writer finish, or write a new file and rename it; then run again",
        )
    }

    /// Says that an invariant of this crate broke.
    pub(crate) fn internal(&self, message: impl Into<String>) -> Error {
        self.error(Code::Internal, message, "please report this")
    }

    /// Says what an I/O error at a place means.
    pub(crate) fn io(&self, place: &str, error: io::Error) -> Error {
        // Errors of this crate travel through `Read` and `Write` as they are.
        if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok());
            return inner.map_or_else(|| self.internal("an error lost its content"), |inner| *inner);
        }
        let trouble = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Trouble::Full,
            io::ErrorKind::NotFound => Trouble::Missing,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Trouble::Denied,
            _ => Trouble::Other,
        };
        self.trouble(place, trouble).caused_by(error)
    }

    /// Says what an object store's error at a place means.
    pub(crate) fn object(&self, place: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let trouble = match &error {
            E::NotFound { .. } => Trouble::Missing,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Trouble::Denied,
            E::Precondition { .. } | E::NotModified { .. } if !self.sink => {
                return self.changed(place).caused_by(error);
            }
            _ => Trouble::Other,
        };
        self.trouble(place, trouble).caused_by(error)
    }

    fn trouble(&self, place: &str, trouble: Trouble) -> Error {
        match (trouble, self.sink) {
            (Trouble::Missing, false) => self.error(
                Code::SourceMissing,
                format!("there is nothing at {place}"),
                "check the path; a relative one starts at the base folder (`--base`)",
            ),
            (Trouble::Denied, false) => self.error(
                Code::SourceDenied,
                format!("{place} may not be read"),
                "give the user that runs the task read access",
            ),
            (Trouble::Full | Trouble::Other, false) => self.error(
                Code::SourceUnreachable,
                format!("{place} could not be read"),
                "check that the file system, bucket or server is reachable; then run again",
            ),
            (Trouble::Full, true) => self.error(
                Code::SinkFull,
                format!("there is no space left for {place}"),
                "free space or choose another place; nothing became visible",
            ),
            (Trouble::Denied, true) => self.error(
                Code::SinkDenied,
                format!("{place} may not be written"),
                "give the user that runs the task write access to the folder",
            ),
            (Trouble::Missing | Trouble::Other, true) => self.error(
                Code::SinkUnreachable,
                format!("{place} could not be written"),
                "check that the folder, bucket or server exists and is reachable; then run again",
            ),
        }
    }
}

#[derive(Clone, Copy)]
enum Trouble {
    Missing,
    Denied,
    Full,
    Other,
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind, Write};

    use dagwright_model::code::Code;

    use super::Subject;

    #[test]
    fn io_errors_have_codes() {
        for (kind, source, sink) in [
            (ErrorKind::NotFound, Code::SourceMissing, Code::SinkUnreachable),
            (ErrorKind::PermissionDenied, Code::SourceDenied, Code::SinkDenied),
            (ErrorKind::StorageFull, Code::SourceUnreachable, Code::SinkFull),
            (ErrorKind::TimedOut, Code::SourceUnreachable, Code::SinkUnreachable),
        ] {
            assert_eq!(Subject::source("s").io("x", Error::from(kind)).code(), source, "{kind}");
            assert_eq!(Subject::sink("s").io("x", Error::from(kind)).code(), sink, "{kind}");
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").unwrap_err();
        assert_eq!(Subject::sink("s").io("/dev/full", error).code(), Code::SinkFull);
    }
}
