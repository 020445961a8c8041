//! Agents that panic: whoever asked gets the same answer as if nothing had happened, and the ledger reads the same.

use std::sync::Arc;

use dagwright_agents::{Error, Negotiated};
use dagwright_bus::in_process::InProcess;
use dagwright_model::{
    code::Code,
    facts::ProbeRequest,
    message::{Envelope, Party, Role, Transcript},
    record::{Record, RecordBody},
    spec::Locator,
};
use dagwright_negotiation::session::{Ending, RESTARTS_MAX};
use dagwright_store::Store;

use crate::world::{Cast, Collapsing, Mined, Sunny, Tripwire, accepted, negotiate, spec};

pub(crate) const FILE: &str = "a.csv";

/// Negotiates over [`FILE`] with a cast, and expects the plan that a healthy one agrees on after `restarts` of a role.
#[track_caller]
fn check(store: &Arc<Collapsing>, cast: Cast, restarts: (Role, u64)) {
    let undisturbed = undisturbed();
    store.ledger.append(&[accepted(FILE, &spec(FILE))]).expect("appends");
    let (found, counted) = actix::System::new().block_on(async {
        let team = cast.start().await.expect("a team");
        let found = negotiate(&team, FILE).await;
        (found, team.restarts().of(restarts.0))
    });
    let found = found.expect("an answer");
    assert_eq!(plan(&found), plan(&undisturbed.1), "the plan");
    assert_eq!(told(&found.transcript), told(&undisturbed.1.transcript), "the transcript");
    assert_eq!(kinds(&store.records(FILE)), kinds(&undisturbed.0.records(FILE)), "the ledger");
    assert_eq!(counted, restarts.1, "restarts of {:?}", restarts.0);
}

pub(crate) fn undisturbed() -> (Arc<Collapsing>, Negotiated) {
    let store = Arc::new(Collapsing::default());
    store.ledger.append(&[accepted(FILE, &spec(FILE))]).expect("appends");
    let negotiated = actix::System::new().block_on(async {
        let team = Cast::healthy(&store).start().await.expect("a team");
        negotiate(&team, FILE).await.expect("an answer")
    });
    (store, negotiated)
}

#[track_caller]
pub(crate) fn plan(negotiated: &Negotiated) -> String {
    let Ending::Sealed(plan) = &negotiated.ending else { panic!("no plan: {:?}", negotiated.ending) };
    plan.hash().to_string()
}

/// What was said to whom, without the counters that an agent begins again when it is built anew, and without times.
fn told(transcript: &Transcript) -> Vec<String> {
    let timeless = transcript.0.iter().map(Envelope::timeless);
    timeless.map(|envelope| format!("{} to {}: {:?}", envelope.from, envelope.to, envelope.body)).collect()
}

fn kinds(records: &[Record]) -> Vec<(u64, &'static str)> {
    records.iter().map(|record| (record.sequence, record.body.kind())).collect()
}

fn reads(request: &ProbeRequest, file: &str) -> bool {
    matches!(request, ProbeRequest::Source { source, .. } if matches!(&source.locator, Locator::Uri(uri) if uri == file))
}

#[test]
fn an_agent_that_panics_while_it_observes_is_built_anew_at_once() {
    for (role, is_source) in [(Role::Extraction, true), (Role::Loading, false)] {
        let store = Arc::new(Collapsing::default());
        let wire = Tripwire::new(1, move |request| matches!(request, ProbeRequest::Source { .. }) == is_source);
        let cast = Cast { observer: Arc::new(Sunny(wire)), ..Cast::healthy(&store) };
        check(&store, cast, (role, 1));
    }
}

#[test]
fn an_agent_that_panics_over_any_of_its_messages_is_told_what_it_needs() {
    let said = undisturbed().1.transcript;
    for role in Role::PARTICIPANTS {
        let from = Party::sole(role);
        for kind in said.0.iter().filter(|envelope| envelope.from == from).map(|envelope| envelope.body.kind()) {
            let store = Arc::new(Collapsing::default());
            let of = from.clone();
            let wire = Tripwire::new(1, move |message: &Envelope| message.from == of && message.body.kind() == kind);
            let cast = Cast { bus: Arc::new(Mined(InProcess::new(), wire)), ..Cast::healthy(&store) };
            check(&store, cast, (role, 1));
        }
    }
}

#[test]
fn an_orchestrator_that_panics_over_any_message_is_built_anew_from_the_ledger() {
    let said = undisturbed().1.transcript;
    let orchestrator = Party::sole(Role::Orchestrator);
    for sequence in said.0.iter().filter(|envelope| envelope.from == orchestrator).map(|envelope| envelope.sequence) {
        let (store, from) = (Arc::new(Collapsing::default()), orchestrator.clone());
        let wire = Tripwire::new(1, move |message: &Envelope| message.from == from && message.sequence == sequence);
        let cast = Cast { bus: Arc::new(Mined(InProcess::new(), wire)), ..Cast::healthy(&store) };
        check(&store, cast, (Role::Orchestrator, 1));
    }
}

