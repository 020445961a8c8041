//! The suite that every [`Store`] must pass, as a library, so that an implementation elsewhere can run it too.

use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId},
    message::{Cost, Fact, Observation, Origin},
    plan::{PLAN_VERSION, Plan},
    record::{Accepted, Ended, FactRecorded, Ingress, PlanSealed, Purpose, Record, RecordBody, RunEnded, RunStarted},
    spec::{Airflow, Policy, Retries, SchemaChange},
    task::{Problem, Status},
};

use crate::{Error, RequestState, Store};

/// Runs every case, each on a store of its own.
///
/// # Panics
/// When the implementation does not conform; the message names the case.
pub fn check<S: Store>(mut open: impl FnMut() -> S) {
    records_read_back_in_order(&open());
    an_append_expects_its_place(&open());
    an_append_is_all_or_nothing(&open());
    two_writers_cannot_interleave(&open());
    requests_of_a_pipeline_come_newest_first(&open());
    names_that_start_alike_stay_apart(&open());
    only_a_run_moves_the_baseline(&open());
    an_unfinished_run_is_found_until_it_ends(&open());
    a_newer_run_is_not_forgotten_with_an_older_one(&open());
    facts_are_the_latest_answer(&open());
}

fn records_read_back_in_order(store: &impl Store) {
    let records: Vec<_> =
        (0..300).map(|sequence| if sequence == 0 { accepted("a", "p", 0) } else { filler("a", sequence) }).collect();
    store.append(&records[..1]).expect("appends");
    store.append(&records[1..]).expect("appends");
    store.append(&[]).expect("appends nothing");
    assert_eq!(store.read(&id("a"), 0).expect("reads"), records);
    assert_eq!(store.read(&id("a"), 256).expect("reads"), records[256..]);
    assert_eq!(store.read(&id("a"), 300).expect("reads"), []);
    assert_eq!(store.read(&id("a"), u64::MAX).expect("reads"), []);
    assert_eq!(store.read(&id("unknown"), 0).expect("reads"), []);
    assert_eq!(store.read(&id(""), 0).expect("reads"), []);
    assert_eq!(store.request(&id("a")).expect("reads").map(|summary| summary.next_sequence), Some(300));
}

fn an_append_expects_its_place(store: &impl Store) {
    store.append(&[accepted("a", "p", 0)]).expect("appends");
    for (sequence, expected) in [(0, 1), (2, 1), (u64::MAX, 1)] {
        match store.append(&[filler("a", sequence)]) {
            Err(Error::Conflict { expected: found, given, .. }) => assert_eq!((found, given), (expected, sequence)),
            other => panic!("record {sequence}: {other:?}"),
        }
    }
    for records in [
        vec![filler("a", 1), filler("a", 3)],
        vec![filler("a", 1), filler("b", 2)],
        vec![filler("b", 0)],
        vec![accepted("b\0", "p", 0)],
        vec![accepted("", "p", 0)],
        vec![accepted("b", "", 0)],
        vec![accepted("b", &"p".repeat(1000), 0)],
        vec![Record { sequence: 1, ..accepted("a", "p", 0) }],
    ] {
        let refused = store.append(&records).expect_err("refused");
        assert_eq!(refused.code(), Code::Internal, "{refused}");
    }
    assert_eq!(store.read(&id("a"), 0).expect("reads").len(), 1);
    assert_eq!(store.read(&id("b"), 0).expect("reads").len(), 0);
}

fn an_append_is_all_or_nothing(store: &impl Store) {
    // The second record is fine by itself, the third is a second acceptance.
    let records = [accepted("a", "p", 0), filler("a", 1), Record { sequence: 2, ..accepted("a", "p", 0) }];
    store.append(&records).expect_err("refused");
    assert_eq!(store.read(&id("a"), 0).expect("reads"), []);
    assert_eq!(store.requests("p", 9).expect("reads"), []);
}

