//! `dagwright approve PLAN`: lets a plan go on that waits for a person, or declines it.

use anyhow::Result;
use clap::Args;

use crate::{
    api::Decided,
    client::{Client, Repeat, Service, escaped},
    exit::Exit,
    output::Output,
    render::{self, number},
};

/// Arguments of `dagwright approve`.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// The plan's whole hash, as `status` and `watch` show it
    #[arg(value_name = "PLAN")]
    plan: String,
    /// Decline it: the requests that wait with it end
    #[arg(long)]
    decline: bool,
    #[command(flatten)]
    service: Service,
}

/// Approves or declines a plan.
pub(crate) async fn execute(arguments: &Approve, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    let verb = if arguments.decline { "decline" } else { "approve" };
    let path = format!("/plans/{}/{verb}", escaped(&arguments.plan));
    let decided: Decided = client.post(&path, Repeat::Unsafe, |request| request).await?;
    let what = match (decided.approved, decided.settled) {
        (true, true) => "goes on with",
        (true, false) => "will go on with",
        (false, true) => "ended with the declined",
        (false, false) => "will end with the declined",
    };
    let requests = number::counted(decided.requests.len() as u64, "request");
    output.text(&format!("{requests} {what} plan {}\n", render::safe(decided.plan_hash.short())))?;
    output.json(&decided)?;
    Ok(Exit::Done)
}
