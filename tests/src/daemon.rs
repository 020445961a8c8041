//! A running `dagwright serve`, which ends with the test.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
};

use crate::{Ended, Workspace, http};

/// A service that has said where it listens.
pub struct Daemon {
    /// Where it listens.
    pub address: SocketAddr,
    log: Option<PathBuf>,
    /// Its standard output after the first line, kept open so that it may go on to print.
    _output: BufReader<ChildStdout>,
    child: Child,
}

impl Daemon {
    /// Starts a service in a workspace, with settings as `("HTTP__TIMEOUT", "1s")`; requests may name what lies in the
    /// workspace.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(workspace: &Workspace, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (format!("DAGWRIGHT__{key}"), *value)).collect();
        let variables: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        Self::with(workspace, &variables, &[])
    }

    /// Starts a service with variables of its environment, and arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with(workspace: &Workspace, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = Self::command(workspace, variables);
        Self::launch(command.args(arguments)).unwrap_or_else(|code| panic!("it ended with {code:?}"))
    }

    /// Starts a service whose log is kept, one JSON object a line: see [`Daemon::log`].
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn logged(workspace: &Workspace, variables: &[(&str, &str)], arguments: &[&str]) -> Self {
        let log = workspace.path("daemon.log");
        let mut command = Self::command(workspace, variables);
        command.args(arguments).env("DAGWRIGHT__LOG__FORMAT", "json").stderr(File::create(&log).expect("a file"));
        let mut daemon = Self::launch(&mut command).unwrap_or_else(|code| panic!("it ended with {code:?}"));
        daemon.log = Some(log);
        daemon
    }

    /// Returns the command of a service with variables of its environment, for a test that starts it in a way of its own or
    /// expects it to refuse to start.
    #[must_use]
    pub fn command(workspace: &Workspace, variables: &[(&str, &str)]) -> Command {
        let mut command = workspace.dagwright();
        command.arg("serve").env_remove("RUST_LOG");
        command.env("DAGWRIGHT__HTTP__LISTEN", "127.0.0.1:0");
        command.env("DAGWRIGHT__URIS__ALLOW", format!("{}/**", workspace.path("").display()).replace("//", "/"));
        command.envs(variables.iter().copied());
        command
    }

    /// Starts a service.
    ///
    /// # Errors
    /// The exit code of one that ended before it said where it listens.
    ///
    /// # Panics
    /// When there is no such program, or it says something else.
    pub fn launch(command: &mut Command) -> Result<Self, Option<i32>> {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("dagwright starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        if line.is_empty() {
            return Err(child.wait().expect("its end").code());
        }
        let address = line.trim_end().rsplit("://").next().and_then(|text| text.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            panic!("it does not say where it listens: {line:?}");
        };
        Ok(Self { address, log: None, _output: output, child })
    }

    /// Returns a `dagwright` command that talks to this service.
    #[must_use]
    pub fn client(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.dagwright();
        command.env("DAGWRIGHT_URL", format!("http://{}", self.address));
        command
    }

    /// Runs `dagwright` against this service to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, workspace: &Workspace, arguments: &[&str]) -> Ended {
        self.client(workspace).args(arguments).output().expect("dagwright starts").into()
    }

    /// Reads something from the API.
    ///
    /// # Panics
    /// When it is not there.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> serde_json::Value {
        http::call(self.address, "GET", &format!("/api/v1{path}"), &[], b"").expect(200).json()
    }

    /// Returns what it has logged so far.
    ///
    /// # Panics
    /// When its log is not kept.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.log.as_ref().expect("a service by Daemon::logged");
        std::fs::read_to_string(log).expect("a log")
    }

    /// Returns the most memory that it held so far, in MiB, without its workers.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn memory_peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        peak.and_then(|text| text.parse::<u64>().ok()).expect("the system tells it") / 1024
    }

    /// Sends a signal, by its name as `kill` knows it.
    ///
    /// # Panics
    /// When there is no such process any more.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for its end, and returns its exit code; `None` when a signal ended it.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
