//! Tells what happened to a request, by whom and why: a pure function of the ledger's records.
//!
//! | module | what it tells |
//! |---|---|
//! | `negotiated` | what was found, offered, refused and agreed |
//! | `anew` | what a run taught that failed, and the plan that took the place of its own |
//! | `ran` | tasks, tries, rows, and how it ended |
//!
//! Every sentence stands on a record, so what is told is what the service itself goes by. What was not recorded is not
//! told.

mod anew;
mod negotiated;
mod ran;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dagwright_model::{
    message::Message,
    plan::Plan,
    record::{Accepted, Ingress, PipelineStatus, Purpose, Record, RecordBody},
    spec::SchemaChange,
    task::Problem,
};
use dagwright_store::{RequestState, RequestSummary};

use self::ran::Tries;
use crate::{
    api::{Chapter, Story, instant},
    render::number,
};

/// Tells the story of a request; `plan` is the one that it has.
pub(crate) fn tell(summary: &RequestSummary, records: &[Record], plan: Option<&Plan>) -> Story {
    let mut teller = Teller { began: summary.accepted_at, chapters: Vec::new(), round: None, tries: Tries::default() };
    for record in records {
        teller.take(record, plan);
    }
    if !summary.state.is_final() {
        teller.now(summary);
    }
    Story {
        request_id: summary.request.clone(),
        pipeline: summary.pipeline.clone(),
        state: summary.state,
        summary: sentence(summary),
        chapters: teller.chapters,
        took_ms: took(records),
    }
}

struct Teller {
    /// When the request came in.
    began: u64,
    chapters: Vec<Chapter>,
    /// The last round whose conflicts were told.
    round: Option<u32>,
    tries: Tries,
}

// === impl Teller ===

impl Teller {
    fn take(&mut self, record: &Record, plan: Option<&Plan>) {
        let at = record.at;
        match &record.body {
            RecordBody::Accepted(accepted) => self.add("Asked", at, asked(accepted)),
            RecordBody::FactRecorded(fact) => self.add("Found", at, [negotiated::fact(&fact.observation)]),
            RecordBody::MessageSent(envelope) => {
                let mut said = negotiated::said(envelope);
                if let Message::Conflicts { round, .. } = &envelope.body
                    && self.round.replace(*round) == Some(*round)
                {
                    said.clear(); // Each party is told; once stands for all.
                }
                if !said.is_empty() {
                    self.add("Negotiated", at, said);
                }
            }
            RecordBody::PlanSealed(sealed) => {
                let first = format!("The agents agreed on plan {}.", sealed.hash.short());
                self.add("Agreed", at, [vec![first], negotiated::choices(&sealed.plan)].concat());
            }
            RecordBody::PlanReused(reused) => {
                let first = format!(
                    "Plan {} of request {} was used again: what was found for that one still counted as known. Its story \
                     tells how the agents came to it.",
                    reused.hash.short(),
                    reused.from
                );
                let choices = plan.map(negotiated::choices).unwrap_or_default();
                self.add("Agreed", at, [vec![first], choices].concat());
            }
            RecordBody::Deadlocked(ended) => {
                self.add("Deadlocked", at, ["The agents could not agree.".into()]);
                self.add("Deadlocked", at, ended.problems.iter().map(problem));
            }
            RecordBody::Failed(ended) => self.add("Failed", at, ended.problems.iter().map(problem)),
            RecordBody::DagCompiled(dag) => {
                let told =
                    format!("{} for {} ({}).", dag.file, dag.target, dag.file_hash.get(..12).unwrap_or_default());
                self.add("Compiled", at, [told]);
            }
            RecordBody::ApprovalNeeded(needed) => {
                let why = match needed.schema_change {
                    SchemaChange::None => "the policy wants a person to look at every plan".into(),
                    change => {
                        format!("the plan changes a sink's schema ({}), and the policy wants that", word(&change))
                    }
                };
                let why = if needed.drift.is_empty() { why } else { anew::DRIFTED.to_owned() };
                let told = format!("A person had to approve plan {}: {why}.", needed.plan_hash.short());
                self.add("Approval", at, [vec![told], anew::drifted(&needed.drift)].concat());
            }
            RecordBody::Approved(decision) => {
                self.add("Approval", at, [format!("{} approved it.", somebody(decision.by.as_deref()))]);
            }
            RecordBody::Declined(decision) => {
                self.add("Approval", at, [format!("{} declined it.", somebody(decision.by.as_deref()))]);
            }
            RecordBody::Cancelled(cancelled) => {
                self.add("Cancelled", at, [format!("{} asked it to stop.", somebody(cancelled.by.as_deref()))]);
            }
            RecordBody::PipelineChanged(changed) => {
                let told = match changed.status {
                    PipelineStatus::Active => format!("The pipeline is what revision {} says.", changed.revision),
                    PipelineStatus::Paused => "The pipeline is paused: it runs nothing.".into(),
                    PipelineStatus::Deleted => "The pipeline is deleted; its records and its data stay.".into(),
                };
                self.add("Done", at, [told]);
            }
            RecordBody::RunStarted(started) => self.add("Ran", at, ran::began(started)),
            RecordBody::TaskStarted(started) => {
                if let Some(told) = self.tries.began(started) {
                    self.add("Ran", at, [told]);
                }
            }
            RecordBody::TaskEnded(ended) => {
                let told = self.tries.ended(ended);
                self.add("Ran", at, told);
            }
            RecordBody::RetryScheduled(retry) => {
                let pause = number::elapsed_ms(retry.delay_ms);
                self.add("Ran", at, [format!("{} was to be tried again after {pause}.", retry.instance)]);
            }
            RecordBody::RemedyApplied(applied) => self.add("Ran", at, ran::helped(applied)),
            RecordBody::RunEnded(ended) => match &ended.setback {
                Some(setback) => self.add("Set back", at, anew::set_back(setback)),
                None => self.add("Ended", at, ran::ended(ended)),
            },
            RecordBody::Replanned(replanned) => self.add("Planned anew", at, anew::replanned(replanned)),
        }
    }

