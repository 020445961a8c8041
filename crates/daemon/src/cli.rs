//! The command line: what can be typed, and nothing of what it does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::serve::Serve;

pub(crate) mod compile;
pub(crate) mod config;
pub(crate) mod diff;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod validate;

/// Says which data should be where; agents negotiate how, and Airflow does it every night.
#[derive(Debug, Parser)]
#[command(
    name = "dagwright",
    version,
    max_term_width = 100,
    after_help = "Example:\n  dagwright run examples/flights.yaml"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// A configuration file (TOML) over the defaults
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Negotiate, compile and execute a spec on this machine; continue where an unfinished run ended
    #[command(after_help = "Example:\n  dagwright run examples/flights.yaml --param region=eu")]
    Run(run::Run),
    /// Negotiate only: print the plan, every alternative with its cost, and why each other one lost
    #[command(after_help = "Example:\n  dagwright plan examples/flights.yaml")]
    Plan(plan::Plan),
    /// Write the Airflow DAG and its plan file; the same input gives the same bytes
    #[command(after_help = "Example:\n  dagwright compile examples/flights.yaml --target airflow3 --out dags")]
    Compile(compile::Compile),
    /// Say what would change against the plan that last ran; exit code 5 on a change
    #[command(after_help = "Example:\n  dagwright diff examples/flights.yaml")]
    Diff(diff::Diff),
    /// Take requests over HTTP, let the agents negotiate them, run them, and tell what happens
    #[command(after_help = "Example:\n  DAGWRIGHT__URIS__ALLOW='/data/**' dagwright serve")]
    Serve(Serve),
    /// Look at the configuration
    #[command(after_help = "Example:\n  dagwright config show --config dagwright.toml")]
    Config(config::Config),
    /// Check many specs and print every diagnostic; opens no connection
    #[command(after_help = "Example:\n  dagwright validate 'pipelines/**/*.yaml'")]
    Validate(validate::Validate),
    /// Print the JSON Schema of specs
    #[command(after_help = "Example:\n  dagwright schema > dagwright.schema.json")]
    Schema,
}

/// The spec, and the run that it is for.
#[derive(Debug, Args)]
pub(crate) struct SpecArguments {
    /// The pipeline spec (YAML or JSON)
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    /// The folder that relative URIs start from [default: the spec's folder]
    #[arg(long, env = "DAGWRIGHT_BASE", value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
}

/// Which Airflow a DAG is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Airflow 2.11
    Airflow2,
    /// Airflow 3.x
    Airflow3,
}
