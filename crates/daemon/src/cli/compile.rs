//! `dagwright compile SPEC --target T --out DIR`: negotiates and writes the DAG file and its plan file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use dagwright_compiler::{Artifact, compile};
use serde_json::json;

use crate::{
    cli::{Common, SpecArguments, Target, plan},
    desk::Desk,
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright compile`.
#[derive(Debug, Args)]
pub(crate) struct Compile {
    #[command(flatten)]
    spec: SpecArguments,
    /// Which Airflow the DAG is for
    #[arg(long, value_enum, default_value = "airflow3")]
    target: Target,
    /// The folder to write to; made when missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Negotiates, compiles and writes; files whose bytes are the same already stay untouched.
pub(crate) async fn execute(arguments: &Compile, common: &Common, output: Output) -> Result<Exit> {
    let desk = Desk::open(common, &arguments.spec)?;
    let sealed = match plan::sealed(&desk, output).await? {
        Ok(sealed) => sealed,
        Err(exit) => return Ok(exit),
    };
    let target = match arguments.target {
        Target::Airflow2 => dagwright_compiler::Target::Airflow2,
        Target::Airflow3 => dagwright_compiler::Target::Airflow3,
    };
    fs::create_dir_all(&arguments.out).with_context(|| format!("could not make {}", arguments.out.display()))?;
    let mut text = format!("{}\n", render::plan::headline(&sealed.plan));
    let mut files = Vec::new();
    // The plan file first: a DAG file never names a plan that is not there.
    for artifact in compile(&sealed.plan, target).iter().rev() {
        let path = arguments.out.join(&artifact.name);
        let changed = write(&path, artifact).with_context(|| format!("could not write {}", path.display()))?;
        text.push_str(&format!("  {} {}\n", if changed { "wrote" } else { "unchanged" }, path.display()));
        files.push(json!({ "path": path, "changed": changed }));
    }
    output.text(&text)?;
    output.json(&json!({ "plan_hash": sealed.plan.hash(), "target": target.to_string(), "files": files }))?;
    Ok(Exit::Done)
}

/// Writes a file whole or not at all, and only when its bytes change; tells whether they did.
fn write(path: &Path, artifact: &Artifact) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|known| known == artifact.bytes) {
        return Ok(false);
    }
    // A name that Airflow does not take for a DAG.
    let partial = path.with_file_name(format!(".{}.partial", artifact.name));
    fs::write(&partial, &artifact.bytes)?;
    fs::rename(&partial, path)?;
    Ok(true)
}
