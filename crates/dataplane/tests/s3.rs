//! The conformance suite of files over an S3-compatible server that this test starts.
//!
//! Stores read their configuration from the environment, which a test cannot change for itself: so it starts the server
//! and runs itself again with the variables set.

#[path = "suite/files.rs"]
#[expect(dead_code, reason = "the local tests use more of it")]
mod suite;

use std::{
    env,
    path::{Path, PathBuf},
    process::{self, Command},
};

/// Set in the second process.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// A server that ends with this value, or with this process.
struct Server {
    script: PathBuf,
    folder: tempfile::TempDir,
    url: String,
}

impl Server {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/s3.sh");
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("bash")
            .arg(&script)
            .arg("start")
            .arg(folder.path())
            .arg(process::id().to_string())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "no S3 server: {}; `tests/scripts/tools.sh python` installs it",
            String::from_utf8_lossy(&output.stderr)
        );
        let url = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { script, folder, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server also watches this process.
        let _ = Command::new("bash").arg(&self.script).arg("stop").arg(self.folder.path()).status();
    }
}

#[test]
fn s3_keeps_every_promise() {
    if env::var_os(ENDPOINT).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let place = suite::Place { root: "s3://dagwright-test/suite/".into(), base: None };
        return runtime.block_on(suite::conformance(place));
    }
    let server = Server::start();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "s3_keeps_every_promise", "--nocapture"])
        .env(ENDPOINT, &server.url)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .status()
        .unwrap();
    assert!(status.success());
}
