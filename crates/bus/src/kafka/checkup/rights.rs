//! What the user may do, as far as that can be asked without doing it.

use std::time::Instant;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer as _},
    util::Timeout,
};

use super::{ANSWER_TIMEOUT, Finding, failed, problem};
use crate::kafka::{
    Settings,
    client::Log,
    settings::create,
    topics::{EVENTS_TIMEOUT, blocking},
};

/// No instance's name has this in it, so no instance is fenced by the id that ends with it.
const NOBODY: &str = "#doctor";

/// Reads at the ends of topics, where nothing is.
pub(super) fn to_read(consumer: &BaseConsumer<Log>, topics: &[(String, usize)]) -> Vec<Finding> {
    let mut readable = Vec::new();
    let mut findings = Vec::new();
    for (topic, partitions) in topics {
        match read_ends(consumer, topic, *partitions) {
            Ok(()) => readable.push(topic.as_str()),
            Err(error) => {
                let complaint = consumer.context().complaint();
                let problem = failed("read a topic", topic, complaint, error, "*read* and *describe* on the topic");
                findings.push(Finding::bad(format!("right to read {topic}"), problem));
            }
        }
    }
    if !readable.is_empty() {
        findings.push(Finding::fine("right to read", readable.join(", ")));
    }
    findings
}

fn read_ends(consumer: &BaseConsumer<Log>, topic: &str, partitions: usize) -> Result<(), KafkaError> {
    let mut places = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
        places.add_partition_offset(topic, partition, Offset::End)?;
    }
    consumer.assign(&places)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut ended = 0;
    while ended < partitions {
        match consumer.poll(EVENTS_TIMEOUT) {
            None if Instant::now() < deadline => {}
            None => return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
            // Somebody just wrote it, and it could be read.
            Some(Ok(_)) => return Ok(()),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Asks how the consumer group fares.
pub(super) fn group(consumer: &BaseConsumer<Log>, name: &str, topic: &str) -> Finding {
    let what = format!("group {name}");
    let right = "*read* and *describe* on the group";
    // Of a group that one may not see a list says nothing, and this that one may not.
    let mut places = TopicPartitionList::new();
    places.add_partition(topic, 0);
    if let Err(error) = consumer.committed_offsets(places, ANSWER_TIMEOUT) {
        let complaint = consumer.context().complaint();
        return Finding::bad(what, failed("ask about the group", name, complaint, error, right));
    }
    match consumer.fetch_group_list(Some(name), ANSWER_TIMEOUT) {
        Err(error) => {
            Finding::bad(what, failed("ask about the group", name, consumer.context().complaint(), error, right))
        }
        Ok(groups) => {
            let group = groups.groups().iter().find(|group| group.name() == name);
            let members = group.map_or(0, |group| group.members().len());
            let state = group.map_or("", |group| group.state());
            Finding::fine(
                what,
                match members {
                    0 => "no daemon is a member".into(),
                    1 => format!("1 member, {state}"),
                    members => format!("{members} members, {state}"),
                },
            )
        }
    }
}

/// Sends the ledger's topic a record without a key, which compacted topics refuse after they looked at the right to write.
pub(super) async fn to_write(settings: &Settings, ledger: &str) -> Finding {
    let what = "right to write";
    let mut config = settings.producer("doctor");
    config.set("enable.idempotence", "false").set("acks", "all");
    config.set("delivery.timeout.ms", ANSWER_TIMEOUT.as_millis().to_string());
    let log = Log::new("doctor");
    let context = log.clone();
    let producer: FutureProducer<Log> = match blocking(move || create(&config, context)).await {
        Ok(producer) => producer,
        Err(error) => return Finding::bad(what, problem(ledger, &error)),
    };
    let record = FutureRecord::<[u8], [u8]> {
        topic: ledger,
        partition: Some(0),
        payload: None,
        key: None,
        timestamp: None,
        headers: None,
    };
    let sent = producer.send(record, Timeout::After(ANSWER_TIMEOUT)).await;
    blocking(move || drop(producer)).await;
    match sent {
        Err((error, _)) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::InvalidRecord) => {
            let right = "*write* on all topics of `kafka.prefix`";
            Finding::bad(what, failed("write to the ledger", ledger, log.complaint(), error, right))
        }
        // Nothing that anybody reads: it has neither key nor content.
        Ok(_) | Err(_) => Finding::fine(what, format!("{ledger}; of the others it shows with the first record")),
    }
}

/// Begins to be a transactional producer with an id that nobody else has.
pub(super) async fn to_transactions(settings: &Settings) -> Finding {
    let what = "right to transactions";
    let mut config = settings.transactional();
    let id = format!("{}.{}.{NOBODY}", settings.prefix, settings.group);
    config.set("transactional.id", &id);
    let log = Log::new("doctor");
    let context = log.clone();
    let begun = blocking(move || {
        let producer: FutureProducer<Log> = create(&config, context)?;
        Ok::<_, crate::kafka::Error>(producer.init_transactions(ANSWER_TIMEOUT))
    })
    .await;
    let right = "*write* on transactional ids that begin with `<prefix>.<group>.`";
    match begun {
        Ok(Ok(())) => Finding::fine(what, format!("ids that begin with {}.{}.", settings.prefix, settings.group)),
        Ok(Err(error)) => Finding::bad(what, failed("begin transactions", &id, log.complaint(), error, right)),
        Err(error) => Finding::bad(what, problem(&id, &error)),
    }
}
