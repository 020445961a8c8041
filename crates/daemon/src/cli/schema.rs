//! `dagwright schema`: the JSON Schemas of specs, for editors and CI, and of what events say, for their consumers.

use anyhow::Result;
use clap::Args;
use dagwright_model::{event::EventKind, spec::Spec};

use crate::{exit::Exit, output::Output};

/// Arguments of `dagwright schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Of the data of events: one document with the schema of each kind under the name that `dataschema` gives
    #[arg(long)]
    events: bool,
}

/// Prints the schema; it is JSON with and without `--json`.
pub(crate) fn execute(arguments: &Schema, output: Output) -> Result<Exit> {
    let schema = if arguments.events { EventKind::json_schemas() } else { Spec::json_schema() };
    output.raw(&format!("{schema:#}\n"))?;
    Ok(Exit::Done)
}
