//! What only `serve` asks of its settings: what else would be noticed when the first request needs it.

use std::{env, path::Path};

use config::Value;
use dagwright_model::id::Name;
use glob::Pattern;
use url::Url;

use super::{
    CONNECTION_PREFIX, Config, EngineKind, Error, TokenFault,
    diagnose::{self, Diagnostic},
    layers,
    webhooks::WEBHOOKS_MAX,
};

impl Config {
    /// Reads what [`Config::load`] reads, for `serve`; `roles` of the command line come before those of the settings.
    ///
    /// # Errors
    /// As there, and with everything else that keeps `serve` from working.
    pub(crate) fn load_service(file: Option<&Path>, roles: Option<&[String]>) -> Result<Self, Error> {
        let mut config = Self::load(file)?;
        if let Some(roles) = roles {
            config.agents.roles = roles.to_vec();
        }
        let faults = config.faults(&layers(file)?);
        if faults.is_empty() { Ok(config) } else { Err(Error::Invalid(faults)) }
    }

    fn faults(&self, tree: &Value) -> Vec<Diagnostic> {
        let mut faults = Vec::new();
        let mut fault = |key: String, message: String, hint: &str| {
            faults.push(diagnose::fault(tree, &key, message, hint));
        };
        if self.http.tokens.is_empty() && !self.http.listen.ip().is_loopback() {
            let message = format!("{} is open to other machines, and no tokens are set", self.http.listen);
            fault("http.listen".into(), message, "set [http.tokens.<name>], or listen on 127.0.0.1");
        }
        for (key, message, hint) in self.agents.faults(self.bus.kind) {
            fault(key, message, hint);
        }
        for TokenFault { key, message, hint } in
            self.http.token_values(|variable| env::var(variable).ok()).err().into_iter().flatten()
        {
            fault(key, message, hint);
        }
        for (index, glob) in self.uris.allow.iter().enumerate() {
            if let Err(error) = Pattern::new(glob) {
                let hint = "config/default.toml shows what a glob looks like";
                fault(format!("uris.allow[{index}]"), format!("{glob:?} is no glob: {error}"), hint);
            }
        }
        for (name, connection) in &self.connections {
            if let Err(error) = connection.url(name) {
                fault(format!("connections.{name}"), error.to_string(), "see config/default.toml");
            }
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            let message = format!("there are more than {WEBHOOKS_MAX}");
            fault("webhooks".into(), message, "let one receiver pass events on to others");
        }
        if let Some(message) = self.retention.fault(self.negotiation.facts_age_max) {
            let hint = "keep requests for longer, or lower negotiation.facts_age_max";
            fault("retention.requests".into(), message, hint);
        }
        if self.engine.kind == EngineKind::Airflow {
            for wrong in self.airflow.faults() {
                fault(format!("airflow.{}", wrong.key), wrong.to_string(), wrong.hint);
            }
        }
        if let Err(wrong) = self.airflow.feedback.signer() {
            let key = format!("airflow.feedback.{}", wrong.key);
            fault(key.trim_end_matches('.').into(), wrong.to_string(), wrong.hint);
        }
        if !self.airflow.events.topic.is_empty() && self.kafka.brokers.trim().is_empty() {
            let message = "it is a topic of Kafka, and kafka.brokers is empty".into();
            fault("airflow.events.topic".into(), message, "set kafka.brokers, or leave the topic empty");
        }
        for (name, webhook) in &self.webhooks {
            for (key, message, hint) in webhook.faults() {
                fault(format!("webhooks.{name}.{key}"), message, hint);
            }
        }
        for (key, message, hint) in self.lineage.faults(!self.kafka.brokers.trim().is_empty()) {
            fault(format!("lineage.{key}"), message, hint);
        }
        for (variable, _) in env::vars_os() {
            let Some(variable) = variable.to_str() else { continue };
            let Some(suffix) = variable.strip_prefix(CONNECTION_PREFIX) else { continue };
            if Name::new(suffix.to_ascii_lowercase()).is_err() {
                let message = "it does not name a connection";
                fault(variable.into(), message.into(), "its end must match [A-Z][A-Z0-9_]*");
            }
        }
        let otlp = &self.telemetry.otlp;
        if let Some(endpoint) = otlp.endpoint() {
            let is_http = Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
            if !is_http {
                let message = "it is no http(s) URL".to_owned();
                fault("telemetry.otlp.endpoint".into(), message, "give the collector's base URL, as http://host:4318");
            }
        }
        if !(0.0..=1.0).contains(&otlp.sample_ratio) {
            fault("telemetry.otlp.sample_ratio".into(), "it is no share".into(), "give a number from 0 to 1");
        }
        if otlp.metrics_interval.0 == 0 {
            fault("telemetry.otlp.metrics_interval".into(), "it is no interval".into(), "give a span such as 60s");
        }
        if let Err(error) = self.log.filter() {
            fault("log.level".into(), error.to_string(), "give a level, or `info,dagwright_engine=debug`");
        }
        faults
    }
}
