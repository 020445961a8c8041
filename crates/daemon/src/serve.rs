//! The daemon: wires ledger, agents, engine and HTTP together, and ends in good order.
//!
//! What it takes on is in the ledger before anybody hears of it, so however it ends, the next one goes on: a signal
//! drains it, a ledger that failed ends it at once, since only a new process knows what is in it.

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use dagwright_agents::{
    Service,
    service::{Limits, Resources, Settings},
};
use dagwright_bus::kafka::Stats;
use dagwright_engine::{
    Engine,
    airflow::{AirflowEngine, told::Ear},
};
use dagwright_model::{code::Code, task::Problem};
use dagwright_store::{Cache, Outbox, Register, Retention, SledCache, SledStore};
use prometheus::Registry;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    approvals,
    cli::Common,
    config::{BusKind, Config, EngineKind},
    crew,
    desk::{STORE_WAIT, bounds},
    engines,
    exit::Exit,
    feedback::{self, Feedback},
    http::{self, auth::Gate, events::STREAMS_MAX, tls::Certificate},
    kafka::{self, Station},
    live::Live,
    outlets::{self, Events, Outlets},
    output::Output,
    refusal::Refusal,
    retention::{self, Readers},
    signal::{Stops, reload_requested},
    telemetry::Telemetry,
};

/// Arguments of `dagwright serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Which agents this process runs, of orchestrator, extraction, transformation and loading; without the
    /// orchestrator it takes no requests [default: agents.roles of the configuration, which is all]
    #[arg(long, value_name = "ROLE,…", value_delimiter = ',')]
    roles: Option<Vec<String>>,
}

/// What those who answer callers work with.
pub(crate) struct State {
    pub(crate) config: Arc<Config>,
    pub(crate) service: Service,
    pub(crate) register: Arc<dyn Register>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) admission: Arc<Admission>,
    /// What is known of the part in the group; `None` without Kafka, where nobody shares the ledger.
    pub(crate) kafka: Option<Arc<Stats>>,
    /// The position of the newest event.
    pub(crate) news: watch::Receiver<u64>,
    /// The settings that may change meanwhile.
    pub(crate) live: Live,
    /// What Prometheus is told.
    pub(crate) metrics: Registry,
    /// Who follows runs on Airflow; `None` where the engine is another.
    pub(crate) ear: Option<Arc<dyn Ear>>,
    /// What Airflow's listener posts.
    pub(crate) feedback: Feedback,
    /// Who may call.
    pub(crate) gate: Arc<Gate>,
    /// What callers are shown; `None` where they call without TLS.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// How many streams of events there may still be.
    pub(crate) streams: Arc<Semaphore>,
    /// Cancelled when streams of events are to end.
    pub(crate) closing: CancellationToken,
}

/// Serves until it is told to stop.
pub(crate) async fn execute(serve: &Serve, common: &Common, output: Output) -> Result<Exit> {
    let config = Arc::new(Config::load_service(common.config.as_deref(), serve.roles.as_deref())?);
    let telemetry = Telemetry::start(&config)?;
    let ended = if config.agents.lineup().leads() {
        lead(config, &telemetry, common, output).await
    } else {
        crew::serve(config, &telemetry, common, output).await
    };
    telemetry.end().await;
    ended
}

