//! Brings plans to Airflow: writes their DAG files, has them parsed, and waits until Airflow shows them.
//!
//! What is asked for at the same time is written and parsed together. A plan that is there already is neither written nor
//! parsed again, so Airflow makes no new version of its DAG. That Airflow shows a plan is known by the DAG's tag that
//! names it, never by the time that has passed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dagwright_airflow::{Airflow, DagFilter, Error as CallError, ImportError, Span};
use dagwright_compiler::{TAG, Target, anchor, compile, plan_tag};
use dagwright_model::{code::Code, id::PlanHash, plan::Plan, task::Problem};
use dagwright_telemetry::chain::ErrorChain;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{
    deploy::{Change, Destination},
    follower::patiently,
    metrics::{self, Deployment},
};
use crate::journal::blocking;

/// How many orders may wait; whoever has another waits too.
const WAITING_MAX: usize = 256;

/// The most plans that are written together.
const BATCH_MAX: usize = 256;

/// How long it is waited for others to be written together with the first.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// From how many DAGs on Airflow is asked for all of ours, instead of for each.
const LISTED_MIN: usize = 8;

/// How often Airflow is asked whether it shows a DAG, at first and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// After how long Airflow is asked again to parse.
const REPARSE_AFTER: Duration = Duration::from_secs(10);

/// How often a destination that fails is tried again, and after which pause, which doubles.
const WRITES: (u32, Duration) = (5, Duration::from_secs(1));

/// The most of Airflow's text about a DAG that it cannot import, in characters.
const TRACE_CHARS_MAX: usize = 2000;

/// How plans are brought to Airflow.
#[derive(Clone, Debug)]
pub(crate) struct Deployer {
    orders: mpsc::Sender<Order>,
    shown: Arc<Shown>,
}

/// The plans that Airflow was seen to show, by DAG.
#[derive(Debug, Default)]
struct Shown(Mutex<HashMap<String, PlanHash>>);

/// A wish, and where its answer goes.
#[derive(Debug)]
struct Order {
    wish: Wish,
    ordered: Instant,
    answer: oneshot::Sender<Result<(), Problem>>,
}

#[derive(Debug)]
enum Wish {
    /// Airflow is to show this plan.
    Show(Arc<Plan>),
    /// A DAG is to be no more.
    Remove(String),
}

/// A plan whose files were written.
struct Written {
    plan: Arc<Plan>,
    hash: PlanHash,
    /// The name of its DAG file.
    file: String,
}

/// What does the work.
struct Worker {
    airflow: Arc<dyn Airflow>,
    destination: Arc<dyn Destination>,
    shown: Arc<Shown>,
    /// How long Airflow may take to show a DAG while it answers.
    patience: Duration,
}

// === impl Deployer ===

impl Deployer {
    /// Starts one, on the running event loop.
    pub(crate) fn start(airflow: Arc<dyn Airflow>, destination: Arc<dyn Destination>, patience: Duration) -> Self {
        let (orders, to_do) = mpsc::channel(WAITING_MAX);
        let shown = Arc::<Shown>::default();
        let worker = Worker { airflow, destination, shown: shown.clone(), patience };
        let worker = Arc::new(worker);
        let anchoring = worker.clone();
        tokio::spawn(async move {
            // Whether Airflow is there or not: it finds the anchor when it starts.
            if let Err(problem) = anchoring.put(with_anchor()).await {
                tracing::error!(code = %problem.code, message = problem.message, "DAGs cannot be deployed");
            }
        });
        tokio::spawn(worker.work(to_do));
        Self { orders, shown }
    }

    /// Sees to it that Airflow shows a plan.
    ///
    /// # Errors
    /// When Airflow cannot import it, does not find it, or it cannot be written.
    pub(crate) async fn deploy(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        self.order(Wish::Show(plan.clone())).await
    }

    /// The same for a plan that Airflow was seen to show, and does not any more.
    pub(crate) async fn deploy_anew(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        self.shown.forget(&plan.dag_id);
        self.deploy(plan).await
    }

    /// Removes a DAG's files; its history stays in Airflow.
    pub(crate) async fn remove(&self, dag_id: &str) -> Result<(), Problem> {
        self.order(Wish::Remove(dag_id.to_owned())).await
    }

