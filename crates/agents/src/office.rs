//! The post office of a process whose agents do not work alone: brings letters to agents of other processes and back, says who
//! is here, and knows who is there.
//!
//! What comes is written by others. A letter is passed on only if it is for an agent that runs here: to a participant,
//! what an orchestrator asks; to the orchestrator, what the process answers that it asked. Everything else is passed over.
//!
//! What goes out waits in a bounded queue. Where that is full, a letter is lost, as on any network: it is asked again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use dagwright_bus::{Bus, Encoding, Record, Subscription, Topic, letter};
use dagwright_model::{
    id::RequestId,
    letter::{Letter, Post, Presence},
    message::{Envelope, Party, Role},
};
use futures::{StreamExt, stream};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    lineup::{Far, Lineup},
    metrics,
    orchestrator::Notice,
    roster::{Change, Roster},
    team::Error,
};

/// The group in which the office reads; each process has its own.
const GROUP: &str = "office";

/// How often an agent says that it is there.
const WORD: Duration = Duration::from_secs(2);

/// How many letters may wait to leave; all sessions together may have a few thousand under way.
const LEAVING_MAX: usize = 4096;

/// How many letters are on their way at a time; they keep their order.
const UNDER_WAY_MAX: usize = 64;

/// A process's post office.
pub(crate) struct Office {
    far: Far,
    near: Arc<dyn Bus>,
    here: BTreeSet<Party>,
    leads: bool,
    roster: Mutex<Roster>,
    /// How often the agents here were built anew: each time they begin another life.
    lives: Mutex<BTreeMap<Party, u64>>,
    leaving: mpsc::Sender<Record>,
    orchestrator: mpsc::Sender<Notice>,
    began: Instant,
}

/// What an open office does; it closes when this is dropped.
pub(crate) struct Opened {
    pub(crate) office: Arc<Office>,
    tasks: Vec<JoinHandle<()>>,
}

// === impl Office ===

impl Office {
    /// Opens the office of a process; `near` is its own bus.
    pub(crate) async fn open(
        lineup: &Lineup,
        far: &Far,
        near: Arc<dyn Bus>,
        orchestrator: mpsc::Sender<Notice>,
    ) -> Result<Opened, Error> {
        let subscription = far.bus.subscribe(Topic::Agents, GROUP).await?;
        let (leaving, to_leave) = mpsc::channel(LEAVING_MAX);
        let here = lineup.here();
        let wanted = if lineup.leads() { lineup.parties.difference(&here).cloned().collect() } else { BTreeSet::new() };
        let patience_ms = u64::try_from(far.patience.as_millis()).unwrap_or(u64::MAX);
        let office = Arc::new(Self {
            far: far.clone(),
            near,
            here,
            leads: lineup.leads(),
            roster: Mutex::new(Roster::new(wanted, patience_ms)),
            lives: Mutex::default(),
            leaving,
            orchestrator,
            began: Instant::now(),
        });
        let tasks = vec![
            tokio::spawn(office.clone().read(subscription)),
            tokio::spawn(office.clone().tell()),
            tokio::spawn(send_all(far.bus.clone(), to_leave)),
        ];
        Ok(Opened { office, tasks })
    }

    /// Brings what an orchestrator has for a party elsewhere on its way.
    pub(crate) fn ask(&self, envelope: Envelope) {
        let now_ms = self.now_ms();
        let route = self.roster().route(&envelope.session, &envelope.to, now_ms);
        let Some((to_host, encoding)) = route else {
            tracing::debug!(session = %envelope.session, to = %envelope.to, "nobody is there for an agent");
            return;
        };
        self.post(to_host, envelope, encoding);
    }

    /// Brings an answer on its way to the process that asked.
    pub(crate) fn answer(&self, to_host: &str, envelope: Envelope) {
        self.post(to_host.to_owned(), envelope, Encoding::Protobuf);
    }

    fn post(&self, to_host: String, envelope: Envelope, encoding: Encoding) {
        let letter = Letter { from_host: self.far.host.clone(), to_host, envelope };
        self.leave(letter::to_record(&Post::Letter(letter), encoding));
    }

    fn leave(&self, record: Record) {
        if self.leaving.try_send(record).is_err() {
            tracing::warn!("the bus is behind, a message to another process was lost");
        }
    }

    /// Forgets a session that ended.
    pub(crate) fn forget(&self, session: &RequestId) {
        self.roster().forget(session);
    }

    /// Returns the parties that take part here and that no process runs.
    pub(crate) fn missing(&self) -> Vec<Party> {
        self.roster().missing()
    }

    /// Says that an agent here was built anew and remembers nothing.
    pub(crate) fn built_anew(&self, party: &Party) {
        *self.lives.lock().unwrap_or_else(PoisonError::into_inner).entry(party.clone()).or_default() += 1;
        self.leave(letter::to_record(&Post::Presence(self.presence(party, false)), Encoding::Protobuf));
    }

