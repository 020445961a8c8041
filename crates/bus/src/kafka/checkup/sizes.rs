//! Whether what one part takes is no longer than the next part takes.

use std::collections::BTreeMap;

use dagwright_model::{code::Code, task::Problem};

use super::{Finding, topics::Config};
use crate::kafka::{Settings, Topics};

/// How long what a producer sends may be unless somebody says otherwise.
const PRODUCERS_BYTES_MAX: usize = 1_000_000;

/// Compares what HTTP takes, what our producers send, and what the topics take.
pub(super) fn lengths(
    settings: &Settings,
    topics: &Topics,
    configs: &BTreeMap<String, Config>,
    body_bytes_max: usize,
) -> Vec<Finding> {
    let taken = |name: &String| configs.get(name)?.get("max.message.bytes")?.parse::<usize>().ok();
    let producer = settings.producer("doctor");
    let sent = producer.get("message.max.bytes").and_then(|text| text.parse().ok()).unwrap_or(PRODUCERS_BYTES_MAX);
    let Some(requests) = taken(&topics.requests) else { return Vec::new() };
    let what = "message sizes";
    let doubtful = |subject: &str, message: String, hint: String| {
        let problem = Problem { code: Code::RequestTooLarge, subject: subject.into(), message, hint };
        Finding::doubtful(what, problem)
    };
    let mut findings = Vec::new();
    // What is made of a request is longer than the request.
    for (name, made) in [(&topics.ledger, "accepted"), (&topics.dead_letters, "kept as a dead letter as a whole")] {
        if let Some(taken) = taken(name).filter(|taken| *taken < requests) {
            let message = format!("takes {taken} bytes, and requests may have {requests}: a long one cannot be {made}");
            findings.push(doubtful(name, message, format!("set its max.message.bytes to {requests} or more")));
        }
    }
    let smallest = requests.min(sent);
    if body_bytes_max > smallest {
        let message = format!(
            "HTTP takes bodies of {body_bytes_max} bytes, and only {smallest} can be handed on through Kafka: longer ones \
             are refused with DW0802"
        );
        let hint = if sent < requests {
            "raise `kafka.properties.message.max.bytes`, or lower `http.body_max`".into()
        } else {
            format!(
                "raise max.message.bytes of {}, {} and {}, or lower `http.body_max`",
                topics.requests, topics.ledger, topics.dead_letters
            )
        };
        findings.push(doubtful("http.body_max", message, hint));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(what, format!("requests may have {smallest} bytes")));
    }
    findings
}
