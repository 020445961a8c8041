//! Writes what needs no transaction: what is asked of the owners of partitions, and what agents say.
//!
//! Idempotent: a record is there once, whatever the connection did. Records with the same key keep their order.

use std::time::Duration;

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};

use super::{
    Error, HeaderList, Outgoing, Settings, Topics, client::Log, error::is_too_large, message::native, settings::create,
    topics::blocking,
};

/// How long to wait for room in the queue before an answer that there is none.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to try to deliver a record; who waits for a request to be taken does not wait longer.
const DELIVERY_TIMEOUT_MS: &str = "30000";

/// Writes records one by one; clones share the connection.
#[derive(Clone)]
pub struct Producer {
    producer: FutureProducer<Log>,
    log: Log,
    topics: Topics,
}

// === impl Producer ===

impl Producer {
    /// Makes a producer. Connects when there is something to write.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub async fn new(settings: &Settings, topics: Topics) -> Result<Self, Error> {
        settings.validate()?;
        let mut config = settings.producer("producer");
        if config.get("delivery.timeout.ms").or(config.get("message.timeout.ms")).is_none() {
            config.set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS);
        }
        let log = Log::new("producer");
        let context = log.clone();
        let producer = blocking(move || create(&config, context)).await?;
        Ok(Self { producer, log, topics })
    }

    /// Writes a record and returns where it is: partition and offset.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Denied`], and [`Error::Unreachable`], after which it may be there all the same.
    ///
    /// # Cancel safety
    /// Not cancel safe: the record may be written although nobody waits for it.
    pub async fn produce(&self, record: &Outgoing) -> Result<(i32, i64), Error> {
        let headers = record.native_headers();
        let place = (record.to.topic(&self.topics), record.to.partition(None));
        self.produce_to(place, record.key.as_deref(), record.value.as_deref(), headers).await
    }

    /// Writes a record to a topic that is not ours, and returns where it is; the partition follows from the key.
    ///
    /// # Errors
    /// As [`Self::produce`].
    ///
    /// # Cancel safety
    /// As [`Self::produce`].
    pub async fn produce_elsewhere(
        &self,
        topic: &str,
        key: &[u8],
        value: &[u8],
        headers: &HeaderList,
    ) -> Result<(i32, i64), Error> {
        self.produce_to((topic, None), Some(key), Some(value), native(headers)).await
    }

    /// Writes a record to a topic that need not be ours; see [`Self::produce`].
    pub(crate) async fn produce_to(
        &self,
        (topic, partition): (&str, Option<i32>),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Result<(i32, i64), Error> {
        let out = FutureRecord::<[u8], [u8]> { topic, partition, payload: value, key, timestamp: None, headers };
        match self.producer.send(out, Timeout::After(QUEUE_TIMEOUT)).await {
            Ok(delivery) => Ok((delivery.partition, delivery.offset)),
            Err((error, _)) if error.rdkafka_error_code().is_some_and(is_too_large) => {
                let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                Err(Error::TooLarge { topic: topic.into(), bytes })
            }
            Err((error, _)) => Err(self.explain(error)),
        }
    }

    fn explain(&self, error: KafkaError) -> Error {
        use rdkafka::producer::Producer as _;
        // A fatal error stands for another one.
        let error = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => {
                self.producer.client().fatal_error().map_or(error, |(code, _)| KafkaError::MessageProduction(code))
            }
            _ => error,
        };
        Error::of("write a record", self.log.complaint(), error)
    }
}
