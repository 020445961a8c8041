//! The service over a stand-in for the world and the engine: what is taken on has one outcome, whatever happens between.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dagwright_agents::{
    Arrival, Ports, Service,
    ports::{Observer, SystemClock},
    service::{Load, Refused, Resources, Settings, Submitted},
};
use dagwright_bus::in_process::InProcess;
use dagwright_engine::{Engine, Error as EngineError, Job, RunOutcome};
use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    code::Code,
    facts::{ProbeReply, ProbeRequest, TypingReply, TypingRequest},
    id::{PlanHash, RequestId},
    message::{Bounds, Facts, Observation},
    plan::Plan,
    record::{
        Accepted, Cancelled, Decision, Followed, Ingress, PipelineStatus, Purpose, Record, RecordBody, RunEnded,
        RunStarted,
    },
    spec::Spec,
    task::{Counts, Status},
};
use dagwright_store::{
    Error as StoreError, MemoryStore, Outbox, PipelineSummary, Register, RequestState, RequestSummary, Store,
};
use tokio::sync::{Notify, Semaphore};

/// A world that looks as it did when the facts of an example were recorded.
struct Remembered(Facts);

#[async_trait]
impl Observer for Remembered {
    async fn probe(&self, request: &ProbeRequest) -> ProbeReply {
        match request {
            ProbeRequest::Source { name, .. } => ProbeReply::Source(self.0.sources[name].clone()),
            ProbeRequest::Sink { name, .. } => ProbeReply::Sink(self.0.sinks[name].clone()),
        }
    }

    async fn type_steps(&self, _: &TypingRequest) -> TypingReply {
        TypingReply::Typed(self.0.typing.clone())
    }
}

/// An engine whose runs end when they are let.
#[derive(Debug)]
struct Stage {
    let_end: Semaphore,
    begun: Mutex<Vec<RequestId>>,
    panics: AtomicUsize,
}

#[async_trait]
impl Engine for Stage {
    async fn run(&self, job: Job, started: RunStarted) -> Result<RunOutcome, EngineError> {
        let next = || job.store.request(&job.request).expect("reads").expect("known");
        let append = |body| {
            let record = Record { request: job.request.clone(), sequence: next().next_sequence, at: 0, body };
            job.store.append(&[record]).expect("appends");
        };
        let left = self.panics.load(Ordering::SeqCst);
        if left > 0 {
            self.panics.store(left - 1, Ordering::SeqCst);
            panic!("the engine is wrong");
        }
        if next().run_started_at.is_none() {
            append(RecordBody::RunStarted(Box::new(started)));
        }
        self.begun.lock().expect("no panic").push(job.request.clone());
        self.let_end.acquire().await.expect("open").forget();
        let (status, counts) = (Status::Succeeded, Counts::default());
        append(RecordBody::RunEnded(RunEnded { status, problem: None, counts: counts.clone(), setback: None }));
        Ok(RunOutcome { status, problem: None, counts, setback: None, tasks: Vec::new() })
    }

    async fn resume(&self, job: Job) -> Result<RunOutcome, EngineError> {
        Err(EngineError::NotStarted { request: job.request })
    }
}

/// A ledger that refuses some appends, as one does whose pipeline was another's for a moment.
#[derive(Debug)]
struct Fickle {
    store: Arc<MemoryStore>,
    refusals: AtomicUsize,
    is_ours: AtomicBool,
}

impl Store for Fickle {
    fn append(&self, records: &[Record]) -> Result<(), StoreError> {
        let begins = matches!(records[0].body, RecordBody::Accepted(_));
        let left = self.refusals.load(Ordering::SeqCst);
        if begins || left == 0 {
            return self.store.append(records);
        }
        self.refusals.store(left - 1, Ordering::SeqCst);
        let request = records[0].request.clone();
        Err(if left.is_multiple_of(2) {
            StoreError::Elsewhere { request }
        } else {
            StoreError::Conflict { request, expected: records[0].sequence + 1, given: records[0].sequence }
        })
    }

