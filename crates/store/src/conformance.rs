//! The suite that every [`Store`], [`Register`], [`Outbox`], [`Retention`](crate::Retention) and [`Cache`] must pass, as a library, so that an implementation elsewhere can run it too.

mod retention;

use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    code::Code,
    id::{PlanHash, RequestId},
    message::{Cost, Fact, Observation, Origin},
    plan::{PLAN_VERSION, Plan},
    record::{
        Accepted, ApprovalNeeded, Cancelled, Decision, Ended, FactRecorded, Ingress, PipelineChanged, PipelineStatus,
        PlanSealed, Purpose, Record, RecordBody, RunEnded, RunStarted,
    },
    spec::{Airflow, Alerts, Policy, Retries, SchemaChange},
    task::{Counts, Problem, Status},
};

use crate::{Cache, Entry, Error, Outbox, Register, RequestState, Store};

/// Runs every case, each on a store of its own.
///
/// # Panics
/// When the implementation does not conform; the message names the case.
pub fn check<S: Cache>(mut open: impl FnMut() -> S) {
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
    what_a_service_took_on_is_open_until_it_ends(&open());
    recent_requests_come_newest_first_page_by_page(&open());
    a_pipeline_is_what_was_applied_last(&open());
    the_outside_is_told_in_order_and_once(&open());
    a_reader_goes_on_where_it_stopped(&open());
    a_bookmark_is_where_it_was_left(&open());
    a_cache_takes_in_what_it_lacks(&open());
    what_is_asked_stays_until_it_is_settled(&open());
    what_is_asked_too_late_is_not_kept(&open());
    retention::check(open);
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
    for (request, when) in [("c", 10), ("b", 20), ("a", 5)] {
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
        ("cancelled", RecordBody::Cancelled(Cancelled::default()), RequestState::Cancelling),
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

fn what_a_service_took_on_is_open_until_it_ends(store: &impl Register) {
    let open = || store.open_requests().expect("reads");
    store.append(&[served("b", "p", Purpose::Run, 2)]).expect("appends");
    store.append(&[served("a", "p", Purpose::Run, 1)]).expect("appends");
    store.append(&[accepted("command", "p", 0)]).expect("appends");
    assert_eq!(open(), [id("b"), id("a")], "in the order in which they came, although the clock went back");
    let plan = plan("one");
    store.append(&[sealed("a", 1, &plan), run_started("a", 2, &plan)]).expect("appends");
    store.append(&[record("a", 3, RecordBody::Cancelled(Cancelled::default()))]).expect("appends");
    assert_eq!(open(), [id("b"), id("a")], "a run that is told to stop has not stopped");
    store.append(&[record("a", 4, ended(Status::Cancelled))]).expect("appends");
    store.append(&[record("b", 1, RecordBody::Cancelled(Cancelled::default()))]).expect("appends");
    assert_eq!(open(), []);
}

fn recent_requests_come_newest_first_page_by_page(store: &impl Register) {
    for (request, when) in [("a", 1), ("b", 3), ("c", 2), ("d", 3)] {
        store.append(&[accepted(request, "p", when)]).expect("appends");
    }
    store.append(&[for_plan("looked", 9)]).expect("appends");
    for pipeline in [None, Some("p")] {
        let page = |before: Option<(u64, &RequestId)>| -> Vec<_> {
            let found = store.recent(pipeline, before, 2).expect("reads");
            found.into_iter().map(|summary| (summary.accepted_at, summary.request)).collect()
        };
        let first = page(None);
        assert_eq!(first, [(5, id("d")), (4, id("c"))], "what came later counts as later, whatever the clock said");
        let second = page(first.last().map(|(at, request)| (*at, request)));
        assert_eq!(second, [(3, id("b")), (1, id("a"))]);
        assert_eq!(page(second.last().map(|(at, request)| (*at, request))), []);
    }
    assert_eq!(store.recent(Some("unknown"), None, 9).expect("reads"), []);
}

fn a_pipeline_is_what_was_applied_last(store: &impl Register) {
    let change = |request, status, revision| {
        record(request, 1, RecordBody::PipelineChanged(PipelineChanged { status, revision }))
    };
    assert_eq!(store.pipeline("p").expect("reads"), None);
    store.append(&[for_plan("looked", 0)]).expect("appends");
    assert_eq!(store.pipeline("p").expect("reads"), None, "looking makes no pipeline");
    store.append(&[served("a", "p", Purpose::Apply, 1), change("a", PipelineStatus::Active, 7)]).expect("appends");
    store.append(&[served("b", "p.q", Purpose::Pause, 2), change("b", PipelineStatus::Paused, 1)]).expect("appends");
    let known = store.pipeline("p").expect("reads").expect("known");
    assert_eq!((known.status, known.revision, known.applied), (PipelineStatus::Active, 7, Some(id("a"))));
    let plan = plan("one");
    store.append(&[accepted("c", "p", 3), sealed("c", 1, &plan), run_started("c", 2, &plan)]).expect("appends");
    let known = store.pipeline("p").expect("reads").expect("known");
    assert_eq!((known.newest, known.baseline, known.applied), (id("c"), Some(plan.hash()), Some(id("a"))));
    store.append(&[served("d", "p", Purpose::Delete, 4), change("d", PipelineStatus::Deleted, 7)]).expect("appends");
    let names = |after: &str, limit| -> Vec<_> {
        store.pipelines(after, limit).expect("reads").into_iter().map(|known| (known.pipeline, known.status)).collect()
    };
    let (p, q) = (("p".into(), PipelineStatus::Deleted), ("p.q".into(), PipelineStatus::Paused));
    assert_eq!(names("", 9), [p.clone(), q.clone()]);
    assert_eq!((names("", 1), names("p", 9)), (vec![p], vec![q]));
    assert_eq!(names("p.q", 9), []);
}

fn the_outside_is_told_in_order_and_once(store: &impl Outbox) {
    let told = |after| -> Vec<_> {
        let events = store.events(after, 100).expect("reads");
        events
            .into_iter()
            .map(|(position, event)| format!("{position} {} {}", event.id(), event.kind.as_str()))
            .collect()
    };
    assert_eq!((told(0), store.newest_event().expect("reads")), (Vec::new(), 0));
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let ears = heard.clone();
    store.listen(std::sync::Arc::new(move |position| ears.lock().expect("no panic").push(position)));
    let plan = plan("one");
    store.append(&[served("a", "p", Purpose::Run, 1)]).expect("appends");
    store.append(&[for_plan("looked", 1), sealed("looked", 1, &plan)]).expect("appends");
    store.append(&[sealed("a", 1, &plan), run_started("a", 2, &plan)]).expect("appends");
    assert!(store.append(&[filler("a", 9)]).is_err());
    store.append(&[record("a", 3, ended(Status::Succeeded))]).expect("appends");
    let all = ["1 a/0 request.accepted", "2 a/1 plan.sealed", "3 a/2 run.started", "4 a/3 run.succeeded"];
    assert_eq!(told(0), all);
    assert_eq!(told(2), all[2..]);
    assert_eq!((told(4), told(u64::MAX)), (Vec::new(), Vec::new()));
    assert_eq!(store.newest_event().expect("reads"), 4);
    assert_eq!(*heard.lock().expect("no panic"), [1, 3, 4]);
}

fn a_reader_goes_on_where_it_stopped(store: &impl Outbox) {
    assert_eq!(store.delivered("hook").expect("reads"), None, "it is not known; that it is at 0 is something else");
    store.deliver("hook", 41).expect("writes");
    store.deliver("other", 7).expect("writes");
    assert_eq!(
        (store.delivered("hook").expect("reads"), store.delivered("other").expect("reads")),
        (Some(41), Some(7))
    );
    store.deliver("new", 0).expect("writes");
    assert_eq!(store.delivered("new").expect("reads"), Some(0));
    assert!(store.deliver("", 1).is_err());
}

fn a_bookmark_is_where_it_was_left(store: &impl Register) {
    assert_eq!(store.bookmark("runs").expect("reads"), None);
    for (name, at) in [("runs", 41), ("other", 7), ("runs", 42)] {
        store.keep_bookmark(name, at).expect("writes");
    }
    assert_eq!((store.bookmark("runs").expect("reads"), store.bookmark("other").expect("reads")), (Some(42), Some(7)));
    assert!(store.keep_bookmark("", 1).is_err());
}

fn a_cache_takes_in_what_it_lacks(store: &impl Cache) {
    let plan = plan("one");
    let of_a = [served("a", "p", Purpose::Run, 1), sealed("a", 1, &plan), run_started("a", 2, &plan)];
    let of_b = [served("b", "q", Purpose::Run, 2), sealed("b", 1, &plan)];
    let foreseen = store.foresee(&of_a).expect("foresees");
    assert_eq!(foreseen.iter().map(|event| event.sequence).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(store.read(&id("a"), 0).expect("reads"), [], "foreseeing appends nothing");
    store.append(&of_a[..2]).expect("appends");
    assert_eq!(store.reached("log-0").expect("reads"), None);
    let mixed = [&of_a[0], &of_b[0], &of_a[1], &of_a[2], &of_b[1]].map(|record| Entry::Record(record.clone()));
    store.absorb("log-0", 5, &mixed).expect("takes in");
    store.absorb("log-0", 5, &mixed).expect("takes in nothing");
    store.learn(&of_a).expect("learns nothing");
    assert_eq!((store.reached("log-0").expect("reads"), store.reached("log-1").expect("reads")), (Some(5), None));
    assert_eq!(store.read(&id("a"), 0).expect("reads"), of_a);
    assert_eq!(store.read(&id("b"), 0).expect("reads"), of_b);
    let told: Vec<_> = store.events(0, 9).expect("reads").iter().map(|(_, event)| event.id()).collect();
    assert_eq!(told, ["a/0", "a/1", "b/0", "a/2", "b/1"]);
    assert!(store.foresee(&[run_started("a", 2, &plan)]).is_err());
    let gap = [Entry::Record(record("b", 3, ended(Status::Failed)))];
    assert!(matches!(store.absorb("log-0", 9, &gap), Err(Error::Conflict { expected: 2, given: 3, .. })));
    assert_eq!(store.reached("log-0").expect("reads"), Some(5));
}

fn what_is_asked_stays_until_it_is_settled(store: &impl Cache) {
    let kinds = |request| -> Vec<_> { store.asks(&id(request)).expect("reads").iter().map(Ask::kind).collect() };
    let acceptance = acceptance("p", Purpose::Run);
    let take_on = ask("a", AskBody::TakeOn(Box::new(Accepted { ingress: Ingress::Http, ..acceptance })));
    assert!(store.ask(&take_on).expect("asks") && store.ask(&take_on).expect("asks"), "it waits, asked once or twice");
    let cancel = |by: &str| AskBody::Cancel(Cancelled { by: Some(by.into()) });
    assert!(store.ask(&ask("a", cancel("ann"))).expect("asks"), "what is to be taken on can be cancelled");
    assert_eq!(kinds("a"), [AskKind::Cancel, AskKind::TakeOn]);
    store.append(&[served("a", "p", Purpose::Run, 1)]).expect("appends");
    assert_eq!(kinds("a"), [AskKind::Cancel]);
    assert!(store.ask(&ask("a", cancel("eve"))).expect("asks"));
    assert_eq!(store.asks(&id("a")).expect("reads"), [ask("a", cancel("ann"))], "the first one counts");
    let plan = plan("one");
    let decision = || Decision { plan_hash: plan.hash(), by: None };
    let needed = ApprovalNeeded { plan_hash: plan.hash(), schema_change: SchemaChange::None, drift: Vec::new() };
    store.append(&[sealed("a", 1, &plan), record("a", 2, RecordBody::ApprovalNeeded(needed))]).expect("appends");
    // The log tells in its order what was asked and what came of it.
    let told = [Entry::Ask(ask("a", AskBody::Approve(decision()))), Entry::Ask(ask("b", AskBody::Decline(decision())))];
    store.absorb("log-0", 2, &told).expect("takes in");
    assert_eq!((kinds("a"), kinds("b")), (vec![AskKind::Cancel, AskKind::Decide], Vec::new()));
    assert_eq!(store.asked().expect("reads"), [(id("a"), AskKind::Cancel), (id("a"), AskKind::Decide)]);
    store.absorb("log-0", 3, &[Entry::Record(record("a", 3, RecordBody::Approved(decision())))]).expect("takes in");
    assert_eq!(kinds("a"), [AskKind::Cancel]);
    store
        .append(&[run_started("a", 4, &plan), record("a", 5, RecordBody::Cancelled(Cancelled::default()))])
        .expect("appends");
    assert_eq!(store.asked().expect("reads"), []);
}

fn what_is_asked_too_late_is_not_kept(store: &impl Cache) {
    let cancel = || AskBody::Cancel(Cancelled::default());
    let plan = plan("one");
    let approve = |plan_hash: &PlanHash| AskBody::Approve(Decision { plan_hash: plan_hash.clone(), by: None });
    let take_on = || AskBody::TakeOn(Box::new(acceptance("p", Purpose::Run)));
    assert!(!store.ask(&ask("unknown", cancel())).expect("asks"));
    store.append(&[served("a", "p", Purpose::Run, 1), sealed("a", 1, &plan)]).expect("appends");
    assert!(!store.ask(&ask("a", take_on())).expect("asks"), "it is taken on already");
    assert!(!store.ask(&ask("a", approve(&plan.hash()))).expect("asks"), "it does not wait for that");
    let needed = ApprovalNeeded { plan_hash: plan.hash(), schema_change: SchemaChange::None, drift: Vec::new() };
    store.append(&[record("a", 2, RecordBody::ApprovalNeeded(needed))]).expect("appends");
    assert!(!store.ask(&ask("a", approve(&PlanHash("2".repeat(64))))).expect("asks"), "it waits with another plan");
    store.append(&[record("a", 3, RecordBody::Cancelled(Cancelled::default()))]).expect("appends");
    store
        .absorb("log-0", 9, &[Entry::Ask(ask("a", cancel())), Entry::Ask(ask("a", approve(&plan.hash())))])
        .expect("takes in");
    assert_eq!((store.asked().expect("reads"), store.reached("log-0").expect("reads")), (Vec::new(), Some(9)));
    assert!(store.ask(&ask("a\0", take_on())).is_err());
}

// === values ===

fn id(text: &str) -> RequestId {
    RequestId(text.into())
}

fn ask(request: &str, body: AskBody) -> Ask {
    Ask { request: id(request), pipeline: "p".into(), at: 7, body }
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
        revision: None,
        identity: None,
        requester: None,
        traceparent: None,
        follows: None,
    }
}

/// The acceptance of a request that a service took on.
fn served(request: &str, pipeline: &str, purpose: Purpose, when: u64) -> Record {
    let body = Accepted { ingress: Ingress::Http, ..acceptance(pipeline, purpose) };
    at(record(request, 0, RecordBody::Accepted(Box::new(body))), when)
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
        keep_staged: false,
        dag_run: None,
        version: 1,
    };
    record(request, sequence, RecordBody::RunStarted(Box::new(started)))
}

fn ended(status: Status) -> RecordBody {
    RecordBody::RunEnded(RunEnded { status, problem: None, counts: Counts::default(), setback: None })
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
        alerts: Alerts::default(),
        connections: Default::default(),
        tasks: Vec::new(),
        choices: Vec::new(),
        schema_change: SchemaChange::None,
        cost: Cost::default(),
    }
}
