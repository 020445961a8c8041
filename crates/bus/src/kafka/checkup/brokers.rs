//! Whether brokers answer, each by itself: those that the settings name, and those that these name.

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
    metadata::Metadata,
};

use super::{ANSWER_TIMEOUT, Finding, WHAT, problem};
use crate::kafka::{Error, Settings, client::Log, error::is_denial, settings::create, topics::metadata};

/// More brokers are not asked one by one.
const ADVERTISED_MAX: usize = 20;

/// Asks each broker of the settings.
pub(super) async fn configured(settings: &Settings) -> Vec<Finding> {
    let addresses = addresses(settings);
    ask(settings, addresses.into_iter().map(|address| (format!("broker {address}"), address)).collect(), None).await
}

/// Asks each broker that the cluster names and the settings do not: it is there that clients go in the end.
pub(super) async fn advertised(settings: &Settings, cluster: &Metadata) -> Vec<Finding> {
    let known = addresses(settings);
    let brokers = cluster.brokers().iter().map(|broker| (broker.id(), format!("{}:{}", broker.host(), broker.port())));
    let others = brokers.filter(|(_, address)| !known.contains(address)).take(ADVERTISED_MAX);
    let hint = "this is the address that the cluster tells its clients; check the broker's advertised.listeners, and that \
                this machine can reach it";
    ask(settings, others.map(|(id, address)| (format!("broker {id} at {address}"), address)).collect(), Some(hint))
        .await
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.brokers.split(',').map(str::trim).filter(|it| !it.is_empty()).map(Into::into).collect()
}

/// Asks brokers at the same time, each with a client of its own.
async fn ask(settings: &Settings, brokers: Vec<(String, String)>, hint: Option<&str>) -> Vec<Finding> {
    let asked: Vec<_> = brokers
        .into_iter()
        .map(|(what, address)| {
            let mut config = settings.admin();
            config.set("bootstrap.servers", &address);
            let found = tokio::task::spawn_blocking(move || {
                let probe: BaseConsumer<Log> = create(&config, Log::new("doctor"))?;
                let answer = metadata(&probe, None, WHAT, ANSWER_TIMEOUT);
                Ok::<_, Error>((answer.map(|_| ()), probe.context().complaint()))
            });
            (what, address, found)
        })
        .collect();
    let mut findings = Vec::new();
    for (what, address, found) in asked {
        let found = match found.await {
            Ok(found) => found,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        findings.push(match found {
            Ok((Ok(()), _)) => Finding::fine(what, format!("answers ({})", manner(settings))),
            Ok((Err(error), complaint)) => {
                let mut told = problem(&address, &error);
                let code = complaint.as_ref().map(|it| it.code);
                told.hint = match hint {
                    Some(hint) if !code.is_some_and(is_denial) => hint.into(),
                    _ => remedy(code, complaint.as_ref().map_or("", |it| &it.reason)).into(),
                };
                Finding::bad(what, told)
            }
            Err(error) => Finding::bad(what, problem(&address, &error)),
        });
    }
    findings
}

fn manner(settings: &Settings) -> &str {
    settings.properties.get("security.protocol").map_or("plaintext", String::as_str)
}

/// Returns what to do about a broker that does not let us in, or does not answer.
fn remedy(code: Option<RDKafkaErrorCode>, reason: &str) -> &'static str {
    let says = |text: &str| reason.contains(text);
    match code {
        Some(RDKafkaErrorCode::SSL) if says("verify failed") || says("self-signed") || says("self signed") => {
            "the broker's certificate is not of an authority in `kafka.properties.ssl.ca.location`, or is for another \
             host name: give the authority that signed it"
        }
        Some(RDKafkaErrorCode::SSL) => {
            "the TLS handshake failed: check that this listener speaks TLS (`kafka.properties.security.protocol`), and, \
             where brokers want one, the client's certificate (`ssl.certificate.location`, `ssl.key.location`)"
        }
        Some(
            RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::IllegalSASLState
            | RDKafkaErrorCode::UnsupportedSASLMechanism,
        ) => {
            "the broker does not accept who we say we are: check `kafka.properties.sasl.username`, `sasl.password` and \
             `sasl.mechanism`"
        }
        Some(RDKafkaErrorCode::Resolve) => "the name is not known here: check `kafka.brokers` and the DNS",
        Some(RDKafkaErrorCode::BrokerTransportFailure) if says("refused") => {
            "nothing listens there: check that the broker runs, and host and port in `kafka.brokers`"
        }
        Some(RDKafkaErrorCode::BrokerTransportFailure) if says("security.protocol") || says("isconnected") => {
            "it hung up at once: `kafka.properties.security.protocol` may not be what this listener speaks"
        }
        _ => "check `kafka.brokers`, firewalls on the way, and `kafka.properties.security.protocol`",
    }
}
