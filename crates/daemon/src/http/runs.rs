//! `/runs`: runs with their tasks and counts. A run's id is that of its request.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path, Query},
};
use dagwright_model::{
    event::Rows,
    id::RequestId,
    record::{Record, RecordBody, TaskInstance},
    task::Status,
};
use serde::Deserialize;

use super::{
    auth::{May, Operate, Read},
    fault::Fault,
    page, read,
    requests::{stop, summary},
};
use crate::{
    api::{self, Page, Run, RunParticulars, Task},
    serve::State,
};

/// Which runs are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this pipeline only.
    pipeline: Option<String>,
    /// How many at most: 1 to 500, else 50.
    limit: Option<usize>,
    /// `next` of the part before.
    cursor: Option<String>,
}

/// Lists runs, the newest first.
#[utoipa::path(
    get, path = "/runs", tag = "runs", params(Wanted),
    responses(
        (status = 200, description = "A part of the list", body = ref("#/components/schemas/RunPage")),
        (status = 400, description = "DW0801: a parameter is not valid", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    caller: May<Read>,
    state: Data<State>,
    wanted: Query<Wanted>,
) -> Result<Json<Page<Run>>, Fault> {
    let wanted = wanted.into_inner();
    let (limit, place) = (page::limit(wanted.limit)?, page::place(wanted.cursor.as_deref())?);
    let (items, place) = read(&state, move |register| {
        page::recent(register, wanted.pipeline.as_deref(), place, limit, |summary| {
            if caller.sees(&summary.pipeline) { Run::of(summary) } else { None }
        })
    })
    .await?;
    Ok(Json(Page { items, next: place.as_ref().map(page::cursor) }))
}

/// Shows a run with its tasks and counts.
#[utoipa::path(
    get, path = "/runs/{id}", tag = "runs", params(("id" = String, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = ref("#/components/schemas/Run")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(caller: May<Read>, state: Data<State>, id: Path<String>) -> Result<Json<Run>, Fault> {
    let id = RequestId(id.into_inner());
    let unknown = || Fault::unknown("run", &id.0);
    let known = summary(&state, &caller, &id).await.map_err(|_| unknown())?;
    let mut run = Run::of(known).ok_or_else(unknown)?;
    let records = read(&state, move |register| register.read(&id, 0)).await?;
    run.particulars = particulars(&run.pipeline, records);
    Ok(Json(run))
}

/// Asks a run to stop: its running tasks end, and what it staged is removed.
#[utoipa::path(
    post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = String, Path, description = "The run")),
    responses(
        (status = 202, description = "It was told to stop", body = ref("#/components/schemas/Stopping")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: it has ended", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0814: it could not be written to Kafka", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn cancel(caller: May<Operate>, state: Data<State>, id: Path<String>) -> Result<HttpResponse, Fault> {
    let id = RequestId(id.into_inner());
    let known = summary(&state, &caller, &id).await.ok().filter(|summary| summary.run_started_at.is_some());
    let known = known.ok_or_else(|| Fault::unknown("run", &id.0));
    Ok(HttpResponse::Accepted().json(stop(&caller, &state, id, known).await?))
}

/// Folds the records of a run.
fn particulars(pipeline: &str, records: Vec<Record>) -> Option<RunParticulars> {
    let mut run: Option<RunParticulars> = None;
    for Record { at, body, .. } in records {
        if let RecordBody::RunStarted(started) = body {
            run = Some(RunParticulars {
                quarantine: format!("{}/{pipeline}/{}/", started.quarantine, started.effect),
                interval: started.interval,
                params: started.params,
                backfill: started.backfill,
                tasks: Vec::new(),
                counts: None,
            });
        } else if let Some(run) = &mut run {
            take(run, at, body);
        }
    }
    run
}

fn take(run: &mut RunParticulars, at: u64, body: RecordBody) {
    match body {
        RecordBody::TaskStarted(started) => {
            let task = task(&mut run.tasks, &started.instance, at);
            (task.state, task.try_number) = ("running".into(), started.attempt);
        }
        RecordBody::RetryScheduled(retry) => task(&mut run.tasks, &retry.instance, at).state = "retrying".into(),
        RecordBody::TaskEnded(ended) => {
            let task = task(&mut run.tasks, &ended.instance, at);
            let state = match ended.outcome.status {
                Status::Succeeded => "succeeded",
                Status::Failed => "failed",
                Status::Cancelled => "cancelled",
            };
            (task.state, task.try_number) = (state.into(), ended.attempt);
            task.ended_at = Some(api::instant(at));
            task.rows = Some(Rows::of(&ended.outcome.counts));
            task.problem = ended.outcome.problem;
        }
        RecordBody::RunEnded(ended) => run.counts = Some(ended.counts),
        _ => {}
    }
}

/// Returns a task; one that was not met before began just now.
fn task<'a>(tasks: &'a mut Vec<Task>, instance: &TaskInstance, at: u64) -> &'a mut Task {
    let map_index = instance.map_index.map_or(-1, i64::from);
    let known = tasks.iter().position(|task| task.task_id == instance.task && task.map_index == map_index);
    let index = known.unwrap_or_else(|| {
        tasks.push(Task {
            task_id: instance.task.clone(),
            map_index,
            state: String::new(),
            try_number: 0,
            started_at: api::instant(at),
            ended_at: None,
            rows: None,
            problem: None,
        });
        tasks.len() - 1
    });
    &mut tasks[index]
}
