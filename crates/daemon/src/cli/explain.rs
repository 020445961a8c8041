//! `dagwright explain ID`: what happened to a request, by whom and why.

use anyhow::Result;
use clap::Args;

use crate::{
    api::Story,
    client::{Client, Service, escaped},
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The request
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    service: Service,
}

/// Prints a request's story.
pub(crate) async fn execute(arguments: &Explain, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    let story: Story = client.get(&format!("/requests/{}/explain", escaped(&arguments.id))).await?;
    output.text(&render::story::story(&story))?;
    output.json(&story)?;
    Ok(Exit::Done)
}
