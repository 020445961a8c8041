//! The desk at which it is decided what becomes of a message, and of what other instances handed on.
//!
//! Calls block for a moment, as they read the cache.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use dagwright_agents::{
    Arrival,
    shared_ledger::{SharedLedger, told},
};
use dagwright_bus::kafka::{Commit, Outgoing, Ownership, Received, Room, Topics};
use dagwright_model::{
    ask::{Ask, AskBody, AskKind},
    code::Code,
    event::{self, Refusal},
    id::RequestId,
    record::{Accepted, EventIdentity, Ingress, Record, RecordBody},
    task::Problem,
};
use dagwright_store::{Error as StoreError, Register, Store};
use dagwright_wire::{
    cloudevent::{Binding, Message},
    request,
};

use super::accepting::Accepting;
use crate::{
    admission::{Admission, Admitted, Rejected, Requester, pipeline_of},
    audit::{Came, Line},
    config::{Config, Scope},
};

/// What is said of a request that was read from one topic and does not fit into another.
const TOO_LARGE: &str = "what is to be written of the request is longer than a topic's max.message.bytes allows";

/// How much of each part of a reason an event tells; it may quote what somebody sent.
const TOLD_BYTES_MAX: usize = 2 << 10;

/// What becomes of a message.
pub(super) struct Decision {
    pub(super) commit: Commit,
    /// The acceptance that the commit holds.
    pub(super) accepted: Option<Record>,
    /// What is written down of it.
    pub(super) line: Line,
    /// Held until the commit has its outcome, so that what waits for that is bounded as well.
    pub(super) room: Option<Room>,
}

/// Decides about messages.
pub(super) struct Desk {
    config: Arc<Config>,
    admission: Arc<Admission>,
    ledger: SharedLedger,
    topics: Topics,
    accepting: Accepting,
    /// What is asked and was looked at since partitions last moved.
    looked_at: HashSet<(RequestId, AskKind)>,
    /// Requests that are to be taken on, in the order in which they were handed on.
    handed_on: VecDeque<RequestId>,
    /// When the last one was handed on by us; each is later than the one before.
    handed_on_at: u64,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(config: Arc<Config>, admission: Arc<Admission>, ledger: SharedLedger, topics: Topics) -> Self {
        Self {
            config,
            admission,
            ledger,
            topics,
            accepting: Accepting::default(),
            looked_at: HashSet::new(),
            handed_on: VecDeque::new(),
            handed_on_at: 0,
        }
    }

    /// Takes in acceptances that have their outcome, with the epochs on which they rested, and those that were committed;
    /// returns what is to be gone on with.
    pub(super) fn conclude(&mut self, ended: &[(RequestId, u64)], accepted: &[Record]) -> Result<Vec<Arrival>> {
        for (request, epoch) in ended {
            self.accepting.end(request, *epoch);
        }
        self.ledger.accepted(accepted)?;
        let arrival = |record: &Record| match &record.body {
            RecordBody::Accepted(accepted) => Some(Arrival {
                pipeline: accepted.pipeline.clone(),
                request: record.request.clone(),
                purpose: accepted.purpose,
                ingress: accepted.ingress,
            }),
            _ => None,
        };
        Ok(accepted.iter().filter_map(arrival).collect())
    }

    /// Looks at everything that is asked again the next time.
    pub(super) fn forget_looks(&mut self) {
        self.looked_at.clear();
    }

    /// Looks at what is asked and was not looked at before: returns what is asked of requests that were taken on, and
    /// whether others are to be.
    pub(super) fn look(&mut self) -> Result<(Vec<RequestId>, bool)> {
        let asked: HashSet<_> = self.ledger.asked()?.into_iter().collect();
        let (new_ones, others): (Vec<_>, Vec<_>) =
            asked.difference(&self.looked_at).cloned().partition(|(_, kind)| *kind == AskKind::TakeOn);
        let mut handed_on = Vec::new();
        for (request, _) in new_ones {
            let take_on = self.ledger.asks(&request)?.into_iter().find(|ask| ask.kind() == AskKind::TakeOn);
            handed_on.extend(take_on.map(|ask| (ask.at, ask.request)));
        }
        handed_on.sort();
        self.handed_on.extend(handed_on.into_iter().map(|(_, request)| request));
        // What was settled meanwhile is forgotten: it may be asked again.
        self.looked_at = asked;
        Ok((others.into_iter().map(|(request, _)| request).collect(), !self.handed_on.is_empty()))
    }

