//! What Airflow's own event producer writes to its topic.
//!
//! Every daemon reads all of it, from when it starts on: an event lies in a partition by its DAG run, whatever instance
//! follows that run. See [`Listener`].

use std::sync::Arc;

use anyhow::Result;
use chrono::Utc;
use dagwright_bus::kafka::{Heard, Listener};
use dagwright_engine::airflow::told::{Ear, produced};
use tokio::task::JoinHandle;

use super::metrics::{self, Outcome, Source};
use crate::{config::Config, kafka};

/// Begins to listen, where a topic is set and somebody hears; the task ends when it is aborted.
///
/// # Errors
/// When the settings of Kafka cannot be used.
pub(crate) async fn start(config: &Config, ear: Option<Arc<dyn Ear>>) -> Result<Option<JoinHandle<()>>> {
    let topic = &config.airflow.events.topic;
    if topic.is_empty() {
        return Ok(None);
    }
    let Some(ear) = ear else {
        tracing::warn!(topic, "airflow.events.topic is set, and not read: the engine is not Airflow");
        return Ok(None);
    };
    let listener = Listener::start(&kafka::settings(config), topic, produced::RECORD_BYTES_MAX).await?;
    tracing::info!(topic, "listening to what Airflow writes");
    Ok(Some(tokio::spawn(hear(listener, ear))))
}

/// Hands on what is heard, until there is nothing more to hear.
async fn hear(mut listener: Listener, ear: Arc<dyn Ear>) {
    let mut has_refused = false;
    while let Some(heard) = listener.next().await {
        take(&heard, &*ear, &mut has_refused);
    }
}

fn take(heard: &Heard, ear: &dyn Ear, has_refused: &mut bool) {
    let Heard { partition, offset, bytes, value } = heard;
    let read = match value {
        Some(value) => produced::read(value).map_err(|refused| refused.to_string()),
        None => Err(format!("it has no value, or one that is too long ({bytes} bytes)")),
    };
    match read {
        Ok(Some(told)) => {
            metrics::heard(Source::Kafka, told.at, Utc::now());
            ear.hear(told);
        }
        Ok(None) => metrics::count(Source::Kafka, Outcome::PassedOver),
        Err(reason) => {
            metrics::count(Source::Kafka, Outcome::Refused);
            // Whoever may write to the topic may write much of it.
            if *has_refused {
                tracing::debug!(partition, offset, reason, "what is on Airflow's topic is no event of its");
            } else {
                *has_refused = true;
                tracing::warn!(
                    partition,
                    offset,
                    reason,
                    "what is on Airflow's topic is no event of its; further ones are counted"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use dagwright_bus::kafka::Heard;
    use dagwright_engine::airflow::told::{Ear, Told};

    use super::take;

    #[derive(Default)]
    struct Notes(Mutex<Vec<Told>>);

    impl Ear for Notes {
        fn hear(&self, told: Told) {
            self.0.lock().unwrap().push(told);
        }
    }

    #[test]
    fn what_can_be_read_is_handed_on() {
        let (notes, mut has_refused) = (Notes::default(), false);
        let record = |event: &str| {
            format!(
                r#"{{"schema_version": 1, "source": "a", "event": "{event}", "timestamp": "2026-01-02T03:04:05+00:00",
                     "dag_id": "d", "run_id": "r", "run_type": "manual", "start_date": "", "end_date": "", "msg": ""}}"#
            )
            .into_bytes()
        };
        for (offset, value) in (0..).zip([
            Some(record("dag_run.running")),
            Some(record("asset.changed")),
            Some(b"[]".to_vec()),
            None,
            Some(record("dag_run.success")),
        ]) {
            let bytes = value.as_ref().map_or(0, Vec::len);
            take(&Heard { partition: 0, offset, bytes, value }, &notes, &mut has_refused);
        }
        let told = notes.0.into_inner().unwrap();
        assert_eq!(told.iter().map(|told| told.run_id.as_str()).collect::<Vec<_>>(), ["r", "r"]);
        assert!(has_refused);
    }
}
