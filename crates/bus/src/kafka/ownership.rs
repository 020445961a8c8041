//! Who may act for which partition, and how far it has come.
//!
//! An assigned partition is *acquired* before it is *owned*: its former owner's transactions must have ended, and the
//! local cache must have read all that they wrote. Each time it is acquired it is another [`Ownership`], so nothing that
//! was begun under an earlier one can be finished under a later one.
//!
//! Within an ownership, records are committed in the order in which they were received. The committed offset is all that
//! Kafka remembers, so a record that was passed over would never come again.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::message::TopicName;

/// The right to act for a partition, until it is lost.
#[derive(Clone)]
pub struct Ownership(Arc<Inner>);

struct Inner {
    topic: TopicName,
    partition: i32,
    epoch: u64,
    lost: watch::Sender<bool>,
}

/// The partitions owned, by topic and number.
pub type Owned = BTreeMap<(TopicName, i32), Ownership>;

/// All partitions that the group assigned.
pub(crate) struct Table {
    inner: Mutex<Entries>,
    owned: watch::Sender<Arc<Owned>>,
    /// Set when somebody else than the member's thread left it work.
    unsettled: AtomicBool,
    changed: Condvar,
}

#[derive(Default)]
struct Entries {
    last_epoch: u64,
    partitions: BTreeMap<(TopicName, i32), Entry>,
    outstanding: usize,
}

struct Entry {
    ownership: Ownership,
    state: State,
}

/// How far an assigned partition is.
enum State {
    /// It is to be taken up anew; the member's thread has yet to stop it.
    Renewing,
    /// Nothing is read from it; it waits for its former owner and for the cache.
    Acquiring,
    /// The member's thread is to read on from this offset.
    Ready { position: i64 },
    /// It is read from.
    Owned(Progress),
}

/// How far an owned partition has come.
struct Progress {
    /// What is committed: the offset to go on from.
    position: i64,
    /// What was received and is not committed, in order.
    outstanding: VecDeque<i64>,
}

/// What the member's thread is to do.
pub(crate) enum Task {
    /// Stop reading.
    Pause(Ownership),
    /// Read on from the offset.
    Resume(Ownership, i64),
}

/// Says why a commit is not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotNow {
    Lost,
    OutOfOrder { expected: Option<i64> },
}

// === impl Ownership ===

impl Ownership {
    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Returns the partition.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    /// Returns what grows with each ownership of this process.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Tells whether it holds; a commit asks again.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !*self.0.lost.borrow()
    }

    /// Returns when it is lost, for ever.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn lost(&self) {
        // The sender is ours.
        let _ = self.0.lost.subscribe().wait_for(|lost| *lost).await;
    }

    pub(crate) fn place(&self) -> (TopicName, i32) {
        (self.0.topic.clone(), self.0.partition)
    }

    fn end(&self) {
        self.0.lost.send_replace(true);
    }
}

impl PartialEq for Ownership {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Ownership {}

impl fmt::Debug for Ownership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { topic, partition, epoch, .. } = &*self.0;
        write!(f, "Ownership({topic}/{partition}, epoch {epoch}, current: {})", self.is_current())
    }
}