    async fn order(&self, wish: Wish) -> Result<(), Problem> {
        let (answer, answered) = oneshot::channel();
        let lost = || Problem {
            code: Code::Internal,
            subject: "airflow".into(),
            message: "the one who deploys was lost".into(),
            hint: "the log says why; report it".into(),
        };
        let order = Order { wish, ordered: Instant::now(), answer };
        self.orders.send(order).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }
}

// === impl Shown ===

impl Shown {
    fn has(&self, dag_id: &str, hash: &PlanHash) -> bool {
        self.lock().get(dag_id) == Some(hash)
    }

    fn learn(&self, dag_id: &str, hash: &PlanHash) {
        self.lock().insert(dag_id.to_owned(), hash.clone());
    }

    fn forget(&self, dag_id: &str) {
        self.lock().remove(dag_id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, PlanHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Worker ===

impl Worker {
    /// Does what is ordered until nobody is left who could order.
    async fn work(self: Arc<Self>, mut to_do: mpsc::Receiver<Order>) {
        while let Some(first) = to_do.recv().await {
            let mut orders = vec![first];
            // Whoever else wants something now is served with it; nobody waits for it when nobody does.
            if !to_do.is_empty() {
                sleep(BATCH_WAIT).await;
            }
            while orders.len() < BATCH_MAX {
                let Ok(order) = to_do.try_recv() else { break };
                orders.push(order);
            }
            self.serve(orders).await;
        }
    }

    /// Writes what is ordered; then waits for Airflow beside the next ones.
    async fn serve(self: &Arc<Self>, orders: Vec<Order>) {
        let target = match patiently(|| self.airflow.version()).await {
            Ok(version) if version.major == 2 => Target::Airflow2,
            Ok(_) => Target::Airflow3,
            Err(error) => return answer_all(orders, &called(&error)),
        };
        let mut change = with_anchor();
        let mut written: BTreeMap<String, Written> = BTreeMap::new();
        for order in &orders {
            match &order.wish {
                Wish::Show(plan) => {
                    let files = compile(plan, target);
                    let file = files.first().map(|file| file.name.clone()).unwrap_or_default();
                    change.removed.retain(|removed| *removed != plan.dag_id);
                    let files = files.into_iter().map(|file| (file.name, file.bytes)).collect();
                    change.dags.insert(plan.dag_id.clone(), files);
                    written.insert(plan.dag_id.clone(), Written { plan: plan.clone(), hash: plan.hash(), file });
                }
                Wish::Remove(dag_id) => {
                    change.dags.remove(dag_id);
                    written.remove(dag_id);
                    change.removed.push(dag_id.clone());
                    self.shown.forget(dag_id);
                }
            }
        }
        // Known before anything is written, so that what is found after it is new.
        let errors = patiently(|| import_errors(&*self.airflow)).await.unwrap_or_default();
        let changed = match self.put(change).await {
            Ok(changed) => changed,
            Err(problem) => return answer_all(orders, &problem),
        };
        let worker = self.clone();
        tokio::spawn(async move { worker.show(orders, written, errors, changed).await });
    }

    async fn put(&self, change: Change) -> Result<bool, Problem> {
        let change = Arc::new(change);
        let (tries, mut pause) = WRITES;
        for attempt in 1.. {
            let (destination, change) = (self.destination.clone(), change.clone());
            match blocking(move || destination.put(&change)).await {
                Ok(placed) => return Ok(placed.changed),
                Err(error) if attempt < tries && error.is_retryable() => {
                    tracing::warn!(error = %ErrorChain(&error), attempt, "DAG files could not be written, trying again");
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    return Err(Problem {
                        code: error.code(),
                        subject: "airflow.deploy".into(),
                        message: ErrorChain(&error).to_string(),
                        hint: "check that the destination exists, has space, and may be written".into(),
                    });
                }
            }
        }
        unreachable!("every try returns or is followed by another")
    }

    /// Waits until Airflow shows what was written, or says why not, and answers.
    async fn show(
        &self,
        orders: Vec<Order>,
        mut written: BTreeMap<String, Written>,
        before: Vec<ImportError>,
        changed: bool,
    ) {
        let mut results: HashMap<String, Result<Deployment, Problem>> = HashMap::new();
        written.retain(|dag_id, written| {
            let is_shown = !changed && self.shown.has(dag_id, &written.hash);
            if is_shown {
                results.insert(dag_id.clone(), Ok(Deployment::Unchanged));
            }
            !is_shown
        });
        let removed = orders.iter().filter_map(|order| match &order.wish {
            Wish::Remove(dag_id) => Some(dag_id.clone()),
            Wish::Show(_) => None,
        });
        let mut leaving: BTreeSet<String> = removed.filter(|_| changed).collect();
        let began = Instant::now();
        let mut answered = Duration::ZERO;
        let (mut pause, longest) = LOOKS;
        // What was not written may be shown already, and is only parsed anew where it is not.
        let mut is_missing = changed;
        let mut parsed: Option<Instant> = None;
        while !(written.is_empty() && leaving.is_empty()) {
            if is_missing && parsed.is_none_or(|at| at.elapsed() >= REPARSE_AFTER) {
                self.reparse(&written).await;
                parsed = Some(Instant::now());
            }
            let looked = Instant::now();
            // What stood there before is new where nothing was written: it is of this very file.
            let known: &[ImportError] = if changed { &before } else { &[] };
            if let Ok(found) = self.look(&written, known).await {
                for (dag_id, result) in found {
                    if let Some(written) = written.remove(&dag_id) {
                        if result.is_ok() {
                            self.shown.learn(&dag_id, &written.hash);
                        }
                        results.insert(dag_id, result.map(|()| Deployment::Visible));
                    }
                }
                if let Ok(gone) = self.gone(&leaving).await {
                    leaving.retain(|dag_id| !gone.contains(dag_id));
                }
                is_missing = true;
                // Time in which Airflow does not answer is not its time.
                answered += pause + looked.elapsed();
            }
            if answered >= self.patience {
                break;
            }
            if !(written.is_empty() && leaving.is_empty()) {
                sleep(pause).await;
                pause = (pause * 3 / 2).min(longest);
            }
        }
        for dag_id in leaving {
            tracing::warn!(dag_id, "Airflow still shows a DAG whose files are gone");
        }
        tracing::debug!(dags = results.len(), elapsed_ms = began.elapsed().as_millis(), "Airflow was asked for DAGs");
        for order in orders {
            let result = match &order.wish {
                Wish::Remove(_) => Ok(()),
                Wish::Show(plan) => {
                    let result = results.get(&plan.dag_id).cloned().unwrap_or_else(|| Err(unseen(plan, self.patience)));
                    let what = result.as_ref().copied().unwrap_or(Deployment::Refused);
                    metrics::deployed(what, order.ordered.elapsed());
                    result.map(|_| ())
                }
            };
            // Whoever ordered it may have been stopped.
            let _ = order.answer.send(result);
        }
    }

    /// Asks Airflow to parse: any of our DAGs brings a whole bundle to it in Airflow 3, each its own file in 2.
    async fn reparse(&self, written: &BTreeMap<String, Written>) {
        let ours = DagFilter { tags: vec![TAG.into()], inactive_too: false };
        let siblings = match self.airflow.dags(&ours, Span::first()).await {
            Ok(page) => page.items,
            Err(error) => return tracing::debug!(%error, "Airflow's DAGs could not be listed"),
        };
        let (own, others): (Vec<_>, Vec<_>) = siblings.into_iter().partition(|dag| written.contains_key(&dag.dag_id));
        let one_is_enough = others.iter().chain(&own).any(|dag| dag.bundle_name.is_some());
        // In a bundle with versions Airflow would parse a changed file before it fetches the new version, and then take it for
        // done; asked for another file, it fetches first and sees what changed.
        let has_versions = own.iter().any(|dag| dag.bundle_version.is_some());
        let (first, then) = if has_versions { (&others, &own) } else { (&own, &others) };
        let tokens = first.iter().chain(then.first()).map(|dag| dag.file_token.clone());
        let most = if one_is_enough { 1 } else { LISTED_MIN };
        for token in tokens.take(most) {
            if let Err(error) = self.airflow.reparse(&token).await {
                tracing::debug!(%error, "Airflow does not parse now, it will in its own time");
            }
        }
    }

    /// Returns which DAGs Airflow shows no longer.
    async fn gone(&self, leaving: &BTreeSet<String>) -> Result<Vec<String>, CallError> {
        let mut gone = Vec::new();
        for dag_id in leaving {
            match self.airflow.dag(dag_id).await {
                Ok(dag) if dag.is_active => {}
                Ok(_) => gone.push(dag_id.clone()),
                Err(error) if error.is_not_found() => gone.push(dag_id.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// Returns which DAGs Airflow shows with their plans, and which it cannot import.
    async fn look(
        &self,
        written: &BTreeMap<String, Written>,
        before: &[ImportError],
    ) -> Result<Vec<(String, Result<(), Problem>)>, CallError> {
        let mut found = Vec::new();
        let mut take = |dag: &dagwright_airflow::Dag| {
            let shows = |written: &Written| dag.is_active && dag.tags.contains(&plan_tag(&written.hash));
            if written.get(&dag.dag_id).is_some_and(shows) {
                found.push((dag.dag_id.clone(), Ok(())));
            }
        };
        if written.len() >= LISTED_MIN {
            let ours = DagFilter { tags: vec![TAG.into()], inactive_too: false };
            let mut span = Some(Span::first());
            while let Some(at) = span {
                let page = self.airflow.dags(&ours, at).await?;
                page.items.iter().for_each(&mut take);
                span = at.after(&page);
            }
        } else {
            for dag_id in written.keys() {
                match self.airflow.dag(dag_id).await {
                    Ok(dag) => take(&dag),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if found.len() == written.len() {
            return Ok(found);
        }
        for error in import_errors(&*self.airflow).await? {
            let is_new = !before
                .iter()
                .any(|known| known.import_error_id == error.import_error_id && known.timestamp == error.timestamp);
            let of = written.values().find(|written| error.is_of(&written.file));
            if let (true, Some(written)) = (is_new, of) {
                found.push((written.plan.dag_id.clone(), Err(refused(&written.plan, &error))));
            }
        }
        Ok(found)
    }
}

/// Returns a change that has the anchor in it and nothing else.
fn with_anchor() -> Change {
    let file = anchor();
    Change { common: BTreeMap::from([(file.name, file.bytes)]), ..Change::default() }
}

async fn import_errors(airflow: &dyn Airflow) -> Result<Vec<ImportError>, CallError> {
    let (mut errors, mut span) = (Vec::new(), Some(Span::first()));
    while let Some(at) = span {
        let page = airflow.import_errors(at).await?;
        span = at.after(&page);
        errors.extend(page.items);
    }
    Ok(errors)
}

fn answer_all(orders: Vec<Order>, problem: &Problem) {
    for order in orders {
        let _ = order.answer.send(Err(problem.clone()));
    }
}

fn called(error: &CallError) -> Problem {
    Problem {
        code: error.code(),
        subject: "airflow".into(),
        message: ErrorChain(error).to_string(),
        hint: "see `dagwright doctor`".into(),
    }
}

/// Returns what Airflow says of a file that it cannot import: the end of the trace tells what went wrong.
fn refused(plan: &Plan, error: &ImportError) -> Problem {
    let trace = error.stack_trace.as_deref().unwrap_or("it does not say why").trim();
    let skipped = trace.chars().count().saturating_sub(TRACE_CHARS_MAX);
    let tail: String = trace.chars().skip(skipped).collect();
    Problem {
        code: Code::DagRefused,
        subject: plan.dag_id.clone(),
        message: format!("Airflow cannot import the DAG: {tail}"),
        hint: "is the package dagwright-airflow installed where Airflow parses DAGs, in the version of this Dagwright?"
            .into(),
    }
}

fn unseen(plan: &Plan, patience: Duration) -> Problem {
    Problem {
        code: Code::DagUnseen,
        subject: plan.dag_id.clone(),
        message: format!("Airflow did not show the DAG within {} s", patience.as_secs()),
        hint: "does Airflow read the folder or bundle that airflow.deploy.path names? In Airflow 2 lower dag_dir_list_interval"
            .into(),
    }
}
