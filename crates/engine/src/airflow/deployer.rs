//! Brings plans to Airflow: writes their DAG files, has them parsed, and waits until Airflow shows them.
//!
//! What is asked for at the same time is written and parsed together. A plan that is there already is neither written nor
//! parsed again, so Airflow makes no new version of its DAG. That Airflow shows a plan is known by the DAG's tag that
//! names it, never by the time that has passed. What it costs to deploy a plan does not grow with the number of those that are
//! deployed, but for the little that a destination needs of each, and for Airflow's own parsing.

mod asked;
mod latest;
#[cfg(test)]
mod tests;
mod waiting;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dagwright_airflow::{Airflow, Error as CallError};
use dagwright_compiler::{Layout, Target, anchor, approvals};
use dagwright_model::{code::Code, id::PlanHash, plan::Plan, task::Problem};
use dagwright_telemetry::chain::ErrorChain;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use self::{
    asked::{Asked, Parse},
    latest::Latest,
    waiting::{Outcomes, Waiting},
};
use super::{
    deploy::{
        Destination, Error, Placed, Rule,
        layout::{self, Compiled, Decided, Wish},
    },
    follower::{can_wait, patiently},
    metrics::{self, Deployment},
};
use crate::journal::blocking;

/// How many orders may wait; whoever has another waits too.
const WAITING_MAX: usize = 256;

/// The most plans that are written together.
const BATCH_MAX: usize = 256;

/// How long it is waited for others to be written together with the first.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// How often Airflow is asked whether it shows a DAG, at first and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// After how long Airflow is asked again to parse.
const REPARSE_AFTER: Duration = Duration::from_secs(10);

/// How often a destination that fails is tried again, and after which pause, which doubles.
const WRITES: (u32, Duration) = (5, Duration::from_secs(1));

/// How plans are brought to Airflow.
#[derive(Clone, Debug)]
pub(crate) struct Deployer {
    orders: mpsc::Sender<Order>,
    latest: Arc<Latest>,
}

/// What is wanted, and where the answer goes.
#[derive(Debug)]
struct Order {
    wanted: Wanted,
    ordered: Instant,
    answer: oneshot::Sender<Result<(), Problem>>,
}

#[derive(Debug)]
enum Wanted {
    /// Airflow is to show this plan.
    Shown(Arc<Plan>, PlanHash),
    /// A DAG is to be no more.
    Removed(String),
}

/// What does the work.
#[derive(Debug)]
struct Worker {
    asked: Asked,
    destination: Arc<dyn Destination>,
    rule: Rule,
    latest: Arc<Latest>,
    /// How long Airflow may take to show a DAG while it answers.
    patience: Duration,
    /// Whether the DAG that asks people is there too.
    asks: bool,
}

// === impl Deployer ===

impl Deployer {
    /// Starts one, on the running event loop.
    pub(crate) fn start(
        airflow: Arc<dyn Airflow>,
        destination: Arc<dyn Destination>,
        rule: Rule,
        patience: Duration,
        asks: bool,
    ) -> Self {
        let (orders, to_do) = mpsc::channel(WAITING_MAX);
        let latest = Arc::<Latest>::default();
        let worker = Worker { asked: Asked(airflow), destination, rule, latest: latest.clone(), patience, asks };
        let worker = Arc::new(worker);
        tokio::spawn(worker.clone().begin());
        tokio::spawn(worker.work(to_do));
        Self { orders, latest }
    }

    /// Sees to it that Airflow shows a plan.
    ///
    /// # Errors
    /// When Airflow cannot import it, does not find it, or it cannot be written; or when its DAG was removed meanwhile.
    pub(crate) async fn deploy(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        self.order(Wanted::Shown(plan.clone(), plan.hash())).await
    }

    /// The same for a plan that Airflow was seen to show, and does not any more.
    pub(crate) async fn deploy_anew(&self, plan: &Arc<Plan>) -> Result<(), Problem> {
        self.latest.unsee(&plan.dag_id);
        self.deploy(plan).await
    }

    /// Removes a DAG's files; its history stays in Airflow.
    pub(crate) async fn remove(&self, dag_id: &str) -> Result<(), Problem> {
        self.order(Wanted::Removed(dag_id.to_owned())).await
    }