    /// Tells what it waits for.
    fn now(&mut self, summary: &RequestSummary) {
        let told = match (summary.state, &summary.plan) {
            (RequestState::AwaitingApproval, Some(plan)) => {
                format!("It waits for a person: dagwright approve {}", plan.0)
            }
            (RequestState::Negotiating, _) if summary.next_sequence <= 1 => {
                "It waits for its turn: requests of one pipeline go on one after the other.".into()
            }
            (RequestState::Negotiating, _) if summary.replans => "The agents are negotiating another plan.".into(),
            (RequestState::Negotiating, _) => "The agents are negotiating.".into(),
            (RequestState::Sealed | RequestState::AwaitingApproval, _) => "It is about to run.".into(),
            (RequestState::Cancelling, _) => "It is stopping.".into(),
            (
                RequestState::Running
                | RequestState::Deadlocked
                | RequestState::Failed
                | RequestState::Cancelled
                | RequestState::Succeeded,
                _,
            ) => "It is running.".into(),
        };
        self.add("Now", summary.changed_at, [told]);
    }

    /// Adds sentences to the chapter, which is a new one when the one before has another title.
    fn add(&mut self, title: &str, at: u64, told: impl IntoIterator<Item = String>) {
        let told = told.into_iter();
        match self.chapters.last_mut() {
            Some(chapter) if chapter.title == title => chapter.told.extend(told),
            _ => self.chapters.push(Chapter {
                title: title.into(),
                at: instant(at),
                after_ms: at.saturating_sub(self.began),
                told: told.collect(),
            }),
        }
    }
}