    /// Decides about requests that an instance handed on, so many at most; returns whether there are more.
    pub(super) fn decide_handed_on(&mut self, decisions_max: usize) -> Result<(Vec<Decision>, bool)> {
        let mut decisions = Vec::new();
        while decisions.len() < decisions_max
            && let Some(request) = self.handed_on.pop_front()
        {
            decisions.extend(self.take_over(request)?);
        }
        Ok((decisions, !self.handed_on.is_empty()))
    }

    /// Decides about a request that an instance handed on; `None` when it is another's, or done already.
    fn take_over(&mut self, request: RequestId) -> Result<Option<Decision>> {
        let accepted = self.ledger.asks(&request)?.into_iter().find_map(|ask| match ask.body {
            AskBody::TakeOn(accepted) => Some(accepted),
            AskBody::Cancel(_) | AskBody::Approve(_) | AskBody::Decline(_) => None,
        });
        let Some(accepted) = accepted else { return Ok(None) };
        let Some(ownership) = self.ledger.ownership(&accepted.pipeline) else { return Ok(None) };
        if self.accepting.contains(&request, ownership.epoch()) {
            return Ok(None);
        }
        let line = Line::of(&accepted, &request);
        // As long as what is asked was not too long, what is recorded of it is not either.
        self.accept(request, *accepted, (ownership, None, None), line)
    }

    /// Decides what becomes of a message.
    pub(super) fn decide(&mut self, mut received: Received) -> Result<Decision> {
        let room = received.take_room();
        Ok(Decision { room: Some(room), ..self.judge(&received)? })
    }

    fn judge(&mut self, received: &Received) -> Result<Decision> {
        let requester = self.requester(received);
        let mut line = Line::by(&requester);
        line.entry.subject = Some(received.place().to_string());
        let read = match read(received) {
            Ok(read) => read,
            Err((code, reason)) => return Ok(buried(received, code, &reason, line)),
        };
        // Without a name it is the record that it is, or that it was first: to replay it twice is to send one request.
        let place = || {
            let place = received.replay_of().unwrap_or_else(|| received.place());
            EventIdentity {
                source: format!("{}{}", EventIdentity::KAFKA, place.topic),
                id: format!("{}/{}", place.partition, place.offset),
            }
        };
        let identity = read.identity.unwrap_or_else(place);
        line.entry.action = read.request.action.as_str().into();
        line.entry.traced(read.traceparent.as_deref());
        let admitted = self.admission.admit(&read.request, identity.clone(), read.traceparent.clone(), &requester);
        let Admitted { request, accepted } = match admitted {
            Ok(admitted) => admitted,
            Err(Rejected::Store(error)) => return Err(error.into()),
            Err(rejected) => {
                let (code, reason) = rejected.reason();
                let Some(pipeline) = pipeline_of(&read.request) else {
                    return Ok(buried(received, code, &reason, line));
                };
                let request = RequestId::derive(&pipeline, &identity.source, &identity.id);
                (line.entry.pipeline, line.entry.request_id) = (Some(pipeline.clone()), Some(request.0.clone()));
                if self.is_taken_on(&request, received.ownership.epoch())? {
                    // What was fine when it came: that one has its outcome.
                    return Ok(repeated(received, line));
                }
                let traceparent = read.traceparent.as_deref();
                let refused = refused(received, &pipeline, &identity, traceparent, rejected.problem());
                let mut decision = buried(received, code, &reason, line);
                decision.commit.records.push(refused);
                return Ok(decision);
            }
        };
        (line.entry.pipeline, line.entry.request_id) = (Some(accepted.pipeline.clone()), Some(request.0.clone()));
        line.entry.traced(accepted.traceparent.as_deref());
        let is_at_home = received.ownership.topic() == self.topics.requests
            && received.ownership.partition() == self.topics.home(&accepted.pipeline);
        if is_at_home && self.accepting.contains(&request, received.ownership.epoch()) {
            return Ok(repeated(received, line));
        }
        let (ownership, consumed) = (received.ownership.clone(), Some(received.offset));
        let too_large = refused(received, &accepted.pipeline, &identity, accepted.traceparent.as_deref(), too_large());
        let otherwise = Some(vec![received.dead_letter(Code::RequestTooLarge, TOO_LARGE), too_large]);
        if is_at_home {
            line.came = Came::Accepted;
            let accepted = self.accept(request, accepted, (ownership, consumed, otherwise), line.clone())?;
            return Ok(accepted.unwrap_or_else(|| repeated(received, line)));
        }
        if self.is_taken_on(&request, received.ownership.epoch())? {
            return Ok(repeated(received, line));
        }
        line.came = Came::HandedOn;
        self.handed_on_at = now_ms().max(self.handed_on_at + 1);
        let (pipeline, at) = (accepted.pipeline.clone(), self.handed_on_at);
        let ask = Ask { request, pipeline, at, body: AskBody::TakeOn(Box::new(accepted)) };
        let commit = Commit { ownership, consumed, records: vec![self.ledger.asking(&ask)], otherwise };
        Ok(Decision { commit, accepted: None, line, room: None })
    }

