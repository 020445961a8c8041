//! The life of one request as a pure machine, from its acceptance to its end: no clock, no I/O.
//!
//! ```text
//!            Turn                 Negotiated                  Decided               Deployed
//!   Waiting ──────► Negotiating ─────────────► (approval?) ───────────► Deploying ───────────► Running ──► Ended
//!      │                 │  ▲                                               │                    │
//!      │                 │  └────────────────────── setback: another plan ──┼────────────────────┘
//!      └─ pause, delete, stale revision, paused pipeline ───────────────────┴─ apply ──► Ended
//! ```
//!
//! A run that fails in a way that another plan may not is a setback: the agents negotiate the next version of the plan, with
//! the setback as a fact, and everything after that is as for the first one. How often, is bounded.
//!
//! Deploying takes no time where the engine keeps no pipelines. A run that Airflow or somebody in it started is followed:
//! its plan is known, and nothing is negotiated or deployed.
//!
//! Records come before other effects, and are what the state is folded from: [`Lifecycle::replay`] over the ledger gives
//! the state that [`Lifecycle::apply`] had when it recorded. What was to be done then is done again at [`Event::Turn`],
//! so a request goes on after a crash at any moment. The negotiation and the run record their own steps; here stands only
//! what lies between them.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use dagwright_engine::Replanning;
use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId},
    plan::Plan,
    record::{
        Accepted, ApprovalNeeded, Cancelled, Decision, Ended, Followed, PipelineChanged, PipelineStatus, PlanReused,
        Purpose, RecordBody, Replanned, RunEnded,
    },
    setback::{SchemaDrift, Setback},
    spec::{Approval, SchemaChange},
    task::Problem,
};
use dagwright_negotiation::{changes, drift, session::Ending};

use crate::agreed::Agreed;

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// It may go on, for the first time or again after its keeper was lost.
    Turn {
        /// What the pipeline is now.
        pipeline: Pipeline,
    },
    /// The agents came to an end, which they have recorded.
    Negotiated(Ending),
    /// What was agreed on for another request holds for this one too.
    Reused {
        /// The plan.
        plan: Arc<Agreed>,
        /// The other request.
        from: RequestId,
    },
    /// A person decided about the plan.
    Decided {
        /// Whether it is approved.
        approved: bool,
        /// Who decided.
        by: Option<String>,
    },
    /// Somebody wants it to stop.
    CancelRequested {
        /// Who.
        by: Option<String>,
    },
    /// What was to be changed where pipelines are kept is changed there, or cannot be.
    Deployed(Result<(), Problem>),
    /// The run ended, which the engine has recorded, with what it taught where the plan is to be made anew for it.
    RunEnded(Option<Box<Setback>>),
    /// Its keeper was lost again and again, or cannot go on.
    GivenUp(Problem),
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Append this; all records of a step together, before anything else is done.
    Record(RecordBody),
    /// Let the agents negotiate, after these setbacks; send [`Event::Negotiated`].
    Negotiate(Vec<Setback>),
    /// Look the plan of a run up; send [`Event::Reused`], or [`Event::GivenUp`] where nobody has it.
    LookUp(PlanHash),
    /// Change what is kept of the pipeline elsewhere; send [`Event::Deployed`].
    Deploy(Deployment),
    /// Run the plan, or go on with its run; send [`Event::RunEnded`].
    Run {
        /// The plan.
        plan: Arc<Agreed>,
        /// Which version of the request's plan it is, from 1.
        version: u32,
        /// Whether another one may take its place.
        replanning: Replanning,
    },
    /// Tell the run to stop.
    StopRun {
        /// Who wants it.
        by: Option<String>,
    },
    /// Nothing further happens.
    End,
}

/// What is to be changed where pipelines are kept.
#[derive(Clone, Debug)]
pub(crate) enum Deployment {
    /// The plan becomes the pipeline's; it runs by its schedule if `active`.
    Plan {
        /// The plan.
        plan: Arc<Agreed>,
        /// Whether it rested, and rests no more.
        resume: bool,
    },
    /// It rests.
    Pause,
    /// It goes.
    Remove,
}

/// A pipeline as far as its requests depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pipeline {
    /// Whether it runs.
    pub(crate) status: PipelineStatus,
    /// The applied revision; 0 when none was.
    pub(crate) revision: u64,
}

