//! The HTTP API from the other side: what the commands that talk to a service share.
//!
//! A call is tried again only where a repeat is safe: reading always, and a request under a key of its own. What the
//! service refuses is told in its own words, with its code; a service that cannot be reached is `DW0813`.

mod watch;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use dagwright_model::{code::Code, spec::Diagnostics, task::Problem};
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use url::Url;

pub(crate) use self::watch::{Seen, Watch};
use crate::{
    api::{self, Details},
    refusal::Refusal,
};

/// How often a call is tried at most.
const TRIES_MAX: u32 = 5;

/// The pause before the second try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a service may take to answer; a stream of events only has to begin within it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read: a plan or a long transcript has a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which service, and as whom.
#[derive(Clone, Debug, Args)]
pub(crate) struct Service {
    /// Where the service answers
    #[arg(long, env = "DAGWRIGHT_URL", value_name = "URL", default_value = "http://127.0.0.1:8642")]
    pub(crate) url: Url,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// What a service wants to see, and to be known by.
#[derive(Clone, Debug, Args)]
pub(crate) struct Access {
    /// The variable that holds the token, where the service wants one
    #[arg(long, value_name = "VARIABLE", default_value = "DAGWRIGHT_TOKEN")]
    token_env: String,
    /// A file (PEM) with authorities to trust beside those of the system, where https:// has one of your own
    #[arg(long, env = "DAGWRIGHT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Calls a service.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// Whether a call may be sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It has no second effect.
    Safe,
    /// Only when it certainly did not arrive.
    Unsafe,
}

// === impl Client ===

impl Client {
    /// Makes a client; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL is none that can be called, or the authorities cannot be read.
    pub(crate) fn new(service: &Service) -> Result<Self> {
        let base = service.url.clone();
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(Refusal::Problem(Problem {
                code: Code::ConfigInvalid,
                subject: "--url".into(),
                message: format!("{base} is not an http:// or https:// URL"),
                hint: "write --url http://127.0.0.1:8642, or set DAGWRIGHT_URL".into(),
            })
            .into());
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("dagwright/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        if let Some(file) = &service.access.ca {
            for authority in authorities(file)? {
                http = http.add_root_certificate(authority);
            }
        }
        let token = env::var(&service.access.token_env).ok().filter(|token| !token.is_empty());
        Ok(Self { http: http.build()?, base, token })
    }

    /// Reads something: `path` below the API's root, with its query.
    ///
    /// # Errors
    /// What the service says, or that it could not be reached.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.call(|| self.request(Method::GET, &api_path(path)), Repeat::Safe).await?;
        self.read(answer).await
    }

    /// Sends something, and returns the status with what the service says.
    ///
    /// # Errors
    /// What the service says, or that it could not be reached.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        repeat: Repeat,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<T> {
        let answer = self.call(|| prepare(self.request(Method::POST, &api_path(path))), repeat).await?;
        self.read(answer).await
    }

    /// Asks whether the service takes requests on; answers with what it says.
    ///
    /// # Errors
    /// When it could not be reached.
    pub(crate) async fn ready(&self) -> Result<(bool, String)> {
        let answer = self.request(Method::GET, "/readyz").timeout(ANSWER_TIMEOUT).send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        Ok((answer.status().is_success(), answer.text().await.unwrap_or_default().trim().to_owned()))
    }

    /// Opens a stream of events, once.
    async fn stream(&self, path: &str, after: Option<&str>) -> Result<Response, Attempt> {
        let mut request = self.request(Method::GET, &api_path(path)).header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await;
        let answer = sent.map_err(|_| Attempt::Failed(self.silent()))?;
        self.judge(answer, Repeat::Safe).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        // A service may stand behind a proxy, under a path of its own.
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call(&self, request: impl Fn() -> RequestBuilder, repeat: Repeat) -> Result<Response> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let sent = request().timeout(ANSWER_TIMEOUT).send().await;
            let wait = match self.judge(sent, repeat).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Again { error, .. }) if attempt >= TRIES_MAX => return Err(error),
                Err(Attempt::Again { wait, .. }) => wait,
            };
            tokio::time::sleep(wait.unwrap_or(pause).min(PAUSE_MAX)).await;
            pause *= 2;
        }
        unreachable!("the loop returns at its last try")
    }

    /// Tells an answer from what is worth another try, and from what is not.
    async fn judge(&self, sent: reqwest::Result<Response>, repeat: Repeat) -> Result<Response, Attempt> {
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                let told = self.unreachable(&error);
                let again = repeat == Repeat::Safe || error.is_connect();
                return Err(if again { Attempt::Again { error: told, wait: None } } else { Attempt::Failed(told) });
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = wait.map(Duration::from_secs);
        let bytes = bounded(answer).await.unwrap_or_default();
        let error = self.refused(status, &bytes);
        // 429: certainly not done.
        let again = status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && repeat == Repeat::Safe);
        Err(if again { Attempt::Again { error, wait } } else { Attempt::Failed(error) })
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Result<T> {
        let read = bounded(answer).await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&read).map_err(|error| {
            Refusal::Problem(Problem {
                code: Code::MessageInvalid,
                subject: self.base.to_string(),
                message: format!("the answer is not one that this version reads: {error}"),
                hint: "check that the URL is that of a Dagwright service, and that both have the same version".into(),
            })
            .into()
        })
    }

    /// Returns what the service says as the error that it is.
    fn refused(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let Ok(details) = serde_json::from_slice::<Details>(body) else {
            return self.problem(format!("it answered with {status}, and not as a Dagwright service does"));
        };
        if !details.diagnostics.is_empty() {
            return Refusal::Refused(Diagnostics(details.diagnostics)).into();
        }
        // A code of a later version is as good as this one's own answer to it.
        let code = Code::try_from(details.code).unwrap_or(Code::Internal);
        let Details { subject, detail, hint, .. } = details;
        Refusal::Problem(Problem { code, subject, message: detail, hint }).into()
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        // The URL is told anyway, and the innermost cause is what a person needs.
        let cause = causes.last().map(ToString::to_string).unwrap_or_default();
        self.problem(cause)
    }

    fn silent(&self) -> anyhow::Error {
        self.problem(format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
    }

    fn problem(&self, why: String) -> anyhow::Error {
        Refusal::Problem(Problem {
            code: Code::ServiceUnreachable,
            subject: self.base.to_string(),
            message: format!("could not reach the service: {why}"),
            hint: "start `dagwright serve`, or say where it is with --url or DAGWRIGHT_URL".into(),
        })
        .into()
    }
}

/// Reads the authorities to trust.
fn authorities(file: &Path) -> Result<Vec<Certificate>> {
    let unusable = |message: String| {
        Refusal::Problem(Problem {
            code: Code::ConfigInvalid,
            subject: "--ca".into(),
            message: format!("could not use {}: {message}", file.display()),
            hint: "give the certificates of the authorities as a PEM file, with --ca or DAGWRIGHT_CA".into(),
        })
    };
    let text = fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&text).map_err(|error| unusable(error.to_string()))?;
    if authorities.is_empty() {
        return Err(unusable("there is no certificate in it".into()).into());
    }
    Ok(authorities)
}

/// Why a try came to nothing.
enum Attempt {
    /// Another one may do better.
    Again { error: anyhow::Error, wait: Option<Duration> },
    /// None will.
    Failed(anyhow::Error),
}

/// Tells whether a URL is of this machine: a proxy would look for it on its own.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Renders a text as a part of a path or query.
pub(crate) fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn api_path(path: &str) -> String {
    format!("{}{path}", api::ROOT)
}

async fn bounded(mut answer: Response) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(bytes)
}