// === impl Table ===

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            owned: watch::Sender::new(Arc::default()),
            unsettled: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn owned(&self) -> watch::Receiver<Arc<Owned>> {
        self.owned.subscribe()
    }

    /// Notes that the group assigned a partition.
    pub(crate) fn assign(&self, topic: &str, partition: i32) {
        let mut entries = self.lock();
        let place = (TopicName::from(topic), partition);
        entries.remove(&place);
        let ownership = entries.next(&place);
        entries.partitions.insert(place, Entry { ownership, state: State::Acquiring });
        self.publish(&entries);
    }

    /// Notes that the group took a partition away; whoever acts for it hears at once.
    pub(crate) fn revoke(&self, topic: &str, partition: i32) {
        let mut entries = self.lock();
        entries.remove(&(TopicName::from(topic), partition));
        self.publish(&entries);
    }

    /// Ends an ownership whose last commit may or may not have been; the partition is acquired again.
    pub(crate) fn renew(&self, ownership: &Ownership) {
        let mut entries = self.lock();
        let place = ownership.place();
        if !ownership.is_current() || entries.remove(&place).is_none() {
            return;
        }
        let ownership = entries.next(&place);
        entries.partitions.insert(place, Entry { ownership, state: State::Renewing });
        self.publish(&entries);
        self.unsettled.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Notes that a partition can be read from an offset on.
    pub(crate) fn acquired(&self, ownership: &Ownership, position: i64) {
        let mut entries = self.lock();
        if let Some(entry) = entries.current(ownership) {
            entry.state = State::Ready { position };
        }
        self.unsettled.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Returns what is left for the member's thread.
    pub(crate) fn tasks(&self) -> Vec<Task> {
        if !self.unsettled.swap(false, AcqRel) {
            return Vec::new();
        }
        let task = |entry: &Entry| match entry.state {
            State::Renewing => Some(Task::Pause(entry.ownership.clone())),
            State::Ready { position } => Some(Task::Resume(entry.ownership.clone(), position)),
            State::Acquiring | State::Owned(_) => None,
        };
        self.lock().partitions.values().filter_map(task).collect()
    }

    /// Notes that a task could not be done yet.
    pub(crate) fn put_off(&self) {
        self.unsettled.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Notes that a partition which is to be taken up anew is not read from any more.
    pub(crate) fn paused(&self, ownership: &Ownership) {
        let mut entries = self.lock();
        if let Some(entry) = entries.current(ownership) {
            entry.state = State::Acquiring;
        }
        self.changed.notify_all();
    }

    /// Notes that a partition is read from, from an offset on: from here on it is owned.
    pub(crate) fn resumed(&self, ownership: &Ownership, position: i64) {
        let mut entries = self.lock();
        if let Some(entry) = entries.current(ownership) {
            entry.state = State::Owned(Progress { position, outstanding: VecDeque::new() });
        }
        self.publish(&entries);
    }

    /// Returns the partitions that wait to be acquired; waits a while for one when there is none.
    pub(crate) fn acquiring(&self, patience: Duration) -> Vec<Ownership> {
        let collect = |entries: &Entries| -> Vec<_> {
            let waits = |entry: &&Entry| matches!(entry.state, State::Acquiring);
            entries.partitions.values().filter(waits).map(|entry| entry.ownership.clone()).collect()
        };
        let entries = self.lock();
        let found = collect(&entries);
        if !found.is_empty() {
            return found;
        }
        let waited = self.changed.wait_timeout(entries, patience);
        collect(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits a while, or until something may have changed for a partition that waits to be acquired.
    pub(crate) fn wait(&self, patience: Duration) {
        drop(self.changed.wait_timeout(self.lock(), patience));
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Notes that a record was received; `None` when its partition is not owned, and it will come again.
    pub(crate) fn received(&self, topic: &str, partition: i32, offset: i64) -> Option<Ownership> {
        let mut entries = self.lock();
        let entry = entries.partitions.get_mut(&(TopicName::from(topic), partition))?;
        let State::Owned(progress) = &mut entry.state else { return None };
        progress.outstanding.push_back(offset);
        let ownership = entry.ownership.clone();
        entries.outstanding += 1;
        Some(ownership)
    }

    /// Returns how many records were received and are not committed.
    pub(crate) fn outstanding(&self) -> usize {
        self.lock().outstanding
    }

    /// Returns the owned partitions.
    pub(crate) fn read_from(&self) -> Vec<Ownership> {
        let entries = self.lock();
        let owned = entries.partitions.values().filter(|entry| matches!(entry.state, State::Owned(_)));
        owned.map(|entry| entry.ownership.clone()).collect()
    }

    /// Returns the offsets that a transaction must carry when it takes in a record that was received `ahead` records
    /// after the committed ones, or none.
    ///
    /// # Errors
    /// When the ownership ended, or the record is not the next one.
    pub(crate) fn admit(&self, ownership: &Ownership, ahead: usize, consumed: Option<i64>) -> Result<i64, NotNow> {
        let mut entries = self.lock();
        let Some(Entry { state: State::Owned(progress), .. }) = entries.current(ownership) else {
            return Err(NotNow::Lost);
        };
        let before = match ahead {
            0 => Some(progress.position),
            _ => progress.outstanding.get(ahead - 1).map(|offset| offset + 1),
        };
        match consumed {
            None => before.ok_or(NotNow::OutOfOrder { expected: None }),
            Some(consumed) => {
                let expected = progress.outstanding.get(ahead).copied();
                if expected == Some(consumed) { Ok(consumed + 1) } else { Err(NotNow::OutOfOrder { expected }) }
            }
        }
    }

    /// Notes that so many of the received records are committed.
    pub(crate) fn committed(&self, ownership: &Ownership, consumed: usize, position: i64) {
        let mut entries = self.lock();
        let Some(Entry { state: State::Owned(progress), .. }) = entries.current(ownership) else { return };
        progress.position = position;
        let taken = progress.outstanding.drain(..consumed.min(progress.outstanding.len())).count();
        entries.outstanding -= taken;
    }

    /// Returns what is committed of the owned partitions.
    pub(crate) fn positions(&self) -> BTreeMap<(TopicName, i32), i64> {
        let position = |(place, entry): (&(TopicName, i32), &Entry)| match &entry.state {
            State::Owned(progress) => Some((place.clone(), progress.position)),
            State::Renewing | State::Acquiring | State::Ready { .. } => None,
        };
        self.lock().partitions.iter().filter_map(position).collect()
    }

    fn publish(&self, entries: &Entries) {
        let owned = |(place, entry): (&(TopicName, i32), &Entry)| {
            matches!(entry.state, State::Owned(_)).then(|| (place.clone(), entry.ownership.clone()))
        };
        let owned: Owned = entries.partitions.iter().filter_map(owned).collect();
        self.owned.send_if_modified(|known| {
            let differs = **known != owned;
            if differs {
                *known = Arc::new(owned);
            }
            differs
        });
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entries ===

impl Entries {
    fn next(&mut self, (topic, partition): &(TopicName, i32)) -> Ownership {
        self.last_epoch += 1;
        let lost = watch::Sender::new(false);
        Ownership(Arc::new(Inner { topic: topic.clone(), partition: *partition, epoch: self.last_epoch, lost }))
    }

    fn current(&mut self, ownership: &Ownership) -> Option<&mut Entry> {
        self.partitions.get_mut(&ownership.place()).filter(|entry| entry.ownership == *ownership)
    }

    fn remove(&mut self, place: &(TopicName, i32)) -> Option<()> {
        let entry = self.partitions.remove(place)?;
        entry.ownership.end();
        if let State::Owned(progress) = &entry.state {
            self.outstanding -= progress.outstanding.len();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{NotNow, Ownership, Table, Task};

    const TOPIC: &str = "requests";

    /// Assigns a partition and takes it through to being owned.
    fn own(table: &Table, partition: i32, position: i64) -> Ownership {
        table.assign(TOPIC, partition);
        settle(table, partition, position)
    }

    fn settle(table: &Table, partition: i32, position: i64) -> Ownership {
        let acquiring = table.acquiring(std::time::Duration::ZERO);
        let ownership = acquiring.into_iter().find(|ownership| ownership.partition() == partition).expect("acquiring");
        table.acquired(&ownership, position);
        for task in table.tasks() {
            match task {
                Task::Resume(ownership, position) => table.resumed(&ownership, position),
                Task::Pause(ownership) => table.paused(&ownership),
            }
        }
        ownership
    }

    #[test]
    fn a_partition_is_owned_only_once_it_was_acquired() {
        let table = Table::new();
        table.assign(TOPIC, 3);
        assert_eq!(table.received(TOPIC, 3, 7), None);
        assert!(table.owned().borrow().is_empty());
        let ownership = settle(&table, 3, 7);
        assert_eq!(table.owned().borrow().values().collect::<Vec<_>>(), [&ownership]);
        assert_eq!(table.received(TOPIC, 3, 7), Some(ownership));
    }

    #[test]
    fn records_are_committed_in_the_order_of_their_coming() {
        let table = Table::new();
        let ownership = own(&table, 0, 5);
        assert_eq!(table.admit(&ownership, 0, None), Ok(5), "nothing was received yet");
        for offset in [5, 9] {
            table.received(TOPIC, 0, offset);
        }
        assert_eq!(table.admit(&ownership, 0, Some(9)), Err(NotNow::OutOfOrder { expected: Some(5) }));
        assert_eq!(table.admit(&ownership, 0, Some(5)), Ok(6));
        assert_eq!(table.admit(&ownership, 1, Some(9)), Ok(10));
        assert_eq!(table.admit(&ownership, 2, None), Ok(10));
        table.committed(&ownership, 1, 6);
        assert_eq!(table.outstanding(), 1);
        assert_eq!(table.admit(&ownership, 0, Some(5)), Err(NotNow::OutOfOrder { expected: Some(9) }));
        assert_eq!(table.admit(&ownership, 0, Some(9)), Ok(10));
    }

    #[test]
    fn what_was_lost_is_never_owned_again() {
        let table = Table::new();
        let first = own(&table, 0, 0);
        table.received(TOPIC, 0, 0);
        table.revoke(TOPIC, 0);
        assert!(!first.is_current() && table.outstanding() == 0 && table.owned().borrow().is_empty());
        assert_eq!(table.admit(&first, 0, None), Err(NotNow::Lost));
        let second = own(&table, 0, 0);
        assert_eq!(table.admit(&first, 0, None), Err(NotNow::Lost));
        assert_eq!(table.admit(&second, 0, None), Ok(0));
        assert!(second.epoch() > first.epoch());
    }

    #[test]
    fn what_is_in_doubt_is_acquired_anew() {
        let table = Table::new();
        let first = own(&table, 0, 0);
        table.renew(&first);
        assert!(!first.is_current() && table.owned().borrow().is_empty());
        assert!(table.acquiring(std::time::Duration::ZERO).is_empty(), "it is still read from");
        let Some(Task::Pause(second)) = table.tasks().pop() else { panic!("nothing to do") };
        table.paused(&second);
        assert_eq!(settle(&table, 0, 4), second);
        assert_eq!(table.admit(&second, 0, None), Ok(4));
        table.renew(&first);
        assert!(second.is_current(), "an old ownership ends nothing");
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_the_loss() {
        let table = Table::new();
        let ownership = own(&table, 0, 0);
        let mut waiting = std::pin::pin!(ownership.lost());
        tokio::select! {
            biased;
            () = &mut waiting => panic!("not lost"),
            () = tokio::task::yield_now() => {}
        }
        table.revoke(TOPIC, 0);
        waiting.await;
    }
}
