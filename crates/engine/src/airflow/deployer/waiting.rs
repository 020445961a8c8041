//! What Airflow is to show, or to show no longer, and what it was seen to do.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use dagwright_airflow::{Dag, Error, ImportError};
use dagwright_compiler::{Target, UNREADABLE_TAG, plan_tag};
use dagwright_model::{code::Code, id::PlanHash, plan::Plan, task::Problem};

use super::{
    asked::{Asked, Errors, Parse},
    latest::Latest,
};
use crate::airflow::metrics::Deployment;

/// The most of Airflow's text about a DAG that it cannot import, in characters.
const TRACE_CHARS_MAX: usize = 2000;

/// What is waited for after something was written, or found to be there already.
#[derive(Debug)]
pub(super) struct Waiting {
    written: BTreeMap<String, Written>,
    leaving: BTreeSet<String>,
    /// Whether anything was written.
    changed: bool,
    target: Target,
    /// The import errors before.
    before: Errors,
    /// A DAG of the loader that was there before.
    sibling: Option<String>,
    /// How often Airflow was asked to parse since it was written.
    parses: u32,
    /// Whether something was seen that only a further parse makes certain.
    wants_parse: bool,
}

/// A plan whose files were written.
#[derive(Debug)]
struct Written {
    plan: Arc<Plan>,
    hash: PlanHash,
    /// The name of the DAG file that makes its DAG.
    file: String,
    /// The DAG as it was last seen.
    seen: Option<Dag>,
    /// When that was parsed in whose place a DAG was first seen to stand in.
    stood_in: Option<Option<DateTime<Utc>>>,
}

/// What became of what was awaited.
#[derive(Debug, Default)]
pub(super) struct Outcomes(HashMap<String, (PlanHash, Result<Deployment, Problem>)>);

// === impl Waiting ===

impl Waiting {
    pub(super) fn new(changed: bool, target: Target, before: Errors, sibling: Option<String>) -> Self {
        let (written, leaving) = (BTreeMap::new(), BTreeSet::new());
        Self { written, leaving, changed, target, before, sibling, parses: 0, wants_parse: false }
    }

    /// Also waits until Airflow shows a plan.
    pub(super) fn for_plan(&mut self, plan: &Arc<Plan>, hash: &PlanHash, file: &str) {
        let (plan, hash, file) = (plan.clone(), hash.clone(), file.to_owned());
        self.written.insert(plan.dag_id.clone(), Written { plan, hash, file, seen: None, stood_in: None });
    }

    /// Also waits until Airflow no longer shows a DAG, if its files are gone now.
    pub(super) fn for_end(&mut self, dag_id: &str) {
        if self.changed {
            self.leaving.insert(dag_id.to_owned());
        }
    }

    /// Also has Airflow parse, if anything was written, whether or not something is waited for.
    pub(super) fn parse_soon(&mut self) {
        self.wants_parse |= self.changed;
    }

    /// Takes out what was there before and Airflow was seen to show.
    pub(super) fn unchanged(&mut self, latest: &Latest) -> Outcomes {
        let mut outcomes = Outcomes::default();
        if !self.changed {
            self.written.retain(|dag_id, written| {
                let is_seen = latest.is_seen(dag_id, &written.hash);
                if is_seen {
                    outcomes.put(written, Ok(Deployment::Unchanged));
                }
                !is_seen
            });
        }
        outcomes
    }

    /// Takes out what is not wanted any more.
    pub(super) fn let_go(&mut self, latest: &Latest) {
        self.written.retain(|dag_id, written| latest.is_wanted(dag_id, &written.hash));
        self.leaving.retain(|dag_id| latest.is_removed(dag_id));
    }

    pub(super) fn is_over(&self) -> bool {
        self.written.is_empty() && self.leaving.is_empty()
    }

    /// Returns the DAGs that are to be no more.
    pub(super) fn still_there(&self) -> impl Iterator<Item = &String> {
        self.leaving.iter()
    }

    /// Tells whether it is to be parsed without further waiting.
    pub(super) fn wants_parse(&self) -> bool {
        self.wants_parse
    }