async fn lead(config: Arc<Config>, telemetry: &Telemetry, common: &Common, output: Output) -> Result<Exit> {
    if config.http.tokens.is_empty() {
        tracing::warn!("no tokens are set: every process on this machine may ask for anything");
    }
    let store: Arc<dyn Cache> = match config.bus.kind {
        BusKind::InProcess => Arc::new(SledStore::open(&config.store.path, STORE_WAIT)?),
        BusKind::Kafka => Arc::new(SledCache::open(&config.store.path, STORE_WAIT)?),
    };
    let (tell, news) = watch::channel(store.newest_event()?);
    store.listen(Arc::new(move |position| {
        tell.send_replace(position);
    }));
    let station = match config.bus.kind {
        BusKind::InProcess => None,
        BusKind::Kafka => Some(Station::join(&config, store.clone()).await?),
    };
    let register: Arc<dyn Register> = match &station {
        None => store.clone(),
        Some(station) => Arc::new(station.ledger.clone()),
    };
    let airflow = match config.engine.kind {
        EngineKind::Local => None,
        EngineKind::Airflow => Some(Arc::new(engines::airflow(&config, register.clone())?)),
    };
    let service = start_service(&config, register.clone(), airflow.clone()).await?;
    // The embedded engine sees its tasks itself.
    let ear: Option<Arc<dyn Ear>> = airflow.clone().map(|engine| engine as Arc<dyn Ear>);
    let hearing = feedback::topic::start(&config, ear.clone()).await?;
    let admission = Admission::new(config.clone(), register.clone()).map_err(|message| {
        let hint = "config/default.toml shows what a glob looks like".into();
        Refusal::Problem(Problem { code: Code::ConfigInvalid, subject: "uris.allow".into(), message, hint })
    })?;
    let admission = Arc::new(admission);
    let outlets = match &station {
        None => {
            let events = Events::Outbox { outbox: store.clone(), news: news.clone() };
            Outlets::start(&config, &register, events).await?
        }
        Some(station) => {
            let events = Events::Topic { settings: &kafka::settings(&config), topics: station.topics() };
            Outlets::start(&config, &register, events).await?
        }
    };
    let (ledger, readers): (Arc<dyn Retention>, _) = match &station {
        None => (store.clone(), outlets::readers(&config)),
        // Outlets read the topic; what is here is a copy of it.
        Some(station) => (Arc::new(station.ledger.clone()), Vec::new()),
    };
    let retention = tokio::spawn(retention::run(config.clone(), ledger, Readers(readers)));
    let kafka_stats = station.as_ref().map(|station| station.stats.clone());
    let state = Arc::new(State {
        config: config.clone(),
        service: service.clone(),
        register,
        outbox: store,
        admission: admission.clone(),
        kafka: kafka_stats,
        news,
        live: Live::new(common.config.clone(), config.clone(), telemetry.level.clone())?,
        metrics: telemetry.registry.clone(),
        ear,
        feedback: Feedback::new(&config.airflow.feedback)?,
        gate: Arc::new(Gate::new(&config.http)?),
        certificate: config.http.tls.as_ref().map(Certificate::read).transpose()?.map(Arc::new),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        closing: CancellationToken::new(),
    });
    let closing = state.closing.clone();
    let leave = CancellationToken::new();
    let mut member = match station {
        None => {
            service.go_on(|_| true).await?;
            None
        }
        Some(station) => {
            let stop = leave.clone().cancelled_owned();
            Some(tokio::spawn(station.work(config.clone(), admission, service.clone(), stop)))
        }
    };
    // Once this process knows which pipelines it acts for.
    let adopting = airflow.as_ref().and_then(|engine| engine.strangers());
    let adopting = adopting.map(|strangers| tokio::spawn(service.clone().adopt_all(strangers)));
    let asking = approvals::start(&config, &service)?;
    let reloads = tokio::spawn(reload(state.clone()));
    let (server, address) = http::start(state.clone())?;
    let handle = server.handle();
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    // Whoever reads the next line may stop us.
    let mut stops = Stops::hear()?;
    output.text(&format!("dagwright listens on {scheme}://{address}\n"))?;
    let mut server = tokio::spawn(server);
    let broken = tokio::select! {
        () = stops.next() => false,
        () = service.broken() => true,
        ended = async { match &mut member { Some(member) => member.await, None => std::future::pending().await } } => {
            ended.context("the part in the group ended")??;
            true
        }
        ended = &mut server => {
            ended.context("the HTTP server ended")?.context("the HTTP server ended")?;
            true
        }
    };
    reloads.abort();
    retention.abort();
    if let Some(asking) = asking {
        asking.abort();
    }
    if let Some(adopting) = adopting {
        adopting.abort();
    }
    if broken {
        return Err(Refusal::Problem(Problem {
            code: Code::StoreUnusable,
            subject: config.store.path.display().to_string(),
            message: "the ledger could not be used any longer; the log says why".into(),
            hint: "mend that and start again: what was taken on goes on".into(),
        })
        .into());
    }
    tracing::info!("draining");
    let grace = Duration::from_millis(config.shutdown.grace.0);
    // Callers first, so that nobody is told of what is not taken on.
    closing.cancel();
    let until = Instant::now() + grace;
    handle.stop(true).await;
    service.drain(grace).await;
    // As long as anything ran, it was heard of.
    if let Some(hearing) = hearing {
        hearing.abort();
    }
    service.leave().await;
    leave.cancel();
    if let Some(member) = member {
        member.await.context("the part in the group ended")??;
    }
    outlets.flush(until.saturating_duration_since(Instant::now())).await;
    tracing::info!("drained");
    Ok(Exit::Done)
}

async fn start_service(
    config: &Arc<Config>,
    register: Arc<dyn Register>,
    airflow: Option<Arc<AirflowEngine>>,
) -> Result<Service> {
    let engine: Arc<dyn Engine> = match airflow {
        Some(engine) => engine,
        None => Arc::new(engines::local(config)?),
    };
    let connections = config.all_connections()?;
    let agents = crew::ports(config, register.clone()).await?;
    let resources = Resources { agents, register, engine, connections };
    let Limits { negotiations_max, runs_max, open_max } = limits(config);
    let settings = Settings {
        staging: config.staging(),
        quarantine: config.quarantine(),
        bounds: bounds(config),
        replans_max: config.negotiation.replans_max,
        facts_age_max: Duration::from_millis(config.negotiation.facts_age_max.0),
        negotiations_max,
        runs_max,
        open_max,
    };
    Ok(Service::start(resources, settings).await?)
}

/// Returns how much is taken on at a time.
pub(crate) fn limits(config: &Config) -> Limits {
    let cores = available_parallelism().map_or(1, usize::from);
    Limits {
        negotiations_max: config.limits.negotiations,
        runs_max: match (config.limits.runs, config.engine.kind) {
            (0, EngineKind::Local) => cores,
            (0, EngineKind::Airflow) => config.limits.open_requests,
            (runs, _) => runs,
        },
        open_max: config.limits.open_requests,
    }
}

/// Reads the configuration again whenever somebody wants that.
async fn reload(state: Arc<State>) {
    let mut requests = reload_requested();
    while requests.next().await {
        state.live.reload(&state.gate, state.certificate.as_deref(), Some((&state.service, &state.feedback)));
    }
}
