//! A node without a socket, and its document, by which each of its answers is judged.

use std::{fmt, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request},
};
use http_body_util::BodyExt;
use mvm_node::{
    http::{App, Guard},
    store::MemoryStore,
};
use serde_json::Value;
use tower_service::Service;

use super::schema::validate;

/// Bytes of a body in messages.
const BODY_SHOWN: usize = 500;

/// An answer of [`Node`].
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Not read if it is a stream.
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(BODY_SHOWN)]);
        write!(formatter, "{} {:?} {body}", self.status, self.headers)
    }
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn content_type(&self) -> Option<&str> {
        self.header("content-type")?.split(';').next()
    }
}

/// One documented operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) told: Value,
}

pub(crate) struct Node {
    pub(crate) app: Arc<App<MemoryStore>>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) document: Value,
    router: Router,
}

impl Node {
    /// A node that lets everybody in.
    pub(crate) async fn start() -> Self {
        let mut node = Self::guarded(Guard::default(), Value::Null);
        let request = Request::get("/api/openapi.json")
            .body(Body::empty())
            .unwrap();
        node.document = node.send(request).await.json();
        node
    }

    /// A node whose document is known.
    pub(crate) fn guarded(guard: Guard, document: Value) -> Self {
        let store = Arc::new(MemoryStore::new());
        let app = App::guarded(Arc::clone(&store), 7, "0123456789abcdef", guard);
        let router = Arc::clone(&app).router();
        Self {
            app,
            store,
            document,
            router,
        }
    }

    /// Sends a request and reads the answer, unless it is a stream.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let (head, body) = self.open(request).await.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let mut reply = Reply {
            status,
            headers,
            body: Vec::new(),
        };
        if reply.content_type() != Some("text/event-stream") {
            reply.body = body.collect().await.unwrap().to_bytes().to_vec();
        }
        reply
    }

    /// Sends a request.
    pub(crate) async fn open(&self, request: Request<Body>) -> axum::http::Response<Body> {
        // A router is always ready.
        self.router.clone().call(request).await.unwrap()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        let paths = self.document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(|(method, told)| Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                told: told.clone(),
            })
        });
        operations.collect()
    }

    pub(crate) fn operation(&self, method: &str, path: &str) -> Operation {
        let told = self.document["paths"][path][method.to_lowercase()].clone();
        assert!(told.is_object(), "{method} {path} is not told");
        Operation {
            method: method.to_owned(),
            path: path.to_owned(),
            told,
        }
    }

    /// Says what of an answer the document does not tell.
    pub(crate) fn judge(&self, operation: &Operation, reply: &Reply) -> Result<(), String> {
        let response = &operation.told["responses"][reply.status.to_string()];
        if response.is_null() {
            return Err(format!("status {} is not told", reply.status));
        }
        let told = |name: &str| {
            let headers = response["headers"].as_object().into_iter().flatten();
            headers
                .map(|(told, _)| told)
                .any(|told| told.eq_ignore_ascii_case(name))
        };
        for name in reply.headers.keys().map(|name| name.as_str()) {
            let ours = name.starts_with("x-mvm-")
                || matches!(name, "location" | "retry-after" | "www-authenticate");
            if ours && !told(name) {
                return Err(format!("header {name} is not told"));
            }
        }
        for name in ["x-mvm-node", "retry-after", "location", "www-authenticate"] {
            if told(name) && reply.header(name).is_none() {
                return Err(format!("header {name} is told and missing"));
            }
        }
        let content = response["content"].as_object().unwrap();
        let Some(content_type) = reply.content_type() else {
            let empty = content.is_empty() && reply.body.is_empty();
            return if empty {
                Ok(())
            } else {
                Err("there is no content type".into())
            };
        };
        let Some(told) = content.get(content_type) else {
            return Err(format!("content type {content_type} is not told"));
        };
        if !content_type.ends_with("json") {
            return Ok(());
        }
        let body = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        validate(&self.document, &told["schema"], &body)
    }
}
