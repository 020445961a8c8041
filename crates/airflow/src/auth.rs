//! As whom Airflow is called: basic authentication (v1), or a token (v2) that is renewed in time.
//!
//! A token is fetched once for all calls that wait for it. How long it lasts stands in it (`exp`, `iat`), and is counted by
//! our own clock that only passes; it is read, not trusted, as Airflow alone decides whether it is valid.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::RequestBuilder;
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    error::{Error, Subject},
    http::{Call, Http},
    path::Path,
    settings::{Credentials, Secret},
    version::Api,
};

/// How long a token is taken to last that does not say; Airflow's default is a day.
const LIFETIME_UNKNOWN: Duration = Duration::from_secs(3600);

/// The longest time that a token is believed to last.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest token that is taken; they stand in a header.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Credentials at work.
pub(crate) struct Auth {
    credentials: Credentials,
    held: Mutex<Held>,
}

/// The token at hand.
#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// How many were fetched.
    fetched: u64,
}

struct Token {
    text: Secret,
    number: u64,
    renew_at: Instant,
}

/// What goes with one call.
pub(crate) enum Grant {
    Nothing,
    Basic { username: String, password: Secret },
    Bearer { token: Secret, number: Option<u64> },
}

#[derive(Deserialize)]
struct Login {
    access_token: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    iat: f64,
}

// === impl Auth ===

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, held: Mutex::default() }
    }

    /// Returns the texts that nobody may see, by which a password in an error is found.
    pub(crate) fn secret(&self) -> &str {
        self.credentials.secret()
    }

    /// Returns what a call without an API of its own may take along: a given token, by which a proxy may ask for it.
    pub(crate) fn given(&self) -> Grant {
        match &self.credentials {
            Credentials::Token(token) => Grant::Bearer { token: token.clone(), number: None },
            Credentials::None | Credentials::Password { .. } => Grant::Nothing,
        }
    }

    /// Returns what goes with a call; fetches a token where there is none, it is about to expire, or it is the `refused` one.
    pub(crate) async fn grant(&self, http: &Http, api: Api, refused: Option<u64>) -> Result<Grant, Error> {
        let Credentials::Password { username, password } = &self.credentials else { return Ok(self.given()) };
        if api == Api::V1 {
            return Ok(Grant::Basic { username: username.clone(), password: password.clone() });
        }
        let mut held = self.held.lock().await;
        if let Some(token) = &held.token
            && Some(token.number) != refused
            && Instant::now() < token.renew_at
        {
            return Ok(token.grant());
        }
        held.token = None;
        let text = login(http, username, password).await?;
        held.fetched += 1;
        let renew_at = Instant::now() + lifetime(&text).mul_f64(0.9);
        let token = Token { text: Secret::new(text), number: held.fetched, renew_at };
        Ok(held.token.insert(token).grant())
    }
}

async fn login(http: &Http, username: &str, password: &Secret) -> Result<String, Error> {
    let call = Call::post(
        Subject::bare("log in to Airflow"),
        Path::new("auth").then("token"),
        json!({ "username": username, "password": password.expose() }),
    );
    let answer = http.login(&call).await.map_err(|error| match error {
        // Nobody but the credentials is to blame for what a login does not like.
        Error::Refused { call, status, detail } => Error::Unauthenticated { call, status, detail },
        Error::Denied { call, detail } => Error::Unauthenticated { call, status: 403, detail },
        error => error,
    })?;
    let login: Login = http.read(&call.subject, &answer)?;
    let fits = !login.access_token.is_empty()
        && login.access_token.len() <= TOKEN_BYTES_MAX
        && login.access_token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(login.access_token)
    } else {
        Err(Error::Unreadable { call: call.subject, reason: "the token is none that fits into a header".into() })
    }
}

fn lifetime(token: &str) -> Duration {
    let claims = token.split('.').nth(1).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<Claims>(&bytes).ok());
    let Some(claims) = claims else { return LIFETIME_UNKNOWN };
    Duration::try_from_secs_f64((claims.exp - claims.iat).max(0.0)).map_or(LIFETIME_MAX, |told| told.min(LIFETIME_MAX))
}

// === impl Token ===

impl Token {
    fn grant(&self) -> Grant {
        Grant::Bearer { token: self.text.clone(), number: Some(self.number) }
    }
}

// === impl Grant ===

impl Grant {
    /// Adds it to a call.
    pub(crate) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Basic { username, password } => request.basic_auth(username, Some(password.expose())),
            Self::Bearer { token, .. } => request.bearer_auth(token.expose()),
        }
    }

    /// Returns the number of the token, if it is one that can be renewed.
    pub(crate) fn renewable(&self) -> Option<u64> {
        match self {
            Self::Bearer { number, .. } => *number,
            Self::Nothing | Self::Basic { .. } => None,
        }
    }

    /// Returns what must not be seen of it.
    pub(crate) fn secret(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Basic { password, .. } => password.expose(),
            Self::Bearer { token, .. } => token.expose(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::{LIFETIME_MAX, LIFETIME_UNKNOWN, lifetime};

    #[test]
    fn lifetimes_are_read_from_tokens() {
        let of = |claims: &str| lifetime(&format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims)));
        assert_eq!(of(r#"{"exp": 1000100, "iat": 1000000}"#), Duration::from_secs(100));
        assert_eq!(of(r#"{"exp": 5, "iat": 10}"#), Duration::ZERO);
        assert_eq!(of(r#"{"exp": 1e300, "iat": 0}"#), LIFETIME_MAX);
        for unknown in [r#"{"exp": 5}"#, "[]", "", r#"{"exp": "x", "iat": 1}"#] {
            assert_eq!(of(unknown), LIFETIME_UNKNOWN, "{unknown}");
        }
        assert_eq!(lifetime("opaque"), LIFETIME_UNKNOWN);
    }
}
