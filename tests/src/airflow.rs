//! A throwaway Airflow: scheduler, DAG processor and API, on PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ended, Postgres, repository};

/// An Airflow with no DAGs in it.
pub struct Airflow {
    /// Where its API answers.
    pub url: String,
    /// The password of its users `admin` and `viewer`.
    pub password: String,
    folder: TempDir,
    /// How it is started.
    arguments: [String; 3],
    variables: Vec<(String, String)>,
}

// === impl Airflow ===

impl Airflow {
    /// Starts an Airflow of this version, such as `3.3.2`; installs it first where it is missing.
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    #[must_use]
    pub fn start(version: &str) -> Self {
        Self::with(version, &[])
    }

    /// Starts an Airflow with variables of the environment of all its processes.
    ///
    /// # Panics
    /// As [`Airflow::start`].
    #[must_use]
    pub fn with(version: &str, variables: &[(&str, &str)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let tools = Command::new(repository().join("tests/scripts/tools.sh")).args(["airflow", version]).output();
        Ended::from(tools.expect("bash")).expect(0);
        let folder = tempfile::Builder::new().prefix("dagwright-airflow-").tempdir().expect("a temporary folder");
        let owner = std::process::id().to_string();
        let database = Postgres::shared().database(&format!("airflow_{}", STARTED.fetch_add(1, Relaxed)));
        let arguments = [version.to_owned(), database, owner];
        let mut script = script();
        script.arg("start").arg(folder.path()).args(&arguments).envs(variables.iter().copied());
        let started = Ended::from(script.output().expect("bash"));
        started.expect(0);
        let told: Value = serde_json::from_str(&started.stdout).expect("JSON");
        let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let text = |key: &str| told[key].as_str().unwrap_or_else(|| panic!("no {key} in {told}")).to_owned();
        Self { url: text("url"), password: text("password"), folder, arguments, variables }
    }

    /// Takes all of its processes away.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn stop(&self) {
        Ended::from(script().arg("stop").arg(self.folder.path()).output().expect("bash")).expect(0);
    }

    /// Starts it again on the same port, with what it had.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_again(&self) {
        let mut script = script();
        script.arg("start").arg(self.folder.path()).args(&self.arguments);
        script.envs(self.variables.iter().map(|(key, value)| (key, value)));
        Ended::from(script.output().expect("bash")).expect(0);
    }

    /// Takes it away, and with it all that its database knows; [`Airflow::start_again`] starts it with an empty one.
    ///
    /// # Panics
    /// When it cannot be stopped, or PostgreSQL refuses.
    pub fn reset(&self) {
        self.stop();
        let (server, name) = self.arguments[1].rsplit_once('/').expect("a URL with a database");
        let postgres = Postgres::shared();
        for sql in ["drop database", "create database"] {
            postgres.query(&format!("{server}/postgres"), &format!("{sql} {name}"));
        }
        std::fs::remove_file(self.folder.path().join("ready")).expect("it was set up");
    }

    /// Installs package `dagwright-airflow` into a folder, for Airflow to find there, and returns it.
    ///
    /// # Panics
    /// When it cannot be installed; the script says why.
    #[must_use]
    pub fn package() -> &'static Path {
        static PACKAGE: OnceLock<TempDir> = OnceLock::new();
        let install = || {
            let folder = tempfile::Builder::new().prefix("dagwright-package-").tempdir().expect("a temporary folder");
            let tools =
                Command::new(repository().join("tests/scripts/tools.sh")).arg("package").arg(folder.path()).output();
            Ended::from(tools.expect("bash")).expect(0);
            folder
        };
        PACKAGE.get_or_init(install).path()
    }

    /// Returns its DAG folder.
    #[must_use]
    pub fn dags(&self) -> PathBuf {
        self.folder.path().join("dags")
    }

    /// Returns the ends of its logs, for when a test fails.
    #[must_use]
    pub fn logs(&self) -> String {
        let tail = "tail -n 30 -- \"$1\"/*.log";
        let output = Command::new("sh").args(["-c", tail, "sh"]).arg(self.folder.path()).output();
        output.map(|Output { stdout, .. }| String::from_utf8_lossy(&stdout).into_owned()).unwrap_or_default()
    }
}

impl Drop for Airflow {
    /// Best effort: the script ends Airflow with this process at the latest.
    fn drop(&mut self) {
        let _ = script().arg("stop").arg(self.folder.path()).output();
    }
}

fn script() -> Command {
    Command::new(repository().join("tests/scripts/airflow.sh"))
}

/// Returns the version that stands for Airflow 2: 2.11.2, or what `DAGWRIGHT_AIRFLOW_2` says, by which `make compat` runs the same
/// tests on others.
#[must_use]
pub fn version_2() -> String {
    std::env::var("DAGWRIGHT_AIRFLOW_2").unwrap_or_else(|_| "2.11.2".into())
}

/// Returns the version that stands for Airflow 3: 3.3.2, or what `DAGWRIGHT_AIRFLOW_3` says, as above.
#[must_use]
pub fn version_3() -> String {
    std::env::var("DAGWRIGHT_AIRFLOW_3").unwrap_or_else(|_| "3.3.2".into())
}
