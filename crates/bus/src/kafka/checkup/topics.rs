//! Whether topics are there, and as they have to be.

use std::collections::{BTreeMap, HashMap};

use dagwright_model::{code::Code, task::Problem};
use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    error::KafkaError,
    metadata::{Metadata, MetadataTopic},
};

use super::{ANSWER_TIMEOUT, Finding, failed, problem, unfit};
use crate::kafka::{
    Settings, Topics,
    client::Log,
    topics::{Wanted, is_setting, new_topics},
};

/// A topic's settings by name.
pub(super) type Config = HashMap<String, String>;

/// Asks for the settings of the topics that are there; those that may not be asked for are left out.
pub(super) async fn configs(admin: &AdminClient<Log>, topics: &Topics, cluster: &Metadata) -> BTreeMap<String, Config> {
    let there: Vec<_> = topics.wanted().into_iter().filter(|wanted| find(cluster, wanted.name).is_some()).collect();
    let specifiers: Vec<_> = there.iter().map(|wanted| ResourceSpecifier::Topic(wanted.name)).collect();
    if specifiers.is_empty() {
        return BTreeMap::new();
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
    // In the order in which they were asked for.
    let described = admin.describe_configs(&specifiers, &options).await.unwrap_or_default();
    let described = there.iter().zip(described).filter_map(|(wanted, resource)| {
        let entries = resource.ok()?.entries.into_iter();
        Some((wanted.name.to_owned(), entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()))
    });
    described.collect()
}

pub(super) fn is_compacted(config: &Config) -> bool {
    config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
}

/// Looks at the topics that are ours.
pub(super) async fn ours(
    settings: &Settings,
    topics: &Topics,
    cluster: &Metadata,
    configs: &BTreeMap<String, Config>,
    admin: &AdminClient<Log>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wanted in topics.wanted() {
        let what = format!("topic {}", wanted.name);
        match find(cluster, wanted.name) {
            None => findings.push(missing(what, &wanted, settings, admin).await),
            Some(topic) => {
                findings.extend(known(&what, &wanted, topic, settings, cluster, configs.get(wanted.name)));
            }
        }
    }
    findings
}

/// Looks at the topics of others with requests.
pub(super) fn ingress(topics: &Topics, cluster: &Metadata) -> Vec<Finding> {
    let look = |name: &String| {
        let what = format!("topic {name}");
        match find(cluster, name) {
            None => Finding::bad(what, unfit(name, "it does not exist", "make it, or take it out of `kafka.ingress`")),
            Some(topic) => match leaderless(topic) {
                Some(problem) => Finding::bad(what, problem),
                None => Finding::fine(what, format!("{}, of requests", partitions(topic))),
            },
        }
    };
    topics.ingress.iter().map(look).collect()
}

fn find<'m>(cluster: &'m Metadata, name: &str) -> Option<&'m MetadataTopic> {
    cluster.topics().iter().find(|topic| topic.name() == name && !topic.partitions().is_empty())
}

/// Asks whether a topic could be made.
async fn missing(what: String, wanted: &Wanted<'_>, settings: &Settings, admin: &AdminClient<Log>) -> Finding {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).validate_only(true);
    let made = admin.create_topics(&new_topics(std::slice::from_ref(wanted), settings), &options).await;
    let right = "*create* on the topic, or make it yourself";
    match made.map(|mut results| results.pop()) {
        Ok(Some(Err((topic, code)))) if is_setting(code) => {
            let hint = "set `kafka.replication` to no more than there are brokers, or make the topic yourself";
            Finding::bad(what, unfit(&topic, format!("it does not exist, and cannot be made ({code})"), hint))
        }
        Ok(Some(Err((topic, code)))) => {
            Finding::bad(what, failed("make a topic", &topic, None, KafkaError::AdminOp(code), right))
        }
        Ok(_) => Finding::fine(what, format!("not there yet; `serve` makes it with {}", counted(wanted.partitions))),
        Err(error) => Finding::bad(what, failed("ask about a new topic", wanted.name, None, error, right)),
    }
}

