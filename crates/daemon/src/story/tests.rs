//! Stories of requests that went one way or another.

use std::collections::BTreeMap;

use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId, TaskId},
    record::{
        Accepted, ApprovalNeeded, Cancelled, Decision, Ended, EventIdentity, Ingress, PipelineChanged, PipelineStatus,
        PlanReused, Purpose, Record, RecordBody, RetryScheduled, RunEnded, RunStarted, TaskEnded, TaskInstance,
        TaskStarted,
    },
    spec::{Interval, SchemaChange},
    task::{Counts, Outcome, Problem, SinkCounts, SourceCounts, Status},
};
use dagwright_store::{MemoryStore, Store};

use super::tell;
use crate::render;

fn accepted(purpose: Purpose) -> RecordBody {
    RecordBody::Accepted(Box::new(Accepted {
        pipeline: "a.p".into(),
        spec_text: String::new(),
        spec_hash: "s".into(),
        ingress: Ingress::Kafka,
        purpose,
        base: None,
        params: [("region".parse().expect("a name"), "eu".into())].into(),
        interval: Some(Interval { start: "2013-01-01T00:00:00Z".into(), end: "2013-01-02T00:00:00Z".into() }),
        backfill: purpose == Purpose::Run,
        revision: None,
        identity: Some(EventIdentity { source: "/acme".into(), id: "7".into() }),
        requester: Some("ann".into()),
        traceparent: None,
        follows: None,
    }))
}

fn instance() -> TaskInstance {
    TaskInstance { task: TaskId("load".into()), map_index: Some(1) }
}

fn began(attempt: u32) -> RecordBody {
    RecordBody::TaskStarted(TaskStarted { instance: instance(), attempt, partition: None })
}

fn ended(attempt: u32, status: Status, problem: Option<Problem>) -> RecordBody {
    let outcome = Outcome {
        status,
        repeated: false,
        counts: if status == Status::Succeeded { counts() } else { Counts::default() },
        partitions: Vec::new(),
        cursors: BTreeMap::new(),
        problem,
        elapsed_ms: 1_500,
        memory_peak_bytes: 0,
    };
    RecordBody::TaskEnded(Box::new(TaskEnded { instance: instance(), attempt, outcome }))
}

fn counts() -> Counts {
    let source = SourceCounts { read: 1_000, passed: 990, quarantined: 10, skipped: 5, ..SourceCounts::default() };
    let sink = SinkCounts { produced: 990, loaded: 980, superseded: 10, ..SinkCounts::default() };
    Counts {
        sources: [("in".parse().expect("a name"), source)].into(),
        sinks: [("out".parse().expect("a name"), sink)].into(),
        gates: [("sane".parse().expect("a name"), 10)].into(),
        ..Counts::default()
    }
}

fn problem(code: Code) -> Problem {
    Problem { code, subject: "in".into(), message: "it is not there".into(), hint: "look for it".into() }
}

fn plan() -> PlanHash {
    PlanHash("ab".repeat(32))
}

fn run_started() -> RecordBody {
    RecordBody::RunStarted(Box::new(RunStarted {
        plan_hash: plan(),
        effect: "r".into(),
        generation: 0,
        base: None,
        staging: String::new(),
        quarantine: String::new(),
        interval: None,
        params: BTreeMap::new(),
        backfill: false,
        keep_staged: false,
        version: 1,
        dag_run: None,
    }))
}

/// Tells of records that are a second apart, without headings' times.
#[track_caller]
fn check(bodies: Vec<RecordBody>, wanted: &str) {
    let store = MemoryStore::default();
    let request = RequestId("r".into());
    let records: Vec<_> = (0..)
        .zip(bodies)
        .map(|(sequence, body)| Record { request: request.clone(), sequence, at: sequence * 1_000, body })
        .collect();
    store.append(&records).expect("appends");
    let summary = store.request(&request).expect("reads").expect("known");
    let story = tell(&summary, &records, None);
    let told = anstream::adapter::strip_str(&render::story::story(&story)).to_string();
    let told: Vec<_> = told.lines().map(|line| line.split(" · 1970").next().unwrap_or_default()).collect();
    assert_eq!(told.join("\n"), wanted.trim_start_matches('\n'), "\n{}", told.join("\n"));
}

