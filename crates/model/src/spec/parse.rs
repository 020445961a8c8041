//! Text to spec: tree, structure, meaning, with the diagnostics of all three at once.

use super::{
    DAG_ID_LENGTH_MAX, Diagnostics, Spec, de,
    document::Document,
    normalize::normalize,
    report::Report,
    report::Site,
    structure, texts,
    tree::{self, Kind},
};
use crate::{code::Code, id::Name};

/// Parses and validates YAML or JSON text.
pub(super) fn parse(text: &str) -> Result<Spec, Diagnostics> {
    let mut report = Report::default();
    let spec = checked(text, &mut report);
    match spec {
        Some(spec) if report.is_empty() => Ok(spec),
        _ => Err(Diagnostics(report.finish())),
    }
}

/// Reads no more of a spec than which pipeline it is of.
pub(super) fn dag_id(text: &str) -> Option<String> {
    let root = tree::read(text, &mut Report::default())?;
    let name = |key| match &root.entry(key)?.node.kind {
        Kind::Text(text) => Some(text.as_str()),
        // What is there and no text is no name either.
        _ => Some(""),
    };
    let pipeline = Name::new(name("pipeline")?).ok()?;
    let namespace = name("namespace").map(Name::new).transpose().ok()?;
    let dag_id = namespace.map_or_else(|| pipeline.to_string(), |namespace| format!("{namespace}.{pipeline}"));
    (dag_id.len() <= DAG_ID_LENGTH_MAX).then_some(dag_id)
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
