//! `/pipelines`: pipelines, and the plans that were sealed for them.

use std::collections::HashSet;

use actix_web::web::{Data, Json, Path, Query};
use dagwright_model::id::PlanHash;
use serde::Deserialize;

use super::{
    auth::{May, Read},
    fault::Fault,
    page, read,
};
use crate::{
    api::{Page, Pipeline, SealedPlan, WholePlan},
    serve::State,
};

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// How many at most: 1 to 500, else 50.
    limit: Option<usize>,
    /// `next` of the part before.
    cursor: Option<String>,
}

/// Lists pipelines in the order of their ids.
#[utoipa::path(
    get, path = "/pipelines", tag = "pipelines", params(Wanted),
    responses(
        (status = 200, description = "A part of the list", body = ref("#/components/schemas/PipelinePage")),
        (status = 400, description = "DW0801: a parameter is not valid", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn list(
    caller: May<Read>,
    state: Data<State>,
    wanted: Query<Wanted>,
) -> Result<Json<Page<Pipeline>>, Fault> {
    let limit = page::limit(wanted.limit)?;
    let after: String = page::place(wanted.cursor.as_deref())?.unwrap_or_default();
    let found = read(&state, move |register| register.pipelines(&after, limit)).await?;
    let next = if found.len() < limit { None } else { found.last().map(|last| page::cursor(&last.pipeline)) };
    let items = found.into_iter().filter(|summary| caller.sees(&summary.pipeline)).map(Pipeline::of).collect();
    Ok(Json(Page { items, next }))
}

/// Shows a pipeline.
#[utoipa::path(
    get, path = "/pipelines/{name}", tag = "pipelines", params(("name" = String, Path, description = "The pipeline's id")),
    responses(
        (status = 200, description = "The pipeline", body = ref("#/components/schemas/Pipeline")),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn show(caller: May<Read>, state: Data<State>, name: Path<String>) -> Result<Json<Pipeline>, Fault> {
    let name = name.into_inner();
    let unknown = Fault::unknown("pipeline", &name);
    if !caller.sees(&name) {
        return Err(unknown);
    }
    let known = read(&state, move |register| register.pipeline(&name)).await?;
    Ok(Json(Pipeline::of(known.ok_or(unknown)?)))
}

/// Lists the plans that were sealed for a pipeline, the newest first.
#[utoipa::path(
    get, path = "/pipelines/{name}/plans", tag = "pipelines",
    params(("name" = String, Path, description = "The pipeline's id"), Wanted),
    responses(
        (status = 200, description = "A part of the list; a plan may stand in a later part again", body = ref("#/components/schemas/PlanPage")),
        (status = 400, description = "DW0801: a parameter is not valid", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is none with this id", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn plans(
    caller: May<Read>,
    state: Data<State>,
    name: Path<String>,
    wanted: Query<Wanted>,
) -> Result<Json<Page<SealedPlan>>, Fault> {
    let name = name.into_inner();
    let unknown = Fault::unknown("pipeline", &name);
    if !caller.sees(&name) {
        return Err(unknown);
    }
    let (limit, place) = (page::limit(wanted.limit)?, page::place(wanted.cursor.as_deref())?);
    let found = read(&state, move |register| {
        let Some(known) = register.pipeline(&name)? else { return Ok(None) };
        page::recent(register, Some(&known.pipeline), place, limit, SealedPlan::of).map(Some)
    })
    .await?;
    let (mut items, place) = found.ok_or(unknown)?;
    let mut seen = HashSet::new();
    items.retain(|plan| seen.insert(plan.plan_hash.clone()));
    Ok(Json(Page { items, next: place.as_ref().map(page::cursor) }))
}

/// Shows a plan: its tasks, what was chosen, what lost and why.
#[utoipa::path(
    get, path = "/pipelines/{name}/plans/{hash}", tag = "pipelines",
    params(("name" = String, Path, description = "The pipeline's id"), ("hash" = String, Path, description = "The plan's hash")),
    responses(
        (status = 200, description = "The plan", body = ref("#/components/schemas/WholePlan")),
        (status = 404, description = "DW0803: there is none with this hash", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn plan(
    caller: May<Read>,
    state: Data<State>,
    path: Path<(String, String)>,
) -> Result<Json<WholePlan>, Fault> {
    let (name, hash) = path.into_inner();
    let (unknown, plan_hash) = (Fault::unknown("plan", &hash), PlanHash(hash));
    let wanted = plan_hash.clone();
    let known = read(&state, move |register| register.plan(&wanted)).await?;
    let plan = known.filter(|plan| plan.dag_id == name && caller.sees(&plan.dag_id)).ok_or(unknown)?;
    Ok(Json(WholePlan { plan_hash, plan }))
}
