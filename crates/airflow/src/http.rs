//! Calls over HTTP: bounded in number, time and size, and sent again only where a repeat is safe.
//!
//! | what happened | sent again |
//! |---|---|
//! | no connection, or 429: the call was not taken | always |
//! | a broken connection, no answer in time, 5xx: it may have been | where [`Repeat::Safe`] |
//! | 401 with a token that can be renewed | once, with a new one |
//! | anything else | never |
//!
//! Redirects are not followed: credentials go to nobody but Airflow.

use std::{error::Error as _, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use chrono::DateTime;
use reqwest::{Certificate, Method, Response, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};
use url::Url;

use crate::{
    auth::{Auth, Grant},
    detail::{detail, is_of_the_endpoint, tidy},
    error::{Error, Subject},
    log::Tail,
    path::Path,
    settings::Settings,
    version::Api,
};

/// How much is read of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// How much is read of a log in search of its end.
const LOG_BYTES_MAX: u64 = 256 << 20;

const JSON: &str = "application/json";

/// Whether a call may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It has no second effect.
    Safe,
    /// Only when it certainly was not taken.
    Unsafe,
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) subject: Subject,
    method: Method,
    path: Path,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    repeat: Repeat,
    accept: &'static str,
}

/// Calls Airflow.
pub(crate) struct Http {
    client: reqwest::Client,
    settings: Settings,
    auth: Auth,
    permits: Semaphore,
}

/// An answer whose body is still to be read; holds its place among the calls under way until then.
struct Answer<'a> {
    response: Response,
    _permit: SemaphorePermit<'a>,
}

/// Why a try came to nothing.
struct Failed {
    error: Error,
    /// Whether it is worth another try.
    again: bool,
    /// How long Airflow wants to be left alone.
    pause: Option<Duration>,
    /// The number of the token that was refused.
    refused: Option<u64>,
}

// === impl Call ===

impl Call {
    fn new(subject: Subject, method: Method, path: Path, body: Option<Value>, repeat: Repeat) -> Self {
        Self { subject, method, path, query: Vec::new(), body, repeat, accept: JSON }
    }

    /// Reads.
    pub(crate) fn get(subject: Subject, path: Path) -> Self {
        Self::new(subject, Method::GET, path, None, Repeat::Safe)
    }

    /// Does something that a repeat would do again.
    pub(crate) fn post(subject: Subject, path: Path, body: Value) -> Self {
        Self::new(subject, Method::POST, path, Some(body), Repeat::Unsafe)
    }

    /// Changes something; whether a repeat is safe depends on what.
    pub(crate) fn patch(subject: Subject, path: Path, body: Value) -> Self {
        Self::new(subject, Method::PATCH, path, Some(body), Repeat::Unsafe)
    }

    /// Asks for something that is the same when it is asked for twice.
    pub(crate) fn put(subject: Subject, path: Path) -> Self {
        Self::new(subject, Method::PUT, path, None, Repeat::Safe)
    }

    /// Deletes. Without a body there is no content type, which Airflow 2 would refuse.
    pub(crate) fn delete(subject: Subject, path: Path) -> Self {
        Self::new(subject, Method::DELETE, path, None, Repeat::Safe)
    }

    /// A repeat has no second effect.
    #[must_use]
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Safe;
        self
    }

    #[must_use]
    pub(crate) fn query(mut self, pairs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.query.extend(pairs);
        self
    }

    #[must_use]
    pub(crate) fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }
}

// === impl Http ===

