//! The description says what there is, and nothing else.

use std::collections::BTreeSet;

use dagwright_model::code::Code;
use serde_json::Value;

use crate::http::{ROUTES, SIGNED_ROUTES, openapi};

/// Calls `visit` with every value in a document.
fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Object(members) => members.values().for_each(|member| walk(member, visit)),
        _ => {}
    }
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let document = openapi::document();
    let paths = document["paths"].as_object().expect("paths");
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(move |(method, _)| (path.clone(), method.clone()))
        })
        .collect();
    let there: BTreeSet<_> =
        ROUTES.iter().chain(SIGNED_ROUTES).map(|(path, method)| ((*path).to_owned(), (*method).to_owned())).collect();
    assert_eq!(described, there);
}

#[test]
fn every_error_is_one() {
    let mut told = BTreeSet::new();
    walk(&openapi::document()["paths"], &mut |value| {
        let Some(description) = value["description"].as_str() else { return };
        told.extend(
            description.match_indices("DW0").map(|(at, _)| description[at..].chars().take(6).collect::<String>()),
        );
    });
    assert!(told.len() > 5, "{told:?}");
    for code in told {
        assert!(Code::try_from(code.clone()).is_ok(), "{code}");
    }
}

#[test]
fn every_answer_that_is_an_error_has_problem_details() {
    let document = openapi::document();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let responses = operation["responses"].as_object().expect("responses");
            for wanted in ["401", "403", "429", "500"] {
                assert!(responses.contains_key(wanted), "{method} {path} does not tell of {wanted}");
            }
            for (status, mut response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                if let Some(shared) = response["$ref"].as_str() {
                    response = document.pointer(&shared[1..]).expect("a shared response");
                }
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Details", "{method} {path} {status}");
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = openapi::document();
    walk(&document, &mut |value| {
        let Some(reference) = value["$ref"].as_str() else { return };
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    });
    assert_eq!(document["openapi"], "3.1.0");
}
