//! Stand-ins for the world, and for its accidents.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use dagwright_agents::{
    Error, Lineup, Matter, Negotiated, Ports, Team,
    ports::{Observer, SystemClock},
};
use dagwright_bus::{Bus, Subscription, Topic, in_process::InProcess, letter};
use dagwright_model::{
    facts::{
        ColumnProfile, Count, Identity, Privileges, ProbeReply, ProbeRequest, SinkInspection, SourceProfile,
        TextCompression, TextProfile, TransformTyping, TypingReply, TypingRequest,
    },
    id::{PlanHash, RequestId},
    message::{Bounds, Envelope, Observation},
    plan::Plan,
    record::{Accepted, Ingress, Purpose, Record, RecordBody},
    schema::Column,
    spec::{Encoding, FileFormat, Spec},
};
use dagwright_store::{MemoryStore, RequestSummary, Store};

/// Panics the first few times that something happens to which the condition holds.
pub(crate) struct Tripwire<T: ?Sized> {
    trips: AtomicUsize,
    condition: Box<dyn Fn(&T) -> bool + Send + Sync>,
}

/// A world in which every file has a column of numbers, and no sink exists yet.
pub(crate) struct Sunny(pub(crate) Tripwire<ProbeRequest>);

/// A bus that panics in the hands of whoever publishes certain messages.
pub(crate) struct Mined(pub(crate) InProcess, pub(crate) Tripwire<Envelope>);

/// A ledger that panics in the hands of whoever appends certain records.
pub(crate) struct Collapsing {
    pub(crate) ledger: MemoryStore,
    pub(crate) before: Tripwire<[Record]>,
    pub(crate) after: Tripwire<[Record]>,
    /// How many records each append had.
    pub(crate) appended: Mutex<Vec<usize>>,
}

// === impl Tripwire ===

impl<T: ?Sized> Tripwire<T> {
    pub(crate) fn new(trips: usize, condition: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self { trips: AtomicUsize::new(trips), condition: Box::new(condition) }
    }

    pub(crate) fn never() -> Self {
        Self::new(0, |_| false)
    }

    fn pass(&self, what: &T) {
        let trips =
            (self.condition)(what) && self.trips.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        assert!(!trips, "an accident that the test arranged");
    }
}

// === impl Sunny ===

#[async_trait]
impl Observer for Sunny {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        // The question is on its way out of the agent before the accident.
        tokio::task::yield_now().await;
        self.0.pass(request);
        let identity = Identity { scheme: "file".into(), ..Identity::default() };
        match request {
            ProbeRequest::Source { name, .. } => ProbeReply::Source(SourceProfile {
                source: name.clone(),
                identity,
                exists: true,
                format: Some(FileFormat::Csv),
                text: Some(TextProfile {
                    encoding: Encoding::Utf8,
                    compression: TextCompression::None,
                    delimiter: Some(','),
                    quote: Some('"'),
                    escape: None,
                    header: true,
                    ragged: 0,
                }),
                columns: vec![ColumnProfile {
                    column: Column { name: "id".into(), data_type: "int64".parse().expect("a type"), nullable: false },
                    confidence: 100,
                    nulls: 0,
                    distinct: None,
                    min: None,
                    max: None,
                    misfits: BTreeMap::new(),
                    classified: false,
                }],
                rows: Count { value: 1000, exact: true },
                bytes: Count { value: 100_000, exact: true },
                files: 1,
                rows_sampled: 1000,
                candidate_keys: Vec::new(),
                key_checks: Vec::new(),
                watermarks: Vec::new(),
                splits: Vec::new(),
                fingerprint: "f".into(),
            }),
            ProbeRequest::Sink { name, .. } => ProbeReply::Sink(SinkInspection {
                sink: name.clone(),
                identity,
                exists: false,
                columns: Vec::new(),
                unique_keys: Vec::new(),
                rows: None,
                privileges: Privileges { create: true, insert: true, update: true, delete: true, alter: true },
                bytes_free: None,
                referenced_by: Vec::new(),
            }),
        }
    }

    async fn type_steps(&self, _: &TypingRequest) -> TypingReply {
        TypingReply::Typed(TransformTyping::default())
    }
}

// === impl Mined ===

#[async_trait]
impl Bus for Mined {
    async fn publish(&self, topic: Topic, record: dagwright_bus::Record) -> Result<(), dagwright_bus::Error> {
        if let Some(letter) = letter::letter_in(&record)? {
            self.1.pass(&letter.envelope);
        }
        self.0.publish(topic, record).await
    }

