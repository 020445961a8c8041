//! Where Airflow is, as whom to call it, and how patient to be.

use std::{fmt, time::Duration};

use url::Url;

use crate::Error;

/// How many calls are under way at once, unless the settings say otherwise: an api-server answers each from its database.
const CONNECTIONS_MAX: usize = 8;

/// How long a call may take from its first byte to its last: Airflow on SQLite takes seconds when it is busy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a call is sent at most where a repeat is safe.
const TRIES_MAX: usize = 4;

/// The pause before the second try; each further one is twice as long, and up to as much again by chance.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest pause, also where Airflow asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The largest answer that is read: a page of 100 task instances has some 200 KiB, an XCom what a task put into it.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Which Airflow, and how it is called.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) url: Url,
    pub(crate) credentials: Credentials,
    /// How many calls may be under way at once; also how many idle connections are kept.
    pub connections_max: usize,
    /// How long one try of a call may take.
    pub timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How often a call is sent at most where a repeat is safe; at least once.
    pub tries_max: usize,
    /// The pause before the second try.
    pub pause: Duration,
    /// The longest pause between tries.
    pub pause_max: Duration,
    /// The largest answer that is read, in bytes; a larger one is an error.
    pub answer_bytes_max: usize,
    /// Certificates (PEM) to trust beside those of the system.
    pub authorities: Vec<u8>,
}

/// As whom Airflow is called.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nobody: an Airflow that lets everybody in.
    None,
    /// A user: basic authentication for Airflow 2, a token of `POST /auth/token` for Airflow 3.
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A bearer token that somebody else renews.
    Token(Secret),
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl Settings ===

impl Settings {
    /// Makes settings with the usual patience for an Airflow under `url`, which may have a path of its own.
    ///
    /// # Errors
    /// [`Error::BadUrl`] when it is none that can be called, or has credentials in it.
    pub fn new(url: Url, credentials: Credentials) -> Result<Self, Error> {
        let reason = match url.scheme() {
            _ if !url.username().is_empty() || url.password().is_some() => "credentials stand in it",
            _ if url.host().is_none() => "there is no host in it",
            "http" | "https" if url.query().is_some() || url.fragment().is_some() => "it has a query or a fragment",
            "http" | "https" => return Ok(Self::patient(url, credentials)),
            _ => "it is neither http:// nor https://",
        };
        Err(Error::BadUrl { reason })
    }

    fn patient(url: Url, credentials: Credentials) -> Self {
        Self {
            url,
            credentials,
            connections_max: CONNECTIONS_MAX,
            timeout: TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            tries_max: TRIES_MAX,
            pause: PAUSE,
            pause_max: PAUSE_MAX,
            answer_bytes_max: ANSWER_BYTES_MAX,
            authorities: Vec::new(),
        }
    }

    /// Tells whether Airflow is on this machine, where a proxy would look for it on its own.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

// === impl Credentials ===

impl Credentials {
    /// The text that nobody may see; empty where there is none.
    pub(crate) fn secret(&self) -> &str {
        match self {
            Self::None => "",
            Self::Password { password, .. } => password.expose(),
            Self::Token(token) => token.expose(),
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Keeps a text from being shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Secret, Settings};

    #[track_caller]
    fn check(url: &str, refused: Option<&str>) {
        let made = Settings::new(url.parse().expect("a URL"), Credentials::None);
        assert_eq!(made.err().map(|error| error.to_string()).as_deref(), refused, "{url}");
    }

    #[test]
    fn only_urls_that_can_be_called_are_taken() {
        check("http://airflow:8080", None);
        check("https://example.org/airflow/", None);
        check("ftp://example.org", Some("Airflow's URL cannot be used: it is neither http:// nor https://"));
        check("unix:/run/airflow", Some("Airflow's URL cannot be used: there is no host in it"));
        check("http://a:b@example.org", Some("Airflow's URL cannot be used: credentials stand in it"));
        check("http://example.org/?a=b", Some("Airflow's URL cannot be used: it has a query or a fragment"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Secret::new("hunter2");
        let credentials = Credentials::Password { username: "ann".into(), password };
        let settings = Settings::new("http://airflow".parse().expect("a URL"), credentials).expect("settings");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert!(!format!("{:?}", Credentials::Token(Secret::new("hunter2"))).contains("hunter2"));
    }
}