#[test]
fn a_run_with_setbacks() {
    check(
        vec![
            accepted(Purpose::Run),
            RecordBody::PlanReused(PlanReused { hash: plan(), from: RequestId("before".into()) }),
            RecordBody::ApprovalNeeded(ApprovalNeeded { plan_hash: plan(), schema_change: SchemaChange::Additive, drift: Vec::new() }),
            RecordBody::Approved(Decision { plan_hash: plan(), by: Some("bob".into()) }),
            run_started(),
            began(1),
            ended(1, Status::Failed, Some(problem(Code::SourceMissing))),
            RecordBody::RetryScheduled(RetryScheduled { instance: instance(), attempt: 2, delay_ms: 30_000 }),
            began(2),
            began(2),
            ended(2, Status::Succeeded, None),
            RecordBody::RunEnded(RunEnded { status: Status::Succeeded, problem: None, counts: counts(), setback: None }),
        ],
        "
Request r of a.p succeeded after 11.0 s: 1,000 rows read, 980 loaded, 10 quarantined, 10 superseded.

Asked +0 ms
  ann asked over Kafka to run a.p for the past, whatever was read before.
  They call it \"7\" of /acme.
  The interval is 2013-01-01T00:00:00Z to 2013-01-02T00:00:00Z.
  Parameters: region = \"eu\".

Agreed +1.0 s
  Plan abababababab of request before was used again: what was found for that one still counted as known. Its story tells how the agents came to it.

Approval +2.0 s
  A person had to approve plan abababababab: the plan changes a sink's schema (additive), and the policy wants that.
  bob approved it.

Ran +4.0 s
  Plan abababababab began to run.
  load[1] failed after 1.5 s.
  DW0301: it is not there (in). What to do: look for it.
  load[1] was to be tried again after 30.0 s.
  Try 2 of load[1] was cut off when its service ended, and was begun again.
  load[1], try 2, took 1.5 s: 1,000 rows read, 980 loaded, 10 quarantined, 10 superseded.

Ended +11.0 s
  The run succeeded.
  in: 1,000 read, 990 passed on, 10 quarantined, 5 passed over.
  out: 990 produced, 980 loaded, 10 superseded.
  Gate sane: 10 rows broke it.

Time waiting 1.0 s, approval 1.0 s, running 7.0 s, total 11.0 s",
    );
}

#[test]
fn requests_that_came_to_nothing() {
    check(
        vec![
            accepted(Purpose::Apply),
            RecordBody::Failed(Ended { problems: vec![problem(Code::RevisionStale), problem(Code::SourceMissing)] }),
        ],
        "
Request r of a.p failed after 1.0 s.

Asked +0 ms
  ann asked over Kafka to make the spec the next revision of a.p.
  They call it \"7\" of /acme.
  The interval is 2013-01-01T00:00:00Z to 2013-01-02T00:00:00Z.
  Parameters: region = \"eu\".

Failed +1.0 s
  DW0804: it is not there (in). What to do: look for it.
  DW0301: it is not there (in). What to do: look for it.

Time waiting 1.0 s, total 1.0 s",
    );
}

#[test]
fn what_is_under_way_says_what_it_waits_for() {
    let told = |bodies: Vec<RecordBody>| {
        let store = MemoryStore::default();
        let request = RequestId("r".into());
        let records: Vec<_> = (0..)
            .zip(bodies)
            .map(|(sequence, body)| Record { request: request.clone(), sequence, at: 0, body })
            .collect();
        store.append(&records).expect("appends");
        let story = tell(&store.request(&request).expect("reads").expect("known"), &records, None);
        story.chapters.into_iter().next_back().expect("a chapter")
    };
    let reused = || RecordBody::PlanReused(PlanReused { hash: plan(), from: RequestId("before".into()) });
    let needed = || {
        RecordBody::ApprovalNeeded(ApprovalNeeded {
            plan_hash: plan(),
            schema_change: SchemaChange::None,
            drift: Vec::new(),
        })
    };
    for (bodies, title, wanted) in [
        (vec![accepted(Purpose::Run)], "Now", "waits for its turn".to_owned()),
        (vec![accepted(Purpose::Run), reused(), needed()], "Now", format!("dagwright approve {}", plan())),
        (vec![accepted(Purpose::Run), reused(), run_started()], "Now", "is running".into()),
        (
            vec![accepted(Purpose::Run), reused(), run_started(), RecordBody::Cancelled(Cancelled { by: None })],
            "Now",
            "is stopping".into(),
        ),
        (
            vec![accepted(Purpose::Run), RecordBody::Cancelled(Cancelled { by: Some("eve".into()) })],
            "Cancelled",
            "eve asked it to stop".into(),
        ),
        (
            vec![
                accepted(Purpose::Pause),
                RecordBody::PipelineChanged(PipelineChanged { status: PipelineStatus::Paused, revision: 1 }),
            ],
            "Done",
            "is paused".into(),
        ),
    ] {
        let chapter = told(bodies);
        assert_eq!(chapter.title, title);
        assert!(chapter.told.iter().any(|told| told.contains(&wanted)), "{wanted}: {chapter:?}");
    }
}
