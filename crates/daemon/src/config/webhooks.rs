//! `[webhooks.<name>]`: where events are posted, which ones, and how patiently.

use std::{env, num::NonZeroUsize};

use dagwright_model::{event::EventKind, id::Name, units::Span};
use glob::Pattern;
use serde::Deserialize;
use url::Url;

use super::{Secret, list};
use crate::outlets::signature::Signer;

/// The most outlets there may be: each has its own reader, and its own series of every metric.
pub(super) const WEBHOOKS_MAX: usize = 16;

/// The most posts of one outlet that may be under way: each is of another pipeline.
const PARALLELISM_MAX: usize = 64;

/// A receiver of events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Where to; some receivers know their callers by it, so it is kept secret.
    url: Secret,
    /// The variable with the secrets that sign; absent: nothing is signed.
    secret_env: Option<String>,
    /// Globs of the names of events, as `run.*`.
    #[serde(default = "every_event", deserialize_with = "list")]
    pub(crate) events: Vec<String>,
    /// The namespaces whose pipelines are told of; absent: all, and pipelines without one.
    pub(crate) namespaces: Option<Vec<Name>>,
    #[serde(default)]
    pub(crate) mode: Mode,
    /// How long a receiver may take to answer.
    #[serde(default = "timeout")]
    pub(crate) timeout: Span,
    /// How many pipelines are told of at a time.
    #[serde(default = "parallelism")]
    pub(crate) parallelism: NonZeroUsize,
    /// The pause after a first failure, and the longest.
    #[serde(default = "backoff")]
    pub(crate) backoff: Span,
    #[serde(default = "backoff_max")]
    pub(crate) backoff_max: Span,
    /// How often an event is tried that the receiver refuses.
    #[serde(default = "tries")]
    pub(crate) tries: NonZeroUsize,
}

/// How a CloudEvent stands in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The event is the body, so a signature covers all of it.
    #[default]
    Structured,
    /// Attributes are headers, the data is the body.
    Binary,
}

// === impl Webhook ===

impl Webhook {
    /// Returns where to post.
    ///
    /// # Errors
    /// When it is nowhere that can be posted to; the text holds nothing of it.
    pub(crate) fn url(&self) -> Result<Url, &'static str> {
        http_url(&self.url)
    }

    /// Returns what signs, if anything does.
    ///
    /// # Errors
    /// When the variable is not set, or holds no secrets; the text holds nothing of it.
    pub(crate) fn signer(&self) -> Result<Option<Signer>, String> {
        let Some(variable) = &self.secret_env else { return Ok(None) };
        let secrets = env::var(variable).ok().filter(|secrets| !secrets.trim().is_empty());
        let secrets = secrets.ok_or_else(|| format!("the secret is taken from {variable}, which is not set"))?;
        let signer = Signer::new(&secrets).map_err(|unusable| format!("{variable} {unusable}"))?;
        Ok(Some(signer))
    }

    /// Returns everything that is wrong with it: the key, what, and what to do.
    pub(super) fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut faults = Vec::new();
        if let Err(message) = self.url() {
            faults.push(("url", message.into(), "give https://host/path; receivers know the sender by `secret_env`"));
        }
        if let Err(message) = self.signer() {
            let hint = "set it to whsec_ and 24 to 64 random bytes in base64, where the daemon starts";
            faults.push(("secret_env", message, hint));
        }
        for glob in &self.events {
            match Pattern::new(glob) {
                Err(error) => faults.push(("events", format!("{glob:?} is no glob: {error}"), "write run.* or *")),
                Ok(pattern) if !EventKind::ALL.iter().any(|kind| pattern.matches(kind.as_str())) => {
                    let hint = "docs/protocol.md has the names of all events";
                    faults.push(("events", format!("{glob:?} is the name of no event"), hint));
                }
                Ok(_) => {}
            }
        }
        let parallelism = self.parallelism.get();
        faults.extend(pace_faults([self.timeout, self.backoff, self.backoff_max], parallelism));
        faults
    }
}

/// Reads where to post.
///
/// # Errors
/// When it is nowhere that can be posted to; the text holds nothing of it.
pub(super) fn http_url(text: &Secret) -> Result<Url, &'static str> {
    let url = Url::parse(&text.0).map_err(|_| "it is no URL")?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("it is no http(s) URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password");
    }
    Ok(url)
}

/// Returns what is wrong with how patiently and how widely an outlet posts.
pub(super) fn pace_faults(
    [timeout, backoff, backoff_max]: [Span; 3],
    parallelism: usize,
) -> Vec<(&'static str, String, &'static str)> {
    let mut faults = Vec::new();
    if timeout.0 == 0 {
        faults.push(("timeout", "it is no time".into(), "give a span such as 10s"));
    }
    if backoff.0 == 0 || backoff > backoff_max {
        let message = "it is 0, or longer than backoff_max".into();
        faults.push(("backoff", message, "give spans such as 1s and 5m"));
    }
    if parallelism > PARALLELISM_MAX {
        let message = format!("it is more than {PARALLELISM_MAX}");
        faults.push(("parallelism", message, "give a number that the receiver can bear"));
    }
    faults
}

fn every_event() -> Vec<String> {
    vec!["*".into()]
}

fn timeout() -> Span {
    Span(10_000)
}

fn parallelism() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(3)
}

fn backoff() -> Span {
    Span(1_000)
}

fn backoff_max() -> Span {
    Span(300_000)
}

fn tries() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(7)
}

#[cfg(test)]
mod tests {
    use super::Webhook;

    #[track_caller]
    fn faults(toml: &str) -> Vec<&'static str> {
        let layers = config::Config::builder().add_source(config::File::from_str(toml, config::FileFormat::Toml));
        let webhook: Webhook = layers.build().unwrap().try_deserialize().unwrap();
        assert!(!format!("{webhook:?}").contains("hunter2"));
        let faults = webhook.faults();
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
        faults.into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn a_url_is_enough() {
        assert_eq!(faults("url = \"https://example.org/hunter2?token=hunter2\""), [""; 0]);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        for url in ["no url hunter2", "ftp://hunter2/", "https://u:hunter2@h/", "https://hunter2@h/"] {
            assert_eq!(faults(&format!("url = {url:?}")), ["url"], "{url}");
        }
        let rest = "secret_env = \"DAGWRIGHT_TEST_IS_NOT_SET\"\nevents = [\"run.*\", \"nothing.*\", \"***\"]\ntimeout = \"0s\"\n\
                    backoff = \"2s\"\nbackoff_max = \"1s\"\nparallelism = 65";
        let wanted = ["secret_env", "events", "events", "timeout", "backoff", "parallelism"];
        assert_eq!(faults(&format!("url = \"http://h\"\n{rest}")), wanted);
    }
}
