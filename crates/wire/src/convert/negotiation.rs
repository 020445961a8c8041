//! `negotiation.proto`: envelopes and what they say. What alternatives are made of is in [`alternative`].

mod alternative;

use dagwright_model::{
    id::{PlanHash, RequestId},
    letter::{Letter, Post, Presence},
    message::{
        Bound, CallForProposals, Conflict, ConflictKind, Envelope, Message, Observation, Origin, Party, Remedy, Role,
    },
};

use super::{FromWire, all, each, enum_pairs, from_json, name, required, sha256, text, to_json};
use crate::{Error, proto, proto::envelope::Body};

enum_pairs!(Bound, proto::Bound { Rounds, Alternatives, Messages, Time });
enum_pairs!(
    ConflictKind,
    proto::ConflictKind {
        Cursor,
        Key,
        UniqueIndex,
        Type,
        NotNull,
        MissingColumn,
        Privilege,
        Unsupported,
        ReadWrite,
        Memory,
        Deadline,
        Space,
        NoOffer,
    }
);

// === Post ===

impl From<&Post> for proto::Post {
    fn from(post: &Post) -> Self {
        let post = match post {
            Post::Letter(letter) => proto::post::Post::Letter(proto::Letter {
                from_host: letter.from_host.clone(),
                to_host: letter.to_host.clone(),
                envelope: Some((&letter.envelope).into()),
            }),
            Post::Presence(presence) => proto::post::Post::Presence(proto::Presence {
                party: Some((&presence.party).into()),
                host: presence.host.clone(),
                incarnation: presence.incarnation.clone(),
                leaving: presence.leaving,
            }),
        };
        Self { post: Some(post) }
    }
}

impl TryFrom<proto::Post> for Post {
    type Error = Error;

    fn try_from(post: proto::Post) -> Result<Self, Error> {
        Ok(match required(post.post, "post")? {
            proto::post::Post::Letter(letter) => Self::Letter(Letter {
                from_host: letter.from_host,
                to_host: letter.to_host,
                envelope: required(letter.envelope, "letter.envelope")?.try_into()?,
            }),
            proto::post::Post::Presence(presence) => Self::Presence(Presence {
                party: required(presence.party, "presence.party")?.try_into()?,
                host: presence.host,
                incarnation: presence.incarnation,
                leaving: presence.leaving,
            }),
        })
    }
}

// === Party, Envelope ===

impl From<&Party> for proto::Party {
    fn from(party: &Party) -> Self {
        Self { role: proto::Role::from(party.role).into(), instance: party.instance.to_string() }
    }
}

impl TryFrom<proto::Party> for Party {
    type Error = Error;

    fn try_from(party: proto::Party) -> Result<Self, Error> {
        Ok(Self { role: Role::from_wire(party.role, "party.role")?, instance: name(party.instance, "party.instance")? })
    }
}

impl From<&Envelope> for proto::Envelope {
    fn from(envelope: &Envelope) -> Self {
        Self {
            session: envelope.session.0.clone(),
            sequence: envelope.sequence,
            from: Some((&envelope.from).into()),
            to: Some((&envelope.to).into()),
            body: Some((&envelope.body).into()),
        }
    }
}

impl TryFrom<proto::Envelope> for Envelope {
    type Error = Error;

    fn try_from(envelope: proto::Envelope) -> Result<Self, Error> {
        Ok(Self {
            session: RequestId(text(envelope.session, "envelope.session")?),
            sequence: envelope.sequence,
            from: required(envelope.from, "envelope.from")?.try_into()?,
            to: required(envelope.to, "envelope.to")?.try_into()?,
            body: required(envelope.body, "envelope.body")?.try_into()?,
        })
    }
}

// === Message ===

impl From<&Message> for Body {
    fn from(message: &Message) -> Self {
        match message {
            Message::Observe { questions } => {
                Self::Observe(proto::Observe { questions_json: questions.iter().map(to_json).collect() })
            }
            Message::Observed { observations } => Self::Observed(proto::Observed { observations: each(observations) }),
            Message::CallForProposals(call) => Self::CallForProposals(proto::CallForProposals {
                round: call.round,
                spec_json: to_json(&call.spec),
                facts_json: to_json(&call.facts),
            }),
            Message::Proposals { round, alternatives } => {
                Self::Proposals(proto::Proposals { round: *round, alternatives: each(alternatives) })
            }
            Message::Conflicts { round, conflicts } => {
                Self::Conflicts(proto::Conflicts { round: *round, conflicts: each(conflicts) })
            }
            Message::Counter { round, alternatives } => {
                Self::Counter(proto::Proposals { round: *round, alternatives: each(alternatives) })
            }
            Message::Refuse { round, reason } => Self::Refuse(proto::Refuse { round: *round, reason: reason.clone() }),
            Message::Award { alternatives } => Self::Award(proto::Award { alternatives: alternatives.clone() }),
            Message::Committed => Self::Committed(proto::Committed {}),
            Message::CommitFailed { problems } => Self::CommitFailed(proto::Problems { problems: each(problems) }),
            Message::Sealed { plan } => Self::Sealed(proto::Sealed { plan: plan.0.clone() }),
            Message::Deadlocked { conflicts } => {
                Self::Deadlocked(proto::SessionDeadlocked { conflicts: each(conflicts) })
            }
            Message::Expired { bound, conflicts } => {
                Self::Expired(proto::Expired { bound: proto::Bound::from(*bound).into(), conflicts: each(conflicts) })
            }
            Message::Failed { problems } => Self::Failed(proto::Problems { problems: each(problems) }),
        }
    }
}

