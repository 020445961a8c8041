//! What is old is forgotten, and what is left says the same as before.

use dagwright_model::{
    message::{Fact, Observation, Origin},
    record::{
        Accepted, FactRecorded, Ingress, PipelineChanged, PipelineStatus, PlanReused, Purpose, Record, RecordBody,
    },
    task::Status,
};

use super::{acceptance, accepted, at, ended, for_plan, id, plan, problem, record, run_started, sealed, served};
use crate::{Cache, Entry, Forgettable, Mark, Retention};

/// Later than everything in these cases.
const LATER: u64 = 1_000_000;

pub(super) fn check<S: Cache>(mut open: impl FnMut() -> S) {
    what_ended_long_ago_is_forgotten_as_a_whole(&open());
    what_a_pipeline_needs_stays(&open());
    a_plan_goes_with_the_last_request_that_has_it(&open());
    a_later_answer_outlives_an_earlier_one(&open());
    what_a_command_left_is_forgotten_but_for_what_it_runs(&open());
    old_requests_are_looked_for_page_by_page(&open());
    events_go_from_the_oldest_on_and_positions_stay(&open());
    a_log_tells_a_cache_what_was_forgotten(&open());
    what_remains_says_the_same(&open(), &open());
}

/// Appends a request whose run ended: a moment for each record, from `when` on.
fn ran(store: &impl Retention, request: &str, pipeline: &str, when: u64, description: &str) {
    let plan = plan(description);
    let records = [
        served(request, pipeline, Purpose::Run, when),
        at(sealed(request, 1, &plan), when + 1),
        at(run_started(request, 2, &plan), when + 2),
        at(record(request, 3, ended(Status::Succeeded)), when + 3),
    ];
    store.append(&records).expect("appends");
}

/// Appends a request that ended without a run.
fn failed(store: &impl Retention, request: &str, pipeline: &str, when: u64) {
    let end = RecordBody::Failed(dagwright_model::record::Ended { problems: vec![problem()] });
    store
        .append(&[served(request, pipeline, Purpose::Run, when), at(record(request, 1, end), when + 1)])
        .expect("appends");
}

fn old(store: &impl Retention, before: u64) -> Vec<String> {
    let (mut found, mut mark) = (Vec::new(), None);
    loop {
        let Forgettable { requests, next } = store.forgettable(before, mark.as_ref(), 2).expect("reads");
        found.extend(requests.into_iter().map(|summary| summary.request.0));
        mark = next;
        if mark.is_none() {
            return found;
        }
    }
}

fn what_ended_long_ago_is_forgotten_as_a_whole(store: &impl Retention) {
    ran(store, "a", "p", 10, "one");
    ran(store, "b", "p", 20, "two");
    store.append(&[served("open", "p", Purpose::Run, 30)]).expect("appends");
    failed(store, "newest", "p", 40);
    assert_eq!(old(store, 13), [""; 0], "it had not ended then");
    assert_eq!(old(store, 14), ["a"]);
    assert_eq!(old(store, LATER), ["a"], "one is open, one ran last, one is the newest");
    let all = ["a", "b", "open", "newest", "unknown"].map(id);
    assert_eq!(store.forget(&all).expect("forgets"), 1, "whatever is asked, nothing else goes");
    assert_eq!(store.forget(&all).expect("forgets"), 0);
    assert_eq!((store.request(&id("a")).expect("reads"), store.read(&id("a"), 0).expect("reads")), (None, Vec::new()));
    assert_eq!(store.plan(&plan("one").hash()).expect("reads"), None);
    let named = |found: Vec<crate::RequestSummary>| found.into_iter().map(|it| it.request.0).collect::<Vec<_>>();
    for found in [store.requests("p", 9), store.recent(None, None, 9), store.recent(Some("p"), None, 9)] {
        assert_eq!(named(found.expect("reads")), ["newest", "open", "b"]);
    }
    assert_eq!(store.baseline("p").expect("reads"), Some(plan("two").hash()));
    assert_eq!(store.plan(&plan("two").hash()).expect("reads"), Some(plan("two")));
    assert_eq!(store.open_requests().expect("reads"), [id("open")]);
    // Who comes again is new.
    ran(store, "a", "p", 50, "three");
    assert_eq!(store.request(&id("a")).expect("reads").map(|known| known.accepted_at), Some(50));
    assert_eq!(store.read(&id("a"), 0).expect("reads").len(), 4);
}

