//! Takes over partitions from whoever had them before.
//!
//! In this order, or something could be done twice: first the committed offset is asked for, which the brokers answer only
//! when no transaction is open that could move it, and nothing may be open in the ledger's partition. Every transaction of an owner moves or repeats the offset of its
//! partition, so by then all of the former owner's are over, and the group's generation refuses what it still sends. Then the
//! cache reads the ledger's partition to its end, so that it knows all that was committed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::{
    Error, client::Log, error::is_forbidden, member::GroupConsumer, ownership::Ownership, shared::Shared, tail::Ticket,
};

/// How long one question may take before the others have their turn.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait for news before the questions are asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The thread's state.
pub(crate) struct Acquirer {
    pub(crate) consumer: Arc<GroupConsumer>,
    /// Reads what is not committed, and is no member of the group.
    pub(crate) outsider: BaseConsumer<Log>,
    pub(crate) shared: Arc<Shared>,
    /// What waits for the cache, by epoch.
    pub(crate) awaiting: BTreeMap<u64, Awaiting>,
}

/// Waits for the cache.
pub(crate) struct Awaiting {
    position: i64,
    end: Option<Ticket>,
}

// === impl Acquirer ===

impl Acquirer {
    /// Acquires what is assigned until the instance is over.
    pub(crate) fn run(mut self) {
        while !self.shared.is_over() {
            let acquiring = self.shared.table.acquiring(PAUSE);
            self.awaiting.retain(|epoch, _| acquiring.iter().any(|ownership| ownership.epoch() == *epoch));
            let mut is_done = !acquiring.is_empty();
            for ownership in &acquiring {
                is_done &= self.acquire(ownership);
            }
            if !is_done && !acquiring.is_empty() {
                self.shared.table.wait(PAUSE);
            }
        }
    }

    /// Goes a step with a partition; true once it is acquired.
    fn acquire(&mut self, ownership: &Ownership) -> bool {
        if self.shared.is_over() || !ownership.is_current() {
            return false;
        }
        if !self.awaiting.contains_key(&ownership.epoch()) {
            let position = match self.position(ownership) {
                Ok(position) => position,
                Err(error) => {
                    self.complain(ownership, error);
                    return false;
                }
            };
            let is_home = ownership.topic() == self.shared.topics.requests;
            match if is_home { self.is_settled(ownership.partition()) } else { Ok(true) } {
                Ok(true) => {}
                Ok(false) => {
                    tracing::debug!(?ownership, "wait for what is open in the ledger");
                    return false;
                }
                Err(error) => {
                    self.complain(ownership, error);
                    return false;
                }
            }
            let end = is_home.then(|| self.shared.ends.ask(ownership.partition())).flatten();
            self.awaiting.insert(ownership.epoch(), Awaiting { position, end });
        }
        let awaiting = &self.awaiting[&ownership.epoch()];
        let is_met = awaiting.end.is_none_or(|ticket| self.shared.ends.is_met(ticket));
        if is_met {
            self.shared.table.acquired(ownership, awaiting.position);
        }
        is_met
    }

    /// Tells whether nothing is open in a partition of the ledger. What is open there may be committed, and its former owner
    /// has yet to make it visible; see [`super::confirm`].
    fn is_settled(&self, partition: i32) -> Result<bool, KafkaError> {
        let ledger = &self.shared.topics.ledger;
        let (_, stable) = self.consumer.fetch_watermarks(ledger, partition, ANSWER_TIMEOUT)?;
        let (_, written) = self.outsider.fetch_watermarks(ledger, partition, ANSWER_TIMEOUT)?;
        Ok(stable >= written)
    }

    /// Returns the offset to go on from; waits for open transactions that could move it.
    fn position(&self, ownership: &Ownership) -> Result<i64, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(ownership.topic(), ownership.partition());
        let committed = self.consumer.committed_offsets(asked, ANSWER_TIMEOUT)?;
        for place in committed.elements() {
            place.error()?;
            if let Offset::Offset(offset) = place.offset() {
                return Ok(offset);
            }
        }
        // Nobody committed anything: everything that is there is new.
        Ok(self.consumer.fetch_watermarks(ownership.topic(), ownership.partition(), ANSWER_TIMEOUT)?.0)
    }

    fn complain(&self, ownership: &Ownership, error: KafkaError) {
        match error.rdkafka_error_code() {
            Some(code) if is_forbidden(code) => {
                self.shared.fail(Error::of("read committed offsets", None, error));
            }
            _ => tracing::info!(?ownership, %error, "wait for a partition's former owner or for its broker"),
        }
    }
}
