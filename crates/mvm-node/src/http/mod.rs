//! The node's HTTP interface.
//!
//! A handler reads a request into a command or query, hands it to the [`Store`], and turns the
//! answer into HTTP. `routes` is the one list of them, also for the OpenAPI document and for who may use them. Nothing
//! about jobs ([`mvm_queue`]) or consensus ([`crate::store`]) is decided here.
//! `docs/api.md` shows every route with examples; a test runs them.

mod access;
mod asking;
mod backups;
mod body;
mod cluster;
mod download;
mod events;
mod form;
mod host;
pub(crate) mod internal;
mod metrics;
mod observe;
mod openapi;
mod output;
mod page;
mod problem;
mod queue;
mod rate;
mod redact;
mod routes;
mod schedules;
mod schema;
mod server;
mod v1;
mod view;
mod workflow;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::Response,
    routing::post,
};

pub use self::{
    access::Guard,
    body::BODY_BYTES_MAX,
    events::STREAMS_MAX,
    rate::RateLimiter,
    routes::Route,
    server::{HEAD_TIMEOUT, Limits, serve},
    v1::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
};
use self::{events::Streams, problem::Problem};
use crate::{
    id::IdMaker,
    store::{MemoryStore, SECRET_HEADER, Store},
    worker::{Control, Outputs},
};

/// Tells which node answered.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-mvm-node");

/// What the interface tells of besides the store; of a node that runs no jobs by default.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// The node's worker.
    pub(crate) control: Arc<Control>,
    /// What the worker offers.
    pub(crate) labels: Vec<String>,
    /// Output on the node's disk.
    pub(crate) outputs: Arc<Outputs>,
    /// Where the nodes' interfaces are, by number.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Whether they speak TLS.
    pub(crate) speaks_tls: bool,
    /// What workflows may have.
    pub(crate) flow_limits: mvm_flow::limits::Limits,
}

/// What all handlers share.
#[derive(Debug)]
pub struct App<S> {
    store: Arc<S>,
    node: u64,
    ids: IdMaker,
    secret: blake3::Hash,
    streams: Streams,
    guard: Guard,
    host: Host,
}

impl<S: Store> App<S> {
    /// The interface of node `node` to `store`, open to everybody. Other nodes prove themselves by `secret`.
    pub fn new(store: Arc<S>, node: u64, secret: &str) -> Arc<Self> {
        Self::guarded(store, node, secret, Guard::default())
    }

    /// The same, behind a guard.
    pub fn guarded(store: Arc<S>, node: u64, secret: &str, guard: Guard) -> Arc<Self> {
        Self::on_host(store, node, secret, guard, Host::default())
    }

    /// The same, of a node that may run jobs.
    pub(crate) fn on_host(
        store: Arc<S>,
        node: u64,
        secret: &str,
        guard: Guard,
        host: Host,
    ) -> Arc<Self> {
        // Configuration checks that numbers fit; folding keeps this total for tests and tools.
        let ids = IdMaker::new(u16::try_from(node).unwrap_or(u16::MAX));
        Arc::new(Self {
            store,
            node,
            ids,
            secret: blake3::hash(secret.as_bytes()),
            streams: Streams::default(),
            guard,
            host,
        })
    }

    /// Ends all streams of events and lets none begin: a server that is to close waits for its connections.
    pub fn end_streams(&self) {
        self.streams.close();
    }

    /// Whether a request comes from another node of the cluster.
    fn is_member(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(SECRET_HEADER);
        // Hashes compare in constant time.
        given.is_some_and(|value| blake3::hash(value.as_bytes()) == self.secret)
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
            .route(internal::BACK_UP, post(internal::back_up::<S>))
            .route(internal::STANDING, post(internal::standing::<S>))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self),
                access::admit::<S>,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self),
                name_node::<S>,
            ))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self),
                observe::observe::<S>,
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
