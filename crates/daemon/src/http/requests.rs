//! `/requests`: takes requests on, shows them, stops them.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{Data, Json, Path, Payload, Query},
};
use dagwright_agents::service::Submitted;
use dagwright_model::{
    code::Code,
    id::RequestId,
    record::{EventIdentity, RecordBody},
};
use dagwright_store::{RequestState, RequestSummary};
use dagwright_wire::{
    cloudevent::{Binding, Message},
    request,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    auth::{Caller, May, Operate, Read, Submit},
    body,
    fault::Fault,
    page, read, until,
};
use crate::{
    admission::pipeline_of,
    api::{self, Page, Receipt, Said, Stopping, Story},
    audit::{Came, Line},
    render,
    serve::State,
    story,
};

/// The header that names what has no id of its own.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The longest such name.
const KEY_LENGTH_MAX: usize = 255;

/// How long to wait until whoever acts for a pipeline has taken a request on; then it is told all the same, as it will be.
const TAKEN_ON_WITHIN: Duration = Duration::from_secs(3);

/// Which requests are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this pipeline only.
    pipeline: Option<String>,
    /// Only those that are so far.
    #[param(value_type = Option<String>)]
    state: Option<RequestState>,
    /// How many at most: 1 to 500, else 50.
    limit: Option<usize>,
    /// `next` of the part before.
    cursor: Option<String>,
}

