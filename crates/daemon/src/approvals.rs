//! Asks people in Airflow about plans that wait for approval, and decides as they answer.
//!
//! A question is a run of the DAG [`APPROVALS`] with one task that waits for input. Again and again what waits by the ledger is
//! compared with what Airflow asks, and nothing else is remembered: the run's id is derived from request and plan, so that
//! whoever asks again, also after a crash, finds the first question. An answer becomes a decision like one of
//! `dagwright approve`; what is decided first stands, and a question that nobody needs to answer any more is ended.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use dagwright_agents::{
    Service,
    service::{Refused, Waiting},
};
use dagwright_airflow::{
    Airflow, Answer, Clear, Error, Run, RunFilter, RunMark, RunState, Span, TaskKey, Trigger, Triggered, Version,
};
use dagwright_compiler::{APPROVALS, APPROVALS_TASK};
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId},
};
use dagwright_telemetry::chain::ErrorChain;
use serde_json::{Map, Value, json};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::{
    config::{Config, EngineKind},
    engines,
};

/// How often questions and answers are compared: people do not notice, and Airflow is asked once or twice for each question.
const EVERY: Duration = Duration::from_secs(5);

/// The most questions that are open at a time; the DAG has as many runs at most, and more wait.
const QUESTIONS_MAX: usize = 100;

/// The most questions that are looked at in one go, each in its turn: with those before, Airflow is asked twice a second at most.
const LOOKS_MAX: usize = 8;

/// The first Airflow that can ask people.
const FIRST: (u32, u32) = (3, 1);

/// The most pages of open questions that are looked through.
const PAGES_MAX: usize = 10;

/// What begins the ids of questions.
const PREFIX: &str = "approve__";

/// The option that approves, as Airflow's `ApprovalOperator` calls it.
const APPROVE: &str = "Approve";

/// The option that declines.
const REJECT: &str = "Reject";

/// The keys in a question's conf; `dagwright_airflow.approvals` reads them.
const REQUEST_KEY: &str = "dagwright_request_id";
const PLAN_KEY: &str = "dagwright_plan_hash";

/// What asks.
struct Asking {
    airflow: Arc<dyn Airflow>,
    service: Service,
    /// Whether Airflow may have open questions.
    open: bool,
    /// Whether it is known to be one that can ask.
    can_ask: bool,
    /// With which question the next look begins, counted from the first.
    turn: usize,
}

/// Starts to ask, where the settings say so.
///
/// # Errors
/// When a setting cannot be used.
pub(crate) fn start(config: &Config, service: &Service) -> Result<Option<JoinHandle<()>>> {
    if config.engine.kind != EngineKind::Airflow || !config.airflow.approvals {
        return Ok(None);
    }
    let airflow = Arc::new(engines::client(config)?);
    let asking = Asking { airflow, service: service.clone(), open: true, can_ask: false, turn: 0 };
    Ok(Some(tokio::spawn(asking.work())))
}

// === impl Asking ===

