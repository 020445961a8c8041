//! `dagwright status [ID]`: how far a request is, or the newest ones.

use anyhow::Result;
use clap::Args;

use crate::{
    api::{Page, Request},
    client::{Client, Service, escaped},
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The request [default: the newest ones]
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Those of this pipeline only
    #[arg(long, conflicts_with = "id")]
    pipeline: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 20, conflicts_with = "id")]
    limit: u16,
    #[command(flatten)]
    service: Service,
}

/// Shows one request or some.
pub(crate) async fn execute(arguments: &Status, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    if let Some(id) = &arguments.id {
        let request: Request = client.get(&format!("/requests/{}", escaped(id))).await?;
        output.text(&render::request::request(&request))?;
        output.json(&request)?;
        return Ok(Exit::Done);
    }
    let mut path = format!("/requests?limit={}", arguments.limit);
    if let Some(pipeline) = &arguments.pipeline {
        path.push_str(&format!("&pipeline={}", escaped(pipeline)));
    }
    let page: Page<Request> = client.get(&path).await?;
    let text = render::request::requests(&page.items);
    output.text(if text.is_empty() { "nothing was asked for yet\n" } else { &text })?;
    output.json(&page)?;
    Ok(Exit::Done)
}
