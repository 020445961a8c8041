//! The data interval of a run: given by hand, or the last whole one of the schedule.
//!
//! Airflow's `CronDataIntervalTimetable` means the same: an interval lies between two ticks of the cron expression in
//! its time zone, and is run once its end has passed.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use croner::Cron;
use dagwright_model::spec::{Interval, Schedule};

/// Reads `START/END`, both RFC 3339.
pub(crate) fn parse(text: &str) -> Result<Interval> {
    let (start, end) = text.split_once('/').context("an interval is START/END, both like 2013-01-01T00:00:00Z")?;
    let instant = |text: &str| {
        DateTime::parse_from_rfc3339(text)
            .map(|time| time.with_timezone(&Utc))
            .with_context(|| format!("{text:?} is not an instant like 2013-01-01T00:00:00Z"))
    };
    let (start, end) = (instant(start)?, instant(end)?);
    if start >= end {
        bail!("an interval must start before it ends");
    }
    Ok(interval(start, end))
}

/// Returns the last interval of `schedule` that was over at `now`.
///
/// # Errors
/// When the schedule has no two ticks before `now`.
pub(crate) fn last_whole(schedule: &Schedule, now: DateTime<Utc>) -> Result<Interval> {
    let zone: Tz = schedule.timezone.parse().with_context(|| format!("unknown time zone {:?}", schedule.timezone))?;
    let cron: Cron = schedule.cron.parse().with_context(|| format!("cron expression {:?}", schedule.cron))?;
    let no_tick = || format!("cron expression {:?} has no tick before now", schedule.cron);
    let end = cron.find_previous_occurrence(&now.with_timezone(&zone), true).with_context(no_tick)?;
    let start = cron.find_previous_occurrence(&end, false).with_context(no_tick)?;
    Ok(interval(start.with_timezone(&Utc), end.with_timezone(&Utc)))
}

fn interval(start: DateTime<Utc>, end: DateTime<Utc>) -> Interval {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    Interval { start: text(start), end: text(end) }
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::Schedule;

    #[track_caller]
    fn check(cron: &str, timezone: &str, now: &str, wanted: &str) {
        let schedule = Schedule { cron: cron.into(), timezone: timezone.into(), start_date: None, catchup: false };
        let found = super::last_whole(&schedule, now.parse().unwrap()).unwrap();
        assert_eq!(format!("{}/{}", found.start, found.end), wanted);
    }

    #[test]
    fn the_last_whole_interval_ends_at_the_last_tick() {
        check("0 3 * * *", "UTC", "2025-06-02T12:00:00Z", "2025-06-01T03:00:00Z/2025-06-02T03:00:00Z");
        check("0 3 * * *", "UTC", "2025-06-02T03:00:00Z", "2025-06-01T03:00:00Z/2025-06-02T03:00:00Z");
        check("0 3 * * *", "UTC", "2025-06-02T02:59:59Z", "2025-05-31T03:00:00Z/2025-06-01T03:00:00Z");
        // The night in which Berlin's clocks go forward is an hour short.
        check("0 0 * * *", "Europe/Berlin", "2025-03-31T12:00:00Z", "2025-03-29T23:00:00Z/2025-03-30T22:00:00Z");
    }

    #[test]
    fn intervals_given_by_hand_are_checked() {
        assert_eq!(
            super::parse("2013-01-01T01:00:00+01:00/2013-01-02T00:00:00Z").unwrap().start,
            "2013-01-01T00:00:00Z"
        );
        for bad in ["2013-01-01", "2013-01-02T00:00:00Z/2013-01-01T00:00:00Z", "a/b"] {
            assert!(super::parse(bad).is_err(), "{bad}");
        }
    }
}
