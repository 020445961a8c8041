//! What is measured of requests and negotiations.

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use dagwright_model::{
    message::{Conflict, ConflictKind, Message, Party, Role, Transcript},
    record::{FailureClass, Ingress, Purpose},
};
use dagwright_negotiation::session::Ending;
use dagwright_store::RequestState;
use dagwright_telemetry::metric::{FAST_SECONDS, Label, Metric, SLOW_SECONDS};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};

const PURPOSE: Label = Label::of("purpose", &["plan", "run", "apply", "pause", "delete"]);
const INGRESS: Label = Label::of("ingress", &["command_line", "http", "kafka", "airflow"]);
const ACTOR: Label = Label::of("actor", &["orchestrator", "extraction", "transformation", "loading", "follower"]);
const KINDS: Label = Label::of(
    "kind",
    &[
        "cursor",
        "key",
        "unique_index",
        "type",
        "not_null",
        "missing_column",
        "privilege",
        "unsupported",
        "read_write",
        "memory",
        "deadline",
        "space",
        "no_offer",
    ],
);

const REQUESTS_RECEIVED: Metric = Metric::counter(
    "dagwright_requests_received_total",
    "{request}",
    "Requests that passed admission; what HTTP hands on through Kafka counts as Kafka's once it is taken on.",
)
.labels(&[INGRESS, Label::of("answer", &["accepted", "repeated", "refused"])]);
const REQUESTS: Metric =
    Metric::counter("dagwright_requests_total", "{request}", "Requests that ended in this process.")
        .labels(&[PURPOSE, Label::of("outcome", &["succeeded", "failed", "deadlocked", "cancelled"])]);
const REQUESTS_OPEN: Metric =
    Metric::gauge("dagwright_requests_open", "{request}", "Requests that have not ended, those that wait included.");
const REQUESTS_FOLLOWED: Metric =
    Metric::gauge("dagwright_requests_followed", "{request}", "Open requests whose turn has come.");
const REQUESTS_WAITING: Metric = Metric::gauge(
    "dagwright_requests_waiting",
    "{request}",
    "Requests whose turn has come, and that wait for a place among those that negotiate or run.",
)
.labels(&[Label::of("place", &["negotiation", "run"])]);
const NEGOTIATION_SECONDS: Metric = Metric::histogram(
    "dagwright_negotiation_seconds",
    "s",
    SLOW_SECONDS,
    "the first negotiation ended",
    "How long negotiations took, observations included.",
)
.labels(&[Label::of("outcome", &["sealed", "deadlocked", "expired", "failed"])]);
const NEGOTIATION_ROUNDS: Metric = Metric::histogram(
    "dagwright_negotiation_rounds",
    "{round}",
    &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0],
    "the first negotiation came to proposals",
    "How many rounds negotiations took.",
);
const CONFLICTS: Metric = Metric::counter(
    "dagwright_conflicts_total",
    "{conflict}",
    "Conflicts that agents met, each once in a negotiation.",
)
.labels(&[KINDS]);
const PLAN_LOOKUPS: Metric = Metric::counter(
    "dagwright_plan_cache_lookups_total",
    "{lookup}",
    "Requests for which a plan of the same spec was looked up, while `negotiation.facts_age_max` lets plans be used again.",
)
.labels(&[Label::of("outcome", &["hit", "miss"])]);
const REPLANS: Metric = Metric::counter(
    "dagwright_replans_total",
    "{plan}",
    "Plans that were made anew after a run that failed, by what kind of failure it was for.",
)
.labels(&[Label::of("class", &["schema_drift", "resources"])]);
const COMPILE_SECONDS: Metric = Metric::histogram(
    "dagwright_compile_seconds",
    "s",
    FAST_SECONDS,
    "the first plan was compiled",
    "How long it took to compile a plan for every target.",
);
const ACTOR_RESTARTS: Metric = Metric::counter(
    "dagwright_actor_restarts_total",
    "{restart}",
    "Agents that panicked and were built anew, and followers of requests that were replaced.",
)
.labels(&[ACTOR]);
const MAILBOX: Metric = Metric::gauge("dagwright_mailbox_messages", "{message}", "Messages that wait for an agent.")
    .labels(&[Label::of("actor", &["orchestrator", "extraction", "transformation", "loading"])]);

const RECORDS_REFUSED: Metric = Metric::counter(
    "dagwright_agent_records_refused_total",
    "{record}",
    "Records of the agents topic that cannot be read, and letters from others than those who were asked.",
);

