//! Knows which requests are open and whose turn it is, and keeps the one who follows each.
//!
//! Who follows a request may be lost to a panic; another one is sent after it, from the ledger. A request that loses
//! them again and again is given up, alone.
//!
//! A pipeline may go to another process and come back at any moment, also between two steps of whoever follows a request.
//! What the ledger then refuses harms nothing, and somebody is sent again as long as the pipeline is ours.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{
    Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, MessageResult, WrapFuture,
};
use dagwright_model::{
    code::Code,
    id::RequestId,
    record::{Ingress, Purpose},
    task::Problem,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinError},
};

use super::{
    Arrival, Load, Shared,
    follow::{Asked, Ended, Errand, follow},
};
use crate::{metrics, queue::Queue};

/// How often a request may lose who follows it before it is given up.
const LOSSES_MAX: u32 = 3;

/// How often the ledger may refuse what is written for a request although this process acts for its pipeline; then what
/// this process believes is wrong for good, and the next one reads it anew.
const OVERTAKEN_MAX: u32 = 100;

/// How long to wait before somebody is sent again: a partition that is taken up anew takes about so long.
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(100);

/// How many questions may wait for one request; people ask few.
const ASKED_MAX: usize = 16;

/// The actor.
pub(super) struct Dispatcher {
    shared: Arc<Shared>,
    queue: Queue,
    followed: HashMap<RequestId, Followed>,
    losses: HashMap<RequestId, u32>,
    overtaken: HashMap<RequestId, u32>,
}

struct Followed {
    pipeline: String,
    inbox: mpsc::Sender<Asked>,
    task: AbortHandle,
    runs: bool,
    /// Whether its turn came while somebody only listened for it.
    turn_came: bool,
}

/// Requests were accepted, by this process or an earlier one.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Arrive(pub(super) Vec<Arrival>);

/// A request's plan runs.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Runs {
    pub(super) pipeline: String,
    pub(super) request: RequestId,
    /// How many of the pipeline may run at a time.
    pub(super) running_max: usize,
}

/// Tells a request what is asked of it. Who misses it finds it in the ledger.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tell {
    pub(super) request: RequestId,
    pub(super) pipeline: String,
    pub(super) asked: Asked,
}

/// Asks how many requests there are.
#[derive(Message)]
#[rtype(result = "Load")]
pub(super) struct Count;

/// Waits for what runs, then stops it; begins nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Drain {
    pub(super) grace: Duration,
}

/// Forgets what another process goes on with, and stops whoever follows it here.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Release {
    pub(super) is_lost: Box<dyn Fn(&str) -> bool + Send>,
}

// === impl Dispatcher ===

impl Dispatcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let queue = Queue::default();
        Self { shared, queue, followed: HashMap::new(), losses: HashMap::new(), overtaken: HashMap::new() }
    }

    /// Sends somebody after a request, unless somebody follows it already or the service drains.
    fn send_after(&mut self, pipeline: String, request: RequestId, errand: Errand, context: &mut Context<Self>) {
        if self.shared.draining.is_cancelled() {
            return;
        }
        if let Some(followed) = self.followed.get_mut(&request) {
            followed.turn_came = true;
            return;
        }
        let (inbox, asked) = mpsc::channel(ASKED_MAX);
        let work = follow(self.shared.clone(), context.address(), request.clone(), errand.clone(), asked);
        let task = actix::spawn(work);
        let abort = task.abort_handle();
        self.followed.insert(
            request.clone(),
            Followed { pipeline: pipeline.clone(), inbox, task: abort, runs: false, turn_came: false },
        );
        self.measure();
        context.spawn(task.into_actor(self).map(move |ended, dispatcher, context| {
            dispatcher.take(pipeline, request, errand, ended, context);
            dispatcher.measure();
        }));
    }

    /// Takes in that nobody follows a request any more.
    fn take(
        &mut self,
        pipeline: String,
        request: RequestId,
        errand: Errand,
        ended: Result<Ended, JoinError>,
        context: &mut Context<Self>,
    ) {
        let turn_came = self.followed.remove(&request).is_some_and(|followed| followed.turn_came);
        match ended {
            Ok(Ended::Done) => {
                self.losses.remove(&request);
                self.overtaken.remove(&request);
                self.leave(&pipeline, &request, context);
            }
            Ok(Ended::HandedOver) if turn_came => self.send_after(pipeline, request, Errand::GoOn, context),
            // It goes on when its turn comes, or with another process.
            Ok(Ended::HandedOver) => {}
            Ok(Ended::Overtaken) => self.send_again(pipeline, request, errand, turn_came, context),
            // Its pipeline was lost, and won again before the one who followed had gone.
            Err(lost) if lost.is_cancelled() && turn_came => self.send_after(pipeline, request, Errand::GoOn, context),
            Ok(Ended::TooLarge) => {
                tracing::warn!(request_id = %request, "a request is given up, as its records are too long");
                let given_up =
                    self.losses.insert(request.clone(), LOSSES_MAX).is_some_and(|losses| losses >= LOSSES_MAX);
                if given_up {
                    // Not even that can be written.
                    self.leave(&pipeline, &request, context);
                } else {
                    let errand = Errand::GiveUp(too_large(&request));
                    self.send_after(pipeline, request, errand, context);
                }
            }
            Err(lost) if lost.is_cancelled() => {}
            Err(_) => {
                let losses = self.losses.entry(request.clone()).or_default();
                *losses += 1;
                metrics::follower_restarted();
                tracing::error!(request_id = %request, losses, "lost who followed a request");
                let errand = if *losses < LOSSES_MAX { Errand::GoOn } else { Errand::GiveUp(poison(&request)) };
                if *losses > LOSSES_MAX {
                    // Even giving it up fails: it stays open for the next process, and holds nobody up in this one.
                    self.leave(&pipeline, &request, context);
                } else {
                    self.send_after(pipeline, request, errand, context);
                }
            }
        }
    }

    /// Sends somebody after a request again, for which the ledger took no record, unless another process goes on with it.
    fn send_again(
        &mut self,
        pipeline: String,
        request: RequestId,
        errand: Errand,
        turn_came: bool,
        context: &mut Context<Self>,
    ) {
        let errand = match errand {
            // Its turn has not come, so there is nothing to go on with.
            Errand::Listen if !turn_came => return,
            Errand::Listen | Errand::GoOn => Errand::GoOn,
            Errand::GiveUp(problem) => Errand::GiveUp(problem),
        };
        if !self.shared.resources.register.acts_for(&pipeline) {
            return;
        }
        let overtaken = self.overtaken.entry(request.clone()).or_default();
        *overtaken += 1;
        if *overtaken > OVERTAKEN_MAX {
            tracing::error!(request_id = %request, "the ledger refuses what is written for a request again and again");
            self.shared.broken.cancel();
            return;
        }
        context.run_later(OVERTAKEN_PAUSE, move |dispatcher, context| {
            dispatcher.send_after(pipeline, request, errand, context);
        });
    }

    fn leave(&mut self, pipeline: &str, request: &RequestId, context: &mut Context<Self>) {
        if let Some(next) = self.queue.leave(pipeline, request) {
            self.send_after(pipeline.to_owned(), next, Errand::GoOn, context);
        }
    }

    fn measure(&self) {
        metrics::load(self.queue.open(), self.followed.len());
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;
}

