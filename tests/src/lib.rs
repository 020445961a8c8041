//! What the workspace's own tests share: the two programs, a service, a throwaway PostgreSQL, Kafka
//! and Airflow, and independent counts by DuckDB.
//!
//! Each test target is a file `tests/tests/<name>.rs`, or a folder `tests/tests/<name>/` with a `main.rs`: `tidy` asserts
//! the invariants of `docs/ARCHITECTURE.md`; others run the built programs end to end. They are kept apart from the
//! crates, so that no crate sees another's insides through its tests.
//!
//! Everything a test needs is installed by `tests/scripts/tools.sh`; what is missing fails the test with the command to
//! run. Nothing here sleeps, and every service ends with the test process, however that ends.

pub mod airflow;
pub mod daemon;
pub mod disk;
pub mod events;
pub mod http;
pub mod kafka;
pub mod line;
pub mod receiver;
pub mod tls;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// Returns the root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The folder with `dagwright` and `dagwright-task`.
///
/// # Panics
/// When they are not built.
#[must_use]
pub fn bin_dir() -> PathBuf {
    let folder = match std::env::var_os("DAGWRIGHT_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // target/debug/deps/<test> → target/debug
        None => std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned())).expect("a path"),
    };
    for program in ["dagwright", "dagwright-task"] {
        assert!(folder.join(program).exists(), "{program} is not in {}: run `make build` first", folder.display());
    }
    folder
}

/// The folder of tools that `tests/scripts/tools.sh` fills.
///
/// # Panics
/// When neither `DAGWRIGHT_TOOLS` nor a home is known.
#[must_use]
pub fn tools() -> PathBuf {
    if let Some(folder) = std::env::var_os("DAGWRIGHT_TOOLS") {
        return folder.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    cache.expect("DAGWRIGHT_TOOLS, XDG_CACHE_HOME or HOME is set").join("dagwright")
}

/// A folder of its own in which a pipeline lives: specs, data and a store.
pub struct Workspace {
    folder: TempDir,
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A throwaway PostgreSQL server, one for each test process.
pub struct Postgres {
    /// The URL of its superuser.
    pub url: String,
    _folder: TempDir,
}

// === impl Workspace ===

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// Makes a folder with the layout of the repository: `examples/`, and `tests/data` as it is there.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("dagwright-test-").tempdir().expect("a temporary folder");
        let path = folder.path();
        std::fs::create_dir_all(path.join("tests")).expect("a folder");
        std::os::unix::fs::symlink(repository().join("tests/data"), path.join("tests/data")).expect("a link");
        std::fs::create_dir(path.join("examples")).expect("a folder");
        for entry in std::fs::read_dir(repository().join("examples")).expect("examples").flatten() {
            if entry.path().extension() == Some(OsStr::new("yaml")) {
                std::fs::copy(entry.path(), path.join("examples").join(entry.file_name())).expect("a copy");
            }
        }
        Self { folder }
    }

    /// Returns a path in the folder.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file in the folder and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// Returns a command for `dagwright` that runs in the folder, with the store in it and no other settings.
    #[must_use]
    pub fn dagwright(&self) -> Command {
        let mut command = Command::new(bin_dir().join("dagwright"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("DAGWRIGHT") {
                command.env_remove(variable);
            }
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Returns the names in a folder, in order; none when it does not exist.
    #[must_use]
    pub fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs `dagwright` with arguments to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        self.dagwright().args(arguments).output().expect("dagwright starts").into()
    }

    /// Runs `dagwright … --json` and returns how it ended with the object it printed.
    ///
    /// # Panics
    /// When it cannot be started or prints no JSON.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> (Ended, Value) {
        let ended: Ended = self.dagwright().args(arguments).arg("--json").output().expect("dagwright starts").into();
        let value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {ended:?}"));
        (ended, value)
    }
}

// === impl Ended ===

impl Ended {
    /// Panics unless the program ended with this code over a problem with the stable code `code`, and said what to do.
    ///
    /// # Panics
    /// As said.
    #[track_caller]
    pub fn expect_problem(&self, exit: i32, code: &str) -> &Self {
        let said = format!("{}{}", self.stdout, self.stderr);
        let mut lines = said.lines().skip_while(|line| !line.contains(code));
        let problem = lines.next().unwrap_or_else(|| panic!("no {code} in\n{said}"));
        // `code message`, then the remedy; of a deadlock, the conflicts with theirs come in between.
        let remedy = lines.take(16).find(|line| line.trim_start().starts_with('→'));
        let remedy = remedy.unwrap_or_else(|| panic!("no remedy for \"{problem}\" in\n{said}"));
        assert!(remedy.trim_start_matches([' ', '→']).len() > 10, "an empty remedy for \"{problem}\"");
        self.expect(exit)
    }

    /// Panics unless the program ended with this code.
    ///
    /// # Panics
    /// As said.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "\n{}\n{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

// === impl Postgres ===

impl Postgres {
    /// Returns the server of this test process; the first call starts it.
    ///
    /// # Panics
    /// When it cannot be started; the script says why.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        SERVER.get_or_init(|| {
            let folder = tempfile::Builder::new().prefix("dagwright-postgres-").tempdir().expect("a temporary folder");
            let owner = std::process::id().to_string();
            let script = repository().join("tests/scripts/postgres.sh");
            let started = Command::new(script).arg("start").arg(folder.path()).arg(owner).output().expect("bash");
            let started = Ended::from(started);
            started.expect(0);
            Self { url: started.stdout.trim().to_owned(), _folder: folder }
        })
    }

    /// Makes a database of its own and returns its URL, so that tests do not meet.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn database(&self, name: &str) -> String {
        self.query(&self.url, &format!("create database {name}"));
        let (server, _) = self.url.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{name}")
    }

    /// Runs SQL with psql and returns what it prints, columns separated by `|`.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn query(&self, url: &str, sql: &str) -> String {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", sql]);
        let ended = Ended::from(command.output().expect("psql: run tests/scripts/tools.sh postgres"));
        ended.expect(0);
        ended.stdout.trim().to_owned()
    }
}

/// Asks DuckDB, which shares no code with Dagwright, and returns the first row as text.
///
/// # Panics
/// When DuckDB is not installed or refuses.
#[track_caller]
#[must_use]
pub fn duckdb(sql: &str) -> Vec<String> {
    let program =
        "import duckdb, json, sys; print(json.dumps([str(v) for v in duckdb.sql(sys.argv[1]).fetchall()[0]]))";
    let python = tools().join("tools/bin/python");
    let output = Command::new(python).args(["-c", program, sql]).output().expect("run tests/scripts/tools.sh python");
    let ended = Ended::from(output);
    ended.expect(0);
    serde_json::from_str(&ended.stdout).expect("a row")
}
