//! The certificate that this node shows.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use super::files::{TlsError, certified_key, provider};

/// Takes TLS connections, with the certificate that the files had when they were last read.
#[derive(Debug)]
pub struct ServerTls {
    cert: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl ServerTls {
    /// Reads a certificate with its chain, and its key, both as PEM.
    pub fn open(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let first = certified_key(cert, key)?;
        let shown = Arc::new(Shown(RwLock::new(Arc::new(first))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new(cert, error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            shown,
            config: Arc::new(config),
        })
    }

    /// Reads the files again, for connections to come. With an error the certificate stays as it was: one file may be
    /// written before the other.
    pub fn reload(&self) -> Result<(), TlsError> {
        let next = Arc::new(certified_key(&self.cert, &self.key)?);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}