    async fn order(&self, wanted: Wanted) -> Result<(), Problem> {
        let (answer, answered) = oneshot::channel();
        let lost = || Problem {
            code: Code::Internal,
            subject: "airflow".into(),
            message: "the one who deploys was lost".into(),
            hint: "the log says why; report it".into(),
        };
        let order = Order { wanted, ordered: Instant::now(), answer };
        self.orders.send(order).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }
}

// === impl Wanted ===

impl Wanted {
    fn dag_id(&self) -> &str {
        match self {
            Self::Shown(plan, _) => &plan.dag_id,
            Self::Removed(dag_id) => dag_id,
        }
    }

    fn hash(&self) -> Option<&PlanHash> {
        match self {
            Self::Shown(_, hash) => Some(hash),
            Self::Removed(_) => None,
        }
    }
}

// === impl Worker ===

impl Worker {
    /// Puts there what is there before any pipeline, and brings what is there into the layout that is wanted; whether Airflow is
    /// there or not: it finds the anchor when it starts.
    async fn begin(self: Arc<Self>) {
        match self.put(wish(None, self.asks)).await {
            Ok((_, decided)) if decided.moved > 0 => {
                // The files that Airflow knows are gone: that should not wait until it looks by itself.
                if let Ok(version) = patiently(|| self.asked.0.version()).await {
                    let (target, sibling) = (target(version.major), decided.sibling.as_deref());
                    self.asked.parse(Parse { target, is_news: true, sibling, own: &[] }).await;
                }
            }
            Ok(_) => {}
            Err(problem) => {
                tracing::error!(code = %problem.code, message = problem.message, "DAGs cannot be deployed");
            }
        }
    }

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
        let target = match patiently(|| self.asked.0.version()).await {
            Ok(version) => target(version.major),
            Err(error) => return answer_all(orders, &called(&error)),
        };
        // Known before anything is written, so that what is found after it is new. Without it an old error could be taken for
        // one of what is deployed now.
        let errors = match patiently(|| self.asked.errors()).await {
            Ok(errors) => errors,
            Err(error) => return answer_all(orders, &called(&error)),
        };
        // Of each DAG the last order counts.
        let last: BTreeMap<&str, &Wanted> = orders.iter().map(|order| (order.wanted.dag_id(), &order.wanted)).collect();
        let mut wish = wish(Some(target), self.asks);
        for (dag_id, wanted) in &last {
            match wanted {
                Wanted::Shown(plan, _) => {
                    wish.plans.insert((*dag_id).to_owned(), Compiled::new(plan, target));
                }
                Wanted::Removed(_) => {
                    wish.removed.insert((*dag_id).to_owned());
                }
            }
        }
        let (placed, decided) = match self.put(wish).await {
            Ok(done) => done,
            Err(problem) => return answer_all(orders, &problem),
        };
        self.latest.want(last.values().map(|wanted| (wanted.dag_id(), wanted.hash())));
        let mut waiting = Waiting::new(placed.changed, target, errors, decided.sibling);
        for wanted in last.values() {
            match wanted {
                Wanted::Shown(plan, hash) => waiting.for_plan(plan, hash, &decided.dag_files[&plan.dag_id]),
                // That a file no longer makes a DAG, Airflow believes only after a minute or two, in which nobody need wait.
                Wanted::Removed(_) if decided.layout == Layout::Loader => waiting.parse_soon(),
                Wanted::Removed(dag_id) => waiting.for_end(dag_id),
            }
        }
        let worker = self.clone();
        tokio::spawn(async move { worker.show(orders, waiting).await });
    }

    async fn put(&self, wish: Wish) -> Result<(Placed, Decided), Problem> {
        let wish = Arc::new(wish);
        let (tries, mut pause) = WRITES;
        for attempt in 1.. {
            let (destination, wish, rule) = (self.destination.clone(), wish.clone(), self.rule);
            match blocking(move || put(&*destination, &wish, rule)).await {
                Ok((placed, decided)) => {
                    if decided.moved > 0 {
                        let (dags, layout) = (decided.moved, decided.layout);
                        tracing::info!(dags, %layout, "brought DAGs to another layout");
                    }
                    return Ok((placed, decided));
                }
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
    async fn show(&self, orders: Vec<Order>, mut waiting: Waiting) {
        let began = Instant::now();
        let mut outcomes = waiting.unchanged(&self.latest);
        self.wait(&mut waiting, &mut outcomes).await;
        for dag_id in waiting.still_there() {
            tracing::warn!(dag_id, "Airflow still shows a DAG whose files are gone");
        }
        tracing::debug!(dags = outcomes.len(), elapsed_ms = began.elapsed().as_millis(), "Airflow was asked for DAGs");
        for Order { wanted, ordered, answer } in orders {
            let result = match &wanted {
                Wanted::Removed(_) => Ok(()),
                Wanted::Shown(plan, hash) => {
                    let result = match outcomes.of(&plan.dag_id, hash) {
                        Some(result) => result,
                        None if self.latest.is_wanted(&plan.dag_id, hash) => Err(unseen(plan, self.patience)),
                        None => Err(overtaken(plan, self.latest.is_removed(&plan.dag_id))),
                    };
                    metrics::deployed(result.as_ref().copied().unwrap_or(Deployment::Refused), ordered.elapsed());
                    result.map(|_| ())
                }
            };
            // Whoever ordered it may have been stopped.
            let _ = answer.send(result);
        }
    }

    /// Looks at Airflow until nothing is awaited any more, or Airflow had time enough.
    async fn wait(&self, waiting: &mut Waiting, outcomes: &mut Outcomes) {
        let (mut pause, longest) = LOOKS;
        let mut answered = Duration::ZERO;
        let mut sights = self.latest.sights();
        let mut parsed: Option<Instant> = None;
        loop {
            // A later order counts from when it is written.
            waiting.let_go(&self.latest);
            if waiting.is_over() {
                if waiting.wants_parse() {
                    waiting.parse(&self.asked).await;
                }
                return;
            }
            let looked = Instant::now();
            match waiting.look(&self.asked, &self.latest, outcomes).await {
                // Time in which Airflow does not answer is not its time.
                Ok(()) => answered += pause + looked.elapsed(),
                Err(error) if can_wait(&error) => {}
                // Asked again it says the same.
                Err(error) => return waiting.fail(&called(&error), outcomes),
            }
            let now = self.latest.sights();
            if std::mem::replace(&mut sights, now) != now {
                // It parses what is ours, and these have their turn: of a thousand new files each takes a while.
                answered = Duration::ZERO;
            }
            if waiting.is_over() || answered >= self.patience {
                return;
            }
            if waiting.wants_parse() || parsed.is_none_or(|at| at.elapsed() >= REPARSE_AFTER) {
                waiting.parse(&self.asked).await;
                parsed = Some(Instant::now());
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(longest);
        }
    }
}

/// Puts what is wished into a destination, in the layout that the rule says.
fn put(destination: &dyn Destination, wish: &Wish, rule: Rule) -> Result<(Placed, Decided), Error> {
    let mut decided = None;
    let placed = destination.update(&mut |view| {
        let made = decided.insert(layout::decide(wish, rule, view)?);
        Ok(std::mem::take(&mut made.change))
    })?;
    let Some(decided) = decided else { unreachable!("a destination asks for every change") };
    Ok((placed, decided))
}

/// Returns a wish that has the anchor in it, and what asks people, and nothing else.
fn wish(target: Option<Target>, asks: bool) -> Wish {
    let files = [anchor()].into_iter().chain(asks.then(approvals));
    Wish { common: files.map(|file| (file.name, file.bytes)).collect(), target, ..Wish::default() }
}

fn target(major: u32) -> Target {
    if major == 2 { Target::Airflow2 } else { Target::Airflow3 }
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

fn unseen(plan: &Plan, patience: Duration) -> Problem {
    Problem {
        code: Code::DagUnseen,
        subject: plan.dag_id.clone(),
        message: format!("Airflow did not show the DAG within {} s", patience.as_secs()),
        hint: "does Airflow read the folder or bundle that airflow.deploy.path names? In Airflow 2 lower dag_dir_list_interval"
            .into(),
    }
}

/// Returns what became of a plan that another order followed before Airflow showed it.
fn overtaken(plan: &Plan, is_removed: bool) -> Problem {
    let (code, message) = if is_removed {
        (Code::PipelinePaused, "the pipeline was deleted before Airflow showed its DAG")
    } else {
        (Code::DagUnseen, "a later plan was deployed before Airflow showed this one")
    };
    let hint = "send the request again if it is still wanted".into();
    Problem { code, subject: plan.dag_id.clone(), message: message.into(), hint }
}
