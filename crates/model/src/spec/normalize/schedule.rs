//! Checks when a pipeline runs by itself: cron fields, time zone, start.
//!
//! The cron dialect is what Airflow's timetables and the embedded engine read alike: five fields of numbers, `*`,
//! ranges, lists, steps, and English names of months and weekdays. Extensions (`L`, `W`, `#`, `?`, seconds) are refused.

use chrono_tz::Tz;

use super::params::is_date;
use crate::{
    code::Code,
    spec::{
        Schedule, document,
        report::{Report, Site, did_you_mean, quoted},
    },
};

const PRESETS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The most days each month can have.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// One field of a cron expression.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// English names, of which the first means `low`.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59, names: &[] },
    Field { name: "hour", low: 0, high: 23, names: &[] },
    Field { name: "day of month", low: 1, high: 31, names: &[] },
    Field { name: "month", low: 1, high: 12, names: &MONTHS },
    Field { name: "day of week", low: 0, high: 7, names: &WEEKDAYS },
];

/// Checks a schedule and spells it out.
pub(super) fn normalize(
    schedule: Option<document::Schedule>,
    site: &Site<'_>,
    report: &mut Report,
) -> Option<Schedule> {
    let (parts, cron_site) = match schedule? {
        document::Schedule::Preset(cron) => {
            (document::ScheduleParts { cron, timezone: None, start_date: None, catchup: None }, site.clone())
        }
        document::Schedule::Parts(parts) => (parts, site.key("cron")),
    };
    let timezone = parts.timezone.unwrap_or_else(|| "UTC".into());
    if timezone.parse::<Tz>().is_err() {
        let message = format!("{} is not an IANA time zone", quoted(&timezone));
        let hint = match nearest_zone(&timezone) {
            Some(zone) => format!("did you mean {zone}?"),
            None => "write it like Europe/Berlin or UTC".into(),
        };
        report.push(Code::SpecWrongType, &site.key("timezone"), message, hint);
    }
    if let Some(date) = parts.start_date.as_deref().filter(|date| !is_date(date)) {
        let message = format!("{} is not a day of the calendar", quoted(date));
        report.push(Code::SpecWrongType, &site.key("start_date"), message, "write it like 2013-01-31");
    }
    let catchup = parts.catchup.unwrap_or(false);
    if catchup && parts.start_date.is_none() {
        let message = "`catchup` needs `start_date`";
        let hint = "say from which day on missed intervals are run; without it that would be 1970-01-01";
        report.push(Code::SpecConflict, &site.key("catchup"), message, hint);
    }
    let cron = spelled_out(&parts.cron, &cron_site, report);
    Some(Schedule { cron, timezone, start_date: parts.start_date, catchup })
}

/// Finds a zone that differs only in case or the blank for the underscore.
fn nearest_zone(text: &str) -> Option<&'static str> {
    let wanted = text.trim().replace(' ', "_");
    chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).find(|name| name.eq_ignore_ascii_case(&wanted))
}

fn spelled_out(cron: &str, site: &Site<'_>, report: &mut Report) -> String {
    let text = cron.trim();
    if text.starts_with('@') {
        if let Some((_, fields)) = PRESETS.iter().find(|(preset, _)| *preset == text) {
            return (*fields).into();
        }
        let known = PRESETS.map(|(preset, _)| preset);
        let (code, message) = match text {
            "@once" | "@continuous" | "@reboot" => (Code::SpecNotYet, format!("{} is not yet supported", quoted(text))),
            _ => (Code::SpecWrongType, format!("{} is not a preset", quoted(text))),
        };
        report.push(code, site, message, did_you_mean(text, known));
        return text.into();
    }
    match check_cron(text) {
        Ok(()) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Err(message) => {
            report.push(
                Code::SpecWrongType,
                site,
                message,
                "write minute, hour, day of month, month, day of week; \"0 3 * * *\" is every day at three",
            );
            text.into()
        }
    }
}

/// Checks five cron fields.
fn check_cron(text: &str) -> Result<(), String> {
    let words: Vec<_> = text.split_whitespace().collect();
    if words.len() != FIELDS.len() {
        return Err(format!("{} cron fields instead of five", words.len()));
    }
    let mut sets = Vec::new();
    for (field, word) in FIELDS.iter().zip(&words) {
        let set = values(field, word);
        sets.push(set.ok_or_else(|| format!("{} is not a cron field for the {}", quoted(word), field.name))?);
    }
    // With a weekday either of both days counts; without one the day of month must occur in some month.
    let possible = |month: &u32| MONTH_DAYS.get(*month as usize - 1).is_some_and(|days| sets[2][0] <= *days);
    if words[4] == "*" && !sets[3].iter().any(possible) {
        return Err("no such day exists in these months".into());
    }
    Ok(())
}

/// Returns the values that a field allows, ascending and at least one; `None` when it is malformed.
fn values(field: &Field, word: &str) -> Option<Vec<u32>> {
    let mut values = Vec::new();
    for part in word.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (low, high) = match range.split_once('-') {
            Some((low, high)) => (value(field, low)?, value(field, high)?),
            None if range == "*" => (field.low, field.high),
            None => {
                let low = value(field, range)?;
                (low, if step.is_some() { field.high } else { low })
            }
        };
        let step = match step {
            Some(step) => number(step).filter(|step| (1..=field.high).contains(step))?,
            None => 1,
        };
        if low > high {
            return None;
        }
        values.extend((low..=high).step_by(step as usize));
    }
    values.sort_unstable();
    Some(values)
}

fn value(field: &Field, word: &str) -> Option<u32> {
    let named = field.names.iter().zip(field.low..).find(|(name, _)| name.eq_ignore_ascii_case(word));
    let value = named.map(|(_, value)| value).or_else(|| number(word))?;
    (field.low..=field.high).contains(&value).then_some(value)
}

fn number(word: &str) -> Option<u32> {
    let plain = !word.is_empty() && word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::{check_cron, nearest_zone};

    #[test]
    fn cron_fields_are_what_every_engine_reads() {
        for good in [
            "0 3 * * *",
            "*/15 * * * *",
            "0,30 8-18/2 * * mon-fri",
            "0 0 29 2 *",
            "0 0 1 JAN,jul *",
            "5/20 * * * 7",
            "0 0 31 2 fri",
        ] {
            assert_eq!(check_cron(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "0 3 * *",
            "0 3 * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "1,,2 * * * *",
            "* * L * *",
            "* * ? * *",
            "* * * * 1#2",
            "0 0 31 2 *",
            "0 0 30-31 feb *",
            "-1 * * * *",
            "1- * * * *",
            "99999999999 * * * *",
        ] {
            assert!(check_cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_recognised_by_their_letters() {
        assert_eq!(nearest_zone("america/new york"), Some("America/New_York"));
        assert_eq!(nearest_zone("Mars/Olympus"), None);
    }
}
