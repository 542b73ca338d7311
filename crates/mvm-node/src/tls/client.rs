//! Connections to other nodes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::files::{TlsError, authorities, provider};

/// Knows other nodes by certificates of an authority, and by their host's name in them.
#[derive(Debug)]
pub(crate) struct ClientTls {
    ca: PathBuf,
    config: RwLock<Arc<ClientConfig>>,
}

impl ClientTls {
    /// Reads the authorities' certificates.
    pub(crate) fn open(ca: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            ca: ca.to_owned(),
            config: RwLock::new(config(ca)?),
        })
    }

    /// Reads them again, for connections to come. With an error they stay as they were.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let next = config(&self.ca)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Makes sure that the other end is `host`, and encrypts. The error is for people.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let connecting = TlsConnector::from(config).connect(name, stream);
        connecting.await.map_err(|error| error.to_string())
    }
}

fn config(ca: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(ca, error))?
        .with_root_certificates(authorities(ca)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
