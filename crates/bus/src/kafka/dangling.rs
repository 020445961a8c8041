//! Ends what brokers forgot to end.
//!
//! A transaction coordinator that ends a transaction writes a marker to each of its partitions. Brokers (seen with Kafka
//! 4.4) leave out a partition that has no leader at that moment, as it has while they restart, and take the transaction for
//! ended. What was written there stays open: readers wait at it, and the next marker of the same producer decides over
//! it too. So an aborted transaction would become visible together with the next one that is committed.
//!
//! The same holds for the group's offsets, which are a topic to brokers: with an offset that stays open nobody is told
//! where to go on in its partition, and it would be committed together with others.
//!
//! Hence before a producer goes on after something went wrong, and when it begins, it looks for partitions with
//! something open, and ends that and all offsets of its own by a transaction which it aborts.

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{Topics, client::Log};

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the partitions that owners write to and in which something is open.
pub(crate) fn dangling<C: ConsumerContext>(
    committed: &BaseConsumer<C>,
    uncommitted: &BaseConsumer<Log>,
    topics: &Topics,
) -> Result<Vec<(String, i32)>, KafkaError> {
    let mut found = Vec::new();
    for topic in [&topics.ledger, &topics.events, &topics.requests, &topics.dead_letters] {
        let metadata = committed.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            let (_, stable) = committed.fetch_watermarks(topic, partition.id(), ANSWER_TIMEOUT)?;
            let (_, written) = uncommitted.fetch_watermarks(topic, partition.id(), ANSWER_TIMEOUT)?;
            if stable < written {
                found.push((topic.clone(), partition.id()));
            }
        }
    }
    Ok(found)
}

/// Tells whether the transaction that carried this tag with a partition's offset was committed: brokers answer once no
/// transaction is open that could move the offset.
pub(crate) fn was_committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    (topic, partition): (&str, i32),
    tag: &str,
) -> Result<bool, KafkaError> {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, partition);
    let committed = consumer.committed_offsets(asked, ANSWER_TIMEOUT)?;
    for place in committed.elements() {
        place.error()?;
        if matches!(place.offset(), Offset::Offset(_)) && place.metadata() == tag {
            return Ok(true);
        }
    }
    Ok(false)
}
