//! What the commands that negotiate share: settings, spec, store and agents, opened in the order in which they fail best.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use dagwright_agents::{
    Lineup, Matter, Negotiated, Ports, Team,
    observer::{ProcessObserver, Settings},
    ports::{Clock, SystemClock},
};
use dagwright_bus::in_process::InProcess;
use dagwright_model::{
    code::Code,
    id::{Name, RequestId},
    message::Bounds,
    record::{Accepted, Ingress, Purpose, Record, RecordBody},
    spec::{Interval, Locator, Spec},
    task::Problem,
};
use dagwright_store::{SledStore, Store};

use crate::{
    cli::{Common, SpecArguments},
    config::Config,
    params,
    refusal::Refusal,
    spec_file::{self, SpecFile},
};

/// How long a command waits for another process to leave the store.
pub(crate) const STORE_WAIT: Duration = Duration::from_secs(5);

/// The longest that looking at one source or sink may take.
pub(crate) const OBSERVE_TIMEOUT: Duration = Duration::from_secs(300);

/// Everything a command needs to negotiate.
pub(crate) struct Desk {
    pub(crate) config: Config,
    pub(crate) file: SpecFile,
    pub(crate) base: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) connections: BTreeMap<Name, String>,
    pub(crate) store: Arc<dyn Store>,
}

/// What a request is for, beyond its spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Parameters as `name=value`.
    pub(crate) params: Vec<String>,
    /// The interval, if one was given.
    pub(crate) interval: Option<Interval>,
    /// Whether committed cursors neither bound the reading nor move.
    pub(crate) backfill: bool,
}

// === impl Desk ===

impl Desk {
    /// Opens everything.
    pub(crate) fn open(common: &Common, arguments: &SpecArguments) -> Result<Self> {
        let config = Config::load(common.config.as_deref())?;
        let file = spec_file::read(&arguments.spec)?;
        let base = match &arguments.base {
            Some(base) => base.clone(),
            None => arguments.spec.parent().map(Path::to_owned).unwrap_or_default(),
        };
        let base = std::path::absolute(if base.as_os_str().is_empty() { Path::new(".") } else { &base })
            .context("could not find the folder of the spec")?;
        let connections = config.connections(file.spec.namespace.as_ref())?;
        check_access(&config, &file.spec)?;
        let program = task_program(&config)?;
        let store = SledStore::open(&config.store.path, STORE_WAIT)?;
        Ok(Self { config, file, base, program, connections, store: Arc::new(store) })
    }

    /// Returns what the ledger is told of the request.
    pub(crate) fn accepted(&self, purpose: Purpose, wishes: &Wishes) -> Result<Accepted> {
        let spec = &self.file.spec;
        let params = match purpose {
            // A plan holds for every value of the parameters.
            Purpose::Plan => BTreeMap::new(),
            Purpose::Run | Purpose::Apply | Purpose::Pause | Purpose::Delete => {
                params::resolve(&spec.params, &wishes.params).map_err(Refusal::Arguments)?
            }
        };
        Ok(Accepted {
            pipeline: spec.dag_id(),
            spec_text: self.file.text.clone(),
            spec_hash: spec.hash(),
            ingress: Ingress::CommandLine,
            purpose,
            base: Some(self.base.to_string_lossy().into_owned()),
            params,
            interval: wishes.interval.clone(),
            backfill: wishes.backfill,
            revision: None,
            identity: None,
            requester: None,
            traceparent: None,
            follows: None,
        })
    }

    /// Records a request and lets the agents negotiate over it.
    pub(crate) async fn negotiate(&self, accepted: Accepted) -> Result<(RequestId, Negotiated)> {
        let request = RequestId(uuid::Uuid::now_v7().to_string());
        let clock = SystemClock;
        let record = Record {
            request: request.clone(),
            sequence: 0,
            at: clock.now_ms(),
            body: RecordBody::Accepted(Box::new(accepted)),
        };
        self.store.append(&[record])?;
        let observer = ProcessObserver::new(Settings {
            command: self.program.clone(),
            base: Some(self.base.clone()),
            connections: self.connections.clone(),
            timeout: OBSERVE_TIMEOUT,
            parallelism: std::thread::available_parallelism().map_or(1, usize::from),
        });
        let team = Team::start(Ports {
            bus: Arc::new(InProcess::new()),
            observer: Arc::new(observer),
            store: self.store.clone(),
            clock: Arc::new(clock),
            lineup: Lineup::default(),
        })
        .await?;
        let negotiated =
            team.negotiate(request.clone(), self.file.spec.clone(), bounds(&self.config), Matter::first()).await?;
        Ok((request, negotiated))
    }
}

/// Returns the bounds of a negotiation.
pub(crate) fn bounds(config: &Config) -> Bounds {
    let limits = &config.negotiation;
    Bounds {
        rounds_max: limits.rounds_max,
        alternatives_max: limits.alternatives_max,
        messages_max: limits.messages_max,
        elapsed_ms_max: limits.deadline.0,
        ..Bounds::default()
    }
}

/// Refuses connections that the configuration does not open for what the spec wants of them.
fn check_access(config: &Config, spec: &Spec) -> Result<()> {
    let connection = |locator: &Locator| match locator {
        Locator::Table { connection, .. } | Locator::Query { connection, .. } => Some(connection.clone()),
        Locator::Uri(_) => None,
    };
    let refused = |name: &Name, what: &str| {
        Refusal::Problem(Problem {
            code: Code::ConnectionMissing,
            subject: name.to_string(),
            message: format!("connection \"{name}\" may not be {what}"),
            hint: format!("see connections.{name}.access in the configuration"),
        })
    };
    for name in spec.sources.values().filter_map(|source| connection(&source.locator)) {
        if !config.may_read(&name) {
            return Err(refused(&name, "read").into());
        }
    }
    for name in spec.sinks.values().filter_map(|sink| connection(&sink.locator)) {
        if !config.may_write(&name) {
            return Err(refused(&name, "written").into());
        }
    }
    Ok(())
}

/// Finds the worker program: as configured, beside this one, or in PATH.
pub(crate) fn task_program(config: &Config) -> Result<PathBuf> {
    const NAME: &str = "dagwright-task";
    if !config.task.command.is_empty() {
        return Ok(PathBuf::from(&config.task.command));
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let in_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).map(|folder| folder.join(NAME)).collect::<Vec<_>>());
    let found = beside.into_iter().chain(in_path).find(|candidate| candidate.is_file());
    found.ok_or_else(|| {
        Refusal::Problem(Problem {
            code: Code::TaskCommandMissing,
            subject: NAME.into(),
            message: "dagwright-task is neither beside dagwright nor in PATH".into(),
            hint: "install it there, or set task.command".into(),
        })
        .into()
    })
}
