//! `[airflow]`: which Airflow runs plans, as whom it is called, and where DAGs are deployed.

use std::{env, fs, path::PathBuf};

use dagwright_airflow::{Credentials, Secret, Settings};
use dagwright_compiler::Layout;
use dagwright_engine::airflow::deploy::{Choice, GitSettings, Rule};
use dagwright_model::units::Span;
use serde::Deserialize;

use super::{
    feedback::{AirflowEvents, AirflowFeedback},
    tokens::secret_file,
};

/// Which Airflow, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Airflow {
    /// Where its API answers; empty: there is none.
    pub(crate) url: String,
    /// As whom it is called, with a password.
    username: String,
    password_env: Option<String>,
    password_file: Option<PathBuf>,
    /// Or a bearer token that somebody else renews.
    token_env: Option<String>,
    token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside those of the system.
    ca_file: Option<PathBuf>,
    /// How far back it is looked for runs that ended while no daemon ran.
    pub(crate) look_back: Span,
    /// Whether people are asked in Airflow about plans that wait for approval.
    pub(crate) approvals: bool,
    pub(crate) deploy: Deploy,
    #[serde(default)]
    pub(crate) feedback: AirflowFeedback,
    pub(crate) events: AirflowEvents,
}

/// Where DAGs are deployed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deploy {
    pub(crate) kind: DeployKind,
    /// The DAG folder, the bundle's root, or the clone of the repository.
    pub(crate) path: PathBuf,
    /// How long Airflow may take to show a DAG.
    pub(crate) patience: Span,
    /// How long plans and snapshots are kept that no DAG refers to any more; zero for ever.
    pub(crate) keep: Span,
    pub(crate) layout: DeployLayout,
    /// From how many pipelines on layout `auto` has one loader for all.
    loader_from: usize,
    /// The repository.
    url: String,
    branch: String,
    subfolder: String,
    author: String,
}

/// What Airflow reads DAGs from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeployKind {
    /// A DAG folder.
    Folder,
    /// A versioned bundle of `dagwright-airflow`.
    Bundle,
    /// A branch of a Git repository.
    Git,
}

/// How DAGs are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeployLayout {
    /// What suits their number.
    Auto,
    /// A DAG file for each pipeline.
    File,
    /// One DAG file for all.
    Loader,
}

/// Says why a setting cannot be used; holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    /// The key within `[airflow]`.
    pub(crate) key: &'static str,
    message: String,
    pub(crate) hint: &'static str,
}

// === impl Airflow ===

impl Airflow {
    /// Returns how Airflow is called.
    ///
    /// # Errors
    /// When a setting is missing or cannot be used.
    pub(crate) fn client(&self) -> Result<Settings, Fault> {
        let hint = "set it to where Airflow's web server (2.x) or API server (3.x) answers, as http://airflow:8080";
        if self.url.is_empty() {
            return Err(Fault { key: "url", message: "engine.kind is \"airflow\", and it is not set".into(), hint });
        }
        let url =
            self.url.parse().map_err(|error| Fault { key: "url", message: format!("it is no URL: {error}"), hint })?;
        let credentials = self.credentials()?;
        let settings = Settings::new(url, credentials);
        let mut settings = settings.map_err(|error| Fault { key: "url", message: error.to_string(), hint })?;
        if let Some(file) = &self.ca_file {
            let hint = "name a file with certificates in PEM";
            let message = |error| format!("{} cannot be read: {error}", file.display());
            settings.authorities =
                fs::read(file).map_err(|error| Fault { key: "ca_file", message: message(error), hint })?;
        }
        Ok(settings)
    }

    /// Returns the settings of a Git repository.
    pub(crate) fn git(&self) -> GitSettings {
        let Deploy { path, url, branch, subfolder, author, .. } = self.deploy.clone();
        GitSettings { path, url, branch, subfolder: Some(subfolder).filter(|folder| !folder.is_empty()), author }
    }

    /// Returns how the layout of DAGs is chosen.
    pub(crate) fn layout(&self) -> Rule {
        let choice = match self.deploy.layout {
            DeployLayout::Auto => Choice::Auto,
            DeployLayout::File => Choice::Fixed(Layout::File),
            DeployLayout::Loader => Choice::Fixed(Layout::Loader),
        };
        Rule { choice, loader_from: self.deploy.loader_from }
    }