fn what_a_pipeline_needs_stays(store: &impl Retention) {
    let change = |request: &str, purpose, status, revision, when| {
        let changed = record(request, 1, RecordBody::PipelineChanged(PipelineChanged { status, revision }));
        store.append(&[served(request, "p", purpose, when), at(changed, when + 1)]).expect("appends");
    };
    change("first", Purpose::Apply, PipelineStatus::Active, 1, 10);
    change("applied", Purpose::Apply, PipelineStatus::Active, 2, 20);
    ran(store, "ran", "p", 30, "one");
    change("paused", Purpose::Pause, PipelineStatus::Paused, 2, 40);
    failed(store, "refused", "p", 50);
    failed(store, "newest", "p", 60);
    assert_eq!(old(store, LATER), ["first", "refused"]);
    let known = store.pipeline("p").expect("reads");
    assert_eq!(store.forget(&[id("first"), id("refused")]).expect("forgets"), 2);
    assert_eq!(store.pipeline("p").expect("reads"), known);
    change("deleted", Purpose::Delete, PipelineStatus::Deleted, 2, 70);
    assert_eq!(old(store, LATER), ["applied", "paused", "newest"], "whoever deletes it leaves less");
}

/// Appends a request that uses a plan again.
fn reused(store: &impl Retention, request: &str, from: &str, description: &str, when: u64) {
    let plan = plan(description);
    let body = RecordBody::PlanReused(PlanReused { hash: plan.hash(), from: id(from) });
    let records = [
        served(request, "p", Purpose::Run, when),
        at(record(request, 1, body), when + 1),
        at(run_started(request, 2, &plan), when + 2),
        at(record(request, 3, ended(Status::Succeeded)), when + 3),
    ];
    store.append(&records).expect("appends");
}

fn a_plan_goes_with_the_last_request_that_has_it(store: &impl Retention) {
    ran(store, "sealed", "p", 10, "one");
    reused(store, "used", "sealed", "one", 20);
    assert_eq!(old(store, LATER), [""; 0], "the plan of the one that ran last lies in the other's records");
    ran(store, "again", "p", 30, "one");
    assert_eq!(old(store, LATER), ["sealed", "used"], "now it lies in another's, too");
    assert_eq!(store.forget(&[id("sealed")]).expect("forgets"), 1);
    assert_eq!(store.plan(&plan("one").hash()).expect("reads"), Some(plan("one")));
    ran(store, "other", "p", 40, "two");
    assert_eq!(old(store, LATER), ["used"], "it has the plan still, in the records of `again`");
    assert_eq!(store.forget(&[id("used")]).expect("forgets"), 1);
    assert_eq!(store.plan(&plan("one").hash()).expect("reads"), Some(plan("one")));
    assert_eq!(store.forget(&[id("again")]).expect("forgets"), 1);
    assert_eq!(store.plan(&plan("one").hash()).expect("reads"), None);
}

fn a_later_answer_outlives_an_earlier_one(store: &impl Retention) {
    let observation = |source: &str| Observation {
        fact: Fact::Unavailable(vec![problem()]),
        origin: Origin { source: source.into(), at: "2026-01-01T00:00:00Z".into() },
    };
    for (request, when, keys) in [("a", 10, ["shared", "own"]), ("b", 20, ["shared", "other"])] {
        let mut records = vec![served(request, "p", Purpose::Run, when)];
        for (sequence, key) in (1..).zip(keys) {
            let body = FactRecorded { key: key.into(), observation: observation(request) };
            records.push(at(record(request, sequence, RecordBody::FactRecorded(Box::new(body))), when));
        }
        let end = RecordBody::Failed(dagwright_model::record::Ended { problems: vec![problem()] });
        records.push(at(record(request, 3, end), when));
        store.append(&records).expect("appends");
    }
    assert_eq!(store.forget(&[id("a")]).expect("forgets"), 1);
    let fact = |key: &str| store.fact(key).expect("reads");
    assert_eq!((fact("own"), fact("shared"), fact("other")), (None, Some(observation("b")), Some(observation("b"))));
}

fn what_a_command_left_is_forgotten_but_for_what_it_runs(store: &impl Retention) {
    let sealed_plan = plan("one");
    store.append(&[for_plan("looked", 1), sealed("looked", 1, &plan("seen"))]).expect("appends");
    store.append(&[accepted("died", "p", 2)]).expect("appends");
    store.append(&[accepted("runs", "p", 3), sealed("runs", 1, &sealed_plan)]).expect("appends");
    let newest = Accepted { ingress: Ingress::CommandLine, ..acceptance("p", Purpose::Run) };
    store.append(&[at(record("newest", 0, RecordBody::Accepted(Box::new(newest))), 4)]).expect("appends");
    assert_eq!(old(store, LATER), ["died", "looked"]);
    assert_eq!(store.forget(&[id("died"), id("looked"), id("runs")]).expect("forgets"), 2);
    assert_eq!(store.plan(&plan("seen").hash()).expect("reads"), None);
    assert_eq!(store.unfinished(&super::run_key("p")).expect("reads"), Some(id("runs")));
}

fn old_requests_are_looked_for_page_by_page(store: &impl Retention) {
    for index in 0..7 {
        failed(store, &format!("r{index}"), "p", 10);
    }
    assert_eq!(old(store, LATER), ["r0", "r1", "r2", "r3", "r4", "r5"]);
    let first = store.forgettable(LATER, None, 3).expect("reads");
    // A pipeline's requests count as accepted one after the other.
    assert_eq!(first.next, Some(Mark { looked: false, at: 12, request: id("r2") }));
    // What was found is forgotten before the next page is looked at.
    store.forget(&["r0", "r1", "r2"].map(id)).expect("forgets");
    let second = store.forgettable(LATER, first.next.as_ref(), 3).expect("reads");
    assert_eq!(second.requests.iter().map(|it| it.request.0.as_str()).collect::<Vec<_>>(), ["r3", "r4", "r5"]);
    assert_eq!(store.forgettable(10, None, 3).expect("reads").requests, [], "not yet");
}

