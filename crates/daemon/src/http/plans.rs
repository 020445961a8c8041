//! `/plans`: approves and declines plans, never by who asked for them.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{Data, Path},
};
use dagwright_model::{code::Code, id::PlanHash, record::RecordBody};
use dagwright_store::RequestState;

use super::{
    auth::{Caller, May, Operate},
    fault::Fault,
    read,
    requests::{conclude, line, outcome},
    until,
};
use crate::{
    api::Decided,
    audit::{Came, Line},
    serve::State,
};

/// How long to wait until whoever acts for the pipeline has decided; then the answer is that they will.
const DECIDED_WITHIN: Duration = Duration::from_secs(3);

/// Lets the requests that wait with a plan go on.
#[utoipa::path(
    post, path = "/plans/{hash}/approve", tag = "plans", params(("hash" = String, Path, description = "The plan's hash")),
    responses(
        (status = 202, description = "It stands in the ledger, and whoever acts for the pipeline will let them go on", body = ref("#/components/schemas/Decided")),
        (status = 200, description = "They go on", body = ref("#/components/schemas/Decided")),
        (status = 403, description = "DW0810: nobody approves what they asked for", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is none with this hash", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: no request waits with it", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0814: it could not be written to Kafka", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn approve(
    caller: May<Operate>,
    state: Data<State>,
    hash: Path<String>,
) -> Result<HttpResponse, Fault> {
    decide(&caller, &state, hash.into_inner(), true).await
}

/// Ends the requests that wait with a plan.
#[utoipa::path(
    post, path = "/plans/{hash}/decline", tag = "plans", params(("hash" = String, Path, description = "The plan's hash")),
    responses(
        (status = 202, description = "It stands in the ledger, and whoever acts for the pipeline will end them", body = ref("#/components/schemas/Decided")),
        (status = 200, description = "They have ended", body = ref("#/components/schemas/Decided")),
        (status = 403, description = "DW0810: nobody decides about what they asked for", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 404, description = "DW0803: there is none with this hash", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 409, description = "DW0811: no request waits with it", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
        (status = 503, description = "DW0814: it could not be written to Kafka", body = ref("#/components/schemas/Details"), content_type = "application/problem+json"),
    ),
)]
pub(super) async fn decline(
    caller: May<Operate>,
    state: Data<State>,
    hash: Path<String>,
) -> Result<HttpResponse, Fault> {
    decide(&caller, &state, hash.into_inner(), false).await
}

/// Decides, and writes down who did.
async fn decide(caller: &Caller, state: &Data<State>, hash: String, approved: bool) -> Result<HttpResponse, Fault> {
    let mut line = line(caller, if approved { "approve" } else { "decline" });
    line.entry.subject = Some(hash.clone());
    let decided = ask(caller, state, PlanHash(hash), approved, &mut line).await;
    conclude(line, decided.as_ref().err());
    let (status, decided) = decided?;
    Ok(HttpResponse::build(status).json(decided))
}

async fn ask(
    caller: &Caller,
    state: &Data<State>,
    plan_hash: PlanHash,
    approved: bool,
    line: &mut Line,
) -> Result<(StatusCode, Decided), Fault> {
    let wanted = plan_hash.clone();
    let known = read(state, move |register| {
        let known = register.plan(&wanted)?;
        if known.is_some() {
            return Ok(known);
        }
        // Another instance may have told of it a moment ago.
        register.catch_up(None)?;
        register.plan(&wanted)
    })
    .await?;
    let plan = known.filter(|plan| caller.sees(&plan.dag_id)).ok_or_else(|| Fault::unknown("plan", &plan_hash.0))?;
    line.came = outcome(state, &plan.dag_id);
    line.entry.pipeline = Some(plan.dag_id);
    let requests = state.service.decide(&plan_hash, approved, caller.name.clone()).await.map_err(Fault::from)?;
    let (asked, hash) = (requests.clone(), plan_hash.clone());
    let is_decided = until(state, DECIDED_WITHIN, move |register| {
        for request in &asked {
            let waits = register.request(request)?.is_some_and(|known| known.state == RequestState::AwaitingApproval);
            if waits {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    if !is_decided {
        line.came = Came::HandedOn;
        return Ok((StatusCode::ACCEPTED, Decided { requests, plan_hash, approved, settled: false }));
    }
    // Somebody else may have been faster, and decided otherwise.
    let requests = read(state, move |register| {
        let mut decided = Vec::with_capacity(requests.len());
        for request in requests {
            let records = register.read(&request, 0)?;
            let is_ours = records.iter().rev().any(|record| match &record.body {
                RecordBody::Approved(decision) => approved && decision.plan_hash == hash,
                RecordBody::Declined(decision) => !approved && decision.plan_hash == hash,
                _ => false,
            });
            decided.extend(is_ours.then_some(request));
        }
        Ok(decided)
    })
    .await?;
    if requests.is_empty() {
        let detail = format!("somebody else has decided about plan {plan_hash}");
        let hint = "see `dagwright explain` of its requests for who did";
        return Err(Fault::new(StatusCode::CONFLICT, Code::NothingToDecide, detail, hint).about(&plan_hash.0));
    }
    line.came = Came::Done;
    Ok((StatusCode::OK, Decided { requests, plan_hash, approved, settled: true }))
}
