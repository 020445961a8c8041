//! `/events`: what happens, as server-sent events (WHATWG HTML, section 9.2).
//!
//! Each event is a CloudEvent under its position in the outbox, so who was cut off goes on with `Last-Event-ID` and
//! misses nothing. Nothing is kept for a reader but a position and a part of the outbox: one who is slow is behind, and
//! one who takes nothing at all is disconnected by the connection's time limit.
//!
//! Who asks for one request, and says no position, is told its history first. Those events have no position but the
//! last; who is cut off among them is told them again, under the same CloudEvents ids.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Bytes, Data, Query},
};
use dagwright_model::{
    code::Code,
    event::{self, Event, Subject},
    id::RequestId,
    record::{Record, RecordBody},
};
use dagwright_store::{Error as StoreError, Outbox};
use dagwright_wire::cloudevent;
use futures::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    auth::{May, Read},
    fault::Fault,
    read,
    requests::summary,
};
use crate::serve::State;

/// How long a stream is silent at most: proxies close what is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How many events are read at a time.
const BATCH: usize = 256;

/// How many streams there may be at a time; see [`State::streams`].
pub(crate) const STREAMS_MAX: usize = 256;

/// Which events are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this pipeline only.
    pipeline: Option<String>,
    /// Of this request only; without a position from its beginning.
    request: Option<String>,
    /// Those after this position, with 0 from the oldest that is kept; the header Last-Event-ID counts more. Without either, those from now on.
    after: Option<u64>,
}

/// Tells what happens, from a position on.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(Wanted, ("Last-Event-ID" = Option<String>, Header, description = "Go on after this position")),
    responses(
        (status = 200, description = "Server-sent events: `id` is the position, `event` what happened (as `run.succeeded`), `data` a CloudEvent in JSON",
         body = String, content_type = "text/event-stream"),
        (status = 400, description = "DW0801: the position is not valid", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is no such request", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 410, description = "DW0832: the events after the position are not kept any more", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0812: there are too many streams", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stream(
    caller: May<Read>,
    state: Data<State>,
    http: HttpRequest,
    wanted: Query<Wanted>,
) -> Result<HttpResponse, Fault> {
    let wanted = wanted.into_inner();
    let given = position(&http)?.or(wanted.after);
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        let detail = format!("{STREAMS_MAX} streams of events are open already");
        return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, detail, "close some, or try later"));
    };
    let outbox = state.outbox.clone();
    let newest = actix_web::web::block(move || outbox.newest_event()).await;
    let newest = newest.map_err(|_| Fault::internal(Code::Internal))??;
    if given.is_some_and(|given| given > newest) {
        let detail = format!("the newest event is {newest}: this position is of another ledger");
        return Err(Fault::bad(detail, "start without a position").about("Last-Event-ID"));
    }
    if let Some(given) = given.filter(|given| *given > 0) {
        let outbox = state.outbox.clone();
        let oldest = actix_web::web::block(move || outbox.oldest_event()).await;
        let oldest = oldest.map_err(|_| Fault::internal(Code::Internal))??;
        if let Some(oldest) = oldest.filter(|oldest| given + 1 < *oldest) {
            let detail = format!("the events after {given} are not kept any more; the oldest is {oldest}");
            let hint = "begin anew with after=0, and find out by GET /requests what was missed";
            return Err(Fault::new(StatusCode::GONE, Code::EventsForgotten, detail, hint).about("Last-Event-ID"));
        }
    }
    let mut ready = VecDeque::new();
    let mut told = None;
    let request = wanted.request.map(RequestId);
    if let Some(id) = &request {
        summary(&state, &caller, id).await?;
        if given.is_none() {
            let wanted = id.clone();
            let records = read(&state, move |register| register.read(&wanted, 0)).await?;
            told = records.last().map(|record| record.sequence);
            let history = history(&records);
            let last = history.len().saturating_sub(1);
            ready.push_back(Bytes::from_static(b"retry: 1000\n\n"));
            ready.extend(
                history.iter().enumerate().map(|(index, event)| render(event, (index == last).then_some(newest))),
            );
        }
    }
    if ready.is_empty() {
        // So that who is cut off before the first event knows where to go on.
        ready.push_back(format!("retry: 1000\nid: {}\n\n", given.unwrap_or(newest)).into());
    }
    let feed = Feed {
        outbox: state.outbox.clone(),
        news: state.news.clone(),
        closing: state.closing.clone(),
        position: given.unwrap_or(newest),
        wanted: Box::new(move |event| {
            wanted.pipeline.as_ref().is_none_or(|pipeline| event.data.pipeline == *pipeline)
                && request.as_ref().is_none_or(|request| event.data.request_id == *request)
                && told.is_none_or(|told| event.sequence > told)
                && caller.sees(&event.data.pipeline)
        }),
        ready,
        _permit: permit,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(stream::unfold(feed, |mut feed| async {
            let chunk = feed.next().await?;
            Some((chunk, feed))
        })))
}

