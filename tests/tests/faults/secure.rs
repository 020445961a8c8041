//! A broker that wants to know who is there: a service is let in by SASL/SCRAM inside TLS, or says why not and ends.

use std::process::Command;

use dagwright_tests::{
    Ended, Workspace,
    daemon::Daemon,
    kafka::{Client, Kafka, Listener},
};

use crate::{Place, ROWS, assert_done_once, request, until_all_ended};

const GUESSED: &str = "hunter2-guessed";

/// Returns a service's settings for the listener, some of them replaced.
fn variables(kafka: &Kafka, listener: Listener, replaced: &[(&'static str, &str)]) -> Vec<(String, String)> {
    let mut settings = kafka.settings(listener);
    settings.extend(replaced.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let brokers = settings.remove("bootstrap.servers").expect("an address");
    let place = Place { brokers: &brokers, prefix: "secure" };
    let properties = settings.into_iter().map(|(name, value)| {
        (format!("DAGWRIGHT__KAFKA__PROPERTIES__{}", name.replace('.', "__").to_uppercase()), value)
    });
    place.variables().into_iter().chain(properties).collect()
}

/// Expects that a service does not start, says so in the way of an error with this code, and keeps the secrets.
#[track_caller]
fn refused(kafka: &Kafka, listener: Listener, replaced: &[(&'static str, &str)], code: &str) {
    let workspace = Workspace::new();
    let variables = variables(kafka, listener, replaced);
    let serve = Daemon::command(&workspace, &crate::borrowed(&variables));
    // One that starts all the same would never end.
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120"]).arg(serve.get_program()).args(serve.get_args());
    command.current_dir(workspace.path("")).envs(serve.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let ended = Ended::from(command.output().expect("timeout: install coreutils"));
    ended.expect_problem(3, code);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for (name, secret) in variables.iter().filter(|(name, _)| name.ends_with("PASSWORD")) {
        assert!(!said.contains(secret), "{name} is told: {said}");
    }
}

#[test]
fn a_request_passes_a_guarded_broker_and_who_is_not_let_in_says_why() {
    let kafka = Kafka::start_secure();
    let workspace = Workspace::new();
    workspace.write("in.csv", ROWS);
    let mut client = Client::new(&kafka.settings(Listener::SaslSsl));
    {
        let variables = variables(&kafka, Listener::SaslSsl, &[]);
        let mut daemon = Daemon::with(&workspace, &crate::borrowed(&variables), &[]);
        client.produce("secure.requests.v1", &[request(&workspace, "guarded", "1")]);
        let kinds = until_all_ended(&mut client, "secure.events.v1", &["guarded".to_owned()].into());
        assert_done_once(&workspace, &kinds);
        daemon.signal("TERM");
        assert_eq!(daemon.ended(), Some(0));
    }
    let stranger = kafka.stranger().display().to_string();
    for listener in [Listener::SaslSsl, Listener::SaslPlaintext] {
        refused(&kafka, listener, &[("sasl.password", GUESSED)], "DW0817");
        refused(&kafka, listener, &[("sasl.username", "nobody-here")], "DW0817");
    }
    for listener in [Listener::SaslSsl, Listener::Ssl] {
        refused(&kafka, listener, &[("ssl.ca.location", &stranger)], "DW0817");
    }
    // In the clear where TLS is spoken: nobody can tell why nothing is understood.
    refused(&kafka, Listener::SaslSsl, &[("security.protocol", "SASL_PLAINTEXT")], "DW0814");
}
