//! `/plans`: approves and declines plans, never by who asked for them.

use actix_web::web::{Data, Json, Path};
use dagwright_model::id::PlanHash;

use super::{
    auth::{May, Operate},
    fault::Fault,
    read,
    requests::audit,
};
use crate::{api::Decided, serve::State};

/// Lets the requests that wait with a plan go on.
#[utoipa::path(
    post, path = "/plans/{hash}/approve", tag = "plans", params(("hash" = String, Path, description = "The plan's hash")),
    responses(
        (status = 200, description = "They go on", body = ref("#/components/schemas/Decided")),
        (status = 403, description = "DW0810: nobody approves what they asked for", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is none with this hash", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: no request waits with it", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn approve(
    caller: May<Operate>,
    state: Data<State>,
    hash: Path<String>,
) -> Result<Json<Decided>, Fault> {
    decide(caller, state, hash.into_inner(), true).await
}

/// Ends the requests that wait with a plan.
#[utoipa::path(
    post, path = "/plans/{hash}/decline", tag = "plans", params(("hash" = String, Path, description = "The plan's hash")),
    responses(
        (status = 200, description = "They have ended", body = ref("#/components/schemas/Decided")),
        (status = 403, description = "DW0810: nobody decides about what they asked for", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is none with this hash", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: no request waits with it", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn decline(
    caller: May<Operate>,
    state: Data<State>,
    hash: Path<String>,
) -> Result<Json<Decided>, Fault> {
    decide(caller, state, hash.into_inner(), false).await
}

async fn decide(
    caller: May<Operate>,
    state: Data<State>,
    hash: String,
    approved: bool,
) -> Result<Json<Decided>, Fault> {
    let plan_hash = PlanHash(hash);
    let wanted = plan_hash.clone();
    let known = read(&state, move |register| register.plan(&wanted)).await?;
    if !known.is_some_and(|plan| caller.sees(&plan.dag_id)) {
        return Err(Fault::unknown("plan", &plan_hash.0));
    }
    let decided = state.service.decide(&plan_hash, approved, caller.name.clone()).await.map_err(Fault::from);
    audit(&caller, if approved { "approve" } else { "decline" }, &plan_hash.0, decided.as_ref().err());
    Ok(Json(Decided { requests: decided?, plan_hash, approved }))
}