impl Http {
    /// Makes what calls; connects to nothing yet.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .pool_max_idle_per_host(settings.connections_max.max(1))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dagwright/", env!("CARGO_PKG_VERSION")));
        if settings.is_loopback() {
            client = client.no_proxy();
        }
        let no_client = |source: reqwest::Error| Error::NoClient { source };
        if !settings.authorities.is_empty() {
            for authority in Certificate::from_pem_bundle(&settings.authorities).map_err(no_client)? {
                client = client.add_root_certificate(authority);
            }
        }
        Ok(Self {
            client: client.build().map_err(no_client)?,
            auth: Auth::new(settings.credentials.clone()),
            permits: Semaphore::new(settings.connections_max.max(1)),
            settings,
        })
    }

    /// Calls an API, and returns the whole body.
    pub(crate) async fn send(&self, api: Api, call: &Call) -> Result<Vec<u8>, Error> {
        self.persist(Some(api), call, api.root()).await
    }

    /// Asks an endpoint that wants no credentials, such as which version it is.
    pub(crate) async fn ask(&self, api: Api, call: &Call) -> Result<Vec<u8>, Error> {
        self.persist(None, call, api.root()).await
    }

    /// Calls the login, which lies beside the APIs, once: the call that needs a token is what is sent again.
    pub(crate) async fn login(&self, call: &Call) -> Result<Vec<u8>, Error> {
        let answer = self.attempt(None, call, "/", None).await.map_err(|failed| failed.error)?;
        answer.whole(call, ERROR_BYTES_MAX).await.map_err(|failed| failed.error)
    }

    /// Reads JSON.
    pub(crate) fn read<T: DeserializeOwned>(&self, call: &Subject, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| {
            let html = body.trim_ascii_start().starts_with(b"<");
            let reason = if html { "it is a page of HTML".into() } else { self.tidy(&error.to_string()) };
            Error::Unreadable { call: call.clone(), reason }
        })
    }

    /// Where Airflow is; there are no credentials in it.
    pub(crate) fn url_shown(&self) -> &str {
        self.settings.url.as_str()
    }

    /// Makes one line of what Airflow says.
    pub(crate) fn tidy(&self, text: &str) -> String {
        tidy(text, self.auth.secret())
    }

    async fn persist(&self, api: Option<Api>, call: &Call, root: &str) -> Result<Vec<u8>, Error> {
        let mut attempts = Attempts::new(&self.settings);
        loop {
            let failed = match self.attempt(api, call, root, attempts.refused).await {
                Ok(answer) => match answer.whole(call, self.settings.answer_bytes_max).await {
                    Ok(body) => return Ok(body),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            attempts.after(failed).await?;
        }
    }

    /// Reads a log to its end, or as far as it comes in time, and keeps the last of it.
    pub(crate) async fn tail(&self, api: Api, call: &Call, mut tail: Tail) -> Result<(Tail, bool), Error> {
        let mut attempts = Attempts::new(&self.settings);
        let mut answer = loop {
            match self.attempt(Some(api), call, api.root(), attempts.refused).await {
                Ok(answer) => break answer,
                Err(failed) => attempts.after(failed).await?,
            }
        };
        let mut read = 0;
        while read < LOG_BYTES_MAX {
            match answer.response.chunk().await {
                Ok(Some(chunk)) => {
                    read += chunk.len() as u64;
                    tail.push(&chunk);
                }
                Ok(None) => return Ok((tail, true)),
                // The log of a running task goes on for as long as it runs; what has come is worth having.
                Err(_) => return Ok((tail, false)),
            }
        }
        Ok((tail, false))
    }

    async fn attempt(
        &self,
        api: Option<Api>,
        call: &Call,
        root: &str,
        refused: Option<u64>,
    ) -> Result<Answer<'_>, Failed> {
        let url = self.url(call, root).map_err(Failed::for_good)?;
        let grant = match api {
            Some(api) => Box::pin(self.auth.grant(self, api, refused)).await.map_err(Failed::before)?,
            None => self.auth.given(),
        };
        let _permit = self.permits.acquire().await.map_err(|_| {
            Failed::for_good(Error::BadCall { call: call.subject.clone(), reason: "the client is closed" })
        })?;
        let mut request = self.client.request(call.method.clone(), url).header(header::ACCEPT, call.accept);
        if let Some(body) = &call.body {
            request = request.header(header::CONTENT_TYPE, JSON).body(body.to_string());
        }
        let sent = grant.apply(request).send().await;
        let response = sent.map_err(|error| Failed::sending(call, error))?;
        tracing::debug!(operation = call.subject.operation, status = response.status().as_u16(), "called Airflow");
        if response.status().is_success() {
            return Ok(Answer { response, _permit });
        }
        Err(self.refusal(call, response, &grant).await)
    }

    fn url(&self, call: &Call, root: &str) -> Result<Url, Error> {
        let mut url = self.settings.url.clone();
        // Airflow may stand behind a proxy, under a path of its own.
        url.set_path(&format!(
            "{}{root}{}",
            self.settings.url.path().trim_end_matches('/'),
            call.path.text(&call.subject)?
        ));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    /// Reads what is said against a call.
    async fn refusal(&self, call: &Call, response: Response, grant: &Grant) -> Failed {
        let status = response.status().as_u16();
        let pause = response.headers().get(header::RETRY_AFTER).and_then(|value| pause(value.to_str().ok()?));
        let mut body = Vec::new();
        let mut response = response;
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - body.len())]);
            if body.len() == ERROR_BYTES_MAX {
                break;
            }
        }
        let said = tidy(&detail(&body, self.auth.secret()), grant.secret());
        let subject = call.subject.clone();
        let error = match status {
            401 => Error::Unauthenticated { call: subject, status, detail: said },
            403 => Error::Denied { call: subject, detail: said },
            404 if is_of_the_endpoint(&body) => {
                Error::Unsupported { found: format!("no endpoint to {subject}: {said}") }
            }
            404 => Error::NotFound { call: subject, detail: said },
            409 => Error::Conflict { call: subject, detail: said },
            429 | 500.. => Error::Unavailable { call: subject, status, detail: said },
            300..=399 => {
                Error::Refused { call: subject, status, detail: "it sends elsewhere; is the URL right?".into() }
            }
            _ => Error::Refused { call: subject, status, detail: said },
        };
        let again = status == 429 || (status >= 500 && call.repeat == Repeat::Safe);
        Failed { error, again, pause, refused: if status == 401 { grant.renewable() } else { None } }
    }
}

