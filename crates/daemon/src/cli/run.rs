//! `dagwright run SPEC`: negotiate, compile, execute on the embedded engine, account for every row.
//!
//! An unfinished run of the same request (pipeline, spec, parameters, interval) is continued on its sealed plan, without
//! looking at anything again: that is what makes the same command the remedy after a crash.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use chrono::Utc;
use clap::Args;
use dagwright_agents::interval;
use dagwright_compiler::{Target, compile};
use dagwright_engine::{Cancel, Engine, Job, LocalEngine, Replanning, RunOutcome, Settings, event};
use dagwright_model::{
    canonical,
    code::Code,
    id::RequestId,
    plan::Plan,
    record::{Accepted, DagCompiled, Purpose, Record, RecordBody, RunStarted},
    spec::{Approval, Interval, Schedule, SchemaChange},
    task::{Problem, Status},
};
use serde_json::json;

use crate::{
    cli::{Common, SpecArguments, plan},
    desk::{Desk, Wishes},
    exit::Exit,
    output::Output,
    progress,
    refusal::Refusal,
    render::{self, number},
    signal::stop_requested,
};

/// Arguments of `dagwright run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    spec: SpecArguments,
    /// A parameter of the spec; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The data interval, two RFC 3339 instants [default: the schedule's last whole one]
    #[arg(long, value_name = "START/END", value_parser = parse_interval)]
    interval: Option<Interval>,
    /// Read the interval whatever was read before, and leave the committed cursors where they are
    #[arg(long, requires = "interval")]
    backfill: bool,
}

/// A run that is about to start, or to go on.
struct Ready {
    request: RequestId,
    plan: Arc<Plan>,
    started: RunStarted,
}

