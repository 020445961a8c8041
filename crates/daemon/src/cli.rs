//! The command line: what can be typed, and nothing of what it does.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::serve::Serve;

pub(crate) mod approve;
pub(crate) mod cancel;
pub(crate) mod compile;
pub(crate) mod config;
pub(crate) mod diff;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod validate;
pub(crate) mod watch;

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
    /// Ask a service for a pipeline; with --wait follow it to its end
    #[command(after_help = "Example:\n  dagwright submit examples/flights.yaml --wait")]
    Submit(submit::Submit),
    /// Show how far a request of a service is, or the newest ones
    #[command(after_help = "Example:\n  dagwright status --pipeline aviation.flights_daily")]
    Status(status::Status),
    /// Tell what happened to a request, by whom and why
    #[command(after_help = "Example:\n  dagwright explain 98969f40159c5c024ab1d993fecabcbf")]
    Explain(explain::Explain),
    /// Print what happens at a service, as it happens
    #[command(after_help = "Example:\n  dagwright watch --json | jq .data.error")]
    Watch(watch::Watch),
    /// Ask a request of a service to stop
    #[command(after_help = "Example:\n  dagwright cancel 98969f40159c5c024ab1d993fecabcbf")]
    Cancel(cancel::Cancel),
    /// Let a plan go on that waits for a person, or decline it
    #[command(
        after_help = "Example:\n  dagwright approve fe8eb14355461ff2458c5451fc78f845d8de0b55fbfdde33bf6b9a577553a264"
    )]
    Approve(approve::Approve),
    /// Check configuration, worker program, store, connections, Kafka and service; say what is wrong and how to mend it
    #[command(after_help = "Example:\n  dagwright doctor --url http://127.0.0.1:8642")]
    Doctor(doctor::Doctor),
    /// Look at what Kafka ingress could not take on, and send it again
    #[command(after_help = "Example:\n  dagwright dlq list --config dagwright.toml")]
    Dlq(dlq::Dlq),
    /// Look at the configuration
    #[command(after_help = "Example:\n  dagwright config show --config dagwright.toml")]
    Config(config::Config),
    /// Check many specs and print every diagnostic; opens no connection
    #[command(after_help = "Example:\n  dagwright validate 'pipelines/**/*.yaml'")]
    Validate(validate::Validate),
    /// Print the JSON Schema of specs, or of what events say
    #[command(after_help = "Example:\n  dagwright schema > dagwright.schema.json")]
    Schema(schema::Schema),
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
