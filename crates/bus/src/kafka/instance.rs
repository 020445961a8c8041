//! One instance's part: takes requests, owns partitions, keeps the cache, commits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    Commit, CommitError, Committer, Error, LedgerCache, Owned, Reader, Received, Settings, Stats, Topics,
    acquire::Acquirer,
    client::Log,
    member::{Group, GroupConsumer, Member, QUEUED_KIB_MAX, QUEUED_MAX},
    settings::create,
    shared::Shared,
    tail::Tail,
    topics::blocking,
    transactions::Transactions,
};

/// One instance's part in the ledger.
pub struct Instance {
    shared: Arc<Shared>,
    committer: Committer,
    threads: Mutex<Threads>,
}

/// The requests that an instance receives, with what is to be acted on first.
pub struct Requests(mpsc::Receiver<Received>);

#[derive(Default)]
struct Threads {
    /// Those that use the member's consumer, and the tail.
    others: Vec<JoinHandle<()>>,
    transactions: Option<JoinHandle<()>>,
}

// === impl Instance ===

impl Instance {
    /// Joins the group. Partitions are owned as they are acquired, see [`Self::owned`].
    ///
    /// # Errors
    /// When the settings cannot be used, or the cache cannot be read.
    pub async fn start(
        settings: Settings,
        topics: Topics,
        cache: impl LedgerCache,
        stats: Arc<Stats>,
    ) -> Result<(Self, Requests), Error> {
        settings.validate()?;
        blocking(move || Self::start_threads(settings, topics, cache, stats)).await
    }

    fn start_threads(
        settings: Settings,
        topics: Topics,
        cache: impl LedgerCache,
        stats: Arc<Stats>,
    ) -> Result<(Self, Requests), Error> {
        let shared = Arc::new(Shared::new(topics, stats));
        let tail: BaseConsumer<Log> = create(&settings.tail("tail"), Log::new("tail"))?;
        let tail = Tail::new(tail, shared.clone(), cache)?;
        let consumer: Arc<GroupConsumer> = Arc::new(create(&settings.member(), Group::new(shared.clone()))?);
        let names: Vec<&str> =
            [&shared.topics.requests].into_iter().chain(&shared.topics.ingress).map(String::as_str).collect();
        let subscribed = consumer.subscribe(&names);
        subscribed.map_err(|source| Error::Client { what: "join the consumer group", source })?;
        let outsider = create(&settings.uncommitted(), Log::new("outsider"))?;
        let witness = create(&settings.witness(), Log::new("witness"))?;
        let (committer, jobs) = Committer::channel();
        let (queue, requests) = mpsc::channel(QUEUED_MAX);
        let room = Arc::new(Semaphore::new(QUEUED_KIB_MAX));
        // From here on what was started ends when this is dropped.
        let looks = committer.looks();
        let instance = Self { shared: shared.clone(), committer, threads: Mutex::default() };
        let transactions = Transactions::new(settings, shared.clone(), consumer.clone(), witness, (jobs, looks));
        let (member, others) = (consumer.clone(), shared.clone());
        let acquirer = Acquirer { consumer: member, outsider, shared: others, awaiting: Default::default() };
        let member = Member::new(consumer, shared, queue, room);
        {
            let mut threads = instance.threads.lock().unwrap_or_else(PoisonError::into_inner);
            threads.transactions = Some(spawn("kafka-commit", move || transactions.run())?);
            threads.others.push(spawn("kafka-acquire", move || acquirer.run())?);
            threads.others.push(spawn("kafka-tail", move || tail.run())?);
            threads.others.push(spawn("kafka-member", move || member.run())?);
        }
        Ok((instance, Requests(requests)))
    }

    /// Returns the partitions that are owned, now and as they change. The set says what is so, and an [`Ownership`] in it
    /// says for how long: a partition that was lost and won again has another.
    ///
    /// [`Ownership`]: super::Ownership
    #[must_use]
    pub fn owned(&self) -> watch::Receiver<Arc<Owned>> {
        self.shared.table.owned()
    }

    /// Returns what the instance cannot get over, once there is such a thing: it then commits nothing more, and its
    /// process has to end.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.shared.failure()
    }

    /// Returns a handle to commit with.
    #[must_use]
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// See [`Committer::commit`].
    ///
    /// # Errors
    /// As there.
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.committer.commit(commit).await
    }

    /// Returns who knows how far the cache has read.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Returns the topics.
    #[must_use]
    pub fn topics(&self) -> &Topics {
        &self.shared.topics
    }

    /// Takes no more requests; what was taken can still be committed.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Finishes the commits that wait, hands the partitions over to the group, and ends.
    pub async fn close(self) {
        self.shared.drain();
        self.committer.end().await;
        blocking(move || {
            let mut threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
            threads.transactions.take().into_iter().for_each(join);
            self.shared.stop();
            // The last of them leaves the group.
            threads.others.drain(..).for_each(join);
        })
        .await;
    }
}

impl Drop for Instance {
    /// Ends as a crash would, but for what librdkafka does by itself; the threads end on their own.
    fn drop(&mut self) {
        self.shared.stop();
        self.committer.try_end();
    }
}

// === impl Requests ===

impl Requests {
    /// Waits for requests and returns those that are there, at most `limit` (at least 1); none when the instance ended.
    ///
    /// # Cancel safety
    /// Cancel safe: no request is lost.
    pub async fn next(&mut self, limit: usize) -> Vec<Received> {
        let mut received = Vec::new();
        self.0.recv_many(&mut received, limit).await;
        received
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(Error::Thread)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread for kafka panicked");
    }
}