impl Asking {
    async fn work(mut self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complained = false;
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) => complained = false,
                Err(Fault::Older(version)) => {
                    tracing::warn!(%version, "this Airflow cannot ask people; plans wait for `dagwright approve` alone");
                    return;
                }
                // Airflow is away, or has not seen the DAG yet: the same again, which is told once.
                Err(fault) if !complained => {
                    complained = true;
                    tracing::warn!(error = %ErrorChain(&fault), "could not ask in Airflow about plans");
                }
                Err(_) => {}
            }
        }
    }

    /// Compares what waits with what is asked, once.
    async fn look(&mut self) -> Result<(), Fault> {
        let mut waiting = self.service.waiting().await?;
        if waiting.is_empty() && !self.open {
            return Ok(());
        }
        if !self.can_ask {
            let version = self.airflow.version().await?;
            if (version.major, version.minor) < FIRST {
                return Err(Fault::Older(version));
            }
            self.can_ask = true;
        }
        waiting.truncate(QUESTIONS_MAX);
        let open = self.questions().await?;
        self.open = !open.is_empty() || !waiting.is_empty();
        // What is wrong with one keeps none of the others from being asked.
        let mut outcome = Ok(());
        for run in &open {
            outcome = outcome.and(self.end_if_decided(run).await);
        }
        let turns = waiting.len().min(LOOKS_MAX);
        for question in waiting.iter().cycle().skip(self.turn % waiting.len().max(1)).take(turns) {
            outcome = outcome.and(self.settle(question, &open).await);
        }
        self.turn = self.turn.wrapping_add(turns);
        outcome
    }

    /// Returns the questions that nobody answered, of whichever daemon.
    async fn questions(&self) -> Result<Vec<Run>, Fault> {
        let states = vec![RunState::Queued, RunState::Running];
        let filter = RunFilter { dag_id: Some(APPROVALS.into()), updated_at_gte: None, states };
        let (mut runs, mut span) = (Vec::new(), Some(Span::first()));
        for _ in 0..PAGES_MAX {
            let Some(at) = span else { break };
            let page = match self.airflow.runs(&filter, at).await {
                // The DAG is not there yet.
                Err(error) if error.is_not_found() => break,
                page => page?,
            };
            span = at.after(&page);
            runs.extend(page.items);
        }
        Ok(runs)
    }

    /// Ends a question whose request is known to wait no longer.
    async fn end_if_decided(&self, run: &Run) -> Result<(), Fault> {
        let Some((request, plan)) = asked_in(run) else { return Ok(()) };
        if self.service.waits_with(&request, &plan).await? == Some(false) {
            self.airflow.mark_run(APPROVALS, &run.run_id, RunMark::Failed).await?;
            tracing::info!(request_id = %request, run_id = run.run_id, "ended a question that is decided");
        }
        Ok(())
    }

    /// Asks, or decides as it was answered.
    async fn settle(&self, question: &Waiting, open: &[Run]) -> Result<(), Fault> {
        let run_id = run_id(question);
        let asking = trigger(question, &run_id);
        let found = match open.iter().find(|run| run.run_id == run_id) {
            Some(run) => run.clone(),
            None => match self.airflow.trigger(&asking).await? {
                Triggered::Started(_) => {
                    tracing::info!(request_id = %question.request, run_id, "asks in Airflow whether a plan may run");
                    return Ok(());
                }
                Triggered::Found(run) => run,
            },
        };
        if !asks(&found, &asking) {
            // Whoever may trigger DAGs can be there first, and ask people something else under that name.
            tracing::warn!(request_id = %question.request, run_id, "a run that we did not start asks; its answer counts for nothing");
            return Ok(());
        }
        let key = TaskKey { dag_id: APPROVALS.into(), run_id, task_id: APPROVALS_TASK.into(), map_index: None };
        let Some(answer) = self.airflow.answer(&key).await? else { return Ok(()) };
        let Some(approved) = approves(&answer) else { return Ok(()) };
        let request = &question.request;
        match self.service.decide(&question.plan, approved, answer.by.clone()).await {
            Ok(_) => {
                let by = answer.by.unwrap_or_default();
                tracing::info!(request_id = %request, approved, by, "a plan was decided about in Airflow");
                Ok(())
            }
            // Whoever asked for it answered: somebody else is asked.
            Err(Refused::Problem(problem)) if problem.code == Code::ApprovalOwn => {
                tracing::warn!(request_id = %request, "who asked for a plan cannot approve it: it is asked about again");
                let TaskKey { dag_id, run_id, .. } = key;
                let all = Clear { dag_id, run_id, tasks: None, only_failed: false, downstream: false };
                self.airflow.clear(&all).await?;
                Ok(())
            }
            // Somebody was faster.
            Err(Refused::Problem(problem)) if problem.code == Code::NothingToDecide => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// Says why it could not be asked.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Airflow(#[from] Error),
    #[error(transparent)]
    Service(#[from] Refused),
    #[error("{0} cannot ask people")]
    Older(Version),
}

// === questions ===

/// Returns the id of the run that asks: one for each request and plan.
fn run_id(question: &Waiting) -> String {
    format!("{PREFIX}{}__{}", question.request, question.plan.short())
}

fn trigger(question: &Waiting, run_id: &str) -> Trigger {
    let conf = json!({
        REQUEST_KEY: question.request,
        PLAN_KEY: question.plan,
        "dagwright_pipeline": question.pipeline,
        "dagwright_schema_change": question.schema_change,
        "dagwright_drift": question.drift,
    });
    let conf: Map<String, Value> = conf.as_object().cloned().unwrap_or_default();
    Trigger {
        dag_id: APPROVALS.into(),
        run_id: run_id.to_owned(),
        conf,
        logical_date: None,
        data_interval: None,
        note: Some(format!("Asked by Dagwright for request {}.", question.request)),
    }
}

/// Returns what a run asks about, if it is a question of ours.
fn asked_in(run: &Run) -> Option<(RequestId, PlanHash)> {
    let conf = run.conf.as_ref()?;
    let text = |key: &str| conf.get(key)?.as_str().map(str::to_owned);
    let (request, plan) = (RequestId(text(REQUEST_KEY)?), PlanHash(text(PLAN_KEY)?));
    run.run_id.starts_with(PREFIX).then_some((request, plan))
}

/// Tells whether a run asks people what we ask.
fn asks(run: &Run, asking: &Trigger) -> bool {
    run.conf.as_ref() == Some(&asking.conf)
}

/// Tells what an answer means; nothing that is neither one decides anything.
fn approves(answer: &Answer) -> Option<bool> {
    match answer.chosen.as_slice() {
        [one] if one == APPROVE => Some(true),
        [one] if one == REJECT => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dagwright_agents::service::Waiting;
    use dagwright_airflow::{Answer, Run};
    use dagwright_model::{
        id::{PlanHash, RequestId},
        setback::DriftKind,
        spec::SchemaChange,
    };
    use serde_json::json;

    use super::{approves, asked_in, asks, run_id, trigger};

    #[test]
    fn a_question_is_known_by_its_request_and_plan() {
        let question = Waiting {
            request: RequestId("0198-a".into()),
            pipeline: "aviation.flights".into(),
            plan: PlanHash("ab".repeat(32)),
            schema_change: SchemaChange::Additive,
            drift: Some(DriftKind::Breaking),
        };
        let id = run_id(&question);
        assert_eq!(id, "approve__0198-a__abababababab");
        let asked = trigger(&question, &id);
        let mut run: Run = serde_json::from_value(json!({
            "dag_id": asked.dag_id, "dag_run_id": asked.run_id, "state": "running", "conf": asked.conf,
        }))
        .unwrap();
        assert_eq!(asked_in(&run), Some((question.request.clone(), question.plan.clone())));
        assert!(asks(&run, &asked));
        // Somebody who is there first and shows people another pipeline is heeded by nobody.
        let misled = trigger(&Waiting { pipeline: "harmless".into(), ..question }, &id);
        assert!(!asks(&run, &misled));
        // Not what somebody triggered by hand.
        run.run_id = "manual__1".into();
        assert_eq!(asked_in(&run), None);
        run.conf = None;
        assert_eq!(asked_in(&run), None);
    }

    #[test]
    fn only_a_clear_answer_decides() {
        let answer =
            |chosen: &[&str]| approves(&Answer { chosen: chosen.iter().map(|it| (*it).into()).collect(), by: None });
        assert_eq!(answer(&["Approve"]), Some(true));
        assert_eq!(answer(&["Reject"]), Some(false));
        for unclear in [&[][..], &["Approve", "Reject"], &["approve"], &["OK"]] {
            assert_eq!(answer(unclear), None, "{unclear:?}");
        }
    }
}
