//! Ends what brokers left open of a transaction, each part as it was decided.

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedMessage},
    producer::{BaseRecord, Producer},
};

use super::{
    super::{
        client::Log,
        confirm::Written,
        dangling::{dangling, was_committed},
        message::REPEATED,
        settings::create,
    },
    CALL_TIMEOUT, TransactionalProducer, Transactions,
};

/// The key of a record that is only written to be aborted; nobody ever reads it.
const ABORTED: &[u8] = b"aborted";

impl Transactions {
    /// Ends what brokers forgot to end; see [`dangling`].
    pub(super) fn clean(&mut self, producer: &TransactionalProducer) -> Result<(), KafkaError> {
        if let Some(((topic, partition), tag)) = &self.in_doubt {
            self.last_is_committed = match was_committed(&self.consumer, (topic, *partition), tag) {
                // The offsets themselves may be what was left open: then nobody is told of them.
                Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)) => {
                    self.unconfirmed.was_committed(&self.witness)?
                }
                answered => answered?,
            };
            if !self.last_is_committed {
                self.unconfirmed = Written::default();
            }
            self.in_doubt = None;
        }
        self.confirm(producer)?;
        if self.last_is_committed {
            self.end_offsets(producer)?;
        }
        let outsider = self.outsider()?;
        let open = dangling(&self.consumer, &outsider, &self.shared.topics)?;
        if !open.is_empty() {
            tracing::info!(partitions = open.len(), "end what an aborted transaction left open");
        }
        self.abort_in(producer, &open, &outsider)?;
        self.is_suspect = false;
        Ok(())
    }

    /// Makes sure that what was committed last is visible; see [`confirm`].
    pub(super) fn confirm(&mut self, producer: &TransactionalProducer) -> Result<(), KafkaError> {
        if self.unconfirmed.is_empty() {
            return Ok(());
        }
        self.unconfirmed.settle(&self.witness)?;
        if self.unconfirmed.is_empty() {
            return Ok(());
        }
        tracing::info!(partitions = self.unconfirmed.messages().len(), "end what a committed transaction left open");
        let (offset, Some(metadata)) = (self.aborted_offset()?, self.outsider()?.group_metadata()) else {
            return Err(KafkaError::Canceled);
        };
        producer.context().expect(self.unconfirmed.messages().len());
        producer.begin_transaction()?;
        let send = |message: &OwnedMessage| {
            let mut again = BaseRecord::<[u8], [u8], usize>::with_opaque_to(message.topic(), 0);
            again.partition = Some(message.partition());
            let headers = message.headers().cloned().unwrap_or_default();
            again.headers = Some(headers.insert(Header { key: REPEATED, value: Some("1") }));
            (again.key, again.payload) = (message.key(), message.payload());
            producer.send(again).map_err(|(error, _)| error)
        };
        let sent = self.unconfirmed.messages().try_for_each(send);
        let sent = sent
            .and_then(|()| self.call(|| producer.send_offsets_to_transaction(&offset, &metadata, CALL_TIMEOUT)))
            .and_then(|()| match producer.context().wait().first() {
                Some((_, code)) => Err(KafkaError::MessageProduction(*code)),
                None => Ok(()),
            })
            .and_then(|()| self.call(|| producer.commit_transaction(CALL_TIMEOUT)));
        if let Err(error) = sent {
            // Ends that transaction as well, in whatever way is left.
            self.is_suspect = true;
            let _ = self.call(|| producer.abort_transaction(CALL_TIMEOUT));
            return Err(error);
        }
        self.unconfirmed = Written::default();
        Ok(())
    }

    /// Ends the offsets of a committed transaction, which the brokers may have left open as they may its records: by a
    /// transaction that is committed, too, as to abort them would have what is done with come again.
    fn end_offsets(&self, producer: &TransactionalProducer) -> Result<(), KafkaError> {
        let (offset, Some(metadata)) = (self.aborted_offset()?, self.outsider()?.group_metadata()) else {
            return Err(KafkaError::Canceled);
        };
        producer.context().expect(0);
        producer.begin_transaction()?;
        let ended = self
            .call(|| producer.send_offsets_to_transaction(&offset, &metadata, CALL_TIMEOUT))
            .and_then(|()| self.call(|| producer.commit_transaction(CALL_TIMEOUT)));
        if ended.is_err() {
            let _ = self.call(|| producer.abort_transaction(CALL_TIMEOUT));
        }
        ended
    }

    /// Makes a consumer that reads what is not committed, and is no member of the group.
    fn outsider(&self) -> Result<BaseConsumer<Log>, KafkaError> {
        self.or_fail(create(&self.settings.uncommitted(), Log::new("dangling")))
    }

    /// Aborts a transaction that takes in these partitions, and the group's offsets.
    fn abort_in(
        &self,
        producer: &TransactionalProducer,
        places: &[(String, i32)],
        outsider: &BaseConsumer<Log>,
    ) -> Result<(), KafkaError> {
        let (offset, Some(metadata)) = (self.aborted_offset()?, outsider.group_metadata()) else {
            return Err(KafkaError::Canceled);
        };
        producer.context().expect(places.len());
        producer.begin_transaction()?;
        let send = |(topic, partition): &(String, i32)| {
            // With a key, as brokers refuse a record without one where a topic is compacted, which the ledger is.
            let record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, 0).partition(*partition).key(ABORTED);
            producer.send(record).map_err(|(error, _)| error)
        };
        let sent = places.iter().try_for_each(send);
        let sent = sent
            .and_then(|()| self.call(|| producer.send_offsets_to_transaction(&offset, &metadata, CALL_TIMEOUT)))
            .and_then(|()| match producer.context().wait().first() {
                Some((_, code)) => Err(KafkaError::MessageProduction(*code)),
                None => Ok(()),
            });
        self.call(|| producer.abort_transaction(CALL_TIMEOUT))?;
        sent
    }

    /// Returns an offset that takes the group's offsets into a transaction. Nobody asks for it, so it does no harm if brokers
    /// forget its end as well.
    fn aborted_offset(&self) -> Result<TopicPartitionList, KafkaError> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.shared.topics.ledger, 0, Offset::Offset(0))?;
        Ok(offsets)
    }
}
