//! An error with what caused it, for the one line of the log that tells of it.

use std::{error::Error, fmt};

/// Shows an error and its sources, as `could not write: no space left on device`.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

// === impl ErrorChain ===

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dagwright_store::Error;

    use super::ErrorChain;

    #[test]
    fn the_cause_is_told() {
        let error = Error::Unreadable { what: "a record", source: "no space left on device".into() };
        let told = ErrorChain(&error).to_string();
        assert_eq!(told, "the store holds a record that cannot be read: no space left on device");
    }
}
