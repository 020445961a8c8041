//! `dagwright validate GLOB…`: every diagnostic of many specs; opens no connection and looks at no data.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use dagwright_model::spec::Diagnostic;
use serde::Serialize;

use crate::{
    exit::Exit,
    output::Output,
    render::{self, number},
    spec_file::{self, Unusable},
};

/// Arguments of `dagwright validate`.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Files or globs of specs
    #[arg(value_name = "GLOB", required = true)]
    globs: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

/// Checks every file that matches.
pub(crate) fn execute(arguments: &Validate, output: Output) -> Result<Exit> {
    let mut files = Vec::new();
    for pattern in &arguments.globs {
        let before = files.len();
        for found in glob::glob(pattern).with_context(|| format!("{pattern:?} is not a glob"))? {
            files.push(found.context("could not list files")?);
        }
        if files.len() == before {
            output.warn(&format!("nothing matches {pattern:?}"));
            return Ok(Exit::BadInput);
        }
    }
    files.sort();
    files.dedup();
    let mut reports = Vec::new();
    for file in files {
        let diagnostics = match spec_file::read(&file) {
            Ok(_) => Vec::new(),
            Err(Unusable::Invalid { diagnostics, .. }) => {
                output.text(&render::problem::diagnostics(&file.to_string_lossy(), &diagnostics))?;
                diagnostics.0
            }
            Err(error @ Unusable::Unreadable { .. }) => return Err(error.into()),
        };
        reports.push(Report { file, valid: diagnostics.is_empty(), diagnostics });
    }
    let bad = reports.iter().filter(|report| !report.valid).count() as u64;
    let all = number::counted(reports.len() as u64, "spec");
    output.text(&if bad == 0 { format!("{all}, all valid\n") } else { format!("{all}, {bad} not valid\n") })?;
    output.json(&reports)?;
    Ok(if bad == 0 { Exit::Done } else { Exit::BadInput })
}
