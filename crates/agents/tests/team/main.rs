//! The four actors over the bus, with a stand-in for the world: what a negotiation ends with reaches whoever asked.

mod apart;
mod supervision;
mod world;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use async_trait::async_trait;
use dagwright_agents::{
    Error, Lineup, Matter, Negotiated, Ports, Team,
    ports::{Clock, Observer, SystemClock},
};
use dagwright_bus::in_process::InProcess;
use dagwright_model::{
    code::Code,
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::RequestId,
    message::Bounds,
    record::RecordBody,
    task::Problem,
};
use dagwright_negotiation::session::Ending;
use dagwright_store::{MemoryStore, Store};

/// A world in which nothing can be seen.
struct Dark;

#[async_trait]
impl Observer for Dark {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        let (ProbeRequest::Source { name, .. } | ProbeRequest::Sink { name, .. }) = request;
        ProbeReply::Failed(dark(name.as_str()))
    }

    async fn type_steps(&self, _: &TypingRequest) -> TypingReply {
        TypingReply::Failed(vec![dark("transform")])
    }
}

/// A clock that somebody sets by days each time it is looked at, forwards and back.
#[derive(Default)]
struct Jumping(AtomicU64);

impl Clock for Jumping {
    fn now_ms(&self) -> u64 {
        const DAY_MS: u64 = 86_400_000;
        let looks = self.0.fetch_add(1, Relaxed);
        1_735_700_400_000 + DAY_MS * (looks * 7 % 30)
    }

    fn elapsed_ms(&self) -> u64 {
        SystemClock.elapsed_ms()
    }
}

fn dark(subject: &str) -> Problem {
    Problem { code: Code::SourceUnreachable, subject: subject.into(), message: "dark".into(), hint: "wait".into() }
}

/// Negotiates from `next_sequence` on, with the request's acceptance at 0.
fn negotiate(store: &Arc<MemoryStore>, next_sequence: u64) -> Result<Negotiated, Error> {
    let spec = world::spec("a.csv");
    store.append(&[world::accepted("request", &spec)]).expect("appends");
    let request = RequestId("request".into());
    actix::System::new().block_on(async {
        let ports = Ports {
            bus: Arc::new(InProcess::new()),
            observer: Arc::new(Dark),
            store: store.clone(),
            clock: Arc::new(SystemClock),
            lineup: Lineup::default(),
        };
        let matter = Matter { first_sequence: next_sequence, ..Matter::default() };
        Team::start(ports).await?.negotiate(request, spec, Bounds::default(), matter).await
    })
}

#[test]
fn what_could_not_be_observed_ends_the_negotiation_and_stands_in_the_ledger() {
    let store = Arc::new(MemoryStore::default());
    let negotiated = negotiate(&store, 1).expect("an ending");
    let Ending::Failed(problems) = negotiated.ending else { panic!("{:?}", negotiated.ending) };
    assert!(problems.iter().all(|problem| problem.code == Code::SourceUnreachable), "{problems:?}");
    let records = store.read(&RequestId("request".into()), 0).expect("reads");
    assert_eq!(records.len() as u64, negotiated.next_sequence);
    assert!(matches!(records.last().map(|record| &record.body), Some(RecordBody::Failed(_))));
}

#[test]
fn a_ledger_that_cannot_be_written_is_told_at_once() {
    let store = Arc::new(MemoryStore::default());
    // Another writer holds the place that the negotiation was given.
    assert!(matches!(negotiate(&store, 7), Err(Error::Store(_))));
    assert_eq!(store.read(&RequestId("request".into()), 0).expect("reads").len(), 1);
}

#[test]
fn a_clock_that_jumps_by_days_ends_no_negotiation() {
    let store = Arc::new(world::Collapsing::default());
    store.ledger.append(&[world::accepted("a.csv", &world::spec("a.csv"))]).expect("appends");
    let world::Cast { observer, bus, store, lineup } = world::Cast::healthy(&store);
    let ports = Ports { bus, observer, store: store.clone(), clock: Arc::new(Jumping::default()), lineup };
    let negotiated = actix::System::new()
        .block_on(async { world::negotiate(&Team::start(ports).await.expect("a team"), "a.csv").await })
        .expect("an answer");
    assert!(matches!(negotiated.ending, Ending::Sealed(_)), "{:?}", negotiated.ending);
    let records = store.read(&RequestId("a.csv".into()), 1).expect("reads");
    assert!(records.windows(2).any(|pair| pair[0].at > pair[1].at), "the clock never jumped back");
}

#[test]
fn more_requests_than_are_negotiated_at_a_time_wait_their_turn() {
    let store = Arc::new(world::Collapsing::default());
    let files: Vec<_> = (0..200).map(|number| format!("{number}.csv")).collect();
    for file in &files {
        store.ledger.append(&[world::accepted(file, &world::spec(file))]).expect("appends");
    }
    let negotiated = actix::System::new().block_on(async {
        let team = world::Cast::healthy(&store).start().await.expect("a team");
        futures::future::join_all(files.iter().map(|file| world::negotiate(&team, file))).await
    });
    for negotiated in negotiated {
        let negotiated = negotiated.expect("an answer");
        assert!(matches!(negotiated.ending, Ending::Sealed(_)), "{:?}", negotiated.ending);
    }
}
