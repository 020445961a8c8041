//! `dagwright config show`: every setting, its value, and where that is from.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, Subcommand};
use config::{Value, ValueKind};
use serde_json::json;

use crate::{cli::Common, config::Settings, exit::Exit, output::Output};

/// Arguments of `dagwright config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Print every setting with its value and where that is from; secrets are masked
    Show,
}

/// Prints the effective configuration.
pub(crate) fn execute(Config { what: What::Show }: &Config, common: &Common, output: Output) -> Result<Exit> {
    let settings = Settings::read(common.config.as_deref())?.masked();
    let width = settings.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value, origin) in &settings {
        let _ = writeln!(text, "{key:width$} = {}  # {origin}", json(value));
    }
    output.text(&text)?;
    let settings = settings
        .iter()
        .map(|(key, value, origin)| json!({ "key": key, "value": json(value), "origin": origin.to_string() }));
    output.json(&json!({ "settings": settings.collect::<Vec<_>>() }))?;
    Ok(Exit::Done)
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Nil => json!(null),
        ValueKind::Boolean(value) => json!(value),
        ValueKind::I64(value) => json!(value),
        ValueKind::U64(value) => json!(value),
        ValueKind::Float(value) => json!(value),
        ValueKind::String(value) => json!(value),
        ValueKind::Array(values) => values.iter().map(json).collect(),
        // What is larger than any file writes, and tables, which are shown by their keys.
        other => json!(other.to_string()),
    }
}