/// Takes a request on.
#[utoipa::path(
    post, path = "/requests", tag = "requests",
    description = "The body is a pipeline spec in YAML or JSON, a request object, or a CloudEvent of type \
                   `dev.dagwright.pipeline.requested.v1` in structured or binary mode. The same event sent twice, or \
                   the same Idempotency-Key, is one request.",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names the request where the body does not")),
    request_body(content(
        (ref("#/components/schemas/Spec") = "application/yaml"),
        (ref("#/components/schemas/PipelineRequest") = "application/json"),
        (Object = "application/cloudevents+json"),
    )),
    responses(
        (status = 202, description = "It is taken on", body = ref("#/components/schemas/Receipt"),
         headers(("Location" = String, description = "Where the request is"))),
        (status = 200, description = "It was taken on before", body = ref("#/components/schemas/Receipt"),
         headers(("Location" = String, description = "Where the request is"))),
        (status = 400, description = "DW0801: the request cannot be read", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 408, description = "DW0819: the body took too long to arrive", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 413, description = "DW0802: the body is too large", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 415, description = "DW0801: the content type or encoding is not read", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 422, description = "DW0101 to DW0112, DW0601: the spec is not valid; all diagnostics at once", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0812: too many requests are open, or the service is about to stop; DW0814: it could not be written to Kafka", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn submit(
    caller: May<Submit>,
    state: Data<State>,
    http: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, Fault> {
    let mut line = line(&caller, "submit");
    let taken = take(&caller, &state, &http, payload, &mut line).await;
    match &taken {
        Ok(receipt) => {
            line.came = if receipt.repeated { Came::Repeated } else { Came::Accepted };
            line.entry.request_id = Some(receipt.request_id.0.clone());
        }
        Err(fault) => line.code = Some(fault.code().into()),
    }
    line.write();
    let receipt = taken?;
    let location = (header::LOCATION, format!("{}/requests/{}", api::ROOT, receipt.request_id));
    let mut response = if receipt.repeated { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    Ok(response.insert_header(location).json(receipt))
}

/// Takes a request on; writes down what is learnt of it on the way.
async fn take(
    caller: &Caller,
    state: &Data<State>,
    http: &HttpRequest,
    payload: Payload,
    line: &mut Line,
) -> Result<Receipt, Fault> {
    let body = body::read(http, payload, state).await?;
    let headers: Vec<_> = http.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let received = request::decode(Message { binding: Binding::Http, headers: &headers, body: &body })?;
    line.entry.action = received.request.action.as_str().into();
    line.entry.traced(received.traceparent.as_deref());
    let is_event = received.identity.is_some();
    let identity = match received.identity {
        Some(identity) => identity,
        None => EventIdentity {
            source: format!("{}{}", EventIdentity::HTTP, caller.shown()),
            id: key(http)?.unwrap_or_else(|| Uuid::now_v7().to_string()),
        },
    };
    let (admitting, requester) = (state.clone(), caller.requester());
    let (asked, traceparent) = (received.request, received.traceparent);
    let admit = move || {
        if asked.spec.is_none() {
            // What it goes by was perhaps written by another instance a moment ago.
            admitting.register.catch_up(asked.pipeline.as_deref())?;
        }
        let admitted = admitting.admission.admit(&asked, identity, traceparent, &requester);
        Ok::<_, dagwright_store::Error>(admitted.map_err(|rejected| (rejected, pipeline_of(&asked))))
    };
    let admitted = actix_web::web::block(admit).await.map_err(|_| Fault::internal(Code::Internal))??;
    let admitted = admitted.map_err(|(rejected, pipeline)| {
        line.entry.pipeline = pipeline;
        rejected
    })?;
    let (request_id, pipeline) = (admitted.request.clone(), admitted.accepted.pipeline.clone());
    line.entry.pipeline = Some(pipeline.clone());
    line.entry.traced(admitted.accepted.traceparent.as_deref());
    let run_key = admitted.accepted.run_key();
    let repeated = if state.kafka.is_some() {
        let submitted = state.service.hand_on(admitted.request, admitted.accepted).await?;
        let id = request_id.clone();
        until(state, TAKEN_ON_WITHIN, move |register| Ok(register.request(&id)?.is_some())).await?;
        submitted == Submitted::Repeated
    } else {
        state.service.submit(admitted.request, admitted.accepted).await? == Submitted::Repeated
    };
    // An event that is sent again is the first one, whatever stands in it; a key is the caller's promise about a body.
    if repeated && !is_event {
        let first = summary(state, caller, &request_id).await?;
        if first.run_key != run_key {
            let detail = format!("request {request_id} has this Idempotency-Key, and asks for something else");
            let hint = "send it under another key; the same key is for the same request, sent again";
            let status = actix_web::http::StatusCode::UNPROCESSABLE_ENTITY;
            return Err(Fault::new(status, Code::RequestInvalid, detail, hint).about(&request_id.0));
        }
    }
    let links = api::request_links(&request_id, &pipeline, None, false);
    Ok(Receipt { request_id, pipeline, repeated, links })
}

/// Lists requests, the newest first.
#[utoipa::path(
    get, path = "/requests", tag = "requests", params(Wanted),
    responses(
        (status = 200, description = "A part of the list", body = ref("#/components/schemas/RequestPage")),
        (status = 400, description = "DW0801: a parameter is not valid", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    caller: May<Read>,
    state: Data<State>,
    wanted: Query<Wanted>,
) -> Result<Json<Page<api::Request>>, Fault> {
    let wanted = wanted.into_inner();
    let (limit, place) = (page::limit(wanted.limit)?, page::place(wanted.cursor.as_deref())?);
    let (items, place) = read(&state, move |register| {
        let is_wanted = |summary: &RequestSummary| {
            caller.sees(&summary.pipeline) && wanted.state.is_none_or(|state| summary.state == state)
        };
        page::recent(register, wanted.pipeline.as_deref(), place, limit, |summary| {
            is_wanted(&summary).then(|| api::Request::of(summary))
        })
    })
    .await?;
    Ok(Json(Page { items, next: place.as_ref().map(page::cursor) }))
}

/// Shows a request.
#[utoipa::path(
    get, path = "/requests/{id}", tag = "requests", params(("id" = String, Path, description = "The request")),
    responses(
        (status = 200, description = "The request", body = ref("#/components/schemas/Request")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(caller: May<Read>, state: Data<State>, id: Path<String>) -> Result<Json<api::Request>, Fault> {
    let id = RequestId(id.into_inner());
    let summary = summary(&state, &caller, &id).await?;
    let records = read(&state, move |register| register.read(&id, 0)).await?;
    let mut request = api::Request::of(summary);
    for record in records {
        match record.body {
            RecordBody::Accepted(accepted) => request.identity = accepted.identity.as_ref().map(Into::into),
            RecordBody::Failed(ended) | RecordBody::Deadlocked(ended) => request.problems = ended.problems,
            RecordBody::Replanned(replanned) => request.replans.push((*replanned).into()),
            RecordBody::ApprovalNeeded(needed) => request.drift = needed.drift,
            RecordBody::Approved(_) => request.drift.clear(),
            _ => {}
        }
    }
    Ok(Json(request))
}

/// Shows what the agents said, message by message.
#[utoipa::path(
    get, path = "/requests/{id}/transcript", tag = "requests",
    params(("id" = String, Path, description = "The request")),
    responses(
        (status = 200, description = "The messages so far, in order", body = ref("#/components/schemas/Transcript")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn transcript(
    caller: May<Read>,
    state: Data<State>,
    id: Path<String>,
) -> Result<Json<Vec<Said>>, Fault> {
    let id = RequestId(id.into_inner());
    summary(&state, &caller, &id).await?;
    let records = read(&state, move |register| register.read(&id, 0)).await?;
    let said = records.into_iter().filter_map(|record| match record.body {
        RecordBody::MessageSent(envelope) => Some(Said {
            sequence: record.sequence,
            at: api::instant(record.at),
            from: envelope.from,
            to: envelope.to,
            message: envelope.body,
        }),
        _ => None,
    });
    Ok(Json(said.collect()))
}

/// Tells what happened to a request, by whom and why.
#[utoipa::path(
    get, path = "/requests/{id}/explain", tag = "requests",
    description = "As JSON, or with `Accept: text/plain` as prose.",
    params(("id" = String, Path, description = "The request")),
    responses(
        (status = 200, description = "What happened", content(
            (ref("#/components/schemas/Story") = "application/json"),
            (String = "text/plain"),
        )),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn explain(
    caller: May<Read>,
    state: Data<State>,
    http: HttpRequest,
    id: Path<String>,
) -> Result<HttpResponse, Fault> {
    let id = RequestId(id.into_inner());
    let summary = summary(&state, &caller, &id).await?;
    let hash = summary.plan.clone();
    let (records, plan) = read(&state, move |register| {
        let plan = hash.map(|hash| register.plan(&hash)).transpose()?.flatten();
        Ok((register.read(&id, 0)?, plan))
    })
    .await?;
    let story: Story = story::tell(&summary, &records, plan.as_ref());
    let accept = http.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.trim_start().starts_with("text/plain") {
        let text = render::story::story(&story);
        return Ok(HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .body(anstream::adapter::strip_str(&text).to_string()));
    }
    Ok(HttpResponse::Ok().json(story))
}

/// Asks a request to stop, wherever it is.
#[utoipa::path(
    post, path = "/requests/{id}/cancel", tag = "requests",
    params(("id" = String, Path, description = "The request")),
    responses(
        (status = 202, description = "It was told to stop", body = ref("#/components/schemas/Stopping")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: it has ended", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0814: it could not be written to Kafka", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(caller: May<Operate>, state: Data<State>, id: Path<String>) -> Result<HttpResponse, Fault> {
    let id = RequestId(id.into_inner());
    let known = summary(&state, &caller, &id).await;
    Ok(HttpResponse::Accepted().json(stop(&caller, &state, id, known).await?))
}

/// Asks a request to stop, and writes down who did.
pub(super) async fn stop(
    caller: &Caller,
    state: &Data<State>,
    id: RequestId,
    known: Result<RequestSummary, Fault>,
) -> Result<Stopping, Fault> {
    let mut line = line(caller, "cancel");
    line.entry.request_id = Some(id.0.clone());
    let stopped = match known {
        Ok(known) => {
            line.entry.pipeline = Some(known.pipeline.clone());
            line.entry.traced(known.traceparent.as_deref());
            line.came = outcome(state, &known.pipeline);
            state.service.cancel(&id, caller.name.clone()).await.map_err(Fault::from)
        }
        Err(fault) => Err(fault),
    };
    conclude(line, stopped.as_ref().err());
    stopped?;
    let links = BTreeMap::from([("request".into(), format!("{}/requests/{id}", api::ROOT))]);
    Ok(Stopping { request_id: id, links })
}

/// Begins what is written down of a call.
pub(super) fn line(caller: &Caller, action: &str) -> Line {
    let mut line = Line::by(&caller.requester());
    line.entry = caller.asks(action);
    line
}

/// Returns what comes of something that is asked of whoever acts for a pipeline.
pub(super) fn outcome(state: &State, pipeline: &str) -> Came {
    if state.register.acts_for(pipeline) { Came::Done } else { Came::HandedOn }
}

/// Writes down who changed what.
pub(super) fn conclude(mut line: Line, fault: Option<&Fault>) {
    if let Some(fault) = fault {
        (line.code, line.came) = (Some(fault.code().into()), Came::Refused);
    }
    line.write();
}

/// Returns a request that the caller may see.
pub(super) async fn summary(state: &Data<State>, caller: &Caller, id: &RequestId) -> Result<RequestSummary, Fault> {
    let wanted = id.clone();
    let known = read(state, move |register| {
        let known = register.request(&wanted)?;
        if known.is_some() {
            return Ok(known);
        }
        // Another instance may have told of it a moment ago.
        register.catch_up(None)?;
        register.request(&wanted)
    })
    .await?;
    known.filter(|summary| caller.sees(&summary.pipeline)).ok_or_else(|| Fault::unknown("request", &id.0))
}

/// Returns what the caller calls the request: text that may stand in quotes, as the header's draft standard wants it.
fn key(http: &HttpRequest) -> Result<Option<String>, Fault> {
    let Some(value) = http.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if text.is_empty() || text.len() > KEY_LENGTH_MAX || !is_plain {
        let detail = format!("Idempotency-Key is not 1 to {KEY_LENGTH_MAX} visible characters");
        return Err(Fault::bad(detail, "a UUID is a good one").about("Idempotency-Key"));
    }
    Ok(Some(text.into()))
}
