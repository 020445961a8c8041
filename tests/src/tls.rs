//! A throwaway authority, by openssl, and certificates for services on this machine.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::Ended;

/// What openssl is told of certificates.
const CONF: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[service]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1, DNS:localhost
authorityKeyIdentifier = keyid
";

/// An authority that nobody knows.
pub struct Authority {
    folder: TempDir,
}

// === impl Authority ===

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// When openssl is not there, or fails.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("dagwright-ca-").tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("openssl.cnf"), CONF).expect("a file");
        let authority = Self { folder };
        authority.openssl(&["-extensions", "authority", "-subj", "/CN=Dagwright test CA"], "ca.key", "ca.pem");
        authority
    }

    /// Returns its certificate's file.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a certificate for 127.0.0.1 and localhost; writes it and its key.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn issue(&self, certificate: &Path, key: &Path) {
        let subject = ["-extensions", "service", "-subj", "/CN=localhost", "-CA", "ca.pem", "-CAkey", "ca.key"];
        self.openssl(&subject, key, certificate);
    }

    fn openssl(&self, about: &[&str], key: impl AsRef<Path>, certificate: impl AsRef<Path>) {
        let mut command = Command::new("openssl");
        command.args(["req", "-config", "openssl.cnf", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]).args(about);
        command.arg("-keyout").arg(key.as_ref()).arg("-out").arg(certificate.as_ref());
        let made = command.current_dir(self.folder.path()).output().expect("run tests/scripts/tools.sh kafka");
        Ended::from(made).expect(0);
    }
}