    async fn subscribe(&self, topic: Topic, group: &str) -> Result<Subscription, dagwright_bus::Error> {
        self.0.subscribe(topic, group).await
    }
}

// === impl Collapsing ===

impl Default for Collapsing {
    fn default() -> Self {
        Self::new(Tripwire::never(), Tripwire::never())
    }
}

impl Collapsing {
    pub(crate) fn new(before: Tripwire<[Record]>, after: Tripwire<[Record]>) -> Self {
        Self { ledger: MemoryStore::default(), before, after, appended: Mutex::default() }
    }

    pub(crate) fn records(&self, request: &str) -> Vec<Record> {
        self.ledger.read(&RequestId(request.into()), 0).expect("reads")
    }
}

impl fmt::Debug for Collapsing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ledger.fmt(f)
    }
}

impl Store for Collapsing {
    fn append(&self, records: &[Record]) -> Result<(), dagwright_store::Error> {
        self.before.pass(records);
        self.ledger.append(records)?;
        self.appended.lock().expect("unharmed").push(records.len());
        self.after.pass(records);
        Ok(())
    }

    fn read(&self, request: &RequestId, from: u64) -> Result<Vec<Record>, dagwright_store::Error> {
        self.ledger.read(request, from)
    }

    fn request(&self, request: &RequestId) -> Result<Option<RequestSummary>, dagwright_store::Error> {
        self.ledger.request(request)
    }

    fn requests(&self, pipeline: &str, limit: usize) -> Result<Vec<RequestSummary>, dagwright_store::Error> {
        self.ledger.requests(pipeline, limit)
    }

    fn unfinished(&self, run_key: &str) -> Result<Option<RequestId>, dagwright_store::Error> {
        self.ledger.unfinished(run_key)
    }

    fn baseline(&self, pipeline: &str) -> Result<Option<PlanHash>, dagwright_store::Error> {
        self.ledger.baseline(pipeline)
    }

    fn plan(&self, hash: &PlanHash) -> Result<Option<Plan>, dagwright_store::Error> {
        self.ledger.plan(hash)
    }

    fn fact(&self, key: &str) -> Result<Option<Observation>, dagwright_store::Error> {
        self.ledger.fact(key)
    }
}

/// A spec over a CSV file of this name.
pub(crate) fn spec(file: &str) -> Spec {
    let text =
        format!("version: 1\npipeline: p\nsource: {{ uri: {file} }}\nsink: {{ uri: {file}.parquet, mode: replace }}\n");
    Spec::parse(&text).expect("a valid spec")
}

/// The first record of a request.
pub(crate) fn accepted(request: &str, spec: &Spec) -> Record {
    let body = RecordBody::Accepted(Box::new(Accepted {
        pipeline: spec.dag_id(),
        spec_text: String::new(),
        spec_hash: spec.hash(),
        ingress: Ingress::CommandLine,
        purpose: Purpose::Plan,
        base: None,
        params: BTreeMap::new(),
        interval: None,
        backfill: false,
        revision: None,
        identity: None,
        requester: None,
        traceparent: None,
        follows: None,
    }));
    Record { request: RequestId(request.into()), sequence: 0, at: 0, body }
}

/// A team in a world, and the accidents it meets.
pub(crate) struct Cast {
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lineup: Lineup,
}

// === impl Cast ===

impl Cast {
    /// Everyone in good health, with this ledger.
    pub(crate) fn healthy(store: &Arc<Collapsing>) -> Self {
        Self {
            observer: Arc::new(Sunny(Tripwire::never())),
            bus: Arc::new(InProcess::new()),
            store: store.clone(),
            lineup: Lineup::default(),
        }
    }

    pub(crate) async fn start(self) -> Result<Team, Error> {
        let Self { observer, bus, store, lineup } = self;
        Team::start(Ports { bus, observer, store, clock: Arc::new(SystemClock), lineup }).await
    }
}

/// Lets a team negotiate over a file, for the request of the same name.
pub(crate) async fn negotiate(team: &Team, file: &str) -> Result<Negotiated, Error> {
    // An ending that nobody noticed would be waited for until then, and be no plan.
    let bounds = Bounds { observe_ms_max: 20_000, ..Bounds::default() };
    team.negotiate(RequestId(file.into()), spec(file), bounds, Matter::first()).await
}
