//! What happened while this process listed no runs: before it started, or while other processes acted for a pipeline.
//!
//! Where the listing was is kept in the store now and then. When the process starts to act for pipelines, it lists again from
//! there, beside what happens now, page by page. What is found twice is adopted once, so to look back too far costs only time;
//! and time is what bounds it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use dagwright_airflow::{PAGE_LIMIT_MAX, RunFilter, RunState, Span};
use dagwright_store::{Error, Register};
use dagwright_telemetry::chain::ErrorChain;

use super::{OVERLAP, STRANGERS_MAX};
use crate::journal::blocking;

/// The name of the bookmark.
const BOOKMARK: &str = "airflow.runs";

/// How often it is moved: what a crash leaves to be listed again.
const KEPT_EVERY: TimeDelta = TimeDelta::seconds(60);

/// How far back is looked when pipelines were taken over: longer than a group takes to see that one of it is gone.
const TAKEN_OVER: TimeDelta = TimeDelta::minutes(10);

/// How many pages of the past are listed between two rounds, so that these stay quick.
pub(super) const PAGES_A_ROUND: usize = 4;

/// Looks back.
#[derive(Debug)]
pub(super) struct Past {
    register: Arc<dyn Register>,
    /// How far it looks back at most.
    look_back: TimeDelta,
    /// Where an earlier process was.
    left_at: Option<DateTime<Utc>>,
    /// When this one began to act for pipelines.
    began: Option<DateTime<Utc>>,
    /// What is still to be listed.
    reading: Option<Reading>,
    kept: Option<DateTime<Utc>>,
}

/// A list that is under way.
#[derive(Debug)]
struct Reading {
    since: DateTime<Utc>,
    span: Span,
}

// === impl Past ===

impl Past {
    /// Reads where an earlier process was; where nothing tells, nothing happened before.
    pub(super) async fn open(register: Arc<dyn Register>, look_back: TimeDelta) -> Self {
        let reading = register.clone();
        let left_at = match blocking(move || left_at(&*reading)).await {
            Ok(left_at) => left_at,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "it is not known up to where runs were listed before");
                None
            }
        };
        Self { register, look_back, left_at, began: None, reading: None, kept: None }
    }

    /// Begins to look back, as this process acts for pipelines that it did not act for.
    pub(super) fn begin(&mut self, now: DateTime<Utc>) {
        // A group hands its pipelines out one after the other, and what was found before it did was adopted by nobody.
        let has_just_begun = now - *self.began.get_or_insert(now) < TAKEN_OVER;
        let wanted = match self.left_at.filter(|_| has_just_begun) {
            Some(left_at) => {
                let since = bounded(left_at, now, self.look_back);
                if since > left_at {
                    tracing::warn!(
                        skipped_from = %left_at,
                        skipped_until = %since,
                        "was away for longer than airflow.look_back: runs that ended in between are not told of"
                    );
                }
                since
            }
            None => now - TAKEN_OVER,
        };
        let since = wanted - OVERLAP;
        // From its beginning, as offsets count from there.
        let since = self.reading.take().map_or(since, |reading| since.min(reading.since));
        tracing::debug!(%since, "looks for runs that ended meanwhile");
        self.reading = Some(Reading { since, span: Span::first() });
    }

    /// Returns what to list next, while there is room for what is found.
    pub(super) fn next(&self, room: usize) -> Option<(RunFilter, Span)> {
        let reading = self.reading.as_ref().filter(|_| room >= (PAGE_LIMIT_MAX as usize).min(STRANGERS_MAX))?;
        let states = vec![RunState::Success, RunState::Failed, RunState::Running];
        Some((RunFilter { dag_id: None, updated_at_gte: Some(reading.since), states }, reading.span))
    }

    /// Goes on after a page that was listed; `None`: it was the last.
    pub(super) fn listed(&mut self, then: Option<Span>) {
        match (then, &mut self.reading) {
            (Some(span), Some(reading)) => reading.span = span,
            (None, Some(reading)) => {
                tracing::info!(since = %reading.since, "listed the runs that ended meanwhile");
                self.reading = None;
            }
            (_, None) => {}
        }
    }

    /// Keeps where the listing is, once nothing before that is left to be listed.
    pub(super) async fn keep(&mut self, listed_at: DateTime<Utc>) {
        let is_due = self.kept.is_none_or(|kept| listed_at - kept >= KEPT_EVERY);
        if self.began.is_none() || self.reading.is_some() || !is_due {
            return;
        }
        let (register, at) = (self.register.clone(), u64::try_from(listed_at.timestamp_millis()).unwrap_or_default());
        match blocking(move || register.keep_bookmark(BOOKMARK, at)).await {
            Ok(()) => self.kept = Some(listed_at),
            // The next round has it; until then more would be listed again than need be.
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "could not keep up to where runs were listed"),
        }
    }
}

/// Returns where an earlier process was, by its bookmark, or by what it last wrote where that was lost.
fn left_at(register: &dyn Register) -> Result<Option<DateTime<Utc>>, Error> {
    let at = match register.bookmark(BOOKMARK)? {
        Some(at) => Some(at),
        None => register.recent(None, None, 1)?.into_iter().map(|summary| summary.changed_at).next(),
    };
    Ok(at.and_then(|at| DateTime::from_timestamp_millis(i64::try_from(at).ok()?)))
}

/// Returns from where on to list: no further back than `most`, and not from a clock that was ahead.
fn bounded(left_at: DateTime<Utc>, now: DateTime<Utc>, most: TimeDelta) -> DateTime<Utc> {
    let earliest = now.checked_sub_signed(most).unwrap_or(DateTime::UNIX_EPOCH);
    left_at.clamp(earliest.min(now), now)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::bounded;

    #[test]
    fn it_looks_back_so_far_and_no_further() {
        let at = |hour: u32| -> DateTime<Utc> { format!("2025-01-02T{hour:02}:00:00Z").parse().expect("an instant") };
        let day = TimeDelta::hours(10);
        assert_eq!(bounded(at(8), at(12), day), at(8));
        assert_eq!(bounded(at(1), at(12), day), at(2), "no further");
        assert_eq!(bounded(at(13), at(12), day), at(12), "a clock was set back");
        assert_eq!(bounded(at(1), at(12), TimeDelta::zero()), at(12));
        assert_eq!(bounded(DateTime::UNIX_EPOCH, at(12), TimeDelta::MAX), DateTime::UNIX_EPOCH);
    }
}