/// One reader.
struct Feed {
    outbox: Arc<dyn Outbox>,
    news: watch::Receiver<u64>,
    closing: tokio_util::sync::CancellationToken,
    position: u64,
    wanted: Box<dyn Fn(&Event) -> bool>,
    /// What was read and not yet taken.
    ready: VecDeque<Bytes>,
    _permit: OwnedSemaphorePermit,
}

// === impl Feed ===

impl Feed {
    /// Returns what is sent next; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            if self.closing.is_cancelled() {
                return None;
            }
            self.news.borrow_and_update();
            if let Err(error) = self.read().await? {
                tracing::error!(%error, "could not read events");
                return Some(Err(error));
            }
            if !self.ready.is_empty() {
                continue;
            }
            let closing = self.closing.clone();
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = closing.cancelled() => return None,
                () = tokio::time::sleep(HEARTBEAT) => return Some(Ok(Bytes::from_static(b": still here\n\n"))),
            }
        }
    }

    /// Reads on until there is something wanted, or nothing further.
    async fn read(&mut self) -> Option<Result<(), StoreError>> {
        loop {
            let (outbox, after) = (self.outbox.clone(), self.position);
            let found = match actix_web::web::block(move || outbox.events(after, BATCH)).await.ok()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let is_end = found.len() < BATCH;
            for (position, event) in found {
                self.position = position;
                if (self.wanted)(&event) {
                    self.ready.push_back(render(&event, Some(position)));
                }
            }
            if is_end || !self.ready.is_empty() {
                return Some(Ok(()));
            }
        }
    }
}

/// Returns the events of a request's records.
fn history(records: &[Record]) -> Vec<Event> {
    let Some(RecordBody::Accepted(accepted)) = records.first().map(|record| &record.body) else { return Vec::new() };
    let (mut plan, mut runs, mut dag_run) = (None, false, None);
    let tell = |record: &Record| {
        match &record.body {
            RecordBody::PlanSealed(sealed) => plan = Some(sealed.hash.clone()),
            RecordBody::PlanReused(reused) => plan = Some(reused.hash.clone()),
            RecordBody::RunStarted(started) => {
                runs = true;
                dag_run.clone_from(&started.dag_run);
            }
            RecordBody::RunEnded(ended) if ended.is_setback() => runs = false,
            _ => {}
        }
        let traceparent = accepted.traceparent.as_deref();
        let (plan, dag_run) = (plan.as_ref(), dag_run.as_deref());
        event::of(Subject { pipeline: &accepted.pipeline, plan, runs, dag_run, traceparent }, record)
    };
    records.iter().filter_map(tell).collect()
}

/// Renders an event: JSON holds no line break, so it is one line of data.
fn render(event: &Event, position: Option<u64>) -> Bytes {
    let mut chunk = position.map(|position| format!("id: {position}\n").into_bytes()).unwrap_or_default();
    chunk.extend_from_slice(format!("event: {}\ndata: ", event.kind.as_str()).as_bytes());
    chunk.extend_from_slice(&cloudevent::of_event(event).to_structured());
    chunk.extend_from_slice(b"\n\n");
    chunk.into()
}

fn position(http: &HttpRequest) -> Result<Option<u64>, Fault> {
    let Some(value) = http.headers().get("last-event-id") else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let fault = || Fault::bad("Last-Event-ID is no position", "send the `id` of the last event").about("Last-Event-ID");
    position.map(Some).ok_or_else(fault)
}
