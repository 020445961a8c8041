//! `dagwright cancel ID`: asks a request to stop, wherever it is.

use anyhow::Result;
use clap::Args;

use crate::{
    api::Stopping,
    client::{Client, Repeat, Service, escaped},
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The request, or its run
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    service: Service,
}

/// Asks a request to stop.
pub(crate) async fn execute(arguments: &Cancel, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    let path = format!("/requests/{}/cancel", escaped(&arguments.id));
    let stopping: Stopping = client.post(&path, Repeat::Unsafe, |request| request).await?;
    let id = render::safe(&stopping.request_id.0);
    output.text(&format!("{id} was told to stop; see dagwright status {id}\n"))?;
    output.json(&stopping)?;
    Ok(Exit::Done)
}
