//! Removes what no DAG refers to any more, once nobody needs it: earlier plans and snapshots.
//!
//! A run stays on the snapshot that it started with, and who clears it later wants the same again. So what is left over is kept
//! for a time, and beyond that for as long as an active run has it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dagwright_airflow::{Airflow, RunFilter, RunState, Span};
use dagwright_telemetry::chain::ErrorChain;
use tokio::time::{MissedTickBehavior, interval};

use super::deploy::{Destination, Error};
use crate::journal::blocking;

/// How often it is looked for what is left over.
const ROUND: Duration = Duration::from_hours(1);

/// Removes what is older than `keep`; never ends.
pub(super) async fn again_and_again(airflow: Arc<dyn Airflow>, destination: Arc<dyn Destination>, keep: Duration) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        match sweep(&*airflow, &destination, keep).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed plans that no DAG refers to any more"),
            // The next round has it.
            Err(error) => tracing::warn!(error, "plans that no DAG refers to any more are kept for now"),
        }
    }
}

/// Removes what is older than `keep` and no active run has; returns how much.
pub(super) async fn sweep(
    airflow: &dyn Airflow,
    destination: &Arc<dyn Destination>,
    keep: Duration,
) -> Result<usize, String> {
    let told = |error: Error| ErrorChain(&error).to_string();
    let found = destination.clone();
    let mut old = blocking(move || found.leftovers()).await.map_err(told)?;
    let now = SystemTime::now();
    old.retain(|leftover| now.duration_since(leftover.since).is_ok_and(|age| age >= keep));
    if old.is_empty() {
        return Ok(0);
    }
    let used = versions_in_use(airflow).await.map_err(|error| ErrorChain(&error).to_string())?;
    old.retain(|leftover| !used.contains(&leftover.name));
    let (removed, discarding) = (old.len(), destination.clone());
    blocking(move || old.iter().try_for_each(|leftover| discarding.discard(leftover))).await.map_err(told)?;
    Ok(removed)
}

/// Returns the bundle versions that active runs have.
async fn versions_in_use(airflow: &dyn Airflow) -> Result<BTreeSet<String>, dagwright_airflow::Error> {
    let states = vec![RunState::Queued, RunState::Running];
    let filter = RunFilter { dag_id: None, updated_at_gte: None, states };
    let (mut used, mut span) = (BTreeSet::new(), Some(Span::first()));
    while let Some(at) = span {
        let page = airflow.runs(&filter, at).await?;
        span = at.after(&page);
        used.extend(page.items.into_iter().filter_map(|run| run.bundle_version));
    }
    Ok(used)
}
