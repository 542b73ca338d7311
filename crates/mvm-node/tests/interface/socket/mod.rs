//! The HTTP interface over a real socket, with the store in memory: good input, and above all bad.

mod bodies;
mod internal;
mod life;
mod lists;
mod outages;
mod places;

use std::{net::SocketAddr, sync::Arc};

use mvm_node::{http::App, store::MemoryStore};
use serde_json::{Value, json};

use crate::support::{Answer, exchange, get, post_json, request};

const SECRET: &str = "0123456789abcdef";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

struct Server {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    /// Dropping it ends the server.
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(MemoryStore::new());
        let router = App::new(Arc::clone(&store), 7, SECRET).router();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            store,
            _runtime: runtime,
        }
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = exchange(self.address, &request(method, path, headers, body)).unwrap();
        assert_eq!(answer.header("x-mvm-node"), Some("7"), "{answer:?}");
        answer
    }

    fn submit(&self) -> Value {
        let answer = self.send("POST", "/new-job", &[FORM], b"url=http://x/");
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    fn claim(&self, worker: &str) -> Answer {
        post_json(self.address, "/queue/claim", &json!({ "worker": worker })).unwrap()
    }

    fn set(&self, id: &Value, state: &str, token: Value) -> Answer {
        let path = format!("/queue/status/{}", id.as_str().unwrap());
        post_json(
            self.address,
            &path,
            &json!({ "state": state, "token": token }),
        )
        .unwrap()
    }

    fn total(&self) -> Value {
        get(self.address, "/queue/stats").unwrap().json()["total"].clone()
    }
}

/// A problem must say everything that RFC 9457 and this project ask for.
#[track_caller]
fn check_problem(answer: &Answer, status: u16, detail: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(
        problem["type"]
            .as_str()
            .is_some_and(|kind| kind.starts_with("urn:mvm-ci:")),
        "{problem}"
    );
    assert!(problem["title"].is_string(), "{problem}");
    let found = problem["detail"].as_str().unwrap();
    assert!(
        found.contains(detail),
        "{found:?} does not contain {detail:?}"
    );
}

/// Sends JSON to a route of the interface's first version.
fn post(server: &Server, path: &str, body: &Value) -> Answer {
    post_json(server.address, &format!("/api/v1{path}"), body).unwrap()
}
