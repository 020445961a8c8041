//! `[airflow.feedback]` and `[airflow.events]`: how Airflow tells what happens to runs.

use std::{env, path::PathBuf};

use serde::Deserialize;

use super::tokens::secret_file;
use crate::outlets::signature::Signer;

/// How the listener of `dagwright-airflow` shows that it is the one that posts; with neither nothing is taken.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AirflowFeedback {
    /// The variable that holds its secrets.
    secret_env: Option<String>,
    /// The file that holds them, read again when the configuration is; one of the two.
    secret_file: Option<PathBuf>,
}

/// Where Airflow's own event producer writes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AirflowEvents {
    /// The topic; empty: none is read.
    pub(crate) topic: String,
}

/// Says why the secrets cannot be used; holds nothing of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    /// The key within `[airflow.feedback]`; empty for all of it.
    pub(super) key: &'static str,
    message: String,
    pub(super) hint: &'static str,
}

// === impl AirflowFeedback ===

impl AirflowFeedback {
    /// Returns what posts are checked by; `None` where nothing is set.
    ///
    /// # Errors
    /// When the variable or file holds no secrets, or both are named.
    pub(crate) fn signer(&self) -> Result<Option<Signer>, Fault> {
        let (key, place, text) = match (&self.secret_env, &self.secret_file) {
            (None, None) => return Ok(None),
            (Some(variable), None) => {
                let hint = "set it where the daemon starts, to what DAGWRIGHT_FEEDBACK_SECRET is where Airflow runs";
                let text = env::var(variable).ok().filter(|text| !text.trim().is_empty());
                let message = || format!("the secret is taken from {variable}, which is not set");
                let text = text.ok_or_else(|| Fault { key: "secret_env", message: message(), hint })?;
                ("secret_env", variable.clone(), text)
            }
            (None, Some(file)) => {
                let hint = "write the secret into that file, for the daemon's user alone to read";
                let place = file.display().to_string();
                let message = |error| format!("the secret is taken from {place}: {error}");
                let read = secret_file(file);
                let text = read.map_err(|error| Fault { key: "secret_file", message: message(error), hint })?;
                ("secret_file", place, text)
            }
            (Some(_), Some(_)) => {
                let message = "it takes its secret from secret_env or from secret_file, not from both".into();
                return Err(Fault { key: "", message, hint: "set one of them" });
            }
        };
        let hint = "give whsec_ and 24 to 64 random bytes in base64, one secret or several with blanks between them";
        let unusable = |why: String| Fault { key, message: format!("{place} {why}"), hint };
        let signer = Signer::new(&text).map_err(|why| unusable(why.to_string()))?;
        if signer.is_empty() { Err(unusable("holds no secret".into())) } else { Ok(Some(signer)) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::AirflowFeedback;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn feedback(toml: &str) -> AirflowFeedback {
        let layers = config::Config::builder().add_source(config::File::from_str(toml, config::FileFormat::Toml));
        layers.build().unwrap().try_deserialize().unwrap()
    }

    #[test]
    fn one_secret_or_several_are_read() {
        assert!(feedback("").signer().unwrap().is_none());
        for text in [SECRET.to_owned(), format!("{SECRET} {SECRET}\n")] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(feedback(&format!("secret_file = {:?}", file.path())).signer().unwrap().is_some());
        }
    }

    #[test]
    fn what_is_no_secret_is_told_without_it() {
        for text in ["", "\n", " ", "hunter2", "whsec_aHVudGVyMg==", "whsec_hunter2\nwhsec_hunter2"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let fault = feedback(&format!("secret_file = {:?}", file.path())).signer().unwrap_err();
            assert_eq!(fault.key, "secret_file");
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
        for (toml, key) in [
            ("secret_file = \"/nowhere/at/all\"", "secret_file"),
            ("secret_env = \"DAGWRIGHT_TEST_IS_NOT_SET\"", "secret_env"),
            ("secret_env = \"A\"\nsecret_file = \"/b\"", ""),
        ] {
            assert_eq!(feedback(toml).signer().unwrap_err().key, key);
        }
    }
}
