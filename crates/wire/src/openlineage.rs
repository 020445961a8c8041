//! Runs as OpenLineage tells them: run events (spec 2-0-2) with the lineage of columns that the plan's SQL has.
//!
//! | module | what it is |
//! |---|---|
//! | `dataset` | what sources and sinks are called |
//! | `columns` | which column is made from which |
//! | `facet` | facets, and the schemas that they follow |
//!
//! A run has one event when it starts and one when it ends, both with the same [`run_id`], which follows from the request: an
//! event that is told again is the same event. What is not known any more is left out: an event then says less and stays true.
//!
//! Deliberately absent: rows, values of the data and credentials. The text of a step is told where it is the only one.

mod columns;
mod dataset;
mod facet;

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use dagwright_model::{
    canonical,
    event::EventKind,
    facts::TypedStep,
    id::{Name, RequestId},
    message::Fact,
    plan::Plan,
    record::{Record, RecordBody},
    schema::Column,
    spec::Interval,
    task::{Counts, Input, Move, Output, Problem, SinkWrite, SourceRead, Work},
};
use serde_json::{Value, json};

use self::{
    dataset::{Dataset, Place},
    facet::{Facets, PRODUCER},
};

/// The content type of an event.
pub const MEDIA_TYPE: &str = "application/json";

/// The schema that events follow.
const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

/// Our version, that of the engine.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The digits of a UUID, without hyphens.
const UUID_DIGITS: usize = 32;

/// Where the hyphens of a UUID are, in its digits.
const UUID_GROUPS: [std::ops::Range<usize>; 5] = [0..8, 8..12, 12..16, 16..20, 20..32];

/// What happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It started.
    Start,
    /// It did its work.
    Complete,
    /// It did not.
    Fail,
    /// It was told to stop.
    Abort,
}

/// What is known of a run when something happened to it.
#[derive(Clone, Copy, Debug)]
pub struct RunEvent<'a> {
    /// The namespace of jobs.
    pub namespace: &'a str,
    /// What happened.
    pub transition: Transition,
    /// When.
    pub at: DateTime<Utc>,
    /// The request whose run it is.
    pub request: &'a RequestId,
    /// The pipeline's `dag_id`, which names the job.
    pub pipeline: &'a str,
    /// The folder that relative paths start from.
    pub base: Option<&'a str>,
    /// The data interval, if the run has one.
    pub interval: Option<&'a Interval>,
    /// What ran; without it nothing is said of data.
    pub plan: Option<&'a Plan>,
    /// What was found when the plan was made.
    pub known: &'a Known,
    /// What was counted.
    pub counts: Option<&'a Counts>,
    /// Why it failed.
    pub problem: Option<&'a Problem>,
}

/// What was found of sources and steps when a plan was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The columns of each source.
    sources: BTreeMap<Name, Vec<Column>>,
    /// The steps, with the source columns that theirs are made from.
    steps: BTreeMap<Name, TypedStep>,
}

/// What flows where: each source and sink once, however many tasks touch it.
#[derive(Default)]
struct Flow<'a> {
    sources: Vec<(&'a Name, &'a SourceRead)>,
    sinks: Vec<&'a SinkWrite>,
    /// The text of the only step; `None` where there are more or none.
    sql: Option<&'a str>,
}

/// What is told of a dataset that is read.
#[derive(Default)]
struct Read {
    columns: Vec<Column>,
    /// Rows and bytes, where they were counted.
    counted: Option<(u64, u64)>,
}

// === impl Transition ===

impl Transition {
    /// Returns what an event of ours tells of a run, if it does.
    #[must_use]
    pub fn of(kind: EventKind) -> Option<Self> {
        match kind {
            EventKind::RunStarted => Some(Self::Start),
            EventKind::RunSucceeded => Some(Self::Complete),
            EventKind::RunFailed => Some(Self::Fail),
            EventKind::RunCancelled => Some(Self::Abort),
            EventKind::RequestAccepted
            | EventKind::RequestRejected
            | EventKind::PlanSealed
            | EventKind::PlanDeadlocked
            | EventKind::ApprovalNeeded
            | EventKind::DagCompiled
            | EventKind::DagDeployed
            | EventKind::DagRemoved
            | EventKind::TaskStarted
            | EventKind::TaskSucceeded
            | EventKind::TaskFailed
            | EventKind::RemedyApplied => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Fail => "FAIL",
            Self::Abort => "ABORT",
        }
    }
}

// === impl Known ===

