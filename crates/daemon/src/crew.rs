//! The agents of this process: what they work with, and how a process serves that has agents alone.
//!
//! Such a process takes no requests on, owns nothing and keeps nothing on disk: it answers what orchestrators of other
//! processes ask over the bus, with its own connections and as far as its own settings allow.

use std::{sync::Arc, thread::available_parallelism, time::Duration};

use anyhow::{Context, Result};
use async_trait::async_trait;
use dagwright_agents::{
    Far, Lineup, Ports, Team,
    observer::{ProcessObserver, Settings as ObserverSettings},
    ports::{Observer, SystemClock},
};
use dagwright_bus::{
    in_process::InProcess,
    kafka::{KafkaBus, Topics},
};
use dagwright_model::facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest};
use dagwright_store::{MemoryStore, Store};
use tokio::time::timeout;

use crate::{
    admission::Fence,
    cli::Common,
    config::Config,
    desk::{OBSERVE_TIMEOUT, task_program},
    exit::Exit,
    http::{self, auth::Gate, health::Readiness, tls::Certificate},
    kafka,
    live::Live,
    output::Output,
    signal::{Stops, reload_requested},
    telemetry::Telemetry,
};

/// How long the word that this process goes may take; without it others wait until it was silent for a while.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Looks at what the settings of this process open, whoever asks.
struct Fenced {
    observer: ProcessObserver,
    fence: Fence,
}

/// Serves until it is told to stop.
pub(crate) async fn serve(config: Arc<Config>, telemetry: &Telemetry, common: &Common, output: Output) -> Result<Exit> {
    let team = Arc::new(Team::start(ports(&config, Arc::new(MemoryStore::default())).await?).await?);
    let gate = Arc::new(Gate::new(&config.http)?);
    let certificate = config.http.tls.as_ref().map(Certificate::read).transpose()?.map(Arc::new);
    let live = Live::new(common.config.clone(), config.clone(), telemetry.level.clone())?;
    let reload = {
        let (gate, certificate) = (gate.clone(), certificate.clone());
        async move {
            let mut requests = reload_requested();
            while requests.next().await {
                live.reload(&gate, certificate.as_deref(), None);
            }
        }
    };
    let reloads = tokio::spawn(reload);
    let readiness = Readiness::Agents(team.clone());
    let (server, address) = http::start_vitals(&config, gate, certificate, telemetry.registry.clone(), readiness)?;
    let handle = server.handle();
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    // Whoever reads the next line may stop us.
    let mut stops = Stops::hear()?;
    output.text(&format!("dagwright listens on {scheme}://{address}\n"))?;
    let mut server = tokio::spawn(server);
    tokio::select! {
        () = stops.next() => {}
        ended = &mut server => {
            ended.context("the HTTP server ended")?.context("the HTTP server ended")?;
        }
    }
    reloads.abort();
    tracing::info!("leaving");
    // What is under way is asked again, of whoever stands in.
    if timeout(LEAVE_MAX, team.leave()).await.is_err() {
        tracing::warn!("left without a word");
    }
    handle.stop(true).await;
    Ok(Exit::Done)
}

/// Returns what the agents of this process work with.
pub(crate) async fn ports(config: &Arc<Config>, store: Arc<dyn Store>) -> Result<Ports> {
    let lineup = lineup(config).await?;
    let observer = ProcessObserver::new(ObserverSettings {
        command: task_program(config)?,
        base: None,
        connections: config.all_connections()?,
        timeout: OBSERVE_TIMEOUT,
        parallelism: available_parallelism().map_or(1, usize::from),
    });
    let observer: Arc<dyn Observer> = match &lineup.far {
        // What is asked here was admitted here.
        None => Arc::new(observer),
        Some(_) => Arc::new(Fenced { observer, fence: Fence::new(config.clone()).map_err(anyhow::Error::msg)? }),
    };
    Ok(Ports { bus: Arc::new(InProcess::new()), observer, store, clock: Arc::new(SystemClock), lineup })
}

/// Returns who takes part and who is here; where that is not everybody, with the way to the others.
async fn lineup(config: &Config) -> Result<Lineup> {
    let mut lineup = config.agents.lineup();
    if lineup.is_complete() {
        return Ok(lineup);
    }
    let settings = kafka::settings(config);
    let topics = Topics::ensure(&settings).await?;
    let bus = KafkaBus::start(&settings, &topics).await?;
    lineup.far = Some(Far {
        bus: Arc::new(bus),
        host: settings.instance,
        incarnation: uuid::Uuid::now_v7().to_string(),
        patience: config.agents.patience(),
    });
    Ok(lineup)
}

// === impl Fenced ===

#[async_trait]
impl Observer for Fenced {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        let checked = match request {
            ProbeRequest::Source { name, source, .. } => self.fence.check_read(&source.locator, name),
            ProbeRequest::Sink { name, locator, .. } => self.fence.check_write(locator, name),
        };
        match checked {
            Ok(()) => self.observer.probe(request).await,
            Err(problem) => ProbeReply::Failed(problem),
        }
    }

    async fn type_steps(&self, request: &TypingRequest) -> TypingReply {
        self.observer.type_steps(request).await
    }
}
