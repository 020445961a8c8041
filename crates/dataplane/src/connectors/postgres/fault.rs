//! Turns what PostgreSQL says into coded errors that hold no value from the data.
//!
//! A message of the classes that speak of objects and access names objects only and is passed on. Messages about data
//! (classes 21, 22, 23 and the rest), every `DETAIL` and every `CONTEXT` can hold values: of these only the SQLSTATE
//! and the names of column and constraint remain. For the same reason a database error is never kept as a cause.

use dagwright_model::code::Code;
use tokio_postgres::error::{DbError, SqlState};

use crate::error::Error;

/// Which side of a run a failure is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Reading.
    Source,
    /// Writing.
    Sink,
}

/// Who to name in errors.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The side.
    pub side: Side,
    /// The source, sink or connection.
    pub name: String,
}

struct Verdict {
    code: Code,
    what: &'static str,
    hint: &'static str,
}

// === impl Side ===

impl Side {
    pub(crate) fn unreachable(self) -> Code {
        match self {
            Self::Source => Code::SourceUnreachable,
            Self::Sink => Code::SinkUnreachable,
        }
    }

    pub(crate) fn denied(self) -> Code {
        match self {
            Self::Source => Code::SourceDenied,
            Self::Sink => Code::SinkDenied,
        }
    }

    pub(crate) fn drifted(self) -> Code {
        match self {
            Self::Source => Code::SourceDrifted,
            Self::Sink => Code::SinkDrifted,
        }
    }

    fn refused_data(self) -> Code {
        match self {
            Self::Source => Code::SourceMalformed,
            Self::Sink => Code::SinkRejectedRows,
        }
    }

    fn missing(self) -> Code {
        match self {
            Self::Source => Code::SourceMissing,
            Self::Sink => Code::SinkDrifted,
        }
    }
}

// === impl Subject ===

impl Subject {
    /// Names a source.
    pub(crate) fn source(name: impl Into<String>) -> Self {
        Self { side: Side::Source, name: name.into() }
    }

    /// Names a sink.
    pub(crate) fn sink(name: impl Into<String>) -> Self {
        Self { side: Side::Sink, name: name.into() }
    }

    /// Makes an error about this subject.
    pub(crate) fn error(&self, code: Code, message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::new(code, &*self.name, message, hint)
    }

    /// Makes the error of an operation that was cancelled.
    pub(crate) fn cancelled(&self) -> Error {
        self.error(Code::Cancelled, "cancelled", "run it again")
    }

    /// Makes an error of what the client library returned while `doing` something.
    pub(crate) fn fault(&self, doing: &str, error: tokio_postgres::Error) -> Error {
        if let Some(found) = error.as_db_error() {
            return self.database_fault(doing, found);
        }
        if let Some(why) = distrust(&error) {
            let hint = "check sslmode and sslrootcert in the connection's URL, and the server's certificate";
            return self.error(self.side.denied(), format!("could not {doing}: {why}"), hint).caused_by(error);
        }
        // Without an error of the database it is the connection that failed, or an answer nobody expects.
        let (code, hint) = match error.to_string().as_str() {
            "authentication error" | "invalid configuration" => {
                (self.side.denied(), "check user and password in the connection's URL")
            }
            text if text.starts_with("unexpected") || text.contains("serializing") => {
                (Code::Internal, "report this with the log")
            }
            _ => (self.side.unreachable(), "check that the server runs and can be reached from here"),
        };
        self.error(code, format!("could not {doing}: {error}"), hint).caused_by(error)
    }

    fn database_fault(&self, doing: &str, found: &DbError) -> Error {
        let verdict = judge(self.side, found.code());
        let state = found.code().code();
        let mut message = format!("could not {doing}: {} (SQLSTATE {state}", verdict.what);
        for (what, name) in [("column", found.column()), ("constraint", found.constraint())] {
            if let Some(name) = name {
                message.push_str(&format!(", {what} {name:?}"));
            }
        }
        message.push(')');
        if names_objects_only(state) {
            message.push_str(": ");
            message.push_str(found.message());
        }
        self.error(verdict.code, message, verdict.hint)
    }
}

/// Says why a server was not trusted, if that is what failed.
fn distrust(error: &tokio_postgres::Error) -> Option<String> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => cause.downcast_ref::<rustls::Error>(),
        };
        if let Some(rustls::Error::InvalidCertificate(why)) = found {
            return Some(format!("the server's certificate is not trusted: {why}"));
        }
        next = cause.source();
    }
    None
}

