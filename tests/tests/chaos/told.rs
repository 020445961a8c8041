//! What was told of requests, and that it was told once.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_tests::{events, kafka::Record};
use serde_json::Value;

use crate::load::Load;

/// How many requests are named when something is wrong with many.
const SHOWN_MAX: usize = 20;

/// What is asked of whoever acts for a pipeline stands in the ledger's topic too, under these names.
const ASKS: [&str; 3] = ["take_on", "cancel", "decide"];

/// Everything that was told.
#[derive(Default)]
pub(crate) struct Told {
    events: Vec<Event>,
    ended: BTreeSet<String>,
}

struct Event {
    id: String,
    request: String,
    pipeline: String,
    what: String,
    task: String,
}

// === impl Told ===

impl Told {
    /// Takes in events as they stand in their topic.
    pub(crate) fn take(&mut self, records: &[Record]) {
        for record in records {
            let event = serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON");
            events::check(&event);
            self.hear(&event);
        }
    }

    /// Takes in an event.
    pub(crate) fn hear(&mut self, event: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let data = &event["data"];
        let event = Event {
            id: text(&event["id"]),
            request: text(&data["request_id"]),
            pipeline: text(&data["pipeline"]),
            what: text(&event["type"]).trim_start_matches("dev.dagwright.").trim_end_matches(".v1").to_owned(),
            task: format!("{}/{}", data["task_id"], data["map_index"]),
        };
        assert!(!event.id.is_empty() && !event.request.is_empty() && !event.pipeline.is_empty(), "{data}");
        if event.is_end() {
            self.ended.insert(event.request.clone());
        }
        self.events.push(event);
    }

    /// Returns how many requests have ended.
    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Says which requests began and have not ended, and what was told of them last.
    pub(crate) fn open(&self) -> String {
        let mut last = BTreeMap::new();
        for event in self.events.iter().filter(|event| !self.ended.contains(&event.request)) {
            last.insert(&event.request, format!("{} {}: {}", event.request, event.pipeline, event.what));
        }
        let count = last.len();
        let shown: Vec<_> = last.into_values().take(SHOWN_MAX).collect();
        format!("{count} requests are open: {shown:#?}")
    }

    /// Forgets repeats: events whose id came before.
    pub(crate) fn forget_repeats(&mut self) {
        let mut ids = BTreeSet::new();
        self.events.retain(|event| ids.insert(event.id.clone()));
    }

    /// Asserts that each request was told of once: accepted, run, its tasks done, and ended well; and no other.
    #[track_caller]
    pub(crate) fn assert_once(&self, load: &Load) {
        let mut ids = BTreeSet::new();
        let twice: Vec<_> = self.events.iter().filter(|event| !ids.insert(&event.id)).map(|event| &event.id).collect();
        assert!(twice.is_empty(), "told twice: {twice:?}");
        let mut counts: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
        let mut pipelines: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for event in &self.events {
            pipelines.entry(event.pipeline.clone()).or_default().insert(&event.request);
            let what = match event.what.as_str() {
                "task.succeeded" => format!("task.succeeded {}", event.task),
                // A try that its engine did not outlive is made again.
                "task.started" | "task.failed" | "dag.compiled" => continue,
                other => other.to_owned(),
            };
            *counts.entry(&event.request).or_default().entry(what).or_default() += 1;
        }
        let found: BTreeMap<String, usize> =
            pipelines.into_iter().map(|(pipeline, requests)| (pipeline, requests.len())).collect();
        assert_eq!(found, load.by_pipeline(), "requests by pipeline");
        let wanted = ["plan.sealed", "request.accepted", "run.started", "run.succeeded"];
        let is_wrong = |counts: &BTreeMap<String, usize>| {
            let others = counts.keys().filter(|what| !what.starts_with("task.succeeded"));
            !others.eq(wanted) || counts.len() == wanted.len() || counts.values().any(|count| *count != 1)
        };
        let wrong: Vec<_> = counts.iter().filter(|(_, counts)| is_wrong(counts)).take(SHOWN_MAX).collect();
        assert!(wrong.is_empty(), "not told once: {wrong:#?}");
    }
}

// === impl Event ===

impl Event {
    fn is_end(&self) -> bool {
        let ends = ["run.succeeded", "run.failed", "run.cancelled", "request.rejected", "plan.deadlocked"];
        ends.contains(&self.what.as_str())
    }
}

/// Asserts that the ledger's topic has every record of a request once, without a gap; unless one may be repeated at once.
#[track_caller]
pub(crate) fn assert_ledger(records: &[Record], requests: usize, may_repeat: bool) {
    let mut logs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
        let (request, sequence) = key.rsplit_once('/').expect("request/sequence");
        if ASKS.contains(&sequence) {
            continue;
        }
        logs.entry(request.to_owned()).or_default().push(sequence.parse().expect("a number"));
    }
    assert_eq!(logs.len(), requests, "requests in the ledger");
    for (request, mut sequences) in logs {
        if may_repeat {
            sequences.dedup();
        }
        let wanted: Vec<_> = (0..u64::try_from(sequences.len()).expect("a count")).collect();
        assert_eq!(sequences, wanted, "the records of {request}, in the order of their offsets");
    }
}
