//! Opens connections.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use dagwright_model::{
    code::Code,
    facts::Identity,
    id::Name,
    spec::{Locator, TableName},
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{fault::Subject, tls};
use crate::{connectors::Environment, error::Result};

/// How long connecting may take when the URL does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// When an idle peer is asked whether it is still there: well below the hours after which firewalls forget.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// What every session sets, as far as the server knows it: no timeouts, one way to write every value as text, and a
/// look at the connection now and then, so that a killed task's statement ends.
const SETTINGS: &str = "SELECT pg_catalog.set_config(known.name, wanted.value, false)
  FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
    ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('client_min_messages', 'error'),
    ('timezone', 'UTC'), ('datestyle', 'ISO, YMD'), ('intervalstyle', 'iso_8601'), ('extra_float_digits', '1'),
    ('bytea_output', 'hex'), ('standard_conforming_strings', 'on'),
    ('client_connection_check_interval', '5s')) AS wanted (name, value)
  JOIN pg_catalog.pg_settings AS known ON pg_catalog.lower(known.name) = wanted.name";

/// An open connection; dropping it ends the server's session and whatever transaction is open.
pub(crate) struct Session {
    /// The client.
    pub client: Client,
    /// Who to name in errors.
    pub subject: Subject,
    driver: JoinHandle<()>,
    tls: MakeRustlsConnect,
}

// === impl Session ===

impl Session {
    /// Connects, after it made sure that the sealed connections mean what they meant.
    pub(crate) async fn open(
        environment: &Environment,
        sealed: &BTreeMap<Name, Identity>,
        connection: &Name,
        subject: Subject,
    ) -> Result<Self> {
        environment.check_sealed(sealed)?;
        let (config, tls) = parse(environment.url(connection)?, connection, &subject)?;
        let timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let connected = tokio::time::timeout(timeout, config.connect(tls.clone())).await;
        let (client, driver) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(subject.fault("connect", error)),
            Err(_) => {
                return Err(subject.error(
                    subject.side.unreachable(),
                    format!("could not connect within {} s", timeout.as_secs()),
                    "check that the server runs and can be reached from here",
                ));
            }
        };
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer gets the failure; here nobody would hear it.
            if driver.await.is_err() {
                tracing::debug!("a PostgreSQL connection ended with an error");
            }
        });
        let session = Self { client, subject, driver, tls };
        session.client.query(SETTINGS, &[]).await.map_err(|error| session.fault("set up the session", error))?;
        Ok(session)
    }

    /// Makes an error of what failed while `doing` something.
    pub(crate) fn fault(&self, doing: &str, error: tokio_postgres::Error) -> crate::error::Error {
        self.subject.fault(doing, error)
    }

    /// Runs statements without parameters or results.
    pub(crate) async fn run(&self, doing: &str, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| self.fault(doing, error))
    }

    /// Waits for `work`, or until `cancel` is cancelled; the running statement is cancelled too then.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                self.cancel_statement().await;
                Err(self.subject.cancelled())
            }
            done = work => done,
        }
    }

    /// Asks the server to end the running statement, as far as it can be reached.
    pub(crate) async fn cancel_statement(&self) {
        let token = self.client.cancel_token();
        let asked = token.cancel_query(self.tls.clone());
        // Nothing depends on it: the transaction ends with the connection.
        let _ = tokio::time::timeout(Duration::from_secs(2), asked).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Returns the connection of a locator.
pub(crate) fn connection_of<'a>(locator: &'a Locator, subject: &Subject) -> Result<&'a Name> {
    crate::connectors::identity::connection_of(locator)
        .ok_or_else(|| subject.error(Code::Internal, "not on a connection", "report this with the plan"))
}

/// Returns the connection and the table of a locator.
pub(crate) fn table_of<'a>(locator: &'a Locator, subject: &Subject) -> Result<(&'a Name, &'a TableName)> {
    match locator {
        Locator::Table { connection, table } => Ok((connection, table)),
        Locator::Query { .. } | Locator::Uri(_) => {
            Err(subject.error(Code::Internal, "not a table of a connection", "report this with the plan"))
        }
    }
}

