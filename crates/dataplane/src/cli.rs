//! The command line of `dagwright-task`.

mod spec;
mod stop;
mod telemetry;

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use clap::{Args, Parser, Subcommand};
use dagwright_dataplane::{
    connectors::{Environment, sink_for, source_for},
    error::{Error, Result},
    events::Events,
    run::{self, BuiltIn, Host},
    typing,
};
use dagwright_model::{
    code::{Code, TaskExit},
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::PlanHash,
    task::{RunContext, TaskEvent, TaskRun},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{spec::SpecSource, telemetry::Telemetry};

/// Tokio's workers; blocking work has threads of its own.
const WORKERS_MAX: usize = 16;

/// SQL may nest deep, and planning recurses; debug builds need more than Tokio's 2 MiB.
const STACK_BYTES: usize = 8 << 20;

/// Runs one task of a Dagwright pipeline.
///
/// Example: dagwright-task run --spec task.json
#[derive(Debug, Parser)]
#[command(name = "dagwright-task", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a task: JSON lines of events, the last of which is the outcome.
    Run(Options),
    /// Profiles a source or inspects a sink: one line of JSON.
    Probe(Options),
    /// Types the SQL of a transform: one line of JSON.
    Plan(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// The spec as JSON: a file, or `-` for standard input (with --lease-stdin its first line).
    #[arg(long)]
    spec: String,
    /// The folder that relative paths start from; absent: DAGWRIGHT_BASE, else what the run says.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Cancel when standard input ends, so that a dead parent leaves no orphan.
    #[arg(long)]
    lease_stdin: bool,
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors.
            let exit = if error.use_stderr() { TaskExit::BadSpec.number() } else { 0 };
            let _ = error.print();
            return ExitCode::from(exit);
        }
    };
    let telemetry = Telemetry::start();
    let cores = thread::available_parallelism().map_or(2, usize::from).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start");
            return ExitCode::from(TaskExit::DataError.number());
        }
    };
    let exit = runtime.block_on(perform(cli.command, cores));
    telemetry.end();
    // A thread may still wait for standard input or a slow system; nobody needs it any more.
    runtime.shutdown_background();
    ExitCode::from(exit.number())
}

async fn perform(command: Command, cores: usize) -> TaskExit {
    let cancel = CancellationToken::new();
    stop::on_signals(&cancel);
    let environment = Arc::new(Environment::from_process());
    match command {
        Command::Run(options) => run_task(options, environment, cancel, cores).await,
        Command::Probe(options) => {
            let reply = guarded(probe(options, environment, cancel)).await;
            let reply = reply.unwrap_or_else(|error| ProbeReply::Failed(*error.problem));
            let exit = match &reply {
                ProbeReply::Source(_) | ProbeReply::Sink(_) => TaskExit::Done,
                ProbeReply::Failed(problem) => problem.code.exit(),
            };
            print_line(&reply, exit)
        }
        Command::Plan(options) => {
            let reply = guarded(plan(options, cancel)).await;
            let reply = reply.unwrap_or_else(|error| TypingReply::Failed(vec![*error.problem]));
            let exit = match &reply {
                TypingReply::Typed(_) => TaskExit::Done,
                TypingReply::Failed(problems) => {
                    problems.first().map_or(TaskExit::DataError, |problem| problem.code.exit())
                }
            };
            print_line(&reply, exit)
        }
    }
}

