//! `/plans`: approves and declines plans, never by who asked for them.

use actix_web::web::{Data, Json, Path};
use dagwright_model::id::{PlanHash, RequestId};

use super::{
    auth::{Caller, May, Operate},
    fault::Fault,
    read,
    requests::summary,
};
use crate::{api::Decided, audit::Outcome, serve::State};

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
    let decided = decided(&caller, &state, &plan_hash, approved).await;
    write_down(&caller, &state, &plan_hash, approved, &decided).await;
    Ok(Json(Decided { requests: decided?, plan_hash, approved }))
}

async fn decided(
    caller: &Caller,
    state: &Data<State>,
    plan_hash: &PlanHash,
    approved: bool,
) -> Result<Vec<RequestId>, Fault> {
    let wanted = plan_hash.clone();
    let known = read(state, move |register| register.plan(&wanted)).await?;
    if !known.is_some_and(|plan| caller.sees(&plan.dag_id)) {
        return Err(Fault::unknown("plan", &plan_hash.0));
    }
    state.service.decide(plan_hash, approved, caller.name.clone()).await.map_err(Fault::from)
}

/// Leaves a line for each request that was decided about, or one for the refusal.
async fn write_down(
    caller: &Caller,
    state: &Data<State>,
    plan_hash: &PlanHash,
    approved: bool,
    decided: &Result<Vec<RequestId>, Fault>,
) {
    let mut entry = caller.asks(if approved { "approve" } else { "decline" });
    entry.subject = Some(plan_hash.0.clone());
    let requests = match decided {
        Ok(requests) => requests,
        Err(fault) => return entry.write(Outcome::Refused(fault.code())),
    };
    for request in requests {
        match summary(state, caller, request).await {
            Ok(summary) => entry.about(&summary),
            // It is decided in any case.
            Err(_) => entry.request_id = Some(request.0.clone()),
        }
        entry.write(Outcome::Done);
    }
}
