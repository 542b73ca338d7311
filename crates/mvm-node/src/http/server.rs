//! Takes connections and gives their requests to a router, within limits.
//!
//! ```text
//!  accept ── slot free? ──▶ TLS handshake ──▶ head, in time ──▶ router ──▶ next head ...
//!              └─ no: closed                    └─ else closed
//! ```

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::tls::ServerTls;

/// How long a request's head may take, and how long a connection may be idle. Longer than other nodes keep idle
/// connections, so that none is closed while a request is on its way.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// A browser with many cookies sends less.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Held per connection for what was read and not used yet.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Far more than any client sends.
const HEADERS_MAX: usize = 64;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the system is short of something, such as file descriptors, it may have it again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address other than loopback may hold one in so many of all connections.
const SHARE_OF_ADDRESS: usize = 4;

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more are closed at once.
    pub connections_max: usize,
    /// How long a head may take.
    pub head_timeout: Duration,
}

/// Serves until `closing` completes, and then what is under way. Dropping it cuts all connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    closing: impl Future<Output = ()>,
) {
    let slots = Arc::new(Slots::new(limits.connections_max));
    let (close, closed) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut closing = pin!(closing);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closing => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, client)) => {
                let Some(slot) = slots.take(client.ip()) else {
                    tracing::debug!(%client, "too many connections");
                    continue;
                };
                let connection = Connection {
                    client,
                    limits,
                    router: router.clone(),
                    tls: tls.clone(),
                    closed: closed.clone(),
                };
                connections.spawn(async move {
                    connection.serve(stream).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(close);
    while connections.join_next().await.is_some() {}
}

struct Connection {
    client: SocketAddr,
    limits: Limits,
    router: Router,
    tls: Option<Arc<ServerTls>>,
    /// Fails when the server closes.
    closed: watch::Receiver<()>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Answers are small, and somebody waits for each. Where it fails, so will the connection.
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.as_ref() else {
            return self.exchange(stream).await;
        };
        let handshake = tls.acceptor().accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => self.exchange(stream).await,
            Ok(Err(error)) => tracing::debug!(client = %self.client, %error, "no TLS handshake"),
            Err(_) => tracing::debug!(client = %self.client, "no TLS handshake in time"),
        }
    }

    async fn exchange(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (router, client) = (TowerToHyperService::new(self.router), self.client);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(client));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            _ = self.closed.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %self.client, %error, "a connection broke off");
        }
    }
}

/// The connections there may be.
#[derive(Debug)]
struct Slots {
    max: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them, until dropped.
struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    fn new(max: usize) -> Self {
        Self {
            max,
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let of_address = taken.get(&address).copied().unwrap_or(0);
        let share = match address.is_loopback() {
            true => self.max,
            false => self.max.div_ceil(SHARE_OF_ADDRESS),
        };
        if all >= self.max || of_address >= share {
            return None;
        }
        taken.insert(address, of_address + 1);
        Some(Slot {
            slots: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self
            .slots
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_shared_and_come_back() {
        let slots = Arc::new(Slots::new(8));
        let take = |text: &str| slots.take(text.parse().unwrap());
        let of_one: Vec<_> = (0..4).filter_map(|_| take("10.0.0.1")).collect();
        assert_eq!(of_one.len(), 2, "an address has its share");
        let of_host: Vec<_> = (0..9).filter_map(|_| take("127.0.0.1")).collect();
        assert_eq!(of_host.len(), 6, "the host has what is left");
        assert!(take("10.0.0.2").is_none());
        drop(of_one);
        assert!(take("10.0.0.2").is_some());
        drop(of_host);
        assert!(slots.taken.lock().unwrap().is_empty());
    }
}
