//! Encryption: real handshakes with a server of its own, whose certificate a root of ours vouches for.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use arrow::array::AsArray;
use dagwright_dataplane::error::Result;
use dagwright_model::spec::Locator;

use crate::harness::{CONNECTION, Db, columns, environment, name, refused, run};

/// A server that offers TLS; ends with this process, and is removed when dropped.
struct Server {
    folder: PathBuf,
    /// The URL up to the query, by name and by address.
    by_name: String,
    by_address: String,
    roots: PathBuf,
}

/// How a session turned out.
#[derive(Debug, PartialEq, Eq)]
enum Wire {
    Plain,
    Encrypted,
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        let pid = std::process::id().to_string();
        let folder = std::env::temp_dir().join(format!("dagwright-postgres-tls-{pid}"));
        let by_address = script(&["start", &folder.to_string_lossy(), &pid]);
        let roots = script(&["tls", &folder.to_string_lossy()]).into();
        Self { folder, by_name: by_address.replace("127.0.0.1", "localhost"), by_address, roots }
    }

    fn root(&self, file: &str) -> String {
        self.roots.join(file).to_string_lossy().into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&["stop", &self.folder.to_string_lossy()]);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs `tests/scripts/postgres.sh` and returns what it prints.
fn script(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts/postgres.sh");
    let output = Command::new(&script).args(args).output().unwrap_or_else(|error| panic!("{script:?}: {error}"));
    assert!(output.status.success(), "postgres.sh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Reads over a connection, and tells how what was read travelled.
async fn wire(db: &mut Db, url: &str) -> Result<Wire> {
    db.environment = environment(url);
    let query = "SELECT ssl::text AS note FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let locator = Locator::Query { connection: name(CONNECTION), query: query.into(), binds: [].into() };
    let fetched = db.fetch(&db.read(locator, &columns(&[("note", "string")])), run("r")).await?;
    Ok(match fetched.rows.column(0).as_string::<i32>().value(0) {
        "true" => Wire::Encrypted,
        _ => Wire::Plain,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_says_how_far_a_server_is_trusted() {
    let mut db = Db::new("tls").await;
    let server = Server::start();
    let (by_name, by_address) = (&server.by_name, &server.by_address);
    let (ours, stranger) = (server.root("ca.crt"), server.root("stranger.crt"));
    for (url, wanted) in [
        (format!("{by_address}?sslmode=disable"), Wire::Plain),
        (by_address.clone(), Wire::Encrypted),
        (format!("{by_address}?sslmode=require"), Wire::Encrypted),
        (format!("{by_name}?sslmode=require&sslrootcert={ours}"), Wire::Encrypted),
        (format!("{by_name}?sslmode=verify-full&sslrootcert={ours}"), Wire::Encrypted),
    ] {
        assert_eq!(wire(&mut db, &url).await.unwrap(), wanted, "{url}");
    }
    for (url, why) in [
        (format!("{by_name}?sslmode=verify-full&sslrootcert={stranger}"), "another root"),
        (format!("{by_name}?sslmode=require&sslrootcert={stranger}"), "another root"),
        (format!("{by_address}?sslmode=verify-full&sslrootcert={ours}"), "another name"),
    ] {
        let error = refused(wire(&mut db, &url).await, "DW0303", &[]);
        let text = error.to_string();
        assert!(text.contains("the server's certificate is not trusted"), "{why}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_used_where_tls_is_required() {
    let mut db = Db::new("no_tls").await;
    let plain = crate::harness::server();
    assert_eq!(wire(&mut db, plain).await.unwrap(), Wire::Plain);
    refused(wire(&mut db, &format!("{plain}?sslmode=require")).await, "DW0302", &[]);
}
