//! Checks parameters: their defaults and words must be of their type.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use serde_json::Value;

use crate::{
    code::Code,
    id::Name,
    spec::{
        Param, ParamType,
        report::{Report, Site, did_you_mean, quoted},
    },
};

/// The binds that every run with a data interval has.
pub(super) const INTERVAL_BINDS: [&str; 2] = ["data_interval_start", "data_interval_end"];

/// Checks all parameters.
pub(super) fn check(params: &BTreeMap<Name, Param>, site: &Site<'_>, report: &mut Report) {
    for (name, param) in params {
        let site = site.key(name.as_str());
        if INTERVAL_BINDS.contains(&name.as_str()) {
            let message = format!("{} is the run's own bind", quoted(name.as_str()));
            report.push(Code::SpecBadName, &site, message, "give the parameter another name");
        }
        let wanted = describe(param.param_type);
        if param.default.as_ref().is_some_and(|default| !is_of(default, param.param_type)) {
            report.push(Code::SpecWrongType, &site.key("default"), format!("the default is not {wanted}"), "");
        }
        let Some(allowed) = &param.allowed else { continue };
        let site_allowed = site.key("enum");
        if allowed.is_empty() {
            report.push(Code::SpecWrongType, &site_allowed, "no value is allowed", "list some, or remove the key");
        }
        for (index, value) in allowed.iter().enumerate().filter(|(_, value)| !is_of(value, param.param_type)) {
            let message = format!("item {} is not {wanted}", index + 1);
            let hint = if value.is_string() { "" } else { "put it in quotes if it is meant as text" };
            report.push(Code::SpecWrongType, &site_allowed.index(index), message, hint);
        }
        if param.default.as_ref().is_some_and(|default| !allowed.is_empty() && !allowed.contains(default)) {
            let message = "the default is not among the allowed values";
            report.push(Code::SpecConflict, &site.key("default"), message, "add it to `enum`, or choose one of those");
        }
    }
}

/// Reports the binds that are neither a parameter nor the interval's.
pub(super) fn check_binds<'a>(
    binds: impl IntoIterator<Item = &'a String>,
    params: &BTreeMap<Name, Param>,
    site: &Site<'_>,
    report: &mut Report,
) {
    let known = params.keys().map(Name::as_str).chain(INTERVAL_BINDS);
    for bind in binds.into_iter().filter(|bind| !known.clone().any(|known| known == bind.as_str())) {
        let message = format!("the bind ${} is not a parameter", bind.chars().take(60).collect::<String>());
        let hint = format!("{}, or define it under `params`", did_you_mean(bind, known.clone()));
        report.push(Code::SpecUnknownReference, site, message, hint);
    }
}

/// Returns what a probe takes for a bind of the interval: wide enough for all data, and finite, for a query may compute
/// with it.
pub(super) fn widest_interval(bind: &str) -> &'static str {
    if bind == INTERVAL_BINDS[0] { "1900-01-01T00:00:00Z" } else { "2100-01-01T00:00:00Z" }
}

/// Returns a value as text.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Tells whether a value is one of this type.
fn is_of(value: &Value, param_type: ParamType) -> bool {
    match param_type {
        ParamType::String => value.is_string(),
        ParamType::Integer => value.is_i64(),
        ParamType::Number => value.is_number(),
        ParamType::Boolean => value.is_boolean(),
        ParamType::Date => value.as_str().is_some_and(is_date),
        ParamType::Timestamp => value.as_str().is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok()),
    }
}

/// Tells whether a text is a day of the calendar, `YYYY-MM-DD`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

fn describe(param_type: ParamType) -> &'static str {
    match param_type {
        ParamType::String => "text",
        ParamType::Integer => "a whole number",
        ParamType::Number => "a number",
        ParamType::Boolean => "true or false",
        ParamType::Date => "a date like 2013-01-31",
        ParamType::Timestamp => "a timestamp like 2013-01-31T10:00:00Z",
    }
}