    fn read(&self, request: &RequestId, from: u64) -> Result<Vec<Record>, StoreError> {
        self.store.read(request, from)
    }

    fn request(&self, request: &RequestId) -> Result<Option<RequestSummary>, StoreError> {
        self.store.request(request)
    }

    fn requests(&self, pipeline: &str, limit: usize) -> Result<Vec<RequestSummary>, StoreError> {
        self.store.requests(pipeline, limit)
    }

    fn unfinished(&self, run_key: &str) -> Result<Option<RequestId>, StoreError> {
        self.store.unfinished(run_key)
    }

    fn baseline(&self, pipeline: &str) -> Result<Option<PlanHash>, StoreError> {
        self.store.baseline(pipeline)
    }

    fn plan(&self, hash: &PlanHash) -> Result<Option<Plan>, StoreError> {
        self.store.plan(hash)
    }

    fn fact(&self, key: &str) -> Result<Option<Observation>, StoreError> {
        self.store.fact(key)
    }
}

impl Register for Fickle {
    fn open_requests(&self) -> Result<Vec<RequestId>, StoreError> {
        self.store.open_requests()
    }

    fn recent(
        &self,
        pipeline: Option<&str>,
        before: Option<(u64, &RequestId)>,
        limit: usize,
    ) -> Result<Vec<RequestSummary>, StoreError> {
        self.store.recent(pipeline, before, limit)
    }

    fn pipeline(&self, pipeline: &str) -> Result<Option<PipelineSummary>, StoreError> {
        self.store.pipeline(pipeline)
    }

    fn pipelines(&self, after: &str, limit: usize) -> Result<Vec<PipelineSummary>, StoreError> {
        self.store.pipelines(after, limit)
    }

    fn bookmark(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.store.bookmark(name)
    }

    fn keep_bookmark(&self, name: &str, at: u64) -> Result<(), StoreError> {
        self.store.keep_bookmark(name, at)
    }

    fn acts_for(&self, _: &str) -> bool {
        self.is_ours.load(Ordering::SeqCst)
    }

    fn ask(&self, ask: &Ask) -> Result<bool, StoreError> {
        self.store.ask(ask)
    }

    fn asks(&self, request: &RequestId) -> Result<Vec<Ask>, StoreError> {
        self.store.asks(request)
    }

    fn asked(&self) -> Result<Vec<(RequestId, AskKind)>, StoreError> {
        self.store.asked()
    }
}

struct World {
    store: Arc<MemoryStore>,
    engine: Arc<Stage>,
    facts: Facts,
    facts_age_max: Duration,
    text: String,
    /// Notified after whatever the ledger tells.
    news: Arc<Notify>,
}

