//! A daemon that is started without waiting for it, and struck at any moment.

use std::{
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dagwright_tests::Workspace;

use crate::PATIENCE;

/// How often something is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A daemon with its settings, its store and its log; it may be up or down.
pub(crate) struct Process {
    pub(crate) name: String,
    folder: PathBuf,
    workspace: PathBuf,
    command: Box<dyn Fn() -> Command>,
    child: Option<Child>,
}

// === impl Process ===

impl Process {
    /// Makes a daemon that is down; its store is the folder `store-<name>` of the workspace.
    pub(crate) fn new(workspace: &Workspace, name: &str, variables: &[(&str, String)]) -> Self {
        let folder = workspace.path(&format!("logs-{name}"));
        fs::create_dir_all(&folder).expect("a folder");
        let mut settings: Vec<(String, String)> =
            variables.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut set = |key: &str, value: String| settings.push((key.to_owned(), value));
        set("DAGWRIGHT__HTTP__LISTEN", "127.0.0.1:0".into());
        set("DAGWRIGHT__URIS__ALLOW", format!("{}/**", workspace.path("").display()).replace("//", "/"));
        set("DAGWRIGHT__STORE__PATH", workspace.path(&format!("store-{name}")).display().to_string());
        // Not in the store's folder: who loses that folder loses what waits between two tasks as well.
        set("DAGWRIGHT__STAGING__URI", workspace.path("staging").display().to_string());
        set("DAGWRIGHT__LOG__LEVEL", "info,dagwright_bus=debug".into());
        let program = workspace.dagwright();
        let (path, here) = (program.get_program().to_owned(), workspace.path(""));
        let unset: Vec<_> =
            program.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name.to_owned()).collect();
        let in_workspace = here.clone();
        let command = move || {
            let mut command = Command::new(&path);
            unset.iter().for_each(|name| {
                command.env_remove(name);
            });
            command.current_dir(&in_workspace).arg("serve").envs(settings.iter().cloned()).stdin(Stdio::null());
            command
        };
        Self { name: name.to_owned(), folder, workspace: here, command: Box::new(command), child: None }
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} is up", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let output = File::create(self.folder.join("output")).expect("a file");
        let child = (self.command)().stdout(output).stderr(log).spawn().expect("dagwright starts");
        self.child = Some(child);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Waits until it says where it listens.
    #[track_caller]
    pub(crate) fn address(&mut self) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(self.folder.join("output")).unwrap_or_default();
            if let Some((line, _)) = said.split_once('\n') {
                let address = line.rsplit("://").next().and_then(|text| text.parse().ok());
                return address.unwrap_or_else(|| panic!("it does not say where it listens: {line:?}"));
            }
            self.assert_well();
            assert!(Instant::now() < deadline, "{} does not say where it listens", self.name);
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Asserts that it has not ended by itself, if it is up.
    #[track_caller]
    pub(crate) fn assert_well(&mut self) {
        let Some(child) = &mut self.child else { return };
        if let Some(status) = child.try_wait().expect("its state") {
            panic!("{} ended by itself with {status}", self.name);
        }
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it is up").id()
    }

    /// Ends it as a crash would.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.assert_well();
        let child = self.child.as_mut().expect("it is up");
        child.kill().expect("a process");
        self.buried();
    }

    /// Waits for the end of one that somebody killed.
    #[track_caller]
    pub(crate) fn buried(&mut self) {
        let status = self.child.take().expect("it is up").wait().expect("its end");
        assert_eq!(status.signal(), Some(9), "{} ended by itself with {status}", self.name);
    }

    /// Takes the disk of one that is down.
    pub(crate) fn lose_disk(&mut self) {
        assert!(!self.is_up(), "{} is up", self.name);
        let _ = fs::remove_dir_all(self.workspace.join(format!("store-{}", self.name)));
    }

    /// Sends it a signal, by its name as `kill` knows it.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().expect("kill");
        assert!(sent.success(), "kill -s {name}");
    }

    /// Has it drain, and expects it to end well.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.assert_well();
        self.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = self.child.as_mut().expect("it is up");
            if let Some(status) = child.try_wait().expect("its state") {
                self.child = None;
                // Before it listens for the signal it ends by it.
                let is_well = status.code() == Some(0) || status.signal() == Some(15);
                assert!(is_well, "{} ended with {status}", self.name);
                return;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may stand still, or have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let kept = std::env::temp_dir().join(format!("dagwright-chaos-{}-{}.log", std::process::id(), self.name));
            let saved = fs::write(&kept, &log).is_ok();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("=== {} (whole log: {}, saved: {saved})\n{shown}", self.name, kept.display());
        }
    }
}