// === impl Answer ===

impl Answer<'_> {
    async fn whole(mut self, call: &Call, bytes_max: usize) -> Result<Vec<u8>, Failed> {
        let too_large = || Failed::for_good(Error::TooLarge { call: call.subject.clone(), bytes_max });
        if self.response.content_length().is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.response.chunk().await.map_err(|error| Failed::sending(call, error))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

// === impl Failed ===

impl Failed {
    fn for_good(error: Error) -> Self {
        Self { error, again: false, pause: None, refused: None }
    }

    /// Nothing was sent yet.
    fn before(error: Error) -> Self {
        Self { again: error.is_retryable(), ..Self::for_good(error) }
    }

    fn sending(call: &Call, error: reqwest::Error) -> Self {
        let again = error.is_connect() || call.repeat == Repeat::Safe;
        let subject = call.subject.clone();
        let error = if error.is_timeout() {
            Error::TimedOut { call: subject }
        } else {
            Error::Unreachable { call: subject, source: error.without_url() }
        };
        Self { error, again, pause: None, refused: None }
    }
}

/// The tries of one call.
struct Attempts {
    pauses: backon::ExponentialBackoff,
    pause_max: Duration,
    refused: Option<u64>,
}

// === impl Attempts ===

impl Attempts {
    fn new(settings: &Settings) -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(settings.pause)
            .with_max_delay(settings.pause_max)
            .with_max_times(settings.tries_max.saturating_sub(1))
            .with_jitter();
        Self { pauses: pauses.build(), pause_max: settings.pause_max, refused: None }
    }

    /// Waits until the next try is due.
    async fn after(&mut self, failed: Failed) -> Result<(), Error> {
        // A call that was refused for its token was not taken, so a repeat is safe; one that is refused again is not.
        if failed.refused.is_some() && self.refused.is_none() {
            self.refused = failed.refused;
            return Ok(());
        }
        let Some(pause) = failed.again.then(|| self.pauses.next()).flatten() else { return Err(failed.error) };
        let pause = failed.pause.map_or(pause, |wanted| wanted.max(pause)).min(self.pause_max);
        let causes = std::iter::successors(failed.error.source(), |error| (*error).source());
        let cause = causes.last().map(ToString::to_string);
        tracing::debug!(error = %failed.error, cause, pause_ms = pause.as_millis(), "calling Airflow again");
        sleep(pause).await;
        Ok(())
    }
}

/// Reads how long to wait: seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text.trim()).ok()?;
    std::time::SystemTime::from(until).duration_since(std::time::SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn pauses_are_read() {
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT"), None, "it has passed");
        assert!(pause("Wed, 21 Oct 2099 07:28:00 GMT").is_some());
        assert_eq!(pause("soon"), None);
    }
}