/// Runs a spec to its end.
pub(crate) async fn execute(arguments: &Run, common: &Common, output: Output) -> Result<Exit> {
    let clock = Instant::now();
    let desk = Desk::open(common, &arguments.spec)?;
    let wishes =
        Wishes { params: arguments.params.clone(), interval: arguments.interval.clone(), backfill: arguments.backfill };
    let accepted = desk.accepted(Purpose::Run, &wishes)?;
    let ready = match unfinished(&desk, &accepted)? {
        Some(ready) => ready,
        None => match negotiated(&desk, accepted, output).await? {
            Ok(ready) => ready,
            Err(exit) => return Ok(exit),
        },
    };
    let quarantine = format!("{}/{}/{}/", ready.started.quarantine, ready.plan.dag_id, ready.started.effect);
    let (request, plan) = (ready.request.clone(), ready.plan.clone());
    let outcome = supervised(&desk, ready, output).await?;
    let elapsed = clock.elapsed();

    output.text("\n")?;
    output.text(&render::summary::counts(&plan, &outcome.counts, &quarantine))?;
    let verdict = match outcome.status {
        Status::Succeeded => {
            format!("\n{} in {}\n", render::styled(render::GOOD, "Done"), number::elapsed(elapsed))
        }
        Status::Failed => format!("\n{}\n", render::styled(render::BAD, "Failed; nothing half-written is visible")),
        Status::Cancelled => {
            format!("\n{}\n", render::styled(render::WARN, "Cancelled; nothing half-written is visible"))
        }
    };
    output.text(&verdict)?;
    for report in outcome.tasks.iter().filter(|report| !report.log_tail.is_empty()) {
        tracing::info!(task = %report.instance, log = report.log_tail, "end of a failed task's log");
    }
    output.json(&json!({
        "request_id": request,
        "plan_hash": plan.hash(),
        "status": outcome.status,
        "counts": outcome.counts,
        "problem": outcome.problem,
        "quarantine": quarantine,
        "tasks": outcome.tasks.iter().map(|report| json!({
            "task": report.instance.to_string(),
            "attempts": report.attempts,
            "outcome": report.outcome,
        })).collect::<Vec<_>>(),
        "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    }))?;
    Ok(match (outcome.status, &outcome.problem) {
        (Status::Succeeded, _) => Exit::Done,
        (_, Some(problem)) => Exit::of(problem.code),
        (_, None) => Exit::Failed,
    })
}

fn parse_interval(text: &str) -> Result<Interval, String> {
    interval::parse(text).map_err(|error| error.to_string())
}

/// Finds the run that this command continues.
fn unfinished(desk: &Desk, accepted: &Accepted) -> Result<Option<Ready>> {
    let Some(request) = desk.store.unfinished(&accepted.run_key())? else { return Ok(None) };
    let (mut plan, mut started) = (None, None);
    for record in desk.store.read(&request, 0)? {
        match record.body {
            RecordBody::PlanSealed(sealed) => plan = Some(sealed.plan),
            RecordBody::RunStarted(begun) => started = Some(*begun),
            _ => {}
        }
    }
    let Some(plan) = plan else { return Ok(None) };
    let started = match started {
        Some(started) => started,
        None => begin(desk, &request, &plan, accepted)?,
    };
    Ok(Some(Ready { request, plan: Arc::new(plan), started }))
}

/// Negotiates, compiles, and prepares the run; tells why there is none.
async fn negotiated(desk: &Desk, accepted: Accepted, output: Output) -> Result<Result<Ready, Exit>> {
    let (request, negotiated) = desk.negotiate(accepted.clone()).await?;
    let (facts, transcript) = (&negotiated.facts, &negotiated.transcript);
    let plan = match plan::agreed(negotiated.ending, &request, facts, transcript, output)? {
        Ok(plan) => plan,
        Err(exit) => return Ok(Err(exit)),
    };
    let offers: usize = plan.choices.iter().map(|choice| choice.rejected.len() + 1).sum();
    output.text(&format!(
        "{}\n\n{}\n{}",
        render::plan::headline(&plan),
        render::styled(render::HEADING, "What was found"),
        render::facts::facts(facts)
    ))?;
    let agreed = format!(
        "What was agreed ({} weighed in {})",
        number::counted(offers as u64, "alternative"),
        number::counted(transcript.0.len() as u64, "message")
    );
    let chosen = render::plan::chosen(&plan);
    output.text(&format!("\n{}\n{chosen}\n", render::styled(render::HEADING, agreed)))?;
    check_approval(&plan)?;
    record_dag(desk, &request, &plan, negotiated.next_sequence)?;
    let started = begin(desk, &request, &plan, &accepted)?;
    Ok(Ok(Ready { request, plan: Arc::new(plan), started }))
}

/// Refuses plans that a person must approve: that needs the daemon.
fn check_approval(plan: &Plan) -> Result<()> {
    let wanted = match plan.policy.approval {
        Approval::Never => false,
        Approval::OnSchemaChange => plan.schema_change != SchemaChange::None,
        Approval::Always => true,
    };
    if !wanted {
        return Ok(());
    }
    Err(Refusal::Problem(Problem {
        code: Code::SpecNotYet,
        subject: plan.dag_id.clone(),
        message: "this plan must be approved by a person, which `dagwright run` cannot ask for".into(),
        hint: "look at it with `dagwright plan`, and run it with `policy.approval: never`".into(),
    })
    .into())
}

/// Compiles the DAG that would do the same on Airflow, and records its hash: proof that the plan compiles.
fn record_dag(desk: &Desk, request: &RequestId, plan: &Plan, first: u64) -> Result<()> {
    let mut records = Vec::new();
    for target in Target::ALL {
        let artifacts = compile(plan, *target);
        let Some(dag) = artifacts.first() else { continue };
        let body = RecordBody::DagCompiled(DagCompiled {
            plan_hash: plan.hash(),
            target: target.to_string(),
            file: dag.name.clone(),
            file_hash: canonical::hash_bytes(&dag.bytes),
        });
        let at = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
        records.push(Record { request: request.clone(), sequence: first + records.len() as u64, at, body });
    }
    desk.store.append(&records).context("could not record the compiled DAG")
}

/// Returns what every task of the run is told.
fn begin(desk: &Desk, request: &RequestId, plan: &Plan, accepted: &Accepted) -> Result<RunStarted> {
    let interval = match (&accepted.interval, plan.schedule.as_ref().and_then(Schedule::cron)) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(schedule)) => Some(interval::last_whole(schedule, Utc::now())?),
        (None, None) => None,
    };
    Ok(RunStarted {
        plan_hash: plan.hash(),
        effect: request.to_string(),
        generation: 0,
        base: accepted.base.clone(),
        staging: desk.config.staging(),
        quarantine: desk.config.quarantine(),
        interval,
        params: accepted.params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        backfill: accepted.backfill,
        keep_staged: false,
        dag_run: None,
        version: 1,
    })
}

/// Runs on the embedded engine, shows how it goes, and stops in good order on Ctrl-C or SIGTERM.
async fn supervised(desk: &Desk, ready: Ready, output: Output) -> Result<RunOutcome> {
    let mut settings = Settings::new(&desk.program);
    if let Some(parallelism) = NonZeroUsize::new(desk.config.engine.parallelism) {
        settings.parallelism = parallelism;
    }
    let (events, shown) = event::channel();
    let cancel = Cancel::default();
    let display = tokio::spawn(progress::show(shown, output));
    let job = Job {
        request: ready.request,
        plan: ready.plan,
        connections: desk.connections.clone(),
        store: desk.store.clone(),
        events,
        cancel: cancel.clone(),
        // The same command negotiates anew; whoever gave it sees what happened first.
        replanning: Replanning::Never { why: "" },
    };
    let engine = LocalEngine::new(settings);
    let mut run = engine.run(job, ready.started);
    let outcome = tokio::select! {
        outcome = &mut run => outcome,
        () = stop_requested() => {
            cancel.request(None);
            tokio::select! {
                outcome = &mut run => outcome,
                // Dropping the future kills the tasks; the same command continues the run.
                () = stop_requested() => anyhow::bail!(Refusal::Problem(Problem {
                    code: Code::Cancelled,
                    subject: String::new(),
                    message: "stopped at once".into(),
                    hint: "the same command continues the run".into(),
                })),
            }
        }
    };
    drop(run);
    display.await.context("the progress display ended")?;
    Ok(outcome?)
}