fn two_writers_cannot_interleave(store: &impl Store) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 25;
    store.append(&[accepted("a", "p", 0)]).expect("appends");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut written = 0;
                while written < EACH {
                    let next = store.request(&id("a")).expect("reads").expect("known").next_sequence;
                    let pair = [at(filler("a", next), writer), at(filler("a", next + 1), writer)];
                    match store.append(&pair) {
                        Ok(()) => written += 1,
                        Err(Error::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let records = store.read(&id("a"), 1).expect("reads");
    assert_eq!(records.len() as u64, WRITERS * EACH * 2);
    assert!(records.chunks(2).all(|pair| pair[0].at == pair[1].at), "a pair was torn apart");
}

fn requests_of_a_pipeline_come_newest_first(store: &impl Store) {
    for (request, when) in [("b", 20), ("a", 30), ("c", 10)] {
        store.append(&[accepted(request, "p", when)]).expect("appends");
    }
    store.append(&[accepted("d", "other", 40)]).expect("appends");
    let found = |limit| -> Vec<String> {
        let summaries = store.requests("p", limit).expect("reads");
        summaries.into_iter().map(|summary| summary.request.0).collect()
    };
    assert_eq!(found(9), ["a", "b", "c"]);
    assert_eq!(found(2), ["a", "b"]);
    assert_eq!(store.requests("unknown", 9).expect("reads"), []);
}

fn names_that_start_alike_stay_apart(store: &impl Store) {
    for (request, pipeline) in [("a", "p"), ("aa", "p.x"), ("ab", "px")] {
        store.append(&[accepted(request, pipeline, 0), filler(request, 1)]).expect("appends");
    }
    for (request, pipeline) in [("a", "p"), ("aa", "p.x"), ("ab", "px")] {
        let records = store.read(&id(request), 0).expect("reads");
        assert!(records.len() == 2 && records.iter().all(|record| record.request == id(request)), "{records:?}");
        let summaries = store.requests(pipeline, 9).expect("reads");
        assert!(summaries.len() == 1 && summaries[0].request == id(request), "{summaries:?}");
    }
}

fn only_a_run_moves_the_baseline(store: &impl Store) {
    let (first, second) = (plan("one"), plan("two"));
    assert_eq!(store.baseline("p").expect("reads"), None);
    store.append(&[for_plan("a", 0), sealed("a", 1, &first)]).expect("appends");
    assert_eq!(store.baseline("p").expect("reads"), None);
    assert_eq!(store.plan(&first.hash()).expect("reads"), Some(first.clone()));
    store.append(&[accepted("b", "p", 1), sealed("b", 1, &first)]).expect("appends");
    assert_eq!(store.baseline("p").expect("reads"), None);
    store.append(&[run_started("b", 2, &first)]).expect("appends");
    assert_eq!(store.baseline("p").expect("reads"), Some(first.hash()));
    store.append(&[for_plan("c", 2), sealed("c", 1, &second)]).expect("appends");
    assert_eq!(store.baseline("p").expect("reads"), Some(first.hash()));
    assert_eq!(store.plan(&second.hash()).expect("reads"), Some(second));
    assert_eq!(store.plan(&PlanHash("unknown".into())).expect("reads"), None);
}

fn an_unfinished_run_is_found_until_it_ends(store: &impl Store) {
    let plan = plan("one");
    let ends: [(&str, RecordBody, RequestState); 5] = [
        ("succeeded", ended(Status::Succeeded), RequestState::Succeeded),
        ("failed", ended(Status::Failed), RequestState::Failed),
        ("stopped", ended(Status::Cancelled), RequestState::Cancelled),
        ("cancelled", RecordBody::Cancelled, RequestState::Cancelled),
        ("refused", RecordBody::Failed(Ended { problems: vec![problem()] }), RequestState::Failed),
    ];
    let key = run_key("p");
    for (request, end, state) in ends {
        let found = || store.unfinished(&key).expect("reads");
        let summary = || store.request(&id(request)).expect("reads").expect("known");
        store.append(&[accepted(request, "p", 0)]).expect("appends");
        assert_eq!((found(), summary().state), (None, RequestState::Negotiating), "{request}");
        store.append(&[sealed(request, 1, &plan)]).expect("appends");
        assert_eq!((found(), summary().state), (Some(id(request)), RequestState::Sealed), "{request}");
        assert_eq!(summary().plan, Some(plan.hash()), "{request}");
        store.append(&[run_started(request, 2, &plan)]).expect("appends");
        assert_eq!((found(), summary().state), (Some(id(request)), RequestState::Running), "{request}");
        assert_eq!(store.unfinished(&run_key("other")).expect("reads"), None, "{request}");
        store.append(&[record(request, 3, end)]).expect("appends");
        assert_eq!((found(), summary().state), (None, state), "{request}");
    }
    store.append(&[for_plan("looked", 0), sealed("looked", 1, &plan)]).expect("appends");
    assert_eq!(store.unfinished(&key).expect("reads"), None, "a plan is nothing to continue");
}

fn a_newer_run_is_not_forgotten_with_an_older_one(store: &impl Store) {
    let plan = plan("one");
    for request in ["old", "new"] {
        store.append(&[accepted(request, "p", 0), sealed(request, 1, &plan)]).expect("appends");
    }
    store.append(&[record("old", 2, ended(Status::Failed))]).expect("appends");
    assert_eq!(store.unfinished(&run_key("p")).expect("reads"), Some(id("new")));
}

fn facts_are_the_latest_answer(store: &impl Store) {
    let observation = |source: &str| Observation {
        fact: Fact::Unavailable(vec![problem()]),
        origin: Origin { source: source.into(), at: "2026-01-01T00:00:00Z".into() },
    };
    let fact = |request, sequence, source| {
        let body = FactRecorded { key: "k".into(), observation: observation(source) };
        record(request, sequence, RecordBody::FactRecorded(Box::new(body)))
    };
    assert_eq!(store.fact("k").expect("reads"), None);
    store.append(&[accepted("a", "p", 0), fact("a", 1, "first")]).expect("appends");
    store.append(&[accepted("b", "p", 0), fact("b", 1, "second")]).expect("appends");
    assert_eq!(store.fact("k").expect("reads"), Some(observation("second")));
    assert_eq!(store.fact("other").expect("reads"), None);
}

// === values ===

fn id(text: &str) -> RequestId {
    RequestId(text.into())
}

fn record(request: &str, sequence: u64, body: RecordBody) -> Record {
    Record { request: id(request), sequence, at: sequence, body }
}

fn at(record: Record, at: u64) -> Record {
    Record { at, ..record }
}

fn acceptance(pipeline: &str, purpose: Purpose) -> Accepted {
    Accepted {
        pipeline: pipeline.into(),
        spec_text: "pipeline: p\n".into(),
        spec_hash: "0".repeat(64),
        ingress: Ingress::CommandLine,
        purpose,
        base: Some("/base".into()),
        params: Default::default(),
        interval: None,
        backfill: false,
    }
}

fn accepted(request: &str, pipeline: &str, when: u64) -> Record {
    at(record(request, 0, RecordBody::Accepted(Box::new(acceptance(pipeline, Purpose::Run)))), when)
}

fn for_plan(request: &str, when: u64) -> Record {
    at(record(request, 0, RecordBody::Accepted(Box::new(acceptance("p", Purpose::Plan)))), when)
}

fn run_key(pipeline: &str) -> String {
    acceptance(pipeline, Purpose::Run).run_key()
}

/// A record that changes no state.
fn filler(request: &str, sequence: u64) -> Record {
    let compiled = dagwright_model::record::DagCompiled {
        plan_hash: PlanHash("1".repeat(64)),
        target: "airflow3".into(),
        file: "p.py".into(),
        file_hash: "2".repeat(64),
    };
    record(request, sequence, RecordBody::DagCompiled(compiled))
}

fn sealed(request: &str, sequence: u64, plan: &Plan) -> Record {
    record(request, sequence, RecordBody::PlanSealed(Box::new(PlanSealed { hash: plan.hash(), plan: plan.clone() })))
}

fn run_started(request: &str, sequence: u64, plan: &Plan) -> Record {
    let started = RunStarted {
        plan_hash: plan.hash(),
        effect: request.into(),
        generation: 0,
        base: None,
        staging: "/staging".into(),
        quarantine: "/quarantine".into(),
        interval: None,
        params: Default::default(),
        backfill: false,
    };
    record(request, sequence, RecordBody::RunStarted(Box::new(started)))
}

fn ended(status: Status) -> RecordBody {
    RecordBody::RunEnded(RunEnded { status, problem: None })
}

fn problem() -> Problem {
    Problem {
        code: Code::SourceMissing,
        subject: "flights".into(),
        message: "nothing there".into(),
        hint: "look elsewhere".into(),
    }
}

fn plan(description: &str) -> Plan {
    Plan {
        version: PLAN_VERSION,
        pipeline: "p".parse().expect("a valid name"),
        dag_id: "p".into(),
        spec_hash: "0".repeat(64),
        owner: None,
        description: Some(description.into()),
        tags: Vec::new(),
        params: Default::default(),
        schedule: None,
        deadline: None,
        policy: Policy::default(),
        retries: Retries::default(),
        airflow: Airflow::default(),
        connections: Default::default(),
        tasks: Vec::new(),
        choices: Vec::new(),
        schema_change: SchemaChange::None,
        cost: Cost::default(),
    }
}
