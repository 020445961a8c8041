//! What a service guards itself with, and how that changes while it runs: certificates and tokens.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use dagwright_tests::{Ended, Workspace, daemon::Daemon, http, tls::Authority};

const FIRST: &str = "the-first-token-0123456789";
const SECOND: &str = "the-second-token-0123456789";

/// The longest that a reload may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service with a certificate and a token in files.
struct Guarded {
    workspace: Workspace,
    daemon: Daemon,
    certificate: PathBuf,
    key: PathBuf,
    token: PathBuf,
}

impl Guarded {
    fn start(authority: &Authority) -> Self {
        let workspace = Workspace::new();
        let (certificate, key) = (workspace.path("tls.crt"), workspace.path("tls.key"));
        authority.issue(&certificate, &key);
        let token = workspace.write("token", format!("{FIRST}\n"));
        let config = format!(
            "[http.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n\
             [http.tokens.ann]\ntoken_file = {token:?}\nscopes = [\"read\", \"submit\"]\n"
        );
        let config = workspace.write("dagwright.toml", config);
        let daemon = Daemon::logged(&workspace, &[], &["--config", &config.to_string_lossy()]);
        Self { workspace, daemon, certificate, key, token }
    }

    /// Runs a command against the service, with a token, trusting an authority if one is given.
    fn run(&self, token: &str, authority: Option<&Authority>, arguments: &[&str]) -> Ended {
        let mut command = self.workspace.dagwright();
        command.env("DAGWRIGHT_URL", format!("https://{}", self.daemon.address)).env("DAGWRIGHT_TOKEN", token);
        if let Some(authority) = authority {
            command.env("DAGWRIGHT_CA", authority.certificate());
        }
        command.args(arguments).output().expect("dagwright starts").into()
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "in vain until {what}:\n{}", self.daemon.log());
        }
    }
}

#[test]
fn commands_talk_over_tls_to_whom_they_trust() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let service = Guarded::start(&authority);
    service.run(FIRST, Some(&authority), &["status"]).expect(0);
    let submitted = service.run(FIRST, Some(&authority), &["submit", "examples/flights.yaml", "--wait", "--json"]);
    assert!(submitted.expect(0).stdout.contains("\"succeeded\""), "{submitted:?}");

    let path = |file: PathBuf| file.to_string_lossy().into_owned();
    let ca = path(authority.certificate());
    let url = format!("https://localhost:{}", service.daemon.address.port());
    service.run(FIRST, None, &["status", "--ca", &ca, "--url", &url]).expect(0);
    let doctor = service.run(FIRST, Some(&authority), &["doctor"]);
    assert!(doctor.expect(0).stdout.contains("is ready"), "{doctor:?}");

    service.run(FIRST, None, &["status"]).expect_problem(3, "DW0813");
    service.run(FIRST, Some(&stranger), &["status"]).expect_problem(3, "DW0813");
    let (empty, missing) = (service.workspace.write("empty.pem", ""), service.workspace.path("missing.pem"));
    for bad in [path(empty), path(missing)] {
        let refused = service.run(FIRST, None, &["status", "--ca", &bad]);
        assert!(refused.expect_problem(2, "DW0701").stderr.contains("--ca"), "{refused:?}");
    }
    // Who does not speak TLS is not answered.
    let mut plain = http::connect(service.daemon.address);
    std::io::Write::write_all(&mut plain, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut said = Vec::new();
    // It may be reset.
    let _ = std::io::Read::read_to_end(&mut plain, &mut said);
    assert!(!said.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn certificates_and_tokens_change_without_a_restart() {
    let (authority, next) = (Authority::new(), Authority::new());
    let service = Guarded::start(&authority);
    let works = |token, authority| service.run(token, Some(authority), &["status"]).code == Some(0);
    assert!(works(FIRST, &authority) && !works(FIRST, &next) && !works(SECOND, &authority));

    fs::write(&service.token, format!("{SECOND}\n")).expect("written");
    service.daemon.signal("HUP");
    service.until("the new token opens", |_| works(SECOND, &authority));
    let old = service.run(FIRST, Some(&authority), &["status"]);
    old.expect_problem(1, "DW0807");

    // A key that is not the certificate's, then one of no use at all: the old ones stay.
    let other = service.workspace.path("other.key");
    next.issue(&service.workspace.path("other.crt"), &other);
    fs::copy(&other, &service.key).expect("copied");
    fs::write(&service.token, "short\n").expect("written");
    service.daemon.signal("HUP");
    service.until("the old settings stay", |service| {
        service.daemon.log().contains("the old configuration stays in force")
    });
    assert!(service.daemon.log().contains("fewer than 16 characters"), "{}", service.daemon.log());
    fs::write(&service.token, format!("{SECOND}\n")).expect("written");
    service.daemon.signal("HUP");
    service
        .until("the old certificate stays", |service| service.daemon.log().contains("the certificate stays as it is"));
    assert!(works(SECOND, &authority));

    next.issue(&service.certificate, &service.key);
    service.daemon.signal("HUP");
    service.until("the new certificate is shown", |_| works(SECOND, &next));
    assert!(!works(SECOND, &authority));
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let workspace = Workspace::new();
    let token = workspace.write("token", "hunter2-hunter2-hunter2\n");
    let config = format!(
        "[bus]\nkind = \"kafka\"\n[kafka]\nbrokers = \"h:9092\"\n\
         [kafka.properties]\nsasl.username = \"u\"\nsasl.password = \"hunter2\"\nssl.key.pem = \"hunter2\"\n\
         [connections.w]\nurl = \"postgresql://u:hunter2@h/db?password=hunter2\"\n\
         [http.tokens.ann]\ntoken_file = {token:?}\nscopes = [\"read\"]\n\
         [telemetry.otlp]\nendpoint = \"https://u:hunter2@h:4318\"\n"
    );
    let config = workspace.write("dagwright.toml", config);
    for form in [&["config", "show"][..], &["config", "show", "--json"]] {
        let mut command = workspace.dagwright();
        command.args(form).arg("--config").arg(&config);
        command.env("DAGWRIGHT_CONN_V", "postgresql://u:hunter2@h/db");
        command.env("DAGWRIGHT__KAFKA__PROPERTIES__SSL__KEYSTORE__PASSWORD", "hunter2");
        let shown = Ended::from(command.output().expect("dagwright starts"));
        let told = &shown.expect(0).stdout;
        assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
        for key in ["sasl.password", "ssl.keystore.password", "connections.v.url", "connections.w.url", "token_file"] {
            assert!(told.contains(key), "{key} is not in {told}");
        }
    }
}
