//! The engine: what the service asks of an Airflow.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::TimeDelta;
use dagwright_airflow::Airflow;
use dagwright_compiler::{ANCHOR, APPROVALS};
use dagwright_model::{plan::Plan, record::RunStarted, task::Problem};
use dagwright_store::Register;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    deploy::{Destination, Rule},
    deployer::Deployer,
    follower::{Tools, follow, patiently},
    sweep,
    told::{Ear, Told},
    watch::{Stranger, Watch},
};
use crate::{Engine, Error, Job, RunOutcome};

/// How an engine on Airflow works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long Airflow may take to show a DAG that was deployed, while it answers.
    pub patience: Duration,
    /// How long plans and snapshots are kept that no DAG refers to any more; `None` for ever.
    pub keep: Option<Duration>,
    /// In which layout DAGs are deployed.
    pub layout: Rule,
    /// How far back it looks at most for runs that ended while no process looked.
    pub look_back: Duration,
    /// Whether people are asked in Airflow about plans that wait for approval.
    pub approvals: bool,
}

/// Runs plans on an Airflow.
#[derive(Debug)]
pub struct AirflowEngine {
    tools: Tools,
    strangers: Mutex<Option<mpsc::Receiver<Stranger>>>,
    reconciling: JoinHandle<()>,
    sweeping: Option<JoinHandle<()>>,
}

// === impl AirflowEngine ===

impl AirflowEngine {
    /// Makes an engine; what it does beside runs, it does on the running event loop.
    #[must_use]
    pub fn start(
        airflow: Arc<dyn Airflow>,
        destination: Arc<dyn Destination>,
        register: Arc<dyn Register>,
        settings: Settings,
    ) -> Self {
        let (watch, strangers) = Watch::new();
        let look_back = TimeDelta::from_std(settings.look_back).unwrap_or(TimeDelta::MAX);
        let sweeping =
            settings.keep.map(|keep| tokio::spawn(sweep::again_and_again(airflow.clone(), destination.clone(), keep)));
        let deployer =
            Deployer::start(airflow.clone(), destination, settings.layout, settings.patience, settings.approvals);
        let reconciling = tokio::spawn(watch.clone().reconcile(airflow.clone(), register, look_back));
        let tools = Tools { airflow, deployer, watch };
        Self { tools, strangers: Mutex::new(Some(strangers)), reconciling, sweeping }
    }

    /// Returns where it is told of runs that nobody follows; once.
    #[must_use]
    pub fn strangers(&self) -> Option<mpsc::Receiver<Stranger>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn set_paused(&self, dag_id: &str, paused: bool) -> Result<(), Problem> {
        match patiently(|| self.tools.airflow.set_paused(dag_id, paused)).await {
            Ok(_) => Ok(()),
            // What is not there rests.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(super::follower::problem(dag_id, &error)),
        }
    }
}

impl Ear for AirflowEngine {
    fn hear(&self, told: Told) {
        if told.dag_id != ANCHOR && told.dag_id != APPROVALS {
            self.tools.watch.hear(told);
        }
    }
}

#[async_trait]
impl Engine for AirflowEngine {
    async fn run(&self, job: Job, started: RunStarted) -> Result<RunOutcome, Error> {
        follow(self.tools.clone(), job, Some(started)).await
    }

    async fn resume(&self, job: Job) -> Result<RunOutcome, Error> {
        follow(self.tools.clone(), job, None).await
    }

    fn keeps_pipelines(&self) -> bool {
        true
    }

    fn took_over(&self) {
        self.tools.watch.took_over();
    }

    async fn deploy(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        self.tools.deployer.deploy(plan).await
    }

    async fn resume_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        self.set_paused(pipeline, false).await
    }

    async fn pause_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        self.set_paused(pipeline, true).await
    }

    async fn remove_pipeline(&self, pipeline: &str) -> Result<(), Problem> {
        // Before its file goes: what has no file is paused by nobody.
        self.set_paused(pipeline, true).await?;
        self.tools.deployer.remove(pipeline).await
    }
}

impl Drop for AirflowEngine {
    fn drop(&mut self) {
        self.reconciling.abort();
        if let Some(sweeping) = &self.sweeping {
            sweeping.abort();
        }
    }
}
