//! The settings that are in force: some change while the daemon runs.
//!
//! SIGHUP reads the configuration again, with the files that it names. The log's level, the limits, the tokens, Airflow's
//! secrets and the certificate change at once; what else differs needs a restart, which the log says. A configuration that is not valid
//! changes nothing.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Result;
use dagwright_agents::Service;
use dagwright_telemetry::chain::ErrorChain;

use crate::{
    config::{Config, Error, Settings},
    feedback::Feedback,
    http::{auth::Gate, tls::Certificate},
    serve::limits,
    telemetry::LogLevel,
};

/// Settings that take effect without a restart, by the start of their keys.
const RELOADED: [&str; 5] = ["log.level", "limits.", "http.tokens.", "http.requests_per_second", "airflow.feedback."];

/// Those that do where the service spoke TLS before, and does so still.
const RELOADED_TLS: &str = "http.tls.";

/// The settings in force.
pub(crate) struct Live {
    file: Option<PathBuf>,
    /// What the daemon started with.
    first: Settings,
    config: RwLock<Arc<Config>>,
    level: LogLevel,
}

// === impl Live ===

impl Live {
    pub(crate) fn new(file: Option<PathBuf>, config: Arc<Config>, level: LogLevel) -> Result<Self> {
        Ok(Self { first: Settings::read(file.as_deref())?, file, config: RwLock::new(config), level })
    }

    /// Returns the settings as they are now.
    pub(crate) fn now(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the configuration again; a process that takes no requests on has no service, and hears nothing of Airflow.
    pub(crate) fn reload(
        &self,
        gate: &Gate,
        certificate: Option<&Certificate>,
        service: Option<(&Service, &Feedback)>,
    ) {
        let roles = &self.now().agents.roles;
        let read =
            || Ok((Config::load_service(self.file.as_deref(), Some(roles))?, Settings::read(self.file.as_deref())?));
        let (config, settings) = match read() {
            Ok(read) => read,
            Err(error) => return refuse(&error),
        };
        if let Err(error) = self.level.set(&config.log) {
            tracing::error!(%error, "the log's level stays as it is");
        }
        if let Err(error) = gate.change(&config.http) {
            tracing::error!(%error, "the tokens stay as they are");
        }
        let tls = certificate.zip(config.http.tls.as_ref());
        if let Some((certificate, tls)) = &tls
            && let Err(error) = certificate.change(tls)
        {
            tracing::error!(%error, "the certificate stays as it is");
        }
        let is_reloaded = |key: &str| {
            RELOADED.iter().any(|start| key.starts_with(start)) || (tls.is_some() && key.starts_with(RELOADED_TLS))
        };
        if let Some((service, feedback)) = service {
            service.set_limits(limits(&config));
            if let Err(error) = feedback.change(&config.airflow.feedback) {
                tracing::error!(%error, "the secrets of Airflow's feedback stay as they are");
            }
        }
        let later: Vec<_> = self.first.differences(&settings).into_iter().filter(|key| !is_reloaded(key)).collect();
        let mut next = Config::clone(&self.now());
        next.log.level = config.log.level;
        next.limits = config.limits;
        next.http.tokens = config.http.tokens;
        next.http.requests_per_second = config.http.requests_per_second;
        next.airflow.feedback = config.airflow.feedback;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        if later.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(settings = later.join(", "), "configuration reloaded, but these settings need a restart");
        }
    }
}

fn refuse(error: &Error) {
    match error {
        Error::Invalid(diagnostics) => {
            for diagnostic in diagnostics {
                let (setting, hint) = (&diagnostic.key, &diagnostic.hint);
                tracing::error!(setting, hint, problem = %diagnostic, "the new configuration is not valid");
            }
        }
        other => tracing::error!(error = %ErrorChain(other), "the new configuration cannot be read"),
    }
    tracing::warn!("the old configuration stays in force");
}
