//! `dagwright watch [ID]`: what happens, as it happens; with a request, from its beginning to its end.

use anyhow::Result;
use clap::Args;

use crate::{
    client::{self, Client, Service, escaped},
    exit::Exit,
    output::Output,
    render,
    signal::stop_requested,
};

/// Arguments of `dagwright watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The request [default: all, from now on, until Ctrl-C]
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Those of this pipeline only
    #[arg(long, conflicts_with = "id")]
    pipeline: Option<String>,
    #[command(flatten)]
    service: Service,
}

/// Prints events, a line each.
pub(crate) async fn execute(arguments: &Watch, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    let path = match (&arguments.id, &arguments.pipeline) {
        (Some(id), _) => format!("/events?request={}", escaped(id)),
        (None, Some(pipeline)) => format!("/events?pipeline={}", escaped(pipeline)),
        (None, None) => "/events".into(),
    };
    let mut watch = client::Watch::new(&client, path);
    loop {
        let seen = tokio::select! {
            seen = watch.next() => seen?,
            () = stop_requested() => return Ok(Exit::Done),
        };
        output.text(&render::event::event(&seen, arguments.id.is_none()))?;
        output.json(&seen.whole)?;
        if arguments.id.is_some() && seen.kind.is_some_and(|kind| kind.is_final()) {
            return Ok(Exit::Done);
        }
    }
}
