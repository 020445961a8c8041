//! Outlets: events are posted to webhooks and told to lineage tools, each at least once, those of a pipeline in order.
//!
//! | module | what it is |
//! |---|---|
//! | `outlet` | one outlet at work |
//! | `feed` | where its events come from, and where its place is remembered |
//! | `filter` | which events it is for |
//! | `window` | what is under way |
//! | `receiver` | who is told |
//! | `webhook` | a webhook, told of events as they are |
//! | `lineage` | an API or a topic, told of runs in OpenLineage's words |
//! | `endpoint` | one post |
//! | `verdict` | what an answer says |
//! | `signature` | Standard Webhooks' signatures |
//!
//! An event is in the outbox in the same transaction as what it tells of, so a receiver that is away delays events and
//! loses none. Why this is so, and what may be repeated, stands in `docs/adr/0012-outlets.md`.

mod endpoint;
mod feed;
mod filter;
mod lineage;
pub(crate) mod metrics;
mod outlet;
mod receiver;
pub(crate) mod signature;
mod verdict;
mod webhook;
mod window;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use dagwright_bus::kafka::{EventReader, Producer, Settings, Topics};
use dagwright_model::event::EventKind;
use dagwright_store::{Outbox, Register};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    endpoint::Endpoint,
    feed::{Feed, OutboxFeed, TopicFeed},
    filter::Filter,
    lineage::{Lineage, Target},
    metrics::Series,
    outlet::{Outlet, Patience},
    receiver::Receiver,
};
use crate::{
    config::{Config, webhooks::Webhook},
    kafka,
};

/// How long outlets have to flush when the grace time is used up already.
const FLUSH_MIN: Duration = Duration::from_secs(2);

/// What lineage tools are told of.
const OF_RUNS: [EventKind; 4] =
    [EventKind::RunStarted, EventKind::RunSucceeded, EventKind::RunFailed, EventKind::RunCancelled];

/// Where lineage may go.
const API: &str = "http";
const TOPIC: &str = "kafka";

/// All outlets of this process.
pub(crate) struct Outlets {
    running: JoinSet<()>,
    end: CancellationToken,
}

/// Where outlets find events.
pub(crate) enum Events<'a> {
    /// In the outbox of this process, which has the work to itself.
    Outbox { outbox: Arc<dyn Outbox>, news: watch::Receiver<u64> },
    /// In the topic that the instances share.
    Topic { settings: &'a Settings, topics: &'a Topics },
}

// === impl Outlets ===

impl Outlets {
    /// Starts every outlet of the configuration: each goes on where it was, a new one with what happens from now on.
    ///
    /// # Errors
    /// When the configuration cannot be used, or it cannot be read where an outlet was.
    pub(crate) async fn start(config: &Config, register: &Arc<dyn Register>, events: Events<'_>) -> Result<Self> {
        let (mut running, end) = (JoinSet::new(), CancellationToken::new());
        for (name, webhook) in &config.webhooks {
            let feed = feed(&events, of_webhook(name.as_str())).await?;
            running.spawn(outlet_of_webhook(name.as_str(), webhook, feed)?.run(end.clone()));
        }
        for to in lineage_targets(config) {
            let feed = feed(&events, of_lineage(to)).await?;
            running.spawn(outlet_of_lineage(config, to, register.clone(), feed).await?.run(end.clone()));
        }
        Ok(Self { running, end })
    }

    /// Posts what is there, for as long as is left of the grace time; what is not delivered then is delivered by the
    /// next process.
    pub(crate) async fn flush(mut self, left: Duration) {
        self.end.cancel();
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(left.max(FLUSH_MIN), all).await.is_err() {
            tracing::warn!("events are left to be delivered by the next process");
        }
    }
}

/// Returns the names of all outlets as readers of the outbox.
pub(crate) fn readers(config: &Config) -> Vec<String> {
    let webhooks = config.webhooks.keys().map(|name| of_webhook(name.as_str()));
    webhooks.chain(lineage_targets(config).into_iter().map(of_lineage)).collect()
}

fn of_webhook(name: &str) -> String {
    format!("webhooks.{name}")
}

fn of_lineage(to: &str) -> String {
    format!("lineage.{to}")
}

/// Returns where lineage goes: each way is an outlet of its own, so that neither waits for the other.
fn lineage_targets(config: &Config) -> Vec<&'static str> {
    let is_set = [(API, config.lineage.url() != Ok(None)), (TOPIC, !config.lineage.topic.is_empty())];
    is_set.into_iter().filter_map(|(to, is_set)| is_set.then_some(to)).collect()
}

async fn feed(events: &Events<'_>, reader: String) -> Result<Feed> {
    Ok(match events {
        Events::Outbox { outbox, news } => Feed::Outbox(OutboxFeed::open(outbox.clone(), reader, news.clone()).await?),
        Events::Topic { settings, topics } => {
            let group = format!("{}.{reader}", settings.group);
            Feed::Topic(TopicFeed::new(EventReader::start(settings, topics, &group).await?, reader))
        }
    })
}

fn outlet_of_webhook(name: &str, webhook: &Webhook, feed: Feed) -> Result<Outlet> {
    let wrong = |message: String| anyhow!("webhooks.{name}: {message}");
    let url = webhook.url().map_err(|message| wrong(message.into()))?;
    let signer = webhook.signer().map_err(wrong)?;
    let receiver = webhook::Webhook::new(url, webhook.mode, signer, webhook.timeout.duration())?;
    let filter = Filter::new(&webhook.events, webhook.namespaces.as_deref())?;
    let patience = Patience {
        first: webhook.backoff.duration(),
        longest: webhook.backoff_max.duration(),
        tries: webhook.tries.get(),
    };
    let series = Series::Webhook(name.into());
    Ok(Outlet::new(series, Arc::new(receiver), filter, feed, webhook.parallelism.get(), patience))
}

async fn outlet_of_lineage(
    config: &Config,
    to: &'static str,
    register: Arc<dyn Register>,
    feed: Feed,
) -> Result<Outlet> {
    let settings = &config.lineage;
    let wrong = |message: String| anyhow!("lineage: {message}");
    let target = match settings.url().map_err(|message| wrong(message.into()))? {
        Some(url) if to == API => {
            let authorization = settings.authorization().map_err(wrong)?;
            Target::Api(Endpoint::new(url, settings.timeout.duration())?, authorization)
        }
        _ => {
            let kafka = kafka::settings(config);
            let producer = Producer::new(&kafka, Topics::named(&kafka)).await?;
            Target::Topic(producer, settings.topic.clone())
        }
    };
    let receiver: Arc<dyn Receiver> = Arc::new(Lineage::new(register, settings.namespace.clone(), target));
    let filter = Filter::new(&OF_RUNS.map(|kind| kind.as_str().to_owned()), None)?;
    let patience = Patience {
        first: settings.backoff.duration(),
        longest: settings.backoff_max.duration(),
        tries: settings.tries.get(),
    };
    Ok(Outlet::new(Series::Lineage(to), receiver, filter, feed, settings.parallelism.get(), patience))
}
