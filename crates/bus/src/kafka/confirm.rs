//! Makes sure that what was committed is visible before anything else is written.
//!
//! A coordinator answers that a transaction is committed once that is decided; the partitions are told afterwards. A broker that
//! dies in between, and forgets some of them (see [`super::dangling`]), leaves there what is committed and looks open. The next
//! transaction of the producer would decide over it. Hence nothing is written before the last transaction is visible
//! wherever it wrote, and what stays open is ended by a transaction that is committed, too: it repeats the last record in
//! each of these partitions, which readers drop as they drop every repeat.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::OwnedMessage,
};

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long partitions may take to hear of a decision before something is taken for wrong: brokers write all of them in one
/// go, within milliseconds.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);

/// The first pause before brokers are asked again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The last record in each partition that a transaction wrote to.
#[derive(Default)]
pub(crate) struct Written(BTreeMap<(String, i32), OwnedMessage>);

// === impl Written ===

impl Written {
    /// Notes a record.
    pub(crate) fn note(&mut self, message: OwnedMessage) {
        let place = (message.topic().to_owned(), message.partition());
        let last = self.0.get(&place).map_or(-1, Message::offset);
        if message.offset() > last {
            self.0.insert(place, message);
        }
    }

    /// Keeps only what readers do not see, and waits a while for that to be nothing. Asks with a consumer that reads what is
    /// committed.
    pub(crate) fn settle<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) -> Result<(), KafkaError> {
        let deadline = Instant::now() + VISIBLE_WITHIN;
        let mut pause = PAUSES.0;
        loop {
            self.drop_visible(consumer)?;
            if self.0.is_empty() || Instant::now() >= deadline {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// Tells whether the transaction of these records was committed, by what a reader of what is committed finds in the
    /// partitions that were told; if none was, nobody saw it, and it may as well have been aborted.
    pub(crate) fn was_committed<C: ConsumerContext>(&self, reader: &BaseConsumer<C>) -> Result<bool, KafkaError> {
        for ((topic, partition), last) in &self.0 {
            if let Some(was_committed) = is_found(reader, (topic, *partition, last.offset()))? {
                return Ok(was_committed);
            }
        }
        Ok(false)
    }

    fn drop_visible<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) -> Result<(), KafkaError> {
        let mut asked = TopicPartitionList::with_capacity(self.0.len());
        for (topic, partition) in self.0.keys() {
            // For a reader of what is committed, the end of that.
            asked.add_partition_offset(topic, *partition, Offset::End)?;
        }
        for place in consumer.offsets_for_times(asked, ANSWER_TIMEOUT)?.elements() {
            place.error()?;
            let key = (place.topic().to_owned(), place.partition());
            if let (Offset::Offset(end), Some(last)) = (place.offset(), self.0.get(&key))
                && last.offset() < end
            {
                self.0.remove(&key);
            }
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn messages(&self) -> impl ExactSizeIterator<Item = &OwnedMessage> {
        self.0.values()
    }
}

/// Tells whether a reader of what is committed finds a record; `None` when it is open.
fn is_found<C: ConsumerContext>(
    reader: &BaseConsumer<C>,
    (topic, partition, offset): (&str, i32, i64),
) -> Result<Option<bool>, KafkaError> {
    let (_, stable) = reader.fetch_watermarks(topic, partition, ANSWER_TIMEOUT)?;
    if offset >= stable {
        return Ok(None);
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    reader.assign(&place)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let found = loop {
        match reader.poll(PAUSES.1) {
            // Records that were aborted are passed over.
            Some(Ok(message)) => break Ok(Some(message.offset() == offset)),
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(Some(false)),
            Some(Err(error)) => break Err(error),
            None if Instant::now() >= deadline => break Err(KafkaError::Canceled),
            None => {}
        }
    };
    reader.unassign()?;
    found
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Message,
        message::{OwnedMessage, Timestamp},
    };

    use super::Written;

    fn message(topic: &str, partition: i32, offset: i64) -> OwnedMessage {
        OwnedMessage::new(None, None, topic.into(), Timestamp::NotAvailable, partition, offset, None)
    }

    #[test]
    fn the_last_record_of_each_partition_counts() {
        let mut written = Written::default();
        assert!(written.is_empty());
        // Brokers answer partition by partition, in any order.
        for (topic, partition, offset) in [("a", 0, 5), ("b", 0, 1), ("a", 1, 9), ("a", 0, 7), ("a", 0, 6)] {
            written.note(message(topic, partition, offset));
        }
        let found: Vec<_> =
            written.messages().map(|last| (last.topic().to_owned(), last.partition(), last.offset())).collect();
        assert_eq!(found, [("a".into(), 0, 7), ("a".into(), 1, 9), ("b".into(), 0, 1)]);
    }
}