impl TryFrom<Body> for Message {
    type Error = Error;

    fn try_from(body: Body) -> Result<Self, Error> {
        Ok(match body {
            Body::Observe(observe) => {
                let questions = observe.questions_json.iter().map(|bytes| from_json(bytes, "observe.questions_json"));
                Self::Observe { questions: questions.collect::<Result<_, _>>()? }
            }
            Body::Observed(observed) => Self::Observed { observations: all(observed.observations)? },
            Body::CallForProposals(call) => Self::CallForProposals(Box::new(CallForProposals {
                round: call.round,
                spec: from_json(&call.spec_json, "call_for_proposals.spec_json")?,
                facts: from_json(&call.facts_json, "call_for_proposals.facts_json")?,
            })),
            Body::Proposals(offer) => Self::Proposals { round: offer.round, alternatives: all(offer.alternatives)? },
            Body::Conflicts(opened) => Self::Conflicts { round: opened.round, conflicts: all(opened.conflicts)? },
            Body::Counter(offer) => Self::Counter { round: offer.round, alternatives: all(offer.alternatives)? },
            Body::Refuse(refusal) => Self::Refuse { round: refusal.round, reason: refusal.reason },
            Body::Award(award) => Self::Award { alternatives: award.alternatives },
            Body::Committed(_) => Self::Committed,
            Body::CommitFailed(failed) => Self::CommitFailed { problems: all(failed.problems)? },
            Body::Sealed(sealed) => Self::Sealed { plan: PlanHash(sha256(sealed.plan, "sealed.plan")?) },
            Body::Deadlocked(ended) => Self::Deadlocked { conflicts: all(ended.conflicts)? },
            Body::Expired(expired) => Self::Expired {
                bound: Bound::from_wire(expired.bound, "expired.bound")?,
                conflicts: all(expired.conflicts)?,
            },
            Body::Failed(failed) => Self::Failed { problems: all(failed.problems)? },
        })
    }
}

impl From<&Observation> for proto::Observation {
    fn from(observation: &Observation) -> Self {
        Self {
            fact_json: to_json(&observation.fact),
            source: observation.origin.source.clone(),
            at: observation.origin.at.clone(),
        }
    }
}

impl TryFrom<proto::Observation> for Observation {
    type Error = Error;

    fn try_from(observation: proto::Observation) -> Result<Self, Error> {
        Ok(Self {
            fact: from_json(&observation.fact_json, "observation.fact_json")?,
            origin: Origin { source: observation.source, at: observation.at },
        })
    }
}

// === Conflict ===

impl From<&Conflict> for proto::Conflict {
    fn from(conflict: &Conflict) -> Self {
        Self {
            kind: proto::ConflictKind::from(conflict.kind).into(),
            owner: proto::Role::from(conflict.owner).into(),
            subject: conflict.subject.clone(),
            column: conflict.column.clone(),
            message: conflict.message.clone(),
            remedies: each(&conflict.remedies),
        }
    }
}

impl TryFrom<proto::Conflict> for Conflict {
    type Error = Error;

    fn try_from(conflict: proto::Conflict) -> Result<Self, Error> {
        Ok(Self {
            kind: ConflictKind::from_wire(conflict.kind, "conflict.kind")?,
            owner: Role::from_wire(conflict.owner, "conflict.owner")?,
            subject: conflict.subject,
            column: conflict.column,
            message: conflict.message,
            remedies: conflict.remedies.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<&Remedy> for proto::Remedy {
    fn from(remedy: &Remedy) -> Self {
        Self { path: remedy.path.clone(), change: remedy.change.clone() }
    }
}

impl From<proto::Remedy> for Remedy {
    fn from(remedy: proto::Remedy) -> Self {
        Self { path: remedy.path, change: remedy.change }
    }
}
