//! An authority, certificates by it, and a blocking HTTPS client.

// Each test binary uses a part of this.
#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::support::{Answer, parse};

const HANG: Duration = Duration::from_secs(20);

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Writes the authority's own certificate.
    pub(crate) fn write(&self, path: PathBuf) -> PathBuf {
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// Writes a certificate for 127.0.0.1 and its key.
    pub(crate) fn certify(&self, cert: &Path, key: &Path) {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let signed = params.signed_by(&pair, &self.issuer).unwrap();
        std::fs::write(cert, signed.pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }

    /// Sends a request to somebody who must be certified by this authority.
    pub(crate) fn exchange(&self, address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(address.ip());
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect_timeout(&address, HANG)?;
        stream.set_read_timeout(Some(HANG))?;
        let mut stream = StreamOwned::new(client, stream);
        stream.write_all(request)?;
        let mut bytes = Vec::new();
        // Servers may close without TLS's own farewell.
        let read = stream.read_to_end(&mut bytes);
        match parse(&bytes) {
            Some(answer) => Ok(answer),
            None => Err(read
                .err()
                .unwrap_or_else(|| std::io::Error::other("no answer"))),
        }
    }
}