    /// Says that nobody is here any longer; waits until that is on its way.
    pub(crate) async fn close(&self) {
        for party in &self.here {
            let record = letter::to_record(&Post::Presence(self.presence(party, true)), Encoding::Protobuf);
            if let Err(error) = self.far.bus.publish(Topic::Agents, record).await {
                tracing::warn!(%error, "left without a word");
                return;
            }
        }
    }

    fn presence(&self, party: &Party, leaving: bool) -> Presence {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner).get(party).copied().unwrap_or_default();
        Presence {
            party: party.clone(),
            host: self.far.host.clone(),
            incarnation: format!("{}.{lives}", self.far.incarnation),
            leaving,
        }
    }

    /// Says who is here.
    fn announce(&self) {
        let orchestrator = self.leads.then(|| Party::sole(Role::Orchestrator));
        for party in self.here.iter().chain(&orchestrator) {
            self.leave(letter::to_record(&Post::Presence(self.presence(party, false)), Encoding::Protobuf));
        }
    }

    /// Says who is here again and again, and notices who is silent.
    async fn tell(self: Arc<Self>) {
        let mut ticks = interval(WORD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.announce();
            let now_ms = self.now_ms();
            let changes = self.roster().passed(now_ms);
            metrics::away(self.missing().len());
            self.notify(changes).await;
        }
    }

    async fn read(self: Arc<Self>, mut subscription: Subscription) {
        // Orchestrators that were heard of, by host: who is new does not know yet who is here.
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        while let Some(record) = subscription.next().await {
            match letter::from_record(&record) {
                Ok((Post::Presence(presence), _)) if presence.party.role == Role::Orchestrator => {
                    let Presence { host, incarnation, .. } = presence;
                    // A crowd is forgotten, and greeted again.
                    if known.len() >= LEAVING_MAX {
                        known.clear();
                    }
                    if host != self.far.host && known.insert(host, incarnation.clone()) != Some(incarnation) {
                        self.announce();
                    }
                }
                Ok((Post::Presence(presence), encoding)) => {
                    let now_ms = self.now_ms();
                    let changes = self.roster().heard(&presence, encoding, now_ms);
                    self.notify(changes).await;
                }
                Ok((Post::Letter(letter), _)) if self.is_ours(&letter) => {
                    if self.near.publish(Topic::Agents, record).await.is_err() {
                        return;
                    }
                }
                Ok((Post::Letter(_), _)) => {}
                Err(error) => {
                    metrics::record_refused();
                    tracing::warn!(%error, reason = ?std::error::Error::source(&error), "dropped what is no letter");
                }
            }
        }
    }

    /// Tells whether a letter is for an agent here, from somebody it listens to.
    fn is_ours(&self, letter: &Letter) -> bool {
        let Letter { from_host, to_host, envelope } = letter;
        if *to_host != self.far.host || from_host.is_empty() {
            return false;
        }
        let is_fit = if envelope.to.role == Role::Orchestrator {
            self.leads && self.roster().serves(&envelope.session, &envelope.from, from_host)
        } else {
            self.here.contains(&envelope.to) && envelope.from.role == Role::Orchestrator
        };
        if !is_fit {
            metrics::record_refused();
            tracing::debug!(session = %envelope.session, from = %envelope.from, from_host, "passed a letter over");
        }
        is_fit
    }

    async fn notify(&self, changes: Vec<Change>) {
        for change in changes {
            let notice = match change {
                Change::Moved { party, sessions, blamed } => {
                    tracing::info!(%party, sessions = sessions.len(), blamed, "another process speaks for an agent");
                    Notice::Moved { party, sessions, blamed }
                }
                Change::Away { party, sessions } => {
                    tracing::warn!(%party, sessions = sessions.len(), "no process runs an agent that takes part");
                    Notice::Away { party, sessions }
                }
            };
            // Without an orchestrator there are no sessions that wait.
            let _ = self.orchestrator.send(notice).await;
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

// === impl Opened ===

impl Drop for Opened {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Sends what leaves, in its order, while some of it is still on its way.
async fn send_all(bus: Arc<dyn Bus>, to_leave: mpsc::Receiver<Record>) {
    let records = stream::unfold(to_leave, |mut to_leave| async { Some((to_leave.recv().await?, to_leave)) });
    let sent = records.map(|record| {
        let bus = bus.clone();
        async move {
            let (key, bytes) = (record.key.clone(), record.payload.len());
            if let Err(error) = bus.publish(Topic::Agents, record).await {
                tracing::warn!(key, bytes, %error, "a message to another process was lost");
            }
        }
    });
    sent.buffered(UNDER_WAY_MAX).for_each(|()| async {}).await;
}
