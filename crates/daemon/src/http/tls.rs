//! The certificate that the service shows: another one after a reload, for every connection that is made then.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Result;
use dagwright_model::{code::Code, task::Problem};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{config::Tls, refusal::Refusal};

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Certificate(RwLock<Arc<CertifiedKey>>);

// === impl Certificate ===

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not belong together.
    pub(crate) fn read(tls: &Tls) -> Result<Self> {
        Ok(Self(RwLock::new(Arc::new(read(tls)?))))
    }

    /// Reads certificate and key again.
    ///
    /// # Errors
    /// As [`Certificate::read`]; then nothing changes.
    pub(crate) fn change(&self, tls: &Tls) -> Result<()> {
        let next = Arc::new(read(tls)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Returns how the service speaks TLS: 1.2 and 1.3, without asking callers for a certificate.
///
/// # Errors
/// When the library does not offer that.
pub(crate) fn server(certificate: Arc<Certificate>) -> Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_cert_resolver(certificate))
}

fn read(tls: &Tls) -> Result<CertifiedKey> {
    let invalid = |key: &str, message: String| {
        Refusal::Problem(Problem {
            code: Code::ConfigInvalid,
            subject: key.into(),
            message,
            hint: "both are PEM files: the certificate with those that lead to its root, and its key".into(),
        })
    };
    let chain = CertificateDer::pem_file_iter(&tls.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| invalid("http.tls.certificate", error.to_string()))?;
    if chain.is_empty() {
        return Err(invalid("http.tls.certificate", "there is no certificate in the file".into()).into());
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| invalid("http.tls.key", error.to_string()))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    Ok(certified.map_err(|error| invalid("http.tls", error.to_string()))?)
}
