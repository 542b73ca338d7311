//! What guards the HTTP interface, from the files that the configuration names; they are read again when they change.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use crate::{
    auth::Tokens,
    config::{AccessConfig, Auth, Config},
    http::{Guard, RateLimiter},
    reload::Watch,
    serve::ServeError,
    tls::{ClientTls, ServerTls},
};

/// Tokens and certificates in use.
pub(super) struct Doors {
    /// Who may do what; nothing where everybody may.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// What this node shows.
    pub(super) server: Option<Arc<ServerTls>>,
    /// How it knows others.
    pub(super) client: Option<Arc<ClientTls>>,
    watch: Watch,
}

impl Doors {
    /// Reads all files, which must be sound.
    pub(super) fn open(access: &AccessConfig) -> Result<Self, ServeError> {
        let watch = Watch::new(files(access));
        let tokens = match &access.auth {
            Auth::None => None,
            Auth::Tokens(path) => Some(Arc::new(Tokens::open(path)?)),
        };
        let (mut server, mut client) = (None, None);
        if let Some(tls) = &access.tls {
            server = Some(Arc::new(ServerTls::open(&tls.cert, &tls.key)?));
            client = match &tls.ca {
                Some(ca) => Some(Arc::new(ClientTls::open(ca)?)),
                None => None,
            };
        }
        Ok(Self {
            tokens,
            server,
            client,
            watch,
        })
    }

    /// What the interface asks of its clients.
    pub(super) fn guard(&self, access: &AccessConfig) -> Guard {
        Guard {
            tokens: self.tokens.clone(),
            rate: RateLimiter::new(access.rate_limit_per_s),
        }
    }

    /// Reads the files again after each change. Runs until dropped.
    pub(super) async fn keep(self) {
        let Self {
            tokens,
            server,
            client,
            watch,
        } = self;
        let reload = || {
            if let Some(tokens) = &tokens {
                match tokens.reload() {
                    Ok(count) => tracing::info!(count, "tokens read again"),
                    Err(error) => tracing::error!(%error, "the tokens stay as they were"),
                }
            }
            let shown = server.as_ref().map_or(Ok(()), |server| server.reload());
            let trusted = client.as_ref().map_or(Ok(()), |client| client.reload());
            match shown.and(trusted) {
                Ok(()) if server.is_some() => tracing::info!("certificates read again"),
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "the certificates stay as they were"),
            }
        };
        watch.each_change(reload).await;
    }
}

fn files(access: &AccessConfig) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Auth::Tokens(path) = &access.auth {
        files.push(path.clone());
    }
    if let Some(tls) = &access.tls {
        files.extend([tls.cert.clone(), tls.key.clone()]);
        files.extend(tls.ca.clone());
    }
    files
}

/// Says what an operator should know who lets others in.
pub(super) fn warn(config: &Config, listen: SocketAddr) {
    if listen.ip().to_canonical().is_loopback() {
        return;
    }
    match (&config.access.auth, &config.access.tls) {
        (Auth::None, _) if config.slots > 0 => tracing::warn!(
            %listen,
            "auth = \"none\": whoever reaches this address can run commands on this host"
        ),
        (Auth::None, _) => tracing::warn!(
            %listen,
            "auth = \"none\": whoever reaches this address can submit, see and change jobs"
        ),
        (Auth::Tokens(_), None) => tracing::warn!(
            %listen,
            "without tls_cert and tls_key, tokens cross the network readable"
        ),
        (Auth::Tokens(_), Some(_)) => {}
    }
}