    /// Accepts a request; `None` for a repeat, as the first one has its outcome.
    fn accept(
        &mut self,
        request: RequestId,
        accepted: Accepted,
        (ownership, consumed, otherwise): (Ownership, Option<i64>, Option<Vec<Outgoing>>),
        line: Line,
    ) -> Result<Option<Decision>> {
        let body = RecordBody::Accepted(Box::new(accepted));
        let record = Record { request: request.clone(), sequence: 0, at: now_ms(), body };
        match self.ledger.acceptance(&record) {
            Ok(records) => {
                self.accepting.begin(request, ownership.epoch());
                let commit = Commit { ownership, consumed, records, otherwise };
                Ok(Some(Decision { commit, accepted: Some(record), line, room: None }))
            }
            Err(StoreError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether a request was taken on, or is about to be.
    fn is_taken_on(&self, request: &RequestId, epoch: u64) -> Result<bool> {
        Ok(self.accepting.contains(request, epoch) || self.ledger.request(request)?.is_some())
    }

    /// Says who sent a message: all that is known is the topic, to which those write whom the brokers let.
    fn requester(&self, received: &Received) -> Requester {
        let topic = received.ownership.topic();
        let kafka = &self.config.kafka;
        let rule = kafka.ingress.iter().find(|rule| rule.topic == topic);
        let (scopes, namespaces) = match rule {
            Some(rule) => (&rule.scopes, &rule.namespaces),
            None => (&kafka.requests.scopes, &kafka.requests.namespaces),
        };
        Requester {
            ingress: Ingress::Kafka,
            name: Some(format!("kafka:{topic}")),
            namespaces: namespaces.clone(),
            may_submit: scopes.contains(&Scope::Submit),
            may_operate: scopes.contains(&Scope::Operate),
        }
    }
}

/// Reads a message, or says with which code it cannot be.
fn read(received: &Received) -> Result<request::Received, (Code, String)> {
    if !received.headers_readable {
        return Err((Code::RequestInvalid, "a header's name is not text".into()));
    }
    let headers: Vec<(&str, &[u8])> =
        received.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
    let body = received.value.as_deref().unwrap_or_default();
    let read = request::decode(Message { binding: Binding::Kafka, headers: &headers, body });
    read.map_err(|error| (error.code(), error.to_string()))
}

/// Puts a message to the dead letters.
fn buried(received: &Received, code: Code, reason: &str, line: Line) -> Decision {
    let records = vec![received.dead_letter(code, reason)];
    done(received, records, Line { code: Some(code.to_string()), came: Came::Refused, ..line })
}

/// Tells of a request that comes to nothing.
fn refused(
    received: &Received,
    pipeline: &str,
    identity: &EventIdentity,
    traceparent: Option<&str>,
    problem: Problem,
) -> Outgoing {
    let (attempt, problem) = (received.attempt(), in_short(problem));
    told(&event::refused(Refusal { pipeline, identity, attempt, at: now_ms(), traceparent, problem }))
}

fn too_large() -> Problem {
    let hint = "send a shorter spec, or allow longer records in the ledger's topic and that of the events";
    Problem { code: Code::RequestTooLarge, subject: "spec".into(), message: TOO_LARGE.into(), hint: hint.into() }
}

/// Passes over a message whose request has been taken on.
fn repeated(received: &Received, line: Line) -> Decision {
    done(received, Vec::new(), Line { came: Came::Repeated, ..line })
}

fn done(received: &Received, records: Vec<Outgoing>, line: Line) -> Decision {
    let commit =
        Commit { ownership: received.ownership.clone(), consumed: Some(received.offset), records, otherwise: None };
    Decision { commit, accepted: None, line, room: None }
}

/// Returns a problem with no more of what somebody sent than an event has room for.
fn in_short(mut problem: Problem) -> Problem {
    for text in [&mut problem.subject, &mut problem.message, &mut problem.hint] {
        if text.len() > TOLD_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TOLD_BYTES_MAX));
            text.push('…');
        }
    }
    problem
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
