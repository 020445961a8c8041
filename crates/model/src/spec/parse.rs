//! Text to spec.
use super::{Diagnostics, Spec};
pub(super) fn parse(_text: &str) -> Result<Spec, Diagnostics> {
    unimplemented!()
}
