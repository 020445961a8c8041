//! Reads a spec from a file.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use dagwright_model::spec::{Diagnostics, SPEC_BYTES_MAX, Spec};

/// A spec and the text it was read from.
pub(crate) struct SpecFile {
    pub(crate) text: String,
    pub(crate) spec: Spec,
}

/// Says why there is no spec.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("could not read {}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{} is not a valid spec", file.display())]
    Invalid { file: PathBuf, diagnostics: Diagnostics },
}

/// Reads and validates a spec; a file larger than any spec is not read to its end.
pub(crate) fn read(file: &Path) -> Result<SpecFile, Unusable> {
    let unreadable = |source| Unusable::Unreadable { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let bound = SPEC_BYTES_MAX as u64 + 1; // One more than allowed, so that the parser sees that it is too large.
    File::open(file).and_then(|opened| opened.take(bound).read_to_end(&mut bytes)).map_err(unreadable)?;
    // Bytes that are no UTF-8 become replacement characters, which the parser reports with their line.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match Spec::parse(&text) {
        Ok(spec) => Ok(SpecFile { text, spec }),
        Err(diagnostics) => Err(Unusable::Invalid { file: file.to_owned(), diagnostics }),
    }
}
