//! Kafka as ingress and ledger: joins the group, admits what its topics bring, and acts for the pipelines of the
//! partitions that are assigned.
//!
//! A message is done with once one transaction holds what came of it and its offset: the acceptance with its event, what
//! is asked of whoever acts for its pipeline, or a dead letter, with the event that tells of it where it is known of which
//! pipeline. So each has one outcome, whoever reads it how often.
//!
//! What is asked of this instance stands in the ledger too, whose topic only instances write to: that a requester is who
//! it says was checked where the request came in. Nothing in a message says who sent it but the topic that it is in.

mod accepting;
mod desk;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use dagwright_agents::{
    Service,
    shared_ledger::{Feed, Heard, SharedLedger},
};
use dagwright_bus::kafka::{
    CommitError, Committer, Instance, Owned, Ownership, Producer, Requests, Settings, Stats, Topics,
};
use dagwright_model::{code::Code, id::RequestId, record::Record};
use dagwright_store::Cache;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::watch;

use self::desk::{Decision, Desk};
use crate::{
    admission::Admission,
    audit::{Came, Line},
    config::Config,
};

/// How many messages may be on their way into a transaction; more only wait longer.
const COMMITTING_MAX: usize = 512;

/// How many messages are decided about in one go, on one thread.
const TOGETHER_MAX: usize = 64;

/// How long the group is given to take over what this instance leaves.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// This process's part in the group.
pub(crate) struct Station {
    pub(crate) ledger: SharedLedger,
    pub(crate) stats: Arc<Stats>,
    heard: Heard,
    instance: Instance,
    requests: Requests,
    topics: Topics,
}

/// What came of a decision.
struct Outcome {
    committed: Result<(), CommitError>,
    accepted: Option<Record>,
    /// The request that was to be accepted, and the epoch of the ownership on which that rests.
    accepting: Option<(RequestId, u64)>,
    line: Line,
}

// === impl Station ===

impl Station {
    /// Makes the topics that are missing and joins the group.
    pub(crate) async fn join(config: &Config, cache: Arc<dyn Cache>) -> Result<Self> {
        let settings = settings(config);
        let topics = Topics::ensure(&settings).await?;
        let producer = Producer::new(&settings, topics.clone()).await?;
        let (feed, heard) = Feed::new(cache.clone(), topics.clone());
        let stats = Arc::new(Stats::default());
        dagwright_bus::metrics::observe(&stats, &topics);
        let (instance, requests) = Instance::start(settings, topics.clone(), feed, stats.clone()).await?;
        let ledger = SharedLedger::new(cache, &instance, producer, heard.clone());
        Ok(Self { ledger, stats, heard, instance, requests, topics })
    }

    /// Returns the topics.
    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Takes requests and acts for what is assigned until `stop`, or until the instance fails.
    pub(crate) async fn work(
        self,
        config: Arc<Config>,
        admission: Arc<Admission>,
        service: Service,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let Self { ledger, stats: _, heard, instance, requests, topics } = self;
        let desk = Arc::new(Mutex::new(Desk::new(config, admission, ledger, topics.clone())));
        let asks = Asks { asked: heard.asked(), owned: instance.owned() };
        let mut failure = instance.failure();
        let ended = tokio::select! {
            ended = take(requests, asks, desk, instance.committer(), service.clone()) => ended,
            ended = follow_ownership(instance.owned(), topics, service) => ended,
            failed = failure.wait_for(Option::is_some) => match failed.ok().and_then(|failed| failed.clone()) {
                Some(error) => Err(anyhow::Error::new(error).context("kafka cannot be used any longer")),
                None => Ok(()),
            },
            () = stop => Ok(()),
        };
        if tokio::time::timeout(CLOSE_MAX, instance.close()).await.is_err() {
            tracing::warn!("left the group without its word");
        }
        ended
    }
}

/// Tells when to look at what is asked.
struct Asks {
    asked: watch::Receiver<u64>,
    owned: watch::Receiver<Arc<Owned>>,
}

/// Takes messages as they come, and what is asked; what was decided goes into transactions together.
async fn take(
    mut requests: Requests,
    mut asks: Asks,
    desk: Arc<Mutex<Desk>>,
    committer: Committer,
    service: Service,
) -> Result<()> {
    let mut committing: FuturesOrdered<BoxFuture<'static, Outcome>> = FuturesOrdered::new();
    // What an earlier process heard of, or others asked before we came.
    let mut has_handed_on = look(&desk, &service).await?;
    loop {
        let room = COMMITTING_MAX.saturating_sub(committing.len()).min(TOGETHER_MAX);
        let decided = tokio::select! {
            Some(first) = committing.next() => {
                // Those of a transaction have their outcomes together.
                let mut outcomes = vec![first];
                while let Some(Some(outcome)) = committing.next().now_or_never() {
                    outcomes.push(outcome);
                }
                conclude(&desk, outcomes, &service).await?;
                continue;
            }
            received = requests.next(room), if room > 0 => {
                if received.is_empty() {
                    return Ok(());
                }
                let decide = |desk: &mut Desk| received.into_iter().map(|received| desk.decide(received)).collect();
                at(&desk, decide).await?
            }
            () = std::future::ready(()), if room > 0 && has_handed_on => {
                let (decided, are_left) = at(&desk, move |desk| desk.decide_handed_on(room)).await??;
                has_handed_on = are_left;
                Ok(decided)
            }
            asked = asks.asked.changed() => {
                asked.context("the ledger is read no more")?;
                has_handed_on = look(&desk, &service).await?;
                continue;
            }
            moved = asks.owned.changed() => {
                moved.context("left the group")?;
                // What was another's to do may be ours now.
                at(&desk, Desk::forget_looks).await?;
                has_handed_on = look(&desk, &service).await?;
                continue;
            }
        };
        let decided: Vec<Decision> = decided?;
        for Decision { commit, accepted, line, room } in decided {
            let epoch = commit.ownership.epoch();
            let accepting = accepted.as_ref().map(|record| (record.request.clone(), epoch));
            // In the order in which they came; what becomes of them is heard later.
            let submitted = committer.submit(commit).await;
            committing.push_back(Box::pin(async move {
                let committed = match submitted {
                    Ok(outcome) => outcome.visible().await,
                    Err(error) => Err(error),
                };
                drop(room);
                Outcome { committed, accepted, accepting, line }
            }));
        }
    }
}

