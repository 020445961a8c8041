//! `dagwright schema`: the JSON Schema of specs, for editors and CI.

use anyhow::Result;
use dagwright_model::spec::Spec;

use crate::{exit::Exit, output::Output};

/// Prints the schema; it is JSON with and without `--json`.
pub(crate) fn execute(output: Output) -> Result<Exit> {
    output.raw(&format!("{:#}\n", Spec::json_schema()))?;
    Ok(Exit::Done)
}