const AGENTS_AWAY: Metric =
    Metric::gauge("dagwright_agents_away", "{agent}", "Agents that take part and that no process is known to run.");

/// Every metric of this crate.
pub const TABLE: &[Metric] = &[
    REQUESTS_RECEIVED,
    REQUESTS,
    REQUESTS_OPEN,
    REQUESTS_FOLLOWED,
    REQUESTS_WAITING,
    NEGOTIATION_SECONDS,
    NEGOTIATION_ROUNDS,
    CONFLICTS,
    PLAN_LOOKUPS,
    REPLANS,
    COMPILE_SECONDS,
    ACTOR_RESTARTS,
    MAILBOX,
    RECORDS_REFUSED,
    AGENTS_AWAY,
];

struct Instruments {
    requests_received: Counter<u64>,
    requests: Counter<u64>,
    requests_open: Gauge<u64>,
    requests_followed: Gauge<u64>,
    requests_waiting: UpDownCounter<i64>,
    negotiation_seconds: Histogram<f64>,
    negotiation_rounds: Histogram<f64>,
    conflicts: Counter<u64>,
    plan_lookups: Counter<u64>,
    replans: Counter<u64>,
    compile_seconds: Histogram<f64>,
    actor_restarts: Counter<u64>,
    mailbox: Gauge<u64>,
    records_refused: Counter<u64>,
    agents_away: Gauge<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright-agents");
    Instruments {
        requests_received: REQUESTS_RECEIVED.to_counter(&meter),
        requests: REQUESTS.to_counter(&meter),
        requests_open: REQUESTS_OPEN.to_gauge(&meter),
        requests_followed: REQUESTS_FOLLOWED.to_gauge(&meter),
        requests_waiting: REQUESTS_WAITING.to_balance(&meter),
        negotiation_seconds: NEGOTIATION_SECONDS.to_histogram(&meter),
        negotiation_rounds: NEGOTIATION_ROUNDS.to_histogram(&meter),
        conflicts: CONFLICTS.to_counter(&meter),
        plan_lookups: PLAN_LOOKUPS.to_counter(&meter),
        replans: REPLANS.to_counter(&meter),
        compile_seconds: COMPILE_SECONDS.to_histogram(&meter),
        actor_restarts: ACTOR_RESTARTS.to_counter(&meter),
        mailbox: MAILBOX.to_gauge(&meter),
        records_refused: RECORDS_REFUSED.to_counter(&meter),
        agents_away: AGENTS_AWAY.to_gauge(&meter),
    }
});

/// What came of a request that passed admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was taken on.
    Accepted,
    /// It was known already.
    Repeated,
    /// There is no room for it, or the ledger failed.
    Refused,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Negotiation,
    Run,
}

/// Counts a request as waiting for as long as it lives.
pub(crate) struct Waiting(KeyValue);

/// Makes every series that can be there from the start.
pub fn prepare() {
    LazyLock::force(&INSTRUMENTS);
}

/// Counts a request that passed admission.
pub fn received(ingress: Ingress, answer: Answer) {
    let answer = match answer {
        Answer::Accepted => "accepted",
        Answer::Repeated => "repeated",
        Answer::Refused => "refused",
    };
    let ingress = match ingress {
        Ingress::CommandLine => "command_line",
        Ingress::Http => "http",
        Ingress::Kafka => "kafka",
        Ingress::Airflow => "airflow",
    };
    let labels = [KeyValue::new(INGRESS.name, ingress), KeyValue::new("answer", answer)];
    INSTRUMENTS.requests_received.add(1, &labels);
}

/// Counts a request that ended; one that did not is not counted.
pub(crate) fn ended(purpose: Purpose, state: RequestState) {
    let outcome = match state {
        RequestState::Succeeded => "succeeded",
        RequestState::Failed => "failed",
        RequestState::Deadlocked => "deadlocked",
        RequestState::Cancelled => "cancelled",
        RequestState::Negotiating
        | RequestState::Sealed
        | RequestState::AwaitingApproval
        | RequestState::Running
        | RequestState::Cancelling => return,
    };
    let purpose = match purpose {
        Purpose::Plan => "plan",
        Purpose::Run => "run",
        Purpose::Apply => "apply",
        Purpose::Pause => "pause",
        Purpose::Delete => "delete",
    };
    let labels = [KeyValue::new(PURPOSE.name, purpose), KeyValue::new("outcome", outcome)];
    INSTRUMENTS.requests.add(1, &labels);
}

