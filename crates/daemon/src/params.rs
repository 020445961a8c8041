//! The parameters of a run: given as `name=value` or as JSON, typed by the spec, defaults filled in.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate};
use dagwright_model::{
    code::Code,
    id::Name,
    spec::{Diagnostic, Diagnostics, Param, ParamType},
};
use serde_json::Value;

/// Reads `given` as the spec's parameters want it.
///
/// # Errors
/// Every diagnostic at once: unknown names, values of another type or outside of `enum`, values that are missing.
pub(crate) fn resolve(
    declared: &BTreeMap<Name, Param>,
    given: &[String],
) -> Result<BTreeMap<Name, Value>, Diagnostics> {
    let given = given.iter().map(|text| match text.split_once('=') {
        Some((name, value)) => Ok((name, value)),
        None => {
            let message = format!("{text:?} is not name=value");
            Err(diagnostic(Code::SpecWrongType, "", message, "write --param region=eu".into()))
        }
    });
    fill(declared, given, typed)
}

/// Reads `given`, already JSON, as the spec's parameters want it.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn resolve_json(
    declared: &BTreeMap<Name, Param>,
    given: &BTreeMap<Name, Value>,
) -> Result<BTreeMap<Name, Value>, Diagnostics> {
    let fits = |param_type, value: &Value| match (param_type, value) {
        (ParamType::String | ParamType::Date | ParamType::Timestamp, Value::String(text)) => typed(param_type, text),
        (ParamType::Boolean, Value::Bool(_)) => Some(value.clone()),
        (ParamType::Integer, Value::Number(number)) if number.is_i64() => Some(value.clone()),
        (ParamType::Number, Value::Number(number)) => number.as_f64().map(Into::into),
        _ => None,
    };
    fill(declared, given.iter().map(|(name, value)| Ok((name.as_str(), value))), fits)
}

/// Checks every value that is given, and adds the defaults of those that are not.
fn fill<'a, T>(
    declared: &BTreeMap<Name, Param>,
    given: impl Iterator<Item = Result<(&'a str, T), Diagnostic>>,
    typed: impl Fn(ParamType, T) -> Option<Value>,
) -> Result<BTreeMap<Name, Value>, Diagnostics> {
    let (mut values, mut named, mut wrong) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for given in given {
        let checked = given.and_then(|(name, value)| {
            named.insert(name.to_owned());
            check(declared, name, |param_type| typed(param_type, value))
        });
        match checked {
            Ok((name, value)) => {
                values.insert(name, value);
            }
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    for (name, param) in declared.iter().filter(|(name, _)| !named.contains(name.as_str())) {
        match &param.default {
            Some(default) => {
                values.insert(name.clone(), default.clone());
            }
            None => wrong.push(diagnostic(
                Code::SpecMissingKey,
                name.as_str(),
                format!("parameter {name} has no default and was not given"),
                format!("give it: --param {name}=…, or run.params.{name} of a request"),
            )),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(Diagnostics(wrong)) }
}

fn check(
    declared: &BTreeMap<Name, Param>,
    name: &str,
    typed: impl FnOnce(ParamType) -> Option<Value>,
) -> Result<(Name, Value), Diagnostic> {
    let Some((name, param)) = declared.get_key_value(name) else {
        let known = declared.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let hint = if known.is_empty() { "the spec declares none".into() } else { format!("known are {known}") };
        return Err(diagnostic(Code::SpecUnknownReference, name, format!("no parameter {name:?}"), hint));
    };
    let wanted = wanted(param.param_type);
    let value = typed(param.param_type).ok_or_else(|| {
        diagnostic(Code::SpecWrongType, name.as_str(), format!("parameter {name} is not {wanted}"), String::new())
    })?;
    match &param.allowed {
        Some(allowed) if !allowed.contains(&value) => {
            let hint =
                format!("allowed are {}", allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
            Err(diagnostic(
                Code::SpecWrongType,
                name.as_str(),
                format!("parameter {name} has a value that is not allowed"),
                hint,
            ))
        }
        _ => Ok((name.clone(), value)),
    }
}

fn typed(param_type: ParamType, text: &str) -> Option<Value> {
    match param_type {
        ParamType::String => Some(text.into()),
        ParamType::Integer => text.parse::<i64>().ok().map(Into::into),
        ParamType::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Into::into),
        ParamType::Boolean => text.parse::<bool>().ok().map(Into::into),
        ParamType::Date => text.parse::<NaiveDate>().ok().map(|_| text.into()),
        ParamType::Timestamp => DateTime::parse_from_rfc3339(text).ok().map(|_| text.into()),
    }
}

fn wanted(param_type: ParamType) -> &'static str {
    match param_type {
        ParamType::String => "a text",
        ParamType::Integer => "a whole number",
        ParamType::Number => "a number",
        ParamType::Boolean => "true or false",
        ParamType::Date => "a date like 2013-01-31",
        ParamType::Timestamp => "an instant like 2013-01-31T12:00:00Z",
    }
}

fn diagnostic(code: Code, name: &str, message: String, hint: String) -> Diagnostic {
    let path = if name.is_empty() { "params".into() } else { format!("params.{name}") };
    Diagnostic { code, path, line: None, message, hint }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dagwright_model::spec::Param;
    use serde_json::json;

    #[track_caller]
    fn check(given: &[&str], wanted: Result<serde_json::Value, usize>) {
        let declared: BTreeMap<_, Param> = serde_json::from_value(json!({
            "region": { "type": "string", "default": "eu", "enum": ["eu", "us"] },
            "limit": { "type": "integer", "default": 10 },
        }))
        .unwrap();
        let given: Vec<_> = given.iter().map(ToString::to_string).collect();
        let found = super::resolve(&declared, &given);
        let found = found.map(|values| serde_json::to_value(values).unwrap()).map_err(|wrong| wrong.0.len());
        assert_eq!(found, wanted, "{given:?}");
    }

    #[test]
    fn json_is_taken_as_it_is_or_refused() {
        let declared: BTreeMap<_, Param> = serde_json::from_value(json!({
            "day": { "type": "date", "default": "2013-01-01" },
            "limit": { "type": "integer" },
        }))
        .unwrap();
        let found = |given| super::resolve_json(&declared, &serde_json::from_value(given).unwrap());
        assert_eq!(json!(found(json!({ "limit": 3 })).unwrap()), json!({ "day": "2013-01-01", "limit": 3 }));
        for bad in [json!({}), json!({ "limit": "3" }), json!({ "limit": 1.5 }), json!({ "limit": 1, "day": "today" })]
        {
            assert_eq!(found(bad.clone()).unwrap_err().0.len(), 1, "{bad}");
        }
    }

    #[test]
    fn values_are_typed_checked_and_defaulted() {
        check(&[], Ok(json!({ "region": "eu", "limit": 10 })));
        check(&["region=us", "limit=-3"], Ok(json!({ "region": "us", "limit": -3 })));
        check(&["region=mars", "limit=many", "regoin=eu", "x"], Err(4));
    }
}
