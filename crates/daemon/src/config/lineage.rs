//! `[lineage]`: where OpenLineage's run events go, and how patiently.

use std::{env, num::NonZeroUsize, path::PathBuf};

use dagwright_model::units::Span;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::{
    Secret,
    tokens::secret_file,
    webhooks::{http_url, pace_faults},
};

/// The longest name of a topic that brokers take.
const TOPIC_LENGTH_MAX: usize = 249;

/// Where run events go; with neither URL nor topic nowhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lineage {
    /// The API that takes them; empty: none.
    url: Secret,
    /// The variable that holds the bearer token of the API.
    api_key_env: Option<String>,
    /// The file that holds it; one of the two, or none.
    api_key_file: Option<PathBuf>,
    /// The topic that they are written to; empty: none.
    pub(crate) topic: String,
    /// The namespace of jobs.
    pub(crate) namespace: String,
    /// How long the API may take to answer.
    pub(crate) timeout: Span,
    /// How many pipelines are told of at a time.
    pub(crate) parallelism: NonZeroUsize,
    /// The pause after a first failure, and the longest.
    pub(crate) backoff: Span,
    pub(crate) backoff_max: Span,
    /// How often an event is tried that is refused.
    pub(crate) tries: NonZeroUsize,
}

/// What is wrong with a key of `[lineage]`: the key, what, and what to do.
type Fault = (&'static str, String, &'static str);

// === impl Lineage ===

impl Lineage {
    /// Returns where to post; `None` where nothing is posted.
    ///
    /// # Errors
    /// When it is nowhere that can be posted to; the text holds nothing of it.
    pub(crate) fn url(&self) -> Result<Option<Url>, &'static str> {
        if self.url.0.is_empty() { Ok(None) } else { http_url(&self.url).map(Some) }
    }

    /// Returns how posts show that they may, if they do.
    ///
    /// # Errors
    /// When there is no key, or it cannot stand in a header; the text holds nothing of it.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        self.api_key().map_err(|(_, message, _)| message)
    }

    fn api_key(&self) -> Result<Option<HeaderValue>, Fault> {
        let (setting, text) = match (&self.api_key_env, &self.api_key_file) {
            (None, None) => return Ok(None),
            (Some(variable), None) => {
                let hint = "set it where the daemon starts";
                let text = env::var(variable).ok().filter(|text| !text.trim().is_empty());
                let message = || format!("the key is taken from {variable}, which is not set");
                ("api_key_env", text.ok_or_else(|| ("api_key_env", message(), hint))?)
            }
            (None, Some(file)) => {
                let hint = "write the key into that file, for the daemon's user alone to read";
                let message = |error| format!("the key is taken from {}: {error}", file.display());
                ("api_key_file", secret_file(file).map_err(|error| ("api_key_file", message(error), hint))?)
            }
            (Some(_), Some(_)) => {
                let message = "the key is taken from a variable or from a file, not from both".into();
                return Err(("api_key_file", message, "set one of them"));
            }
        };
        let value = HeaderValue::from_str(&format!("Bearer {}", text.trim()));
        let unusable = |_| (setting, "the key cannot stand in a header".into(), "give it in printable ASCII");
        let mut value = value.map_err(unusable)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Returns everything that is wrong with it, Kafka being reached or not.
    pub(super) fn faults(&self, has_brokers: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(message) = self.url() {
            faults.push(("url", message.into(), "give the API's whole URL, as http://marquez:5000/api/v1/lineage"));
        }
        faults.extend(self.api_key().err());
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic.len() > TOPIC_LENGTH_MAX || !self.topic.chars().all(plain) {
            faults.push(("topic", "it cannot be the name of a topic".into(), "give letters, digits, `.`, `_` and `-`"));
        } else if !self.topic.is_empty() && !has_brokers {
            let message = "it is a topic of Kafka, and kafka.brokers is empty".into();
            faults.push(("topic", message, "set kafka.brokers, or leave the topic empty"));
        }
        if self.namespace.trim().is_empty() {
            faults.push(("namespace", "it is empty".into(), "give a name such as dagwright"));
        }
        faults.extend(pace_faults([self.timeout, self.backoff, self.backoff_max], self.parallelism.get()));
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::config::Config;

    /// Returns the keys with faults.
    #[track_caller]
    fn faults(toml: &str) -> Vec<&'static str> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[lineage]\n{toml}").unwrap();
        let lineage = Config::load(Some(file.path())).unwrap().lineage;
        assert!(!format!("{lineage:?}").contains("hunter2"));
        let faults = lineage.faults(false);
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
        faults.into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn nothing_needs_to_be_set() {
        assert_eq!(faults(""), [""; 0]);
        assert_eq!(faults("url = \"http://marquez:5000/api/v1/lineage\""), [""; 0]);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        for url in ["no url hunter2", "ftp://hunter2/", "https://u:hunter2@h/"] {
            assert_eq!(faults(&format!("url = {url:?}")), ["url"], "{url}");
        }
        let rest = "api_key_env = \"DAGWRIGHT_TEST_IS_NOT_SET\"\ntopic = \"a\"\nnamespace = \" \"\ntimeout = \"0s\"\n\
                    backoff = \"2s\"\nbackoff_max = \"1s\"\nparallelism = 65";
        assert_eq!(faults(rest), ["api_key_env", "topic", "namespace", "timeout", "backoff", "parallelism"]);
        assert_eq!(faults("topic = \"a b\"\napi_key_file = \"/nowhere/at/all\""), ["api_key_file", "topic"]);
        assert_eq!(faults("api_key_env = \"A\"\napi_key_file = \"/b\""), ["api_key_file"]);
    }

    #[test]
    fn a_key_is_a_bearer_token() {
        let mut key = tempfile::NamedTempFile::new().unwrap();
        key.write_all(b"hunter2\n").unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[lineage]\napi_key_file = {:?}", key.path()).unwrap();
        let header = Config::load(Some(file.path())).unwrap().lineage.authorization().unwrap().unwrap();
        assert_eq!((header.to_str().unwrap(), header.is_sensitive()), ("Bearer hunter2", true));
    }
}
