//! `Ask` of `ledger.proto`.

use dagwright_model::{
    ask::{Ask, AskBody},
    id::RequestId,
    record::Cancelled,
};

use super::{required, text};
use crate::{Error, proto, proto::ask::Body};

impl From<&Ask> for proto::Ask {
    fn from(ask: &Ask) -> Self {
        let body = match &ask.body {
            AskBody::TakeOn(accepted) => Body::TakeOn((&**accepted).into()),
            AskBody::Cancel(cancelled) => Body::Cancel(proto::Cancelled { by: cancelled.by.clone() }),
            AskBody::Approve(decision) => Body::Approve(decision.into()),
            AskBody::Decline(decision) => Body::Decline(decision.into()),
        };
        Self { request: ask.request.0.clone(), pipeline: ask.pipeline.clone(), at: ask.at, body: Some(body) }
    }
}

impl TryFrom<proto::Ask> for Ask {
    type Error = Error;

    fn try_from(ask: proto::Ask) -> Result<Self, Error> {
        let body = match required(ask.body, "ask.body")? {
            Body::TakeOn(accepted) => AskBody::TakeOn(Box::new(accepted.try_into()?)),
            Body::Cancel(cancelled) => AskBody::Cancel(Cancelled { by: cancelled.by }),
            Body::Approve(decision) => AskBody::Approve(decision.try_into()?),
            Body::Decline(decision) => AskBody::Decline(decision.try_into()?),
        };
        Ok(Self {
            request: RequestId(text(ask.request, "ask.request")?),
            pipeline: text(ask.pipeline, "ask.pipeline")?,
            at: ask.at,
            body,
        })
    }
}
