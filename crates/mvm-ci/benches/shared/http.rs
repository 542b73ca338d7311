//! One HTTP connection to a node, which is kept.

use std::net::Ipv4Addr;

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::CONTENT_TYPE,
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

/// A connection.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    /// Drops, and so ends, the connection's task with this.
    _driver: JoinSet<()>,
}

impl Http {
    /// Connects to a port on loopback; nothing if nobody listens there.
    pub(crate) async fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Ends with the node, too; whoever waits for an answer then fails.
            let _ = connection.await;
        });
        Some(Self {
            sender,
            _driver: driver,
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, Bytes) {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Posts JSON, and reads the JSON of an answer that is a success.
    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body.to_string().into()).await;
        assert!(
            status.is_success(),
            "POST {path}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        serde_json::from_slice(&answer).unwrap()
    }

    /// Posts JSON, again and again under one name until it is known to have been done; says how often it had to be repeated.
    pub(crate) async fn post_surely(&mut self, path: &str, body: &Value, name: &str) -> u64 {
        let body = Bytes::from(body.to_string());
        let mut repeats = 0;
        loop {
            let request = Self::request(Method::POST, path).header("idempotency-key", name);
            let (status, answer) = self.send(request, body.clone()).await;
            if status.is_success() {
                return repeats;
            }
            let told = String::from_utf8_lossy(&answer);
            let may_be_repeated = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            assert!(
                may_be_repeated.contains(&status),
                "POST {path}: {status}: {told}"
            );
            repeats += 1;
        }
    }

    fn request(method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header(CONTENT_TYPE, "application/json")
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> (StatusCode, Bytes) {
        self.send(Self::request(method, path), body).await
    }

    async fn send(&mut self, request: Builder, body: Bytes) -> (StatusCode, Bytes) {
        let request = request.body(Full::new(body)).unwrap();
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, body)
    }
}
