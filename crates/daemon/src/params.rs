//! The parameters of a run: given as `name=value`, typed by the spec, defaults filled in.

use std::collections::BTreeMap;

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
    let mut values = BTreeMap::new();
    let mut wrong = Vec::new();
    for text in given {
        match parse(declared, text) {
            Ok((name, value)) => {
                values.insert(name, value);
            }
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    for (name, param) in declared {
        if values.contains_key(name) {
            continue;
        }
        match &param.default {
            Some(default) => {
                values.insert(name.clone(), default.clone());
            }
            None if given.iter().any(|text| text.split('=').next() == Some(name.as_str())) => {}
            None => wrong.push(diagnostic(
                Code::SpecMissingKey,
                name.as_str(),
                format!("parameter {name} has no default and was not given"),
                format!("add --param {name}=…"),
            )),
        }
    }
    if wrong.is_empty() { Ok(values) } else { Err(Diagnostics(wrong)) }
}

fn parse(declared: &BTreeMap<Name, Param>, text: &str) -> Result<(Name, Value), Diagnostic> {
    let malformed = || {
        let message = format!("{text:?} is not name=value");
        diagnostic(Code::SpecWrongType, "", message, "write --param region=eu".into())
    };
    let (name, value) = text.split_once('=').ok_or_else(malformed)?;
    let Some((name, param)) = declared.get_key_value(name) else {
        let known = declared.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let hint = if known.is_empty() { "the spec declares none".into() } else { format!("known are {known}") };
        return Err(diagnostic(Code::SpecUnknownReference, name, format!("no parameter {name:?}"), hint));
    };
    let wanted = wanted(param.param_type);
    let value = typed(param.param_type, value).ok_or_else(|| {
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
    fn values_are_typed_checked_and_defaulted() {
        check(&[], Ok(json!({ "region": "eu", "limit": 10 })));
        check(&["region=us", "limit=-3"], Ok(json!({ "region": "us", "limit": -3 })));
        check(&["region=mars", "limit=many", "regoin=eu", "x"], Err(4));
    }
}