    /// Returns what is wrong with the settings of an engine on Airflow.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<_> = self.client().err().into_iter().collect();
        if self.deploy.path.as_os_str().is_empty() {
            let hint = "name the folder that Airflow reads DAGs from, as this process sees it";
            faults.push(Fault { key: "deploy.path", message: "it is not set".into(), hint });
        }
        if self.deploy.loader_from == 0 {
            let hint = "set it to a number of pipelines, or layout to \"loader\"";
            faults.push(Fault { key: "deploy.loader_from", message: "it is 0".into(), hint });
        }
        if self.deploy.kind == DeployKind::Git && self.deploy.url.is_empty() {
            let hint = "name the repository, as git@git.example.org:data/dags.git";
            faults.push(Fault { key: "deploy.url", message: "it is not set".into(), hint });
        }
        faults
    }

    fn credentials(&self) -> Result<Credentials, Fault> {
        let password = secret("password_env", &self.password_env, "password_file", &self.password_file)?;
        let token = secret("token_env", &self.token_env, "token_file", &self.token_file)?;
        match (token, password) {
            (Some(_), Some(_)) => Err(Fault {
                key: "token_env",
                message: "there is a token and a password".into(),
                hint: "set one of them",
            }),
            (Some(token), None) => Ok(Credentials::Token(token)),
            (None, Some(_)) if self.username.is_empty() => Err(Fault {
                key: "username",
                message: "there is a password, and it is not set".into(),
                hint: "name the user whose password it is",
            }),
            (None, Some(password)) => Ok(Credentials::Password { username: self.username.clone(), password }),
            (None, None) if !self.username.is_empty() => Err(Fault {
                key: "password_env",
                message: "there is a username, and it is not set".into(),
                hint: "name the variable that holds the password, or a file by password_file",
            }),
            (None, None) => Ok(Credentials::None),
        }
    }
}

/// Reads a secret from a variable or a file.
fn secret(
    env_key: &'static str,
    variable: &Option<String>,
    file_key: &'static str,
    file: &Option<PathBuf>,
) -> Result<Option<Secret>, Fault> {
    match (variable, file) {
        (None, None) => Ok(None),
        (Some(variable), None) => {
            let message = || format!("it is taken from {variable}, which is not set");
            let value = env::var(variable).ok().filter(|value| !value.is_empty());
            let hint = "set the variable where the daemon starts";
            value.map(|value| Some(Secret::new(value))).ok_or_else(|| Fault { key: env_key, message: message(), hint })
        }
        (None, Some(file)) => {
            let hint = "write it into that file, for the daemon's user alone to read";
            let message = |error| format!("it is taken from {}: {error}", file.display());
            let read = secret_file(file).map_err(|error| Fault { key: file_key, message: message(error), hint })?;
            Ok(Some(Secret::new(read)))
        }
        (Some(_), Some(_)) => {
            let message = format!("it is set, and {env_key} too");
            Err(Fault { key: file_key, message, hint: "set one of them" })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use dagwright_compiler::Layout;
    use dagwright_engine::airflow::deploy::{Choice, Rule};

    use super::super::Config;

    /// Returns the keys of what is wrong with the settings.
    fn faults(toml: &str) -> Vec<&'static str> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(format!("[engine]\nkind = \"airflow\"\n{toml}").as_bytes()).unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        config.airflow.faults().into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn a_layout_is_chosen() {
        let rule = |toml: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(toml.as_bytes()).unwrap();
            Config::load(Some(file.path())).map(|config| config.airflow.layout()).ok()
        };
        let of = |layout: &str| rule(&format!("[airflow.deploy]\nlayout = \"{layout}\"\nloader_from = 7\n"));
        for (layout, choice) in
            [("auto", Choice::Auto), ("file", Choice::Fixed(Layout::File)), ("loader", Choice::Fixed(Layout::Loader))]
        {
            assert_eq!(of(layout), Some(Rule { choice, loader_from: 7 }));
        }
        assert_eq!(rule("").map(|rule| rule.choice), Some(Choice::Auto));
        assert_eq!(of("files"), None);
    }

    #[test]
    fn what_is_missing_is_told_all_at_once() {
        assert_eq!(faults(""), ["url", "deploy.path"]);
        let url = "[airflow]\nurl = \"http://a:8080\"\n";
        let deploy = "deploy.path = \"/dags\"\n";
        assert_eq!(faults(&format!("{url}{deploy}")), [""; 0]);
        assert_eq!(faults(&format!("[airflow]\nurl = \"ftp://a\"\n{deploy}")), ["url"]);
        assert_eq!(faults(&format!("{url}{deploy}username = \"ann\"\n")), ["password_env"]);
        let password = "password_env = \"PATH\"\n";
        assert_eq!(faults(&format!("{url}{deploy}{password}")), ["username"]);
        assert_eq!(faults(&format!("{url}{deploy}username = \"ann\"\n{password}")), [""; 0]);
        assert_eq!(
            faults(&format!("{url}{deploy}username = \"ann\"\n{password}token_env = \"PATH\"\n")),
            ["token_env"]
        );
        assert_eq!(faults(&format!("{url}{deploy}token_env = \"NOBODY_SETS_THIS\"\n")), ["token_env"]);
        assert_eq!(faults(&format!("{url}{deploy}token_file = \"/nowhere\"\n")), ["token_file"]);
        assert_eq!(faults(&format!("{url}{deploy}ca_file = \"/nowhere\"\n")), ["ca_file"]);
        assert_eq!(faults(&format!("{url}{deploy}deploy.kind = \"git\"\n")), ["deploy.url"]);
        assert_eq!(faults(&format!("{url}{deploy}deploy.loader_from = 0\n")), ["deploy.loader_from"]);
    }
}