#[test]
fn an_orchestrator_that_panics_over_any_record_is_built_anew_from_the_ledger() {
    let records = undisturbed().0.records(FILE);
    for sequence in records.iter().skip(1).map(|record| record.sequence) {
        let wire = move || Tripwire::new(1, move |records: &[Record]| records.iter().any(|r| r.sequence == sequence));
        for (before, after) in [(wire(), Tripwire::never()), (Tripwire::never(), wire())] {
            let store = Arc::new(Collapsing::new(before, after));
            check(&store, Cast::healthy(&store), (Role::Orchestrator, 1));
        }
    }
}

#[test]
fn another_team_takes_up_what_the_ledger_has() {
    let (ledger, undisturbed) = undisturbed();
    let (records, appended) = (ledger.records(FILE), ledger.appended.lock().expect("unharmed").clone());
    let mut known = 1;
    for length in appended {
        known += length;
        let store = Arc::new(Collapsing::default());
        store.ledger.append(&records[..known]).expect("appends");
        let found = actix::System::new().block_on(async {
            let team = Cast::healthy(&store).start().await.expect("a team");
            negotiate(&team, FILE).await.expect("an answer")
        });
        assert_eq!(plan(&found), plan(&undisturbed));
        assert_eq!(kinds(&store.records(FILE)), kinds(&records));
    }
}

/// Negotiates over [`FILE`] beside `poison.csv`, and returns what the latter came to and how often a role was restarted.
fn beside_poison(store: &Arc<Collapsing>, cast: Cast, role: Role) -> (Result<Negotiated, Error>, u64) {
    for file in [FILE, "poison.csv"] {
        store.ledger.append(&[accepted(file, &spec(file))]).expect("appends");
    }
    actix::System::new().block_on(async {
        let team = cast.start().await.expect("a team");
        let (healthy, poison) = futures::join!(negotiate(&team, FILE), negotiate(&team, "poison.csv"));
        let again = negotiate(&team, FILE).await.expect("the same answer, from the ledger");
        assert_eq!(plan(&healthy.expect("an answer")), plan(&again), "the healthy one");
        (poison, team.restarts().of(role))
    })
}

#[track_caller]
fn lost(negotiated: Result<Negotiated, Error>) -> Party {
    let Ending::Failed(problems) = negotiated.expect("an answer").ending else { panic!("no failure") };
    assert_eq!(problems[0].code, Code::AgentLost);
    assert!(problems[0].hint.contains("the log"), "{problems:?}");
    let named = [Role::Orchestrator, Role::Extraction].map(Party::sole);
    named.into_iter().find(|party| party.to_string() == problems[0].subject).expect("it names the agent")
}

#[test]
fn a_request_that_no_agent_survives_fails_alone() {
    let store = Arc::new(Collapsing::default());
    let wire = Tripwire::new(usize::MAX, |request| reads(request, "poison.csv"));
    let cast = Cast { observer: Arc::new(Sunny(wire)), ..Cast::healthy(&store) };
    let (poison, restarts) = beside_poison(&store, cast, Role::Extraction);
    assert_eq!(lost(poison), Party::sole(Role::Extraction));
    assert_eq!(restarts, u64::from(RESTARTS_MAX) + 1);
    assert_eq!(store.records("poison.csv").last().map(|record| record.body.kind()), Some("failed"));
}

#[test]
fn a_request_that_no_orchestrator_survives_fails_alone() {
    let is_poison = |records: &[Record]| records[0].request.0 == "poison.csv";
    let facts = |record: &Record| matches!(record.body, RecordBody::FactRecorded(_));
    let wire = Tripwire::new(usize::MAX, move |records: &[Record]| is_poison(records) && records.iter().any(facts));
    let store = Arc::new(Collapsing::new(wire, Tripwire::never()));
    let (poison, restarts) = beside_poison(&store, Cast::healthy(&store), Role::Orchestrator);
    assert_eq!(lost(poison), Party::sole(Role::Orchestrator));
    assert_eq!(restarts, u64::from(RESTARTS_MAX) + 1);
    let records = store.records("poison.csv");
    assert_eq!(records.last().map(|record| record.body.kind()), Some("failed"));

    // Not even its failure can be recorded: whoever asked hears that there is no answer.
    let wire = Tripwire::new(usize::MAX, is_poison);
    let store = Arc::new(Collapsing::new(wire, Tripwire::never()));
    let (poison, _) = beside_poison(&store, Cast::healthy(&store), Role::Orchestrator);
    assert!(matches!(poison, Err(Error::Lost)), "{poison:?}");
}