impl Known {
    /// Collects what the records of a request say was found; what was found later counts.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut known = Self::default();
        for record in records {
            let RecordBody::FactRecorded(recorded) = &record.body else { continue };
            match &recorded.observation.fact {
                Fact::Source(profile) => {
                    let columns = profile.columns.iter().map(|profile| profile.column.clone()).collect();
                    known.sources.insert(profile.source.clone(), columns);
                }
                Fact::Typing(typing) => {
                    known.steps.extend(typing.steps.iter().map(|step| (step.name.clone(), step.clone())));
                }
                Fact::Sink(_) | Fact::Unavailable(_) => {}
            }
        }
        known
    }
}

// === impl RunEvent ===

impl RunEvent<'_> {
    /// Renders the event.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let flow = self.plan.map(Flow::of).unwrap_or_default();
        json!({
            "eventType": self.transition.as_str(),
            "eventTime": time_text(self.at),
            "run": { "runId": run_id(self.request), "facets": self.run_facets() },
            "job": { "namespace": self.namespace, "name": self.pipeline, "facets": self.job_facets(&flow) },
            "inputs": self.inputs(&flow),
            "outputs": self.outputs(&flow),
            "producer": PRODUCER,
            "schemaURL": SCHEMA,
        })
    }

    fn run_facets(&self) -> Value {
        let mut facets = Facets::default();
        let engine = json!({ "name": "Dagwright", "version": VERSION, "openlineageAdapterVersion": VERSION });
        facets.add(facet::PROCESSING_ENGINE, engine);
        if let Some(start) = self.interval.and_then(|interval| instant(&interval.start)) {
            let mut nominal = json!({ "nominalStartTime": time_text(start) });
            if let Some(end) = self.interval.and_then(|interval| instant(&interval.end)) {
                nominal["nominalEndTime"] = time_text(end).into();
            }
            facets.add(facet::NOMINAL_TIME, nominal);
        }
        if let Some(problem) = self.problem {
            let message = format!("{problem} ({})", problem.subject);
            facets.add(facet::ERROR_MESSAGE, json!({ "message": message, "programmingLanguage": "Rust" }));
        }
        facets.into()
    }

    fn job_facets(&self, flow: &Flow<'_>) -> Value {
        let mut facets = Facets::default();
        let kind = json!({ "processingType": "BATCH", "integration": "DAGWRIGHT", "jobType": "PIPELINE" });
        facets.add(facet::JOB_TYPE, kind);
        if let Some(description) = self.plan.and_then(|plan| plan.description.as_ref()) {
            facets.add(facet::DOCUMENTATION, json!({ "description": description, "contentType": "text/plain" }));
        }
        if let Some(owner) = self.plan.and_then(|plan| plan.owner.as_ref()) {
            facets.add(facet::OWNERSHIP, json!({ "owners": [{ "name": owner }] }));
        }
        if let Some(sql) = flow.sql {
            facets.add(facet::SQL, json!({ "query": sql, "dialect": "datafusion" }));
        }
        facets.into()
    }

    /// Tells of each dataset that is read once, also where several sources are the same.
    fn inputs(&self, flow: &Flow<'_>) -> Vec<Value> {
        let mut inputs: BTreeMap<Dataset, Read> = BTreeMap::new();
        for (source, read) in &flow.sources {
            let Read { columns, counted } = inputs.entry(self.source(source, read)).or_default();
            let found = self.known.sources.get(*source).unwrap_or(&read.columns);
            let is_new = |column: &&Column| !columns.iter().any(|known| known.name == column.name);
            let new: Vec<_> = found.iter().filter(is_new).cloned().collect();
            columns.extend(new);
            if let Some(counts) = self.counts.and_then(|counts| counts.sources.get(*source)) {
                let (rows, bytes) = counted.get_or_insert_default();
                *rows = rows.saturating_add(counts.read);
                *bytes = bytes.saturating_add(counts.bytes);
            }
        }
        let told = inputs.into_iter().map(|(dataset, Read { columns, counted })| {
            let mut facets = Facets::default();
            facets.add(facet::SCHEMA, schema(&columns));
            let mut input =
                json!({ "namespace": dataset.namespace, "name": dataset.name, "facets": Value::from(facets) });
            if let Some((rows, bytes)) = counted {
                let mut statistics = Facets::default();
                statistics.add(facet::INPUT_STATISTICS, json!({ "rowCount": rows, "size": bytes }));
                input["inputFacets"] = statistics.into();
            }
            input
        });
        told.collect()
    }

    fn outputs(&self, flow: &Flow<'_>) -> Vec<Value> {
        let told = flow.sinks.iter().map(|sink| {
            let dataset = Dataset::of(&sink.locator, &self.place(&sink.name));
            let mut facets = Facets::default();
            facets.add(facet::SCHEMA, schema(&sink.columns));
            if let Some(lineage) = self.column_lineage(flow, sink) {
                facets.add(facet::COLUMN_LINEAGE, lineage);
            }
            let mut output =
                json!({ "namespace": dataset.namespace, "name": dataset.name, "facets": Value::from(facets) });
            if let Some(counts) = self.counts.and_then(|counts| counts.sinks.get(&sink.name)) {
                let mut statistics = Facets::default();
                statistics.add(facet::OUTPUT_STATISTICS, json!({ "rowCount": counts.loaded, "size": counts.bytes }));
                output["outputFacets"] = statistics.into();
            }
            output
        });
        told.collect()
    }

    fn source(&self, source: &Name, read: &SourceRead) -> Dataset {
        Dataset::of(&read.locator, &self.place(source))
    }

    fn place<'a>(&'a self, subject: &'a Name) -> Place<'a> {
        let connections = self.plan.map(|plan| &plan.connections);
        Place { pipeline: self.pipeline, subject, base: self.base, connections }
    }
}

