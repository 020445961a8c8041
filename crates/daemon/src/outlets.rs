//! Outlets: events are posted to webhooks, each at least once, those of a pipeline in order.
//!
//! | module | what it is |
//! |---|---|
//! | `outlet` | one outlet at work |
//! | `feed` | where its events come from, and where its place is remembered |
//! | `filter` | which events it is for |
//! | `window` | what is under way |
//! | `receiver` | one post |
//! | `verdict` | what an answer says |
//! | `signature` | Standard Webhooks' signatures |
//!
//! An event is in the outbox in the same transaction as what it tells of, so a receiver that is away delays events and
//! loses none. Why this is so, and what may be repeated, stands in `docs/adr/0012-outlets.md`.

mod feed;
mod filter;
pub(crate) mod metrics;
mod outlet;
mod receiver;
pub(crate) mod signature;
mod verdict;
mod window;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use dagwright_bus::kafka::{EventReader, Settings, Topics};
use dagwright_store::Outbox;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    feed::{Feed, OutboxFeed, TopicFeed},
    filter::Filter,
    outlet::{Outlet, Patience},
    receiver::Receiver,
};
use crate::config::{Config, webhooks::Webhook};

/// How long outlets have to flush when the grace time is used up already.
const FLUSH_MIN: Duration = Duration::from_secs(2);

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
    pub(crate) async fn start(config: &Config, events: Events<'_>) -> Result<Self> {
        let (mut running, end) = (JoinSet::new(), CancellationToken::new());
        for (name, webhook) in &config.webhooks {
            let reader = reader(name.as_str());
            let feed = match &events {
                Events::Outbox { outbox, news } => {
                    Feed::Outbox(OutboxFeed::open(outbox.clone(), reader, news.clone()).await?)
                }
                Events::Topic { settings, topics } => {
                    let group = format!("{}.{reader}", settings.group);
                    Feed::Topic(TopicFeed::new(EventReader::start(settings, topics, &group).await?, reader))
                }
            };
            let outlet = outlet(name.as_str(), webhook, feed)?;
            running.spawn(outlet.run(end.clone()));
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

/// Returns the name of an outlet as a reader of the outbox.
pub(crate) fn reader(name: &str) -> String {
    format!("webhooks.{name}")
}

fn outlet(name: &str, webhook: &Webhook, feed: Feed) -> Result<Outlet> {
    let wrong = |message: String| anyhow!("webhooks.{name}: {message}");
    let url = webhook.url().map_err(|message| wrong(message.into()))?;
    let signer = webhook.signer().map_err(wrong)?;
    let receiver = Receiver::new(url, webhook.mode, signer, webhook.timeout.duration())?;
    let filter = Filter::new(&webhook.events, webhook.namespaces.as_deref())?;
    let patience = Patience {
        first: webhook.backoff.duration(),
        longest: webhook.backoff_max.duration(),
        tries: webhook.tries.get(),
    };
    Ok(Outlet::new(name.into(), receiver, filter, feed, webhook.parallelism.get(), patience))
}
