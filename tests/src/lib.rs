//! What the workspace's own tests share.
//!
//! Each test target is a file `tests/tests/<name>.rs`, or a folder `tests/tests/<name>/` with a `main.rs`: `tidy` asserts
//! the invariants of `docs/ARCHITECTURE.md`; others run the built programs end to end. They are kept apart from the
//! crates, so that no crate sees another's insides through its tests.

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
