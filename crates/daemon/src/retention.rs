//! Lets go of what is old, a little at a time, as long as the daemon runs.
//!
//! What may go is the store's affair; here is only when, and that events wait for every outlet that has not delivered
//! them. Nothing goes by a clock that has just been set: what was forgotten does not come back with the right time.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dagwright_store::{Error, Retention as Ledger};
use tokio::{task::spawn_blocking, time::sleep};

use crate::config::{Config, retention::Retention};

/// How many requests are looked at, and how many events are removed, in one go: some milliseconds.
const BATCH: usize = 256;

/// The pause between two goes, in which others get at the disk.
const PAUSE: Duration = Duration::from_millis(20);

/// How often to look for what is old: a tenth of how long it is kept, within these bounds.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(600);

/// How far the clock may move against the one that only counts, between two looks.
const DRIFT_MAX_MS: u64 = 60_000;

/// Whose delivery events wait for.
pub(crate) struct Readers(pub(crate) Vec<String>);

/// Forgets what is old until it is dropped.
pub(crate) async fn run(config: Arc<Config>, ledger: Arc<dyn Ledger>, readers: Readers) {
    let kept = config.retention;
    let Some(shortest) = [kept.requests, kept.events].into_iter().filter(|span| span.0 > 0).min() else { return };
    let every = (shortest.duration() / 10).clamp(EVERY_MIN, EVERY_MAX);
    let readers = Arc::new(readers);
    let (began, mut known) = (Instant::now(), None);
    loop {
        sleep(every).await;
        let now = now_ms();
        let zero = now.saturating_sub(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        match known.replace(zero) {
            Some(before) if zero.abs_diff(before) > DRIFT_MAX_MS => {
                tracing::warn!("the clock was set: nothing is forgotten until it stays as it is for a while");
                continue;
            }
            Some(_) => {}
            None => continue,
        }
        if let Err(error) = pass(kept, now, &ledger, &readers).await {
            // What is left is old the next time, too; a ledger that failed ends the daemon by itself.
            tracing::warn!(%error, "could not forget what is old");
        }
    }
}

async fn pass(kept: Retention, now: u64, ledger: &Arc<dyn Ledger>, readers: &Arc<Readers>) -> Result<(), Error> {
    if kept.requests.0 > 0 {
        let before = now.saturating_sub(kept.requests.0);
        let (mut mark, mut forgotten) = (None, 0);
        loop {
            let (ledger, after) = (ledger.clone(), mark.take());
            let (count, next) = blocking(move || {
                let found = ledger.forgettable(before, after.as_ref(), BATCH)?;
                let requests: Vec<_> = found.requests.into_iter().map(|summary| summary.request).collect();
                Ok((ledger.forget(&requests)?, found.next))
            })
            .await?;
            forgotten += count;
            mark = next;
            if mark.is_none() {
                break;
            }
            sleep(PAUSE).await;
        }
        if forgotten > 0 {
            tracing::info!(requests = forgotten, "forgot requests that ended long ago");
        }
    }
    if kept.events.0 > 0 {
        let before = now.saturating_sub(kept.events.0);
        loop {
            let (ledger, readers) = (ledger.clone(), readers.clone());
            let forgotten = blocking(move || {
                let mut up_to = u64::MAX;
                for reader in &readers.0 {
                    up_to = up_to.min(ledger.delivered(reader)?.unwrap_or(0));
                }
                ledger.forget_events(before, up_to, BATCH)
            });
            if forgotten.await? < BATCH {
                break;
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