impl Handler<Arrive> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Arrive(arrivals): Arrive, context: &mut Context<Self>) {
        for Arrival { pipeline, request, purpose, ingress } in arrivals {
            let next = match (purpose, ingress) {
                // They change what those who wait may do, so they wait for nobody; what Airflow started waits for nobody there.
                (Purpose::Pause | Purpose::Delete, _) | (_, Ingress::Airflow) => {
                    self.queue.pass(&pipeline, request.clone());
                    Some(request)
                }
                (Purpose::Run | Purpose::Apply | Purpose::Plan, _) => self.queue.arrive(&pipeline, request),
            };
            if let Some(next) = next {
                self.send_after(pipeline, next, Errand::GoOn, context);
            }
        }
        self.measure();
    }
}

impl Handler<Runs> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Runs { pipeline, request, running_max }: Runs, context: &mut Context<Self>) {
        if let Some(followed) = self.followed.get_mut(&request) {
            followed.runs = true;
        }
        if let Some(next) = self.queue.run(&pipeline, &request, running_max) {
            self.send_after(pipeline, next, Errand::GoOn, context);
        }
    }
}

impl Handler<Tell> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Tell { request, pipeline, asked }: Tell, context: &mut Context<Self>) {
        if !self.followed.contains_key(&request) {
            // It waits in its line, or this process never heard of it: whoever is sent has nothing else to do for it.
            self.send_after(pipeline, request.clone(), Errand::Listen, context);
        }
        if let Some(followed) = self.followed.get(&request)
            && followed.inbox.try_send(asked).is_err()
        {
            tracing::debug!(request_id = %request, "nobody hears what is asked of a request; the ledger keeps it");
        }
    }
}

impl Handler<Count> for Dispatcher {
    type Result = MessageResult<Count>;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Load { open: self.queue.open(), followed: self.followed.len() })
    }
}

impl Handler<Release> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Release { is_lost }: Release, _: &mut Context<Self>) {
        self.queue.release(&is_lost);
        self.overtaken.clear();
        for followed in self.followed.values().filter(|followed| is_lost(&followed.pipeline)) {
            // What it writes is refused by now; its tasks end with it.
            followed.task.abort();
        }
    }
}

impl Handler<Drain> for Dispatcher {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, Drain { grace }: Drain, _: &mut Context<Self>) -> Self::Result {
        let (running, others): (Vec<_>, Vec<_>) = self.followed.values().partition(|followed| followed.runs);
        for other in others {
            other.task.abort();
        }
        // What runs elsewhere goes on without this process.
        let grace = if self.shared.resources.engine.keeps_pipelines() { Duration::ZERO } else { grace };
        let running: Vec<_> =
            running.into_iter().map(|followed| (followed.inbox.clone(), followed.task.clone())).collect();
        let wait = async move {
            let all = async {
                for (inbox, _) in &running {
                    inbox.closed().await;
                }
            };
            if tokio::time::timeout(grace, all).await.is_err() {
                tracing::info!(
                    "no longer at work on runs that did not end within the grace time; they will be continued"
                );
                for (inbox, task) in &running {
                    task.abort();
                    inbox.closed().await;
                }
            }
        };
        AtomicResponse::new(Box::pin(wait.into_actor(self)))
    }
}

fn too_large(request: &RequestId) -> Problem {
    Problem {
        code: Code::RequestTooLarge,
        subject: request.0.clone(),
        message: "what is to be written of the request is longer than the ledger takes".into(),
        hint: "make the spec shorter; with Kafka, or raise max.message.bytes of our topics".into(),
    }
}

fn poison(request: &RequestId) -> Problem {
    Problem {
        code: Code::AgentLost,
        subject: request.0.clone(),
        message: format!("whoever followed the request was lost {LOSSES_MAX} times"),
        hint: "the log says where; report it, and send the request again once that is mended".into(),
    }
}