// === impl Flow ===

impl<'a> Flow<'a> {
    fn of(plan: &'a Plan) -> Self {
        let (mut flow, mut steps) = (Self::default(), BTreeMap::new());
        for task in &plan.tasks {
            match &task.spec.work {
                Work::Split(split) => flow.read(&split.source, &split.read),
                Work::Move(Move { inputs, steps: computed, outputs, .. }) => {
                    for (name, input) in inputs {
                        match input {
                            Input::Source(read) => flow.read(name, read),
                            Input::Staged { .. } => {}
                        }
                    }
                    steps.extend(computed.iter().map(|step| (&step.name, step.sql.as_str())));
                    for output in outputs {
                        match output {
                            Output::Sink(sink) => flow.write(sink),
                            Output::Staged { .. } => {}
                        }
                    }
                }
                Work::Publish(publish) => flow.write(&publish.sink),
                Work::Cleanup => {}
            }
        }
        flow.sql = if steps.len() == 1 { steps.into_values().next() } else { None };
        flow
    }

    fn read(&mut self, source: &'a Name, read: &'a SourceRead) {
        if !self.sources.iter().any(|(known, _)| *known == source) {
            self.sources.push((source, read));
        }
    }

    fn write(&mut self, sink: &'a SinkWrite) {
        if !self.sinks.iter().any(|known| known.name == sink.name) {
            self.sinks.push(sink);
        }
    }
}

/// Returns the UUID of a request's run, the same whenever it is asked for: a request's id is 128 bits already, or is hashed to
/// as many.
#[must_use]
pub fn run_id(request: &RequestId) -> String {
    let mut digits = request.0.replace('-', "").to_ascii_lowercase();
    if digits.len() != UUID_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        digits = canonical::hash(&("run", &request.0));
    }
    UUID_GROUPS.map(|group| digits.get(group).unwrap_or_default().to_owned()).join("-")
}

fn schema(columns: &[Column]) -> Value {
    let field = |(position, column): (usize, &Column)| json!({ "name": column.name, "type": column.data_type.to_string(), "ordinal_position": position });
    json!({ "fields": (1..).zip(columns).map(field).collect::<Vec<_>>() })
}

/// Reads an instant of an interval, or a day.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    let day = || Some(text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.to_utc()).or_else(day)
}

fn time_text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use dagwright_model::id::RequestId;

    use super::{instant, run_id, time_text};

    #[test]
    fn a_run_has_one_uuid() {
        let check = |request: &str, wanted: &str| assert_eq!(run_id(&RequestId(request.into())), wanted);
        check("0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef");
        check("01234567-89AB-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef");
        let other = run_id(&RequestId("a request of long ago".into()));
        assert_eq!((other.len(), run_id(&RequestId("a request of long ago".into()))), (36, other));
    }

    #[test]
    fn instants_are_told_in_utc() {
        let told = |text| instant(text).map(time_text);
        assert_eq!(told("2025-03-01T02:00:00+02:00").as_deref(), Some("2025-03-01T00:00:00.000Z"));
        assert_eq!(told("2025-03-01").as_deref(), Some("2025-03-01T00:00:00.000Z"));
        assert_eq!(told("yesterday"), None);
    }
}
