//! `dagwright diff SPEC`: what would change against the plan that the pipeline ran last.

use anyhow::Result;
use clap::Args;
use dagwright_model::plan::Risk;
use dagwright_negotiation::changes;
use serde_json::json;

use crate::{
    cli::{Common, SpecArguments, plan},
    desk::Desk,
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    spec: SpecArguments,
}

/// Negotiates and compares; the baseline stays where it is.
pub(crate) async fn execute(arguments: &Diff, common: &Common, output: Output) -> Result<Exit> {
    let desk = Desk::open(common, &arguments.spec)?;
    let sealed = match plan::sealed(&desk, output).await? {
        Ok(sealed) => sealed,
        Err(exit) => return Ok(exit),
    };
    let baseline = match desk.store.baseline(&sealed.plan.dag_id)? {
        Some(hash) => desk.store.plan(&hash)?,
        None => None,
    };
    let found = changes::between(baseline.as_ref(), &sealed.plan);
    let risk = found.iter().map(|change| change.risk).max();
    let mut text = format!("{}\n", render::plan::headline(&sealed.plan));
    match &baseline {
        None => text.push_str("  never ran: everything is new\n"),
        Some(known) if found.is_empty() => {
            text.push_str(&format!("  no change against plan {}\n", known.hash().short()));
        }
        Some(known) => text.push_str(&format!("  against plan {}\n", known.hash().short())),
    }
    for change in &found {
        let style = match change.risk {
            Risk::Low => render::DIM,
            Risk::Medium => render::WARN,
            Risk::High => render::BAD,
        };
        let risk = render::styled(style, format_args!("{} risk", change.risk));
        text.push_str(&format!(
            "  {} {}: {} ({risk})\n",
            change.kind,
            render::safe(&change.subject),
            render::safe(&change.what)
        ));
    }
    output.text(&text)?;
    output.json(&json!({
        "baseline": baseline.map(|plan| plan.hash()),
        "plan_hash": sealed.plan.hash(),
        "risk": risk,
        "changes": found,
    }))?;
    Ok(if found.is_empty() { Exit::Done } else { Exit::Changed })
}
