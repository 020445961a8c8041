//! Run events are what OpenLineage's published schemas demand, and say what the plan says.
//!
//! `DAGWRIGHT_BLESS=1 cargo test -p dagwright-wire --test outside openlineage` writes the golden events anew. The schemas are
//! those of `tests/data/openlineage`.

mod schemas;

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use chrono::DateTime;
use dagwright_model::{
    canonical,
    code::Code,
    id::RequestId,
    message::{Fact, Observation, Origin},
    plan::Plan,
    record::{FactRecorded, Record, RecordBody},
    spec::Interval,
    task::{Counts, Problem, SinkCounts, SourceCounts},
};
use dagwright_wire::openlineage::{Known, RunEvent, Transition};
use serde::Deserialize;
use serde_json::Value;

use self::schemas::conforms;

/// The version in golden events.
const VERSION: &str = "VERSION";

/// A run: what `run.json` holds.
#[derive(Deserialize)]
struct Run {
    plan: Plan,
    facts: Vec<Fact>,
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "outside", "openlineage"].iter().collect()
}

fn run() -> Run {
    let text = fs::read_to_string(folder().join("run.json")).expect("run.json");
    serde_json::from_str(&text).expect("a run")
}

fn known(run: &Run) -> Known {
    let record = |fact: &Fact| {
        let observation = Observation { fact: fact.clone(), origin: Origin::default() };
        let body = RecordBody::FactRecorded(Box::new(FactRecorded { key: "k".into(), observation }));
        Record { request: RequestId("r".into()), sequence: 1, at: 0, body }
    };
    let records: Vec<_> = run.facts.iter().map(record).collect();
    Known::of(&records)
}

fn counts() -> Counts {
    let source = |read, bytes| SourceCounts { read, passed: read, bytes, ..SourceCounts::default() };
    let sink = |loaded, bytes| SinkCounts { produced: loaded, loaded, bytes, ..SinkCounts::default() };
    let name = |name: &str| name.parse().expect("a name");
    Counts {
        sources: BTreeMap::from([(name("flights"), source(27_004, 2_475_605)), (name("airlines"), source(16, 386))]),
        sinks: BTreeMap::from([(name("warehouse"), sink(27_000, 4_951_210)), (name("mirror"), sink(16, 1_024))]),
        ..Counts::default()
    }
}

/// Holds an event to its golden file and to the schemas.
#[track_caller]
fn check(golden: &str, event: &RunEvent<'_>) -> Value {
    let told = event.to_json();
    conforms(&told);
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    let text = format!("{}\n", canonical::to_pretty(&told).trim_end()).replace(&version, &format!("{VERSION:?}"));
    let path = folder().join(golden);
    if env::var_os("DAGWRIGHT_BLESS").is_some() {
        fs::write(&path, &text).expect("written");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, wanted, "{golden}");
    told
}

/// Returns the columns that a column of an output is made from, as `name.field subtype`.
fn origins(event: &Value, output: usize, column: &str) -> Vec<String> {
    let fields = &event["outputs"][output]["facets"]["columnLineage"]["fields"][column]["inputFields"];
    let text = |field: &Value| {
        let how = &field["transformations"][0];
        let masked = if how["masking"] == true { " masked" } else { "" };
        let (name, field) = (field["name"].as_str().expect("a name"), field["field"].as_str().expect("a field"));
        let file = name.rsplit('/').next().unwrap_or(name);
        format!("{file}.{field} {}{masked}", how["subtype"].as_str().expect("a subtype"))
    };
    fields.as_array().map(|fields| fields.iter().map(text).collect()).unwrap_or_default()
}

#[test]
fn a_run_is_told_from_its_start_to_its_end() {
    let run = run();
    let (known, request, counts) = (known(&run), RequestId::derive("p", "/s", "1"), counts());
    let interval = Interval { start: "2025-01-01".into(), end: "2025-01-02T01:00:00+01:00".into() };
    let problem = Problem {
        code: Code::SinkUnreachable,
        subject: "warehouse".into(),
        message: "the connection was refused".into(),
        hint: "start it".into(),
    };
    let start = RunEvent {
        namespace: "dagwright",
        transition: Transition::Start,
        at: DateTime::from_timestamp_millis(1_735_700_400_125).expect("a time"),
        request: &request,
        pipeline: &run.plan.dag_id,
        base: Some("/srv/pipelines/examples"),
        interval: Some(&interval),
        plan: Some(&run.plan),
        known: &known,
        counts: None,
        problem: None,
    };
    let told = check("start.json", &start);
    assert_eq!(origins(&told, 0, "carrier"), ["flights*.csv.carrier IDENTITY"]);
    assert_eq!(origins(&told, 0, "tailnum"), ["flights*.csv.tailnum TRANSFORMATION masked"]);
    // An outer join may make it NULL.
    assert_eq!(origins(&told, 0, "carrier_name"), ["airlines.csv.name TRANSFORMATION"]);
    assert_eq!(origins(&told, 0, "is_late"), [""; 0]);
    assert_eq!(origins(&told, 1, "name"), ["airlines.csv.name IDENTITY"]);

    let complete =
        check("complete.json", &RunEvent { transition: Transition::Complete, counts: Some(&counts), ..start });
    assert_eq!(complete["run"]["runId"], told["run"]["runId"]);
    check("fail.json", &RunEvent { transition: Transition::Fail, problem: Some(&problem), interval: None, ..start });
    let forgotten = Known::default();
    let bare = RunEvent { known: &forgotten, interval: None, base: None, ..start };
    check("without_facts.json", &RunEvent { transition: Transition::Abort, ..bare });
    check("without_plan.json", &RunEvent { plan: None, transition: Transition::Complete, ..bare });
}

#[test]
fn the_schemas_refuse_what_they_should() {
    let run = run();
    let (known, request) = (known(&run), RequestId::derive("p", "/s", "1"));
    let event = RunEvent {
        namespace: "dagwright",
        transition: Transition::Start,
        at: DateTime::from_timestamp_millis(0).expect("a time"),
        request: &request,
        pipeline: "p",
        base: None,
        interval: None,
        plan: Some(&run.plan),
        known: &known,
        counts: None,
        problem: None,
    };
    let spoil: [fn(&mut Value); 4] = [
        |event| event["run"]["runId"] = "r".into(),
        |event| event["eventTime"] = "yesterday".into(),
        |event| event["job"]["facets"]["sql"]["query"] = Value::Null,
        |event| drop(event["job"].as_object_mut().and_then(|job| job.remove("name"))),
    ];
    for spoil in spoil {
        let mut spoiled = event.to_json();
        spoil(&mut spoiled);
        assert!(std::panic::catch_unwind(|| conforms(&spoiled)).is_err(), "{spoiled}");
    }
}
