//! The bus of agents on several hosts: what they say goes over Kafka.
//!
//! Every instance reads all that is said from the moment on in which its bus was made, and hands it to its own groups; a
//! message names who is to read it. So *every group of subscribers sees every record*, and a group is one of this process:
//! the orchestrator of a session hears the answers, wherever else there are orchestrators. Two agents that both answer for
//! a role are told apart by their instance's name, as two on one host are.
//!
//! What was said while nobody listened is gone, as on every bus: sessions are in memory, and end by their deadline.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use dagwright_wire::letter::POST_BYTES_MAX;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::BorrowedMessage,
};
use tokio::{runtime::Handle, sync::watch};

use super::{
    Destination, Error, Outgoing, Producer, Settings, Topics,
    client::Log,
    settings::create,
    topics::{blocking, watermarks},
};
use crate::{Bus, Record, Subscription, Topic, in_process::InProcess};

/// The longest message that brokers are asked to take: the longest letter, with room for its envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = POST_BYTES_MAX + (1 << 16);

/// How long to wait for a message before looking whether to end.
const POLL: Duration = Duration::from_millis(100);

/// Carries records between the actors of many processes.
pub struct KafkaBus {
    producer: Producer,
    /// The groups of this process.
    groups: Arc<InProcess>,
    closing: watch::Sender<bool>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

// === impl KafkaBus ===

impl KafkaBus {
    /// Makes a bus that hears everything that is said from now on.
    ///
    /// # Errors
    /// When the settings cannot be used, or no broker answers.
    pub async fn start(settings: &Settings, topics: &Topics) -> Result<Self, Error> {
        let mut spacious = settings.clone();
        let bytes_max = MESSAGE_BYTES_MAX.to_string();
        spacious.properties.entry("message.max.bytes".into()).or_insert(bytes_max);
        let producer = Producer::new(&spacious, topics.clone()).await?;
        let (config, topic) = (settings.tail("agents"), topics.agents.clone());
        let partitions = i32::from(topics.partitions);
        let consumer = blocking(move || {
            let consumer: BaseConsumer<Log> = create(&config, Log::new("agents"))?;
            assign_end(&consumer, &topic, partitions)?;
            Ok::<_, Error>(consumer)
        })
        .await?;
        let groups = Arc::new(InProcess::new());
        let closing = watch::Sender::new(false);
        let (runtime, to, mut closed) = (Handle::current(), groups.clone(), closing.subscribe());
        let read = move || {
            while !*closed.borrow() {
                let Some(record) = next(&consumer) else { continue };
                // The slowest group holds up this thread, and Kafka keeps what is to come.
                runtime.block_on(async {
                    tokio::select! {
                        _ = to.publish(Topic::Agents, record) => {}
                        _ = closed.wait_for(|closed| *closed) => {}
                    }
                });
            }
        };
        let reader = std::thread::Builder::new().name("kafka-agents".into()).spawn(read).map_err(Error::Thread)?;
        Ok(Self { producer, groups, closing, reader: Mutex::new(Some(reader)) })
    }

    /// Hears nothing more, and ends.
    pub async fn close(self) {
        self.closing.send_replace(true);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        blocking(move || drop(reader.map(JoinHandle::join))).await;
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn publish(&self, topic: Topic, record: Record) -> Result<(), crate::Error> {
        let to = match topic {
            Topic::Agents => Destination::Agents,
        };
        self.producer.produce(&Outgoing::new(to, record.key, record.payload)).await?;
        Ok(())
    }

    async fn subscribe(&self, topic: Topic, group: &str) -> Result<Subscription, crate::Error> {
        self.groups.subscribe(topic, group).await
    }
}

impl Drop for KafkaBus {
    fn drop(&mut self) {
        self.closing.send_replace(true);
    }
}

/// Has a consumer read what comes from now on. The places are fixed here: a consumer that is told "the end" finds out
/// where that is some time later.
fn assign_end(consumer: &BaseConsumer<Log>, topic: &str, partitions: i32) -> Result<(), Error> {
    let what = "listen to other agents";
    let failed = |source| Error::of(what, consumer.context().complaint(), source);
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        let (_, end) = watermarks(consumer, topic, partition).map_err(failed)?;
        places.add_partition_offset(topic, partition, Offset::Offset(end)).map_err(failed)?;
    }
    consumer.assign(&places).map_err(|source| Error::Client { what, source })
}

fn next(consumer: &BaseConsumer<Log>) -> Option<Record> {
    match consumer.poll(POLL)? {
        Ok(message) => record(&message),
        Err(KafkaError::PartitionEOF(_)) => None,
        Err(error) => {
            tracing::warn!(%error, "could not hear other agents for now");
            None
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> Option<Record> {
    let key = message.key().map(|key| String::from_utf8(key.to_vec()));
    let (Some(Ok(key)), Some(payload)) = (key, message.payload()) else {
        tracing::warn!(
            partition = message.partition(),
            offset = message.offset(),
            "dropped what is no agent's message"
        );
        return None;
    };
    Some(Record { key, payload: payload.to_vec() })
}