/// Says that a record does not fit the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit;

/// One request.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    purpose: Purpose,
    revision: Option<u64>,
    /// The revision that an apply will have made, known from its turn on.
    next_revision: u64,
    stage: Stage,
    plan: Option<Arc<Agreed>>,
    /// The plan that `plan` takes the place of.
    previous: Option<Arc<Agreed>>,
    /// What runs have taught, one for each version of the plan before this one.
    setbacks: Vec<Setback>,
    /// Whether it is recorded how this version of the plan differs from the one before.
    replanned: bool,
    /// How often the plan may be made anew.
    replans_max: u32,
    approved: bool,
    compiled: bool,
    /// The run that is there already.
    follows: Option<Followed>,
    /// Whether pipelines are kept elsewhere, where a plan is deployed before it runs.
    deploys: bool,
    /// What the pipeline was at its turn.
    pipeline: Pipeline,
    /// Who wants it to stop as soon as the agents have come to an end.
    cancelled: Option<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its turn has not come.
    Waiting,
    /// The agents negotiate.
    Negotiating,
    /// There is a plan, and nothing holds it up.
    Sealed,
    /// The plan waits for a person.
    AwaitingApproval,
    /// What is kept of the pipeline elsewhere is being changed.
    Deploying,
    /// The plan runs.
    Running,
    /// Nothing further happens.
    Ended,
}

// === impl Lifecycle ===

impl Lifecycle {
    /// Makes the life of a request that was just accepted; `deploys` tells whether pipelines are kept elsewhere, `replans_max`
    /// how often its plan may be made anew.
    pub(crate) fn new(accepted: &Accepted, deploys: bool, replans_max: u32) -> Self {
        Self {
            purpose: accepted.purpose,
            revision: accepted.revision,
            next_revision: 0,
            stage: Stage::Waiting,
            plan: None,
            previous: None,
            setbacks: Vec::new(),
            replanned: false,
            replans_max,
            approved: false,
            compiled: false,
            follows: accepted.follows.clone(),
            deploys,
            pipeline: Pipeline { status: PipelineStatus::Active, revision: 0 },
            cancelled: None,
        }
    }

    /// Takes in what was recorded before; `plan` looks up a plan that another request's records hold.
    pub(crate) fn replay(
        &mut self,
        body: &RecordBody,
        plan: impl FnOnce(&PlanHash) -> Option<Plan>,
    ) -> Result<(), Misfit> {
        if self.stage == Stage::Ended {
            return Err(Misfit);
        }
        match body {
            RecordBody::Accepted(_) => {}
            RecordBody::FactRecorded(_) | RecordBody::MessageSent(_) => match self.stage {
                Stage::Waiting | Stage::Negotiating => self.stage = Stage::Negotiating,
                Stage::Sealed | Stage::AwaitingApproval | Stage::Deploying | Stage::Running | Stage::Ended => {
                    return Err(Misfit);
                }
            },
            RecordBody::PlanSealed(sealed) => {
                self.plan = Some(Arc::new(Agreed::new(sealed.plan.clone())));
                self.stage = Stage::Sealed;
            }
            RecordBody::PlanReused(reused) => {
                self.plan = Some(Arc::new(Agreed::new(plan(&reused.hash).ok_or(Misfit)?)));
                self.stage = Stage::Sealed;
            }
            RecordBody::ApprovalNeeded(_) => self.stage = Stage::AwaitingApproval,
            RecordBody::Approved(_) => {
                self.approved = true;
                self.stage = Stage::Sealed;
            }
            RecordBody::DagCompiled(_) => self.compiled = true,
            RecordBody::Replanned(_) => self.replanned = true,
            RecordBody::RunStarted(_) => self.stage = Stage::Running,
            RecordBody::TaskStarted(_)
            | RecordBody::TaskEnded(_)
            | RecordBody::RetryScheduled(_)
            | RecordBody::RemedyApplied(_) => {}
            RecordBody::RunEnded(RunEnded { setback: Some(setback), .. }) => self.set_back((**setback).clone()),
            // In a run, its end tells.
            RecordBody::Cancelled(_) if self.stage == Stage::Running => {}
            RecordBody::Cancelled(_)
            | RecordBody::Deadlocked(_)
            | RecordBody::Failed(_)
            | RecordBody::Declined(_)
            | RecordBody::PipelineChanged(_)
            | RecordBody::RunEnded(_) => self.stage = Stage::Ended,
        }
        Ok(())
    }