fn known(
    what: &str,
    wanted: &Wanted<'_>,
    topic: &MetadataTopic,
    settings: &Settings,
    cluster: &Metadata,
    config: Option<&Config>,
) -> Vec<Finding> {
    let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
    let replicas = topic.partitions().iter().map(|it| it.replicas().len()).min().unwrap_or(0);
    let in_sync = topic.partitions().iter().map(|it| it.isr().len()).min().unwrap_or(0);
    let mut bad: Vec<Problem> = Vec::new();
    let mut doubtful = Vec::new();
    if let Err(error) = wanted.check(count) {
        bad.push(problem(wanted.name, &error));
    }
    bad.extend(leaderless(topic));
    if let Some(policy) = config.and_then(|config| config.get("cleanup.policy")) {
        let (is_wrong, why, policy_wanted) = match wanted.compacted {
            true => (policy.contains("delete"), "what is old would be lost", "compact"),
            false => {
                (policy.contains("compact"), "of records with the same key only the newest would be kept", "delete")
            }
        };
        if is_wrong {
            let message = format!("has cleanup.policy={policy}, so {why}");
            bad.push(unfit(wanted.name, message, format!("set its cleanup.policy to {policy_wanted}")));
        }
    } else {
        let message = "may not be asked how it is kept, so that was not checked";
        doubtful.push(unfit(
            wanted.name,
            message,
            "grant the user *describe configs* on the topic, or check cleanup.policy",
        ));
    }
    let enough = config.and_then(|config| config.get("min.insync.replicas")?.parse::<usize>().ok()).unwrap_or(1);
    if enough > replicas {
        let message = format!("has min.insync.replicas={enough} and {replicas} replicas, so nothing can be written");
        bad.push(unfit(wanted.name, message, "give it as many replicas, or lower min.insync.replicas"));
    } else if in_sync < enough {
        let message = format!("has {in_sync} replicas in sync of the {enough} that a write waits for");
        let hint = "bring back the brokers that hold the others".into();
        bad.push(Problem { code: Code::BusUnreachable, subject: wanted.name.into(), message, hint });
    } else if in_sync < replicas {
        let message = format!("has {in_sync} of {replicas} replicas in sync");
        doubtful.push(unfit(wanted.name, message, "bring back the brokers that hold the others"));
    }
    let asked = settings.replication.map(usize::from);
    let brokers = cluster.brokers().len();
    if let Some(asked) = asked.filter(|asked| replicas < *asked) {
        let message = format!("is kept by {replicas} brokers, and kafka.replication is {asked}");
        doubtful.push(unfit(
            wanted.name,
            message,
            "give it more replicas (kafka-reassign-partitions), or lower the setting",
        ));
    } else if replicas < 2 && brokers > 1 {
        let message = format!("is kept by one broker of {brokers}, and lost with that one's disk");
        doubtful.push(unfit(wanted.name, message, "give it more replicas (kafka-reassign-partitions)"));
    }
    if bad.is_empty() && doubtful.is_empty() {
        let kept = if wanted.compacted { "compacted" } else { "not compacted" };
        let brokers = if replicas == 1 { "one broker".into() } else { format!("{replicas} brokers") };
        return vec![Finding::fine(what, format!("{}, {kept}, kept by {brokers}", partitions(topic)))];
    }
    let bad = bad.into_iter().map(|problem| Finding::bad(what, problem));
    bad.chain(doubtful.into_iter().map(|problem| Finding::doubtful(what, problem))).collect()
}

fn leaderless(topic: &MetadataTopic) -> Option<Problem> {
    let partition = topic.partitions().iter().find(|partition| partition.leader() < 0)?;
    Some(Problem {
        code: Code::BusUnreachable,
        subject: topic.name().into(),
        message: format!("partition {} has no leader", partition.id()),
        hint: "bring back one of the brokers that hold it".into(),
    })
}

fn partitions(topic: &MetadataTopic) -> String {
    counted(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
}

fn counted(partitions: i32) -> String {
    if partitions == 1 { "1 partition".into() } else { format!("{partitions} partitions") }
}
