//! Where an outlet's events come from, and where it is remembered how far they were delivered.
//!
//! Alone, a process reads its outbox, and its store remembers the position. Where instances share the work, the events'
//! topic is the outbox: the outlet is a consumer group of its own, which shares the partitions among the instances
//! and remembers the offsets, so whoever takes over goes on where the other was.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use dagwright_bus::kafka::{EventReader, Told};
use dagwright_model::event::Event;
use dagwright_store::{Error as StoreError, Outbox};
use dagwright_wire::cloudevent::{self, Binding, CloudEvent, Message};
use tokio::{sync::watch, task::JoinHandle};

use super::window::Place;

/// How many events are read at a time.
const BATCH: usize = 256;

/// How long to wait when the outbox cannot be read; a ledger that failed ends the process anyway.
const RETRY: Duration = Duration::from_secs(1);

/// What comes next.
pub(super) enum Fed {
    /// An event.
    Event(Place, Box<CloudEvent>),
    /// Something that is none.
    Unreadable(Place, String),
    /// Somebody else goes on with a partition.
    Lost(i32),
}

/// Where events come from.
pub(super) enum Feed {
    Outbox(OutboxFeed),
    Topic(TopicFeed),
}

/// Reads the outbox of this process.
pub(super) struct OutboxFeed {
    outbox: Arc<dyn Outbox>,
    news: watch::Receiver<u64>,
    /// The position of the last event that was read.
    position: u64,
    ready: VecDeque<(u64, Event)>,
    reached: watch::Sender<u64>,
    keeper: JoinHandle<()>,
}

/// Reads the topic of all events.
pub(super) struct TopicFeed {
    reader: EventReader,
    /// The name under which it is measured.
    name: String,
}

// === impl Feed ===

impl Feed {
    /// Waits for what comes next; `None` when nothing will.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Fed> {
        match self {
            Self::Outbox(feed) => feed.next().await,
            Self::Topic(feed) => feed.next().await,
        }
    }

    /// Returns what is there already; `None` when nothing is.
    pub(super) async fn next_now(&mut self) -> Option<Fed> {
        match self {
            Self::Outbox(feed) => feed.next_now().await,
            Self::Topic(feed) => feed.reader.try_next().map(fed),
        }
    }

    /// Has it remembered, soon, up to which places everything is settled.
    pub(super) fn reached(&self, places: &BTreeMap<i32, u64>) {
        match self {
            Self::Outbox(feed) => {
                if let Some(position) = places.get(&0) {
                    feed.reached.send_if_modified(|known| std::mem::replace(known, *position) != *position);
                }
            }
            Self::Topic(feed) => {
                // An offset is that of the next record.
                let next = |(partition, position): (&i32, &u64)| (*partition, *position as i64 + 1);
                feed.reader.reached(places.iter().map(next).collect());
                dagwright_store::metrics::undelivered(&feed.name, feed.reader.lag());
            }
        }
    }

    /// Ends once it is remembered what was reached.
    pub(super) async fn close(self) {
        match self {
            Self::Outbox(OutboxFeed { reached, keeper, .. }) => {
                drop(reached);
                if keeper.await.is_err() {
                    tracing::error!("who remembers what was delivered was lost; some of it will be delivered again");
                }
            }
            Self::Topic(feed) => feed.reader.close().await,
        }
    }
}

// === impl OutboxFeed ===

impl OutboxFeed {
    /// Goes on where the outlet was; a new one begins with what comes from now on.
    ///
    /// # Errors
    /// When the outbox cannot be read or written.
    pub(super) async fn open(outbox: Arc<dyn Outbox>, name: String, news: watch::Receiver<u64>) -> Result<Self> {
        let (at, reader) = (outbox.clone(), name.clone());
        let begin = move || {
            let position = at.delivered(&reader)?.map_or_else(|| at.newest_event(), Ok)?;
            // Also for one that is known: from here on it is measured.
            at.deliver(&reader, position)?;
            Ok::<_, StoreError>(position)
        };
        let position = tokio::task::spawn_blocking(begin).await.context("the outbox ended")??;
        let (reached, changes) = watch::channel(position);
        let keeper = tokio::spawn(keep(outbox.clone(), name, changes));
        Ok(Self { outbox, news, position, ready: VecDeque::new(), reached, keeper })
    }

    async fn next(&mut self) -> Option<Fed> {
        loop {
            self.news.borrow_and_update();
            if let Some(fed) = self.next_now().await {
                return Some(fed);
            }
            self.news.changed().await.ok()?;
        }
    }

    async fn next_now(&mut self) -> Option<Fed> {
        if self.ready.is_empty() {
            self.read().await;
        }
        let (position, event) = self.ready.pop_front()?;
        Some(Fed::Event(Place { partition: 0, position }, Box::new(cloudevent::of_event(&event))))
    }

    async fn read(&mut self) {
        loop {
            let (outbox, after) = (self.outbox.clone(), self.position);
            match tokio::task::spawn_blocking(move || outbox.events(after, BATCH)).await {
                Ok(Ok(events)) => {
                    if let Some((position, _)) = events.last() {
                        self.position = *position;
                    }
                    self.ready.extend(events);
                    return;
                }
                Ok(Err(error)) => tracing::error!(%error, "could not read the outbox"),
                Err(error) => tracing::error!(%error, "lost who reads the outbox"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Writes down what was delivered: one write at a time, each of the newest position.
async fn keep(outbox: Arc<dyn Outbox>, name: String, mut reached: watch::Receiver<u64>) {
    // What was sent last is seen before the end is.
    while reached.changed().await.is_ok() {
        let position = *reached.borrow_and_update();
        let (outbox, reader) = (outbox.clone(), name.clone());
        match tokio::task::spawn_blocking(move || outbox.deliver(&reader, position)).await {
            Ok(Ok(())) => {}
            // It is delivered again by the next process.
            Ok(Err(error)) => tracing::error!(%error, outlet = %name, "could not write down what was delivered"),
            Err(error) => tracing::error!(%error, outlet = %name, "lost who writes down what was delivered"),
        }
    }
}

// === impl TopicFeed ===

impl TopicFeed {
    pub(super) fn new(reader: EventReader, name: String) -> Self {
        Self { reader, name }
    }

    async fn next(&mut self) -> Option<Fed> {
        self.reader.next().await.map(fed)
    }
}

fn fed(told: Told) -> Fed {
    match told {
        Told::Lost(partition) => Fed::Lost(partition),
        Told::Record { partition, offset, headers, value } => {
            let place = Place { partition, position: u64::try_from(offset).unwrap_or_default() };
            let headers: Vec<(&str, &[u8])> =
                headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
            let body = value.as_deref().unwrap_or_default();
            match cloudevent::decode(Message { binding: Binding::Kafka, headers: &headers, body }) {
                Ok(Some(event)) => Fed::Event(place, Box::new(event)),
                Ok(None) => Fed::Unreadable(place, "it is no CloudEvent".into()),
                Err(error) => Fed::Unreadable(place, error.to_string()),
            }
        }
    }
}
