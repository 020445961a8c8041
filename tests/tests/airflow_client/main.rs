//! The contract of the Airflow client, against real Airflows: 2.11.2 and 3.3.2 go through the same steps, and by
//! `make compat` the versions between them.
//!
//! One server each, and a story from the first look to the deletion: what a step leaves behind, the next one finds. Where the
//! versions differ, a step says how. What no real Airflow does on request is tested in `crates/airflow/tests`.

mod steps;

use std::{future::Future, time::Duration};

use dagwright_airflow::{Airflow, Client, Credentials, Result, Secret, Settings};
use dagwright_tests::{airflow, repository};

/// How long something may take that Airflow is asked for, on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

/// An Airflow with the contract's DAGs.
struct Contract {
    server: airflow::Airflow,
    client: Client,
    /// 2 or 3.
    major: u32,
    /// As the 0 of 3.0.6.
    minor: u32,
}

// === impl Contract ===

impl Contract {
    fn start(version: &str) -> Self {
        let server = airflow::Airflow::start(version);
        let dags = repository().join("tests/tests/airflow_client/dags.py");
        std::fs::copy(dags, server.dags().join("contract.py")).expect("a copy");
        let client = client(&server, "admin", &server.password);
        let mut numbers = version.split('.').map(|number| number.parse().expect("a number"));
        Self { client, major: numbers.next().expect("3"), minor: numbers.next().expect("0"), server }
    }

    /// Whether this Airflow is as new as this 3.x.
    fn since_3(&self, minor: u32) -> bool {
        self.major == 3 && self.minor >= minor
    }

    /// Looks until `look` finds what it looks for.
    async fn wait<T, F: Future<Output = Result<Option<T>>>>(&self, what: &str, look: impl Fn() -> F) -> T {
        let mut ticks = tokio::time::interval(Duration::from_millis(300));
        let found = async {
            loop {
                ticks.tick().await;
                match look().await {
                    Ok(Some(found)) => return found,
                    Ok(None) => {}
                    Err(error) if error.is_not_found() || error.is_retryable() => {}
                    Err(error) => panic!("while waiting for {what}: {error}\n{}", self.server.logs()),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}\n{}", self.server.logs()),
        }
    }
}

fn client(server: &airflow::Airflow, user: &str, password: &str) -> Client {
    let credentials = Credentials::Password { username: user.into(), password: Secret::new(password) };
    let settings = Settings::new(server.url.parse().expect("a URL"), credentials).expect("settings");
    Client::new(settings).expect("a client")
}

async fn check(version: &str) {
    let contract = Contract::start(version);
    assert_eq!(contract.client.version().await.expect("a version").to_string(), version);
    assert!(contract.client.health().await.expect("health").is_healthy());
    contract.dags().await;
    contract.import_errors().await;
    contract.users().await;
    contract.pools_and_connections().await;
    contract.what_is_not_there().await;
    contract.a_run_that_fails().await;
    contract.its_tasks().await;
    contract.its_logs_and_values().await;
    contract.clearing_it().await;
    contract.its_asset().await;
    contract.marking().await;
    contract.backfills().await;
    contract.deletion().await;
}

#[tokio::test]
async fn airflow_2_keeps_the_contract() {
    check(&airflow::version_2()).await;
}

#[tokio::test]
async fn airflow_3_keeps_the_contract() {
    check(&airflow::version_3()).await;
}