fn names_objects_only(state: &str) -> bool {
    let class = state.get(..2).unwrap_or_default();
    // 22P02 and its like quote the offending text, also in class 42 only 42601 (syntax) and undefined names occur.
    matches!(class, "08" | "0A" | "25" | "28" | "3D" | "3F" | "42" | "53" | "55" | "57" | "58")
}

fn judge(side: Side, state: &SqlState) -> Verdict {
    let code = state.code();
    let verdict = |code, what, hint| Verdict { code, what, hint };
    match code.get(..2).unwrap_or_default() {
        "28" => {
            verdict(side.denied(), "the server refused the login", "check user and password in the connection's URL")
        }
        "08" => verdict(side.unreachable(), "the connection failed", "check the server and the network"),
        "3D" => verdict(side.denied(), "there is no such database", "check the database in the connection's URL"),
        "53" if code == "53100" => {
            let full = if side == Side::Sink { Code::SinkFull } else { side.unreachable() };
            verdict(full, "the server's disk is full", "free some space on the server, then run it again")
        }
        "53" => {
            verdict(side.unreachable(), "the server lacks resources", "try again later, or raise the server's limits")
        }
        "57" if code == "57014" => verdict(
            side.unreachable(),
            "the server cancelled the statement",
            "find out who cancelled it; then run it again",
        ),
        "57" => verdict(side.unreachable(), "the server is shutting down or starting", "try again when it is up"),
        "58" | "XX" => verdict(side.unreachable(), "the server failed internally", "see the server's log"),
        "40" | "55" => verdict(side.unreachable(), "another transaction is in the way", "try again"),
        "42" if code == "42501" => {
            verdict(side.denied(), "permission denied", "grant the user what docs/connectors/postgres.md lists")
        }
        "25" if code == "25006" => {
            verdict(side.denied(), "only reading is allowed here", "use a query that only reads, or a writable server")
        }
        "3F" => verdict(side.missing(), "there is no such schema", "create the schema, or correct its name"),
        "42" if matches!(code, "42P01" | "42703") => {
            verdict(side.missing(), "there is no such table or column", "correct the name, or plan again")
        }
        "42" | "0A" => verdict(side.drifted(), "the statement does not fit the table", "plan again; check the query"),
        "21" if side == Side::Sink => verdict(
            Code::SinkDuplicateKey,
            "several rows share the key they are upserted by",
            "add `dedupe` to the sink, or make the key unique upstream",
        ),
        "23" => verdict(
            side.refused_data(),
            "a row breaks a constraint",
            "filter such rows with a quality gate, or relax the constraint",
        ),
        "22" => verdict(
            side.refused_data(),
            "a value does not fit its column",
            "filter or convert such values in a transform",
        ),
        _ => verdict(side.refused_data(), "the server refused it", "see the server's log"),
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::code::Code;
    use tokio_postgres::error::SqlState;

    use super::{Side, judge, names_objects_only};

    #[track_caller]
    fn check(state: &str, source: Code, sink: Code) {
        let state = SqlState::from_code(state);
        assert_eq!((judge(Side::Source, &state).code, judge(Side::Sink, &state).code), (source, sink), "{state:?}");
    }

    #[test]
    fn states_map_to_codes() {
        check("28P01", Code::SourceDenied, Code::SinkDenied);
        check("42501", Code::SourceDenied, Code::SinkDenied);
        check("42P01", Code::SourceMissing, Code::SinkDrifted);
        check("23505", Code::SourceMalformed, Code::SinkRejectedRows);
        check("22001", Code::SourceMalformed, Code::SinkRejectedRows);
        check("21000", Code::SourceMalformed, Code::SinkDuplicateKey);
        check("53100", Code::SourceUnreachable, Code::SinkFull);
        check("57P01", Code::SourceUnreachable, Code::SinkUnreachable);
        check("40P01", Code::SourceUnreachable, Code::SinkUnreachable);
    }

    #[test]
    fn messages_about_data_are_withheld() {
        for state in ["22P02", "22001", "23505", "21000", "P0001", "XX000"] {
            assert!(!names_objects_only(state), "{state}");
        }
        for state in ["42P01", "28P01", "53100"] {
            assert!(names_objects_only(state), "{state}");
        }
    }
}