/// Takes in what came of decisions, and goes on with what was accepted.
async fn conclude(desk: &Arc<Mutex<Desk>>, outcomes: Vec<Outcome>, service: &Service) -> Result<()> {
    let mut ended = Vec::with_capacity(outcomes.len());
    let mut accepted = Vec::new();
    for Outcome { committed, accepted: record, accepting, line } in outcomes {
        ended.extend(accepting);
        match committed {
            Ok(()) => {
                line.tell();
                accepted.extend(record);
            }
            Err(CommitError::TooLarge) => {
                tracing::warn!("what was to be written of a message was too long, so it is a dead letter");
                Line { code: Some(Code::RequestTooLarge.to_string()), came: Came::Refused, ..line }.tell();
            }
            // It comes again, here or elsewhere.
            Err(error) => tracing::info!(%error, "a message was not done with"),
        }
    }
    let arrivals = at(desk, move |desk| desk.conclude(&ended, &accepted)).await??;
    service.take_on(arrivals).await;
    Ok(())
}

/// Looks at what is asked and was not looked at before; returns whether requests were handed on to this instance.
async fn look(desk: &Arc<Mutex<Desk>>, service: &Service) -> Result<bool> {
    let (asked, has_handed_on) = at(desk, Desk::look).await??;
    for request in asked {
        service.hear(&request).await?;
    }
    Ok(has_handed_on)
}

/// Works at the desk where blocking is allowed, as it reads the cache.
async fn at<T: Send + 'static>(
    desk: &Arc<Mutex<Desk>>,
    work: impl FnOnce(&mut Desk) -> T + Send + 'static,
) -> Result<T> {
    let desk = desk.clone();
    let worked = tokio::task::spawn_blocking(move || work(&mut desk.lock().unwrap_or_else(PoisonError::into_inner)));
    worked.await.context("the desk was lost")
}

/// Goes on with what is open where a partition was won, and stops where one was lost.
async fn follow_ownership(mut owned: watch::Receiver<Arc<Owned>>, topics: Topics, service: Service) -> Result<()> {
    let mut acting: BTreeMap<i32, Ownership> = BTreeMap::new();
    loop {
        let now: BTreeMap<i32, Ownership> = owned
            .borrow_and_update()
            .iter()
            .filter(|((topic, _), _)| **topic == *topics.requests)
            .map(|((_, partition), ownership)| (*partition, ownership.clone()))
            .collect();
        let is_same = |partition: &i32, ownership: &Ownership| acting.get(partition) == Some(ownership);
        let lost: HashSet<i32> = acting
            .iter()
            .filter(|(partition, ownership)| now.get(partition) != Some(ownership))
            .map(|(partition, _)| *partition)
            .collect();
        let won: HashSet<i32> = now
            .iter()
            .filter(|(partition, ownership)| !is_same(partition, ownership))
            .map(|(partition, _)| *partition)
            .collect();
        if !lost.is_empty() {
            tracing::info!(partitions = ?lost, "lost partitions");
            let topics = topics.clone();
            service.release(move |pipeline| lost.contains(&topics.home(pipeline))).await;
        }
        if !won.is_empty() {
            tracing::info!(partitions = ?won, "acting for partitions");
            service.go_on(|pipeline| won.contains(&topics.home(pipeline))).await?;
        }
        acting = now;
        owned.changed().await.context("left the group")?;
    }
}

/// Returns what the bus is told of the settings.
pub(crate) fn settings(config: &Config) -> Settings {
    let kafka = &config.kafka;
    let mut settings = Settings::new(&kafka.brokers, instance_name(&kafka.instance));
    settings.prefix.clone_from(&kafka.prefix);
    settings.group.clone_from(&kafka.group);
    settings.partitions = kafka.partitions;
    settings.replication = (kafka.replication > 0).then_some(kafka.replication);
    let kept = config.retention.events.0;
    settings.events_retention_ms = Some(if kept == 0 { "-1".into() } else { kept.to_string() });
    settings.ingress = kafka.ingress.iter().map(|rule| rule.topic.clone()).collect();
    settings.properties = kafka.flat_properties();
    settings
}

/// Returns the configured name, or the machine's.
fn instance_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = machine.trim().chars().filter(|it| it.is_ascii_alphanumeric() || "-_.".contains(*it)).collect();
    if name.is_empty() { "dagwright".into() } else { name }
}
