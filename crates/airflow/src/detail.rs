//! Reads what Airflow says of an error: problem details (v1), `{"detail": …}` in three shapes (v2), text, or HTML.

use serde_json::Value;

/// The longest text that is quoted, in characters: a 422 lists each key that it does not like.
const DETAIL_CHARS_MAX: usize = 1000;

/// How many complaints of a 422 are told.
const COMPLAINTS_MAX: usize = 8;

/// Returns what an error's body says in one line, or that it says nothing. `secret` does not stand in it.
pub(crate) fn detail(body: &[u8], secret: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_str(&text) {
        Ok(value) => of_json(&value),
        Err(_) if text.trim_start().starts_with('<') => Some("a page of HTML".to_owned()),
        Err(_) => Some(text.into_owned()),
    };
    tidy(&said.unwrap_or_default(), secret)
}

/// Tells whether a 404 says that there is no such endpoint, and not that there is no such thing: Airflow 3 of an endpoint of
/// Airflow 2, Airflow 2 of one of Airflow 3, a proxy of either.
pub(crate) fn is_of_the_endpoint(body: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => match object.get("detail") {
            Some(detail) => detail == "Not Found" && !object.contains_key("title"),
            None => !object.contains_key("title"),
        },
        Ok(_) | Err(_) => true,
    }
}

/// Makes one bounded line of a text, without control characters and without `secret`.
pub(crate) fn tidy(text: &str, secret: &str) -> String {
    let text = if secret.is_empty() { text.to_owned() } else { text.replace(secret, "…") };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if line.len() > DETAIL_CHARS_MAX {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(DETAIL_CHARS_MAX));
    }
    if line.chars().count() > DETAIL_CHARS_MAX {
        line = line.chars().take(DETAIL_CHARS_MAX).chain(['…']).collect();
    }
    if line.is_empty() { "it does not say why".to_owned() } else { line }
}

fn of_json(value: &Value) -> Option<String> {
    let Some(object) = value.as_object() else { return value.as_str().map(ToOwned::to_owned) };
    let title = object.get("title").and_then(Value::as_str);
    match (title, object.get("detail")) {
        (Some(title), Some(Value::String(detail))) => Some(format!("{title}: {detail}")),
        (_, Some(Value::String(detail))) => Some(detail.clone()),
        (_, Some(Value::Array(complaints))) => {
            Some(complaints.iter().take(COMPLAINTS_MAX).map(complaint).collect::<Vec<_>>().join("; "))
        }
        (_, Some(Value::Object(detail))) => {
            let told = ["reason", "message"].iter().filter_map(|key| detail.get(*key)?.as_str());
            Some(told.collect::<Vec<_>>().join(": "))
        }
        (title, _) => title.or(object.get("error").and_then(Value::as_str)).map(ToOwned::to_owned),
    }
}

/// `{"loc": ["body", "logical_date"], "msg": "Field required", …}`; what was sent (`input`) is nobody's business.
fn complaint(value: &Value) -> String {
    let place = value.get("loc").and_then(Value::as_array).into_iter().flatten();
    let place: Vec<_> = place.map(|part| part.as_str().map_or_else(|| part.to_string(), ToOwned::to_owned)).collect();
    let message = value.get("msg").and_then(Value::as_str).or_else(|| value.as_str()).unwrap_or("not valid");
    if place.is_empty() { message.to_owned() } else { format!("{}: {message}", place.join(".")) }
}

#[cfg(test)]
mod tests {
    use super::{DETAIL_CHARS_MAX, detail, is_of_the_endpoint};

    #[track_caller]
    fn check(body: &str, told: &str) {
        assert_eq!(detail(body.as_bytes(), "hunter2"), told, "{body}");
    }

    #[test]
    fn every_shape_of_an_error_is_read() {
        check(r#"{"detail": "Not Found"}"#, "Not Found");
        check(
            r#"{"detail": "DAG \"x\" not found", "status": 404, "title": "DAG not found", "type": "…"}"#,
            "DAG not found: DAG \"x\" not found",
        );
        check(r#"{"detail": null, "status": 404, "title": "Not Found"}"#, "Not Found");
        check(
            r#"{"detail": [{"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": {"a": "secret"}},
                {"type": "extra_forbidden", "loc": ["body", 3], "msg": "Extra inputs are not permitted"}]}"#,
            "body.logical_date: Field required; body.3: Extra inputs are not permitted",
        );
        check(
            r#"{"detail": {"reason": "Unique constraint violation", "statement": "hidden", "orig_error": "hidden", "message": "Serious error"}}"#,
            "Unique constraint violation: Serious error",
        );
        check(r#"{"error": "API route not found"}"#, "API route not found");
        check(r#""plain""#, "plain");
        check("Bad\r\nGateway\u{1b}[0m", "Bad Gateway [0m");
        check("<!doctype html><p>no", "a page of HTML");
        for nothing in ["", "{}", "[]", "null", r#"{"detail": {}}"#, r#"{"detail": []}"#, r#"{"detail": 7}"#] {
            check(nothing, "it does not say why");
        }
    }

    #[test]
    fn missing_endpoints_are_told_from_missing_things() {
        for endpoint in [r#"{"error": "API route not found"}"#, r#"{"detail": "Not Found"}"#, "<html>", "", "no"] {
            assert!(is_of_the_endpoint(endpoint.as_bytes()), "{endpoint}");
        }
        for thing in [
            r#"{"detail": "The Dag with ID: `x` was not found"}"#,
            r#"{"detail": null, "status": 404, "title": "XCom entry not found", "type": "x"}"#,
        ] {
            assert!(!is_of_the_endpoint(thing.as_bytes()), "{thing}");
        }
    }

    #[test]
    fn secrets_and_floods_are_left_out() {
        check(r#"{"detail": "token hunter2 is not valid"}"#, "token … is not valid");
        for flood in ["x".repeat(1 << 20), "x ".repeat(1 << 19)] {
            assert!(detail(flood.as_bytes(), "").chars().count() <= DETAIL_CHARS_MAX + 1);
        }
    }
}