fn events_go_from_the_oldest_on_and_positions_stay(store: &impl Retention) {
    assert_eq!((store.oldest_event().expect("reads"), store.forget_events(LATER, 9, 9).expect("forgets")), (None, 0));
    ran(store, "a", "p", 10, "one");
    ran(store, "b", "p", 20, "two");
    let positions =
        || -> Vec<_> { store.events(0, 99).expect("reads").into_iter().map(|(position, _)| position).collect() };
    assert_eq!(positions(), (1..=8).collect::<Vec<_>>());
    assert_eq!(store.forget_events(12, u64::MAX, 99).expect("forgets"), 2);
    assert_eq!((positions(), store.oldest_event().expect("reads")), ((3..=8).collect(), Some(3)));
    assert_eq!(store.forget_events(LATER, 4, 99).expect("forgets"), 2, "a reader is at 4");
    assert_eq!(store.forget_events(LATER, u64::MAX, 1).expect("forgets"), 1, "no more at a time");
    assert_eq!(store.forget_events(LATER, u64::MAX, 99).expect("forgets"), 2);
    assert_eq!(positions(), [8], "the newest stays");
    assert_eq!(store.forget_events(LATER, u64::MAX, 99).expect("forgets"), 0);
    failed(store, "c", "p", 30);
    assert_eq!(positions(), [8, 9, 10]);
}

fn a_log_tells_a_cache_what_was_forgotten(store: &impl Cache) {
    let first = [served("a", "p", Purpose::Run, 10), at(sealed("a", 1, &plan("one")), 11)];
    let again = [served("a", "p", Purpose::Run, 90), at(sealed("a", 1, &plan("two")), 91)];
    let known = || {
        let records = store.read(&id("a"), 0).expect("reads");
        records.first().map(|accepted| (accepted.at, records.len()))
    };
    let forgotten = |accepted_at| Entry::Forgotten { request: id("a"), accepted_at };
    let records = |records: &[Record]| records.iter().cloned().map(Entry::Record).collect::<Vec<_>>();
    store.absorb("log", 3, &[records(&first), vec![forgotten(10)]].concat()).expect("takes in");
    assert_eq!((known(), store.plan(&plan("one").hash()).expect("reads")), (None, None));
    // This process accepts it again before it reads in the log that it was forgotten.
    store.learn(&again).expect("learns");
    store.absorb("log", 4, &[forgotten(10)]).expect("takes in");
    assert_eq!(known(), Some((90, 2)), "the later one stays");
    store.absorb("log", 4, &[forgotten(90)]).expect("takes in");
    assert_eq!(known(), None);
    // Nothing is left in the log that says that it was forgotten, but that it was accepted anew.
    store.absorb("log", 6, &records(&first)).expect("takes in");
    store.absorb("log", 8, &records(&again[..1])).expect("takes in");
    assert_eq!(known(), Some((90, 1)));
    store.absorb("log", 8, &records(&again)).expect("takes in the rest");
    assert_eq!((known(), store.read(&id("a"), 0).expect("reads")), (Some((90, 2)), again.to_vec()));
    assert_eq!(store.reached("log").expect("reads"), Some(8));
}

fn what_remains_says_the_same(store: &impl Cache, rebuilt: &impl Cache) {
    ran(store, "a", "p", 10, "one");
    reused(store, "b", "a", "one", 20);
    failed(store, "c", "p", 30);
    ran(store, "d", "q", 40, "three");
    ran(store, "e", "q", 50, "four");
    let gone: Vec<_> = old(store, LATER).into_iter().map(|request| id(&request)).collect();
    assert_eq!(gone, [id("d")]);
    assert_eq!(store.forget(&gone).expect("forgets"), 1);
    let left = store.recent(None, None, 99).expect("reads");
    for summary in left.iter().rev() {
        let records = store.read(&summary.request, 0).expect("reads");
        rebuilt.absorb("log", 1, &records.into_iter().map(Entry::Record).collect::<Vec<_>>()).expect("takes in");
    }
    assert_eq!(rebuilt.recent(None, None, 99).expect("reads"), left);
    for pipeline in ["p", "q"] {
        assert_eq!(rebuilt.pipeline(pipeline).expect("reads"), store.pipeline(pipeline).expect("reads"));
        let baseline = store.baseline(pipeline).expect("reads").expect("one");
        assert_eq!(rebuilt.baseline(pipeline).expect("reads").as_ref(), Some(&baseline));
        assert!(rebuilt.plan(&baseline).expect("reads").is_some());
    }
}