impl World {
    fn new(let_end: usize) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a file of the repository");
        let (store, news) = (Arc::new(MemoryStore::default()), Arc::new(Notify::new()));
        let told = news.clone();
        store.listen(Arc::new(move |_| told.notify_waiters()));
        Self {
            store,
            news,
            engine: Arc::new(Stage {
                let_end: Semaphore::new(let_end),
                begun: Mutex::default(),
                panics: AtomicUsize::new(0),
            }),
            facts: serde_json::from_str(&read("crates/negotiation/tests/facts/flights.json")).expect("facts"),
            facts_age_max: Duration::ZERO,
            text: read("examples/flights.yaml"),
        }
    }

    async fn start(&self) -> Service {
        self.start_on(self.store.clone()).await
    }

    async fn start_on(&self, register: Arc<dyn Register>) -> Service {
        let agents = Ports {
            bus: Arc::new(InProcess::new()),
            observer: Arc::new(Remembered(self.facts.clone())),
            store: register.clone(),
            clock: Arc::new(SystemClock),
            lineup: dagwright_agents::Lineup::default(),
        };
        let resources = Resources { agents, register, engine: self.engine.clone(), connections: BTreeMap::new() };
        let settings = Settings {
            staging: "/staging".into(),
            quarantine: "/quarantine".into(),
            bounds: Bounds::default(),
            replans_max: 2,
            facts_age_max: self.facts_age_max,
            negotiations_max: 4,
            runs_max: 4,
            open_max: 8,
        };
        let service = Service::start(resources, settings).await.expect("starts");
        service.go_on(|_| true).await.expect("goes on");
        service
    }

    fn accepted(&self, purpose: Purpose) -> Accepted {
        let spec = Spec::parse(&self.text).expect("a valid spec");
        Accepted {
            pipeline: spec.dag_id(),
            spec_text: self.text.clone(),
            spec_hash: spec.hash(),
            ingress: Ingress::Http,
            purpose,
            base: Some("/base".into()),
            params: BTreeMap::new(),
            interval: None,
            backfill: false,
            revision: None,
            identity: None,
            requester: Some("ann".into()),
            traceparent: None,
            follows: None,
        }
    }

    fn state(&self, request: &str) -> Option<RequestState> {
        self.store.request(&id(request)).expect("reads").map(|summary| summary.state)
    }

    async fn until(&self, request: &str, wanted: RequestState) {
        self.eventually(|| self.state(request) == Some(wanted)).await;
    }

    /// Waits for a condition that comes about with something that the ledger tells.
    async fn eventually(&self, mut holds: impl FnMut() -> bool) {
        let wait = async {
            loop {
                let news = self.news.notified();
                let mut news = std::pin::pin!(news);
                news.as_mut().enable();
                if holds() {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes about within a minute");
    }

    fn told(&self, request: &str) -> Vec<&'static str> {
        let events = self.store.events(0, 1000).expect("reads");
        let of = events.into_iter().filter(|(_, event)| event.data.request_id == id(request));
        of.map(|(_, event)| event.kind.as_str()).collect()
    }
}

fn id(text: &str) -> RequestId {
    RequestId(text.into())
}

fn check(test: impl Future<Output = ()>) {
    actix::System::new().block_on(test);
}

#[track_caller]
fn code(refused: Result<impl std::fmt::Debug, Refused>) -> Code {
    match refused {
        Err(Refused::Problem(problem)) => problem.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_seen_through_and_a_repeat_changes_nothing() {
    check(async {
        let world = World::new(9);
        let service = world.start().await;
        let submit = || service.submit(id("a"), world.accepted(Purpose::Run));
        assert_eq!(submit().await.expect("taken on"), Submitted::Accepted);
        world.until("a", RequestState::Succeeded).await;
        assert_eq!(submit().await.expect("known"), Submitted::Repeated);
        let wanted =
            ["request.accepted", "plan.sealed", "dag.compiled", "dag.compiled", "run.started", "run.succeeded"];
        assert_eq!(world.told("a"), wanted);
        assert_eq!(world.engine.begun.lock().expect("no panic").len(), 1);
        world.eventually(|| world.store.open_requests().expect("reads").is_empty()).await;
    });
}

#[test]
fn requests_of_a_pipeline_run_one_after_the_other() {
    check(async {
        let world = World::new(0);
        let service = world.start().await;
        for request in ["a", "b", "c"] {
            service.submit(id(request), world.accepted(Purpose::Run)).await.expect("taken on");
        }
        world.until("a", RequestState::Running).await;
        service.cancel(&id("b"), Some("eve".into())).await.expect("heard");
        world.until("b", RequestState::Cancelled).await;
        assert_eq!(world.state("c"), Some(RequestState::Negotiating), "its turn has not come");
        assert_eq!(code(service.cancel(&id("b"), None).await), Code::NothingToDecide);
        assert_eq!(code(service.cancel(&id("z"), None).await), Code::RequestUnknown);
        world.engine.let_end.add_permits(2);
        world.until("c", RequestState::Succeeded).await;
        assert_eq!(*world.engine.begun.lock().expect("no panic"), [id("a"), id("c")]);
    });
}

#[test]
fn what_was_open_goes_on_with_the_next_process() {
    check(async {
        let world = World::new(0);
        let service = world.start().await;
        for request in ["a", "b"] {
            service.submit(id(request), world.accepted(Purpose::Run)).await.expect("taken on");
        }
        world.until("a", RequestState::Running).await;
        service.drain(Duration::ZERO).await;
        assert_eq!(code(service.submit(id("c"), world.accepted(Purpose::Run)).await), Code::Overloaded);
        drop(service);
        world.engine.let_end.add_permits(9);
        let _service = world.start().await;
        world.until("a", RequestState::Succeeded).await;
        world.until("b", RequestState::Succeeded).await;
        assert_eq!(world.told("a").iter().filter(|kind| **kind == "run.started").count(), 1);
    });
}

#[test]
fn a_request_whose_follower_is_lost_goes_on_and_poison_fails_to_hold_others_up() {
    check(async {
        let world = World::new(9);
        world.engine.panics.store(2, Ordering::SeqCst);
        let service = world.start().await;
        service.submit(id("a"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("a", RequestState::Succeeded).await;

        world.engine.panics.store(3, Ordering::SeqCst);
        service.submit(id("poison"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("poison", RequestState::Failed).await;
        service.submit(id("b"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("b", RequestState::Succeeded).await;
        let lost = world.store.request(&id("poison")).expect("reads").expect("known");
        assert_eq!(lost.problem.map(|problem| problem.code), Some(Code::AgentLost));
    });
}

#[test]
fn a_request_goes_on_whose_pipeline_was_lost_and_won_again_at_once() {
    check(async {
        let world = World::new(0);
        let service = world.start().await;
        let accepted = world.accepted(Purpose::Run);
        let pipeline = accepted.pipeline.clone();
        service.submit(id("a"), accepted).await.expect("taken on");
        world.until("a", RequestState::Running).await;
        // It comes back before whoever follows the request has heard that it was lost.
        tokio::join!(
            service.release(|_| true),
            service.take_on(vec![Arrival {
                pipeline,
                request: id("a"),
                purpose: Purpose::Run,
                ingress: Ingress::Http
            }])
        );
        world.engine.let_end.add_permits(9);
        world.until("a", RequestState::Succeeded).await;
        assert_eq!(world.told("a").iter().filter(|kind| **kind == "run.started").count(), 1);
    });
}

#[test]
fn a_run_that_airflow_started_waits_for_nobody() {
    check(async {
        let world = World::new(0);
        let service = world.start().await;
        service.submit(id("a"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("a", RequestState::Running).await;
        let plan = world.store.request(&id("a")).expect("reads").expect("known").plan.expect("a plan");
        let follows = Some(Followed { dag_run: "by-hand".into(), plan });
        let adopted = Accepted { ingress: Ingress::Airflow, follows, ..world.accepted(Purpose::Run) };
        service.submit(id("b"), adopted).await.expect("taken on");
        // One at a time is what the plan says of runs that we start.
        service.submit(id("c"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("b", RequestState::Running).await;
        assert_eq!(world.store.request(&id("c")).expect("reads").expect("known").state, RequestState::Negotiating);
        world.engine.let_end.add_permits(9);
        for request in ["a", "b", "c"] {
            world.until(request, RequestState::Succeeded).await;
        }
    });
}

#[test]
fn a_request_goes_on_for_which_the_ledger_took_no_record_for_a_while() {
    check(async {
        let world = World::new(9);
        let fickle = Arc::new(Fickle {
            store: world.store.clone(),
            refusals: AtomicUsize::new(0),
            is_ours: AtomicBool::new(true),
        });
        let service = world.start_on(fickle.clone()).await;
        // First nothing of the negotiation, later nothing of what follows.
        for (request, refusals) in [("a", 1), ("b", 2), ("c", 5)] {
            fickle.refusals.store(refusals, Ordering::SeqCst);
            service.submit(id(request), world.accepted(Purpose::Run)).await.expect("taken on");
            world.until(request, RequestState::Succeeded).await;
            let wanted =
                ["request.accepted", "plan.sealed", "dag.compiled", "dag.compiled", "run.started", "run.succeeded"];
            assert_eq!(world.told(request), wanted);
        }
    });
}

#[test]
fn a_plan_is_approved_by_somebody_else() {
    check(async {
        let mut world = World::new(9);
        world.text = world.text.replace("approval: never", "approval: always");
        let service = world.start().await;
        service.submit(id("a"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("a", RequestState::AwaitingApproval).await;
        let plan = world.store.request(&id("a")).expect("reads").and_then(|summary| summary.plan).expect("sealed");
        assert_eq!(code(service.decide(&plan, true, Some("ann".into())).await), Code::ApprovalOwn);
        assert_eq!(service.decide(&plan, true, Some("eve".into())).await.expect("decided"), [id("a")]);
        world.until("a", RequestState::Succeeded).await;
        assert_eq!(code(service.decide(&plan, true, Some("eve".into())).await), Code::NothingToDecide);
    });
}

#[test]
fn what_was_asked_is_done_by_the_next_process() {
    check(async {
        let mut world = World::new(0);
        world.text = world.text.replace("approval: never", "approval: always");
        let service = world.start().await;
        for request in ["a", "b"] {
            service.submit(id(request), world.accepted(Purpose::Run)).await.expect("taken on");
        }
        world.until("a", RequestState::AwaitingApproval).await;
        service.drain(Duration::ZERO).await;
        drop(service);
        // Asked of a process that was killed before it told anybody.
        let pipeline = world.accepted(Purpose::Run).pipeline;
        let plan_hash = world.store.request(&id("a")).expect("reads").and_then(|summary| summary.plan).expect("sealed");
        let ask = |request, body| {
            let ask = Ask { request: id(request), pipeline: pipeline.clone(), at: 0, body };
            assert!(world.store.ask(&ask).expect("asks"));
        };
        ask("a", AskBody::Approve(Decision { plan_hash, by: Some("eve".into()) }));
        ask("b", AskBody::Cancel(Cancelled { by: Some("eve".into()) }));
        let service = world.start().await;
        world.until("a", RequestState::Running).await;
        world.until("b", RequestState::Cancelled).await;
        assert_eq!(world.store.asked().expect("reads"), []);
        let by = |request| {
            let records = world.store.read(&id(request), 0).expect("reads");
            let who: Vec<_> = records
                .into_iter()
                .filter_map(|record| match record.body {
                    RecordBody::Approved(decision) => decision.by,
                    RecordBody::Cancelled(cancelled) => cancelled.by,
                    _ => None,
                })
                .collect();
            who
        };
        assert_eq!((by("a"), by("b")), (vec!["eve".to_owned()], vec!["eve".to_owned()]));
        world.engine.let_end.add_permits(1);
        world.until("a", RequestState::Succeeded).await;
        drop(service);
    });
}

#[test]
fn what_another_process_acts_for_is_asked_and_left_to_it() {
    check(async {
        let mut world = World::new(9);
        world.text = world.text.replace("approval: never", "approval: always");
        let refusals = AtomicUsize::new(0);
        let fickle = Arc::new(Fickle { store: world.store.clone(), refusals, is_ours: AtomicBool::new(true) });
        let service = world.start_on(fickle.clone()).await;
        service.submit(id("a"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("a", RequestState::AwaitingApproval).await;
        let plan = world.store.request(&id("a")).expect("reads").and_then(|summary| summary.plan).expect("sealed");

        fickle.is_ours.store(false, Ordering::SeqCst);
        assert_eq!(code(service.decide(&plan, true, Some("ann".into())).await), Code::ApprovalOwn);
        for (approved, by) in [(true, "eve"), (false, "bob")] {
            let asked = service.decide(&plan, approved, Some(by.into())).await.expect("asked");
            assert_eq!(asked, [id("a")], "the first one counts");
        }
        for _ in 0..2 {
            let handed_on = service.hand_on(id("b"), world.accepted(Purpose::Run)).await;
            assert_eq!(handed_on.expect("handed on"), Submitted::Accepted);
        }
        let repeated = service.hand_on(id("a"), world.accepted(Purpose::Run)).await;
        assert_eq!(repeated.expect("known"), Submitted::Repeated);
        let asked = world.store.asked().expect("reads");
        assert_eq!(asked, [(id("a"), AskKind::Decide), (id("b"), AskKind::TakeOn)]);
        assert_eq!((world.state("a"), world.state("b")), (Some(RequestState::AwaitingApproval), None));

        fickle.is_ours.store(true, Ordering::SeqCst);
        service.hear(&id("a")).await.expect("hears");
        world.until("a", RequestState::Succeeded).await;
        assert_eq!(world.store.asked().expect("reads"), [(id("b"), AskKind::TakeOn)]);
    });
}

#[test]
fn who_asked_for_a_plan_cannot_decide_whatever_the_ledger_holds() {
    check(async {
        let mut world = World::new(9);
        world.text = world.text.replace("approval: never", "approval: always");
        let service = world.start().await;
        service.submit(id("a"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("a", RequestState::AwaitingApproval).await;
        let known = world.store.request(&id("a")).expect("reads").expect("known");
        let decision = Decision { plan_hash: known.plan.expect("sealed"), by: Some("ann".into()) };
        let ask = Ask { request: id("a"), pipeline: known.pipeline, at: 0, body: AskBody::Approve(decision) };
        assert!(world.store.ask(&ask).expect("asks"));
        service.hear(&id("a")).await.expect("hears");
        service.cancel(&id("a"), Some("eve".into())).await.expect("heard");
        world.until("a", RequestState::Cancelled).await;
        assert_eq!(world.engine.begun.lock().expect("no panic").len(), 0);
    });
}

#[test]
fn a_revision_is_applied_and_a_paused_pipeline_runs_nothing() {
    check(async {
        let world = World::new(9);
        let service = world.start().await;
        let pipeline = world.accepted(Purpose::Run).pipeline;
        service.submit(id("a"), world.accepted(Purpose::Apply)).await.expect("taken on");
        world.until("a", RequestState::Succeeded).await;
        let known = world.store.pipeline(&pipeline).expect("reads").expect("known");
        assert_eq!((known.status, known.revision, known.applied), (PipelineStatus::Active, 1, Some(id("a"))));
        service.submit(id("b"), world.accepted(Purpose::Pause)).await.expect("taken on");
        world.until("b", RequestState::Succeeded).await;
        service.submit(id("c"), world.accepted(Purpose::Run)).await.expect("taken on");
        world.until("c", RequestState::Failed).await;
        let stale = Accepted { revision: Some(1), ..world.accepted(Purpose::Apply) };
        service.submit(id("d"), stale).await.expect("taken on");
        world.until("d", RequestState::Failed).await;
        assert_eq!(world.told("d"), ["request.accepted", "request.rejected"]);
    });
}

#[test]
fn what_was_found_lately_counts_as_known() {
    check(async {
        let mut world = World::new(9);
        world.facts_age_max = Duration::from_secs(3600);
        let service = world.start().await;
        for request in ["a", "b"] {
            service.submit(id(request), world.accepted(Purpose::Run)).await.expect("taken on");
            world.until(request, RequestState::Succeeded).await;
        }
        let summary = |request| world.store.request(&id(request)).expect("reads").expect("known");
        assert_eq!(summary("a").plan, summary("b").plan);
        assert_eq!(world.told("a"), world.told("b"));
        let records = world.store.read(&id("b"), 0).expect("reads");
        let RecordBody::PlanReused(reused) = &records[1].body else { panic!("{:?}", records[1].body) };
        assert_eq!(reused.from, id("a"));
    });
}

#[test]
fn no_more_is_taken_on_than_can_be_kept_in_mind() {
    check(async {
        let world = World::new(0);
        let service = world.start().await;
        for index in 0..8 {
            service.submit(id(&format!("r{index}")), world.accepted(Purpose::Run)).await.expect("taken on");
        }
        assert_eq!(code(service.submit(id("more"), world.accepted(Purpose::Run)).await), Code::Overloaded);
        assert_eq!(service.load().await, Load { open: 8, followed: 1 });
        world.engine.let_end.add_permits(8);
        world.until("r7", RequestState::Succeeded).await;
    });
}
