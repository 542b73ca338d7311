//! The node's HTTP interface.
//!
//! A handler reads a request into a command or query, hands it to the [`Store`], and turns the
//! answer into HTTP. It decides nothing about jobs ([`mvm_queue`]) or consensus ([`crate::store`]).
//! `docs/api.md` shows every route with examples; a test runs them.

mod asking;
mod backups;
mod body;
mod cluster;
mod form;
pub(crate) mod internal;
mod page;
mod problem;
mod queue;
mod v1;
mod view;

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};

use self::problem::Problem;
pub use self::{
    body::BODY_BYTES_MAX,
    v1::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
};
use crate::{id::IdMaker, store::Store};

/// Tells which node answered.
const NODE_HEADER: HeaderName = HeaderName::from_static("x-mvm-node");

/// What all handlers share.
#[derive(Debug)]
pub struct App<S> {
    store: Arc<S>,
    node: u64,
    ids: IdMaker,
    secret: blake3::Hash,
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
        })
    }

    /// The routes, ready to be served.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page::page::<S>))
            .route("/new-job", post(queue::new_job::<S>))
            .route("/queue/publish", post(queue::publish::<S>))
            .route("/queue/claim", post(queue::claim::<S>))
            .route(
                "/queue/status/{id}",
                post(queue::set_status::<S>).get(queue::status::<S>),
            )
            .route("/queue/list", get(queue::list::<S>))
            .route("/queue/stats", get(queue::stats::<S>))
            .route("/api/v1/jobs", post(v1::submit_job::<S>).get(v1::jobs::<S>))
            .route("/api/v1/jobs/{id}", get(v1::job::<S>))
            .route("/api/v1/jobs/{id}/attempts", get(v1::attempts::<S>))
            .route("/api/v1/jobs/{id}/log", get(v1::log::<S>))
            .route("/api/v1/jobs/{id}/start", post(v1::start::<S>))
            .route("/api/v1/jobs/{id}/renew", post(v1::renew::<S>))
            .route("/api/v1/jobs/{id}/finish", post(v1::finish::<S>))
            .route("/api/v1/jobs/{id}/cancel", post(v1::cancel::<S>))
            .route("/api/v1/jobs/{id}/retry", post(v1::retry::<S>))
            .route("/api/v1/claims", post(v1::claim::<S>))
            .route("/api/v1/stats", get(v1::stats::<S>))
            .route(
                "/api/v1/backups",
                post(backups::make::<S>).get(backups::list::<S>),
            )
            .route("/api/v1/backups/{id}", get(backups::fetch::<S>))
            .route("/health", get(cluster::health::<S>))
            .route("/ready", get(cluster::ready::<S>))
            .route("/cluster", get(cluster::cluster::<S>))
            .route(internal::PROPOSE, post(internal::propose::<S>))
            .route(internal::READ, post(internal::read::<S>))
            .route(internal::LEAD, post(internal::lead::<S>))
            .route(internal::BACK_UP, post(internal::back_up::<S>))
            .route(internal::STANDING, post(internal::standing::<S>))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self),
                name_node::<S>,
            ))
            .with_state(self)
    }
}

/// One public route, for help texts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path; `{id}` stands for a job's id, or a backup's name.
    pub path: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
}

/// The public routes, in the order in which one gets to know them.
pub const ROUTES: [Route; 26] = [
    Route {
        method: "POST",
        path: "/api/v1/jobs",
        summary: "submit a job (JSON: kind, payload, labels, priority ...)",
    },
    Route {
        method: "GET",
        path: "/api/v1/jobs",
        summary: "jobs by page (limit, after, order, state, label ...)",
    },
    Route {
        method: "GET",
        path: "/api/v1/jobs/{id}",
        summary: "one job",
    },
    Route {
        method: "GET",
        path: "/api/v1/jobs/{id}/attempts",
        summary: "the attempts at a job",
    },
    Route {
        method: "GET",
        path: "/api/v1/jobs/{id}/log",
        summary: "the output of an attempt (attempt, from)",
    },
    Route {
        method: "POST",
        path: "/api/v1/jobs/{id}/cancel",
        summary: "cancel a job",
    },
    Route {
        method: "POST",
        path: "/api/v1/jobs/{id}/retry",
        summary: "try a failed or dead job again",
    },
    Route {
        method: "POST",
        path: "/api/v1/claims",
        summary: "take jobs (JSON: worker, slots, labels, kinds)",
    },
    Route {
        method: "POST",
        path: "/api/v1/jobs/{id}/start",
        summary: "the worker begins (JSON: token)",
    },
    Route {
        method: "POST",
        path: "/api/v1/jobs/{id}/renew",
        summary: "the worker lives (JSON: token)",
    },
    Route {
        method: "POST",
        path: "/api/v1/jobs/{id}/finish",
        summary: "the worker is done (JSON: token, report)",
    },
    Route {
        method: "GET",
        path: "/api/v1/stats",
        summary: "number of jobs in each state",
    },
    Route {
        method: "POST",
        path: "/api/v1/backups",
        summary: "make a backup on every node",
    },
    Route {
        method: "GET",
        path: "/api/v1/backups",
        summary: "this node's backups, the newest first",
    },
    Route {
        method: "GET",
        path: "/api/v1/backups/{id}",
        summary: "fetch a backup",
    },
    Route {
        method: "POST",
        path: "/new-job",
        summary: "submit a job that fetches a URL (form or JSON: url)",
    },
    Route {
        method: "POST",
        path: "/queue/publish",
        summary: "submit a job of any kind (JSON: kind, payload)",
    },
    Route {
        method: "POST",
        path: "/queue/claim",
        summary: "take one job (JSON: worker, kinds)",
    },
    Route {
        method: "POST",
        path: "/queue/status/{id}",
        summary: "move a job on (JSON: state, token)",
    },
    Route {
        method: "GET",
        path: "/queue/status/{id}",
        summary: "one job",
    },
    Route {
        method: "GET",
        path: "/queue/list",
        summary: "as /api/v1/jobs",
    },
    Route {
        method: "GET",
        path: "/queue/stats",
        summary: "as /api/v1/stats",
    },
    Route {
        method: "GET",
        path: "/health",
        summary: "200 while the process lives",
    },
    Route {
        method: "GET",
        path: "/ready",
        summary: "200 while this node reaches a leader with a quorum",
    },
    Route {
        method: "GET",
        path: "/cluster",
        summary: "members, leader, term, log",
    },
    Route {
        method: "GET",
        path: "/",
        summary: "a page for people",
    },
];

/// The public routes as text, one per line.
pub fn api_help() -> String {
    ROUTES.iter().fold(String::new(), |mut help, route| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            help,
            "{:<4} {:<28} {}",
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
    let allowed: Vec<&str> = ROUTES
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
