//! What is asked of Airflow for a deployment: DAGs, errors, and that it parse.
//!
//! How much that is depends on what is deployed, not on what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use dagwright_airflow::{Airflow, Dag, DagFilter, Error, ImportError, PAGE_LIMIT_MAX, Span};
use dagwright_compiler::{ANCHOR, TAG, Target};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// From how many DAGs on it is looked whether it takes fewer calls to list all of ours.
const LISTED_MIN: usize = 8;

/// How many DAGs are asked for at a time.
const QUESTIONS_MAX: usize = 4;

/// The Airflow that is asked.
#[derive(Debug)]
pub(super) struct Asked(pub(super) Arc<dyn Airflow>);

/// The import errors that were there at a time.
#[derive(Debug, Default)]
pub(super) struct Errors {
    newest: Option<DateTime<Utc>>,
    /// Those of that time, and those without a time.
    known: BTreeSet<i64>,
}

/// Of which files Airflow is to be told.
#[derive(Debug)]
pub(super) struct Parse<'a> {
    pub(super) target: Target,
    /// Whether anything was written that Airflow cannot have seen yet.
    pub(super) is_news: bool,
    /// The DAGs that were written, as far as Airflow knows them.
    pub(super) own: &'a [&'a Dag],
    /// A DAG that comes of the loader as others do that were written, and that Airflow does not know yet.
    pub(super) sibling: Option<&'a str>,
}

// === impl Asked ===

impl Asked {
    /// Returns which of these DAGs Airflow knows.
    pub(super) async fn dags(&self, dag_ids: &BTreeSet<&str>) -> Result<BTreeMap<String, Dag>, Error> {
        if dag_ids.len() >= LISTED_MIN {
            let ours = DagFilter { tags: vec![TAG.into()], inactive_too: false };
            let mut at = Span::first();
            let mut page = self.0.dags(&ours, at).await?;
            let pages = page.total.div_ceil(PAGE_LIMIT_MAX.into());
            if usize::try_from(pages).is_ok_and(|pages| pages <= dag_ids.len()) {
                let mut dags = BTreeMap::new();
                loop {
                    let next = at.after(&page);
                    let found = page.items.into_iter().filter(|dag| dag_ids.contains(dag.dag_id.as_str()));
                    dags.extend(found.map(|dag| (dag.dag_id.clone(), dag)));
                    let Some(next) = next else { return Ok(dags) };
                    at = next;
                    page = self.0.dags(&ours, at).await?;
                }
            }
        }
        let each: Vec<_> = dag_ids.iter().map(|dag_id| self.dag(dag_id)).collect();
        let known: Vec<Option<Dag>> = stream::iter(each).buffer_unordered(QUESTIONS_MAX).try_collect().await?;
        Ok(known.into_iter().flatten().map(|dag| (dag.dag_id.clone(), dag)).collect())
    }

    /// Returns a DAG, if Airflow knows it.
    pub(super) async fn dag(&self, dag_id: &str) -> Result<Option<Dag>, Error> {
        match self.0.dag(dag_id).await {
            Ok(dag) => Ok(Some(dag)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what there is of import errors now, by which newer ones are known.
    pub(super) async fn errors(&self) -> Result<Errors, Error> {
        let page = self.0.import_errors(Span::first()).await?;
        let newest = page.items.iter().filter_map(|error| error.timestamp).max();
        let known = page.items.iter().filter(|error| error.timestamp.is_none() || error.timestamp == newest);
        Ok(Errors { newest, known: known.map(|error| error.import_error_id).collect() })
    }

    /// Returns the import errors that were not there before; all, where nothing is known of before.
    pub(super) async fn errors_since(&self, before: Option<&Errors>) -> Result<Vec<ImportError>, Error> {
        let (mut errors, mut span) = (Vec::new(), Some(Span::first()));
        while let Some(at) = span {
            let page = self.0.import_errors(at).await?;
            span = at.after(&page);
            for error in page.items {
                match before {
                    // The newest come first, so all others are older too.
                    Some(before) if before.is_older(&error) => span = None,
                    Some(before) if before.has(&error) => {}
                    Some(_) | None => errors.push(error),
                }
            }
        }
        Ok(errors)
    }

    /// Asks Airflow to parse what was written; what it does not take now, it finds in its own time.
    pub(super) async fn parse(&self, parse: Parse<'_>) {
        let tokens = match parse.target {
            Target::Airflow2 => self.tokens_of_files(&parse).await,
            Target::Airflow3 => self.token_of_bundle(&parse).await.map(|token| token.into_iter().collect()),
        };
        let asked = async {
            for token in tokens? {
                self.0.reparse(&token).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = asked.await {
            tracing::debug!(%error, "Airflow does not parse now, it will in its own time");
        }
    }

    /// Airflow 2 parses single files, and knows no new ones.
    async fn tokens_of_files(&self, parse: &Parse<'_>) -> Result<BTreeSet<String>, Error> {
        let mut tokens: BTreeSet<String> = parse.own.iter().map(|dag| dag.file_token.clone()).collect();
        if let Some(sibling) = parse.sibling {
            tokens.extend(self.dag(sibling).await?.map(|dag| dag.file_token));
        }
        Ok(tokens)
    }

    /// Airflow 3 looks through the whole bundle whichever file it is asked to parse, and first parses that.
    async fn token_of_bundle(&self, parse: &Parse<'_>) -> Result<Option<String>, Error> {
        let own = parse.own.first();
        // In a bundle with versions Airflow would parse a changed file before it fetches the new version, and then take it for
        // done; asked for another file, it fetches first and sees what changed. Of what did not change it would see nothing.
        let anchor = match own {
            Some(own) if own.bundle_version.is_none() || !parse.is_news => return Ok(Some(own.file_token.clone())),
            _ => self.dag(ANCHOR).await?,
        };
        let is_fetched = parse.is_news && anchor.as_ref().is_some_and(|anchor| anchor.bundle_version.is_some());
        if let (false, Some(sibling)) = (is_fetched, parse.sibling)
            && let Some(dag) = self.dag(sibling).await?
        {
            return Ok(Some(dag.file_token));
        }
        if let Some(anchor) = anchor {
            return Ok(Some(anchor.file_token));
        }
        // The anchor may be the one that was not found yet, where the daemon was not there when Airflow started.
        let ours = DagFilter { tags: vec![TAG.into()], inactive_too: false };
        let page = self.0.dags(&ours, Span::first()).await?;
        let is_own = |dag: &Dag| parse.own.iter().any(|own| own.file_token == dag.file_token);
        let other = page.items.into_iter().find(|dag| !is_own(dag)).map(|dag| dag.file_token);
        Ok(other.or_else(|| own.map(|own| own.file_token.clone())))
    }
}

// === impl Errors ===

impl Errors {
    fn is_older(&self, error: &ImportError) -> bool {
        error.timestamp.is_some() && error.timestamp < self.newest
    }

    fn has(&self, error: &ImportError) -> bool {
        let is_same_time = error.timestamp.is_none() || error.timestamp == self.newest;
        is_same_time && self.known.contains(&error.import_error_id)
    }
}
