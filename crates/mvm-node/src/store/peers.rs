//! Requests from this node to the HTTP interface of another, over few and long-lived connections.
//!
//! What matters here is to know what was handed over. A request that could not be written to any
//! connection was not ([`Exchange::NotSent`]); one that was written and not answered may have been
//! ([`Exchange::Lost`]). hiqlite's own forwarding cannot tell the two apart and retries for ten seconds.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode, body::Incoming, client::conn::http1::SendRequest, header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout_at,
};

use mvm_queue::{Versioned, WIRE_VERSION};

use crate::{
    config::Secret,
    metrics::{Forwarded, Metrics},
    request,
    tls::ClientTls,
};

/// Carries the secret that nodes share.
pub(crate) const SECRET_HEADER: &str = "x-mvm-secret";

/// Carries the milliseconds that the sender still waits for the answer.
pub(crate) const DEADLINE_HEADER: &str = "x-mvm-deadline-ms";

/// Carries the name of the request on whose behalf a node asks.
pub(crate) const REQUEST_ID_HEADER: &str = "x-mvm-request-id";

/// How long a connection may take. Shorter than any deadline, so that an unreachable leader is
/// noticed while there is time to find its successor.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Idle connections kept per peer: as many as requests are commonly in flight to a leader.
const IDLE_MAX: usize = 64;

/// Connections that were idle for longer are not used again: the peer closes them some time later, and a request that
/// crosses that would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest answer taken from a peer: a full page of the largest jobs, and then some.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

type Connection = SendRequest<Full<Bytes>>;

/// A connection that waits for its next request, and since when.
type Idle = (Connection, Instant);

/// What became of one request to a peer.
#[derive(Debug)]
pub(super) enum Exchange<T> {
    /// The peer answered.
    Answered(T),
    /// The peer never got the request, or turned it away unread. It had no effect and never will.
    NotSent {
        /// What went wrong.
        detail: String,
    },
    /// The request was written and no answer came.
    Lost,
}

/// The connections to all peers.
#[derive(Debug)]
pub(super) struct Peers {
    addresses: HashMap<u64, (String, u16)>,
    secret: Secret,
    /// Without it, peers speak plain HTTP.
    tls: Option<Arc<ClientTls>>,
    idle: Mutex<HashMap<u64, Vec<Idle>>>,
    /// The tasks that drive the connections; they end with their connection, or with this.
    drivers: Mutex<JoinSet<()>>,
    metrics: Arc<Metrics>,
}

