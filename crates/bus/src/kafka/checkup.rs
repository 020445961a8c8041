//! Looks at brokers, topics and rights, for a person who wants to know what is wrong before a service does.
//!
//! It changes nothing that anybody works with: topics that are missing are only asked for with `validate_only`, the right
//! to write is asked for with a record that the ledger's topic refuses, and the right to transactions with an id that no
//! instance can have. Deliberately absent: the rights that only use shows, to write requests, events and dead letters.

mod brokers;
mod rights;
mod sizes;
mod topics;

use std::time::Duration;

use dagwright_model::{code::Code, task::Problem};
use rdkafka::{admin::AdminClient, consumer::BaseConsumer, error::KafkaError};

use super::{
    Error, Settings, Topics,
    client::{Complaint, Log},
    settings::create,
    topics::{blocking, metadata},
};

/// How long one thing may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const WHAT: &str = "look at the cluster";

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing.
    pub what: String,
    /// How it is.
    pub state: State,
}

/// How a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it has to be.
    Fine(String),
    /// Good enough to work with, and not as it should be.
    Doubtful(Problem),
    /// Not as it has to be.
    Bad(Problem),
}

/// Looks at everything that the settings need; `body_bytes_max` is how long a request may be that comes in by HTTP.
pub async fn check_up(settings: &Settings, body_bytes_max: usize) -> Vec<Finding> {
    if let Err(error) = settings.validate() {
        return vec![Finding::bad("kafka", problem("kafka", &error))];
    }
    let mut findings = brokers::configured(settings).await;
    if findings.iter().all(|finding| matches!(finding.state, State::Bad(_))) {
        return findings;
    }
    match examined(settings, body_bytes_max).await {
        Ok(more) => findings.extend(more),
        Err(error) => findings.push(Finding::bad("kafka", problem("kafka", &error))),
    }
    findings
}

async fn examined(settings: &Settings, body_bytes_max: usize) -> Result<Vec<Finding>, Error> {
    let topics = Topics::named(settings);
    let probe: BaseConsumer<Log> = create(&settings.tail("doctor"), Log::new("doctor"))?;
    let (probe, cluster) = blocking(move || {
        let known = metadata(&probe, None, WHAT, ANSWER_TIMEOUT);
        (probe, known)
    })
    .await;
    let cluster = cluster?;
    let admin: AdminClient<Log> = create(&settings.admin(), Log::new("doctor"))?;
    let mut findings = brokers::advertised(settings, &cluster).await;
    let configs = topics::configs(&admin, &topics, &cluster).await;
    findings.extend(topics::ours(settings, &topics, &cluster, &configs, &admin).await);
    findings.extend(topics::ingress(&topics, &cluster));
    findings.extend(sizes::lengths(settings, &topics, &configs, body_bytes_max));
    let names: Vec<_> = [&topics.requests, &topics.ledger, &topics.agents, &topics.dead_letters]
        .into_iter()
        .chain(&topics.ingress)
        .filter_map(|name| {
            Some((name.clone(), cluster.topics().iter().find(|it| it.name() == name)?.partitions().len()))
        })
        .collect();
    let (group, requests) = (settings.group.clone(), topics.requests.clone());
    findings.extend(
        blocking(move || {
            let mut findings = rights::to_read(&probe, &names);
            findings.push(rights::group(&probe, &group, &requests));
            findings
        })
        .await,
    );
    if configs.get(&topics.ledger).is_some_and(topics::is_compacted) {
        findings.push(rights::to_write(settings, &topics.ledger).await);
    }
    findings.push(rights::to_transactions(settings).await);
    // Its end joins a thread.
    blocking(move || drop(admin)).await;
    Ok(findings)
}

// === impl Finding ===

impl Finding {
    fn fine(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Fine(found.into()) }
    }

    fn doubtful(what: impl Into<String>, problem: Problem) -> Self {
        Self { what: what.into(), state: State::Doubtful(problem) }
    }

    fn bad(what: impl Into<String>, problem: Problem) -> Self {
        Self { what: what.into(), state: State::Bad(problem) }
    }
}

/// Returns an error with what to do about it.
fn problem(subject: &str, error: &Error) -> Problem {
    Problem {
        code: error.code(),
        subject: subject.into(),
        message: error.to_string(),
        hint: match error {
            Error::Unfit { remedy, .. } => remedy.clone(),
            error => error.remedy().into(),
        },
    }
}

fn unfit(topic: &str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { code: Code::BusUnfit, subject: topic.into(), message: message.into(), hint: hint.into() }
}

/// Returns why something is not allowed or not answered, with the right that it takes.
fn failed(what: &'static str, subject: &str, complaint: Option<Complaint>, source: KafkaError, right: &str) -> Problem {
    let error = Error::of(what, complaint, source);
    let mut problem = problem(subject, &error);
    if problem.code == Code::BusDenied {
        problem.hint = format!("grant the user {right}; docs/errors/DW0817.md lists all rights");
    }
    if let Error::Unreachable { source, .. } | Error::Denied { source, .. } = &error {
        problem.message = format!("{}: {source}", problem.message);
    }
    problem
}
