//! The data interval of a run: given by hand, or the last whole one of the schedule.
//!
//! Airflow's `CronDataIntervalTimetable` means the same: an interval lies between two ticks of the cron expression in
//! its time zone, and is run once its end has passed.

use chrono::{DateTime, SecondsFormat, Utc};
use chrono_tz::Tz;
use croner::Cron;
use dagwright_model::spec::{CronSchedule, Interval};

/// Says why there is no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not two instants.
    #[error("an interval is START/END, both like 2013-01-01T00:00:00Z")]
    Form,
    /// A text is not an instant.
    #[error("{0:?} is not an instant like 2013-01-01T00:00:00Z")]
    Instant(String),
    /// It ends before it starts.
    #[error("an interval must start before it ends")]
    Backwards,
    /// The schedule names a time zone that nobody knows.
    #[error("unknown time zone {0:?}")]
    Timezone(String),
    /// The schedule's cron expression is none, or has no tick before now.
    #[error("cron expression {0:?} has no tick before now")]
    NoTick(String),
}

/// Reads `START/END`, both RFC 3339.
///
/// # Errors
/// [`Error::Form`], [`Error::Instant`] or [`Error::Backwards`].
pub fn parse(text: &str) -> Result<Interval, Error> {
    let (start, end) = text.split_once('/').ok_or(Error::Form)?;
    of(start, end)
}

/// Returns the interval between two RFC 3339 instants, both in UTC.
///
/// # Errors
/// [`Error::Instant`] or [`Error::Backwards`].
pub fn of(start: &str, end: &str) -> Result<Interval, Error> {
    let instant = |text: &str| {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| Error::Instant(text.into()))?;
        Ok(time.with_timezone(&Utc))
    };
    let (start, end) = (instant(start)?, instant(end)?);
    if start < end { Ok(interval(start, end)) } else { Err(Error::Backwards) }
}

/// Returns the last interval of `schedule` that was over at `now`.
///
/// # Errors
/// [`Error::Timezone`], or [`Error::NoTick`] when the schedule has no two ticks before `now`.
pub fn last_whole(schedule: &CronSchedule, now: DateTime<Utc>) -> Result<Interval, Error> {
    let zone: Tz = schedule.timezone.parse().map_err(|_| Error::Timezone(schedule.timezone.clone()))?;
    let no_tick = || Error::NoTick(schedule.cron.clone());
    let cron: Cron = schedule.cron.parse().map_err(|_| no_tick())?;
    let end = cron.find_previous_occurrence(&now.with_timezone(&zone), true).map_err(|_| no_tick())?;
    let start = cron.find_previous_occurrence(&end, false).map_err(|_| no_tick())?;
    Ok(interval(start.with_timezone(&Utc), end.with_timezone(&Utc)))
}

fn interval(start: DateTime<Utc>, end: DateTime<Utc>) -> Interval {
    let text = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    Interval { start: text(start), end: text(end) }
}

#[cfg(test)]
mod tests {
    use dagwright_model::spec::CronSchedule;

    #[track_caller]
    fn check(cron: &str, timezone: &str, now: &str, wanted: &str) {
        let schedule = CronSchedule { cron: cron.into(), timezone: timezone.into(), start_date: None, catchup: false };
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