impl Peers {
    /// Knows peers by number, host and HTTP port. Connects to nobody yet.
    pub(super) fn new(
        addresses: HashMap<u64, (String, u16)>,
        secret: Secret,
        tls: Option<Arc<ClientTls>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            addresses,
            secret,
            tls,
            idle: Mutex::default(),
            drivers: Mutex::default(),
            metrics,
        }
    }

    /// Sends `body` to a route of a peer and reads the answer, until `give_up_at`.
    pub(super) async fn call<Q, A>(
        &self,
        peer: u64,
        path: &str,
        body: &Q,
        give_up_at: Instant,
    ) -> Exchange<A>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let exchange = self.exchange(peer, path, body, give_up_at).await;
        let result = match &exchange {
            Exchange::Answered(_) => Forwarded::Answered,
            Exchange::NotSent { .. } => Forwarded::NotSent,
            Exchange::Lost => Forwarded::Lost,
        };
        self.metrics.store.forwarded(path, result);
        exchange
    }

    async fn exchange<Q, A>(
        &self,
        peer: u64,
        path: &str,
        body: &Q,
        give_up_at: Instant,
    ) -> Exchange<A>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let left = give_up_at.saturating_duration_since(Instant::now());
        let request = match self.request(peer, path, body, left) {
            Ok(request) => request,
            Err(detail) => return Exchange::NotSent { detail },
        };
        let sent = match until(give_up_at, self.send(peer, request)).await {
            Some(Ok(response)) => response,
            Some(Err(Failure::NotSent(detail))) => return Exchange::NotSent { detail },
            Some(Err(Failure::Lost)) | None => return Exchange::Lost,
        };
        let (connection, response) = sent;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let Some(Ok(body)) = until(give_up_at, body).await else {
            return Exchange::Lost;
        };
        self.keep(peer, connection);
        if status != StatusCode::OK {
            // Internal routes answer 200 whenever they looked at the request.
            return Exchange::NotSent {
                detail: format!("it answered HTTP {status} to {path}"),
            };
        }
        match serde_json::from_slice::<Versioned<A>>(&body.to_bytes()) {
            Ok(Versioned {
                version: WIRE_VERSION,
                body,
            }) => Exchange::Answered(body),
            Ok(_) | Err(_) => Exchange::Lost,
        }
    }

    fn request<Q: Serialize>(
        &self,
        peer: u64,
        path: &str,
        body: &Q,
        left: Duration,
    ) -> Result<Request<Full<Bytes>>, String> {
        let (host, port) = self
            .addresses
            .get(&peer)
            .ok_or_else(|| format!("node {peer} is not configured"))?;
        let body = serde_json::to_vec(&Versioned::new(body)).map_err(|error| error.to_string())?;
        let mut composed = Request::post(path);
        // The other node's log lines carry the name of the same request.
        if let Some(id) = request::current() {
            composed = composed.header(REQUEST_ID_HEADER, id);
        }
        composed
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(SECRET_HEADER, self.secret.expose())
            .header(DEADLINE_HEADER, left.as_millis().to_string())
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())
    }

    /// Tries the idle connections, then a new one. hyper hands a request back that it did not write.
    async fn send(
        &self,
        peer: u64,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        while let Some(mut connection) = self.take(peer) {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut error) => request = error.take_message().ok_or(Failure::Lost)?,
            }
        }
        let mut connection = self.connect(peer).await.map_err(Failure::NotSent)?;
        match connection.try_send_request(request).await {
            Ok(response) => Ok((connection, response)),
            Err(mut error) => Err(match error.take_message() {
                Some(_) => Failure::NotSent(error.into_error().to_string()),
                None => Failure::Lost,
            }),
        }
    }

    async fn connect(&self, peer: u64) -> Result<Connection, String> {
        let (host, port) = self
            .addresses
            .get(&peer)
            .ok_or_else(|| format!("node {peer} is not configured"))?;
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open(peer, host, *port)).await;
        let within = CONNECT_TIMEOUT.as_millis();
        connected
            .unwrap_or_else(|_| Err(format!("not within {within} ms")))
            .map_err(|error| format!("no connection to {host}:{port}: {error}"))
    }

    async fn open(&self, peer: u64, host: &str, port: u16) -> Result<Connection, String> {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| error.to_string())?;
        // Small requests, and somebody waits for each.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        match &self.tls {
            Some(tls) => self.drive(peer, tls.connect(host, stream).await?).await,
            None => self.drive(peer, stream).await,
        }
    }

    async fn drive(
        &self,
        peer: u64,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, String> {
        let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(peer, %error, "connection to a peer ended");
            }
        });
        Ok(connection)
    }

    fn take(&self, peer: u64) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(&peer)?;
        while let Some((connection, since)) = connections.pop() {
            if connection.is_ready() && since.elapsed() < IDLE_TIMEOUT {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, peer: u64, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(peer).or_default();
        if !connection.is_closed() && connections.len() < IDLE_MAX {
            connections.push((connection, Instant::now()));
        }
    }
}

enum Failure {
    NotSent(String),
    Lost,
}

/// The output of a future, or nothing if it is not there by then.
pub(super) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    timeout_at(deadline.into(), future).await.ok()
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;
    use crate::http::internal;

    #[test]
    fn another_node_hears_the_name_of_the_request() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let addresses = HashMap::from([(2, ("127.0.0.1".to_owned(), port))]);
            let peers = Peers::new(addresses, "secret".to_owned().into(), None, Arc::default());
            let give_up_at = Instant::now() + Duration::from_secs(20);
            let call = peers.call::<_, ()>(2, internal::LEAD, &(), give_up_at);
            let call = request::within("its-name".into(), call);
            let peer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut heard = Vec::new();
                while !heard.windows(4).any(|window| window == b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
                }
                String::from_utf8(heard).unwrap()
            };
            let (exchange, heard) = tokio::join!(call, peer);
            assert!(
                heard.contains("\r\nx-mvm-request-id: its-name\r\n"),
                "{heard}"
            );
            assert!(
                matches!(exchange, Exchange::Lost),
                "hung up without an answer"
            );
        });
    }
}
