//! The certificate that the service shows.

use std::sync::Arc;

use anyhow::Result;
use dagwright_model::{code::Code, task::Problem};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{config::Tls, refusal::Refusal};

/// Reads certificate and key.
///
/// # Errors
/// When a file cannot be read, or they do not belong together.
pub(crate) fn server(tls: &Tls) -> Result<ServerConfig> {
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
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| invalid("http.tls.key", error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    Ok(config.map_err(|error| invalid("http.tls", error.to_string()))?)
}
