//! Checks when a pipeline runs by itself: cron fields, time zone, start; or the assets it waits for.
//!
//! The cron dialect is what Airflow's timetables and the embedded engine read alike: five fields of numbers, `*`,
//! ranges, lists, steps, and English names of months and weekdays. Extensions (`L`, `W`, `#`, `?`, seconds) are refused.

use chrono_tz::Tz;

use super::params::is_date;
use crate::{
    code::Code,
    id::Name,
    spec::{
        AssetSchedule, CronSchedule, Schedule, document,
        report::{Report, Site, did_you_mean, quoted},
        secrets,
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

/// The most characters that Airflow's database has for the URI of an asset.
const ASSET_URI_LENGTH_MAX: usize = 1500;

/// What Airflow keeps for itself.
const RESERVED_SCHEME: &str = "airflow";

/// The scheme of what pipelines write: `dagwright://<namespace.pipeline>/<sink>`.
const OWN_SCHEME: &str = "dagwright";

/// Checks the schedule of the pipeline with this DAG id and spells it out.
pub(super) fn normalize(
    schedule: Option<document::Schedule>,
    dag_id: &str,
    site: &Site<'_>,
    report: &mut Report,
) -> Option<Schedule> {
    let (parts, cron_site) = match schedule? {
        document::Schedule::Preset(cron) => {
            (document::ScheduleParts { cron: Some(cron), ..document::ScheduleParts::default() }, site.clone())
        }
        document::Schedule::Parts(parts) => (parts, site.key("cron")),
    };
    match parts.assets {
        Some(_) => Some(Schedule::Assets(by_assets(parts, dag_id, site, report))),
        None => by_cron(parts, site, &cron_site, report).map(Schedule::Cron),
    }
}

fn by_cron(
    parts: document::ScheduleParts,
    site: &Site<'_>,
    cron_site: &Site<'_>,
    report: &mut Report,
) -> Option<CronSchedule> {
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
    let Some(cron) = parts.cron else {
        // Not where the one that is there was objected to.
        if cron_site.node().is_none() && site.key("assets").node().is_none() {
            let hint = "say `cron` for certain times, or `assets` for whenever data changed";
            report.push(Code::SpecMissingKey, cron_site, "`cron` is missing", hint);
        }
        return None;
    };
    let cron = spelled_out(&cron, cron_site, report);
    Some(CronSchedule { cron, timezone, start_date: parts.start_date, catchup })
}

fn by_assets(parts: document::ScheduleParts, dag_id: &str, site: &Site<'_>, report: &mut Report) -> AssetSchedule {
    let of_the_clock = [
        ("cron", parts.cron.is_some()),
        ("timezone", parts.timezone.is_some()),
        ("start_date", parts.start_date.is_some()),
        ("catchup", parts.catchup.is_some()),
    ];
    for (key, _) in of_the_clock.into_iter().filter(|(_, given)| *given) {
        let message = format!("`{key}` and `assets` exclude each other");
        let hint = "a run that assets start has no time and no interval; keep one of the two";
        report.push(Code::SpecConflict, &site.key(key), message, hint);
    }
    let assets = parts.assets.unwrap_or_default();
    let list = site.key("assets");
    for (index, uri) in assets.iter().enumerate() {
        let site = list.index(index);
        if assets[..index].contains(uri) {
            report.push(Code::SpecConflict, &site, format!("{} stands there twice", quoted(uri)), "keep one of them");
        } else if let Some(kind) = secrets::in_uri(uri) {
            let hint = "an asset's URI is a name that everybody sees; leave credentials out";
            report.push(Code::SpecCredential, &site, format!("it holds {kind}"), hint);
        } else if let Err((message, hint)) = check_asset(uri, dag_id) {
            report.push(Code::SpecBadUri, &site, message, hint);
        }
    }
    AssetSchedule { assets }
}

/// Checks the URI of an asset that a pipeline waits for.
fn check_asset(uri: &str, dag_id: &str) -> Result<(), (String, &'static str)> {
    let form = "write it like s3://bucket/path, or dagwright://<namespace.pipeline>/<sink> for what a pipeline writes";
    if uri.len() > ASSET_URI_LENGTH_MAX {
        let message = format!("it has {} characters; Airflow allows {ASSET_URI_LENGTH_MAX}", uri.len());
        return Err((message, "name the asset by something shorter"));
    }
    // Letters of the scheme in lower case, as Airflow makes them so. What is left out of the rest would be a template,
    // a fragment, which Airflow drops, or need escaping.
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
    };
    let is_plain = |rest: &str| {
        !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?&=%+,;@$!*()".contains(&byte))
    };
    let parts = uri.split_once("://").filter(|(scheme, rest)| is_scheme(scheme) && is_plain(rest));
    let Some((scheme, rest)) = parts else {
        return Err((format!("{} is not the URI of an asset", quoted(uri)), form));
    };
    if scheme == RESERVED_SCHEME {
        return Err((format!("the scheme {RESERVED_SCHEME}:// is Airflow's own"), form));
    }
    if scheme == OWN_SCHEME {
        let sink = rest.split_once('/').filter(|(pipeline, sink)| {
            pipeline.split('.').count() <= 2 && pipeline.split('.').chain([*sink]).all(|name| Name::new(name).is_ok())
        });
        let Some((pipeline, _)) = sink else {
            return Err((format!("{} names no sink of a pipeline", quoted(uri)), form));
        };
        if pipeline == dag_id {
            return Err((
                "the pipeline would wait for itself".into(),
                "each run would start the next; name another's sink",
            ));
        }
    }
    Ok(())
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
    use super::{check_asset, check_cron, nearest_zone};

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
    fn assets_are_uris_that_airflow_keeps_as_they_are() {
        for good in [
            "dagwright://flights_daily/sink",
            "dagwright://aviation.flights_daily/sink",
            "s3://bucket/a/b.parquet",
            "x-own://anything",
            "file:///data/a%20b.csv",
            "https://example.org/data?day=1&month=2",
        ] {
            assert_eq!(check_asset(good, "aviation.other"), Ok(()), "{good}");
        }
        for bad in [
            "",
            "flights",
            "://x",
            "S3://bucket/x",
            "s3://",
            "1s3://x",
            "s3://bucket/a b",
            "s3://bucket/ä",
            "s3://bucket/{{ ds }}",
            "s3://bucket/\n",
            "s3://bucket/#x",
            "s3://[bucket/x",
            "airflow://dag/x",
            "dagwright://flights_daily",
            "dagwright://flights_daily/",
            "dagwright://flights_daily/sink/more",
            "dagwright://a.b.c/sink",
            "dagwright://Flights/sink",
            "dagwright://aviation.other/sink",
        ] {
            assert!(check_asset(bad, "aviation.other").is_err(), "{bad}");
        }
        assert!(check_asset(&format!("s3://{}", "a".repeat(1495)), "x").is_ok());
        assert!(check_asset(&format!("s3://{}", "a".repeat(1496)), "x").is_err());
    }

    #[test]
    fn zones_are_recognised_by_their_letters() {
        assert_eq!(nearest_zone("america/new york"), Some("America/New_York"));
        assert_eq!(nearest_zone("Mars/Olympus"), None);
    }
}