fn parse(text: &str, connection: &Name, subject: &Subject) -> Result<(Config, MakeRustlsConnect)> {
    let invalid = |what: &str| {
        let message = format!("the URL of connection {:?} is not usable: {what}", connection.as_str());
        let hint = "write it as postgresql://user:password@host:port/database, special characters percent-encoded";
        subject.error(Code::ConnectionMissing, message, hint)
    };
    let mut url = Url::parse(text).map_err(|_| invalid("it cannot be read"))?;
    let (mut mode, mut verify, mut roots) = (SslMode::Prefer, false, None::<PathBuf>);
    let mut kept = Vec::new();
    for (key, value) in url.query_pairs() {
        match (&*key, &*value) {
            ("sslmode", "disable") => mode = SslMode::Disable,
            ("sslmode", "prefer" | "allow") => mode = SslMode::Prefer,
            ("sslmode", "require") => mode = SslMode::Require,
            // The host's name is checked for both: rather too strict than too lax.
            ("sslmode", "verify-ca" | "verify-full") => (mode, verify) = (SslMode::Require, true),
            ("sslmode", _) => return Err(invalid("sslmode is disable, prefer, require or verify-full")),
            ("sslrootcert", "system") => verify = true,
            ("sslrootcert", path) => roots = Some(path.into()),
            _ => kept.push((key.into_owned(), value.into_owned())),
        }
    }
    url.set_query(None);
    if !kept.is_empty() {
        // Not `query_pairs_mut`: it writes a blank as `+`, which libpq's form does not know.
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pairs = kept.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value)).replace('+', "%20"));
        url.set_query(Some(&pairs.collect::<Vec<_>>().join("&")));
    }
    // The library's own message may quote the text, and with it the password.
    let mut config: Config = url.as_str().parse().map_err(|_| invalid("a part of it is not known or not allowed"))?;
    if config.get_hosts().is_empty() {
        return Err(invalid("it names no host"));
    }
    config.ssl_mode(mode).keepalives(true).keepalives_idle(KEEPALIVE_IDLE).application_name("dagwright");
    let tls = tls::connector(verify, roots.as_deref()).map_err(|error| invalid(&error.to_string()).caused_by(error))?;
    Ok((config, tls))
}

#[cfg(test)]
mod tests {
    use dagwright_model::id::Name;
    use tokio_postgres::config::{Host, SslMode};

    use super::{super::fault::Subject, parse};

    fn parsed(url: &str) -> Result<tokio_postgres::Config, String> {
        let connection = Name::new("db").unwrap();
        parse(url, &connection, &Subject::source("s")).map(|(config, _)| config).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_are_read_with_their_escapes() {
        let config = parsed("postgresql://us%40er:p%2Fw%20d@db.example:6000/my%20db?sslmode=require").unwrap();
        assert_eq!(config.get_user(), Some("us@er"));
        assert_eq!(config.get_password(), Some(&b"p/w d"[..]));
        assert_eq!(config.get_dbname(), Some("my db"));
        assert_eq!(config.get_ports(), [6000]);
        assert_eq!(config.get_hosts(), [Host::Tcp("db.example".into())]);
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_application_name(), Some("dagwright"));
        let socket = parsed("postgresql://u@%2Frun%2Fpg/db?connect_timeout=3&options=-c%20a.b%3Dc").unwrap();
        assert_eq!(socket.get_hosts(), [Host::Unix("/run/pg".into())]);
        assert_eq!(socket.get_options(), Some("-c a.b=c"));
    }

    #[test]
    fn what_is_wrong_with_a_url_never_shows_the_password() {
        for url in [
            "postgresql://u:hunter2@h/db?sslmode=sure",
            "postgresql://u:hunter2@h/db?nonsense=1",
            "postgresql://u:hunter2@h:notaport/db",
            "postgresql://u:hunter2@h/db?sslmode=verify-full&sslrootcert=/nowhere",
            "hunter2",
        ] {
            let error = parsed(url).unwrap_err();
            assert!(error.contains("DW0601") && !error.contains("hunter2"), "{error}");
        }
    }
}
