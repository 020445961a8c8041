//! What runs the plans of `serve`, as the settings say.

use std::{num::NonZeroUsize, sync::Arc};

use anyhow::Result;
use dagwright_airflow::Client;
use dagwright_engine::{
    LocalEngine, Settings,
    airflow::{
        AirflowEngine, Settings as AirflowSettings,
        deploy::{Bundle, Destination, Folder, Git},
    },
};
use dagwright_model::{code::Code, task::Problem};
use dagwright_store::Register;
use dagwright_telemetry::{chain::ErrorChain, export::ENDPOINT_VARIABLE};

use crate::{
    config::{Config, airflow::DeployKind},
    desk::task_program,
    refusal::Refusal,
};

/// Makes the embedded engine.
///
/// # Errors
/// When there is no task program.
pub(crate) fn local(config: &Config) -> Result<LocalEngine> {
    let mut settings = Settings::new(task_program(config)?);
    if let Some(parallelism) = NonZeroUsize::new(config.engine.parallelism) {
        settings.parallelism = parallelism;
    }
    if let Some(endpoint) = config.telemetry.otlp.endpoint() {
        settings.environment.insert(ENDPOINT_VARIABLE.into(), endpoint.into());
    }
    Ok(LocalEngine::new(settings))
}

/// Makes an engine on Airflow; whether Airflow is there shows later.
///
/// # Errors
/// When a setting cannot be used.
pub(crate) fn airflow(config: &Config, register: Arc<dyn Register>) -> Result<AirflowEngine> {
    let settings = AirflowSettings {
        patience: config.airflow.deploy.patience.duration(),
        keep: Some(config.airflow.deploy.keep.duration()).filter(|keep| !keep.is_zero()),
        layout: config.airflow.layout(),
        look_back: config.airflow.look_back.duration(),
        approvals: config.airflow.approvals,
    };
    Ok(AirflowEngine::start(Arc::new(client(config)?), destination(config)?, register, settings))
}

/// Makes a client for Airflow.
///
/// # Errors
/// When a setting cannot be used.
pub(crate) fn client(config: &Config) -> Result<Client> {
    let wrong = |key: &str, message: String, hint: &str| {
        let subject = format!("airflow.{key}");
        Refusal::Problem(Problem { code: Code::ConfigInvalid, subject, message, hint: hint.into() })
    };
    let settings = config.airflow.client().map_err(|fault| wrong(fault.key, fault.to_string(), fault.hint))?;
    let client = Client::new(settings);
    Ok(client.map_err(|error| wrong("ca_file", ErrorChain(&error).to_string(), "check the certificates"))?)
}

/// Makes what DAGs are deployed to.
fn destination(config: &Config) -> Result<Arc<dyn Destination>> {
    let path = config.airflow.deploy.path.clone();
    Ok(match config.airflow.deploy.kind {
        DeployKind::Folder => Arc::new(Folder::new(path)),
        DeployKind::Bundle => Arc::new(Bundle::new(path)),
        DeployKind::Git => Arc::new(Git::new(config.airflow.git()).map_err(|error| {
            let hint = "see docs/airflow.md".into();
            let (code, message) = (Code::ConfigInvalid, ErrorChain(&error).to_string());
            Refusal::Problem(Problem { code, subject: "airflow.deploy".into(), message, hint })
        })?),
    })
}
