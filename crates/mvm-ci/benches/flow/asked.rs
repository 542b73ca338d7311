//! The server that workflows ask. It answers everything at once.

use std::net::Ipv4Addr;

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};

/// It ends when this is dropped.
pub(crate) struct Asked {
    port: u16,
    _serving: JoinSet<()>,
}

impl Asked {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(|| async { "done" });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            port,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
