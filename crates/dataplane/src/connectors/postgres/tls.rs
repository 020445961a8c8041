//! How far a connection is encrypted, and whom it trusts.
//!
//! `require` encrypts but trusts any certificate, as libpq does without a root certificate; `verify-full` also checks
//! the certificate against the system's roots, or those in `sslrootcert`, and the host's name.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file of `sslrootcert` is of no use.
    #[error("could not read certificates from the file that sslrootcert names")]
    RootsUnreadable,
    /// The system has no root certificates.
    #[error("no root certificates were found on this system; name a file of them with sslrootcert")]
    NoRoots,
    /// The library refused the settings.
    #[error("TLS could not be set up")]
    Refused(#[from] rustls::Error),
}

/// Trusts every certificate, but checks that the server holds its key.
#[derive(Debug)]
struct TrustAny(Arc<CryptoProvider>);

/// Returns what connects with TLS; with `verify` only to whom the roots vouch for.
pub(crate) fn connector(verify: bool, roots: Option<&Path>) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    // As with libpq, a named root certificate is always checked against.
    let config = if verify || roots.is_some() {
        builder.with_root_certificates(root_store(roots)?).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAny(provider))).with_no_client_auth()
    };
    Ok(MakeRustlsConnect::new(config))
}

fn root_store(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).map_err(|_| TlsError::RootsUnreadable)? {
                store.add(certificate.map_err(|_| TlsError::RootsUnreadable)?)?;
            }
            if store.is_empty() {
                return Err(TlsError::RootsUnreadable);
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    Ok(store)
}

// === impl TrustAny ===

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
