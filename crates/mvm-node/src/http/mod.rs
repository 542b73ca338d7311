//! The node's HTTP interface.
//!
//! A handler reads a request into a command or query, hands it to the [`Store`], and turns the
//! answer into HTTP. `routes` is the one list of them, also for the OpenAPI document. It decides nothing about jobs ([`mvm_queue`]) or consensus ([`crate::store`]).
//! `docs/api.md` shows every route with examples; a test runs them.

mod asking;
mod body;
mod cluster;
mod events;
mod form;
pub(crate) mod internal;
mod openapi;
mod page;
mod problem;
mod queue;
mod routes;
mod schema;
mod v1;
mod view;

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::Response,
    routing::post,
};

pub use self::{
    body::BODY_BYTES_MAX,
    events::STREAMS_MAX,
    routes::Route,
    v1::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
};
use self::{events::Streams, problem::Problem};
use crate::{
    id::IdMaker,
    store::{MemoryStore, Store},
};

/// Tells which node answered.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-mvm-node");

/// What all handlers share.
#[derive(Debug)]
pub struct App<S> {
    store: Arc<S>,
    node: u64,
    ids: IdMaker,
    secret: blake3::Hash,
    streams: Streams,
}

impl<S: Store> App<S> {
    /// The interface of node `node` to `store`. Other nodes prove themselves by `secret`.
    pub fn new(store: Arc<S>, node: u64, secret: &str) -> Arc<Self> {
        // Configuration checks that numbers fit; folding keeps this total for tests and tools.
        let ids = IdMaker::new(u16::try_from(node).unwrap_or(u16::MAX));
        Arc::new(Self {
            store,
            node,
            ids,
            secret: blake3::hash(secret.as_bytes()),
            streams: Streams::default(),
        })
    }

    /// Ends all streams of events and lets none begin: a server that is to close waits for its connections.
    pub fn end_streams(&self) {
        self.streams.close();
    }

    /// The routes, ready to be served.
    pub fn router(self: Arc<Self>) -> Router {
        let public = routes::endpoints::<S>().into_iter();
        public
            .fold(Router::new(), |router, endpoint| {
                router.route(endpoint.route.path, endpoint.handler)
            })
            .route(internal::PROPOSE, post(internal::propose::<S>))
            .route(internal::READ, post(internal::read::<S>))
            .route(internal::LEAD, post(internal::lead::<S>))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self),
                name_node::<S>,
            ))
            .with_state(self)
    }
}

/// The public routes, in the order in which one gets to know them.
pub fn routes() -> &'static [Route] {
    static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
        // They are the same for every store.
        let endpoints = routes::endpoints::<MemoryStore>();
        endpoints
            .into_iter()
            .map(|endpoint| endpoint.route)
            .collect()
    });
    &ROUTES
}

/// The public routes as text, one per line.
pub fn api_help() -> String {
    routes().iter().fold(String::new(), |mut help, route| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            help,
            "{:<4} {:<32} {}",
            route.method, route.path, route.summary
        );
        help
    })
}

async fn name_node<S: Store>(
    State(app): State<Arc<App<S>>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(NODE_HEADER, HeaderValue::from(app.node));
    response
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
        .hint("GET / shows what there is; docs/api.md lists the routes")
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let allowed: Vec<&str> = routes()
        .iter()
        .filter(|route| route.path == uri.path())
        .map(|route| route.method)
        .collect();
    Problem::method_not_allowed(format!("{} does not take {method}", uri.path())).hint(
        if allowed.is_empty() {
            "see docs/api.md".into()
        } else {
            format!("use {}", allowed.join(" or "))
        },
    )
}
