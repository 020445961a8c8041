//! `dagwright plan SPEC`: negotiates, and shows what was found, agreed and why. Changes nothing anywhere.

use anyhow::Result;
use clap::Args;
use dagwright_model::{
    canonical,
    code::Code,
    id::RequestId,
    message::{Conflict, Facts, Transcript},
    plan::Plan as Sealed,
    record::Purpose,
    task::Problem,
};
use dagwright_negotiation::session::Ending;
use serde_json::json;

use crate::{
    cli::{Common, SpecArguments},
    desk::{Desk, Wishes},
    exit::Exit,
    output::Output,
    render,
};

/// Arguments of `dagwright plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    spec: SpecArguments,
}

/// Negotiates and prints everything that led to the plan.
pub(crate) async fn execute(arguments: &Plan, common: &Common, output: Output) -> Result<Exit> {
    let desk = Desk::open(common, &arguments.spec)?;
    let sealed = match sealed(&desk, output).await? {
        Ok(sealed) => sealed,
        Err(exit) => return Ok(exit),
    };
    output.text(&render::plan::whole(&sealed.plan, &sealed.facts, &sealed.transcript))?;
    output.json(&json!({
        "plan_hash": sealed.plan.hash(),
        "transcript_hash": canonical::hash(&timeless(&sealed.transcript)),
        "plan": sealed.plan,
        "facts": sealed.facts,
        "transcript": timeless(&sealed.transcript),
    }))?;
    Ok(Exit::Done)
}

/// A plan with everything that led to it.
pub(crate) struct SealedPlan {
    pub(crate) plan: Sealed,
    pub(crate) facts: Facts,
    pub(crate) transcript: Transcript,
}

/// Negotiates a plan that is not run; tells why there is none.
pub(crate) async fn sealed(desk: &Desk, output: Output) -> Result<Result<SealedPlan, Exit>> {
    let (request, negotiated) = desk.negotiate(desk.accepted(Purpose::Plan, &Wishes::default())?).await?;
    let (facts, transcript) = (negotiated.facts, negotiated.transcript);
    Ok(match agreed(negotiated.ending, &request, &facts, &transcript, output)? {
        Ok(plan) => Ok(SealedPlan { plan, facts, transcript }),
        Err(exit) => Err(exit),
    })
}

/// Returns the plan, or tells why there is none.
pub(crate) fn agreed(
    ending: Ending,
    request: &RequestId,
    facts: &Facts,
    transcript: &Transcript,
    output: Output,
) -> Result<Result<Sealed, Exit>> {
    let (code, title, exit, conflicts, problems): (_, _, _, Vec<Conflict>, Vec<Problem>) = match ending {
        Ending::Sealed(plan) => return Ok(Ok(*plan)),
        Ending::Deadlocked(conflicts) => {
            (Some(Code::Deadlocked), "the agents could not agree", Exit::Rejected, conflicts, Vec::new())
        }
        Ending::Expired { bound, conflicts } => {
            output
                .warn(&format!("the bound on {} was reached; see [negotiation] in the configuration", bound.as_str()));
            (Some(Code::NegotiationExpired), "the negotiation ran out", Exit::Rejected, conflicts, Vec::new())
        }
        Ending::Failed(problems) => {
            let exit = problems.first().map_or(Exit::Failed, |problem| Exit::of(problem.code));
            (None, "There is no plan", exit, Vec::new(), problems)
        }
    };
    let mut text = String::new();
    if !conflicts.is_empty() {
        text.push_str(&format!(
            "{}\n{}\n",
            render::styled(render::HEADING, "What was found"),
            render::facts::facts(facts)
        ));
    }
    // Problems have codes of their own.
    let code_and_title = code.map_or_else(|| title.to_owned(), |code| format!("{code} {title}"));
    text.push_str(&format!("{}\n", render::styled(render::BAD, code_and_title)));
    text.push_str(&render::conflicts::conflicts(&conflicts));
    for problem in &problems {
        text.push_str(&render::problem::problem(problem));
    }
    output.text(&text)?;
    output.json(&json!({
        "request_id": request,
        "status": if exit == Exit::Rejected { "deadlocked" } else { "failed" },
        "code": code,
        "conflicts": conflicts,
        "problems": problems,
        "transcript": timeless(transcript),
    }))?;
    Ok(Err(exit))
}

/// Returns the transcript without times and without the session's id, so that equal negotiations print equal bytes.
fn timeless(transcript: &Transcript) -> Vec<serde_json::Value> {
    let timeless = transcript.0.iter().map(|envelope| {
        let mut value = serde_json::to_value(envelope.timeless()).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.remove("session");
        }
        value
    });
    timeless.collect()
}
