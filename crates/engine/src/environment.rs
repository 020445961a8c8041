//! What a task's environment holds: a clean one, so that a task cannot come to depend on, or leak, what happens to
//! stand in its engine's.
//!
//! Connections are never inherited: the engine sets those of a task, and only those.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use dagwright_model::id::Name;

/// Variables that are passed on.
const EXACT: [&str; 19] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "DAGWRIGHT_MASK_KEY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Families of variables that are passed on: how object stores are reached, and where telemetry goes.
const PREFIXES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "OTEL_EXPORTER_OTLP_"];

/// What names a connection's variable.
const CONNECTION_PREFIX: &str = "DAGWRIGHT_CONN_";

/// Returns what of this process's environment its tasks get.
#[must_use]
pub fn inherited() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().filter(|(key, _)| is_inherited(key)).collect()
}

/// Returns the variable that a task finds a connection's URL in.
#[must_use]
pub fn connection_variable(connection: &Name) -> String {
    format!("{CONNECTION_PREFIX}{}", connection.as_str().to_ascii_uppercase())
}

fn is_inherited(key: &OsStr) -> bool {
    let Some(key) = key.to_str() else { return false };
    EXACT.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use dagwright_model::id::Name;

    use super::{connection_variable, is_inherited};

    #[test]
    fn only_what_a_task_needs_is_inherited() {
        for passed in ["PATH", "AWS_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "https_proxy", "DAGWRIGHT_MASK_KEY"] {
            assert!(is_inherited(OsStr::new(passed)), "{passed}");
        }
        for kept in ["DAGWRIGHT_CONN_WAREHOUSE", "PGPASSWORD", "DATABASE_URL", "LD_PRELOAD", "PATHS", "xAWS_"] {
            assert!(!is_inherited(OsStr::new(kept)), "{kept}");
        }
    }

    #[test]
    fn a_connection_has_a_variable_of_its_name() {
        let name = Name::new("ops_db").expect("a name");
        assert_eq!(connection_variable(&name), "DAGWRIGHT_CONN_OPS_DB");
    }
}
