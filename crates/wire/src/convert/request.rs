//! `request.proto`.

use dagwright_model::{
    canonical,
    request::{Action, Request, RunWishes},
    spec::Interval,
};
use serde_json::Value;

use super::values_to_wire;
use crate::{Error, proto, request::param};

// === PipelineRequest ===

impl From<&Request> for proto::PipelineRequest {
    fn from(request: &Request) -> Self {
        let spec = request.spec.as_ref().map(|spec| match spec {
            Value::String(text) => text.clone(),
            object => String::from_utf8(canonical::to_bytes(object)).unwrap_or_default(),
        });
        Self {
            action: proto::PipelineAction::from(request.action).into(),
            spec,
            pipeline: request.pipeline.clone(),
            revision: request.revision,
            interval: request.run.interval.as_ref().map(Into::into),
            params_json: values_to_wire(&request.run.params),
        }
    }
}

/// The names are those of the JSON rendering, which requesters know; each error is for the requester.
impl TryFrom<proto::PipelineRequest> for Request {
    type Error = Error;

    fn try_from(request: proto::PipelineRequest) -> Result<Self, Error> {
        let action = match proto::PipelineAction::try_from(request.action) {
            // A field with its default is not transmitted, and run is what a request asks for that says nothing.
            Ok(proto::PipelineAction::Unspecified | proto::PipelineAction::Run) => Action::Run,
            Ok(proto::PipelineAction::Apply) => Action::Apply,
            Ok(proto::PipelineAction::Backfill) => Action::Backfill,
            Ok(proto::PipelineAction::Pause) => Action::Pause,
            Ok(proto::PipelineAction::Delete) => Action::Delete,
            Err(_) => return Err(Error::request("action", "run, apply, backfill, pause or delete")),
        };
        let interval = request.interval.map(|interval| Interval { start: interval.start, end: interval.end });
        let params = request.params_json.into_iter().map(|(key, json)| param(key, &json));
        let params = params.collect::<Result<_, Error>>()?;
        Ok(Self {
            action,
            spec: request.spec.map(Value::String),
            pipeline: request.pipeline,
            revision: request.revision,
            run: RunWishes { interval, params },
        })
    }
}

// === PipelineAction ===

impl From<Action> for proto::PipelineAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Run => Self::Run,
            Action::Apply => Self::Apply,
            Action::Backfill => Self::Backfill,
            Action::Pause => Self::Pause,
            Action::Delete => Self::Delete,
        }
    }
}