/// Tells who asked for what, and how.
fn asked(accepted: &Accepted) -> Vec<String> {
    let pipeline = &accepted.pipeline;
    let over = match accepted.ingress {
        Ingress::CommandLine => "on the command line",
        Ingress::Http => "over HTTP",
        Ingress::Kafka => "over Kafka",
        Ingress::Airflow => "in Airflow",
    };
    let what = match (accepted.purpose, accepted.backfill) {
        (Purpose::Plan, _) => format!("for a plan of {pipeline}, to look at"),
        (Purpose::Run, false) => format!("to run {pipeline}"),
        (Purpose::Run, true) => format!("to run {pipeline} for the past, whatever was read before"),
        (Purpose::Apply, _) => match accepted.revision {
            Some(revision) => format!("to make the spec revision {revision} of {pipeline}"),
            None => format!("to make the spec the next revision of {pipeline}"),
        },
        (Purpose::Pause, _) => format!("to pause {pipeline}"),
        (Purpose::Delete, _) => format!("to delete {pipeline}"),
    };
    let mut told = vec![format!("{} asked {over} {what}.", somebody(accepted.requester.as_deref()))];
    if let Some(identity) = &accepted.identity {
        told.push(format!("They call it {:?} of {}.", identity.id, identity.source));
    }
    if let Some(interval) = &accepted.interval {
        told.push(format!("The interval is {} to {}.", interval.start, interval.end));
    }
    if !accepted.params.is_empty() {
        let params: Vec<_> = accepted.params.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        told.push(format!("Parameters: {}.", params.join(", ")));
    }
    told
}

/// Tells all of it in one sentence.
fn sentence(summary: &RequestSummary) -> String {
    let RequestSummary { request, pipeline, .. } = summary;
    let took = number::elapsed_ms(summary.changed_at.saturating_sub(summary.accepted_at));
    let rows = summary.rows.filter(|rows| rows.read + rows.loaded + rows.quarantined > 0);
    let rows = rows.map(|rows| format!(": {}", ran::rows(&rows))).unwrap_or_default();
    let how = match summary.state {
        RequestState::Negotiating => "is being negotiated".into(),
        RequestState::Sealed => "has a plan".into(),
        RequestState::AwaitingApproval => "waits for a person to approve its plan".into(),
        RequestState::Running => "is running".into(),
        RequestState::Cancelling => "is stopping".into(),
        RequestState::Deadlocked => format!("deadlocked after {took}"),
        RequestState::Failed => format!("failed after {took}"),
        RequestState::Cancelled => format!("was cancelled after {took}"),
        RequestState::Succeeded => format!("succeeded after {took}"),
    };
    format!("Request {request} of {pipeline} {how}{rows}.")
}

/// Returns how long each part took, from what was recorded.
fn took(records: &[Record]) -> BTreeMap<String, u64> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return BTreeMap::new() };
    let mut took = BTreeMap::from([("total".into(), last.at.saturating_sub(first.at))]);
    let begin = |wanted: fn(&RecordBody) -> bool| records.iter().find(|record| wanted(&record.body));
    let end = |wanted: fn(&RecordBody) -> bool| records.iter().rfind(|record| wanted(&record.body));
    let mut part = |name: &str, from: Option<&Record>, to: Option<&Record>| {
        if let (Some(from), Some(to)) = (from, to) {
            took.insert(name.into(), to.at.saturating_sub(from.at));
        }
    };
    part("waiting", Some(first), records.get(1));
    let negotiates = |body: &RecordBody| matches!(body, RecordBody::FactRecorded(_) | RecordBody::MessageSent(_));
    part("negotiating", begin(negotiates), end(negotiates));
    let approval = |body: &RecordBody| matches!(body, RecordBody::ApprovalNeeded(_));
    let decided = |body: &RecordBody| matches!(body, RecordBody::Approved(_) | RecordBody::Declined(_));
    part("approval", begin(approval), end(decided));
    let runs = |body: &RecordBody| matches!(body, RecordBody::RunStarted(_));
    let ran = |body: &RecordBody| matches!(body, RecordBody::RunEnded(_));
    part("running", begin(runs), end(ran));
    took
}

fn somebody(name: Option<&str>) -> &str {
    name.unwrap_or("Somebody")
}

fn problem(problem: &Problem) -> String {
    let subject = if problem.subject.is_empty() { String::new() } else { format!(" ({})", problem.subject) };
    let hint = if problem.hint.is_empty() { String::new() } else { format!(" What to do: {}.", problem.hint) };
    format!("{}: {}{subject}.{hint}", problem.code, problem.message)
}

/// Returns the word that stands for a value in a spec.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
