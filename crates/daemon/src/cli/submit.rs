//! `dagwright submit SPEC`: asks a service for a pipeline; with `--wait` follows it to its end, as `run` would tell it.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dagwright_agents::interval;
use dagwright_model::{
    code::Code,
    record::Purpose,
    request::{Action, Request, RunWishes},
    spec::{Interval, Locator, Spec},
    task::Problem,
};
use dagwright_store::RequestState;
use serde_json::json;
use uuid::Uuid;

use crate::{
    api::{self, Receipt, Run, WholePlan},
    cli::SpecArguments,
    client::{Client, Repeat, Service, Watch, escaped},
    exit::Exit,
    output::Output,
    params,
    refusal::Refusal,
    render, spec_file,
};

/// Arguments of `dagwright submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    spec: SpecArguments,
    #[command(flatten)]
    service: Service,
    /// Wait for its end, and exit as `run` does
    #[arg(long)]
    wait: bool,
    /// What is asked for
    #[arg(long, value_enum, default_value_t = What::Run)]
    action: What,
    /// A parameter of the spec; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The data interval, two RFC 3339 instants [default: the schedule's last whole one]
    #[arg(long, value_name = "START/END", value_parser = parse_interval)]
    interval: Option<Interval>,
    /// With `--action apply`: the spec's revision [default: the one after the applied one]
    #[arg(long)]
    revision: Option<u64>,
    /// What you call the request: the same id again is the same request [default: a new one]
    #[arg(long)]
    id: Option<String>,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Run once
    Run,
    /// Make the spec the pipeline's, as a new revision
    Apply,
    /// Run for an interval of the past
    Backfill,
    /// No runs from now on
    Pause,
    /// Forget the pipeline
    Delete,
}

/// Sends a spec.
pub(crate) async fn execute(arguments: &Submit, output: Output) -> Result<Exit> {
    let client = Client::new(&arguments.service)?;
    let body = serde_json::to_vec(&request(arguments)?).context("could not write the request")?;
    // One for all tries, so that an answer that was lost costs nothing.
    let key = arguments.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let receipt: Receipt = client
        .post("/requests", Repeat::Safe, |request| {
            let request = request.header("content-type", "application/json").header("idempotency-key", &key);
            request.body(body.clone())
        })
        .await?;
    if receipt.repeated {
        output.remark(&format!("this request was taken on before, as {}", receipt.request_id));
    }
    if !arguments.wait {
        output.text(&format!(
            "{}\n  watch it:   dagwright watch {0}\n  its story:  dagwright explain {0}\n",
            render::safe(&receipt.request_id.0)
        ))?;
        output.json(&receipt)?;
        return Ok(Exit::Done);
    }
    let mut watch = Watch::expecting(&client, format!("/events?request={}", escaped(&receipt.request_id.0)));
    loop {
        let seen = watch.next().await?;
        output.remark(render::event::event(&seen, false).trim_end());
        if seen.kind.is_some_and(|kind| kind.is_final()) {
            break;
        }
    }
    conclude(&client, &receipt, output).await
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    interval::parse(text).map_err(|error| error.to_string())
}

/// Makes the request, after every check that needs no service.
fn request(arguments: &Submit) -> Result<Request> {
    let action = match arguments.action {
        What::Run => Action::Run,
        What::Apply => Action::Apply,
        What::Backfill => Action::Backfill,
        What::Pause => Action::Pause,
        What::Delete => Action::Delete,
    };
    let file = spec_file::read(&arguments.spec.spec)?;
    if matches!(action.purpose(), Purpose::Pause | Purpose::Delete) {
        return Ok(Request { action, pipeline: Some(file.spec.dag_id()), ..Request::default() });
    }
    // Those that have defaults are left to the service, which has the same spec.
    let given = params::resolve(&file.spec.params, &arguments.params).map_err(Refusal::Arguments)?;
    let named = |name: &str| arguments.params.iter().any(|param| param.split('=').next() == Some(name));
    let params = given.into_iter().filter(|(name, _)| named(name.as_str())).collect();
    let text = absolute(&arguments.spec, &file.text, &file.spec)?;
    let run = RunWishes { interval: arguments.interval.clone(), params };
    Ok(Request { action, spec: Some(text.into()), pipeline: None, revision: arguments.revision, run })
}

/// Makes relative URIs absolute: a service has no folder to start from.
fn absolute(arguments: &SpecArguments, text: &str, spec: &Spec) -> Result<String> {
    let base = arguments.base.clone().or_else(|| arguments.spec.parent().map(Path::to_owned)).unwrap_or_default();
    let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { &base })
        .context("could not find the folder of the spec")?;
    let locate = |uri: &str| (!uri.contains("://") && !uri.starts_with('/')).then(|| joined(&base, uri));
    let rewritten = Spec::with_uris(text, locate);
    let left = Spec::parse(&rewritten).ok().is_none_or(|rewritten| {
        let sources = rewritten.sources.values().map(|source| &source.locator);
        let mut all = sources.chain(rewritten.sinks.values().map(|sink| &sink.locator));
        rewritten.dag_id() != spec.dag_id()
            || all.any(|locator| matches!(locator, Locator::Uri(uri) if locate(uri).is_some()))
    });
    if left {
        return Err(Refusal::Problem(Problem {
            code: Code::SpecBadUri,
            subject: arguments.spec.display().to_string(),
            message: "a relative URI could not be made absolute".into(),
            hint: "write the whole path".into(),
        })
        .into());
    }
    Ok(rewritten)
}

/// Joins a folder and a relative path, without `.` and `..`, which a service refuses.
fn joined(base: &Path, uri: &str) -> String {
    let mut path = base.to_path_buf();
    for part in uri.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    let folder = if uri.ends_with('/') { "/" } else { "" };
    format!("{}{folder}", path.to_string_lossy())
}

/// Tells what came of a request that has ended.
pub(crate) async fn conclude(client: &Client, receipt: &Receipt, output: Output) -> Result<Exit> {
    let id = escaped(&receipt.request_id.0);
    let request: api::Request = client.get(&format!("/requests/{id}")).await?;
    let run: Option<Run> = match &request.run_id {
        Some(_) => Some(client.get(&format!("/runs/{id}")).await?),
        None => None,
    };
    let particulars = run.as_ref().and_then(|run| run.particulars.as_ref());
    if let (Some(run), Some(hash)) = (particulars, &request.plan_hash)
        && let Some(counts) = &run.counts
    {
        let path = format!("/pipelines/{}/plans/{}", escaped(&request.pipeline), escaped(&hash.0));
        let whole: WholePlan = client.get(&path).await?;
        output.text("\n")?;
        output.text(&render::summary::counts(&whole.plan, counts, &run.quarantine))?;
    }
    let verdict = match request.state {
        RequestState::Succeeded => render::styled(render::GOOD, "Done"),
        RequestState::Cancelled => render::styled(render::WARN, "Cancelled; nothing half-written is visible"),
        RequestState::Deadlocked => render::styled(render::BAD, "The agents could not agree"),
        _ => render::styled(render::BAD, "Failed; nothing half-written is visible"),
    };
    output.text(&format!("\n{verdict}\n"))?;
    for problem in &request.problems {
        output.text(&render::problem::problem(problem))?;
    }
    let exit = match (request.state, request.problems.first()) {
        (RequestState::Succeeded, _) => Exit::Done,
        (RequestState::Deadlocked, _) => Exit::Rejected,
        (_, Some(problem)) => Exit::of(problem.code),
        (_, None) => Exit::Failed,
    };
    output.json(&json!({ "request": request, "run": run }))?;
    Ok(exit)
}
