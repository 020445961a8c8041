//! What goes wrong in the data plane: a [`Problem`] for people, and its source for logs.

use dagwright_model::{code::Code, task::Problem};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A coded failure; its `Display` never holds a value from the data.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    /// What users see.
    pub problem: Box<Problem>,
    source: Option<Cause>,
}

// === impl Error ===

impl Error {
    /// Makes a failure about `subject` (a source, step, gate, sink or connection).
    pub fn new(code: Code, subject: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let problem = Problem { code, subject: subject.into(), message: message.into(), hint: hint.into() };
        Self { problem: Box::new(problem), source: None }
    }

    /// Makes a failure of a problem that is known already.
    #[must_use]
    pub fn from_problem(problem: Problem) -> Self {
        Self { problem: Box::new(problem), source: None }
    }

    /// Adds the failure that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.problem.code
    }
}
