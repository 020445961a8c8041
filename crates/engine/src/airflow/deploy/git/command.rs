//! The command `git`, so started that nothing but our arguments decides what it does.
//!
//! Neither the system's nor the user's configuration is read, no hook runs, nothing is asked for on a terminal, and only
//! protocols are spoken that authenticate the other side. What the user's own `ssh` and `.netrc` say counts: that is how
//! operators give credentials. A command that takes too long is ended, with all that it started.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::airflow::deploy::Error;

/// How long a command may take: a first fetch of thousands of DAGs over a slow line.
const TIMEOUT: Duration = Duration::from_secs(120);

/// How long a command that is asked to end may clean up.
const GRACE: Duration = Duration::from_secs(2);

/// How often the end of a command is looked for that has closed its output.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The most that a command may print; DAG files of tens of thousands of pipelines are less.
const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// How much of what it complains about is told.
const SAID_BYTES_MAX: usize = 2000;

/// Variables that are passed on: where programs, keys and authorities are, and ways out.
const PASSED: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "GIT_SSL_CAINFO",
];

/// The variable with which operators say how `ssh` is started.
const SSH_COMMAND: &str = "GIT_SSH_COMMAND";

const VARIABLES: [(&str, &str); 10] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("GIT_ALLOW_PROTOCOL", "file:https:ssh"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("LC_ALL", "C"),
];

const OPTIONS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "gc.autoDetach=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "fetch.recurseSubmodules=no",
    "gc.pruneExpire=now",
];

/// How `git` is started.
#[derive(Clone, Debug)]
pub(in crate::airflow::deploy) struct Command {
    pub(in crate::airflow::deploy) program: PathBuf,
    pub(in crate::airflow::deploy) timeout: Duration,
}

/// What became of a command.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    /// What it complained about, fit for a log.
    pub(super) said: String,
}

// === impl Command ===

impl Default for Command {
    fn default() -> Self {
        Self { program: "git".into(), timeout: TIMEOUT }
    }
}

impl Command {
    /// Runs a command to its end, which must be a success.
    pub(super) fn succeed(
        &self,
        action: &'static str,
        repository: Option<&Path>,
        arguments: &[&str],
        input: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let ended = self.run(action, repository, arguments, input)?;
        if ended.status.success() {
            return Ok(ended.output);
        }
        let said = if ended.said.is_empty() { ended.status.to_string() } else { ended.said };
        Err(Error::Git { action, said })
    }

    /// Runs a command to its end.
    pub(super) fn run(
        &self,
        action: &'static str,
        repository: Option<&Path>,
        arguments: &[&str],
        input: Vec<u8>,
    ) -> Result<Ended, Error> {
        let failed = |said: String| Error::Git { action, said };
        let mut command = process::Command::new(&self.program);
        command.env_clear().envs(VARIABLES);
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env(SSH_COMMAND, std::env::var_os(SSH_COMMAND).unwrap_or_else(|| "ssh -oBatchMode=yes".into()));
        for option in OPTIONS {
            command.args(["-c", option]);
        }
        if let Some(repository) = repository {
            command.arg("--git-dir").arg(repository);
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child =
            command.spawn().map_err(|source| Error::GitMissing { program: self.program.clone(), source })?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("it has no pipes".into()));
        };
        // Who ends early does not read to the end; its status tells why.
        let feed = thread::spawn(move || drop(stdin.write_all(&input)));
        let (output, said) = (collect(stdout, OUTPUT_BYTES_MAX), collect(stderr, OUTPUT_BYTES_MAX));

        let deadline = Instant::now() + self.timeout;
        let ended = wait(&mut child, deadline, &output, &said);
        if ended.is_none() {
            end(&mut child);
        }
        let _ = feed.join();
        match ended {
            Some((status, output, said)) => {
                if output.len() as u64 > OUTPUT_BYTES_MAX {
                    return Err(failed("it printed more than it may".into()));
                }
                Ok(Ended { status, output, said: tidy(&said) })
            }
            None => Err(failed(format!("it did not end within {} s", self.timeout.as_secs()))),
        }
    }
}

/// Reads a pipe to its end in a thread. What is beyond the bound is not kept.
fn collect(mut pipe: impl Read + Send + 'static, bytes_max: u64) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.by_ref().take(bytes_max + 1).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(
    child: &mut Child,
    deadline: Instant,
    output: &Receiver<Vec<u8>>,
    said: &Receiver<Vec<u8>>,
) -> Option<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let receive = |pipe: &Receiver<Vec<u8>>| match pipe.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        Ok(bytes) => Some(bytes),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Vec::new()),
    };
    let (output, said) = (receive(output)?, receive(said)?);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some((status, output, said)),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Ends a command and all that it started: first politely, so that it removes its temporary files.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let signal = |signal: Signal| group.map(|group| killpg(group, signal));
    let _ = signal(Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        // Not yet waited for, the group keeps its number.
        if has_ended(child) {
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    let _ = signal(Signal::SIGKILL);
    let _ = child.wait();
}

/// Tells whether a child has ended, without waiting for it.
fn has_ended(child: &Child) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let Ok(id) = i32::try_from(child.id()) else { return true };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(Pid::from_raw(id)), flags), Ok(WaitStatus::StillAlive))
}

/// Returns the end of a complaint in one line, fit for a terminal: a server may say anything.
fn tidy(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(&said[said.len().saturating_sub(SAID_BYTES_MAX)..]);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let line = lines.collect::<Vec<_>>().join("; ");
    line.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}