    /// Asks Airflow to parse.
    pub(super) async fn parse(&mut self, asked: &Asked) {
        let own: Vec<&Dag> = self.written.values().filter_map(|written| written.seen.as_ref()).collect();
        // Where Airflow knows all that was written, their own files tell it enough.
        let sibling = self.sibling.as_deref().filter(|_| own.len() < self.written.len() || self.written.is_empty());
        // Whoever asks again may ask for what Airflow fetched by now, and did not parse.
        let is_news = self.changed && self.parses.is_multiple_of(2);
        asked.parse(Parse { target: self.target, is_news, own: &own, sibling }).await;
        self.parses += 1;
        self.wants_parse = false;
    }

    /// Looks at Airflow once, and takes out what is decided.
    pub(super) async fn look(&mut self, asked: &Asked, latest: &Latest, outcomes: &mut Outcomes) -> Result<(), Error> {
        let dag_ids = self.written.keys().map(String::as_str).collect();
        let mut dags = asked.dags(&dag_ids).await?;
        let mut wants_parse = false;
        self.written.retain(|dag_id, written| {
            written.seen = dags.remove(dag_id);
            let Some(dag) =
                written.seen.as_ref().filter(|dag| dag.is_active && dag.tags.contains(&plan_tag(&written.hash)))
            else {
                return true;
            };
            if !dag.tags.iter().any(|tag| tag == UNREADABLE_TAG) {
                latest.see(dag_id, &written.hash);
                outcomes.put(written, Ok(Deployment::Visible));
                return false;
            }
            // It may have been read before the plan was written anew, or reached the place where Airflow reads. What two parses
            // say one after the other counts.
            let is_first = written.stood_in.is_none_or(|parsed| parsed.is_some() && parsed == dag.last_parsed_time);
            if is_first {
                wants_parse |= written.stood_in.is_none();
                written.stood_in = Some(dag.last_parsed_time);
                return true;
            }
            let why = dag.description.as_deref().unwrap_or("it does not say why");
            outcomes.put(written, Err(refused(&written.plan, "Airflow's loader cannot read the plan", why)));
            false
        });
        self.wants_parse |= wants_parse;
        // Before it parsed anything there is nothing new to be found.
        if !self.written.is_empty() && (self.parses > 0 || !self.changed) {
            // What stood there before is of this very file where nothing was written.
            let before = self.changed.then_some(&self.before);
            for error in asked.errors_since(before).await? {
                self.written.retain(|_, written| {
                    let is_of = error.is_of(&written.file);
                    if is_of {
                        outcomes.put(written, Err(not_imported(&written.plan, &error)));
                    }
                    !is_of
                });
            }
        }
        let mut gone = Vec::new();
        for dag_id in &self.leaving {
            if asked.dag(dag_id).await?.is_none_or(|dag| !dag.is_active) {
                gone.push(dag_id.clone());
            }
        }
        self.leaving.retain(|dag_id| !gone.contains(dag_id));
        Ok(())
    }

    /// Ends with a problem for all that is still awaited.
    pub(super) fn fail(&mut self, problem: &Problem, outcomes: &mut Outcomes) {
        for written in std::mem::take(&mut self.written).values() {
            outcomes.put(written, Err(problem.clone()));
        }
    }
}

// === impl Outcomes ===

impl Outcomes {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns what became of a plan.
    pub(super) fn of(&self, dag_id: &str, hash: &PlanHash) -> Option<Result<Deployment, Problem>> {
        self.0.get(dag_id).filter(|(known, _)| known == hash).map(|(_, result)| result.clone())
    }

    fn put(&mut self, written: &Written, result: Result<Deployment, Problem>) {
        self.0.insert(written.plan.dag_id.clone(), (written.hash.clone(), result));
    }
}

/// Returns what Airflow says of a file that it cannot import: the end of the trace tells what went wrong.
fn not_imported(plan: &Plan, error: &ImportError) -> Problem {
    let trace = error.stack_trace.as_deref().unwrap_or("it does not say why").trim();
    refused(plan, "Airflow cannot import the DAG", trace)
}

fn refused(plan: &Plan, what: &str, said: &str) -> Problem {
    let skipped = said.chars().count().saturating_sub(TRACE_CHARS_MAX);
    let tail: String = said.chars().skip(skipped).collect();
    Problem {
        code: Code::DagRefused,
        subject: plan.dag_id.clone(),
        message: format!("{what}: {tail}"),
        hint: "is the package dagwright-airflow installed where Airflow parses DAGs, in the version of this Dagwright?"
            .into(),
    }
}
