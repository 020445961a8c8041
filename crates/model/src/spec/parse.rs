//! Text to spec: tree, structure, meaning, with the diagnostics of all three at once.

use super::{
    Diagnostics, Spec, de, document::Document, normalize::normalize, report::Report, report::Site, structure, texts,
    tree,
};
use crate::code::Code;

/// Parses and validates YAML or JSON text.
pub(super) fn parse(text: &str) -> Result<Spec, Diagnostics> {
    let mut report = Report::default();
    let spec = checked(text, &mut report);
    match spec {
        Some(spec) if report.is_empty() => Ok(spec),
        _ => Err(Diagnostics(report.finish())),
    }
}

fn checked(text: &str, report: &mut Report) -> Option<Spec> {
    let root = tree::read(text, report)?;
    texts::check(&root, report);
    let sound = structure::check(&root, report)?;
    match de::from_node::<Document>(&sound) {
        Ok(document) => {
            let mut later = Report::default();
            let spec = normalize(document, &root, &mut later);
            report.add_independent(later);
            spec
        }
        // The structural check is meant to be no laxer than serde; where it is, this is better than a panic.
        Err(error) => {
            if report.is_empty() {
                report.push(Code::SpecWrongType, &Site::root(Some(&root)), error.to_string(), "see docs/spec.md");
            }
            None
        }
    }
}