/// Counts a plan that was made anew.
pub(crate) fn replanned(class: FailureClass) {
    INSTRUMENTS.replans.add(1, &[KeyValue::new("class", class.as_str())]);
}

pub(crate) fn record_refused() {
    INSTRUMENTS.records_refused.add(1, &[]);
}

pub(crate) fn away(parties: usize) {
    INSTRUMENTS.agents_away.record(parties as u64, &[]);
}

pub(crate) fn load(open: usize, followed: usize) {
    INSTRUMENTS.requests_open.record(open as u64, &[]);
    INSTRUMENTS.requests_followed.record(followed as u64, &[]);
}

pub(crate) fn negotiated(ending: &Ending, transcript: &Transcript, took: Duration) {
    let outcome = match ending {
        Ending::Sealed(_) => "sealed",
        Ending::Deadlocked(_) => "deadlocked",
        Ending::Expired { .. } => "expired",
        Ending::Failed(_) => "failed",
    };
    INSTRUMENTS.negotiation_seconds.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    let mut rounds = 0;
    // The same conflicts go to every participant, and those that are left are told once more at the end.
    let mut conflicts = BTreeSet::new();
    let mut met =
        |met: &[Conflict]| conflicts.extend(met.iter().map(|conflict| (conflict.kind, conflict.subject.clone())));
    for envelope in &transcript.0 {
        match &envelope.body {
            Message::CallForProposals(call) => rounds = rounds.max(call.round),
            Message::Conflicts { round, conflicts } => {
                rounds = rounds.max(*round);
                met(conflicts);
            }
            _ => {}
        }
    }
    match ending {
        Ending::Deadlocked(conflicts) | Ending::Expired { conflicts, .. } => met(conflicts),
        Ending::Sealed(_) | Ending::Failed(_) => {}
    }
    for (kind, _) in conflicts {
        INSTRUMENTS.conflicts.add(1, &[KeyValue::new(KINDS.name, name(kind))]);
    }
    if rounds > 0 {
        INSTRUMENTS.negotiation_rounds.record(f64::from(rounds), &[]);
    }
}

/// Counts whether a plan of the same spec could be used again.
pub(crate) fn plan_looked_up(is_known: bool) {
    let outcome = if is_known { "hit" } else { "miss" };
    INSTRUMENTS.plan_lookups.add(1, &[KeyValue::new("outcome", outcome)]);
}

pub(crate) fn compiled(took: Duration) {
    INSTRUMENTS.compile_seconds.record(took.as_secs_f64(), &[]);
}

/// Counts an agent that was built anew.
pub(crate) fn agent_restarted(role: Role) {
    INSTRUMENTS.actor_restarts.add(1, &[KeyValue::new(ACTOR.name, role.as_str())]);
}

/// Counts a follower of a request that was replaced.
pub(crate) fn follower_restarted() {
    INSTRUMENTS.actor_restarts.add(1, &[KeyValue::new(ACTOR.name, "follower")]);
}

pub(crate) fn mailbox(party: &Party, messages: usize) {
    INSTRUMENTS.mailbox.record(messages as u64, &[KeyValue::new(ACTOR.name, party.role.as_str())]);
}

fn name(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::Cursor => "cursor",
        ConflictKind::Key => "key",
        ConflictKind::UniqueIndex => "unique_index",
        ConflictKind::Type => "type",
        ConflictKind::NotNull => "not_null",
        ConflictKind::MissingColumn => "missing_column",
        ConflictKind::Privilege => "privilege",
        ConflictKind::Unsupported => "unsupported",
        ConflictKind::ReadWrite => "read_write",
        ConflictKind::Memory => "memory",
        ConflictKind::Deadline => "deadline",
        ConflictKind::Space => "space",
        ConflictKind::NoOffer => "no_offer",
    }
}

// === impl Waiting ===

impl Waiting {
    pub(crate) fn begin(place: Place) -> Self {
        let place = match place {
            Place::Negotiation => "negotiation",
            Place::Run => "run",
        };
        let label = KeyValue::new("place", place);
        INSTRUMENTS.requests_waiting.add(1, std::slice::from_ref(&label));
        Self(label)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        INSTRUMENTS.requests_waiting.add(-1, std::slice::from_ref(&self.0));
    }
}
