//! Certificates and keys in PEM files.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[error("could not use {path} for TLS: {problem}")]
pub struct TlsError {
    path: String,
    problem: String,
}

impl TlsError {
    pub(super) fn new(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self {
            path: path.display().to_string(),
            problem: problem.to_string(),
        }
    }
}

/// What computes; the same that hiqlite uses.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads a certificate, with those that lead from it to an authority, and its key.
pub(super) fn certified_key(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::new(key, error))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| TlsError::new(cert, error))
}

/// Reads the certificates of authorities.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::new(path, error))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::new(path, error);
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::new(path, "it has no certificate"));
    }
    Ok(certificates)
}