async fn run_task(
    options: Options,
    environment: Arc<Environment>,
    cancel: CancellationToken,
    cores: usize,
) -> TaskExit {
    let events = stdout_events(cancel.clone());
    let task = match SpecSource::open(&options.spec, options.lease_stdin, &cancel).await {
        Ok(text) => parse::<TaskRun>(&text),
        Err(error) => Err(error),
    };
    let mut task = match task {
        Ok(task) => task,
        Err(error) => {
            let exit = error.code().exit();
            events.send(&TaskEvent::Outcome(Box::new(run::failed(error))));
            return exit;
        }
    };
    if let Some(base) = base(options.base) {
        task.run.base = Some(base);
    }
    let host = Host { environment, connectors: Arc::new(BuiltIn), events: events.clone(), cancel, cores };
    let span = telemetry::work(&task);
    let told = span.clone();
    let outcome = match guarded(async { Ok(run::run(task, host).await) }.instrument(span)).await {
        Ok(outcome) => {
            telemetry::done(&told, &outcome);
            outcome
        }
        Err(error) => {
            // The task panicked, so it has not said its outcome itself.
            let outcome = run::failed(error);
            events.send(&TaskEvent::Outcome(Box::new(outcome.clone())));
            outcome
        }
    };
    outcome.problem.map_or(TaskExit::Done, |problem| problem.code.exit())
}

async fn probe(options: Options, environment: Arc<Environment>, cancel: CancellationToken) -> Result<ProbeReply> {
    let text = SpecSource::open(&options.spec, options.lease_stdin, &cancel).await?;
    let request: ProbeRequest = parse(&text)?;
    let run = probe_context(base(options.base));
    let observe = async {
        match request {
            ProbeRequest::Source { name, source, keys } => {
                let connector = source_for(&source.locator, &environment)?;
                connector.profile(&name, &source, &keys, &run, &environment).await.map(ProbeReply::Source)
            }
            ProbeRequest::Sink { name, locator, format, mode } => {
                let connector = sink_for(&locator, &environment)?;
                connector.inspect(&name, &locator, format, mode, &run, &environment).await.map(ProbeReply::Sink)
            }
        }
    };
    tokio::select! {
        reply = observe => reply,
        () = cancel.cancelled() => Err(run::cancelled("probe")),
    }
}

async fn plan(options: Options, cancel: CancellationToken) -> Result<TypingReply> {
    let text = SpecSource::open(&options.spec, options.lease_stdin, &cancel).await?;
    let request: TypingRequest = parse(&text)?;
    tokio::select! {
        reply = typing::type_transform(&request) => reply,
        () = cancel.cancelled() => Err(run::cancelled("plan")),
    }
}

/// The folder that relative paths start from, where the process was given one.
fn base(option: Option<PathBuf>) -> Option<String> {
    let base = option.or_else(|| env::var_os("DAGWRIGHT_BASE").filter(|base| !base.is_empty()).map(PathBuf::from))?;
    Some(base.to_string_lossy().into_owned())
}

/// A probe belongs to no run; it needs one only to find relative paths.
fn probe_context(base: Option<String>) -> RunContext {
    RunContext {
        effect: "probe".into(),
        generation: 0,
        plan_hash: PlanHash(String::new()),
        attempt: 1,
        base,
        staging: String::new(),
        quarantine: String::new(),
        interval: None,
        params: Default::default(),
        partition: None,
        backfill: false,
        keep_staged: false,
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        // serde's message may quote the spec, which holds no data.
        Error::new(
            Code::TaskSpecInvalid,
            "spec",
            format!("the spec is not readable: {error}"),
            "give it as the engine writes it; specs of another release may not fit",
        )
    })
}

/// Runs work on a task of its own, so that a panic ends with a coded outcome.
async fn guarded<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        Err(Error::new(
            Code::Internal,
            "task",
            "the task ended in a panic; nothing became visible",
            "report it together with the pipeline spec; the log names the place",
        ))
    })
}

/// Writes events as JSON lines; a reader that is gone cancels the task.
fn stdout_events(cancel: CancellationToken) -> Events {
    let stdout = Mutex::new(io::stdout());
    Events::new(move |event| {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
        if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
            cancel.cancel();
        }
    })
}

fn print_line(reply: &impl serde::Serialize, exit: TaskExit) -> TaskExit {
    let Ok(mut line) = serde_json::to_vec(reply) else { return TaskExit::DataError };
    line.push(b'\n');
    let mut stdout = io::stdout();
    match stdout.write_all(&line).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(_) => TaskExit::Cancelled,
    }
}