    /// Takes in what happens, and returns what to do about it.
    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        if let Event::Turn { pipeline } = event {
            self.pipeline = pipeline;
            self.next_revision = self.revision_after(pipeline);
        }
        match (self.stage, event) {
            (Stage::Ended, _) => vec![Effect::End],
            (Stage::Waiting, Event::Turn { .. }) => self.begin(),
            (Stage::Negotiating, Event::Turn { .. }) => self.negotiate(),
            (Stage::Sealed | Stage::Deploying, Event::Turn { .. }) => self.proceed(),
            (Stage::AwaitingApproval, Event::Turn { .. }) => Vec::new(),
            (Stage::Running, Event::Turn { .. }) => self.run(),

            (Stage::Negotiating, Event::Negotiated(ending)) => self.conclude(ending),
            (Stage::Negotiating, Event::Reused { plan, from }) => {
                let reused = PlanReused { hash: plan.hash().clone(), from };
                let mut effects = vec![Effect::Record(RecordBody::PlanReused(reused))];
                effects.extend(self.take(plan));
                effects
            }
            (Stage::AwaitingApproval, Event::Decided { approved, by }) => self.decide(approved, by),
            (Stage::Deploying, Event::Deployed(Ok(()))) => self.carry_on(),
            (Stage::Deploying, Event::Deployed(Err(problem))) => self.refuse(problem),
            (Stage::Running, Event::RunEnded(Some(setback))) => {
                self.set_back(*setback);
                self.negotiate()
            }
            (Stage::Running, Event::RunEnded(None)) => {
                self.stage = Stage::Ended;
                vec![Effect::End]
            }

            (Stage::Negotiating, Event::CancelRequested { by }) => {
                // The agents come to an end within their bounds; what they agree on will not be done.
                self.cancelled.get_or_insert(by);
                Vec::new()
            }
            (
                Stage::Waiting | Stage::Sealed | Stage::AwaitingApproval | Stage::Deploying,
                Event::CancelRequested { by },
            ) => self.end(RecordBody::Cancelled(Cancelled { by })),
            (Stage::Running, Event::CancelRequested { by }) => vec![Effect::StopRun { by }],

            // The engine's records are not this machine's to write: the run is continued when somebody can again.
            (Stage::Running, Event::GivenUp(_)) => vec![Effect::End],
            (
                Stage::Waiting | Stage::Negotiating | Stage::Sealed | Stage::AwaitingApproval | Stage::Deploying,
                Event::GivenUp(problem),
            ) => self.end(RecordBody::Failed(Ended { problems: vec![problem] })),

            // Late, or told twice.
            (
                Stage::Waiting | Stage::Sealed | Stage::AwaitingApproval | Stage::Deploying | Stage::Running,
                Event::Negotiated(_) | Event::Reused { .. },
            )
            | (
                Stage::Waiting | Stage::Negotiating | Stage::Sealed | Stage::Deploying | Stage::Running,
                Event::Decided { .. },
            )
            | (
                Stage::Waiting | Stage::Negotiating | Stage::Sealed | Stage::AwaitingApproval | Stage::Running,
                Event::Deployed(_),
            )
            | (
                Stage::Waiting | Stage::Negotiating | Stage::Sealed | Stage::AwaitingApproval | Stage::Deploying,
                Event::RunEnded(_),
            ) => Vec::new(),
        }
    }

    /// Tells whether nothing further happens.
    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    fn begin(&mut self) -> Vec<Effect> {
        let pipeline = self.pipeline;
        if let Some(followed) = &self.follows {
            // It runs, whatever the pipeline is.
            let plan = followed.plan.clone();
            self.stage = Stage::Negotiating;
            return vec![Effect::LookUp(plan)];
        }
        match (self.purpose, pipeline.status) {
            (Purpose::Pause | Purpose::Delete, _) if self.deploys => {
                self.stage = Stage::Deploying;
                let pauses = self.purpose == Purpose::Pause;
                vec![Effect::Deploy(if pauses { Deployment::Pause } else { Deployment::Remove })]
            }
            (Purpose::Pause | Purpose::Delete, _) => self.carry_on(),
            (Purpose::Run, PipelineStatus::Paused) => self.refuse(resting("paused")),
            (Purpose::Run, PipelineStatus::Deleted) => self.refuse(resting("deleted")),
            (Purpose::Apply, _) if self.next_revision <= pipeline.revision => {
                self.refuse(stale(self.next_revision, pipeline.revision))
            }
            (Purpose::Apply, _) | (Purpose::Run, PipelineStatus::Active) | (Purpose::Plan, _) => {
                self.stage = Stage::Negotiating;
                self.negotiate()
            }
        }
    }

    fn negotiate(&self) -> Vec<Effect> {
        vec![Effect::Negotiate(self.setbacks.clone())]
    }

    /// Begins the next version of the plan.
    fn set_back(&mut self, setback: Setback) {
        self.previous = self.plan.take();
        self.setbacks.push(setback);
        (self.approved, self.compiled, self.replanned) = (false, false, false);
        self.stage = Stage::Negotiating;
    }

    fn version(&self) -> u32 {
        u32::try_from(self.setbacks.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn run(&mut self) -> Vec<Effect> {
        let Some(plan) = self.plan.clone() else { return vec![Effect::End] };
        self.stage = Stage::Running;
        let (version, left) = (self.version(), self.replans_max.saturating_sub(self.version().saturating_sub(1)));
        let replanning = match &self.follows {
            None => Replanning::Left(left),
            // Its plan is the pipeline's, which runs by its schedule: what becomes of that is not one run's to decide.
            Some(_) => Replanning::Never { why: "send a request of the pipeline, then another plan is negotiated" },
        };
        vec![Effect::Run { plan, version, replanning }]
    }

    fn revision_after(&self, pipeline: Pipeline) -> u64 {
        self.revision.unwrap_or(pipeline.revision.saturating_add(1))
    }

    fn conclude(&mut self, ending: Ending) -> Vec<Effect> {
        let Ending::Sealed(plan) = ending else {
            self.stage = Stage::Ended;
            return vec![Effect::End];
        };
        self.take(Arc::new(Agreed::new(*plan)))
    }

    fn take(&mut self, plan: Arc<Agreed>) -> Vec<Effect> {
        self.plan = Some(plan);
        self.stage = Stage::Sealed;
        match self.cancelled.take() {
            Some(by) => self.end(RecordBody::Cancelled(Cancelled { by })),
            None => self.proceed(),
        }
    }

    /// Goes on with a sealed plan.
    fn proceed(&mut self) -> Vec<Effect> {
        let Some(plan) = self.plan.clone() else { return vec![Effect::End] };
        if self.purpose == Purpose::Plan {
            self.stage = Stage::Ended;
            return vec![Effect::End];
        }
        if self.follows.is_some() {
            return self.run();
        }
        let mut effects = Vec::new();
        let mut drift = Vec::new();
        if let Some(previous) = self.previous.clone().filter(|_| !self.approved) {
            match self.take_the_place_of(&previous, &plan) {
                Ok(replanned) => effects.extend(replanned),
                Err(problem) => return self.refuse(problem),
            }
            drift = beyond_policy(previous.plan(), plan.plan());
        }
        if !self.approved && (needs_approval(plan.plan()) || !drift.is_empty()) {
            let schema_change = plan.plan().schema_change;
            let needed = ApprovalNeeded { plan_hash: plan.hash().clone(), schema_change, drift };
            self.stage = Stage::AwaitingApproval;
            effects.push(Effect::Record(RecordBody::ApprovalNeeded(needed)));
            return effects;
        }
        effects.extend(self.compile(&plan));
        if self.deploys {
            let resume = self.purpose == Purpose::Apply && self.pipeline.status != PipelineStatus::Active;
            self.stage = Stage::Deploying;
            effects.push(Effect::Deploy(Deployment::Plan { plan, resume }));
        } else {
            effects.extend(self.carry_on());
        }
        effects
    }

    /// Returns what is recorded of a plan that takes the place of another one, or why it cannot.
    fn take_the_place_of(&mut self, previous: &Agreed, plan: &Agreed) -> Result<Option<Effect>, Problem> {
        let Some(setback) = self.setbacks.last() else { return Ok(None) };
        if previous.plan().does_the_same(plan.plan()) {
            return Err(unchanged(plan.plan(), setback));
        }
        let drift = beyond_policy(previous.plan(), plan.plan());
        if !drift.is_empty() && plan.plan().policy.schema_change == SchemaChange::None {
            return Err(drifted(&drift));
        }
        if std::mem::replace(&mut self.replanned, true) {
            return Ok(None);
        }
        let replanned = Replanned {
            version: self.version(),
            plan_hash: plan.hash().clone(),
            replaces: previous.hash().clone(),
            class: setback.class,
            reason: setback.problem.clone(),
            changes: changes::between(Some(previous.plan()), plan.plan()),
            left: setback.left.saturating_sub(1),
        };
        Ok(Some(Effect::Record(RecordBody::Replanned(Box::new(replanned)))))
    }

    /// Goes on once what is kept elsewhere is as it should be.
    fn carry_on(&mut self) -> Vec<Effect> {
        let changed = |status, revision| RecordBody::PipelineChanged(PipelineChanged { status, revision });
        match self.purpose {
            Purpose::Apply => self.end(changed(PipelineStatus::Active, self.next_revision)),
            Purpose::Pause => self.end(changed(PipelineStatus::Paused, self.pipeline.revision)),
            Purpose::Delete => self.end(changed(PipelineStatus::Deleted, self.pipeline.revision)),
            Purpose::Run | Purpose::Plan => self.run(),
        }
    }

    fn decide(&mut self, approved: bool, by: Option<String>) -> Vec<Effect> {
        let Some(plan) = &self.plan else { return vec![Effect::End] };
        let decision = Decision { plan_hash: plan.hash().clone(), by };
        if !approved {
            return self.end(RecordBody::Declined(decision));
        }
        self.approved = true;
        self.stage = Stage::Sealed;
        let mut effects = vec![Effect::Record(RecordBody::Approved(decision))];
        effects.extend(self.proceed());
        effects
    }

    /// Compiles the plan, once.
    fn compile(&mut self, plan: &Agreed) -> Vec<Effect> {
        if std::mem::replace(&mut self.compiled, true) {
            return Vec::new();
        }
        plan.compiled().iter().cloned().map(RecordBody::DagCompiled).map(Effect::Record).collect()
    }

    fn refuse(&mut self, problem: Problem) -> Vec<Effect> {
        self.end(RecordBody::Failed(Ended { problems: vec![problem] }))
    }

    fn end(&mut self, body: RecordBody) -> Vec<Effect> {
        self.stage = Stage::Ended;
        vec![Effect::Record(body), Effect::End]
    }
}

fn needs_approval(plan: &Plan) -> bool {
    match plan.policy.approval {
        Approval::Never => false,
        Approval::OnSchemaChange => plan.schema_change != SchemaChange::None,
        Approval::Always => true,
    }
}

/// Returns the schemas that are no longer what the earlier plan was sealed for, as far as the policy does not let them go
/// through by itself.
fn beyond_policy(before: &Plan, after: &Plan) -> Vec<SchemaDrift> {
    let mut found = drift::between(before, after);
    found.retain(|drift| !drift::allowed(drift.change, after.policy.schema_change));
    found
}

fn unchanged(plan: &Plan, setback: &Setback) -> Problem {
    Problem {
        code: Code::PlanUnchanged,
        subject: plan.dag_id.clone(),
        message: format!("the agents came to the plan again that failed with {}", setback.problem),
        hint: setback.problem.hint.clone(),
    }
}

fn drifted(drift: &[SchemaDrift]) -> Problem {
    let found: Vec<_> = drift.iter().map(ToString::to_string).collect();
    Problem {
        code: Code::DriftRefused,
        subject: drift.first().map(|drift| drift.subject.to_string()).unwrap_or_default(),
        message: format!("schemas changed, and policy.schema_change is none: {}", found.join("; ")),
        hint: "send the request again if that is right, or set policy.schema_change".into(),
    }
}

fn resting(how: &str) -> Problem {
    Problem {
        code: Code::PipelinePaused,
        subject: "pipeline".into(),
        message: format!("the pipeline is {how}"),
        hint: "apply a revision of it, then it runs again".into(),
    }
}

fn stale(given: u64, applied: u64) -> Problem {
    Problem {
        code: Code::RevisionStale,
        subject: "revision".into(),
        message: format!("revision {given} is not above the applied revision {applied}"),
        hint: format!("send revision {} or a later one, or leave the revision out", applied.saturating_add(1)),
    }
}
